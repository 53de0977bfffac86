"""Where a model looks: boxes cut out of score maps (MaxBoxAcc) and predicted points, against drawn boxes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from luab.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bytes = npt.NDArray[np.uint8]

IOU_PCT = (30, 50, 70)
STEP = 0.001
_TOP = 255  # of an 8-bit map


class LocalizationInput(NamedTuple):
    """One image: its raw score map [h, w], its boxes [k, 4] x0y0x1y1 in source pixels, its size (w, h)."""

    score_map: Floats
    boxes: Ints
    size_wh: tuple[int, int]


class BoxAccuracy(NamedTuple):
    """Images found, by IoU and cut-off; `n` counts each image once.

    Attributes:
        largest: [3, thresholds] with the box of the largest contour alone (MaxBoxAcc).
        any_contour: [3, thresholds] with the best of all contours' boxes (MaxBoxAccV2).
        thresholds: [thresholds] share of the map's maximum.
        n: Images.
    """

    largest: Ints
    any_contour: Ints
    thresholds: Floats
    n: int

    def max_box_acc(self) -> float:
        """MaxBoxAcc: largest contour, IoU 0.5, best threshold; a fraction, higher is better."""
        return int(self.largest[IOU_PCT.index(50)].max()) / self.n

    def max_box_acc_v2(self) -> float:
        """MaxBoxAccV2: mean over IoU 0.3, 0.5 and 0.7 of the best threshold's share; higher is better."""
        return int(self.any_contour.max(axis=1).sum()) / (len(IOU_PCT) * self.n)

    def found_at(self, iou_pct: int) -> int:
        """Images found at one IoU by any contour, at the best threshold of that IoU."""
        return int(self.any_contour[IOU_PCT.index(iou_pct)].max())

    def best_threshold(self, iou_pct: int) -> float:
        """The lowest threshold with that many."""
        return float(self.thresholds[int(self.any_contour[IOU_PCT.index(iou_pct)].argmax())])


def box_accuracy(images: Iterable[LocalizationInput], side_px: int, step: float = STEP) -> BoxAccuracy:
    """Counts, for every threshold, the images whose box fits one of the drawn boxes.

    A map has 8 bits, so all thresholds between two of its levels give the same box: the work is done
    once per level and the counts are those of every threshold.

    Args:
        images: Maps of the true class, with boxes and sizes. A constant map, or one that is not finite,
            counts as all zeros and gives the box (0, 0, 0, 0).
        side_px: Maps are resized to this square; the images were squeezed to it without a crop.
        step: Thresholds are 0, step, 2 step, ... below 1.

    Returns:
        Integer counts.

    Raises:
        DataError: There are no images, or one has no box.

    Source:
        clovaai/wsolevaluation, evaluation.py and util.py; Choe et al., CVPR 2020.
    """
    thresholds = np.arange(0, 1, step)
    cuts = (thresholds * _TOP).astype(int)
    distinct, cut_of_threshold = np.unique(cuts, return_inverse=True)
    wanted = np.array(IOU_PCT)[:, None] / 100
    largest = np.zeros((len(IOU_PCT), len(distinct)), dtype=np.int64)
    any_contour = np.zeros_like(largest)
    n = 0
    for score_map, boxes, size_wh in images:
        if not len(boxes):
            raise DataError(
                f"Image {n} of the localisation set: expected at least one box, found none. Index it again."
            )
        overlap = _overlaps(eight_bits(score_map, side_px), scaled_boxes(boxes, size_wh, (side_px, side_px)), distinct)
        largest += overlap[0] >= wanted
        any_contour += overlap[1] >= wanted
        n += 1
    if not n:
        raise DataError("Localisation: expected images, found none. Index and predict the set again.")
    return BoxAccuracy(largest[:, cut_of_threshold], any_contour[:, cut_of_threshold], thresholds, n)


