"""Score maps against the definition."""

import pytest
import timm
import torch

from luab.cam import class_maps
from luab.errors import ConfigError
from luab.model import with_byproduct_head

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 4, 9])


def _scaled(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def test_equals_classifier_weights_times_features_for_a_resnet():
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=10).eval()
    with torch.no_grad():
        features = backbone.forward_features(IMAGES)  # [3, 96, 2, 2]
        expected = torch.einsum("nc,nchw->nhw", backbone.fc.weight[CLASSES], features)
    found = class_maps(with_byproduct_head(backbone).eval(), IMAGES, CLASSES)
    assert torch.allclose(_scaled(found), _scaled(expected), atol=1e-4)
    assert torch.allclose(found * features[0, 0].numel(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("test_vit", {"img_size": 64}, (3, 4, 4)),
        ("test_convnext", {}, (3, 2, 2)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}, (3, 2, 2)),
    ],
)
def test_shapes_and_that_an_image_stands_alone(name, arguments, shape):
    torch.manual_seed(0)
    model = with_byproduct_head(timm.create_model(name, num_classes=10, **arguments)).eval()
    model.requires_grad_(False)
    maps = class_maps(model, IMAGES, CLASSES)
    assert maps.shape == shape and maps.dtype == torch.float32 and maps.isfinite().all()
    alone = class_maps(model, IMAGES[1:2], CLASSES[1:2])
    assert torch.allclose(maps[1:2], alone, atol=1e-5)
    if name == "test_vit":
        assert maps.min() >= 0


def test_a_backbone_without_a_map_is_refused():
    model = with_byproduct_head(timm.create_model("mixer_s32_224", num_classes=10, img_size=64)).eval()
    with pytest.raises(ConfigError, match="no score map is defined for features of shape"):
        class_maps(model, IMAGES, CLASSES)
