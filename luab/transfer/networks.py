"""The networks of a fine-tuning: torchvision's Faster R-CNN, FCN and DeepLabV3 on a timm backbone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.v2.functional import resize

from luab.errors import ConfigError
from luab.study.recipes import Preprocessing
from luab.study.transfer_recipes import TransferRecipe
from luab.study.transfers import NETWORKS, Network
from luab.training.pretrained import put_into
from luab.transfer.features import (
    Pyramid,
    SimpleFeaturePyramid,
    classifier_of,
    feature_maps_of,
    pyramid_strides,
    strides_of,
)

MOST_DETECTIONS = 100  # per image, as COCO's AP counts
_MULTIPLE = 32  # sides of a batch, as in torchvision's detectors
_POOLED = 7
_ATROUS_RATES = (12, 24, 36)  # torchvision's, at stride 8


def build(
    task: Literal["detection", "segmentation"],
    network: Network,
    backbone: str,
    classes: int,
    recipe: TransferRecipe,
    arguments: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
) -> nn.Module:
    """Builds a network with random weights.

    Args:
        task: Decides which networks are possible.
        network: Its head.
        backbone: timm model name.
        classes: Number of classes without background.
        recipe: Recipe of the fine-tuning.
        arguments: `model_kwargs` of the recipe that the backbone was trained with.
        preprocessing: Mean and standard deviation of the backbone's images; None for ImageNet's.

    Returns:
        A torchvision `FasterRCNN`, or a `Segmenter`.

    Raises:
        ConfigError: The task has no such network, or timm has no such backbone or no feature maps of it.
    """
    if network not in NETWORKS[task]:
        raise ConfigError(
            f"network {network!r}: expected one of {', '.join(NETWORKS[task])} for {task}. Correct `network` of the "
            "transfer."
        )
    preprocessing = preprocessing or Preprocessing()
    # Dilation changes no weight, so a run's backbone can have another stride here.
    arguments = {name: value for name, value in (arguments or {}).items() if name != "output_stride"}
    strides = strides_of(backbone, arguments)
    plain, last = len(set(strides)) == 1, len(strides) - 1
    if network == "faster_rcnn":
        levels = [last] if plain else _levels(backbone, strides, recipe)
        body = feature_maps_of(backbone, arguments, recipe, levels)
        return _detector(Pyramid(body, recipe, plain), classes, recipe, preprocessing)
    if not plain and recipe.output_stride != strides[-1]:
        arguments["output_stride"] = recipe.output_stride
    body = feature_maps_of(backbone, arguments, recipe, [max(0, last - 1), last])
    return Segmenter(SegmentationBody(body, recipe, plain), network, classes, recipe, preprocessing)


def load_backbone(
    network: nn.Module, backbone: str, arguments: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], what: str
) -> None:
    """Loads a run's backbone into a network; its classifier is left out.

    Args:
        network: From `build`.
        backbone: timm model name.
        arguments: As of `build`.
        tensors: From `luab.training.pretrained.read_backbone`.
        what: File and expected model, for the error message: "<file>: expected the weights of <model>".

    Raises:
        DataError: The tensors belong to another model; the message names the first that differs.
    """
    classifier = classifier_of(backbone, dict(arguments))
    put_into(classifier, tensors, what, new_classifier=True)
    weights = classifier.state_dict()
    model = body_of(network).model
    model.load_state_dict({name: weights[name] for name in model.state_dict()})


def body_of(network: nn.Module) -> Any:
    """Returns the timm backbone of a network, from `build`."""
    return network.backbone.body  # type: ignore[union-attr]


def _levels(backbone: str, strides: Sequence[int], recipe: TransferRecipe) -> list[int]:
    """Numbers of a hierarchical backbone's levels that the feature pyramid reads."""
    wanted = pyramid_strides(recipe)
    levels = [k for k, stride in enumerate(strides) if stride in wanted]
    if [strides[k] for k in levels] != wanted:
        raise ConfigError(
            f"{backbone}: expected feature maps at strides {wanted}, one per level of `anchors_px` but the last, found "
            f"strides {list(strides)}. Shorten anchors_px in the recipe, or choose another backbone."
        )
    return levels


class Resized(GeneralizedRCNNTransform):
    """Normalises and pads images; resizes them only in evaluation, because training images have their size already."""

    def __init__(self, recipe: TransferRecipe, preprocessing: Preprocessing, multiple: int) -> None:
        mean, std = list(preprocessing.mean), list(preprocessing.std)
        super().__init__(recipe.shorter_px, recipe.longest_px, mean, std, size_divisible=multiple)
        self.shorter_px, self.longest_px = recipe.shorter_px, recipe.longest_px

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """Resizes an image [3, h, w] in evaluation, where it has no target; returns both unchanged in training."""
        return (image if self.training else resized(image, self.shorter_px, self.longest_px)), target


def resized(image: torch.Tensor, shorter_px: int, longest_px: int) -> torch.Tensor:
    """Resizes an image [3, h, w] as training images are: to a length of its shorter side and a limit of the longer."""
    sides = image.shape[-2:]
    scale = min(shorter_px / min(sides), longest_px / max(sides))
    return resize(image, [max(1, round(side * scale)) for side in sides], antialias=True)


