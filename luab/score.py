"""Predictions of one run in, one JSON per benchmark out: numbers, protocol, n and a digest of the images."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.data.labels import in9_of_class, near_names
from luab.errors import ConfigError, DataError
from luab.files import lines_sha256, write_json
from luab.metrics import background, corruption, ood
from luab.metrics.accuracy import (
    Bools,
    Count,
    Ints,
    count_by_group,
    has_label,
    is_correct,
    labelled_count,
    padded,
)
from luab.metrics.localization import (
    IOU_PCT,
    LocalizationInput,
    box_accuracy,
    point_distances,
    points_in_box,
)
from luab.metrics.synthetic import mean_over_values
from luab.progress import progress

RUN_KEYS = ("dataset", "backbone", "supervision", "lambda", "seed")

_TOP5 = ("image_id", "labels", "top5")
_GROUPED = (*_TOP5, "group")
_SUBSET = ("image_id", "labels", "restricted_top1")
_CAM = ("image_id", "cam", "cam_h", "cam_w", "width", "height", "boxes", "point_x", "point_y")
_MAY_BE_NULL = ("point_x", "point_y")
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


def score(
    benchmark_names: Iterable[str],
    predictions_folder: Path | str,
    manifests_folder: Path | str,
    run: Mapping[str, Any],
    scores_folder: Path | str,
    input_px: int = 224,
    crop_pct: float = 0.875,
) -> list[Path]:
    """Writes <scores_folder>/<benchmark>.json for each benchmark.

    Args:
        benchmark_names: Keys of BENCHMARKS.
        predictions_folder: Holds <test set>.parquet; see docs/data-formats.md.
        manifests_folder: Holds <dataset>.parquet.
        run: dataset, backbone, supervision, lambda and seed; stored as it is.
        scores_folder: Made if need be; a file is written whole or not at all.
        input_px: Side of the crop that the network saw; score maps are resized to it too.
        crop_pct: Side of the centre crop over the resized shorter side; only told in the protocol.

    Returns:
        The files, in the order of the names.

    Raises:
        ConfigError: A benchmark is unknown or the run's identity is incomplete.
        DataError: Predictions or manifests are missing, lack columns, repeat an image or hold numbers that
            are not finite.
    """
    benchmarks = [find_benchmark(name) for name in benchmark_names]
    if missing := [key for key in RUN_KEYS if key not in run]:
        raise ConfigError(
            f"A run is named by {', '.join(RUN_KEYS)}; {', '.join(missing)} missing in {dict(run)}."
        )
    written = []
    for benchmark in benchmarks:
        inputs = Inputs(
            {
                name: _predictions(Path(predictions_folder), name, benchmark.columns)
                for name in benchmark.test_sets
            },
            {name: _manifest(Path(manifests_folder), name) for name in benchmark.manifests},
            input_px,
        )
        path = Path(scores_folder) / f"{benchmark.name}.json"
        scores = benchmark.compute(inputs)
        protocol = benchmark.protocol.format(input_px=input_px, resized_px=int(input_px / crop_pct))
        write_json(path, _content(benchmark, protocol, run, scores))
        written.append(path)
    return written


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise ConfigError(
            f"suites: expected the name of a benchmark, found {name!r}. {near_names(name, BENCHMARKS)}"
        )
    return BENCHMARKS[name]


def test_sets_of(benchmark_names: Iterable[str]) -> tuple[str, ...]:
    """The test sets that these benchmarks need, each once, in order of first need.

    Raises:
        ConfigError: A benchmark is unknown.
    """
    return tuple(dict.fromkeys(t for name in benchmark_names for t in find_benchmark(name).test_sets))


# pytest would take the name for a test wherever it is imported.
test_sets_of.__test__ = False  # type: ignore[attr-defined]


# ---- numbers of each benchmark ------------------------------------------------------------------


def _top1_top5(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    top5, labels = _top5(table), _labels(table)
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
    labels = _labels(manifest)
    correct = is_correct(_top5(table)[:, 0], labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels)


def _restricted(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    labels = _labels(table)
    correct = is_correct(_numbers(table, "restricted_top1"), labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels)


def _objectnet(inputs: Inputs) -> Scores:
    table = inputs.tables["objectnet"]
    labels = _labels(table)
    all_classes = is_correct(_top5(table)[:, 0], labels)
    sublist = is_correct(_numbers(table, "restricted_top1"), labels)
    metrics = {
        "accuracy": labelled_count(all_classes, labels).fraction,
        "accuracy_sublist": labelled_count(sublist, labels).fraction,
    }
    return _over_labelled(metrics, table, labels)


def _imagenet_o(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_o"]
    groups = _texts(table, "group")
    if unknown := sorted(set(groups) - {"in", "out"}):
        raise DataError(
            f"imagenet_o: expected the groups 'in' and 'out', found {', '.join(unknown)}. Predict again."
        )
    confidence, is_out = _numbers(table, "restricted_confidence"), groups == "out"
    metrics = {
        "aupr": ood.aupr(confidence, is_out),
        "auroc": ood.auroc(confidence, is_out),
        "fpr95": ood.fpr95(confidence, is_out),
    }
    return Scores(metrics, len(groups), _ids(table), extra={"chance_aupr": int(is_out.sum()) / len(is_out)})


def _imagenet_c(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_c"]
    counts = count_by_group(_correct(table), _texts(table, "group"))
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
        Detail(name, "corruption_error", corruption.corruption_error(name, errors[name]), n)
        for name, n in n_of.items()
    ]
    kept = pc.is_in(table["group"], pa.array(np.array(list(counts))[in_mce]))
    return Scores(metrics, sum(n_of.values()), _ids(table.filter(kept)), _accuracies(counts) + ratios)


def _siscore(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    counts = count_by_group(_correct(table), _texts(table, "group"))
    return Scores({"accuracy": mean_over_values(counts)}, table.num_rows, _ids(table), _accuracies(counts))


def _in9(inputs: Inputs) -> Scores:
    table = inputs.tables["in9"]
    counts = background.in9_counts(_top5(table)[:, 0], _labels(table), _texts(table, "group"), in9_of_class())
    if missing := [name for name in background.VARIANTS if name not in counts]:
        raise DataError(
            f"in9: expected the variants {', '.join(background.VARIANTS)}; {', '.join(missing)} missing. "
            "Unpack the Backgrounds Challenge archive again, index it and predict."
        )
    metrics = {name: counts[name].fraction for name in background.VARIANTS}
    return Scores(
        metrics | {"bg_gap": background.bg_gap(metrics)}, table.num_rows, _ids(table), _accuracies(counts)
    )


def _in9_challenge(inputs: Inputs) -> Scores:
    table = inputs.tables["in9_challenge"]
    vulnerable = _numbers(table, "vulnerable")
    metrics = {"challenge_accuracy": background.challenge_accuracy(vulnerable)}
    tried = int(_numbers(table, "backgrounds_tried").sum())
    return Scores(metrics, table.num_rows, _ids(table), extra={"backgrounds_tried": tried})


def _wsol(inputs: Inputs) -> Scores:
    ((name, table),) = inputs.tables.items()
    boxes, size_wh = _boxes(table), np.stack([_numbers(table, "width"), _numbers(table, "height")], axis=1)
    found = box_accuracy(_score_maps(name, table, boxes, size_wh), inputs.input_px)
    metrics = {"max_box_acc": found.max_box_acc(), "max_box_acc_v2": found.max_box_acc_v2()}
    details = [
        Detail(f"iou_{pct}", "max_box_acc_v2", Count(found.found_at(pct), found.n).fraction, found.n)
        for pct in IOU_PCT
    ]
    best = {f"iou_{pct}": found.best_threshold(pct) for pct in IOU_PCT}
    points = _points(name, table)
    if points is not None:
        metrics["point_in_box"] = points_in_box(points, boxes, size_wh) / found.n
        metrics["point_distance"] = math.fsum(point_distances(points, boxes, size_wh)) / found.n
    return Scores(metrics, found.n, _ids(table), details, {"best_threshold": best})


def _correct(table: pa.Table) -> Bools:
    return is_correct(_top5(table)[:, 0], _labels(table))


def _accuracies(counts: Mapping[str, Count]) -> list[Detail]:
    return [Detail(group, "accuracy", count.fraction, count.n) for group, count in counts.items()]


def _over_labelled(metrics: dict[str, float], table: pa.Table, labels: Ints) -> Scores:
    scored = has_label(labels)
    return Scores(metrics, int(np.count_nonzero(scored)), _ids(table.filter(pa.array(scored))))


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


# ---- reading ------------------------------------------------------------------------------------


def _predictions(folder: Path, test_set: str, columns: tuple[str, ...]) -> pa.Table:
    path = folder / f"{test_set}.parquet"
    remedy = "Remove the file and run `luab predict` or Snakemake again."
    table = _read(path, columns, remedy)
    for name in columns:
        if table[name].null_count and name not in _MAY_BE_NULL:
            raise DataError(
                f"{path}: expected a value in every row of {name}, found {table[name].null_count} empty. "
                f"{remedy}"
            )
        bad = _not_finite(table[name])
        if bad:
            raise DataError(
                f"{path}: expected finite numbers in {name}, found {bad} that are not. The model is damaged "
                "or its training diverged: look at the run's log.csv, train again, then predict."
            )
    return table


def _manifest(folder: Path, dataset: str) -> pa.Table:
    return _read(
        folder / f"{dataset}.parquet", ("image_id", "labels"), "Run `luab index` or Snakemake again."
    )


def _read(path: Path, columns: tuple[str, ...], remedy: str) -> pa.Table:
    """The named columns of a Parquet file with at least one row and each image once."""
    if not path.is_file():
        raise DataError(f"{path}: expected this file; it is not there. {remedy}")
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            if missing := [name for name in columns if name not in present]:
                raise DataError(
                    f"{path}: no {', '.join(missing)}; the file has {', '.join(present)}. {remedy}"
                )
            table = file.read(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet file, could not read it ({error}). {remedy}") from error
    distinct = pc.count_distinct(table["image_id"]).as_py()
    if not table.num_rows or distinct != table.num_rows:
        raise DataError(
            f"{path}: expected every image once, found {table.num_rows} rows with {distinct} different "
            f"image_id. {remedy}"
        )
    return table


def _not_finite(column: pa.ChunkedArray) -> int:
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = pc.list_flatten(column)
    if not pa.types.is_floating(column.type):
        return 0
    values = column.drop_null().to_numpy()
    return int(np.count_nonzero(~np.isfinite(values)))


def _top5(table: pa.Table) -> Ints:
    flat = pc.list_flatten(table["top5"]).to_numpy()
    if len(flat) != 5 * table.num_rows:
        raise DataError(
            f"top5: expected the 5 best classes of {table.num_rows} images, found {len(flat)} classes "
            "in all. Predict again."
        )
    return np.asarray(flat.reshape(-1, 5))


def _labels(table: pa.Table) -> Ints:
    return padded(pc.list_flatten(table["labels"]).to_numpy(), _lengths(table, "labels"))


def _lengths(table: pa.Table, column: str) -> Ints:
    return np.asarray(pc.list_value_length(table[column]).to_numpy(), dtype=np.int64)


def _numbers(table: pa.Table, column: str) -> npt.NDArray[Any]:
    return np.asarray(table[column].to_numpy())


def _texts(table: pa.Table, column: str) -> npt.NDArray[np.object_]:
    return np.array(table[column].to_pylist(), dtype=object)


def _ids(table: pa.Table) -> list[str]:
    return [str(image_id) for image_id in table["image_id"].to_pylist()]


def _boxes(table: pa.Table) -> list[Ints]:
    flat = pc.list_flatten(pc.list_flatten(table["boxes"])).to_numpy().reshape(-1, 4)
    return np.split(flat, np.cumsum(_lengths(table, "boxes"))[:-1])


def _points(name: str, table: pa.Table) -> npt.NDArray[np.float64] | None:
    """[n, 2] predicted points; None for a model without a byproduct head, whose points are all empty."""
    empty = [table[column].null_count for column in ("point_x", "point_y")]
    if empty == [table.num_rows] * 2:
        return None
    if any(empty):
        raise DataError(
            f"{name}: expected a point for every image or for none, found {max(empty)} of {table.num_rows} "
            "empty. Predict again."
        )
    return np.stack([_numbers(table, "point_x"), _numbers(table, "point_y")], axis=1).astype(np.float64)


def _score_maps(name: str, table: pa.Table, boxes: list[Ints], size_wh: Ints) -> Iterator[LocalizationInput]:
    shapes = np.stack([_numbers(table, "cam_h"), _numbers(table, "cam_w")], axis=1).astype(np.int64)
    if (shapes.prod(axis=1) != _lengths(table, "cam")).any():
        raise DataError(f"{name}: expected score maps of cam_h x cam_w values, found others. Predict again.")
    maps = np.split(pc.list_flatten(table["cam"]).to_numpy(), np.cumsum(_lengths(table, "cam"))[:-1])
    with progress(f"boxes of {name}", len(maps), "images") as advance:
        for values, shape, of_image, (width, height) in zip(maps, shapes, boxes, size_wh, strict=True):
            yield LocalizationInput(values.reshape(shape), of_image, (int(width), int(height)))
            advance(1)


# ---- writing ------------------------------------------------------------------------------------


def _content(benchmark: Benchmark, protocol: str, run: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    values = list(scores.metrics.items()) + [(f"{d.metric} of {d.group}", d.value) for d in scores.details]
    if bad := [name for name, value in values if not math.isfinite(value)]:
        raise DataError(
            f"{benchmark.name}: expected finite numbers, found none for {', '.join(bad)}. Predict again."
        )
    content = {
        "benchmark": benchmark.name,
        "protocol": protocol,
        "run": {key: run[key] for key in RUN_KEYS},
        "n": scores.n,
        "ids_sha256": lines_sha256(sorted(scores.ids)),
        "metrics": scores.metrics,
        "details": [detail._asdict() for detail in sorted(scores.details)],
    }
    return content | ({"extra": scores.extra} if scores.extra else {})
