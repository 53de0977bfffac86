"""Shapes of features and outputs, what trains, and whose weights a network accepts."""

import pytest
import torch
from timm.layers import DropPath

from luab.errors import ConfigError, DataError
from luab.transfer.features import Pyramid, classifier_of, feature_maps_of, strides_of
from luab.transfer.networks import body_of, build, load_backbone, resized

IMAGES = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)]
TARGETS = [
    {"boxes": torch.tensor([[5.0, 5, 30, 40]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


@pytest.mark.parametrize(
    ("backbone", "strides", "last"), [("test_resnet", [2, 4, 8, 16, 32], 32), ("test_vit", [16] * 6, 16)]
)
def test_the_pyramid_of_a_cnn_and_of_a_plain_vit(recipe, backbone, strides, last):
    assert strides_of(backbone, {}) == strides and strides[-1] == last
    keys, plain = recipe(anchors_px=(8, 16, 32, 64)), backbone == "test_vit"
    body = feature_maps_of(backbone, {}, keys, [5] if plain else [1, 2, 3])
    maps = Pyramid(body, keys, plain)(torch.zeros(2, 3, 64, 96))  # 4 x 6 patches, whereas the ViT was made for 160 px
    assert {name: tuple(one.shape) for name, one in maps.items()} == {
        "0": (2, 16, 16, 24),
        "1": (2, 16, 8, 12),
        "2": (2, 16, 4, 6),
        "pool": (2, 16, 2, 3),
    }


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "convnext_atto"])
@pytest.mark.parametrize("network", ["faster_rcnn", "fcn", "deeplabv3"])
def test_every_weight_that_trains_has_a_gradient(recipe, backbone, network):
    """Weights without one would stop a training in several processes."""
    task = "detection" if network == "faster_rcnn" else "segmentation"
    keys = recipe(auxiliary=0.5, drop_path=0.0)
    if (backbone, task) == ("convnext_atto", "segmentation"):
        keys = recipe(output_stride=32)
    built = build(task, network, backbone, 3, keys).train()
    if task == "detection":
        loss = sum(built(IMAGES, TARGETS).values())
        assert loss.isfinite()
    else:
        outputs = built(torch.stack([IMAGES[0], IMAGES[0]]))
        assert set(outputs) == ({"out", "aux"} if keys.auxiliary else {"out"})
        assert all(one.shape == (2, 4, 64, 80) for one in outputs.values())
        loss = sum(one.square().mean() for one in outputs.values())
    loss.backward()
    assert [name for name, weight in built.named_parameters() if weight.requires_grad and weight.grad is None] == []


def test_a_detector_returns_boxes_in_pixels_of_the_original(recipe):
    built = build("detection", "faster_rcnn", "test_resnet", 3, recipe(shorter_px=32, longest_px=48)).eval()
    built.roi_heads.score_thresh = 0.0
    with torch.no_grad():
        (found,) = built([torch.rand(3, 100, 300)])
    assert found["boxes"][:, 0::2].max() > 48 and found["boxes"][:, 0::2].max() <= 300
    assert len(found["boxes"]) <= 100 and set(found["labels"].tolist()) <= {1, 2, 3}


def test_boxes_stay_exact_in_mixed_precision(recipe):
    built = build("detection", "faster_rcnn", "test_resnet", 3, recipe()).train()
    proposals = []
    built.rpn.register_forward_hook(lambda _, __, outputs: proposals.extend(outputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(built(IMAGES, TARGETS).values())
    assert loss.isfinite() and {boxes.dtype for boxes in proposals} == {torch.float32}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_stochastic_depth_is_that_of_the_fine_tuning_not_of_the_run(recipe, backbone):
    for rate in (0.0, 0.3):
        built = build("segmentation", "fcn", backbone, 3, recipe(drop_path=rate), {"drop_path_rate": 0.5})
        rates = [one.drop_prob for one in body_of(built).modules() if isinstance(one, DropPath)]
        assert max([0.0, *rates]) == pytest.approx(rate)


def test_images_are_resized_as_in_training():
    assert resized(torch.zeros(3, 100, 200), 50, 80).shape == (3, 40, 80)
    assert resized(torch.zeros(3, 100, 120), 50, 80).shape == (3, 50, 60)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_run_s_backbone_is_loaded_and_another_one_is_refused(recipe, backbone):
    run, built = classifier_of(backbone, {"num_classes": 7}), build("detection", "faster_rcnn", backbone, 3, recipe())
    load_backbone(built, backbone, {}, run.state_dict(), "run: expected the weights")
    own = body_of(built).model.state_dict()
    assert own and all(torch.equal(own[name], run.state_dict()[name]) for name in own)
    other = "test_vit" if backbone == "test_resnet" else "test_resnet"
    with pytest.raises(
        DataError, match=r"run: expected the weights, found another model's: .* tensors differ, first '"
    ):
        load_backbone(built, backbone, {}, classifier_of(other, {}).state_dict(), "run: expected the weights")


def test_norms_and_first_stages_stay_as_they_are(recipe):
    built = build("detection", "faster_rcnn", "test_resnet", 3, recipe(frozen_norm=True, frozen_stages=2)).train()
    trains = {name.split(".")[0] for name, weight in body_of(built).model.named_parameters() if weight.requires_grad}
    assert trains == {"layer2"}  # the levels up to stride 8; 0 is the stem, 1 is layer1
    before = {name: one.clone() for name, one in body_of(built).model.named_buffers() if "running" in name}
    built(IMAGES, TARGETS)
    after = dict(body_of(built).model.named_buffers())
    assert before and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("keys", "backbone", "text"),
    [
        (
            {"anchors_px": (8, 16, 32, 64, 128, 256)},
            "test_resnet",
            r"expected feature maps at strides \[4, 8, 16, 32, 64",
        ),
        ({"frozen_stages": 5, "frozen_norm": True}, "test_resnet", "frozen_stages is 5, but this backbone has"),
        ({}, "test_resnot", "has no model 'test_resnot'"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(recipe, keys, backbone, text):
    with pytest.raises(ConfigError, match=text):
        build("detection", "faster_rcnn", backbone, 3, recipe(**keys))


def test_dilation_that_timm_does_not_have_is_refused(recipe):
    with pytest.raises(ConfigError, match="Set output_stride to 32"):
        build("segmentation", "fcn", "mobilenetv3_small_050", 3, recipe())
    with pytest.raises(ConfigError, match="expected one of fcn, deeplabv3 for segmentation"):
        build("segmentation", "faster_rcnn", "test_resnet", 3, recipe())


def test_a_dilated_run_can_begin_a_detector(recipe):
    """The pilot's backbones were trained with a stride of 8."""
    arguments = {"channels": [8, 16, 24, 32], "output_stride": 8}
    built = build("detection", "faster_rcnn", "test_resnet", 3, recipe(anchors_px=(8, 16, 32, 64)), arguments)
    load_backbone(built, "test_resnet", arguments, classifier_of("test_resnet", arguments).state_dict(), "run")
