"""The formulas of the benchmarks of models trained on ImageNet: from predictions to scores."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.benchmarks.catalogue import BENCHMARKS as BENCHMARKS  # until all read the catalogue
from luab.benchmarks.catalogue import find_benchmark as find_benchmark
from luab.benchmarks.catalogue import test_sets_of as test_sets_of
from luab.benchmarks.formula import Detail, Formula, Inputs, Scores
from luab.benchmarks.outcomes import grouped, ranking, share
from luab.data.manifests.labels import EXTRA_CORRUPTIONS, IN9_VARIANTS, in9_of_class
from luab.errors import DataError
from luab.metrics import background, corruption, ood
from luab.metrics.accuracy import Bools, Count, Ints, count_by_group, has_label, is_correct, labelled_count
from luab.metrics.localization import IOU_PCT, box_accuracy, point_distances, points_in_box
from luab.metrics.synthetic import mean_over_values
from luab.predictions import boxes_of, ids_of, labels_of, numbers_of, points_of, score_maps_of, texts_of, top5_of


def _top1_top5(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    top5, labels = top5_of(table), labels_of(table)
    right = {k: is_correct(top5[:, :k], labels) for k in (1, 5)}
    metrics = {f"top{k}": labelled_count(right[k], labels).fraction for k in right}
    return _over_labelled(metrics, table, labels, right[1])


def _top1(inputs: Inputs) -> Scores:
    both = _top1_top5(inputs)
    return Scores({"top1": both.metrics["top1"]}, both.n, both.ids, images=both.images)


def _real(inputs: Inputs) -> Scores:
    """Top-1 and top-5 against the re-assessed label sets; images without any are left out."""
    table, manifest = inputs.tables["imagenet_val"], inputs.manifests["imagenet_real"]
    table, manifest = table.sort_by("image_id"), manifest.sort_by("image_id")
    if not table["image_id"].equals(manifest["image_id"]):
        raise DataError(
            f"imagenet_real: expected the same images in the predictions of imagenet_val "
            f"({table.num_rows}) and in the manifest imagenet_real ({manifest.num_rows}); they differ. "
            "Index both again, then predict."
        )
    labels, top5 = labels_of(manifest), top5_of(table)
    correct = is_correct(top5[:, 0], labels)
    metrics = {
        "accuracy": labelled_count(correct, labels).fraction,
        "top5": labelled_count(is_correct(top5, labels), labels).fraction,
    }
    return _over_labelled(metrics, table, labels, correct)


def _restricted(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    labels = labels_of(table)
    correct = is_correct(numbers_of(table, "restricted_top1"), labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels, correct)


def _over_1000(inputs: Inputs) -> Scores:
    """Where the releasing paper restricts the arg-max: over all classes."""
    (table,) = inputs.tables.values()
    labels = labels_of(table)
    correct = is_correct(top5_of(table)[:, 0], labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels, correct)


def _objectnet(inputs: Inputs) -> Scores:
    table = inputs.tables["objectnet"]
    labels = labels_of(table)
    all_classes = is_correct(top5_of(table)[:, 0], labels)
    sublist = is_correct(numbers_of(table, "restricted_top1"), labels)
    metrics = {
        "accuracy": labelled_count(all_classes, labels).fraction,
        "accuracy_sublist": labelled_count(sublist, labels).fraction,
    }
    return _over_labelled(metrics, table, labels, all_classes)


def _imagenet_o(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_o"]
    groups = texts_of(table, "group")
    if unknown := sorted(set(groups) - {"in", "out"}):
        raise DataError(f"imagenet_o: expected the groups 'in' and 'out', found {', '.join(unknown)}. Predict again.")
    confidence, is_out = numbers_of(table, "restricted_confidence"), groups == "out"
    metrics = {
        "aupr": ood.aupr(confidence, is_out),
        "auroc": ood.auroc(confidence, is_out),
        "fpr95": ood.fpr95(confidence, is_out),
    }
    extra = {"chance_aupr": int(is_out.sum()) / len(is_out)}
    images = functools.partial(ranking, table["image_id"], is_out, confidence)
    return Scores(metrics, len(groups), ids_of(table), extra=extra, images=images)


def _imagenet_c(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    errors = corruption.errors_by_severity(counts)
    metrics = {
        "mce": corruption.mean_corruption_error(errors),
        "mean_accuracy": corruption.mean_accuracy(errors),
    }
    used = [f"{name}/{severity}" for name in corruption.ALEXNET_ERROR for severity in corruption.SEVERITIES]
    n_of = {name: sum(counts[f"{name}/{s}"].n for s in errors[name]) for name in corruption.ALEXNET_ERROR}
    ratios = [
        Detail(name, "corruption_error", corruption.corruption_error(name, errors[name]), n) for name, n in n_of.items()
    ]
    # mCE = sum over the 75 sets of weight x (1 - accuracy).
    weights = {group: 1 / (len(used) * corruption.ALEXNET_ERROR[group.rpartition("/")[0]]) for group in used}
    images = functools.partial(grouped, table, right, {g: -w for g, w in weights.items()}, math.fsum(weights.values()))
    ids = ids_of(table.filter(pc.is_in(table["group"], pa.array(used))))
    return Scores(metrics, sum(n_of.values()), ids, _accuracies(counts) + ratios, images=images)


def _corruption_accuracy(inputs: Inputs) -> Scores:
    """Mean accuracy over all sets of corrupted images that are there, each with the same weight."""
    tables = [inputs.tables[name].combine_chunks() for name in inputs.tables]
    table = pa.concat_tables(tables)
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    extra = "imagenet_c_extra" in inputs.tables
    wanted = [
        *(corruption.ALEXNET_ERROR if len(tables) > 1 or not extra else ()),
        *(EXTRA_CORRUPTIONS if extra else ()),
    ]
    mean = corruption.mean_accuracy(corruption.errors_by_severity(counts), wanted)
    used = [f"{name}/{severity}" for name in wanted for severity in corruption.SEVERITIES]
    images = functools.partial(grouped, table, right, dict.fromkeys(used, 1 / len(used)))
    ids = ids_of(table.filter(pc.is_in(table["group"], pa.array(used))))
    return Scores({"mean_accuracy": mean}, len(ids), ids, _accuracies({g: counts[g] for g in used}), images=images)


def _siscore(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    images = functools.partial(grouped, table, right, dict.fromkeys(counts, 1 / len(counts)))
    metrics = {"accuracy": mean_over_values(counts)}
    return Scores(metrics, table.num_rows, ids_of(table), _accuracies(counts), images=images)


def _in9(inputs: Inputs) -> Scores:
    table = inputs.tables["in9"]
    return _in9_scores(table, background.in9_answers(top5_of(table)[:, 0], in9_of_class()))


def _in9_nine(inputs: Inputs) -> Scores:
    """A model with nine outputs: its arg-max is the answer."""
    table = inputs.tables["in9_nine_class"]
    return _in9_scores(table, background.nine_class_answers(top5_of(table)[:, 0]))


def _in9_scores(table: pa.Table, answers: Ints) -> Scores:
    right = is_correct(answers, labels_of(table))
    counts = count_by_group(right, texts_of(table, "group"))
    if missing := [name for name in IN9_VARIANTS if name not in counts]:
        raise DataError(
            f"in9: expected the variants {', '.join(IN9_VARIANTS)}; {', '.join(missing)} missing. "
            "Unpack the Backgrounds Challenge archive again, index it and predict."
        )
    metrics = {name: counts[name].fraction for name in IN9_VARIANTS}
    metrics |= {"bg_gap": background.bg_gap(metrics)}
    images = functools.partial(grouped, table, right, {"mixed_same": 1.0, "mixed_rand": -1.0})
    return Scores(metrics, table.num_rows, ids_of(table), _accuracies(counts), images=images)


def _in9_challenge(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    vulnerable = numbers_of(table, "vulnerable").astype(bool)
    metrics = {"challenge_accuracy": background.challenge_accuracy(vulnerable)}
    tried = int(numbers_of(table, "backgrounds_tried").sum())
    images = functools.partial(share, table["image_id"], ~vulnerable)
    return Scores(metrics, table.num_rows, ids_of(table), extra={"backgrounds_tried": tried}, images=images)


def _wsol(inputs: Inputs) -> Scores:
    ((name, table),) = inputs.tables.items()
    boxes, size_wh = boxes_of(table), np.stack([numbers_of(table, "width"), numbers_of(table, "height")], axis=1)
    maps = score_maps_of(name, table, boxes, size_wh)
    found = box_accuracy(maps, inputs.input_px, processes=inputs.processes)
    metrics = {"max_box_acc": found.max_box_acc(), "max_box_acc_v2": found.max_box_acc_v2()}
    details = [
        Detail(f"iou_{pct}", "max_box_acc_v2", Count(found.found_at(pct), found.n).fraction, found.n) for pct in IOU_PCT
    ]
    best = {f"iou_{pct}": found.best_threshold(pct) for pct in IOU_PCT}
    points = points_of(name, table)
    if points is not None:
        metrics["point_in_box"] = points_in_box(points, boxes, size_wh) / found.n
        metrics["point_distance"] = math.fsum(point_distances(points, boxes, size_wh)) / found.n
    # At the thresholds that are best for all images: drawing anew must not choose them anew for each draw.
    images = functools.partial(share, table["image_id"], found.hits_at_best().mean(axis=1))
    return Scores(metrics, found.n, ids_of(table), details, {"best_threshold": best}, images)


def _correct(table: pa.Table) -> Bools:
    return is_correct(top5_of(table)[:, 0], labels_of(table))


def _accuracies(counts: Mapping[str, Count]) -> list[Detail]:
    return [Detail(group, "accuracy", count.fraction, count.n) for group, count in counts.items()]


def _over_labelled(metrics: dict[str, float], table: pa.Table, labels: Ints, right: Bools) -> Scores:
    """Scores over the images that have a label, whose headline is the share of `right` ones."""
    scored = has_label(labels)
    kept = table.filter(pa.array(scored))
    images = functools.partial(share, kept["image_id"], right[scored])
    return Scores(metrics, int(np.count_nonzero(scored)), ids_of(kept), images=images)


FORMULAS: dict[str, Formula] = {
    "top1_top5": _top1_top5,
    "top1": _top1,
    "real": _real,
    "restricted": _restricted,
    "over_1000": _over_1000,
    "objectnet": _objectnet,
    "imagenet_o": _imagenet_o,
    "imagenet_c": _imagenet_c,
    "corruption_accuracy": _corruption_accuracy,
    "siscore": _siscore,
    "in9": _in9,
    "in9_nine": _in9_nine,
    "in9_challenge": _in9_challenge,
    "wsol": _wsol,
}
"""The formulas by the key that the catalogue uses."""
