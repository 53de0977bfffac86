"""Uses of byproducts other than regression: losses worked out by hand, gradients, and a small training of each."""

import math
import signal

import pytest
import timm
import torch

from luab.cam import class_maps
from luab.errors import ConfigError, JobError
from luab.model import LuabModel
from luab.objective import Classification, Objective
from luab.study.paths import Run
from luab.study.supervisions import Supervision, entries, mistakes
from luab.terms.attribution import Attribution, evidence
from luab.terms.heatmap import Heatmap
from luab.training.train import train
from luab.training.trainer import Trainer

SHARP, WIDE = {"kind": "gaussian", "sigma": 0.01}, {"kind": "gaussian", "sigma": 0.25}
POINT = {"points": torch.tensor([[0.75, 0.5], [-1.0, -1.0]]), "weights": torch.tensor([1.0, 0.0])}
NEAR, FAR = 1.0, math.exp(-(0.5**2) / (2 * 0.25**2))  # the wide Gaussian at the two positions (0.75, 0.25)


def _linear(values):
    """Outputs of a model whose logits of both classes are the mean of one feature, and minus it: A is the feature."""
    grid = torch.tensor(values).view(2, 1, 2, 1).requires_grad_()
    score = grid.mean(dim=(1, 2))
    return {"grid": grid, "logits": torch.cat([score, -score], dim=1)}


@pytest.mark.parametrize(
    ("loss", "shape", "expected"),
    [
        ("point_ce", SHARP, -math.log(3 / 4)),  # the chances are 1/4 and 3/4
        ("point_ce", WIDE, -(NEAR * math.log(3 / 4) + FAR * math.log(1 / 4)) / (NEAR + FAR)),
        ("energy", SHARP, 0.0),
        ("l1", SHARP, 0.0),
    ],
)
def test_attribution_by_hand(loss, shape, expected):
    outputs, batch = _linear([[0.0, math.log(3)], [5.0, 1.0]]), {**POINT, "labels": torch.tensor([0, 0])}
    assert Attribution(1.0, loss, shape)(outputs, batch, None).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("energy", 1 - (NEAR * 1 + FAR * 3) / 4), ("l1", (abs(1 - FAR) + abs(1 / 3 - NEAR)) / 2)],
)
def test_energy_and_l1_of_a_map_that_is_high_at_the_wrong_place(loss, expected):
    outputs, batch = _linear([[3.0, 1.0], [0.0, 0.0]]), {**POINT, "labels": torch.tensor([0, 0])}
    assert Attribution(1.0, loss, WIDE)(outputs, batch, None).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("loss", "expected"), [("energy", 1.0), ("l1", (FAR + NEAR) / 2)])
def test_a_map_without_positive_values_gives_finite_losses_and_gradients(loss, expected):
    outputs, batch = _linear([[3.0, 1.0], [0.0, 0.0]]), {**POINT, "labels": torch.tensor([1, 0])}
    value = Attribution(1.0, loss, WIDE)(outputs, batch, None)
    (gradient,) = torch.autograd.grad(value, outputs["grid"])
    assert value.item() == pytest.approx(expected, abs=1e-6) and gradient.isfinite().all()


def test_after_mixup_each_point_is_compared_with_the_map_of_its_own_class():
    outputs = _linear([[0.0, math.log(3)], [0.0, 0.0]])
    batch = {
        "points": torch.tensor([[[0.75, 0.5], [0.75, 0.5]], [[0.5, 0.5], [-1, -1]]]),
        "weights": torch.tensor([[0.7, 0.3], [0.0, 0.0]]),
        "labels": torch.ones(2, 2) / 2,
        "point_labels": torch.tensor([[0, 1], [1, 0]]),
    }
    expected = -0.7 * math.log(3 / 4) - 0.3 * math.log(1 / 4)
    assert Attribution(1.0, "point_ce", SHARP)(outputs, batch, None).item() == pytest.approx(expected)


