"""Where a model looks: boxes cut out of score maps (MaxBoxAcc) and predicted points, against drawn boxes."""

import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from luab.errors import DataError
from luab.metrics.contours import TOP, Bytes, Floats, Ints, Levels

IOU_PCT = (30, 50, 70)
STEP = 0.001
_PART = 256  # images that a process takes at a time

T = TypeVar("T")
R = TypeVar("R")


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
        hits: [n, 3, 32] whether any contour's box fits, a bit per level of the 8-bit map (np.packbits).
    """

    largest: Ints
    any_contour: Ints
    thresholds: Floats
    n: int
    hits: Bytes

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

    def hits_at_best(self) -> npt.NDArray[np.bool_]:
        """[n, 3] whether each image is found at each IoU, at that IoU's best threshold."""
        cuts = _cuts(self.thresholds)[self.any_contour.argmax(axis=1)]
        return np.asarray(self.hits[:, np.arange(len(IOU_PCT)), cuts // 8] << (cuts % 8) & 128 > 0)


def box_accuracy(
    images: Iterable[LocalizationInput], side_px: int, step: float = STEP, processes: int = 1
) -> BoxAccuracy:
    """Counts, for every threshold, the images whose box fits one of the drawn boxes.

    A map has 8 bits, so all thresholds between two of its levels give the same box: the work is done
    once per level and the counts are those of every threshold.

    Args:
        images: Maps of the true class, with boxes and sizes. A constant map, or one that is not finite,
            counts as all zeros and gives the box (0, 0, 0, 0).
        side_px: Maps are resized to this square; the images were squeezed to it without a crop.
        step: Thresholds are 0, step, 2 step, ... below 1.
        processes: More than one share many images among them; the counts are the same.

    Returns:
        Integer counts.

    Raises:
        DataError: There are no images, or one has no box.

    Source:
        clovaai/wsolevaluation, evaluation.py and util.py; Choe et al., CVPR 2020.
    """
    thresholds = np.arange(0, 1, step)
    cuts = _cuts(thresholds)
    work = functools.partial(_found, side_px=side_px, cuts=np.unique(cuts))
    found = list(in_processes(work, enumerate(batches(images, _PART)), processes))
    if not found:
        raise DataError("Localisation: expected images, found none. Index and predict the set again.")
    largest = np.sum([part for part, _ in found], axis=0)
    any_contour = np.sum([np.unpackbits(part, axis=2).sum(axis=0, dtype=np.int64) for _, part in found], axis=0)
    hits = np.concatenate([part for _, part in found])
    return BoxAccuracy(largest[:, cuts], any_contour[:, cuts], thresholds, len(hits), hits)


def _cuts(thresholds: Floats) -> Ints:
    """Level of the 8-bit map that each threshold cuts above."""
    return np.asarray((thresholds * TOP).astype(int))


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`size` items at a time, in their order; the last ones may be fewer."""
    remaining = iter(items)
    while part := list(itertools.islice(remaining, size)):
        yield part


def in_processes(work: Callable[[T], R], parts: Iterator[T], processes: int) -> Iterator[R]:
    """`work` on each part, in their order; in this process where there is but one part or one process.

    Args:
        work: A function that another process can import.
        parts: Each of some hundred images: starting processes takes longer than a few hundred maps.
        processes: How many share the parts; OpenCV keeps to one thread in each.
    """
    first = list(itertools.islice(parts, 2))
    rest = itertools.chain(first, parts)
    if processes == 1 or len(first) < 2:
        yield from map(work, rest)
        return
    # Not forked: Arrow's threads are about, and a fork might copy a lock that one of them holds.
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(work, rest)


def _found(numbered: tuple[int, list[LocalizationInput]], side_px: int, cuts: Ints) -> tuple[Ints, Bytes]:
    """[3, 256] images found at each level by the largest contour, and the bits of `BoxAccuracy.hits`."""
    number, part = numbered
    wanted = np.array(IOU_PCT)[:, None] / 100
    largest = np.zeros((len(IOU_PCT), TOP + 1), dtype=np.int64)
    hits = np.zeros((len(part), len(IOU_PCT), TOP + 1), dtype=bool)
    for i, (score_map, boxes, size_wh) in enumerate(part):
        if not len(boxes):
            raise DataError(
                f"Image {number * _PART + i} of the localisation set: expected at least one box, found none. "
                "Index it again."
            )
        drawn = scaled_boxes(boxes, size_wh, (side_px, side_px))
        of_largest, of_any = _overlaps(Levels(score_map, side_px), drawn, cuts)
        largest[:, cuts] += of_largest >= wanted
        hits[i][:, cuts] = of_any >= wanted
    return largest, np.packbits(hits, axis=2)


def pixel_average_precision(
    score_maps: Iterable[Floats], masks: Iterable[npt.NDArray[np.integer[Any]]], step: float = STEP
) -> float:
    """PxAP: area under the precision-recall curve of finding foreground pixels, all pixels of all images pooled.

    Pixels are counted by score in bins [0, step), ..., [1 - step, 1), [1, 2): precision and recall are those of taking
    a bin and all above it, and a bin adds precision x its step in recall. In the source a bin [2, 3) lies above
    these; it never has a pixel, and its step is the one left out, so nothing is lost.

    Args:
        score_maps: [h, w] each, in [0, 1].
        masks: [h, w] each: 1 foreground, 0 background, 255 ignored.
        step: Width of a bin.

    Returns:
        A fraction, higher is better.

    Raises:
        DataError: A map and its mask differ in shape, a score lies outside of [0, 1], or no pixel is foreground.

    Source:
        clovaai/wsolevaluation, evaluation.py (MaskEvaluator). Made for OpenImages30k; ILSVRC has no masks.
    """
    edges = np.append(np.arange(0, 1, step), [1.0, 2.0])
    counts = np.zeros((2, len(edges) - 1), dtype=np.int64)
    for score_map, mask in zip(score_maps, masks, strict=True):
        counts += pixel_counts(score_map, mask, edges)
    return precision_of_pixels(counts)


def pixel_counts(score_map: Floats, mask: npt.NDArray[np.integer[Any]], edges: Floats) -> Ints:
    """[2, bins] pixels of the background and of the foreground by score; those marked 255 are left out.

    Args:
        score_map: [h, w] in [0, 1].
        mask: [h, w]: 1 foreground, 0 background, 255 ignored.
        edges: [bins + 1] from 0 on, one step apart but for the last, which is above 1; a pixel on an edge belongs to
            the bin above it.

    Raises:
        DataError: Map and mask differ in shape, or a score lies outside of [0, 1].
    """
    if score_map.shape != mask.shape or not ((score_map >= 0) & (score_map <= 1)).all():
        raise DataError(
            f"PxAP: expected a map in [0, 1] and a mask of the same shape, found {score_map.shape}, "
            f"{mask.shape} and scores from {score_map.min()} to {score_map.max()}. Scale the map first."
        )
    bins = len(edges) - 1
    place = _bins_of(score_map.ravel(), edges)
    kind = mask.ravel().astype(np.int64)
    seen = kind < 2
    return np.bincount(place[seen] + bins * kind[seen], minlength=2 * bins).reshape(2, bins)


def precision_of_pixels(counts: Ints) -> float:
    """PxAP from the sums of `pixel_counts`.

    Raises:
        DataError: No pixel is foreground.
    """
    if not counts[1].any():
        raise DataError("PxAP: expected at least one foreground pixel, found none. Check the masks: foreground is 1.")
    false, true = counts[:, ::-1].cumsum(axis=1)
    steps = np.diff(true, prepend=0)
    return float((steps * true / np.maximum(true + false, 1)).sum() / true[-1])


def _bins_of(scores: Floats, edges: Floats) -> Ints:
    """The bin of each score, as np.searchsorted finds it: guessed from the step, then compared with the edges."""
    bins = np.minimum((scores * (1 / (edges[1] - edges[0]))).astype(np.int64), len(edges) - 2)
    bins -= scores < edges[bins]
    bins += scores >= edges[bins + 1]
    return bins


def hits_mask(score_map: Floats, mask: npt.NDArray[np.bool_], tolerance_px: int) -> bool:
    """The pointing game: whether the map's highest place lies on a mask, or at most so many pixels from it.

    Args:
        score_map: [h, w] resized bicubically to the mask's size; the first of equal maxima counts.
        mask: [height, width] in source pixels.
        tolerance_px: Radius in source pixels.

    Source:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, whose tolerance is 15 px.
    """
    height, width = mask.shape
    scaled = cv2.resize(score_map.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = divmod(int(scaled.argmax()), width)
    near = mask[max(0, y - tolerance_px) : y + tolerance_px + 1, max(0, x - tolerance_px) : x + tolerance_px + 1]
    rows, columns = np.nonzero(near)
    rows, columns = rows + max(0, y - tolerance_px) - y, columns + max(0, x - tolerance_px) - x
    return bool((rows**2 + columns**2 <= tolerance_px**2).any())


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


def _area(boxes: Ints) -> Ints:
    return np.asarray((boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1))


def _overlaps(levels: Levels, boxes: Ints, cuts: Ints) -> tuple[Floats, Floats]:
    """Best IoU with any drawn box at each cut: of the largest contour's box, and over all contours'.

    0 stands for every IoU below the smallest that is asked for, where that is plain without looking.
    """
    # The pixels above a cut are those above the highest value that does not exceed it; a useless map has the value 0
    # alone, with none above.
    used, index = np.unique(np.searchsorted(levels.values, cuts, side="right") - 1, return_inverse=True)
    of_largest, of_any = np.zeros(len(used)), np.zeros(len(used))
    look = np.flatnonzero(_may_fit(levels.extents[used], boxes))
    if len(look):
        found, begins, largest = levels.boxes(used[look])
        best = iou(found, boxes).max(axis=1)
        of_largest[look] = best[largest]
        of_any[look] = np.maximum.reduceat(best, begins[::-1])[::-1]
    return of_largest[index], of_any[index]


def _may_fit(around: Ints, boxes: Ints) -> npt.NDArray[np.bool_]:
    """Whether a box around pixels above each level could have the smallest IoU that is asked for.

    No such box reaches beyond the box around all of these pixels, `around` [levels, 4]. What that one shares with a
    drawn box, as a part of the drawn box, is the most that any IoU with it can be; high levels leave too little of it.
    """
    a, b = around[:, None, :], boxes[None, :, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    part = np.clip(sides, 0, None).prod(axis=-1) / np.maximum(_area(b), 1)
    return np.asarray((part >= IOU_PCT[0] / 100 - 1e-9).any(axis=1))
