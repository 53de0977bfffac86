"""Random crops and flips that keep an image and its point together."""

import random

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation

Point = tuple[float, float]
"""x right, y down, fractions of the image or crop."""
Crop = tuple[int, int, int, int]
"""top, left, height, width in pixels."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RATIO = (3 / 4, 4 / 3)
_PX_DIGITS = 3


def point_in_crop(point_xy: Point, size_wh: tuple[int, int], crop: Crop, flip: bool) -> Point | None:
    """Moves a point from the frame of the image to the frame of a crop.

    DEVIATES: a point that lies exactly on a border of the crop is inside. The official loader means the same, but its
    rounding errors drop one in nine of such points: one in 2,400 of all, if clicks and crops are whole pixels of small
    images. It never keeps a point that we drop.

    Args:
        point_xy: Fractions of the whole image, x right, y down.
        size_wh: Width and height of the whole image in pixels.
        crop: top, left, height, width in pixels of the whole image.
        flip: Whether the crop is mirrored left to right.

    Returns:
        Fractions of the crop; None if the point lies outside. All four borders belong to the crop.

    Source:
        naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb
    """
    top, left, height, width = crop
    # Most clicks are whole pixels, like the borders of crops. Without rounding, the error of float32 fractions would
    # move half of the clicks on a border out of the crop.
    x = (round(point_xy[0] * size_wh[0], _PX_DIGITS) - left) / width
    y = (round(point_xy[1] * size_wh[1], _PX_DIGITS) - top) / height
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return None
    return (1 - x if flip else x), y


class CropFlip:
    """Random resized crop and horizontal flip of an image and its point.

    Args:
        input_px: Side of the crop after resizing, in pixels.
        scale: Smallest and largest share of the image's area that a crop covers.
        interpolation: "bicubic", as in the official loader, or "bilinear".
        flip: Probability of a horizontal flip.

    Source:
        naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb; crops are distributed as in timm's RandomResizedCrop.
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
        """Returns a random crop, and the point in the frame of the crop; None if the point was cut away."""
        crop, flip = self.draw(image.size)
        moved = None if point_xy is None else point_in_crop(point_xy, image.size, crop, flip)
        return self.cut(image, crop, flip), moved

    def draw(self, size_wh: tuple[int, int]) -> tuple[Crop, bool]:
        """Draws a crop and whether it is flipped, for an image of this size in pixels."""
        width, height = size_wh
        shape_only = torch.empty((1, height, width), device="meta")  # timm reads nothing but the size
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(shape_only, self.scale, RATIO)
        crop = (top, left, max(1, height), max(1, width))  # timm's crop of an image of one or two pixels can be empty
        return crop, random.random() < self.flip

    def cut(self, image: Image.Image, crop: Crop, flip: bool) -> Image.Image:
        """Crops, resizes to `input_px` and flips."""
        top, left, height, width = crop
        # Crop first, then resize, like the official loader. `resize(box=...)` would blend pixels from outside the crop
        # into its border.
        cut = image.crop((left, top, left + width, top + height))
        cut = cut.resize((self.input_px, self.input_px), RESAMPLING[self.interpolation])
        return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut


def scaled_crop(crop: Crop, drawn_wh: tuple[int, int], size_wh: tuple[int, int]) -> Crop:
    """Converts a crop from one size of an image to another, in whole pixels.

    Each border moves by at most half a pixel of the new size; equal sizes change nothing.
    """
    if drawn_wh == size_wh:
        return crop
    top, left, height, width = crop
    across, down = size_wh[0] / drawn_wh[0], size_wh[1] / drawn_wh[1]
    x0, x1 = round(left * across), round((left + width) * across)
    y0, y1 = round(top * down), round((top + height) * down)
    x0, y0 = min(x0, size_wh[0] - 1), min(y0, size_wh[1] - 1)
    return y0, x0, max(1, y1 - y0), max(1, x1 - x0)


def to_uint8(image: Image.Image | NDArray[np.uint8]) -> torch.Tensor:
    """Converts an RGB image, or its pixels [height, width, 3], to a uint8 tensor [3, height, width].

    uint8 keeps the transfer to the device small: one byte per value.
    """
    pixels = np.asarray(image, dtype=np.uint8)
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))  # vectorised: takes a tenth of the time of a transposing copy
    return torch.from_numpy(planes)
