"""Crops, flips and resizes that move an image and its point together."""

import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

Point = tuple[float, float]
Crop = tuple[int, int, int, int]

_PIL = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RATIO = (3 / 4, 4 / 3)
_PX_DIGITS = 3


def point_in_crop(point_xy: Point, size_wh: tuple[int, int], crop: Crop, flip: bool) -> Point | None:
    """Where a point of the whole image lies in a crop.

    Args:
        point_xy: Fractions of the whole image, x right, y down.
        size_wh: The whole image in pixels.
        crop: top, left, height, width in pixels of the whole image.
        flip: Whether the crop is mirrored left to right.

    Returns:
        Fractions of the crop, or None outside; a point on the crop's border, either end, is inside.

    Source:
        naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb
    """
    top, left, height, width = crop
    # Clicks are mostly whole pixels and so are borders: float32 fractions would push half of the clicks
    # that lie on a border out of the crop.
    x = (round(point_xy[0] * size_wh[0], _PX_DIGITS) - left) / width
    y = (round(point_xy[1] * size_wh[1], _PX_DIGITS) - top) / height
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return None
    return (1 - x if flip else x), y


class CropFlip:
    """Random resized crop and flip of an image, with its point carried along.

    Args:
        input_px: Side of the crop after resizing.
        scale: Share of the image's area that a crop covers, smallest and largest.
        interpolation: "bicubic" as in the official loader, or "bilinear".
        flip: Probability of a mirror image.

    Source:
        naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb; crop law of timm's RandomResizedCrop.
    """

    def __init__(
        self,
        input_px: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        interpolation: str = "bicubic",
        flip: float = 0.5,
    ) -> None:
        self.input_px = input_px
        self.scale = scale
        self.interpolation = interpolation
        self.flip = flip

    def __call__(self, image: Image.Image, point_xy: Point | None) -> tuple[Image.Image, Point | None]:
        """Draws one crop; the point comes back in the crop's frame, None when it was cut away."""
        crop, flip, moved = self.draw(image.size, point_xy)
        return self.cut(image, crop, flip), moved

    def draw(self, size_wh: tuple[int, int], point_xy: Point | None) -> tuple[Crop, bool, Point | None]:
        """Crop, flip and where the point lies then, for an image of this size; its pixels are not needed."""
        width, height = size_wh
        sized = torch.empty((1, height, width), device="meta")  # timm asks an image for its size alone
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(sized, self.scale, RATIO)
        crop = (top, left, max(1, height), max(1, width))  # of an image of one or two pixels it may be empty
        flip = random.random() < self.flip
        return crop, flip, None if point_xy is None else point_in_crop(point_xy, size_wh, crop, flip)

    def cut(self, image: Image.Image, crop: Crop, flip: bool) -> Image.Image:
        """The drawn crop at the side of the network's input."""
        top, left, height, width = crop
        # Cropping first and then resizing is the official order; resizing with a box would let
        # pixels from outside the crop bleed into its border.
        cut = image.crop((left, top, left + width, top + height))
        cut = cut.resize((self.input_px, self.input_px), _PIL[self.interpolation])
        return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut


def scaled_crop(crop: Crop, drawn_wh: tuple[int, int], size_wh: tuple[int, int]) -> Crop:
    """A crop that was drawn for an image of one size, in whole pixels of the same image at another size.

    Equal sizes leave it as it is; else each border moves by at most half a pixel of the other size.
    """
    if drawn_wh == size_wh:
        return crop
    top, left, height, width = crop
    across, down = size_wh[0] / drawn_wh[0], size_wh[1] / drawn_wh[1]
    x0, x1 = round(left * across), round((left + width) * across)
    y0, y1 = round(top * down), round((top + height) * down)
    x0, y0 = min(x0, size_wh[0] - 1), min(y0, size_wh[1] - 1)
    return y0, x0, max(1, y1 - y0), max(1, x1 - x0)


def colour_augmentation(
    input_px: int, auto_augment: str | None, color_jitter: float | None
) -> Callable[[Image.Image], Image.Image] | None:
    """timm's second training stage: changes colours only, so the point stays where it is."""
    if auto_augment is None and color_jitter is None:
        return None
    build: Any = create_transform  # its annotations know no None
    stages = build(
        input_px,
        is_training=True,
        hflip=0,
        auto_augment=auto_augment,
        color_jitter=color_jitter,
        separate=True,
    )
    second: Callable[[Image.Image], Image.Image] = stages[1]
    return second


def evaluation_view(image: Image.Image, input_px: int, crop_pct: float, resize: str, border_px: int = 0) -> Image.Image:
    """The crop that the network sees in evaluation, bilinear throughout.

    Args:
        image: Any size, RGB.
        input_px: Side of the result.
        crop_pct: Side of the centre crop over the resized shorter side.
        resize: "resize_crop" (shorter side, then centre crop), "squash" (both sides, aspect ratio
            changes), or "identity" (the file already is the crop).
        border_px: Cut from every side first (ObjectNet's frame).
    """
    if border_px:
        width, height = image.size
        image = image.crop((border_px, border_px, width - border_px, height - border_px))
    if resize == "identity" and image.size == (input_px, input_px):
        return image
    if resize in ("squash", "identity"):
        return image.resize((input_px, input_px), Image.Resampling.BILINEAR)
    width, height = image.size
    side, shorter = int(input_px / crop_pct), min(width, height)
    width, height = side * width // shorter, side * height // shorter  # rounded down, as torchvision does
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - input_px) / 2), round((height - input_px) / 2)
    return image.crop((left, top, left + input_px, top + input_px))


def to_uint8(image: Image.Image | NDArray[np.uint8]) -> torch.Tensor:
    """RGB image, or its pixels [height, width, 3] -> uint8 tensor [3, height, width].

    One byte per value travels to the device.
    """
    pixels = np.asarray(image, dtype=np.uint8)
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))  # by vector code, a tenth of what a transposing copy takes
    return torch.from_numpy(planes)
