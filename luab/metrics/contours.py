"""Boxes of all contours of a score map at every level of its 8 bits, tracing contours only at levels that need it.

At most levels, the pixels above the level form a single component without a hole. Its contour then has the bounding box
of these pixels, which is computed for all levels at once. Two facts identify such levels:

- the Euler number (components minus holes) of all levels follows from three histograms;
- with a falling level, a new component appears only at a peak of the map, so that between two levels without a peak in
  between the number of components cannot grow.

Contours are traced only at levels for which these facts do not prove "one component, no hole".
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bytes = npt.NDArray[np.uint8]

TOP = 255
"""Highest level of an 8-bit map."""


def eight_bits(score_map: Floats, side_px: int) -> Bytes:
    """Converts a score map to 8 bits: bicubic resize, minimum to 0, maximum to 255, truncated.

    Args:
        score_map: [h, w], any range.
        side_px: Side of the result.

    Returns:
        [side_px, side_px]; all zeros if the map is constant or not finite.
    """
    return (unit_map(score_map, side_px) * TOP).astype(np.uint8)


def is_flat(score_map: Floats) -> bool:
    """Whether a score map, in single precision, is constant or not finite.

    Decide this before a resize, which adds rounding errors of 1e-7 to a constant map; scaled to [0, 1] they look like
    scores.
    """
    single = score_map.astype(np.float32)
    return not np.isfinite(single).all() or bool(single.min() == single.max())


def unit_map(score_map: Floats, side_px: int) -> Floats:
    """[side_px, side_px] a score map [h, w] after a bicubic resize, minimum scaled to 0 and maximum to 1.

    All zeros if the map is constant or not finite.
    """
    if is_flat(score_map):
        return np.zeros((side_px, side_px), np.float32)
    resized = cv2.resize(score_map.astype(np.float32), (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    low, high = resized.min(), resized.max()
    if not np.isfinite(resized).all() or low == high:
        return np.zeros_like(resized, np.float32)
    return np.asarray((resized - low) / (high - low))


def contour_boxes(foreground: Bytes) -> tuple[Ints, int]:
    """Boxes of all contours of a mask, including those of holes, and the index of the largest contour.

    Args:
        foreground: [h, w], non-zero on the foreground.

    Returns:
        [k, 4] x0y0x1y1 with x1 = x + width, clipped to the last pixel; one box (0, 0, 0, 0) for an empty mask. The
        index of the contour with the largest area; on a tie, the first.
    """
    height, width = foreground.shape
    boxes, largest = _traced(foreground, (0, 0), (width - 1, height - 1))
    return (np.array(boxes, dtype=np.int64), largest) if boxes else (np.zeros((1, 4), dtype=np.int64), 0)


def _traced(foreground: Bytes, corner_xy: tuple[int, int], last_xy: tuple[int, int]) -> tuple[list[Any], int]:
    """Like `contour_boxes`, for the part of a mask from a corner on that contains all foreground; no box if empty."""
    contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE, offset=corner_xy)
    sides = [cv2.boundingRect(contour) for contour in contours]
    boxes = [(x, y, min(x + w, last_xy[0]), min(y + h, last_xy[1])) for x, y, w, h in sides]
    if len(boxes) < 2:
        return boxes, 0
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes, areas.index(max(areas))


class Levels:
    """One score map and its levels.

    Args:
        score_map: [h, w], any range.
        side_px: Side of the square that the map is resized to.

    Attributes:
        map8: The map in 8 bits, see `eight_bits`.
        values: The distinct values of the map in ascending order.
        extents: [values, 4] box around all pixels above each value, as in `contour_boxes`; zeros if there are none.
    """

    def __init__(self, score_map: Floats, side_px: int) -> None:
        scaled = unit_map(score_map, side_px)
        self.map8 = (scaled * TOP).astype(np.uint8)
        counts = _histogram(self.map8)
        self.values = np.flatnonzero(counts).astype(np.uint8)
        self.extents = _extents(self.map8, self.values)
        euler, peaks = _euler_numbers(self.map8, counts), _peaks(scaled, self.map8)
        self._euler = euler[self.values].tolist()
        self._new = np.add.reduceat(peaks, self.values).tolist()  # peaks from each value up to the next

    def boxes(self, levels: Ints) -> tuple[Ints, Ints, Ints]:
        """Boxes of all contours of the pixels above some values.

        Args:
            levels: Indices into `values` in ascending order.

        Returns:
            [k, 4] boxes of all levels, the highest level first; [levels] index of the first box of each level;
            [levels] index of the box of each level's largest contour.
        """
        boxes_of: list[list[Any]] = []
        largest: list[int] = []
        above = len(self.values)
        components = 0  # upper bound at the previous, higher level
        for level in reversed(levels.tolist()):
            components += sum(self._new[level + 1 : above + 1])
            above = level
            if components == 1 and self._euler[level] == 1:
                boxes, index = [self.extents[level].tolist()], 0
            else:
                boxes, index = self._contours(level)
                components = (len(boxes) + self._euler[level]) // 2  # there is one contour per component and per hole
            boxes_of.append(boxes or [(0, 0, 0, 0)])
            largest.append(index)
        sizes = np.array([len(boxes) for boxes in boxes_of])
        starts = np.cumsum(sizes) - sizes
        all_boxes = np.array([box for boxes in boxes_of for box in boxes], dtype=np.int64).reshape(-1, 4)
        return all_boxes, starts[::-1], (starts + np.array(largest, dtype=np.int64))[::-1]

    def _contours(self, level: int) -> tuple[list[Any], int]:
        x0, y0, x1, y1 = self.extents[level].tolist()
        above = (self.map8[y0 : y1 + 1, x0 : x1 + 1] > self.values[level]).view(np.uint8)
        height, width = self.map8.shape
        return _traced(above, (x0, y0), (width - 1, height - 1))


def _extents(map8: Bytes, values: Bytes) -> Ints:
    rows, columns = (map8.max(axis=axis) > values[:, None] for axis in (1, 0))
    height, width = map8.shape
    extents = np.stack(
        [
            columns.argmax(axis=1),
            rows.argmax(axis=1),
            np.minimum(width - columns[:, ::-1].argmax(axis=1), width - 1),
            np.minimum(height - rows[:, ::-1].argmax(axis=1), height - 1),
        ],
        axis=1,
    )
    extents[~rows.any(axis=1)] = 0
    return extents


def _euler_numbers(map8: Bytes, counts: Ints) -> Ints:
    """[256] 8-connected components minus holes of the pixels above each level.

    The number is squares - edges + corners, where a pixel is a closed square; an edge or corner lies above a level if
    any pixel that touches it does.
    """
    framed = np.pad(map8, 1)
    wide = np.maximum(framed[:, 1:], framed[:, :-1])
    tall = np.maximum(framed[1:], framed[:-1])
    corners = np.maximum(wide[1:], wide[:-1])
    # The padding adds edges of value 0, which lie above no level.
    steps = counts - _histogram(wide[1:-1]) - _histogram(tall[:, 1:-1]) + _histogram(corners)
    return np.asarray(steps.sum() - np.cumsum(steps))


def _peaks(scaled: Floats, map8: Bytes) -> Ints:
    """[256] number of pixels of each level that no neighbour exceeds before truncation.

    It is an upper bound on the components that appear at a level. Such a component contains no pixel of a higher level,
    and no neighbour exceeds its highest pixel before truncation: neighbours inside it are not higher, and neighbours
    outside it have a lower level.
    """
    tops = map8[scaled == cv2.dilate(scaled, np.ones((3, 3), np.uint8))]
    return np.bincount(tops, minlength=TOP + 1)


def _histogram(values: Bytes) -> Ints:
    counts = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [TOP + 1], [0, TOP + 1])
    return np.asarray(counts.ravel().astype(np.int64))
