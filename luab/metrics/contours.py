"""Boxes of all contours of a score map at every level of its 8 bits, without drawing contours where they are plain.

At most levels the pixels above it are one piece without a hole, and the piece's contour has the box of its rows and
columns, which are found for all levels at once. Two facts tell these levels from the others:

- pieces minus holes, the Euler number, follows for all levels at once from three histograms;
- going down from a level, a new piece begins at a peak of the map and nowhere else, so that without peaks in between
  there are no more pieces than before.

Only where these do not say "one piece, no hole" are contours drawn.
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
    """A score map as 8 bits: bicubic resize, min to 0, max to 255, truncated.

    Args:
        score_map: [h, w], any range.
        side_px: Side of the square that comes out.

    Returns:
        [side_px, side_px]; zeros where the map is constant or not finite.
    """
    return _truncated(_resized(score_map, side_px))


def _resized(score_map: Floats, side_px: int) -> Floats:
    return np.asarray(
        cv2.resize(score_map.astype(np.float32), (side_px, side_px), interpolation=cv2.INTER_CUBIC), np.float32
    )


def _truncated(resized: Floats) -> Bytes:
    low, high = resized.min(), resized.max()
    if not np.isfinite(resized).all() or low == high:
        return np.zeros(resized.shape, dtype=np.uint8)
    return (((resized - low) / (high - low)) * TOP).astype(np.uint8)


def contour_boxes(foreground: Bytes) -> tuple[Ints, int]:
    """Boxes of all contours of a mask, holes included, and which belongs to the largest contour.

    Args:
        foreground: [h, w], not zero where the foreground is.

    Returns:
        [k, 4] x0y0x1y1 with x1 = x + width, clipped to the last pixel; one box (0, 0, 0, 0) for an empty
        mask. The index of the contour with the largest area, the first of equals.
    """
    height, width = foreground.shape
    boxes, largest = _drawn(foreground, (0, 0), (width - 1, height - 1))
    return (np.array(boxes, dtype=np.int64), largest) if boxes else (np.zeros((1, 4), dtype=np.int64), 0)


def _drawn(foreground: Bytes, corner_xy: tuple[int, int], last_xy: tuple[int, int]) -> tuple[list[Any], int]:
    """As `contour_boxes`, of a part of a mask that has all its foreground and begins at a corner; none if empty."""
    contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE, offset=corner_xy)
    sides = [cv2.boundingRect(contour) for contour in contours]
    boxes = [(x, y, min(x + w, last_xy[0]), min(y + h, last_xy[1])) for x, y, w, h in sides]
    if len(boxes) < 2:
        return boxes, 0
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes, areas.index(max(areas))


class Levels:
    """One score map, cut at its levels.

    Args:
        score_map: [h, w], any range.
        side_px: Side of the square that it is resized to.

    Attributes:
        map8: See `eight_bits`.
        values: Ascending, each value that the map has. "Above i" are the pixels above values[i].
        extents: [values, 4] x0y0x1y1 around all pixels above each, as `contour_boxes` writes boxes; 0 for none.
    """

    def __init__(self, score_map: Floats, side_px: int) -> None:
        resized = _resized(score_map, side_px)
        self.map8 = _truncated(resized)
        counts = _histogram(self.map8)
        self.values = np.flatnonzero(counts).astype(np.uint8)
        self.extents = _extents(self.map8, self.values)
        euler, peaks = _euler_numbers(self.map8, counts), _peaks(resized, self.map8)
        self._euler = euler[self.values].tolist()
        self._new = np.add.reduceat(peaks, self.values).tolist()  # peaks from each value to the next

    def boxes(self, wanted: Ints) -> tuple[Ints, Ints, Ints]:
        """Boxes of all contours above some values.

        Args:
            wanted: Ascending indices into `values`.

        Returns:
            [k, 4] boxes of one level after the other, the highest first; [wanted] where each of `wanted` begins in
            them; and [wanted] which one is that of the largest contour.
        """
        found: list[list[Any]] = []
        largest: list[int] = []
        above = len(self.values)
        pieces = 0  # at most so many are above the level looked at before
        for level in reversed(wanted.tolist()):
            pieces += sum(self._new[level + 1 : above + 1])
            above = level
            if pieces == 1 and self._euler[level] == 1:
                boxes, most = [self.extents[level].tolist()], 0
            else:
                boxes, most = self._contours(level)
                pieces = (len(boxes) + self._euler[level]) // 2  # contours are pieces and holes
            found.append(boxes or [(0, 0, 0, 0)])
            largest.append(most)
        sizes = np.array([len(boxes) for boxes in found])
        begins = np.cumsum(sizes) - sizes
        every = np.array([box for boxes in found for box in boxes], dtype=np.int64).reshape(-1, 4)
        return every, begins[::-1], (begins + np.array(largest, dtype=np.int64))[::-1]

    def _contours(self, level: int) -> tuple[list[Any], int]:
        x0, y0, x1, y1 = self.extents[level].tolist()
        above = (self.map8[y0 : y1 + 1, x0 : x1 + 1] > self.values[level]).view(np.uint8)
        height, width = self.map8.shape
        return _drawn(above, (x0, y0), (width - 1, height - 1))


def _extents(map8: Bytes, values: Bytes) -> Ints:
    rows, columns = (map8.max(axis=axis) > values[:, None] for axis in (1, 0))
    height, width = map8.shape
    around = np.stack(
        [
            columns.argmax(axis=1),
            rows.argmax(axis=1),
            np.minimum(width - columns[:, ::-1].argmax(axis=1), width - 1),
            np.minimum(height - rows[:, ::-1].argmax(axis=1), height - 1),
        ],
        axis=1,
    )
    around[~rows.any(axis=1)] = 0
    return around


def _euler_numbers(map8: Bytes, counts: Ints) -> Ints:
    """[256] pieces (touching at corners counts) minus holes of the pixels above each level.

    A pixel is a square with its borders, so that the number is squares - edges + corners; an edge or corner lies above
    a level when any pixel at it does.
    """
    framed = np.pad(map8, 1)
    wide = np.maximum(framed[:, 1:], framed[:, :-1])
    tall = np.maximum(framed[1:], framed[:-1])
    corners = np.maximum(wide[1:], wide[:-1])
    # The frame adds edges of value 0, which lie above no level.
    steps = counts - _histogram(wide[1:-1]) - _histogram(tall[:, 1:-1]) + _histogram(corners)
    return np.asarray(steps.sum() - np.cumsum(steps))


def _peaks(resized: Floats, map8: Bytes) -> Ints:
    """[256] pixels of each level that no neighbour exceeds before truncation: more than enough for each new piece.

    A piece that is new at a level holds no higher pixel. Its best pixel before truncation is exceeded by no neighbour:
    those in the piece are no better, those outside it are of a lower level.
    """
    tops = map8[resized == cv2.dilate(resized, np.ones((3, 3), np.uint8))]
    return np.bincount(tops, minlength=TOP + 1)


def _histogram(values: Bytes) -> Ints:
    counts = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [TOP + 1], [0, TOP + 1])
    return np.asarray(counts.ravel().astype(np.int64))
