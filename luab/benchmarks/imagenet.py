"""The formulas of the benchmarks of models trained on ImageNet: from predictions to scores."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.benchmarks.catalogue import POINTING_TOLERANCE_PX
from luab.benchmarks.formula import CENTRE, CHANCE, PERSON, WHOLE, Detail, Formula, Inputs, Scores, guesses
from luab.benchmarks.outcomes import Floats, grouped, ranking, share
from luab.data.manifests.labels import CORRUPTIONS, EXTRA_CORRUPTIONS, IN9_VARIANTS, in9_of_class
from luab.errors import DataError
from luab.metrics import accuracy, corruption
from luab.metrics.accuracy import Bools, Count, Ints
from luab.metrics.alignment import at_positions, rank_correlations, trace_density
from luab.metrics.background import bg_gap, challenge_accuracy, in9_answers, nine_class_answers
from luab.metrics.localization import IOU_PCT, box_accuracy, box_focus, iou, point_distances, points_in_box
from luab.metrics.ood import aupr, auroc, fpr95
from luab.predictions import (
    boxes_of,
    columns_of,
    ids_of,
    labels_of,
    maps_of,
    numbers_of,
    points_of,
    rows_like,
    score_maps_of,
    texts_of,
    top5_of,
)


def _best(table: pa.Table) -> Ints:
    """[images] arg-max over all classes."""
    return np.asarray(top5_of(table)[:, 0])


def _best_of_subset(table: pa.Table) -> Ints:
    """[images] arg-max over the classes of the test set."""
    return numbers_of(table, "restricted_top1")


def _accuracy(**answers: Callable[[pa.Table], Ints]) -> Formula:
    """The formula for these metrics: the share of images for which any answer is a correct label.

    `answers` maps predictions to answers, [images] or [images, k]; the first metric is the headline.
    """

    def formula(inputs: Inputs) -> Scores:
        (table,) = inputs.tables.values()
        labels = labels_of(table)
        found = {name: of(table) for name, of in answers.items()}
        return _accuracies(table, labels, found)

    return formula


def _real(inputs: Inputs) -> Scores:
    """Top-1 and top-5 against the re-assessed label sets; images without any label are left out."""
    table = inputs.tables["imagenet_val"]
    labels = labels_of(rows_like(table, inputs.manifests["imagenet_real"], "imagenet_real"))
    return _accuracies(table, labels, {"accuracy": _best(table), "top5": top5_of(table)})


def _imagenet_o(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_o"]
    groups = texts_of(table, "group")
    if unknown := sorted(set(groups) - {"in", "out"}):
        raise DataError(f"imagenet_o: expected the groups 'in' and 'out', found {', '.join(unknown)}. Predict again.")
    confidence, is_out = numbers_of(table, "restricted_confidence"), groups == "out"
    metrics = {"aupr": aupr(confidence, is_out), "auroc": auroc(confidence, is_out), "fpr95": fpr95(confidence, is_out)}
    extra = {"chance_aupr": int(is_out.sum()) / len(is_out)}
    images = functools.partial(ranking, table["image_id"], is_out, confidence)
    controls = [Detail("aupr", CHANCE, extra["chance_aupr"], len(groups))]
    return Scores(metrics, len(groups), ids_of(table), controls, extra, images)


def _imagenet_c(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right, counts = _counted(table)
    errors = corruption.errors_by_severity(counts)
    metrics = {"mce": corruption.mean_corruption_error(errors), "mean_accuracy": corruption.mean_accuracy(errors)}
    groups, ids = _sets_of(table, CORRUPTIONS)
    details = _by_group(counts)
    for name in CORRUPTIONS:
        n = sum(counts[f"{name}/{severity}"].n for severity in errors[name])
        details.append(Detail(name, "corruption_error", corruption.corruption_error(name, errors[name]), n))
    # mCE = sum over the 75 sets of weight x (1 - accuracy).
    weights = {g: 1 / (len(groups) * corruption.ALEXNET_ERROR[corruption.split_group(g)[0]]) for g in groups}
    images = functools.partial(grouped, table, right, {g: -w for g, w in weights.items()}, math.fsum(weights.values()))
    chance = guesses(labels_of(table))
    details.append(Detail("mce", CHANCE, math.fsum(weights.values()) * (1 - chance), len(ids)))
    details.append(Detail("mean_accuracy", CHANCE, chance, len(ids)))
    return Scores(metrics, len(ids), ids, details, images=images)


def _corruption_accuracy(inputs: Inputs) -> Scores:
    """Mean accuracy over the sets of corrupted images in these test sets, each with the same weight."""
    table = pa.concat_tables([table.combine_chunks() for table in inputs.tables.values()])
    right, counts = _counted(table)
    names = [
        *(CORRUPTIONS if set(inputs.tables) != {"imagenet_c_extra"} else ()),
        *(EXTRA_CORRUPTIONS if "imagenet_c_extra" in inputs.tables else ()),
    ]
    mean = corruption.mean_accuracy(corruption.errors_by_severity(counts), names)
    groups, ids = _sets_of(table, names)
    images = functools.partial(grouped, table, right, dict.fromkeys(groups, 1 / len(groups)))
    details = _by_group({group: counts[group] for group in groups})
    details.append(Detail("mean_accuracy", CHANCE, guesses(labels_of(table)), len(ids)))
    return Scores({"mean_accuracy": mean}, len(ids), ids, details, images=images)


def _sets_of(table: pa.Table, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Groups "<corruption>/<severity>" of these corruptions, and the ids of their images."""
    groups = [f"{name}/{severity}" for name in names for severity in corruption.SEVERITIES]
    return groups, ids_of(table.filter(pc.is_in(table["group"], pa.array(groups))))


