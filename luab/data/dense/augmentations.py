"""Resizing, flipping and cropping of images together with their boxes, masks and points.

All steps are torchvision's; the numbers come from recipes. Pixels that a crop adds are black, and ignored in masks.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from luab.data.dense.dense_set import IGNORED, Item, Target, Transforms

_OF_BOXES = ("labels", "iscrowd", "difficult", "area")


def augmentation(
    short_px: int | None = None,
    longest_px: int | None = None,
    jitter: tuple[float, float] = (1.0, 1.0),
    flip: float = 0.0,
    crop_px: int | None = None,
) -> Transforms:
    """Returns the steps of a recipe, in this order: resize, flip, crop, then removal of what left the image.

    Boxes of less than a pixel and points outside the image are removed together with their labels. Without arguments
    nothing is resized, flipped or cropped.

    Args:
        short_px: Length of the image's shorter side; the aspect ratio is kept. None for no resize.
        longest_px: Upper limit of the longer side, which takes precedence; None for no limit.
        jitter: Smallest and largest factor of both sides after that, drawn uniformly for each image.
        flip: Probability of a mirror image, left to right.
        crop_px: Side of a square cut out at a random place; images that are smaller are filled up. None for no crop.

    Sources:
        torchvision's references/detection/presets.py (both sides' limits, flip) and references/segmentation/presets.py
        (factor 0.5 to 2, flip, crop).
    """
    steps: list[v2.Transform] = [] if short_px is None else [_Resize(short_px, longest_px, jitter)]
    if flip:
        steps.append(_Flip(flip))
    if crop_px is not None:
        fill = defaultdict(int, {tv_tensors.Mask: IGNORED})
        steps.append(v2.RandomCrop(crop_px, pad_if_needed=True, fill=fill))
    return _Augmentation(steps)


class _Augmentation:
    """Steps on image and target, and the removal of boxes and points that left the image."""

    def __init__(self, steps: Sequence[v2.Transform]) -> None:
        self.steps = steps

    def __call__(self, image: tv_tensors.Image, target: Target) -> Item:
        for step in self.steps:
            image, target = step(image, target)
        if "boxes" in target:
            image, target = _BOXES(image, target)
        if "points" in target:
            image, target = _POINTS(image, target)
        return image, target


class _Resize(v2.Transform):
    """Resizes to a length of the shorter side and a limit of the longer one, times a random factor."""

    def __init__(self, short_px: int, longest_px: int | None, jitter: tuple[float, float]) -> None:
        super().__init__()
        self.short_px, self.longest_px, self.jitter = short_px, longest_px, jitter

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        sides = functional.get_size(next(part for part in flat_inputs if isinstance(part, tv_tensors.Image)))
        scale = self.short_px / min(sides)
        if self.longest_px is not None:
            scale = min(scale, self.longest_px / max(sides))
        low, high = self.jitter
        scale *= low + (high - low) * torch.rand(()).item()
        return {"size": [max(1, round(side * scale)) for side in sides]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(functional.resize, inpt, **params, antialias=True)


class _Flip(v2.RandomHorizontalFlip):
    """A mirror image in which points stay where they are painted.

    torchvision mirrors boxes at the middle of the image (x to width - x), but points as indices of pixels
    (x to width - 1 - x). Points here are positions, as boxes are.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        flipped = super().transform(inpt, params)
        if isinstance(inpt, tv_tensors.KeyPoints):
            return tv_tensors.wrap(flipped.as_subclass(torch.Tensor) + torch.tensor([1.0, 0.0]), like=flipped)
        return flipped


def _parts_of_boxes(item: Item) -> tuple[torch.Tensor, ...]:
    return tuple(item[1][name] for name in _OF_BOXES)


def _labels_of_points(item: Item) -> torch.Tensor:
    labels: torch.Tensor = item[1]["point_labels"]
    return labels


_BOXES = v2.SanitizeBoundingBoxes(min_size=1, labels_getter=_parts_of_boxes)
_POINTS = v2.SanitizeKeyPoints(labels_getter=_labels_of_points)
