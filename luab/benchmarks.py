"""Every benchmark: which predictions it needs, its protocol, and the numbers it makes of them."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.data.labels import IN9_VARIANTS, in9_of_class, near_names
from luab.errors import ConfigError, DataError
from luab.metrics import background, corruption, ood
from luab.metrics.accuracy import Bools, Count, Ints, count_by_group, has_label, is_correct, labelled_count
from luab.metrics.localization import IOU_PCT, box_accuracy, point_distances, points_in_box
from luab.metrics.synthetic import mean_over_values
from luab.predictions import boxes_of, ids_of, labels_of, numbers_of, points_of, score_maps_of, texts_of, top5_of

_TOP5 = ("image_id", "labels", "top5")
_GROUPED = (*_TOP5, "group")
_SUBSET = ("image_id", "labels", "restricted_top1")
_CAM = ("image_id", "cam", "cam_h", "cam_w", "width", "height", "boxes", "point_x", "point_y")
_CROP = "shorter side to {resized_px}, centre crop {input_px}"


class Detail(NamedTuple):
    """One number for a part of a benchmark's images."""

    group: str
    metric: str
    value: float
    n: int


class Inputs(NamedTuple):
    """What a benchmark computes from: checked tables by test set, manifests by dataset, side of the crop."""

    tables: Mapping[str, pa.Table]
    manifests: Mapping[str, pa.Table]
    input_px: int


