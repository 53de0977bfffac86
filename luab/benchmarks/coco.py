"""The formulas of the benchmarks of models trained on COCO, all from the predictions of one test set."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luab.benchmarks.catalogue import POINTING_TOLERANCE_PX
from luab.benchmarks.formula import CENTRE, CHANCE, Detail, Formula, Inputs, Scores
from luab.benchmarks.outcomes import rankings, total
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests.coco_masks import class_masks, pixels_of
from luab.errors import DataError
from luab.metrics import localization, multilabel
from luab.metrics.contours import unit_map
from luab.predictions import ids_of, label_table, matrix_of, numbers_of, rows_like
from luab.progress import progress

NAMES = [item.name for item in COCO_CLASSES]
CLASSES = len(NAMES)
_PART = 512  # pairs of image and class per task of a process
_EDGES = localization.bin_edges()
IGNORED = 255

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


def _val(inputs: Inputs) -> Scores:
    table = inputs.tables["coco_val"]
    scores, shown = _scores_of(table), label_table(table, CLASSES)
    precision = multilabel.average_precisions(scores, shown)
    counts = shown.sum(axis=0)
    details = [Detail(NAMES[k], "ap", float(precision[k]), int(counts[k])) for k in np.flatnonzero(counts)]
    if not details:
        raise DataError("coco_val: no image has a label. Build the manifest coco_val again, then predict.")
    metrics = {"map": float(np.nanmean(precision))} | multilabel.f1_scores(scores, shown)
    details.append(Detail("map", CHANCE, float(counts[counts > 0].mean()) / len(shown), len(shown)))
    images = functools.partial(rankings, table["image_id"], shown, scores, np.ones(shown.shape, dtype=bool))
    return Scores(metrics, table.num_rows, ids_of(table), details, {"classes": int((counts > 0).sum())}, images)


def _size(inputs: Inputs) -> Scores:
    """Positives of one object size at a time, against all negatives."""
    table = inputs.tables["coco_val"]
    areas = _largest_areas(rows_like(table, inputs.manifests["coco_val"], "coco_val"))
    subsets = {size: multilabel.of_size(areas, size) for size in multilabel.AREA_LIMITS_PX}
    return _subset_scores(table, areas > 0, subsets, "map_small")


def _context(inputs: Inputs) -> Scores:
    """Positives with and without their usual companions, against all negatives."""
    table = inputs.tables["coco_val"]
    shown, usual = (
        label_table(table, CLASSES),
        multilabel.companions(label_table(inputs.manifests["coco_train"], CLASSES)),
    )
    inside = multilabel.in_context(shown, usual)
    result = _subset_scores(table, shown, {"in_context": inside, "out_of_context": ~inside}, "map_out_of_context")
    metrics = result.metrics
    if len(metrics) == 2:
        metrics["context_gap"] = metrics["map_in_context"] - metrics["map_out_of_context"]
    result.extra["companions"] = {"pairs": int(usual.sum()), "classes": int(usual.any(axis=1).sum())}
    return result


def _subset_scores(table: pa.Table, positive: Bools, subsets: dict[str, Bools], headline: str) -> Scores:
    """mAP with the positives of one subset at a time, over the classes that have positives in every subset."""
    scores = _scores_of(table)
    precisions = multilabel.mean_precision_of(scores, positive, subsets)
    if headline.removeprefix("map_") not in precisions:
        raise DataError(
            f"{headline}: no class has positives in every subset ({', '.join(subsets)}). The validation set is too "
            "small for this benchmark; remove it from `suites`."
        )
    metrics = {f"map_{name}": value for name, (value, _) in precisions.items()}
    details = [Detail(name, "map", value, n) for name, (value, n) in precisions.items()]
    inside = {name: positive & subsets[name] for name in precisions}
    shared = np.all([subset.any(axis=0) for subset in inside.values()], axis=0)
    for name, part in inside.items():
        shares = part.sum(axis=0)[shared] / (part | ~positive).sum(axis=0)[shared]
        details.append(Detail(f"map_{name}", CHANCE, float(shares.mean()), len(positive)))
    chosen = inside[headline.removeprefix("map_")]
    counted = (chosen | ~positive) & shared
    images = functools.partial(rankings, table["image_id"], chosen, scores, counted)
    return Scores(metrics, table.num_rows, ids_of(table), details, {"classes": int(shared.sum())}, images)


class _Pair(NamedTuple):
    """One class in one image; `objects` and `crowds` are run lengths of the unions of their masks."""

    row: int
    label: int
    score_map: Floats
    objects: dict[str, Any]
    crowds: dict[str, Any] | None
    size_wh: tuple[int, int]
    point_xy: Floats | None  # fractions of the image


def _localization(inputs: Inputs) -> Scores:
    """All pairs of image and class with a mask of a single object; crowds count as neither right nor wrong."""
    table = inputs.tables["coco_val"]
    points = matrix_of(table, "points", 2 * CLASSES)
    pixels, parts = np.zeros((CLASSES, 2, len(_EDGES) - 1), dtype=np.int64), []
    pairs = localization.batches(_pairs(table, inputs, points), _PART)
    judge = functools.partial(_judge, side_px=inputs.input_px)
    for counted, *judged in localization.in_processes(judge, pairs, inputs.processes):
        pixels += counted
        parts.append(judged)
    if not parts:
        raise DataError("coco_localization: no image has a mask. Build the manifest coco_val again, then predict.")
    rows, labels, hits, on_mask, centre_hits, centre_on = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    present = np.unique(labels)
    precision = {k: localization.precision_of_pixels(pixels[k]) for k in present if pixels[k, 1].any()}
    counts = np.bincount(labels, minlength=CLASSES)
    parts_of = {
        "pointing_game": _by_class("pointing_game", hits, labels),
        "pxap": [Detail(NAMES[k], "pxap", value, int(counts[k])) for k, value in precision.items()],
    }
    if points is not None:
        parts_of["point_in_mask"] = _by_class("point_in_mask", on_mask, labels)
    metrics = {name: math.fsum(part.value for part in of) / len(of) for name, of in parts_of.items()}
    details = [part for of in parts_of.values() for part in of]
    for name, found in (("pointing_game", centre_hits), ("point_in_mask", centre_on)):
        of_classes = [part.value for part in _by_class(name, found, labels)]
        details.append(Detail(name, CENTRE, math.fsum(of_classes) / len(of_classes), len(rows)))
    shares = [pixels[k, 1].sum() / pixels[k].sum() for k in precision]
    details.append(Detail("pxap", CHANCE, float(np.mean(shares)), len(rows)))
    values = np.zeros(table.num_rows)
    np.add.at(values, rows, hits / (len(present) * counts[labels]))
    images = functools.partial(total, table["image_id"], values)
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
                raise DataError("coco_val: expected one score map per label of each image. Predict again.")
            for label, cam in zip(classes, cams.reshape(len(classes), height, width), strict=True):
                mask = masks.get((numbers[row], label))
                if mask is not None and mask.objects is not None:
                    point = None if points is None else points[row, 2 * label : 2 * label + 2]
                    yield _Pair(row, label, cam, mask.objects, mask.crowds, sizes[row], point)
            advance(1)


def _judge(pairs: Sequence[_Pair], side_px: int) -> tuple[npt.NDArray[Any], ...]:
    """[classes, 2, bins] counts of background and object pixels; row, class, hit, point on mask of each pair.

    The last two are hit and point on mask of the image's centre.
    """
    pixels = np.zeros((CLASSES, 2, len(_EDGES) - 1), dtype=np.int64)
    hits, on_mask, centre_hits, centre_on = np.zeros((4, len(pairs)), dtype=bool)
    for k, pair in enumerate(pairs):
        objects = pixels_of(pair.objects, pair.size_wh)
        mask = _nearest(objects, side_px)  # 1 on objects, `IGNORED` on crowds outside the objects
        if pair.crowds is not None:
            crowds = _nearest(pixels_of(pair.crowds, pair.size_wh), side_px)
            mask = np.where(mask > 0, mask, crowds * np.uint8(IGNORED))
        pixels[pair.label] += localization.pixel_counts(unit_map(pair.score_map, side_px), mask, _EDGES)
        hits[k] = localization.hits_mask(pair.score_map, objects, POINTING_TOLERANCE_PX)
        on_mask[k] = pair.point_xy is not None and _on(objects, pair.point_xy)
        height, width = objects.shape
        centre_hits[k] = localization.is_near(objects, width // 2, height // 2, POINTING_TOLERANCE_PX)
        centre_on[k] = _on(objects, np.array([0.5, 0.5]))
    rows, labels = (np.array([pair[column] for pair in pairs], dtype=np.int64) for column in (0, 1))
    return pixels, rows, labels, hits, on_mask, centre_hits, centre_on


def _nearest(mask: Bools, side_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask.view(np.uint8), (side_px, side_px), interpolation=cv2.INTER_NEAREST))


def _on(mask: Bools, point_xy: Floats) -> bool:
    """Whether a point, given as fractions of the image, lies on a mask; False for points outside the image."""
    height, width = mask.shape
    x, y = float(point_xy[0]), float(point_xy[1])
    return 0 <= x <= 1 and 0 <= y <= 1 and bool(mask[min(int(y * height), height - 1), min(int(x * width), width - 1)])


def _by_class(metric: str, right: Bools, labels: npt.NDArray[np.int64]) -> list[Detail]:
    """The share of correct pairs of each class."""
    return [
        Detail(NAMES[k], metric, float(right[labels == k].mean()), int((labels == k).sum())) for k in np.unique(labels)
    ]


def _scores_of(table: pa.Table) -> npt.NDArray[np.float32]:
    scores = matrix_of(table, "scores", CLASSES)
    if scores is None:
        raise DataError("coco_val: the predictions contain no class scores. Predict again.")
    return scores


def _largest_areas(manifest: pa.Table) -> Floats:
    """[images, classes] area of each class's largest object; crowds count only if the class has no other objects."""
    areas = np.zeros((manifest.num_rows, CLASSES))
    columns = (manifest[name].to_pylist() for name in ("box_labels", "box_areas", "box_crowd"))
    for row, (labels, sizes, crowds) in enumerate(zip(*columns, strict=True)):
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