def test_heatmap_by_hand_and_with_a_map_per_class():
    maps = torch.tensor([[[[0.0, math.log(3)]]], [[[0.0, 0.0]]]])  # [2, 1, 1, 2]
    assert Heatmap(1.0, SHARP)({"maps": maps}, POINT, None).item() == pytest.approx(-math.log(3 / 4))
    two = torch.tensor([[[[0.0, math.log(3)]], [[math.log(7), 0.0]]]])  # one image, two classes
    batch = {"points": torch.tensor([[[0.75, 0.5], [0.25, 0.5]]]), "weights": torch.tensor([[1.0, 1.0]])}
    expected = -(math.log(3 / 4) + math.log(7 / 8)) / 2
    assert Heatmap(1.0, SHARP)({"maps": two}, batch, None).item() == pytest.approx(expected)
    assert Heatmap(1.0, SHARP)({"maps": two}, batch, torch.tensor(4.0)).item() == pytest.approx(expected / 2)


def test_without_a_point_a_term_is_zero():
    batch = {"points": torch.full((2, 2), -1.0), "weights": torch.zeros(2)}
    maps = torch.zeros(2, 1, 2, 2, requires_grad=True)
    value = Heatmap(1.0, SHARP)({"maps": maps}, batch, None)
    assert value.item() == 0 and torch.autograd.grad(value, maps)[0].abs().max() == 0


@pytest.mark.parametrize("loss", ["point_ce", "energy", "l1"])
def test_gradients_of_attribution_are_right(loss):
    """Through the classifier too: its weights change the map."""
    generator = torch.Generator().manual_seed(0)
    term = Attribution(1.0, loss, WIDE)
    batch = {"points": torch.tensor([[0.3, 0.6]]).double(), "weights": torch.ones(1), "labels": torch.tensor([1])}

    def value(features, weight):
        logits = features.tanh().mean(dim=(1, 2)) @ weight.T
        return term({"grid": features, "logits": logits}, batch, None)

    features = torch.rand(1, 3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (features, weight))


def test_gradients_of_the_heatmap_are_right():
    maps = torch.rand(2, 1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: Heatmap(1.0, WIDE)({"maps": maps}, POINT, None), maps)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": 64}),
        ("test_vit", {"img_size": 64, "global_pool": "avg"}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
        ("mobilenetv3_small_050", {}),
    ],
)
def test_the_map_is_the_one_of_the_localisation_benchmarks_and_has_a_second_derivative(name, arguments):
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=10, **arguments).eval()
    model, images, labels = LuabModel(backbone, 0, "attribution").eval(), torch.rand(2, 3, 64, 64), torch.tensor([0, 4])
    outputs = model(images)
    assert torch.allclose(outputs["logits"], backbone(images), atol=1e-5)
    maps, expected = evidence(outputs, labels), class_maps(LuabModel(backbone, 0).eval(), images, labels)
    ours = maps / maps[0].numel()  # the benchmarks take the mean of the gradient
    assert torch.allclose(ours.clamp(min=0) if "vit" in name else ours, expected, atol=1e-5)
    Attribution(1.0, "point_ce", WIDE)(outputs, {**POINT, "labels": labels}, None).backward()
    gradient = torch.stack([p.grad.abs().sum() for p in backbone.parameters() if p.grad is not None])
    assert gradient.isfinite().all() and gradient.sum() > 0


def test_the_gradient_ratio_of_both_uses_is_measured():
    torch.manual_seed(0)
    images, batch = torch.rand(2, 3, 64, 64), {**POINT, "labels": torch.tensor([0, 4])}
    for use, term, points in (
        ("attribution", Attribution(2.0, "point_ce", WIDE), 0),
        ("heatmap", Heatmap(2.0, WIDE), 2),
    ):
        outputs = LuabModel(timm.create_model("test_resnet", num_classes=10), points, use)(images)
        objective = Objective([Classification(), term])
        squared = objective.squared_gradients(objective(outputs, batch), outputs)
        assert objective.ratios == (f"{use}_gradient_ratio",) and squared.shape == (2, 1) and (squared > 0).all()


