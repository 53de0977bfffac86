"""The formulas of the benchmarks of your own images."""

import functools
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.benchmarks.formula import CENTRE, CHANCE, Detail, Formula, Inputs, Scores, guesses
from luab.benchmarks.outcomes import share, total
from luab.errors import DataError
from luab.metrics import accuracy
from luab.metrics.localization import box_accuracy, points_in_box
from luab.predictions import boxes_of, columns_of, ids_of, labels_of, points_of, score_maps_of, texts_of, top5_of


def _val(inputs: Inputs) -> Scores:
    """Share of correct images; balanced accuracy: mean over classes; groups are classes."""
    (table,) = inputs.tables.values()
    labels, best = labels_of(table), top5_of(table, int(pc.list_value_length(table["top5"])[0].as_py()))
    right = accuracy.is_correct(best[:, 0], labels)
    counts = accuracy.count_by_group(right, texts_of(table, "group"))
    metrics = {
        "top1": float(right.mean()),
        "balanced_accuracy": accuracy.mean_over_groups(counts),
    }
    if len(counts) > best.shape[1]:  # otherwise the five best are all classes
        metrics["top5"] = float(accuracy.is_correct(best, labels).mean())
    details = [Detail(name, "accuracy", count.fraction, count.n) for name, count in counts.items()]
    details += [
        Detail(m, CHANCE, guesses(labels, best.shape[1] if m == "top5" else 1), table.num_rows) for m in metrics
    ]
    sizes = np.array([counts[name].n for name in texts_of(table, "group")])
    images = functools.partial(total, table["image_id"], right / (sizes * len(counts)))
    return Scores(metrics, table.num_rows, ids_of(table), details, {"classes": len(counts)}, images)


def _tests(inputs: Inputs) -> Scores:
    """Share of right images (top1) and its mean over classes (balanced_accuracy); details are the test sets."""
    (table,) = inputs.tables.values()
    labels, best = labels_of(table), top5_of(table, int(pc.list_value_length(table["top5"])[0].as_py()))
    right, tests = accuracy.is_correct(best[:, 0], labels), texts_of(table, "group")
    names, values, details = sorted(set(tests)), np.zeros(len(right)), list[Detail]()
    for name in names:
        rows = np.flatnonzero(tests == name)
        counts = accuracy.count_by_group(right[rows], labels[rows, 0].astype(str))
        sizes = np.array([counts[str(label)].n for label in labels[rows, 0]])
        values[rows] = right[rows] / (sizes * len(counts) * len(names))
        details.append(Detail(name, "top1", float(right[rows].mean()), len(rows)))
        details.append(Detail(name, "balanced_accuracy", accuracy.mean_over_groups(counts), len(rows)))
    metrics = {
        metric: math.fsum(detail.value for detail in details if detail.metric == metric) / len(names)
        for metric in ("balanced_accuracy", "top1")
    }
    chance = math.fsum(guesses(labels[tests == name]) for name in names) / len(names)
    details += [Detail(metric, CHANCE, chance, table.num_rows) for metric in metrics]
    images = functools.partial(total, table["image_id"], values)
    return Scores(metrics, table.num_rows, ids_of(table), details, images=images)


def _points(inputs: Inputs) -> Scores:
    """Score maps and predicted points against the points that people recorded, and against boxes where there are any.

    map_rank is the mean share of a map's values that are below the value at the recorded point: 0.5 by chance, ties
    count half. point_distance is in shares of the image's diagonal.
    """
    ((name, table),) = inputs.tables.items()
    recorded = columns_of(table, "recorded_x", "recorded_y").astype(np.float64)
    known = np.isfinite(recorded).all(axis=1)
    if not known.any():
        raise DataError(
            f"{name}: expected a recorded point for at least one held-out image, found none. Add held-out images to "
            "`folder.byproducts`, or remove the benchmark folder_points from `suites`."
        )
    boxes, size_wh = boxes_of(table), columns_of(table, "width", "height")
    maps = [item.score_map for item in score_maps_of(name, table, boxes, size_wh)]
    ranks = np.array([_rank(maps[row], recorded[row]) for row in np.flatnonzero(known)])
    metrics, points = {"map_rank": float(ranks.mean())}, points_of(name, table)
    if points is not None:
        metrics["point_distance"] = _distance(points[known], recorded[known], size_wh[known])
        metrics["centre_distance"] = _distance(np.full((int(known.sum()), 2), 0.5), recorded[known], size_wh[known])
    n = int(known.sum())
    controls = [Detail("map_rank", CHANCE, 0.5, n)]
    if points is not None:
        controls.append(Detail("point_distance", CENTRE, metrics["centre_distance"], n))
    boxed = np.array([len(of_image) > 0 for of_image in boxes])
    if boxed.any():
        with_boxes = table.filter(pa.array(boxed))
        boxes, size_wh = boxes_of(with_boxes), columns_of(with_boxes, "width", "height")
        result = box_accuracy(score_maps_of(name, with_boxes, boxes, size_wh), inputs.input_px, processes=1)
        metrics["max_box_acc_v2"] = result.max_box_acc_v2()
        if points is not None:
            metrics["point_in_box"] = points_in_box(points[boxed], boxes, size_wh) / result.n
    images = functools.partial(share, table["image_id"].filter(pa.array(known)), ranks)
    return Scores(metrics, n, table["image_id"].filter(pa.array(known)).to_pylist(), controls, images=images)


def _rank(score_map: np.ndarray, point_xy: np.ndarray) -> float:
    height, width = score_map.shape
    x, y = (min(int(share * side), side - 1) for share, side in zip(point_xy, (width, height), strict=True))
    value = score_map[y, x]
    return float(((score_map < value).sum() + 0.5 * (score_map == value).sum()) / score_map.size)


def _distance(points: np.ndarray, recorded: np.ndarray, size_wh: np.ndarray) -> float:
    """Mean distance in shares of the image's diagonal."""
    lengths = np.linalg.norm((points - recorded) * size_wh, axis=1) / np.linalg.norm(size_wh, axis=1)
    return math.fsum(lengths) / len(lengths)


FORMULAS: dict[str, Formula] = {"folder_val": _val, "folder_tests": _tests, "folder_points": _points}
"""The formulas by the key that the catalogue uses."""
