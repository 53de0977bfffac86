"""Pictures as arrays: the types that the demo world's drawing code shares, and conversions between them."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [H, W, 3] or [H, W], 8 bit
Field = NDArray[np.float64]  # the same as fractions in [0, 1]
Mask = NDArray[np.bool_]  # [H, W]
Size = tuple[int, int]  # width and height in pixels
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; the last two are inside the box


def to_pixels(picture: Field) -> Pixels:
    """Converts fractions to 8 bit: clipped to [0, 1] and rounded."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def mask_box(mask: Mask) -> Box | None:
    """Returns the tight box of a mask [H, W]; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