def test_backbones_without_positions_are_refused_by_name():
    model = LuabModel(timm.create_model("test_vit", num_classes=10, img_size=64), 0, "attribution")
    model.backbone.num_prefix_tokens = 0
    with pytest.raises(ConfigError, match="VisionTransformer: expected a feature map or one square of patch tokens"):
        model(torch.zeros(1, 3, 64, 64))


def test_mistakes_of_uses_are_named():
    given = entries({
        "none": {"use": "heatmap"},
        "click": {"loss": "energy"},
        "seen": {"points": "click", "use": "attribution", "loss": "energy", "map": {"sigma": 0.2}},
        "dense": {"points": "click", "use": "heatmap", "loss": "l1"},
    })  # fmt: skip
    given = {name: Supervision.model_validate(entry) for name, entry in given.items()}
    found = list(mistakes(given, ("none", "click"), heads=True))
    assert [line.partition(":")[0] for line in found] == [
        "supervisions.none.use", "supervisions.click.loss", "supervisions.seen.use", "supervisions.dense.loss"
    ]  # fmt: skip
    assert "attribution needs one label per image" in found[2]
    assert given["seen"].settings == {"loss": "energy", "map": {"kind": "gaussian", "sigma": 0.2}}


TRAINED = [
    ("test_resnet", {"use": "attribution", "map": {"sigma": 0.2}}, {}),
    ("test_resnet", {"use": "attribution", "loss": "energy"}, {"mixup": 0.5, "cutmix": 0.5}),
    ("test_vit", {"use": "attribution", "loss": "l1"}, {"drop_path": 0.1}),
    ("test_resnet", {"use": "heatmap"}, {"mixup": 0.5, "cutmix": 0.5}),
    ("test_vit", {"use": "heatmap"}, {"ema_decay": 0.9}),
    ("test_resnet", {"use": "pooling", "points": "trace", "map": {"kind": "density"}}, {"mixup": 0.5, "cutmix": 0.5}),
    ("test_vit", {"use": "pooling", "pool": "latent"}, {}),
    ("test_resnet", {"use": "weighting"}, {"mixup": 0.5, "cutmix": 0.5}),
    ("test_vit", {"use": "weighting", "first": "easy"}, {"drop_path": 0.1}),
    ("test_resnet", {"use": "harmonizer"}, {}),
    ("test_vit", {"use": "rrr"}, {"mixup": 0.5, "cutmix": 0.5}),
]


@pytest.mark.parametrize(("backbone", "entry", "recipe"), TRAINED)
def test_a_training_lowers_the_loss_and_resumes_bit_for_bit(toy_study, tmp_path, monkeypatch, backbone, entry, recipe):
    run, supervisions = Run("imagenet", backbone, "used", 0.5, 0), {"none": {}, "used": {"points": "click", **entry}}
    counted = () if entry["use"] == "weighting" else ("points",)
    build = {"supervisions": supervisions, "recipe": {"input_px": 64, "epochs": 6, **recipe}}
    if "vit" in backbone:
        build["recipe"]["model_kwargs"] = {"img_size": 64}
    whole = toy_study(backbone, paths={"results": str(tmp_path / "whole")}, **build)
    result = train(whole, run)
    log = (whole.layout.run(run) / "log.csv").read_text(encoding="utf-8").splitlines()
    first, last = (dict(zip(log[0].split(","), map(float, line.split(",")), strict=True)) for line in (log[1], log[-1]))
    assert set(first) == {
        "epoch", "lr", "loss", "classification", *counted, entry["use"], f"{entry['use']}_gradient_ratio"
    }  # fmt: skip
    # With mixup, the term differs too much from batch to batch; so does that of the Harmonizer, whose map is scaled by
    # the model's. A weighted mean is no goal of its own.
    falling = "loss" if "mixup" in recipe or entry["use"] in ("weighting", "harmonizer") else entry["use"]
    assert last[falling] < first[falling] and last[f"{entry['use']}_gradient_ratio"] > 0
    study, step = toy_study(backbone, **build), Trainer.step

    def warned(trainer, *arguments):
        if trainer.done == 4:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", warned)
        with pytest.raises(JobError, match="stopped by SIGTERM"):
            train(study, run)
    assert train(study, run)["model_sha256"] == result["model_sha256"]