@dataclass(frozen=True)
class Scores:
    """One benchmark's result for one run.

    Attributes:
        metrics: Name -> fraction.
        n: Images that the metrics are about.
        ids: Their image ids, in any order.
        details: Numbers for parts of them.
        extra: Anything else worth keeping; not collected.
    """

    metrics: dict[str, float]
    n: int
    ids: Iterable[str]
    details: list[Detail] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Which predictions a benchmark needs and what it makes of them.

    Attributes:
        name: Key in BENCHMARKS and stem of the score file.
        title: For tables and figures.
        test_sets: Predictions that it reads.
        columns: Columns of each that it needs.
        protocol: One line for captions; {input_px} and {resized_px} are filled in.
        headline: The metric that stands for the benchmark.
        better: Whether a higher or a lower headline is better.
        compute: The numbers.
        manifests: Manifests that it reads besides (image_id and labels).
    """

    name: str
    title: str
    test_sets: tuple[str, ...]
    columns: tuple[str, ...]
    protocol: str
    headline: str
    better: Literal["higher", "lower"]
    compute: Callable[[Inputs], Scores]
    manifests: tuple[str, ...] = ()


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"suites: expected the name of a benchmark, found {name!r}. {near_names(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def test_sets_of(benchmark_names: Iterable[str]) -> tuple[str, ...]:
    """The test sets that these benchmarks need, each once, in order of first need.

    Raises:
        ConfigError: A benchmark is unknown.
    """
    return tuple(dict.fromkeys(t for name in benchmark_names for t in find_benchmark(name).test_sets))


# pytest would take the name for a test wherever it is imported.
test_sets_of.__test__ = False  # type: ignore[attr-defined]


# ---- numbers of each benchmark ---------------------------------------------------------------------------------


def _top1_top5(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    top5, labels = top5_of(table), labels_of(table)
    metrics = {f"top{k}": labelled_count(is_correct(top5[:, :k], labels), labels).fraction for k in (1, 5)}
    return _over_labelled(metrics, table, labels)


def _top1(inputs: Inputs) -> Scores:
    both = _top1_top5(inputs)
    return Scores({"top1": both.metrics["top1"]}, both.n, both.ids)


def _real(inputs: Inputs) -> Scores:
    """Top-1 against the re-assessed label sets; images without any are left out."""
    table, manifest = inputs.tables["imagenet_val"], inputs.manifests["imagenet_real"]
    table, manifest = table.sort_by("image_id"), manifest.sort_by("image_id")
    if not table["image_id"].equals(manifest["image_id"]):
        raise DataError(
            f"imagenet_real: expected the same images in the predictions of imagenet_val "
            f"({table.num_rows}) and in the manifest imagenet_real ({manifest.num_rows}); they differ. "
            "Index both again, then predict."
        )
    labels = labels_of(manifest)
    correct = is_correct(top5_of(table)[:, 0], labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels)


def _restricted(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    labels = labels_of(table)
    correct = is_correct(numbers_of(table, "restricted_top1"), labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels)


def _objectnet(inputs: Inputs) -> Scores:
    table = inputs.tables["objectnet"]
    labels = labels_of(table)
    all_classes = is_correct(top5_of(table)[:, 0], labels)
    sublist = is_correct(numbers_of(table, "restricted_top1"), labels)
    metrics = {
        "accuracy": labelled_count(all_classes, labels).fraction,
        "accuracy_sublist": labelled_count(sublist, labels).fraction,
    }
    return _over_labelled(metrics, table, labels)


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
    return Scores(metrics, len(groups), ids_of(table), extra={"chance_aupr": int(is_out.sum()) / len(is_out)})


def _imagenet_c(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_c"]
    counts = count_by_group(_correct(table), texts_of(table, "group"))
    errors: dict[str, dict[int, float]] = {}
    for group, count in counts.items():
        name, severity = corruption.split_group(group)
        errors.setdefault(name, {})[severity] = (count.n - count.correct) / count.n
    metrics = {
        "mce": corruption.mean_corruption_error(errors),
        "mean_accuracy": corruption.mean_accuracy(errors),
    }
    in_mce = np.array([group.rpartition("/")[0] in corruption.ALEXNET_ERROR for group in counts])
    n_of = {name: sum(counts[f"{name}/{s}"].n for s in errors[name]) for name in corruption.ALEXNET_ERROR}
    ratios = [
        Detail(name, "corruption_error", corruption.corruption_error(name, errors[name]), n) for name, n in n_of.items()
    ]
    kept = pc.is_in(table["group"], pa.array(np.array(list(counts))[in_mce]))
    return Scores(metrics, sum(n_of.values()), ids_of(table.filter(kept)), _accuracies(counts) + ratios)


def _siscore(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    counts = count_by_group(_correct(table), texts_of(table, "group"))
    return Scores({"accuracy": mean_over_values(counts)}, table.num_rows, ids_of(table), _accuracies(counts))


def _in9(inputs: Inputs) -> Scores:
    table = inputs.tables["in9"]
    counts = background.in9_counts(top5_of(table)[:, 0], labels_of(table), texts_of(table, "group"), in9_of_class())
    if missing := [name for name in IN9_VARIANTS if name not in counts]:
        raise DataError(
            f"in9: expected the variants {', '.join(IN9_VARIANTS)}; {', '.join(missing)} missing. "
            "Unpack the Backgrounds Challenge archive again, index it and predict."
        )
    metrics = {name: counts[name].fraction for name in IN9_VARIANTS}
    return Scores(metrics | {"bg_gap": background.bg_gap(metrics)}, table.num_rows, ids_of(table), _accuracies(counts))


def _in9_challenge(inputs: Inputs) -> Scores:
    table = inputs.tables["in9_challenge"]
    vulnerable = numbers_of(table, "vulnerable")
    metrics = {"challenge_accuracy": background.challenge_accuracy(vulnerable)}
    tried = int(numbers_of(table, "backgrounds_tried").sum())
    return Scores(metrics, table.num_rows, ids_of(table), extra={"backgrounds_tried": tried})


def _wsol(inputs: Inputs) -> Scores:
    ((name, table),) = inputs.tables.items()
    boxes, size_wh = boxes_of(table), np.stack([numbers_of(table, "width"), numbers_of(table, "height")], axis=1)
    found = box_accuracy(score_maps_of(name, table, boxes, size_wh), inputs.input_px)
    metrics = {"max_box_acc": found.max_box_acc(), "max_box_acc_v2": found.max_box_acc_v2()}
    details = [
        Detail(f"iou_{pct}", "max_box_acc_v2", Count(found.found_at(pct), found.n).fraction, found.n) for pct in IOU_PCT
    ]
    best = {f"iou_{pct}": found.best_threshold(pct) for pct in IOU_PCT}
    points = points_of(name, table)
    if points is not None:
        metrics["point_in_box"] = points_in_box(points, boxes, size_wh) / found.n
        metrics["point_distance"] = math.fsum(point_distances(points, boxes, size_wh)) / found.n
    return Scores(metrics, found.n, ids_of(table), details, {"best_threshold": best})


def _correct(table: pa.Table) -> Bools:
    return is_correct(top5_of(table)[:, 0], labels_of(table))


def _accuracies(counts: Mapping[str, Count]) -> list[Detail]:
    return [Detail(group, "accuracy", count.fraction, count.n) for group, count in counts.items()]


def _over_labelled(metrics: dict[str, float], table: pa.Table, labels: Ints) -> Scores:
    scored = has_label(labels)
    return Scores(metrics, int(np.count_nonzero(scored)), ids_of(table.filter(pa.array(scored))))


_WSOL = (
    "score map of the true class, image squeezed to {input_px} x {input_px} without a crop; MaxBoxAccV2 over "
    "all contours at IoU .3 .5 .7, MaxBoxAcc with the largest contour at IoU .5; thresholds in steps of "
    ".001, best on "
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "imagenet_val", "ImageNet", ("imagenet_val",), _TOP5,
            f"ImageNet validation set, arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1_top5,
        ),
        Benchmark(
            "imagenet_v2", "ImageNet-V2", ("imagenet_v2",), _TOP5,
            f"ImageNet-V2 matched-frequency, arg-max over 1000 classes, {_CROP}",
            "top1", "higher", _top1_top5,
        ),
        Benchmark(
            "imagenet_real", "ImageNet-ReaL", ("imagenet_val",), _TOP5,
            "arg-max over 1000 classes in the re-assessed label set, images without a label left out, "
            f"{_CROP}",
            "accuracy", "higher", _real, manifests=("imagenet_real",),
        ),
        Benchmark(
            "imagenet_a", "ImageNet-A", ("imagenet_a",), _SUBSET,
            f"arg-max over the 200 ImageNet-A classes, {_CROP}", "accuracy", "higher", _restricted,
        ),
        Benchmark(
            "imagenet_r", "ImageNet-R", ("imagenet_r",), _SUBSET,
            f"arg-max over the 200 ImageNet-R classes, {_CROP}", "accuracy", "higher", _restricted,
        ),
        Benchmark(
            "imagenet_o", "ImageNet-O", ("imagenet_o",), ("image_id", "group", "restricted_confidence"),
            "average precision of ImageNet-O images against ImageNet validation images of the same 200 "
            f"classes, score = minus the largest softmax over these 200 logits, {_CROP}",
            "aupr", "higher", _imagenet_o,
        ),
        Benchmark(
            "imagenet_sketch", "ImageNet-Sketch", ("imagenet_sketch",), _TOP5,
            f"ImageNet-Sketch, arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1_top5,
        ),
        Benchmark(
            "imagenet_c", "ImageNet-C", ("imagenet_c",), _GROUPED,
            "mCE over 15 corruptions and 5 severities relative to AlexNet's published errors, arg-max over "
            "1000 classes, stored images seen whole at {input_px}", "mce", "lower", _imagenet_c,
        ),
        Benchmark(
            "imagenet_cocc", "Centre occlusion", ("imagenet_cocc",), _TOP5,
            "ImageNet validation set with a centred square of half the crop's side set to the mean colour, "
            f"arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1,
        ),
        Benchmark(
            "objectnet", "ObjectNet", ("objectnet",), (*_TOP5, "restricted_top1"),
            "113 ObjectNet classes that overlap ImageNet, red border cut off, arg-max over 1000 classes in "
            "the object's set of ImageNet classes (accuracy_sublist: arg-max over the 125 mapped classes), "
            f"{_CROP}",
            "accuracy", "higher", _objectnet,
        ),
        *(
            Benchmark(
                f"siscore_{factor}", f"SI-Score {factor}", (f"siscore_{factor}",), _GROUPED,
                f"SI-Score {factor}, mean over the values of the factor, arg-max over 1000 classes, {_CROP}",
                "accuracy", "higher", _siscore,
            )
            for factor in ("size", "location", "rotation")
        ),
        Benchmark(
            "in9", "Backgrounds Challenge", ("in9",), _GROUPED,
            "ImageNet-9, arg-max over 1000 classes mapped to 9, unmapped is wrong, stored images seen whole "
            "at {input_px}; BG-Gap = mixed_same - mixed_rand", "bg_gap", "lower", _in9,
        ),
        Benchmark(
            "in9_challenge", "Adversarial backgrounds", ("in9_challenge",),
            ("image_id", "vulnerable", "backgrounds_tried"),
            "share of ImageNet-9 foregrounds that no only_bg_t background turns into another class, arg-max "
            "over 1000 classes mapped to 9, stored images seen whole at {input_px}",
            "challenge_accuracy", "higher", _in9_challenge,
        ),
        Benchmark(
            "wsol_val", "Localisation (train-fullsup)", ("wsol_val",), _CAM,
            f"{_WSOL}this set (ImageNet-V2 threshold-0.7)", "max_box_acc_v2", "higher", _wsol,
        ),
        Benchmark(
            "wsol_test", "Localisation", ("wsol_test",), _CAM,
            f"{_WSOL}this set (ImageNet validation set)", "max_box_acc_v2", "higher", _wsol,
        ),
    )
}  # fmt: skip