def _detector(pyramid: Pyramid, classes: int, recipe: TransferRecipe, preprocessing: Preprocessing) -> FasterRCNN:
    ratios = tuple(recipe.aspect_ratios)
    anchors = AnchorGenerator(tuple((side,) for side in recipe.anchors_px), (ratios,) * len(recipe.anchors_px))
    detector = FasterRCNN(
        pyramid,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=2 * recipe.rpn_proposals,
        rpn_post_nms_top_n_train=2 * recipe.rpn_proposals,
        rpn_pre_nms_top_n_test=recipe.rpn_proposals,
        rpn_post_nms_top_n_test=recipe.rpn_proposals,
        rpn_batch_size_per_image=recipe.rpn_samples,
        box_roi_pool=MultiScaleRoIAlign(pyramid.names, output_size=_POOLED, sampling_ratio=2),
        box_head=TwoMLPHead(pyramid.out_channels * _POOLED**2, recipe.box_head_channels),
        box_predictor=FastRCNNPredictor(recipe.box_head_channels, classes + 1),
        box_batch_size_per_image=recipe.box_samples,
        box_detections_per_img=MOST_DETECTIONS,
    )
    detector.rpn.head.register_forward_hook(_in_float32)
    detector.transform = Resized(recipe, preprocessing, max(_MULTIPLE, *pyramid.body.feature_info.reduction()))
    return detector


def _in_float32(_: nn.Module, __: Any, outputs: tuple[list[torch.Tensor], ...]) -> tuple[list[torch.Tensor], ...]:
    """Outputs of the RPN's head in float32: in mixed precision, torchvision gives their type to boxes in pixels.

    bfloat16 would round coordinates above 512 to multiples of 4, those of the true boxes too.
    """
    return tuple([level.float() for level in levels] for levels in outputs)


class Segmenter(nn.Module):
    """Class logits of each pixel, by a head of torchvision's on the last feature map of a timm backbone.

    `backbone`, `classifier` and `aux_classifier` are named as in torchvision's segmentation models. With a plain ViT,
    the head reads a map of a simple feature pyramid, at the recipe's `output_stride`.

    Args:
        backbone: The feature maps.
        network: Head: "fcn" or "deeplabv3".
        classes: Number of classes without background.
        recipe: Says whether there is a second head for training.
        preprocessing: Gives mean and standard deviation of images.
    """

    def __init__(
        self,
        backbone: "SegmentationBody",
        network: Literal["fcn", "deeplabv3"],
        classes: int,
        recipe: TransferRecipe,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        width, early = self.backbone.widths
        if network == "fcn":
            self.classifier: nn.Module = FCNHead(width, classes + 1)
        else:
            rates = tuple(max(1, rate * 8 // self.backbone.stride) for rate in _ATROUS_RATES)
            self.classifier = DeepLabHead(width, classes + 1, rates)
        self.aux_classifier = FCNHead(early, classes + 1) if recipe.auxiliary else None
        self.preprocessing = preprocessing

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps images to logits of each pixel.

        Args:
            images: [batch, 3, h, w], float in 0..1.

        Returns:
            "out" and, in training with a second head, "aux"; [batch, classes + 1, h, w].
        """
        height, width = images.shape[-2:]
        mean, std = (
            images.new_tensor(values).view(1, 3, 1, 1) for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        images = (images - mean) / std
        multiple = self.backbone.multiple
        images = functional.pad(images, (0, -width % multiple, 0, -height % multiple))
        maps = self.backbone(images)
        heads = {"out": self.classifier}
        if self.training and self.aux_classifier is not None:
            heads["aux"] = self.aux_classifier
        return {
            name: functional.interpolate(head(maps[name]).float(), images.shape[-2:], mode="bilinear")[
                ..., :height, :width
            ]
            for name, head in heads.items()
        }


class SegmentationBody(nn.Module):
    """The feature maps that a segmenter reads: "out", the last one, and "aux", that of the stage before it.

    Args:
        body: From `feature_maps_of`.
        recipe: Gives the stride of "out"; with a plain ViT also its channels.
        plain: Whether it is a plain ViT.

    Raises:
        ConfigError: The backbone does not have the recipe's stride, or the patches of the ViT an unsuitable size.
    """

    def __init__(self, body: Any, recipe: TransferRecipe, plain: bool) -> None:
        super().__init__()
        self.body = body
        channels, reductions = body.feature_info.channels(), body.feature_info.reduction()
        self.pyramid: SimpleFeaturePyramid | None = None
        self.stride, self.multiple = recipe.output_stride, max(_MULTIPLE, *reductions)
        self.widths = (channels[-1], channels[0])
        if plain:
            self.pyramid = SimpleFeaturePyramid(channels[-1], reductions[-1], [self.stride], recipe.head_channels)
            self.widths = (recipe.head_channels, channels[0])
        elif reductions[-1] != self.stride:
            raise ConfigError(
                f"Expected a backbone whose last feature map has output_stride {self.stride} of the recipe, found "
                f"stride {reductions[-1]}. Set output_stride to {reductions[-1]}."
            )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps normalised images [batch, 3, h, w] to "out" and "aux"."""
        maps = self.body(images)
        last = maps[-1] if self.pyramid is None else self.pyramid(maps[-1])[0]
        return {"out": last, "aux": maps[0]}
