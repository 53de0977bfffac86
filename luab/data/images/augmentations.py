"""timm's augmentations of a crop, with points and boxes that move along: AutoAugment, RandAugment, random erasing."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment, posterize
from timm.data.random_erasing import RandomErasing

from luab.study.config import Recipe
from luab.study.recipes import Preprocessing

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of Pillow: output pixel (x, y) shows input pixel (a x + b y + c, d x + e y + f)."""
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the crop; x1 and y1 are outside."""
Operation = Callable[[Image.Image], Image.Image]

MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "TranslateXRel", "TranslateYRel")
"""timm's names of the operations that move pixels."""


class Moves(NamedTuple):
    """What happened to the pixels of a crop after it was cut and flipped.

    Attributes:
        side: Side of the crop in pixels.
        matrices: Operations that moved pixels, in order.
        erased: Boxes that random erasing filled afterwards.
    """

    side: int
    matrices: tuple[Affine, ...] = ()
    erased: tuple[Box, ...] = ()

    def points(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Moves points [n, 2], fractions x, y of the crop; returns them, and [n] whether they stayed inside.

        A point that one operation moves out of the crop is outside, even if the next one would move it back: its
        pixels are gone. Borders are inside.
        """
        inside = np.ones(len(xy), dtype=np.bool_)
        for a, b, c, d, e, f in self.matrices:
            shifted = xy * self.side - (c, f)
            xy = shifted @ np.linalg.inv([[a, b], [d, e]]).T / self.side
            inside &= ((xy >= 0) & (xy <= 1)).all(axis=1)
        return xy, inside

    def covered(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns [n], whether the pixels of moved points [n, 2], fractions of the crop, were erased."""
        x, y = np.floor(np.asarray(xy) * self.side).clip(0, self.side - 1).T
        covered = np.zeros(len(x), dtype=np.bool_)
        for x0, y0, x1, y1 in self.erased:
            covered |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return covered

    def boxes(self, x0y0x1y1: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Moves boxes [n, 4], fractions of the crop; returns them, and [n] whether a part stayed inside.

        A moved box is the smallest upright one that holds the corners, cut at the borders of the crop. Erasing does
        not change boxes.
        """
        boxes: NDArray[np.float64] = np.asarray(x0y0x1y1, dtype=np.float64)
        inside = np.ones(len(boxes), dtype=np.bool_)
        for matrix in self.matrices:
            each = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 2)  # corners: [n, 4] -> [4 n, 2]
            corners = Moves(self.side, (matrix,)).points(each)[0].reshape(-1, 4, 2)
            boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).clip(0, 1)
            inside &= (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        return boxes, inside


class Changes:
    """Changes of a crop after cutting: operations of timm or torchvision on its pixels, then random erasing.

    Pixels equal those of the operations alone for the same state of Python's, NumPy's and torch's generators. Erased
    boxes are timm's own; DEVIATES: their fill is rounded to the 256 values of a uint8 image and cut off at its ends (2
    in 100 values of "pixel" and "rand"), because images are uint8 until they are on the device.

    Args:
        operations: Image to image; None for erasing alone. The `AugmentOp`s in it are wrapped.
        erasing: None for no erasing.
        preprocessing: Mean and standard deviation of the values that erasing draws.
    """

    def __init__(
        self,
        operations: Operation | None,
        erasing: RandomErasing | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._operations, self._erasing = operations, erasing
        self._matrices: list[Affine] = []
        preprocessing = preprocessing or Preprocessing()
        self._mean = 255 * torch.tensor(preprocessing.mean).view(3, 1, 1)
        self._std = 255 * torch.tensor(preprocessing.std).view(3, 1, 1)
        for operation in _timm_operations(operations):
            if operation.name in MOVING:
                operation.aug_fn = _Recorded(operation.aug_fn, self._matrices)
            elif operation.aug_fn is posterize:
                operation.aug_fn = _posterize

    def __call__(self, image: Image.Image) -> tuple[Image.Image, Moves]:
        """Changes the colours and moves the pixels of a square crop."""
        self._matrices.clear()
        if self._operations is not None:
            image = self._operations(image)
        return image, Moves(image.size[0], tuple(self._matrices))

    def erase(self, pixels: torch.Tensor, moves: Moves) -> Moves:
        """Erases boxes of uint8 [3, side, side] in place; returns the moves with these boxes."""
        if self._erasing is None:
            return moves
        patches = _Patches(moves.side)
        self._erasing(patches)
        for (x0, y0, x1, y1), values in patches.drawn:
            pixels[:, y0:y1, x0:x1] = (values * self._std + self._mean).round().clamp(0, 255).to(torch.uint8)
        return moves._replace(erased=tuple(box for box, _ in patches.drawn))


def changes_of(recipe: Recipe, preprocessing: Preprocessing | None = None) -> Changes | None:
    """Returns what a recipe does to its crops after cutting and flipping; None if it does nothing.

    Args:
        recipe: auto_augment, color_jitter, random erasing, and the interpolation of operations that move pixels.
        preprocessing: The mean is the colour of the corners that a rotation leaves empty; None for ImageNet's.
    """
    preprocessing = preprocessing or Preprocessing()
    operations: Operation | None = None
    if recipe.auto_augment is not None or recipe.color_jitter is not None:
        build: Any = create_transform  # timm's annotations do not allow None
        operations = build(
            recipe.training_px,
            is_training=True,
            hflip=0,
            auto_augment=recipe.auto_augment,
            color_jitter=recipe.color_jitter,
            interpolation=recipe.interpolation,
            mean=preprocessing.mean,
            separate=True,
        )[1]
    erasing = None
    if recipe.random_erasing:
        erasing = RandomErasing(
            recipe.random_erasing, mode=recipe.erasing_mode, max_count=recipe.erasing_count, device="cpu"
        )
    return None if operations is None and erasing is None else Changes(operations, erasing, preprocessing)


def _timm_operations(operations: Any) -> Iterator[AugmentOp]:
    for stage in getattr(operations, "transforms", [operations]):
        if isinstance(stage, RandAugment):
            yield from stage.ops
        elif isinstance(stage, AutoAugment):
            yield from (operation for operations in stage.policy for operation in operations)


def _posterize(image: Image.Image, bits: int, **kwargs: Any) -> Image.Image:
    """timm's posterize; its strongest level keeps no bit; Pillow 13 refuses that, earlier ones return black."""
    changed: Image.Image = posterize(image, bits, **kwargs) if bits > 0 else Image.new(image.mode, image.size)
    return changed


class _Recorded:
    """An operation of timm that also records its matrix."""

    def __init__(self, apply: Callable[..., Any], matrices: list[Affine]) -> None:
        self.apply, self.matrices = apply, matrices

    def __call__(self, image: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
        # With one kind of resampling timm draws none.
        stand_in = _StandIn(image.size)
        self.apply(stand_in, *args, **{**kwargs, "resample": Image.Resampling.NEAREST})
        self.matrices.append(stand_in.matrix)
        changed: Image.Image = self.apply(image, *args, **kwargs)
        return changed


class _StandIn:
    """Stands in for an image of a size in pixels and records the matrix that it is transformed with."""

    matrix: Affine

    def __init__(self, size_wh: tuple[int, int]) -> None:
        self.size = size_wh
        self.width, self.height = size_wh

    def transform(self, size_wh: tuple[int, int], method: Image.Transform, data: Any, *_: Any, **__: Any) -> None:
        if size_wh != self.size or method != Image.Transform.AFFINE:
            raise NotImplementedError(f"expected an affine operation that keeps the size {self.size}, found {method}")
        self.matrix = tuple(data)

    def rotate(self, degrees: float, **kwargs: Any) -> None:
        rotate: Any = Image.Image.rotate
        # A centre, though it is the default one, keeps Pillow from its shortcuts for right angles.
        rotate(self, degrees, center=(self.width / 2, self.height / 2), **kwargs)


class _Patches:
    """Stands in for a normalised image [3, side, side] and records the boxes that are erased in it, with their fill."""

    dtype = torch.float32

    def __init__(self, side: int) -> None:
        self.side = side
        self.drawn: list[tuple[Box, torch.Tensor]] = []

    def size(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    def __setitem__(self, at: tuple[slice, slice, slice], values: torch.Tensor) -> None:
        _, rows, columns = at
        self.drawn.append(((columns.start, rows.start, columns.stop, rows.stop), values))
