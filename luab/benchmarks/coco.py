"""The formulas of the benchmarks of models trained on COCO, all from the predictions of one test set."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from luab.benchmarks.catalogue import POINTING_TOLERANCE_PX
from luab.benchmarks.formula import Detail, Formula, Inputs, Scores
from luab.benchmarks.outcomes import Outcomes, rankings
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests.coco_masks import class_masks, pixels_of
from luab.errors import DataError
from luab.metrics.localization import STEP, batches, hits_mask, in_processes, pixel_counts, precision_of_pixels
from luab.metrics.multilabel import (
    AREA_LIMITS_PX,
    average_precisions,
    companions,
    f1_scores,
    in_context,
    mean_precision_of,
    of_size,
)
from luab.predictions import ids_of, label_table, matrix_of, numbers_of
from luab.progress import progress

NAMES = [item.name for item in COCO_CLASSES]
CLASSES = len(NAMES)
_PART = 512  # pairs that one process judges at a time
_EDGES = np.append(np.arange(0, 1, STEP), [1.0, 2.0])
IGNORED = 255

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


def _val(inputs: Inputs) -> Scores:
    table = inputs.tables["coco_val"]
    scores, shown = _scores_of(table), label_table(table, CLASSES)
    precision = average_precisions(scores, shown)
    counts = shown.sum(axis=0)
    details = [Detail(NAMES[k], "ap", float(precision[k]), int(counts[k])) for k in np.flatnonzero(counts)]
    if not details:
        raise DataError("coco_val: expected images with labels, found none. Make the manifest coco_val again.")
    metrics = {"map": float(np.nanmean(precision))} | f1_scores(scores, shown)
    images = functools.partial(rankings, table["image_id"], shown, scores, np.ones(shown.shape, dtype=bool))
    return Scores(metrics, table.num_rows, ids_of(table), details, {"classes": len(details)}, images)


def _size(inputs: Inputs) -> Scores:
    """Positives of one size of objects at a time, against all negatives."""
    table = inputs.tables["coco_val"]
    areas = _largest_areas(_same_images(table, inputs.manifests["coco_val"], "coco_size"))
    subsets = {size: of_size(areas, size) for size in AREA_LIMITS_PX}
    return _subset_scores(table, areas > 0, subsets, "map_small")


def _context(inputs: Inputs) -> Scores:
    """Positives with and without their usual companions, against all negatives."""
    table = inputs.tables["coco_val"]
    shown, usual = label_table(table, CLASSES), companions(label_table(inputs.manifests["coco_train"], CLASSES))
    inside = in_context(shown, usual)
    found = _subset_scores(table, shown, {"in_context": inside, "out_of_context": ~inside}, "map_out_of_context")
    pairs = int(usual.sum())
    if len(found.metrics) == 2:
        gap = found.metrics["map_in_context"] - found.metrics["map_out_of_context"]
        found.metrics["context_gap"] = gap
    found.extra["companions"] = {"pairs": pairs, "classes": int(usual.any(axis=1).sum())}
    return found


def _subset_scores(table: pa.Table, positive: Bools, subsets: dict[str, Bools], headline: str) -> Scores:
    scores = _scores_of(table)
    found = mean_precision_of(scores, positive, subsets)
    if headline.removeprefix("map_") not in found:
        raise DataError(
            f"{headline}: expected positives of every kind for at least one class, found none. The validation set is "
            "too small for this benchmark: take it out of `suites`."
        )
    metrics = {f"map_{name}": value for name, (value, _) in found.items()}
    details = [Detail(name, "map", value, n) for name, (value, n) in found.items()]
    inside = {name: positive & subset for name, subset in subsets.items() if name in found}
    shared = np.all([subset.any(axis=0) for subset in inside.values()], axis=0)
    chosen = inside[headline.removeprefix("map_")]
    kept = (chosen | ~positive) & shared
    images = functools.partial(rankings, table["image_id"], chosen, scores, kept)
    return Scores(metrics, table.num_rows, ids_of(table), details, {"classes": int(shared.sum())}, images)


class _Pair(NamedTuple):
    """One class that an image shows.

    Place in the table, class, map, run lengths of its objects and of crowds, width and height of the image in pixels,
    and the point that was regressed for the class.
    """

    row: int
    label: int
    score_map: Floats
    objects: dict[str, Any]
    crowds: dict[str, Any] | None
    size_wh: tuple[int, int]
    point_xy: Floats | None


class _Judged(NamedTuple):
    """Of some pairs: places in the table, classes, hits of the map, points on a mask."""

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    hits: Bools
    on_mask: Bools


def _localization(inputs: Inputs) -> Scores:
    """Every (image, class) pair that has a mask of a single object; crowds are neither right nor wrong."""
    table = inputs.tables["coco_val"]
    points = matrix_of(table, "points", 2 * CLASSES)
    pixels, parts = np.zeros((CLASSES, 2, len(_EDGES) - 1), dtype=np.int64), []
    pairs = batches(_pairs(table, inputs, points), _PART)
    judge = functools.partial(_judge, side_px=inputs.input_px)
    for counted, judged in in_processes(judge, pairs, inputs.processes):
        pixels += counted
        parts.append(judged)
    if not parts:
        raise DataError("coco_localization: expected images with masks, found none. Make the manifest again.")
    rows, labels, hits, on_mask = (np.concatenate(column) for column in zip(*parts, strict=True))
    present = np.unique(labels)
    precision = {k: precision_of_pixels(pixels[k]) for k in present if pixels[k, 1].any()}
    metrics = {"pointing_game": _mean_by_class(hits, labels), "pxap": math.fsum(precision.values()) / len(precision)}
    details = [
        Detail(NAMES[k], "pointing_game", float(hits[labels == k].mean()), int((labels == k).sum())) for k in present
    ]
    details += [Detail(NAMES[k], "pxap", value, int((labels == k).sum())) for k, value in precision.items()]
    if points is not None:
        metrics["point_in_mask"] = _mean_by_class(on_mask, labels)
        details += [
            Detail(NAMES[k], "point_in_mask", float(on_mask[labels == k].mean()), int((labels == k).sum()))
            for k in present
        ]
    worth = np.zeros(table.num_rows)
    counts = np.bincount(labels, minlength=CLASSES)
    np.add.at(worth, rows, hits / (len(present) * counts[labels]))
    images = functools.partial(_worths, table["image_id"], worth)
    extra = {"pairs": len(rows), "classes": len(present)}
    return Scores(metrics, table.num_rows, ids_of(table), details, extra, images)


def _pairs(table: pa.Table, inputs: Inputs, points: Floats | None) -> Iterator[_Pair]:
    numbers = [int(image_id[-12:]) for image_id in ids_of(table)]
    sizes = list(zip(numbers_of(table, "width").tolist(), numbers_of(table, "height").tolist(), strict=True))
    masks = class_masks(
        inputs.roots["coco_val"] / "annotations" / "instances_val2014.json", dict(zip(numbers, sizes, strict=True))
    )
    height, width = (int(numbers_of(table, name).max()) for name in ("cam_h", "cam_w"))
    with progress("masks of coco_val", table.num_rows, "images") as advance:
        for row, (labels, maps) in enumerate(zip(table["labels"], table["cam"], strict=True)):
            classes = labels.as_py()
            cams = maps.values.to_numpy().astype(np.float32)
            if len(cams) != len(classes) * height * width:
                raise DataError(
                    "coco_val: expected a score map for each label of an image, found others. Predict again."
                )
            for label, cam in zip(classes, cams.reshape(len(classes), height, width), strict=True):
                found = masks.get((numbers[row], label))
                if found is not None and found.objects is not None:
                    point = None if points is None else points[row, 2 * label : 2 * label + 2]
                    yield _Pair(row, label, cam, found.objects, found.crowds, sizes[row], point)
            advance(1)


def _judge(pairs: Sequence[_Pair], side_px: int) -> tuple[npt.NDArray[np.int64], _Judged]:
    """[classes, 2, bins] pixels of background and objects by score, and what each pair is worth."""
    pixels = np.zeros((CLASSES, 2, len(_EDGES) - 1), dtype=np.int64)
    hits, on_mask = np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs), dtype=bool)
    for k, pair in enumerate(pairs):
        objects = pixels_of(pair.objects, pair.size_wh)
        crowds = None if pair.crowds is None else pixels_of(pair.crowds, pair.size_wh)
        mask = _small_mask(objects, crowds, side_px)
        pixels[pair.label] += pixel_counts(_unit(pair.score_map, side_px), mask, _EDGES)
        hits[k] = hits_mask(pair.score_map, objects, POINTING_TOLERANCE_PX)
        on_mask[k] = pair.point_xy is not None and _on(objects, pair.point_xy)
    rows, labels = (np.array([pair[place] for pair in pairs], dtype=np.int64) for place in (0, 1))
    return pixels, _Judged(rows, labels, hits, on_mask)


def _unit(score_map: Floats, side: int) -> Floats:
    """Resized bicubically and scaled to [0, 1]; zeros where it is constant or not finite."""
    resized = cv2.resize(score_map, (side, side), interpolation=cv2.INTER_CUBIC)
    low, high = resized.min(), resized.max()
    if not np.isfinite(resized).all() or low == high:
        return np.zeros((side, side), dtype=np.float32)
    return np.asarray((resized - low) / (high - low))


def _small_mask(objects: Bools, crowds: Bools | None, side_px: int) -> npt.NDArray[np.uint8]:
    """[side, side] 1 on objects, `IGNORED` on crowds beside them, 0 elsewhere."""
    own = _nearest(objects, side_px)
    return own if crowds is None else np.where(own > 0, own, _nearest(crowds, side_px) * np.uint8(IGNORED))


def _nearest(mask: Bools, side_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask.view(np.uint8), (side_px, side_px), interpolation=cv2.INTER_NEAREST))


def _on(mask: Bools, point_xy: Floats) -> bool:
    """Whether a point, in fractions of the image, lies on a mask; outside of the image it does not."""
    height, width = mask.shape
    x, y = float(point_xy[0]), float(point_xy[1])
    return 0 <= x <= 1 and 0 <= y <= 1 and bool(mask[min(int(y * height), height - 1), min(int(x * width), width - 1)])


def _mean_by_class(right: Bools, labels: npt.NDArray[np.int64]) -> float:
    """Mean over classes of the share of right pairs."""
    return math.fsum(right[labels == k].mean() for k in np.unique(labels)) / len(np.unique(labels))


def _worths(ids: pa.ChunkedArray, worth: npt.NDArray[np.float64]) -> Outcomes:
    order = pc.sort_indices(ids).to_numpy()
    names = [str(image_id) for image_id in ids.take(order).to_pylist()]
    return Outcomes(names, np.zeros(len(order), dtype=np.int64), worth[order])


def _scores_of(table: pa.Table) -> npt.NDArray[np.float32]:
    scores = matrix_of(table, "scores", CLASSES)
    if scores is None:
        raise DataError("coco_val: expected scores of 80 classes for each image, found none. Predict again.")
    return scores


def _same_images(table: pa.Table, manifest: pa.Table, name: str) -> pa.Table:
    """The manifest's rows in the order of the predictions."""
    place = pc.index_in(table["image_id"], manifest["image_id"].combine_chunks())
    if place.null_count or table.num_rows != manifest.num_rows:
        raise DataError(
            f"{name}: expected the same images in the predictions of coco_val ({table.num_rows}) and in its manifest "
            f"({manifest.num_rows}); they differ. Predict again."
        )
    return manifest.take(place)


def _largest_areas(manifest: pa.Table) -> Floats:
    """[images, classes] area of the largest object of each class, crowds left out where a class has other objects."""
    areas = np.zeros((manifest.num_rows, CLASSES))
    rows = zip(*(manifest[name].to_pylist() for name in ("box_labels", "box_areas", "box_crowd")), strict=True)
    for row, (labels, sizes, crowds) in enumerate(rows):
        single = {label for label, crowd in zip(labels, crowds, strict=True) if not crowd}
        for label, size, crowd in zip(labels, sizes, crowds, strict=True):
            if not (crowd and label in single):
                areas[row, label] = max(areas[row, label], size)
    return areas


FORMULAS: dict[str, Formula] = {
    "coco_val": _val,
    "coco_size": _size,
    "coco_context": _context,
    "coco_localization": _localization,
}
"""The formulas by the key that the catalogue uses."""
