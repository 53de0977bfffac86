"""Two fine-tunings on the same images: intervals and paired tests over images, from their results of single images."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.table import Table

from luab.comparison.over_images import SEED, Interval, Paired, interval, paired
from luab.comparison.over_seeds import holm
from luab.comparison.two_runs import change_text, p_text, percent_text
from luab.comparison.weighted import Weighted
from luab.errors import DataError
from luab.files import write_csv
from luab.metrics.detection import Matches, average_precisions, mean_precision
from luab.metrics.segmentation import Areas, ious, mean_iou
from luab.predictions import ids_of, read_listed
from luab.progress import progress, wide_console
from luab.transfer.score import read_about

RESAMPLES = 1_000
"""Fewer than for classification: each resample ranks all boxes again."""
COLUMNS = (
    "metric", "n", "first", "first_low", "first_high", "second", "second_low", "second_high",
    "difference", "low", "high", "p", "p_holm", "resamples", "seed",
)  # fmt: skip

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Row(NamedTuple):
    """One metric: number and interval of both fine-tunings, their difference, and p corrected over all rows."""

    metric: str
    n: int
    first: Interval
    second: Interval
    paired: Paired
    p_holm: float


def compare(first: Path, second: Path, resamples: int = RESAMPLES, seed: int = SEED) -> list[Row]:
    """Compares two fine-tunings by a bootstrap over images; the second minus the first.

    Args:
        first: per_image.parquet of the reference, for example the one that begins with the baseline.
        second: That of the fine-tuning which is compared with it.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        One row per metric that both have; AP of detection, IoU of segmentation, also of small objects and out of
        context. p is that of the paired bootstrap; p_holm is corrected over these rows.

    Raises:
        DataError: A file is missing or damaged, or the two are of different tasks or ground truths.
    """
    measures = [measures_of(path) for path in (first, second)]
    shared = [metric for metric in measures[0] if metric in measures[1]]
    if not shared:
        raise DataError(
            f"{first} and {second}: expected a metric that both have, found {', '.join(measures[0])} and "
            f"{', '.join(measures[1])}. Compare two fine-tunings of one transfer."
        )
    rows = []
    with progress("compare", len(shared), "metrics") as advance:
        for metric in shared:
            one, other = (of[metric] for of in measures)
            test = paired(one, other, resamples, seed)
            first_interval, second_interval = (interval(images, resamples, seed) for images in (one, other))
            rows.append(Row(metric, len(one.ids), first_interval, second_interval, test, np.nan))
            advance(1)
    corrected = holm(np.array([row.paired.p for row in rows]))
    return [row._replace(p_holm=float(p)) for row, p in zip(rows, corrected, strict=True)]


def print_comparison(first: str, second: str, rows: list[Row], resamples: int = RESAMPLES) -> None:
    """Prints a table that fits into 80 columns; `first` and `second` are names of the fine-tunings."""
    table = Table(
        title="Two fine-tunings on the same images (%)",
        box=box.HORIZONTALS, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False,
    )  # fmt: skip
    table.add_column("metric\n[dim]n[/]", no_wrap=True)
    for heading in ("first", "second", "second - first", "p", "p Holm"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        change = change_text(row.paired, row.paired.difference, row.p_holm)
        p_values = map(p_text, (row.paired.p, row.p_holm))
        table.add_row(
            f"{row.metric}\n[dim]{row.n:,}[/]", percent_text(row.first), percent_text(row.second), change, *p_values
        )
    console = wide_console()
    console.print(f"first:  {first}\nsecond: {second}", highlight=False)
    console.print(table)
    console.print(
        "Small: 95 % intervals over images, by a bootstrap. p: paired bootstrap; Holm: corrected for "
        f"{len(rows)} metrics; green and red: p Holm below .05. {resamples:,} resamples. This compares single "
        "trainings; the tables of the study show the spread over seeds.",
        style="dim",
    )


def write_comparison(path: Path, rows: list[Row], resamples: int = RESAMPLES, seed: int = SEED) -> None:
    """Writes the rows as CSV with `COLUMNS`; fractions, not rounded."""
    write_csv(
        path,
        COLUMNS,
        (
            (row.metric, row.n, *row.first[:3], *row.second[:3], *row.paired[:4], row.p_holm, resamples, seed)
            for row in rows
        ),
    )


def measures_of(path: Path) -> dict[str, Weighted]:
    """The metrics of a fine-tuning as functions of the weights of its images, from its per_image.parquet."""
    about = read_about(path)
    detection = about["task"] == "detection"
    measures = dict(_of_boxes(path, about) if detection else _of_masks(path, about))
    return {metric: measure for metric, measure in measures.items() if not np.isnan(_value(measure))}


def _value(images: Weighted) -> float:
    return float(images.measure(np.ones((1, len(images.ids))))[0])


def _of_boxes(path: Path, about: Mapping[str, Any]) -> Iterator[tuple[str, Weighted]]:
    views, subsets = about["views"], about["subsets"]
    lists = [f"{view}_{name}" for view in views for name in ("matched", "ignored", "objects")]
    images = _Images(path, about, ("labels", "scores", *lists, *(f"not_{name}" for name in subsets)))
    rows, labels = images.rows("labels"), images.classes("labels", least=1)
    matches = {}
    for view in views:
        matched, ignored = (
            images.bits(f"{view}_{name}", "labels", 1 if view == "voc" else 10) for name in ("matched", "ignored")
        )
        objects = images.table_of(f"{view}_objects", least=1)
        scores = images.like("scores", "labels").astype(np.float64)
        matches[view] = Matches(images.ids, rows, labels, scores, matched, ignored, objects[:, 1:])
    everything = matches["all"]
    first = {name: getattr(everything, name)[:, :1] for name in ("matched", "ignored")}
    yield "ap", images.weighted(_precision(everything))
    yield "ap50", images.weighted(_precision(Matches(**{**vars(everything), **first})))
    if "small" in matches:
        yield "ap_small", images.weighted(_precision(matches["small"]))
    if "voc" in matches:
        yield "voc_ap", images.weighted(_precision(matches["voc"], "area"))
    for name in subsets:
        counted = images.table_of(f"not_{name}", least=0)[:, 1:] == 0
        yield f"ap_{name}", images.weighted(_precision(everything.only(counted)))


def _of_masks(path: Path, about: Mapping[str, Any]) -> Iterator[tuple[str, Weighted]]:
    subsets = list(about["subsets"])
    names = ("hits", "true", "predicted")
    images = _Images(path, about, ("labels", *names, *(f"not_{name}" for name in subsets)))
    rows, labels = images.rows("labels"), images.classes("labels", least=0)
    pixels = np.zeros((3, len(images.ids), images.classes_and_background), dtype=np.int64)
    for table, name in zip(pixels, names, strict=True):
        table[rows, labels] = images.like(name, "labels")
    areas = Areas(images.ids, *pixels)
    yield "miou", images.weighted(_iou(areas))
    for name in subsets:
        yield f"miou_{name}", images.weighted(_iou(areas.only(images.table_of(f"not_{name}", least=0) == 0)))


def _precision(matches: Matches, rule: Any = "coco") -> Callable[[Floats], Floats]:
    return lambda weights: mean_precision(average_precisions(matches, rule, weights))


def _iou(areas: Areas) -> Callable[[Floats], Floats]:
    return lambda weights: mean_iou(ious(areas, weights))


class _Images:
    """The checked columns of a per_image.parquet, all of them lists of numbers."""

    def __init__(self, path: Path, about: Mapping[str, Any], columns: tuple[str, ...]) -> None:
        table = read_listed(path.parent, path.stem, ("image_id", *columns), "transfer score")
        self._path, self._columns = path, {}
        for name in columns:
            column = table[name].combine_chunks()
            kind = column.type
            if not pa.types.is_list(kind) or column.null_count or not _is_number(kind.value_type):
                raise self._error(f"lists of numbers in {name}, found {kind} with {column.null_count:,} empty")
            flat = pc.list_flatten(column)
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            self._columns[name] = (np.asarray(flat.to_numpy(zero_copy_only=False)), lengths)
            if flat.null_count or not np.isfinite(self._columns[name][0]).all():
                raise self._error(f"finite numbers in {name}, found others")
        self.ids = ids_of(table)
        if self.ids != sorted(self.ids):
            raise self._error("images in the order of their ids, found another order")
        self.classes_and_background = len(about["classes"]) + 1
        self._truth = str(about["truth_sha256"])

    def rows(self, name: str) -> Ints:
        """The image of each number of a column."""
        lengths = self._columns[name][1]
        return np.repeat(np.arange(len(lengths)), lengths)

    def like(self, name: str, other: str) -> npt.NDArray[Any]:
        """The numbers of a column with as many in each image as another column."""
        if (self._columns[name][1] != self._columns[other][1]).any():
            raise self._error(f"as many values of {name} as of {other} for every image, found other counts")
        return self._columns[name][0]

    def classes(self, name: str, least: int) -> Ints:
        """The numbers of a column of classes."""
        labels = self._columns[name][0].astype(np.int64)
        if len(labels) and not least <= labels.min() <= labels.max() < self.classes_and_background:
            most = self.classes_and_background - 1
            raise self._error(f"classes from {least} to {most} in {name}, found {labels.min()} to {labels.max()}")
        return labels

    def table_of(self, name: str, least: int) -> Ints:
        """[images, classes and background] how often a column lists each class."""
        counts = np.zeros((len(self.ids), self.classes_and_background), dtype=np.int64)
        np.add.at(counts, (self.rows(name), self.classes(name, least)), 1)
        return counts

    def bits(self, name: str, other: str, width: int) -> Bools:
        """[numbers, width] bits of a column."""
        return np.asarray(self.like(name, other).astype(np.int64)[:, None] >> np.arange(width) & 1, dtype=bool)

    def weighted(self, measure: Callable[[Floats], Floats]) -> Weighted:
        """A metric of these images."""
        return Weighted(self.ids, np.zeros(len(self.ids), dtype=np.int64), _once(measure), self._truth)

    def _error(self, expected: str) -> DataError:
        return DataError(f"{self._path}: expected {expected}. Run `luab transfer score` or Snakemake again.")


def _once(measure: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The same measure, which computes equal resamples once: interval and test of a fine-tuning draw the same ones."""
    known: dict[bytes, Floats] = {}

    def remembered(weights: Floats) -> Floats:
        key = hashlib.sha256(weights.tobytes()).digest()
        if key not in known:
            known[key] = measure(weights)
        return known[key]

    return remembered


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
