"""Average precision of boxes by the rules of COCO (pycocotools) and of Pascal VOC, also of weighted images.

A detection is matched with an object of its own image, so that matches do not depend on other images. Average precision
is computed from them for any weights of the images: weight 1 for all gives the usual number, and how often a bootstrap
draws each image gives that of the resample.
"""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from luab.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rule = Literal["coco", "area", "eleven"]

MOST_DETECTIONS = 100
"""Detections of an image that count, the best first.
SOURCE: cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py (maxDets)."""
SIZES = ("all", "small", "medium", "large")
"""Ranges of the object's area, in the order of pycocotools; limits of 32 and 96 px squared."""
VOC_IOU = 0.5
"""SOURCE: Everingham et al., The Pascal Visual Object Classes challenge, IJCV 2010, section 4.2."""

_CELLS = 4_000_000  # resamples times detections in memory at once


class Objects(NamedTuple):
    """The ground truth of one image; boxes are x0 y0 x1 y1 in pixels, continuous: width is x1 - x0."""

    image_id: str
    boxes: Floats  # [objects, 4]
    labels: Ints  # [objects] 1 to the number of classes
    area_px: Floats  # [objects] of the mask where the data set has masks, else of the box
    ignored: Bools  # [objects] crowds of COCO, difficult objects of VOC: finding them is neither right nor wrong


