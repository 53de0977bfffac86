"""A backbone whose classifier luab cannot use is refused by name before the training."""

import pytest
import timm
import torch
from torch import nn

from luab.errors import ConfigError
from luab.model import with_byproduct_head
from luab.study.config import Recipe
from luab.tasks import Outputs
from luab.training.trainer import build_checked_model, check_logits

RECIPE = Recipe(epochs=1, batch_size=2, input_px=64, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0)
NOT_SUPPORTED = r"^backbone {}: .* is not supported by luab because .*; choose another backbone, for example resnet50"
OUTPUTS = Outputs(1000, 2, False)


class _Auxiliary(nn.Module):
    """Adds the maximum of a second classifier to the logits, as VOLO does."""

    def __init__(self, backbone, share):
        super().__init__()
        self.backbone, self.share = backbone, share
        self.num_features = backbone.num_features
        self.forward_features = backbone.forward_features
        self.forward_head = backbone.forward_head
        self.get_classifier = backbone.get_classifier

    def forward(self, images):
        features = self.forward_features(images)
        return self.forward_head(features) + self.share * features.amax((2, 3))[:, :1]


@pytest.mark.parametrize("share", [0.5, 1e-3])
def test_logits_that_differ_from_those_of_timm_are_refused(share):
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=10)
    check_logits(with_byproduct_head(backbone), "test_resnet", 64)
    tampered = with_byproduct_head(_Auxiliary(backbone, share))
    with pytest.raises(ConfigError, match=NOT_SUPPORTED.format("tampered")):
        check_logits(tampered, "tampered", 64)


def test_a_classifier_of_zeros_hides_no_difference():
    backbone = timm.create_model("test_resnet", num_classes=10)
    nn.init.zeros_(backbone.get_classifier().weight)
    forward = backbone.forward
    backbone.forward = lambda images: 2 * forward(images)
    with pytest.raises(ConfigError, match=r"they differ by up to \d"):
        check_logits(with_byproduct_head(backbone), "doubled", 64)
    assert not backbone.get_classifier().weight.any()


def test_the_check_changes_no_weight_and_no_mode():
    model = with_byproduct_head(timm.create_model("test_resnet", num_classes=10))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    check_logits(model, "test_resnet", 64)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items()) and model.training
    assert torch.equal(torch.get_rng_state(), random)


FAMILIES = [
    ("levit_128s", {"img_size": 64}),
    ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 1}),
    ("pit_ti_distilled_224", {"img_size": 64}),
    ("resnetv2_50", {"layers": (1, 1, 1, 1)}),
    ("dla34", {}),
    ("samvit_base_patch16", {"img_size": 64, "depth": 1}),
    ("sequencer2d_s", {"img_size": 64, "layers": (1, 1, 1, 1)}),
    ("tnt_s_patch16_224", {"img_size": 64, "depth": 1}),
    ("volo_d1_224", {"img_size": 64}),
]


@pytest.mark.parametrize("supervision", ["none", "click"])
@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_unusual_backbones_work(name, arguments, supervision):
    recipe = RECIPE.model_copy(update={"model_kwargs": {"num_classes": 10, **arguments}})
    model = build_checked_model(name, recipe, Outputs(1000, 0 if supervision == "none" else 2, False))
    model.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        outputs = model(images)
        logits, points = outputs["logits"], outputs.get("points")
        assert torch.allclose(logits, model.backbone(images), atol=1e-4)
    assert (points is None) == (supervision == "none") and (points is None or points.shape == (2, 2))


def test_the_pooled_feature_of_two_classifiers():
    """The mean of what two classifiers of one width read; the inputs of two widths (96 and 192) after each other."""
    images = torch.rand(2, 3, 240, 240)
    for name, width in (("deit_tiny_distilled_patch16_224", 192), ("crossvit_tiny_240", 288)):
        backbone = timm.create_model(name, img_size=240, num_classes=10).eval()
        model = with_byproduct_head(backbone)
        assert model.byproduct.in_features == width
        with torch.no_grad():
            points = model.eval()(images)["points"]
            features = backbone.forward_features(images)
            if width == 192:
                pooled = (features[:, 0] + features[:, 1]) / 2
            else:
                pooled = torch.cat([one[:, 0] for one in features], dim=1)
            assert torch.allclose(points, model.byproduct(pooled), atol=1e-6)


def test_a_backbone_without_a_classifier_is_refused():
    with pytest.raises(ConfigError, match=r"Expected a backbone with a classifier, found Identity in its place"):
        with_byproduct_head(timm.create_model("test_resnet", num_classes=0))


def test_wrong_settings_of_a_supported_backbone_keep_their_own_message():
    with pytest.raises(ConfigError, match=r"does not accept images of 40 x 40 pixels.*img_size"):
        build_checked_model("test_vit", RECIPE.model_copy(update={"input_px": 40}), OUTPUTS)
    with pytest.raises(ConfigError, match="has no model 'resnet50_'"):
        build_checked_model("resnet50_", RECIPE, OUTPUTS)
