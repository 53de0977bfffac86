"""Numbers about the byproducts themselves, from the index of ImageNet-AB alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.clicks import click_points as click_points
from luab.byproducts.clicks import final_states
from luab.byproducts.nested import Bools, Floats, Integers, entries, inner_entries, points
from luab.byproducts.statistics.averages import mean, quantile, ratio

# The longest recorded time is five hours, of a page left open: means are clipped here.
CLIP_TIME_MS = 60_000

_Statistic = tuple[str, float, str, int]  # name, value, unit, how many it is over
_SHARE, _MS, _COUNT = "share", "ms", "count"


def hover_times_ms(table: pa.Table) -> Integers:
    """Durations of the closed hovers, an enter directly followed by a leave, in the table's order.

    An enter without its leave has no duration; a negative one (the worker's clock was set back) is left out.

    Args:
        table: The index with at least the columns hover_action and hover_time_ms.
    """
    closed, times = _closed_hovers(table)
    durations = np.diff(times)[closed]
    return durations[durations >= 0]


def selected_times_ms(table: pa.Table) -> Integers:
    """The recorded times (estimateTime) of selected annotations, those above zero, in the table's order.

    Args:
        table: The index with at least the columns selected and estimate_time_ms.
    """
    return _timed(table)[0]


def trace_times_ms(table: pa.Table) -> Integers:
    """How long each trace of two samples or more lasts, from its first sample to its last, in the table's order.

    A negative one (the worker's clock was set back) is left out.

    Args:
        table: The index with at least the column trace_time_ms.
    """
    lists, _ = entries(table["trace_time_ms"])
    times = pc.list_flatten(lists).to_numpy()
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)[lengths > 1]
    durations = times[ends - 1] - times[ends - lengths[lengths > 1]]
    return durations[durations >= 0]


# Columns that `byproduct_statistics` needs.
COLUMNS = [
    *("annotators", "has_box", "boxes", "width", "height", "worker_id", "estimate_time_ms", "selected"),
    *("click_xy", "trace_xy", "trace_time_ms", "hover_action", "hover_time_ms"),
]


def byproduct_statistics(index: pa.Table | Iterable[pa.Table], card: dict[str, Any] | None = None) -> pd.DataFrame:
    """What the byproducts look like, as a tidy table.

    Clicks are those of `click_points`. A click is inside when the source pixel under it is inside any box
    of the image, both ends included; images without a box or size have no say, and the image's centre is
    judged on the same images.
    ASSUME: a click is inside a box when its pixel is, ends included; the paper does not define its test.

    Times are those of selected annotations with estimateTime > 0; `estimate_time_mean_clipped` is the mean
    after clipping at `CLIP_TIME_MS`. Workers are counted over the same annotations; `worker_time_*` spreads over
    the workers, each with the mean of their clipped times. A trace lasts from its first sample to its last.

    Args:
        index: The whole index, or its pieces in order (`read_index_pieces`), so that one after the other is in
            memory; at least `COLUMNS`.
        card: Its card; adds what the table cannot say: the skipped junk.

    Returns:
        Columns statistic, value, unit (share and fraction in [0, 1]; count, ms) and n, the number of
        records, annotations, points or workers that the value is over. A value over nothing is NaN.
    """
    seen = _Seen()
    for table in [index] if isinstance(index, pa.Table) else index:
        seen.add(table)
    parts = [_coverage, _aim, _times, _hovers, _traces, _workers]
    found = [statistic for part in parts for statistic in part(seen)]
    if card is not None:
        found.append(("junk_skipped", card["counts"]["junk_skipped"], _COUNT, card["rows"]))
    frame = pd.DataFrame(found, columns=["statistic", "value", "unit", "n"])
    return frame.astype({"value": "float64", "n": "int64"})


WORKER_COLUMNS = ["worker_id", "estimate_time_ms", "selected"]


def per_worker(index: pa.Table | Iterable[pa.Table]) -> tuple[Integers, Floats]:
    """Images of each worker, and the mean of their times clipped at `CLIP_TIME_MS`, in ms; the order means nothing.

    Counted are selected annotations with estimateTime > 0 whose worker is known.

    Args:
        index: As `byproduct_statistics` takes it, with at least `WORKER_COLUMNS`.
    """
    seen = _Seen()
    for table in [index] if isinstance(index, pa.Table) else index:
        seen.add_workers(table)
    return seen.per_worker()


class _Seen:
    """What one pass over the index keeps: counts, and numbers of which the quantiles are wanted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.images_of: Counter[str] = Counter()  # worker -> annotations
        self.time_of: Counter[str] = Counter()  # worker -> sum of the clipped times
        self._numbers: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)

    def add(self, table: pa.Table) -> None:
        self._add_coverage(table)
        self._add_aim(table)
        self._add_hovers(table)
        self._add_traces(table)
        self.add_workers(table)

    def numbers(self, name: str) -> NDArray[Any]:
        """All numbers kept under a name, in the index's order."""
        return np.concatenate(self._numbers[name] or [np.zeros(0)])

    def _keep(self, name: str, numbers: NDArray[Any]) -> None:
        self._numbers[name].append(numbers)

    def _add_coverage(self, table: pa.Table) -> None:
        chosen, owner = final_states(table)
        times, timed_owner = _timed(table)
        self.counts["records"] += table.num_rows
        for name, rows in (("metadata", owner), ("selected", owner[chosen]), ("selected_with_time", timed_owner)):
            self.counts[name] += len(np.unique(rows))
        self.counts["with_box"] += int(pc.sum(table["has_box"]).as_py() or 0)
        self._keep("annotators", table["annotators"].to_numpy())
        self._keep("times", times)

    def _add_aim(self, table: pa.Table) -> None:
        rows, xy, without = click_points(table)
        points_of_all, _, _ = points(table["click_xy"])
        self.counts["selected_without_click"] += without
        self.counts["clicks"] += len(points_of_all)
        self.counts["clicks_outside"] += int(_outside(points_of_all).sum())
        self._keep("to_centre", np.hypot(*(xy - 0.5).T))
        self._keep("click_inside", inside_a_box(table, rows, xy))
        self._keep("centre_inside", inside_a_box(table, rows, np.full_like(xy, 0.5)))

    def _add_hovers(self, table: pa.Table) -> None:
        actions, _ = inner_entries(table["hover_action"])
        self.counts["enters"] += int(pc.sum(pc.equal(actions, "enter")).as_py() or 0)
        self.counts["closed"] += int(_closed_hovers(table)[0].sum())
        self._keep("hover_times", hover_times_ms(table))

    def _add_traces(self, table: pa.Table) -> None:
        xy, _, lengths = points(table["trace_xy"])
        self.counts["samples"] += len(xy)
        self.counts["samples_outside"] += int(_outside(xy).sum())
        self._keep("trace_lengths", lengths)
        self._keep("trace_times", trace_times_ms(table))

    def add_workers(self, table: pa.Table) -> None:
        selected, _ = entries(table["selected"])
        times = entries(table["estimate_time_ms"])[0].fill_null(0)
        workers = entries(table["worker_id"])[0]
        annotations = pa.table({"worker": workers, "ms": pc.min_element_wise(times, CLIP_TIME_MS)})
        annotations = annotations.filter(pc.and_(pc.and_(selected, pc.greater(times, 0)), workers.is_valid()))
        each = annotations.group_by("worker", use_threads=False).aggregate([("ms", "count"), ("ms", "sum")])
        names = each["worker"].to_pylist()
        self.images_of.update(dict(zip(names, each["ms_count"].to_pylist(), strict=True)))
        self.time_of.update(dict(zip(names, each["ms_sum"].to_pylist(), strict=True)))

    def per_worker(self) -> tuple[Integers, Floats]:
        """As the function of that name."""
        images = np.array(list(self.images_of.values()), np.int64)
        times = np.array([self.time_of[worker] for worker in self.images_of], np.float64)
        return images, times / images


def _coverage(seen: _Seen) -> list[_Statistic]:
    count, records = seen.counts, seen.counts["records"]
    return [
        ("records", records, _COUNT, records),
        ("with_metadata", ratio(count["metadata"], records), _SHARE, records),
        ("selected", ratio(count["selected"], records), _SHARE, records),
        ("selected_with_time", ratio(count["selected_with_time"], records), _SHARE, records),
        ("with_box", ratio(count["with_box"], records), _SHARE, records),
        ("annotations_per_record_max", _most(seen.numbers("annotators")), _COUNT, records),
    ]


def _aim(seen: _Seen) -> list[_Statistic]:
    distances, inside, centre_inside = map(seen.numbers, ("to_centre", "click_inside", "centre_inside"))
    without, clicks = seen.counts["selected_without_click"], seen.counts["clicks"]
    return [
        ("images_with_click", len(distances), _COUNT, seen.counts["records"]),
        ("with_click", ratio(len(distances), seen.counts["records"]), _SHARE, seen.counts["records"]),
        ("selected_without_click", without, _COUNT, len(distances) + without),
        ("click_in_box", mean(inside), _SHARE, len(inside)),
        ("centre_in_box", mean(centre_inside), _SHARE, len(centre_inside)),
        ("click_to_centre_mean", mean(distances), "fraction", len(distances)),
        ("click_to_centre_median", quantile(distances, 0.5), "fraction", len(distances)),
        ("clicks_out_of_range", ratio(seen.counts["clicks_outside"], clicks), _SHARE, clicks),
    ]


def _times(seen: _Seen) -> list[_Statistic]:
    times = seen.numbers("times")
    n = len(times)
    return [
        *_quartiles("estimate_time", times),
        ("estimate_time_mean", mean(times), _MS, n),
        ("estimate_time_mean_clipped", mean(np.minimum(times, CLIP_TIME_MS)), _MS, n),
        ("estimate_time_max", _most(times), _MS, n),
    ]


def _hovers(seen: _Seen) -> list[_Statistic]:
    enters, closed = seen.counts["enters"], seen.counts["closed"]
    return [
        ("hover_closed", closed, _COUNT, enters),
        ("hover_unclosed", enters - closed, _COUNT, enters),
        *_quartiles("hover_time", seen.numbers("hover_times")),
    ]


def _traces(seen: _Seen) -> list[_Statistic]:
    lengths, samples = seen.numbers("trace_lengths"), seen.counts["samples"]
    return [
        ("trace_points_mean", mean(lengths), _COUNT, len(lengths)),
        ("trace_points_median", quantile(lengths, 0.5), _COUNT, len(lengths)),
        ("trace_empty", mean(lengths == 0), _SHARE, len(lengths)),
        ("trace_out_of_range", ratio(seen.counts["samples_outside"], samples), _SHARE, samples),
        *_quartiles("trace_time", seen.numbers("trace_times")),
    ]


def _workers(seen: _Seen) -> list[_Statistic]:
    images, means = seen.per_worker()
    n = len(images)
    return [
        ("workers", n, _COUNT, int(images.sum())),
        ("images_per_worker_min", _least(images), _COUNT, n),
        ("images_per_worker_median", quantile(images, 0.5), _COUNT, n),
        ("images_per_worker_max", _most(images), _COUNT, n),
        ("worker_time_min", _least(means), _MS, n),
        *_quartiles("worker_time", means),
        ("worker_time_max", _most(means), _MS, n),
    ]


def _quartiles(name: str, times_ms: NDArray[Any]) -> list[_Statistic]:
    parts = {"quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75}
    return [(f"{name}_{part}", quantile(times_ms, share), _MS, len(times_ms)) for part, share in parts.items()]


def inside_a_box(table: pa.Table, rows: Integers, xy: Floats) -> Bools:
    """Whether each point is inside any box of its image, for the images that have a box and a size.

    Args:
        table: The index with at least the columns boxes, width and height.
        rows: [n] row of each point, without repeats.
        xy: [n, 2] fractions of the image.

    Returns:
        [m] for the m of the n points whose image has a box and a size, in the order of rows.
    """
    boxes, owner = entries(table["boxes"])
    corners = boxes.flatten().to_numpy().reshape(-1, 4)
    sides = [table[name].to_numpy().astype(np.float64) for name in ("width", "height")]
    size = np.stack(sides, axis=1)[rows]  # [n, 2], NaN where unknown
    # The pixel under the point; 1.0 is the far edge, which belongs to the last pixel.
    pixels = np.full((table.num_rows, 2), np.nan)
    pixels[rows] = np.where(xy == 1, size - 1, np.floor(xy * size))
    inside = (corners[:, :2] <= pixels[owner]) & (pixels[owner] <= corners[:, 2:])
    hits = np.bincount(owner, inside.all(axis=1), minlength=table.num_rows)
    known = (np.bincount(owner, minlength=table.num_rows) > 0)[rows] & np.isfinite(size).all(axis=1)
    return hits[rows][known] > 0


def _closed_hovers(table: pa.Table) -> tuple[Bools, Integers]:
    """Which of the n-1 neighbouring pairs of actions are one closed hover, and the n times."""
    actions, owner = inner_entries(table["hover_action"])
    times, _ = inner_entries(table["hover_time_ms"])
    enters = pc.equal(actions, "enter").to_numpy(zero_copy_only=False).astype(bool)
    closed = enters[:-1] & ~enters[1:] & (owner[:-1] == owner[1:])
    return closed, times.to_numpy()


def _timed(table: pa.Table) -> tuple[Integers, Integers]:
    """Times above zero of selected annotations, and their rows."""
    chosen, owner = final_states(table)
    times = entries(table["estimate_time_ms"])[0].fill_null(0).to_numpy()
    timed = chosen & (times > 0)
    return times[timed], owner[timed]


def _outside(xy: Floats) -> Bools:
    return np.any((xy < 0) | (xy > 1), axis=1)


def _least(values: NDArray[Any]) -> float:
    return float(values.min()) if len(values) else np.nan


def _most(values: NDArray[Any]) -> float:
    return float(values.max()) if len(values) else np.nan
