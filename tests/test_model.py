"""The byproduct head on many backbones, and in a plain training loop."""

import pytest
import timm
import torch

import luab
from luab.errors import ConfigError
from luab.model import Normalise, build_model, with_byproduct_head
from luab.study.config import Recipe

RECIPE = Recipe(epochs=1, batch_size=2, input_px=64, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0)
VIT = RECIPE.model_copy(update={"model_kwargs": {"img_size": 64}})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": 64}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
    ],
)
def test_the_head_adds_points_and_leaves_the_logits_unchanged(name, arguments):
    backbone = timm.create_model(name, num_classes=10, **arguments).eval()
    model = with_byproduct_head(backbone).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        outputs = model(images)
        logits, points = outputs["logits"], outputs["points"]
        assert torch.allclose(logits, backbone(images), atol=1e-6)
    assert logits.shape == (2, 10) and points.shape == (2, 2)


@pytest.mark.parametrize(("name", "recipe"), [("test_resnet", RECIPE), ("test_vit", VIT)])
def test_baseline_and_luab_start_from_equal_weights(name, recipe):
    torch.manual_seed(7)
    baseline = build_model(name, recipe, outputs=0)
    torch.manual_seed(7)
    luab_model = build_model(name, recipe, outputs=2)
    state = luab_model.backbone.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in baseline.backbone.state_dict().items())
    assert baseline.byproduct is None and luab_model.byproduct.out_features == 2 and luab_model.training
    with torch.no_grad():
        assert set(baseline.eval()(torch.zeros(1, 3, 64, 64))) == {"logits", "pooled", "features"}


def test_ten_lines_in_a_plain_training_loop():
    model = luab.with_byproduct_head(timm.create_model("test_resnet", num_classes=5))
    objective = luab.LuabLoss(weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8) % 5
    points, weights = torch.rand(8, 2, generator=generator), torch.ones(8, dtype=torch.float64)
    batch = {"images": images, "labels": labels, "points": points, "weights": weights}
    losses = []
    for _ in range(8):
        parts = objective(model(batch["images"]), batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert losses[-1] < losses[0]


def test_names_of_the_package_are_imported_on_first_use():
    assert "ImageNetAB" in luab.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        luab.nothing  # noqa: B018


def test_unknown_backbones_and_arguments_are_refused():
    with pytest.raises(ConfigError, match="Did you mean resnet50"):
        build_model("resnet50_", RECIPE, outputs=2)
    with pytest.raises(ConfigError, match="refused model_kwargs"):
        build_model("test_vit", RECIPE.model_copy(update={"model_kwargs": {"dpth": 1}}), outputs=2)


def test_normalise_by_hand():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1).view(1, 3, 1, 2)
    black, white = Normalise()(pixels)[0, 0, 0].tolist()
    assert black == pytest.approx(-0.485 / 0.229) and white == pytest.approx((1 - 0.485) / 0.229)