def _siscore(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right, counts = _counted(table)
    images = functools.partial(grouped, table, right, dict.fromkeys(counts, 1 / len(counts)))
    metrics = {"accuracy": accuracy.mean_over_groups(counts)}
    details = [*_by_group(counts), Detail("accuracy", CHANCE, guesses(labels_of(table)), table.num_rows)]
    return Scores(metrics, table.num_rows, ids_of(table), details, images=images)


def _in9(inputs: Inputs) -> Scores:
    """For a model with 1000 outputs, or with nine, whose arg-max is the answer."""
    ((name, table),) = inputs.tables.items()
    best = _best(table)
    answers = nine_class_answers(best) if name == "in9_nine_class" else in9_answers(best, in9_of_class())
    right = accuracy.is_correct(answers, labels_of(table))
    counts = accuracy.count_by_group(right, texts_of(table, "group"))
    if missing := [name for name in IN9_VARIANTS if name not in counts]:
        raise DataError(
            f"in9: missing variants: {', '.join(missing)}; expected {', '.join(IN9_VARIANTS)}. Unpack the archive of "
            "the Backgrounds Challenge again, build its manifest, then predict."
        )
    metrics = {name: counts[name].fraction for name in IN9_VARIANTS}
    metrics |= {"bg_gap": bg_gap(metrics)}
    images = functools.partial(grouped, table, right, {"mixed_same": 1.0, "mixed_rand": -1.0})
    chance = guesses(labels_of(table))
    details = _by_group(counts) + [Detail(name, CHANCE, chance, counts[name].n) for name in IN9_VARIANTS]
    return Scores(metrics, table.num_rows, ids_of(table), details, images=images)


def _in9_challenge(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    vulnerable = numbers_of(table, "vulnerable").astype(bool)
    metrics = {"challenge_accuracy": challenge_accuracy(vulnerable)}
    extra = {"backgrounds_tried": int(numbers_of(table, "backgrounds_tried").sum())}
    images = functools.partial(share, table["image_id"], ~vulnerable)
    return Scores(metrics, table.num_rows, ids_of(table), extra=extra, images=images)


def _wsol(inputs: Inputs) -> Scores:
    ((name, table),) = inputs.tables.items()
    boxes, size_wh = boxes_of(table), columns_of(table, "width", "height")
    maps = list(score_maps_of(name, table, boxes, size_wh))
    result = box_accuracy(maps, inputs.input_px, processes=inputs.processes)
    metrics = {"max_box_acc": result.max_box_acc(), "max_box_acc_v2": result.max_box_acc_v2()}
    focus = box_focus(maps, inputs.input_px, POINTING_TOLERANCE_PX, inputs.processes)
    metrics["energy_in_box"] = math.fsum(focus.energy) / result.n
    metrics["pointing_game"] = int(focus.hits.sum()) / result.n
    details = [
        Detail(f"iou_{pct}", "max_box_acc_v2", Count(result.found_at(pct), result.n).fraction, result.n)
        for pct in IOU_PCT
    ]
    details += _controls(boxes, size_wh)
    points = points_of(name, table)
    if points is not None:
        metrics["point_in_box"] = points_in_box(points, boxes, size_wh) / result.n
        metrics["point_distance"] = math.fsum(point_distances(points, boxes, size_wh)) / result.n
    # Resampled images keep the thresholds that are best for all images, see luab.comparison.over_images.
    images = functools.partial(share, table["image_id"], result.hits_at_best().mean(axis=1))
    extra = {"best_threshold": {f"iou_{pct}": result.best_threshold(pct) for pct in IOU_PCT}}
    return Scores(metrics, result.n, ids_of(table), details, extra, images)


def _controls(boxes: Sequence[Ints], size_wh: Ints) -> list[Detail]:
    """What the box of the whole image and the image's centre reach, in source pixels."""
    n = len(boxes)
    whole = np.concatenate([np.zeros_like(size_wh), size_wh - 1], axis=1)
    overlaps = np.array([iou(one[None], of_image).max() for one, of_image in zip(whole, boxes, strict=True)])
    found = [Detail("max_box_acc", WHOLE, float((overlaps >= 0.5).mean()), n)]
    found.append(
        Detail("max_box_acc_v2", WHOLE, float(np.mean([(overlaps >= pct / 100).mean() for pct in IOU_PCT])), n)
    )
    centre = np.full((n, 2), 0.5)
    found.append(Detail("point_in_box", CENTRE, points_in_box(centre, boxes, size_wh) / n, n))
    return [*found, Detail("point_distance", CENTRE, math.fsum(point_distances(centre, boxes, size_wh)) / n, n)]


def _trace_alignment(inputs: Inputs) -> Scores:
    """Score maps against the trace of each person on held-out images, and the traces of people against each other.

    ASSUME: no released protocol compares maps with mouse traces; grid, width of the Gaussians and the mean over people
    are this project's choice. A model is compared with one person at a time, as people are with each other.
    """
    ((name, table),), (traces,) = inputs.tables.items(), inputs.targets.values()
    counts = pc.list_value_length(traces["moments"]).to_numpy()
    rows = pc.index_in(traces["image_id"], table["image_id"].combine_chunks()).fill_null(-1).to_numpy()
    owner = np.repeat(np.arange(len(counts)), counts)
    held_out = rows[owner] >= 0
    if not held_out.any():
        raise DataError(
            f"{name}: expected a mouse trace on at least one held-out image, found none. Raise `held_out_byproducts`, "
            "or remove the benchmark trace_alignment from `suites`."
        )
    moments = pc.list_flatten(pc.list_flatten(traces["moments"])).to_numpy()
    densities = trace_density(moments.reshape(len(owner), -1, 2))
    maps = np.stack([at_positions(score_map) for score_map in maps_of(name, table)])
    of_people, images = densities[held_out], owner[held_out]
    chosen, values = _mean_of(images, rank_correlations(maps[rows[images]], of_people))
    n, centre = len(chosen), trace_density(np.full((1, 1, 2), 0.5))
    _, of_centre = _mean_of(images, rank_correlations(np.repeat(centre, len(images), axis=0), of_people))
    details = [Detail("alignment", CHANCE, 0.0, n), Detail("alignment", CENTRE, float(of_centre.mean()), n)]
    people_of = np.split(np.arange(len(owner)), np.cumsum(counts)[:-1])
    pairs = [pair for people in people_of for pair in combinations(people.tolist(), 2)]
    if pairs:
        first, second = np.array(pairs).T
        several, between = _mean_of(owner[first], rank_correlations(densities[first], densities[second]))
        details.append(Detail("alignment", PERSON, float(between.mean()), len(several)))
        if (same := np.isin(chosen, several)).any():
            details.append(Detail("several people", "alignment", float(values[same].mean()), int(same.sum())))
    ids = table["image_id"].take(pa.array(rows[chosen]))
    metrics = {"alignment": math.fsum(values) / n}
    return Scores(metrics, n, ids.to_pylist(), details, images=functools.partial(share, ids, values))


def _mean_of(groups: Ints, values: Floats) -> tuple[Ints, Floats]:
    """The groups that occur, ascending, and the mean of the values [n] of each."""
    present, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return present, np.bincount(place, values) / counts


def _is_right(table: pa.Table) -> Bools:
    """[images] whether the arg-max over all classes is a correct label."""
    return accuracy.is_correct(_best(table), labels_of(table))


def _counted(table: pa.Table) -> tuple[Bools, dict[str, Count]]:
    """[images] whether each answer is right, and the counts of each group."""
    right = _is_right(table)
    return right, accuracy.count_by_group(right, texts_of(table, "group"))


def _by_group(counts: Mapping[str, Count]) -> list[Detail]:
    return [Detail(group, "accuracy", count.fraction, count.n) for group, count in counts.items()]


def _accuracies(table: pa.Table, labels: Ints, answers: Mapping[str, Ints]) -> Scores:
    """Shares of correct images among those that have a label; the first metric is the headline."""
    labelled = accuracy.has_label(labels)
    right = {name: accuracy.is_correct(answer, labels) for name, answer in answers.items()}
    metrics = {name: accuracy.labelled_count(correct, labels).fraction for name, correct in right.items()}
    ids, headline = table["image_id"].filter(pa.array(labelled)), next(iter(right.values()))
    images = functools.partial(share, ids, headline[labelled])
    widths = {name: answer.shape[1] if answer.ndim > 1 else 1 for name, answer in answers.items()}
    controls = [Detail(name, CHANCE, guesses(labels, width), len(ids)) for name, width in widths.items()]
    return Scores(metrics, len(ids), ids.to_pylist(), controls, images=images)


FORMULAS: dict[str, Formula] = {
    "top1_top5": _accuracy(top1=_best, top5=top5_of),
    "top1": _accuracy(top1=_best),
    "real": _real,
    "restricted": _accuracy(accuracy=_best_of_subset),
    "over_1000": _accuracy(accuracy=_best),
    "objectnet": _accuracy(accuracy=_best, accuracy_sublist=_best_of_subset),
    "imagenet_o": _imagenet_o,
    "imagenet_c": _imagenet_c,
    "corruption_accuracy": _corruption_accuracy,
    "siscore": _siscore,
    "in9": _in9,
    "in9_challenge": _in9_challenge,
    "wsol": _wsol,
    "trace_alignment": _trace_alignment,
}
"""The formulas by the key that the catalogue uses."""
