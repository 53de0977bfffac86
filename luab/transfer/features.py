"""Feature maps of a timm backbone, as torchvision's detectors and segmenters read them."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d, freeze_batch_norm_2d
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from luab.errors import ConfigError, did_you_mean
from luab.study.transfer_recipes import TransferRecipe

FINEST_STRIDE = 4
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Arguments by which timm's ViTs, timm's Swins and other models accept images of any size."""


def classifier_of(backbone: str, arguments: dict[str, Any]) -> nn.Module:
    """Builds the classifier whose weights a run has; its weights are random.

    Raises:
        ConfigError: timm has no such model, or refuses the arguments.
    """
    name = backbone.partition(".")[0]
    if not timm.is_model(name):
        raise ConfigError(
            f"backbones: timm {timm.__version__} has no model {name!r}. {did_you_mean(name, timm.list_models())}"
        )
    return _created(backbone, arguments)


def strides_of(backbone: str, arguments: dict[str, Any]) -> list[int]:
    """Returns the strides of a backbone's feature maps, finest first: image side divided by the side of the map.

    They are all equal for a plain ViT.

    Raises:
        ConfigError: timm has no such model, refuses the arguments, or cannot return feature maps of it.
    """
    levels: Any = getattr(classifier_of(backbone, arguments), "feature_info", None)
    if not levels:
        raise _refused(backbone, "it does not list its feature maps")
    return [int(level["reduction"]) for level in levels]


def feature_maps_of(backbone: str, arguments: dict[str, Any], recipe: TransferRecipe, levels: Sequence[int]) -> Any:
    """Builds timm's feature extractor of a backbone.

    Its `model` is the backbone without its classifier, under the names of the classifier's weights, and without what
    only later levels need.

    Args:
        backbone: timm model name.
        arguments: model_kwargs of the recipe that the backbone was trained with.
        recipe: Gives stochastic depth, and what does not train.
        levels: Numbers of the feature maps to return, see `strides_of`.

    Raises:
        ConfigError: timm cannot return feature maps of this backbone, or refuses the arguments.
    """
    kept = {name: value for name, value in arguments.items() if name != "num_classes"}
    if recipe.drop_path or "drop_path_rate" in kept:  # that of the training would go on otherwise
        kept["drop_path_rate"] = recipe.drop_path
    features = {"features_only": True, "feature_cls": "getter", "out_indices": tuple(levels)}
    body: Any = _created(backbone, kept | features)
    if recipe.frozen_norm:
        body.model = freeze_batch_norm_2d(body.model)
    if recipe.frozen_stages:
        _freeze(body, recipe.frozen_stages)
    return body


def _created(backbone: str, arguments: dict[str, Any]) -> nn.Module:
    reasons = []
    for more in _ANY_SIZE:
        try:
            return timm.create_model(backbone, pretrained=False, **{**arguments, **more})
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
            reasons.append(f"{type(error).__name__}: {error}")
    raise _refused(backbone, f"timm refuses it: {reasons[-1]}")


def _refused(backbone: str, reason: str) -> ConfigError:
    hint = " Set output_stride to 32 in the recipe of the transfer, or" if "output_stride" in reason else ""
    return ConfigError(
        f"{backbone}: expected a backbone of which timm returns feature maps, but {reason}.{hint or ' Correct'} "
        "model_kwargs of the recipe that it was trained with, or choose another backbone for this transfer."
    )


def _freeze(body: Any, stages: int) -> None:
    """Keeps the weights of the first levels, and of all before them, as they are."""
    modules = [level["module"] for level in body.model.feature_info]
    if stages >= len(modules):
        raise ConfigError(
            f"frozen_stages is {stages}, but this backbone has {len(modules)} levels of features, of which at least "
            "one must train. Lower it in the recipe."
        )
    weights = dict(body.model.named_parameters())
    names = list(weights)
    # The level itself may have none: the activation of a ResNet's stem.
    after = next((k for k, name in enumerate(names) if name.startswith(f"{modules[stages]}.")), len(names))
    for name in names[:after]:
        weights[name].requires_grad_(False)


class SimpleFeaturePyramid(nn.Module):
    """Feature maps at several strides from the last map of a plain ViT.

    Each map is a transposed convolution or a pooling of the last one, then a 1 x 1 and a 3 x 3 convolution.

    Args:
        width: Channels of the last feature map.
        stride: Image side divided by the side of this map.
        strides: Those of the maps to return; powers of two times `stride`.
        channels: Of each returned map.

    Raises:
        ConfigError: A stride is not a power of two times `stride`, as with patches of 14 pixels.

    Source:
        Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, section 3. ASSUME: for
        other patches than theirs of 16 pixels, the same steps up and down from the last map.
    """

    def __init__(self, width: int, stride: int, strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for wanted in strides:
            steps = math.log2(stride / wanted)
            if steps != int(steps):
                raise ConfigError(
                    f"Expected patches whose side is a power of two times {wanted} pixels for a simple feature "
                    f"pyramid, found {stride}. Choose a backbone with patches of 8, 16 or 32 pixels."
                )
            self.levels.append(_level(width, int(steps), channels))

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Maps [batch, width, h, w] to one map [batch, channels, h_k, w_k] per stride."""
        return [level(features) for level in self.levels]


def _level(width: int, steps: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(steps):
        layers += [nn.ConvTranspose2d(width, width // 2, 2, stride=2)]
        layers += [LayerNorm2d(width // 2), nn.GELU()] if k < steps - 1 else []
        width //= 2
    layers += [nn.MaxPool2d(2, stride=2) for _ in range(-steps)]
    layers += [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels)]
    layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels)]
    return nn.Sequential(*layers)


def pyramid_strides(recipe: TransferRecipe) -> list[int]:
    """Strides of the levels of a detector's feature pyramid that have a feature map of their own."""
    return [FINEST_STRIDE * 2**k for k in range(recipe.pyramid_levels)]


class Pyramid(nn.Module):
    """The feature pyramid of a detector: maps "0", "1", ... at strides 4, 8, ..., and "pool", the last one halved.

    torchvision's feature pyramid network on the maps of a hierarchical backbone, a simple feature pyramid on a plain
    ViT.

    Args:
        body: From `feature_maps_of`: the maps at these strides, or the last one of a plain ViT.
        recipe: Gives the number of levels and their channels.
        plain: Whether it is a plain ViT.

    Raises:
        ConfigError: The patches of the ViT have an unsuitable size.
    """

    def __init__(self, body: Any, recipe: TransferRecipe, plain: bool) -> None:
        super().__init__()
        self.body, self.plain, self.out_channels = body, plain, recipe.head_channels
        widths, strides = body.feature_info.channels(), pyramid_strides(recipe)
        self.fpn: nn.Module
        if plain:
            self.fpn = SimpleFeaturePyramid(widths[0], body.feature_info.reduction()[0], strides, self.out_channels)
        else:
            self.fpn = FeaturePyramidNetwork(widths, self.out_channels)
        self.pool = LastLevelMaxPool()
        self.names = [str(k) for k in range(len(strides))]

    def forward(self, images: torch.Tensor) -> "OrderedDict[str, torch.Tensor]":
        """Maps normalised images [batch, 3, h, w] to the feature maps by name."""
        maps = self.body(images)
        if self.plain:
            levels = self.fpn(maps[0])
        else:
            levels = list(self.fpn(OrderedDict(zip(self.names, maps, strict=True))).values())
        levels, names = self.pool(levels, levels, list(self.names))
        return OrderedDict(zip(names, levels, strict=True))
