"""Localisation: boxes and pixels from score maps (MaxBoxAcc, PxAP), the pointing game, and predicted points."""

import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from luab.errors import DataError
from luab.metrics.contours import TOP, Bytes, Floats, Ints, Levels, is_flat

IOU_PCT = (30, 50, 70)
STEP = 0.001
_PART = 256  # images per task of a process

T = TypeVar("T")
R = TypeVar("R")


class LocalizationInput(NamedTuple):
    """One image: raw score map [h, w], ground-truth boxes [k, 4] x0y0x1y1 in source pixels, size (width, height)."""

    score_map: Floats
    boxes: Ints
    size_wh: tuple[int, int]


class BoxAccuracy(NamedTuple):
    """Numbers of localised images by IoU (rows, see IOU_PCT) and threshold.

    Attributes:
        largest: [3, thresholds] images localised by the box of the largest contour (MaxBoxAcc).
        any_contour: [3, thresholds] images localised by the best box of all contours (MaxBoxAccV2).
        thresholds: [thresholds] fractions of the map's maximum.
        n: Number of images.
        hits: [n, 3, 32] whether any contour's box fits, one bit per level of the 8-bit map (np.packbits).
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
        """MaxBoxAccV2: mean over IoU 0.3, 0.5 and 0.7 of the accuracy at the best threshold; higher is better."""
        return int(self.any_contour.max(axis=1).sum()) / (len(IOU_PCT) * self.n)

    def found_at(self, iou_pct: int) -> int:
        """Number of images localised by any contour at one IoU, at the best threshold for that IoU."""
        return int(self.any_contour[IOU_PCT.index(iou_pct)].max())

    def best_threshold(self, iou_pct: int) -> float:
        """The lowest threshold that reaches `found_at`."""
        return float(self.thresholds[int(self.any_contour[IOU_PCT.index(iou_pct)].argmax())])

    def hits_at_best(self) -> npt.NDArray[np.bool_]:
        """[n, 3] whether each image is localised at each IoU, at the best threshold for that IoU."""
        cuts = _cuts(self.thresholds)[self.any_contour.argmax(axis=1)]
        return np.asarray(self.hits[:, np.arange(len(IOU_PCT)), cuts // 8] << (cuts % 8) & 128 > 0)


def box_accuracy(
    images: Iterable[LocalizationInput], side_px: int, step: float = STEP, processes: int = 1
) -> BoxAccuracy:
    """Counts the images whose box matches a ground-truth box, for every threshold.

    Maps have 8 bits, so all thresholds between two levels give the same box, and boxes are computed once per level.

    Args:
        images: Maps of the true class, with boxes and sizes. A constant map, or one that is not finite, counts as all
            zeros and gives the box (0, 0, 0, 0).
        side_px: Side of the square that the images were resized to without a crop; maps are resized to it too.
        step: Thresholds are 0, step, 2 step, ... below 1.
        processes: Number of processes; the counts do not depend on it.

    Raises:
        DataError: There are no images, or an image has no box.

    Source:
        clovaai/wsolevaluation, evaluation.py and util.py; Choe et al., CVPR 2020.
    """
    thresholds = np.arange(0, 1, step)
    cuts = _cuts(thresholds)
    work = functools.partial(_localised, side_px=side_px, cuts=np.unique(cuts))
    results = list(in_processes(work, enumerate(batches(images, _PART)), processes))
    if not results:
        raise DataError("Localisation: expected images, found none. Build the manifest again, then predict.")
    largest = np.sum([counts for counts, _ in results], axis=0)
    any_contour = np.sum([np.unpackbits(bits, axis=2).sum(axis=0, dtype=np.int64) for _, bits in results], axis=0)
    hits = np.concatenate([bits for _, bits in results])
    return BoxAccuracy(largest[:, cuts], any_contour[:, cuts], thresholds, len(hits), hits)


def _cuts(thresholds: Floats) -> Ints:
    """The level of the 8-bit map for each threshold; the foreground lies above it."""
    return np.asarray((thresholds * TOP).astype(int))


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Splits items into lists of `size`, in order; the last list may be shorter."""
    remaining = iter(items)
    while part := list(itertools.islice(remaining, size)):
        yield part