def eight_bits(score_map: Floats, side_px: int) -> Bytes:
    """A score map as 8 bits: bicubic resize, min to 0, max to 255, truncated.

    Args:
        score_map: [h, w], any range.
        side_px: Side of the square that comes out.

    Returns:
        [side_px, side_px]; zeros where the map is constant or not finite.
    """
    resized = cv2.resize(score_map.astype(np.float32), (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    low, high = resized.min(), resized.max()
    if not np.isfinite(resized).all() or low == high:
        return np.zeros((side_px, side_px), dtype=np.uint8)
    return (((resized - low) / (high - low)) * _TOP).astype(np.uint8)


def scaled_boxes(boxes: Ints, from_wh: tuple[int, int], to_wh: tuple[int, int]) -> Ints:
    """Boxes moved to an image of another size, truncated to whole pixels.

    Args:
        boxes: [k, 4] x0y0x1y1 in pixels of an image of size `from_wh`.
        from_wh: Width, height.
        to_wh: Width, height.
    """
    scaled = np.asarray(boxes, dtype=np.float64) * (to_wh * 2) / (from_wh * 2)
    return np.asarray(scaled.astype(np.int64))  # astype truncates


def iou(boxes_a: Ints, boxes_b: Ints) -> Floats:
    """Intersection over union of every pair: [a, b], for [a, 4] and [b, 4] boxes x0y0x1y1.

    The last pixel belongs to a box, so widths and heights are differences plus one. A pair whose union
    is not positive has 0.
    """
    a, b = boxes_a[:, None, :], boxes_b[None, :, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    shared = np.clip(sides, 0, None).prod(axis=-1)
    union = _area(a) + _area(b) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def contour_boxes(foreground: Bytes) -> tuple[Ints, int]:
    """Boxes of all contours of a mask, holes included, and which belongs to the largest contour.

    Args:
        foreground: [h, w], not zero where the foreground is.

    Returns:
        [k, 4] x0y0x1y1 with x1 = x + width, clipped to the last pixel; one box (0, 0, 0, 0) for an empty
        mask. The index of the contour with the largest area, the first of equals.
    """
    contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not len(contours):
        return np.zeros((1, 4), dtype=np.int64), 0
    largest = int(np.argmax([cv2.contourArea(contour) for contour in contours])) if len(contours) > 1 else 0
    corners = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.int64)
    height, width = foreground.shape
    corners[:, 2:] = np.minimum(corners[:, :2] + corners[:, 2:], (width - 1, height - 1))
    return corners, largest


def centre_gaussian(side_px: int, sigma: float = 0.25) -> Floats:
    """A score map that knows nothing but the centre: the baseline that WSOL methods must beat.

    ASSUME: the centre prior is round, with a standard deviation of `sigma` sides; since the threshold is chosen
    afterwards, the width hardly matters.

    Returns:
        [side_px, side_px] in (0, 1].
    """
    axis = (np.arange(side_px) + 0.5) / side_px - 0.5
    squared = axis[:, None] ** 2 + axis[None, :] ** 2
    return np.asarray(np.exp(-squared / (2 * sigma**2)))


def points_in_box(point_xy: Floats, boxes: Iterable[Ints], size_wh: Ints) -> int:
    """How many predicted points lie inside any of their image's boxes.

    Args:
        point_xy: [n, 2] fractions of the image, x right, y down.
        boxes: n times [k, 4] x0y0x1y1 in source pixels; a box reaches to the far edge of its last pixel,
            and its border counts as inside.
        size_wh: [n, 2] width and height in source pixels.
    """
    inside = 0
    for (x, y), of_image in zip(point_xy * size_wh, boxes, strict=True):
        x0, y0, x1, y1 = np.asarray(of_image).T
        inside += bool(((x0 <= x) & (x <= x1 + 1) & (y0 <= y) & (y <= y1 + 1)).any())
    return inside


def point_distances(point_xy: Floats, boxes: Iterable[Ints], size_wh: Ints) -> Floats:
    """Distance from each predicted point to the nearest box centre, as a share of the image's diagonal.

    ASSUME: no released protocol scores a predicted point; centre and diagonal are this project's choice.

    Arguments as in `points_in_box`.

    Returns:
        [n], 0 at a centre, at most about 1.
    """
    distances = np.empty(len(point_xy))
    for i, (point, of_image) in enumerate(zip(point_xy * size_wh, boxes, strict=True)):
        corners = np.asarray(of_image, dtype=np.float64)
        centres = (corners[:, :2] + corners[:, 2:] + 1) / 2
        distances[i] = np.hypot(*(centres - point).T).min()
    return np.asarray(distances / np.hypot(*np.asarray(size_wh, dtype=np.float64).T))


def _overlaps(map8: Bytes, boxes: Ints, cuts: Ints) -> tuple[Floats, Floats]:
    """Best IoU with any drawn box at each cut: of the largest contour's box, and over all contours'."""
    levels = np.unique(map8)
    if levels[-1] == 0:  # every threshold value is int(t x 0) = 0, above which there is nothing
        cuts = np.zeros_like(cuts)
    # The pixels above a cut are those above the highest level that does not exceed it.
    used, index = np.unique(np.searchsorted(levels, cuts, side="right") - 1, return_inverse=True)
    found = [contour_boxes((map8 > levels[i]).astype(np.uint8)) for i in used]
    first = np.cumsum([0] + [len(candidates) for candidates, _ in found[:-1]])
    best = iou(np.concatenate([candidates for candidates, _ in found]), boxes).max(axis=1)
    of_largest = best[first + np.array([largest for _, largest in found])]
    return of_largest[index], np.maximum.reduceat(best, first)[index]


def _area(boxes: Ints) -> Ints:
    return np.asarray((boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1))
