"""Statistics of the byproducts of ImageNet, from the index of ImageNet-AB alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.clicks import click_points, final_states, hovers, recorded_times_ms
from luab.byproducts.nested import Bools, Floats, Integers, entries, outside, points
from luab.byproducts.statistics.averages import QUARTILES, Statistic, mean, ratio, summary, table_of

LONG_TIME_MS = 3000
"""ASSUME: a time is long from 3 s on; the authors' follow-up work calls shorter traces usable."""
CLIP_TIME_MS = 60_000
"""Times are clipped here before averaging: the longest one is five hours, of a page that was left open."""


def hover_times_ms(table: pa.Table) -> Integers:
    """Returns the durations of the closed hovers, an enter directly followed by a leave, in the table's order.

    Negative durations (the worker's clock was set back) are left out.
    """
    _, closed, times = hovers(table)
    durations = np.diff(times)[closed]
    return durations[durations >= 0]


def selected_times_ms(table: pa.Table) -> Integers:
    """Returns the recorded times (estimateTime) above zero of selected annotations, in the table's order."""
    return _timed(table)[0]


def trace_times_ms(table: pa.Table) -> Integers:
    """Returns the durations of the traces, from the first sample to the last, in the table's order.

    Traces of fewer than two samples and negative durations (the worker's clock was set back) are left out.
    """
    lists, _ = entries(table["trace_time_ms"])
    times = pc.list_flatten(lists).to_numpy()
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)[lengths > 1]
    durations = times[ends - 1] - times[ends - lengths[lengths > 1]]
    return durations[durations >= 0]


COLUMNS = [
    *("annotators", "has_box", "boxes", "width", "height", "worker_id", "estimate_time_ms", "selected"),
    *("click_xy", "trace_xy", "trace_time_ms", "hover_action", "hover_time_ms"),
]
"""Columns that `byproduct_statistics` needs."""

WORKER_COLUMNS = ["worker_id", "estimate_time_ms", "selected"]
"""Columns that `per_worker` needs."""


def byproduct_statistics(index: pa.Table | Iterable[pa.Table], card: dict[str, Any] | None = None) -> pd.DataFrame:
    """Computes statistics of the byproducts.

    Clicks are those of `click_points`. A click is in a box if the source pixel under it is in any box of the image,
    with both ends included; this is computed over the images with a box and a size, for the click and for the centre.
    ASSUME: a click is inside a box when its pixel is, ends included; the paper does not define its test.

    Times are those of selected annotations with estimateTime > 0; `estimate_time_mean_clipped` is the mean
    after clipping at `CLIP_TIME_MS`. Workers are counted over the same annotations; `worker_time_*` is the spread, over
    workers, of the mean of their clipped times. A trace lasts from its first sample to its last.

    Args:
        index: The index with at least `COLUMNS`, whole or in pieces (`read_index_pieces`); of pieces, only one at a
            time is in memory.
        card: The card of the index; adds the number of skipped junk files.

    Returns:
        Columns statistic, value, unit (share and fraction in [0, 1]; count, ms) and n, the number of records,
        annotations, points or workers that the value summarises. A value over nothing is NaN.
    """
    totals = _Totals()
    for table in [index] if isinstance(index, pa.Table) else index:
        totals.add(table)
    parts = [_coverage, _aim, _times, _hovers, _traces, _workers]
    statistics = [statistic for part in parts for statistic in part(totals)]
    if card is not None:
        statistics.append(("junk_skipped", card["counts"]["junk_skipped"], "count", card["rows"]))
    return table_of(statistics)


def per_worker(index: pa.Table | Iterable[pa.Table]) -> tuple[Integers, Floats]:
    """Returns the number of images of each worker and the mean of their clipped times in ms, in any order.

    Only selected annotations with estimateTime > 0 and a known worker count.

    Args:
        index: As for `byproduct_statistics`, with at least `WORKER_COLUMNS`.
    """
    totals = _Totals()
    for table in [index] if isinstance(index, pa.Table) else index:
        totals.add_workers(table)
    return totals.per_worker()