def in_processes(work: Callable[[T], R], parts: Iterator[T], processes: int) -> Iterator[R]:
    """Yields `work(part)` for each part, in order; runs in this process for a single part or a single process.

    Args:
        work: A function that another process can import.
        parts: Batches of a few hundred images, so that the work outweighs the start of the processes.
        processes: Number of worker processes; OpenCV uses one thread in each.
    """
    first = list(itertools.islice(parts, 2))
    rest = itertools.chain(first, parts)
    if processes == 1 or len(first) < 2:
        yield from map(work, rest)
        return
    # Spawn, not fork: a fork could copy a lock held by one of Arrow's threads.
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(work, rest)


def _localised(numbered: tuple[int, list[LocalizationInput]], side_px: int, cuts: Ints) -> tuple[Ints, Bytes]:
    """[3, 256] images localised at each level by the largest contour, and the bits of `BoxAccuracy.hits`."""
    number, part = numbered
    least_iou = np.array(IOU_PCT)[:, None] / 100
    largest = np.zeros((len(IOU_PCT), TOP + 1), dtype=np.int64)
    hits = np.zeros((len(part), len(IOU_PCT), TOP + 1), dtype=bool)
    for i, (score_map, boxes, size_wh) in enumerate(part):
        if not len(boxes):
            raise DataError(
                f"Image {number * _PART + i} of the localisation set: expected at least one box, found none. Build the "
                "manifest again."
            )
        scaled = scaled_boxes(boxes, size_wh, (side_px, side_px))
        of_largest, of_any = _overlaps(Levels(score_map, side_px), scaled, cuts)
        largest[:, cuts] += of_largest >= least_iou
        hits[i][:, cuts] = of_any >= least_iou
    return largest, np.packbits(hits, axis=2)


def bin_edges(step: float = STEP) -> Floats:
    """[bins + 1] edges of the bins [0, step), ..., [1 - step, 1), [1, 2) by which PxAP counts pixels."""
    return np.append(np.arange(0, 1, step), [1.0, 2.0])


def pixel_average_precision(
    score_maps: Iterable[Floats], masks: Iterable[npt.NDArray[np.integer[Any]]], step: float = STEP
) -> float:
    """PxAP of score maps in [0, 1] and masks as in `pixel_counts`; see `precision_of_pixels`.

    Raises:
        DataError: A map and its mask differ in shape, a score lies outside [0, 1], or no pixel is foreground.
    """
    edges = bin_edges(step)
    counts = [pixel_counts(score_map, mask, edges) for score_map, mask in zip(score_maps, masks, strict=True)]
    return precision_of_pixels(np.sum(counts, axis=0))


def pixel_counts(score_map: Floats, mask: npt.NDArray[np.integer[Any]], edges: Floats) -> Ints:
    """[2, bins] numbers of background and of foreground pixels by score.

    Args:
        score_map: [h, w] in [0, 1].
        mask: [h, w] 1 for foreground, 0 for background, 255 for ignored pixels.
        edges: [bins + 1] from `bin_edges`; a score on an edge belongs to the bin above it.

    Raises:
        DataError: Map and mask differ in shape, or a score lies outside [0, 1].
    """
    if score_map.shape != mask.shape or not ((score_map >= 0) & (score_map <= 1)).all():
        raise DataError(
            f"PxAP: expected a map in [0, 1] and a mask of the same shape; found shapes {score_map.shape} and "
            f"{mask.shape}, and scores from {score_map.min()} to {score_map.max()}. Scale the map first."
        )
    bins = len(edges) - 1
    bin_of = _bins_of(score_map.ravel(), edges)
    label = mask.ravel().astype(np.int64)
    counted = label < 2
    return np.bincount(bin_of[counted] + bins * label[counted], minlength=2 * bins).reshape(2, bins)


def precision_of_pixels(counts: Ints) -> float:
    """PxAP: area under the precision-recall curve of foreground pixels, pooled over all images; higher is better.

    Precision and recall are those of taking a bin and all bins above it; a bin adds its precision times its step in
    recall. The source has another bin [2, 3), which is always empty and whose step is the one it leaves out, so the
    results are equal.

    Args:
        counts: [2, bins] sum of `pixel_counts` over the images.

    Raises:
        DataError: No pixel is foreground.

    Source:
        clovaai/wsolevaluation, evaluation.py (MaskEvaluator). Made for OpenImages30k; ILSVRC has no masks.
    """
    if not counts[1].any():
        raise DataError(
            "PxAP: expected at least one foreground pixel, found none. Foreground pixels of a mask must be 1."
        )
    false, true = counts[:, ::-1].cumsum(axis=1)
    steps = np.diff(true, prepend=0)
    return float((steps * true / np.maximum(true + false, 1)).sum() / true[-1])