class Detections(NamedTuple):
    """The detections in one image, in any order."""

    boxes: Floats  # [detections, 4], see `Objects`
    labels: Ints  # [detections] 1 to the number of classes
    scores: Floats  # [detections]

    def take(self, places: Ints) -> "Detections":
        """Some of the detections, in the order of `places`."""
        return Detections(self.boxes[places], self.labels[places], self.scores[places])


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which detections found an object, at one overlap or more; per image, so that images can be weighted.

    Detections are in the order of image, class and descending score.

    Attributes:
        ids: Image ids in ascending text order.
        rows: [detections] place of each one's image in `ids`.
        labels: [detections] 1 to the number of classes.
        scores: [detections].
        matched: [detections, overlaps] whether each found an object that no better one found.
        ignored: [detections, overlaps] whether it counts neither as right nor as wrong.
        objects: [images, classes] number of objects to find.
    """

    ids: list[str]
    rows: Ints
    labels: Ints
    scores: Floats
    matched: Bools
    ignored: Bools
    objects: Ints

    def only(self, counted: Bools) -> "Matches":
        """These matches without the detections and objects of some pairs of image and class.

        Args:
            counted: [images, classes] which pairs count.
        """
        here = counted[self.rows, self.labels - 1]
        parts = {name: getattr(self, name)[here] for name in ("rows", "labels", "scores", "matched", "ignored")}
        return dataclasses.replace(self, **parts, objects=np.where(counted, self.objects, 0))


class CocoResult(NamedTuple):
    """AP by pycocotools. A number without an object that counts is left out.

    Attributes:
        metrics: ap, ap50, ap75, ap_small, ap_medium, ap_large; fractions.
        per_class: [classes] AP; NaN without an object.
        matches: By range of area, see `SIZES`, at the ten overlaps 0.50, 0.55, ..., 0.95.
    """

    metrics: dict[str, float]
    per_class: Floats
    matches: dict[str, Matches]


def coco_scores(truth: Sequence[Objects], found: Sequence[Detections], classes: int) -> CocoResult:
    """Scores detections with pycocotools.

    Args:
        truth: One per image, in ascending order of image_id.
        found: The detections of the same images, in the same order; at most `MOST_DETECTIONS` each.
        classes: Number of classes.

    Raises:
        DataError: The images are not in order, or an image has too many detections.

    ASSUME: a difficult object of VOC counts as a crowd, since pycocotools ignores no other objects.
    """
    from pycocotools.cocoeval import COCOeval

    _check(truth, found)
    found = [_ranked(detections) for detections in found]
    # pycocotools reports every step on standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(_truth_records(truth), truth, classes), None, "bbox")
        evaluation.cocoDt = _coco(_found_records(found), truth, classes)
        evaluation.params.imgIds = list(range(len(truth)))
        evaluation.params.catIds = list(range(1, classes + 1))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    metrics = {name: float(value) for name, value in zip(names, evaluation.stats, strict=False) if value >= 0}
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))  # [overlaps, recalls, classes, ...]
    matches = {size: _of_area(evaluation.evalImgs, place, truth, found, classes) for place, size in enumerate(SIZES)}
    return CocoResult(metrics, np.where(precision < 0, np.nan, precision), matches)


def voc_matches(truth: Sequence[Objects], found: Sequence[Detections], classes: int) -> Matches:
    """Matches by the rule of Pascal VOC: each detection with the object of its class that it overlaps most.

    It is right if their IoU is at least `VOC_IOU` and no better detection found the object; if the object is difficult,
    it does not count. Unlike pycocotools, it does not take another object instead of one that was found already. With
    boxes as in `Objects`, IoU is that of VOC's development kit, whose boxes include their last pixel.

    Args and raises: see `coco_scores`.
    """
    from pycocotools import mask

    _check(truth, found)
    found = [_ranked(detections) for detections in found]
    parts: list[tuple[Bools, Bools]] = []
    for objects, detections in zip(truth, found, strict=True):
        matched, ignored = np.zeros((2, len(detections.labels)), dtype=bool)
        for label in np.unique(detections.labels):
            of_class, to_find = np.flatnonzero(detections.labels == label), objects.labels == label
            if not to_find.any():
                continue
            difficult, taken = objects.ignored[to_find], np.zeros(to_find.sum(), dtype=bool)
            boxes = _xywh(detections.boxes[of_class]), _xywh(objects.boxes[to_find])
            for place, overlaps in zip(of_class, mask.iou(*boxes, [0] * len(taken)), strict=True):
                best = int(overlaps.argmax())
                if overlaps[best] < VOC_IOU:
                    continue
                ignored[place] = difficult[best]
                matched[place] = not difficult[best] and not taken[best]
                taken[best] = True
        parts.append((matched, ignored))
    matched, ignored = (np.concatenate(column)[:, None] for column in zip(*parts, strict=True))
    to_find = [objects.labels[~objects.ignored] - 1 for objects in truth]
    number = np.array([np.bincount(labels, minlength=classes) for labels in to_find], dtype=np.int64)
    return _matches(truth, found, matched, ignored, number)


def average_precisions(matches: Matches, rule: Rule, weights: Floats | None = None) -> Floats:
    """Average precision of every class and overlap, for any weights of the images.

    Args:
        matches: From `coco_scores` or `voc_matches`.
        rule: "coco" is the mean precision at 101 recalls, "eleven" at 11 recalls (VOC 2007), "area" the area below the
            curve (VOC 2010 and later); each takes the best precision at that recall or a higher one.
        weights: [resamples, images] how often each image counts; once by default.

    Returns:
        [resamples, overlaps, classes] fractions; NaN for a class without an object to find in a resample.
    """
    weights = np.ones((1, len(matches.ids))) if weights is None else weights
    resamples, overlaps, classes = len(weights), matches.matched.shape[1], matches.objects.shape[1]
    precision = np.full((resamples, overlaps, classes), np.nan)
    by_label = np.split(
        np.argsort(matches.labels, kind="stable"), np.cumsum(np.bincount(matches.labels - 1, minlength=classes))[:-1]
    )
    for k in np.flatnonzero(matches.objects.any(axis=0)):
        order = by_label[k][np.argsort(-matches.scores[by_label[k]], kind="stable")]
        size = max(1, _CELLS // max(1, len(order)))
        for start in range(0, resamples, size):
            part = weights[start : start + size]
            counts, objects = part[:, matches.rows[order]], part @ matches.objects[:, k]
            for t in range(overlaps):
                hits, counted = matches.matched[order, t] & ~matches.ignored[order, t], ~matches.ignored[order, t]
                precision[start : start + size, t, k] = _area(counts, hits, counted, objects, rule)
    return precision


def mean_precision(precision: Floats) -> Floats:
    """[resamples] mean over overlaps and classes, without NaN; NaN if nothing remains."""
    flat = precision.reshape(len(precision), -1)
    defined = ~np.isnan(flat)
    total = np.where(defined, flat, 0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(flat), np.nan), where=defined.any(axis=1))


def shown_classes(truth: Sequence[Objects], classes: int) -> Bools:
    """[images, classes] whether an image shows a class, ignored objects included."""
    shown = np.zeros((len(truth), classes), dtype=bool)
    for row, objects in enumerate(truth):
        shown[row, objects.labels - 1] = True
    return shown


def _area(counts: Floats, hits: Bools, counted: Bools, objects: Floats, rule: Rule) -> Floats:
    """[resamples] average precision; `counts` [resamples, detections], best first, is how often each one counts."""
    # Between two hits precision only falls: the best one at a recall or above is always that of a hit.
    at = np.flatnonzero(hits)
    found = np.cumsum(counts[:, at], axis=1)
    until = np.cumsum(counts[:, counted], axis=1)[:, np.cumsum(counted)[at] - 1]
    precision = np.divide(found, until, out=np.zeros_like(found), where=until > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(found, objects[:, None], out=np.zeros_like(found), where=objects[:, None] > 0)
    steps = np.diff(_REACHED[rule](recall), axis=1, prepend=0.0)
    return np.where(objects > 0, (best * steps).sum(axis=1), np.nan)


def _share_of(recalls: Floats) -> Callable[[Floats], Floats]:
    """Returns a function from recalls to the share of the given recalls that they reach."""
    return lambda reached: np.asarray(np.searchsorted(recalls, reached, side="right") / len(recalls), dtype=np.float64)


_REACHED: Mapping[Rule, Callable[[Floats], Floats]] = {
    "coco": _share_of(np.linspace(0, 1, 101)),  # as pycocotools makes them, rounding included
    "eleven": _share_of(np.arange(11) / 10),
    "area": lambda reached: reached,
}


def _check(truth: Sequence[Objects], found: Sequence[Detections]) -> None:
    ids = [objects.image_id for objects in truth]
    if not ids or ids != sorted(set(ids)) or len(found) != len(ids):
        raise DataError(
            f"Average precision: expected at least one image, each once and sorted by image_id, and the detections of "
            f"each; found {len(ids)} images ({len(set(ids))} different) and detections of {len(found)}. Predict again."
        )
    most = max(len(detections.labels) for detections in found)
    if most > MOST_DETECTIONS:
        raise DataError(
            f"Average precision: expected at most {MOST_DETECTIONS} detections an image, found {most}. Keep the best "
            f"{MOST_DETECTIONS} of each image."
        )


def _ranked(detections: Detections) -> Detections:
    """The detections by class, then by descending score; equal scores keep their order."""
    order = np.lexsort((-detections.scores, detections.labels))
    return detections.take(order)


def _coco(annotations: list[dict[str, Any]], truth: Sequence[Objects], classes: int) -> Any:
    from pycocotools.coco import COCO

    data = COCO()
    data.dataset = {
        "images": [{"id": row} for row in range(len(truth))],
        "categories": [{"id": label} for label in range(1, classes + 1)],
        # Ids begin with 1: pycocotools takes 0 for "not matched".
        "annotations": [{"id": number, **record} for number, record in enumerate(annotations, 1)],
    }
    data.createIndex()
    return data


def _truth_records(truth: Sequence[Objects]) -> list[dict[str, Any]]:
    return [
        {"image_id": row, "category_id": int(label), "bbox": box, "area": float(area), "iscrowd": int(ignored)}
        for row, objects in enumerate(truth)
        for label, box, area, ignored in zip(
            objects.labels, _xywh(objects.boxes).tolist(), objects.area_px, objects.ignored, strict=True
        )
    ]


def _found_records(found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {"image_id": row, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "score": float(score)}
        for row, detections in enumerate(found)
        for label, box, score in zip(
            detections.labels, _xywh(detections.boxes).tolist(), detections.scores, strict=True
        )
    ]


def _xywh(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)


def _of_area(
    results: list[Any], place: int, truth: Sequence[Objects], found: Sequence[Detections], classes: int
) -> Matches:
    """The matches of one range of area, from pycocotools' results in the order of class, range and image."""
    images = len(truth)
    matched: list[list[Bools]] = [[np.zeros((0, 10), dtype=bool)] for _ in truth]
    ignored: list[list[Bools]] = [[np.zeros((0, 10), dtype=bool)] for _ in truth]
    objects = np.zeros((images, classes), dtype=np.int64)
    for k in range(classes):
        for row in range(images):
            result = results[(k * len(SIZES) + place) * images + row]
            if result is None:
                continue
            matched[row].append(result["dtMatches"].T > 0)
            ignored[row].append(np.asarray(result["dtIgnore"], dtype=bool).T)
            objects[row, k] = np.count_nonzero(np.asarray(result["gtIgnore"]) == 0)
    flags = [np.concatenate([part for row in parts for part in row]) for parts in (matched, ignored)]
    return _matches(truth, found, flags[0], flags[1], objects)


def _matches(
    truth: Sequence[Objects], found: Sequence[Detections], matched: Bools, ignored: Bools, objects: Ints
) -> Matches:
    rows = np.repeat(np.arange(len(found)), [len(detections.labels) for detections in found])
    labels = np.concatenate([detections.labels for detections in found]).astype(np.int64)
    scores = np.concatenate([detections.scores for detections in found]).astype(np.float64)
    return Matches([of.image_id for of in truth], rows, labels, scores, matched, ignored, objects)