class _Totals:
    """Counts over the pieces of an index, and the values whose quantiles are needed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.images_of: Counter[str] = Counter()  # worker -> annotations
        self.time_of: Counter[str] = Counter()  # worker -> sum of the clipped times
        self._values: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)

    def add(self, table: pa.Table) -> None:
        self._add_coverage(table)
        self._add_aim(table)
        self._add_hovers(table)
        self._add_traces(table)
        self.add_workers(table)

    def values(self, name: str) -> NDArray[Any]:
        """Returns all values of one name, in the order of the index."""
        return np.concatenate(self._values[name] or [np.zeros(0)])

    def _keep(self, name: str, values: NDArray[Any]) -> None:
        self._values[name].append(values)

    def _add_coverage(self, table: pa.Table) -> None:
        chosen, owner = final_states(table)
        times, timed_owner = _timed(table)
        self.counts["records"] += table.num_rows
        for name, rows in (("metadata", owner), ("selected", owner[chosen]), ("selected_with_time", timed_owner)):
            self.counts[name] += len(np.unique(rows))
        self.counts["with_box"] += int(pc.sum(table["has_box"]).as_py() or 0)
        recorded = pc.list_flatten(table["estimate_time_ms"]).drop_null().to_numpy()
        self.counts["times"] += len(recorded)
        self.counts["times_zero"] += int((recorded == 0).sum())
        self.counts["times_long"] += int((recorded > LONG_TIME_MS).sum())
        self._keep("annotators", table["annotators"].to_numpy())
        self._keep("times", times)

    def _add_aim(self, table: pa.Table) -> None:
        rows, xy, without = click_points(table)
        points_of_all, _, _ = points(table["click_xy"])
        self.counts["selected_without_click"] += without
        self.counts["clicks"] += len(points_of_all)
        self.counts["clicks_outside"] += int(outside(points_of_all).sum())
        self._keep("to_centre", np.hypot(*(xy - 0.5).T))
        for axis, values in zip("xy", xy[~outside(xy)].T, strict=True):
            self._keep(f"click_{axis}", values)
        self._keep("click_inside", inside_a_box(table, rows, xy))
        self._keep("centre_inside", inside_a_box(table, rows, np.full_like(xy, 0.5)))

    def _add_hovers(self, table: pa.Table) -> None:
        enters, closed, _ = hovers(table)
        self.counts["enters"] += int(enters.sum())
        self.counts["closed"] += int(closed.sum())
        self._keep("hover_times", hover_times_ms(table))

    def _add_traces(self, table: pa.Table) -> None:
        xy, _, lengths = points(table["trace_xy"])
        self.counts["samples"] += len(xy)
        self.counts["samples_outside"] += int(outside(xy).sum())
        self._keep("trace_lengths", lengths)
        self._keep("trace_times", trace_times_ms(table))

    def add_workers(self, table: pa.Table) -> None:
        selected, _ = entries(table["selected"])
        times = pa.array(recorded_times_ms(table))
        workers = entries(table["worker_id"])[0]
        annotations = pa.table({"worker": workers, "ms": pc.min_element_wise(times, CLIP_TIME_MS)})
        annotations = annotations.filter(pc.and_(pc.and_(selected, pc.greater(times, 0)), workers.is_valid()))
        each = annotations.group_by("worker", use_threads=False).aggregate([("ms", "count"), ("ms", "sum")])
        names = each["worker"].to_pylist()
        self.images_of.update(dict(zip(names, each["ms_count"].to_pylist(), strict=True)))
        self.time_of.update(dict(zip(names, each["ms_sum"].to_pylist(), strict=True)))

    def per_worker(self) -> tuple[Integers, Floats]:
        """Result of the function `per_worker`."""
        images = np.array(list(self.images_of.values()), np.int64)
        times = np.array([self.time_of[worker] for worker in self.images_of], np.float64)
        return images, times / images


def _coverage(totals: _Totals) -> list[Statistic]:
    count, records = totals.counts, totals.counts["records"]
    return [
        ("records", records, "count", records),
        ("with_metadata", ratio(count["metadata"], records), "share", records),
        ("selected", ratio(count["selected"], records), "share", records),
        ("selected_with_time", ratio(count["selected_with_time"], records), "share", records),
        ("with_box", ratio(count["with_box"], records), "share", records),
        *summary("annotations_per_record", totals.values("annotators"), "count", "max"),
    ]


def _aim(totals: _Totals) -> list[Statistic]:
    distances, inside, centre_inside = map(totals.values, ("to_centre", "click_inside", "centre_inside"))
    without, clicks = totals.counts["selected_without_click"], totals.counts["clicks"]
    return [
        ("images_with_click", len(distances), "count", totals.counts["records"]),
        ("with_click", ratio(len(distances), totals.counts["records"]), "share", totals.counts["records"]),
        ("selected_without_click", without, "count", len(distances) + without),
        ("click_in_box", mean(inside), "share", len(inside)),
        ("centre_in_box", mean(centre_inside), "share", len(centre_inside)),
        *summary("click_to_centre", distances, "fraction", "mean", "median"),
        *(one for axis in "xy" for one in _place(f"click_{axis}", totals.values(f"click_{axis}"))),
        ("clicks_out_of_range", ratio(totals.counts["clicks_outside"], clicks), "share", clicks),
    ]


def _place(name: str, values: Floats) -> list[Statistic]:
    """Mean and standard deviation of a coordinate, over the points in the image."""
    n = len(values)
    return [
        (f"{name}_mean", mean(values), "fraction", n),
        (f"{name}_std", float(values.std()) if n else float("nan"), "fraction", n),
    ]


def _times(totals: _Totals) -> list[Statistic]:
    times = totals.values("times")
    return [
        *summary("estimate_time", times, "ms", *QUARTILES, "mean"),
        ("estimate_time_mean_clipped", mean(np.minimum(times, CLIP_TIME_MS)), "ms", len(times)),
        *summary("estimate_time", times, "ms", "max"),
        ("time_zero", ratio(totals.counts["times_zero"], totals.counts["times"]), "share", totals.counts["times"]),
        ("time_above_3_s", ratio(totals.counts["times_long"], totals.counts["times"]), "share", totals.counts["times"]),
    ]


def _hovers(totals: _Totals) -> list[Statistic]:
    enters, closed = totals.counts["enters"], totals.counts["closed"]
    return [
        ("hover_closed", closed, "count", enters),
        ("hover_unclosed", enters - closed, "count", enters),
        *summary("hover_time", totals.values("hover_times"), "ms", *QUARTILES),
    ]


def _traces(totals: _Totals) -> list[Statistic]:
    lengths, samples = totals.values("trace_lengths"), totals.counts["samples"]
    return [
        *summary("trace_points", lengths, "count", "mean", "median"),
        ("trace_empty", mean(lengths == 0), "share", len(lengths)),
        ("trace_out_of_range", ratio(totals.counts["samples_outside"], samples), "share", samples),
        *summary("trace_time", totals.values("trace_times"), "ms", *QUARTILES),
    ]


def _workers(totals: _Totals) -> list[Statistic]:
    images, means = totals.per_worker()
    return [
        ("workers", len(images), "count", int(images.sum())),
        *summary("images_per_worker", images, "count", "min", "median", "max"),
        ("images_of_busiest_tenth", busiest_tenth(images), "share", int(images.sum())),
        *summary("worker_time", means, "ms", "min", *QUARTILES, "max"),
    ]


def busiest_tenth(images: Integers) -> float:
    """Share of the images [w] per worker that the tenth of the workers with most images selected."""
    most = np.sort(images)[::-1][: -(-len(images) // 10)]
    return ratio(int(most.sum()), int(images.sum()))


def inside_a_box(table: pa.Table, rows: Integers, xy: Floats) -> Bools:
    """Returns whether each point is in any box of its image: [m], for the points whose image has a box and a size.

    rows: [n] row of each point, without repeats. xy: [n, 2] fractions of the image.
    """
    boxes, owner = entries(table["boxes"])
    corners = boxes.flatten().to_numpy().reshape(-1, 4)
    sides = [table[name].to_numpy().astype(np.float64) for name in ("width", "height")]
    size = np.stack(sides, axis=1)[rows]  # [n, 2], NaN where unknown
    # The pixel under the point; the far edge (1.0) belongs to the last pixel.
    pixels = np.full((table.num_rows, 2), np.nan)
    pixels[rows] = np.where(xy == 1, size - 1, np.floor(xy * size))
    inside = (corners[:, :2] <= pixels[owner]) & (pixels[owner] <= corners[:, 2:])
    hits = np.bincount(owner, inside.all(axis=1), minlength=table.num_rows)
    known = (np.bincount(owner, minlength=table.num_rows) > 0)[rows] & np.isfinite(size).all(axis=1)
    return hits[rows][known] > 0


def _timed(table: pa.Table) -> tuple[Integers, Integers]:
    """Times above zero of selected annotations, and their rows."""
    chosen, owner = final_states(table)
    times = recorded_times_ms(table)
    timed = chosen & (times > 0)
    return times[timed], owner[timed]