def _bins_of(scores: Floats, edges: Floats) -> Ints:
    """The bin of each score; equals np.searchsorted, but is faster: estimated from the step, then corrected."""
    bins = np.minimum((scores * (1 / (edges[1] - edges[0]))).astype(np.int64), len(edges) - 2)
    bins -= scores < edges[bins]
    bins += scores >= edges[bins + 1]
    return bins


class Focus(NamedTuple):
    """How much a map is on the object.

    energy: [n] share of the map's positive values that lies in the boxes; 0 if there are none. hits: [n] pointing game.
    """

    energy: Floats
    hits: npt.NDArray[np.bool_]


def box_focus(images: Iterable[LocalizationInput], side_px: int, tolerance_px: int, processes: int = 1) -> Focus:
    """Energy-based pointing game and pointing game of score maps with boxes.

    For the energy, maps are resized bilinearly to the network's input, and boxes are scaled to it. A constant map, or
    one that is not finite, has the energy 0. The pointing game is `hits_mask` with the boxes as the mask, since ILSVRC
    has no masks.

    Args:
        images: Maps of the true class, with boxes and sizes.
        side_px: Side of the square that the images were resized to without a crop.
        tolerance_px: A hit is closer to a box than this, in source pixels.
        processes: Number of processes; the numbers do not depend on it.

    Source:
        Wang et al., Score-CAM, CVPR workshops 2020 (energy); `hits_mask`.
    """
    work = functools.partial(_focused, side_px=side_px, tolerance_px=tolerance_px)
    parts = list(in_processes(work, batches(images, _PART), processes))
    return Focus(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _focused(part: list[LocalizationInput], side_px: int, tolerance_px: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    energy, hits = np.zeros(len(part)), np.zeros(len(part), dtype=bool)
    for i, (score_map, boxes, size_wh) in enumerate(part):
        hits[i] = hits_mask(score_map, _mask_of(boxes, size_wh), tolerance_px)
        if not is_flat(score_map):
            mask = _mask_of(scaled_boxes(boxes, size_wh, (side_px, side_px)), (side_px, side_px))
            scaled = cv2.resize(score_map.astype(np.float32), (side_px, side_px), interpolation=cv2.INTER_LINEAR)
            positive = np.maximum(scaled, 0, dtype=np.float64)
            energy[i] = positive[mask].sum() / max(positive.sum(), np.finfo(np.float64).tiny)
    return energy, hits


def _mask_of(boxes: Ints, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """[height, width], whether a pixel is in one of the boxes [k, 4], both ends included."""
    mask = np.zeros(size_wh[::-1], dtype=bool)
    for x0, y0, x1, y1 in boxes.tolist():
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def hits_mask(score_map: Floats, mask: npt.NDArray[np.bool_], tolerance_px: int) -> bool:
    """The pointing game: whether the maximum of the map lies less than a tolerance from a mask.

    Args:
        score_map: [h, w], resized bicubically to the mask's size here; of equal maxima the first counts,
            and of a constant map, or one that is not finite, the first pixel.
        mask: [height, width] in source pixels.
        tolerance_px: A hit is closer to the mask than this, in source pixels.

    Source:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, whose tolerance is 15 px;
        facebookresearch/TorchRay:torchray/benchmark/pointing_game.py, where a distance of exactly 15 px is a miss.
    """
    height, width = mask.shape
    scaled = cv2.resize(score_map.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = (0, 0) if is_flat(score_map) else divmod(int(scaled.argmax()), width)
    return is_near(mask, x, y, tolerance_px)


def is_near(mask: npt.NDArray[np.bool_], x: int, y: int, tolerance_px: int) -> bool:
    """Whether pixel (x, y) lies less than a tolerance, in pixels, from a mask [height, width]."""
    near = mask[max(0, y - tolerance_px) : y + tolerance_px + 1, max(0, x - tolerance_px) : x + tolerance_px + 1]
    rows, columns = np.nonzero(near)
    rows, columns = rows + max(0, y - tolerance_px) - y, columns + max(0, x - tolerance_px) - x
    return bool((rows**2 + columns**2 < tolerance_px**2).any())


def scaled_boxes(boxes: Ints, from_wh: tuple[int, int], to_wh: tuple[int, int]) -> Ints:
    """Scales boxes from one image size to another, truncated to whole pixels.

    Args:
        boxes: [k, 4] x0y0x1y1 in pixels of an image of size `from_wh`.
        from_wh: Width and height.
        to_wh: Width and height.
    """
    scaled = np.asarray(boxes, dtype=np.float64) * (to_wh * 2) / (from_wh * 2)
    return np.asarray(scaled.astype(np.int64))  # astype truncates


def iou(boxes_a: Ints, boxes_b: Ints) -> Floats:
    """[a, b] intersection over union of every pair of boxes [a, 4] and [b, 4], x0y0x1y1.

    The last pixel belongs to a box, so widths and heights are differences plus one. A pair whose union is not positive
    gets 0.
    """
    shared = _intersections(boxes_a, boxes_b)
    union = _area(boxes_a)[:, None] + _area(boxes_b) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def points_in_box(point_xy: Floats, boxes: Iterable[Ints], size_wh: Ints) -> int:
    """Number of predicted points that lie in any box of their image.

    Args:
        point_xy: [n, 2] fractions of the image, x right, y down.
        boxes: n times [k, 4] x0y0x1y1 in source pixels; a box extends to the far edge of its last pixel, and its border
            counts as inside.
        size_wh: [n, 2] width and height in source pixels.
    """
    inside = 0
    for (x, y), of_image in zip(point_xy * size_wh, boxes, strict=True):
        x0, y0, x1, y1 = np.asarray(of_image).T
        inside += bool(((x0 <= x) & (x <= x1 + 1) & (y0 <= y) & (y <= y1 + 1)).any())
    return inside


def point_distances(point_xy: Floats, boxes: Iterable[Ints], size_wh: Ints) -> Floats:
    """[n] distance from each predicted point to the nearest box centre, as a fraction of the image's diagonal.

    ASSUME: no released protocol scores a predicted point; centre and diagonal are this project's choice.

    Arguments as for `points_in_box`.
    """
    distances = np.empty(len(point_xy))
    for i, (point, of_image) in enumerate(zip(point_xy * size_wh, boxes, strict=True)):
        corners = np.asarray(of_image, dtype=np.float64)
        centres = (corners[:, :2] + corners[:, 2:] + 1) / 2
        distances[i] = np.hypot(*(centres - point).T).min()
    return np.asarray(distances / np.hypot(*np.asarray(size_wh, dtype=np.float64).T))


def _area(boxes: Ints) -> Ints:
    return np.asarray((boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1))


def _intersections(boxes_a: Ints, boxes_b: Ints) -> Ints:
    """[a, b] pixels shared by every pair of boxes."""
    a, b = boxes_a[:, None, :], boxes_b[None, :, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    return np.asarray(np.clip(sides, 0, None).prod(axis=-1))


def _overlaps(levels: Levels, boxes: Ints, cuts: Ints) -> tuple[Floats, Floats]:
    """Best IoU of the largest contour's box and of all boxes at each cut; 0 where none can reach the least IOU_PCT."""
    # The pixels above a cut are those above the highest value that does not exceed it. A constant map has only the
    # value 0, with no pixel above it.
    used, index = np.unique(np.searchsorted(levels.values, cuts, side="right") - 1, return_inverse=True)
    of_largest, of_any = np.zeros(len(used)), np.zeros(len(used))
    candidates = np.flatnonzero(_may_fit(levels.extents[used], boxes))
    if len(candidates):
        contours, starts, largest = levels.boxes(used[candidates])
        best = iou(contours, boxes).max(axis=1)
        of_largest[candidates] = best[largest]
        of_any[candidates] = np.maximum.reduceat(best, starts[::-1])[::-1]
    return of_largest[index], of_any[index]


def _may_fit(extents: Ints, boxes: Ints) -> npt.NDArray[np.bool_]:
    """[levels] whether a box could reach the least IOU_PCT: its IoU is at most the share that the extent covers."""
    share = _intersections(extents, boxes) / np.maximum(_area(boxes), 1)
    return np.asarray((share >= IOU_PCT[0] / 100 - 1e-9).any(axis=1))
