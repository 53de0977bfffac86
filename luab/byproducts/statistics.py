"""Numbers about the byproducts themselves, from the index of ImageNet-AB alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.flat import Floats, Integers, entries, inner_entries, points

# The longest recorded time is five hours, of a page left open: means are clipped here.
CLIP_TIME_MS = 60_000

Bools = NDArray[np.bool_]

_Statistic = tuple[str, float, str, int]  # name, value, unit, how many it is over
_SHARE, _MS, _COUNT = "share", "ms", "count"


class Clicks(NamedTuple):
    """One point per image that has one.

    rows: [n] number of the image's row in the table, ascending. xy: [n, 2] fractions of the image, x right,
    y down; may lie outside [0, 1]. selected_without_click: metadata elements that gave no point.
    """

    rows: Integers
    xy: Floats
    selected_without_click: int


def click_points(table: pa.Table) -> Clicks:
    """The official loader's click: the first selecting click of each selected annotation, then the mean.

    The mean is over the metadata elements of an image. One whose state is False has no say, even if it
    was clicked before.
    DEVIATES: a selected annotation without a click is left out and counted, where the official loader would stop.

    Args:
        table: The index with at least the columns selected and click_xy.

    Source: naver-ai/NeglectedFreeLunch, imagenet_dataloader.ipynb.
    """
    selected, owner = entries(table["selected"])
    xy, starts, lengths = points(table["click_xy"])
    chosen = selected.to_numpy(zero_copy_only=False).astype(bool)
    counted = chosen & (lengths > 0)
    rows, means = mean_by_row(owner[counted], xy[starts[counted]], table.num_rows)
    return Clicks(rows, means, int((chosen & (lengths == 0)).sum()))


class Samples(NamedTuple):
    """Every sample of every mouse trace, in order.

    rows: [n] row of the image. annotations: [n] number of the metadata element, counted over the whole
    table. selected: [n] that annotation's final state. xy: [n, 2] fractions, may lie outside [0, 1].
    times_ms: [n] epoch ms; may repeat, and may run backwards.
    """

    rows: Integers
    annotations: Integers
    selected: Bools
    xy: Floats
    times_ms: Integers


def samples_of_traces(table: pa.Table) -> Samples:
    """The mouse traces as flat arrays.

    Args:
        table: The index with at least the columns selected, trace_xy and trace_time_ms.
    """
    selected, owner = entries(table["selected"])
    times, annotations = inner_entries(table["trace_time_ms"])
    xy, _, _ = points(table["trace_xy"])
    chosen = selected.to_numpy(zero_copy_only=False).astype(bool)
    return Samples(owner[annotations], annotations, chosen[annotations], xy, times.to_numpy())


def mean_by_row(rows: Integers, xy: Floats, of: int, weights: Floats | None = None) -> tuple[Integers, Floats]:
    """Means of the points [n, 2] that share a row, weighted or not; rows of no weight are left out.

    Args:
        rows: [n] the row of each point, in 0..of-1.
        xy: [n, 2] points in any frame.
        of: Number of rows in all.
        weights: [n] at least 0; None weighs all alike.

    Returns:
        The rows [m] that have a mean, ascending, and their means [m, 2].
    """
    total = np.bincount(rows, weights, minlength=of).astype(np.float64)
    kept = np.flatnonzero(total)
    share = np.ones(len(rows)) if weights is None else weights
    sums = [np.bincount(rows, xy[:, axis] * share, minlength=of)[kept] for axis in (0, 1)]
    return kept, np.stack(sums, axis=1) / total[kept, None]


def hover_times_ms(table: pa.Table) -> Integers:
    """Durations of the closed hovers, an enter directly followed by a leave, in the table's order.

    An enter without its leave has no duration; a negative one (the worker's clock was set back) is left out.

    Args:
        table: The index with at least the columns hover_action and hover_time_ms.
    """
    closed, times = _closed_hovers(table)
    durations = np.diff(times)[closed]
    return durations[durations >= 0]


def byproduct_statistics(table: pa.Table, card: dict[str, Any] | None = None) -> pd.DataFrame:
    """What the byproducts look like, as a tidy table.

    Clicks are those of `click_points`. A click is inside when the source pixel under it is inside any box
    of the image, both ends inclusive; images without a box or size have no say, and the image's centre is
    judged on the same images.
    ASSUME: a click is inside a box when its pixel is, ends included; the paper does not define its test.

    Times are those of selected annotations with estimateTime > 0; `estimate_time_mean_clipped` is the mean
    after clipping at `CLIP_TIME_MS`, and workers are counted over the same annotations.

    Args:
        table: The whole index (`read_index`).
        card: Its card; adds what the table cannot say: the skipped junk.

    Returns:
        Columns statistic, value, unit (share and fraction in [0, 1]; count, ms) and n, the number of
        records, annotations, points or workers that the value is over. A value over nothing is NaN.
    """
    parts: list[Callable[[pa.Table], list[_Statistic]]] = [
        _coverage,
        _aim,
        _times,
        _hovers,
        _traces,
        _workers,
    ]
    found = [statistic for part in parts for statistic in part(table)]
    if card is not None:
        found.append(("junk_skipped", card["counts"]["junk_skipped"], _COUNT, card["rows"]))
    frame = pd.DataFrame(found, columns=["statistic", "value", "unit", "n"])
    return frame.astype({"value": "float64", "n": "int64"})


def _coverage(table: pa.Table) -> list[_Statistic]:
    selected, owner = entries(table["selected"])
    chosen = selected.to_numpy(zero_copy_only=False).astype(bool)
    timed = chosen & (_flat_integers(table, "estimate_time_ms") > 0)
    records = table.num_rows

    def share(rows: Integers) -> float:
        return _ratio(len(np.unique(rows)), records)

    return [
        ("records", records, _COUNT, records),
        ("with_metadata", share(owner), _SHARE, records),
        ("selected", share(owner[chosen]), _SHARE, records),
        ("selected_with_time", share(owner[timed]), _SHARE, records),
        ("with_box", _mean(table["has_box"].to_numpy()), _SHARE, records),
        ("annotations_per_record_max", _most(table["annotators"].to_numpy()), _COUNT, records),
    ]


def _aim(table: pa.Table) -> list[_Statistic]:
    rows, xy, without = click_points(table)
    distances = np.hypot(*(xy - 0.5).T)
    inside = inside_a_box(table, rows, xy)
    centre_inside = inside_a_box(table, rows, np.full_like(xy, 0.5))
    all_points, _, _ = points(table["click_xy"])
    return [
        ("images_with_click", len(rows), _COUNT, table.num_rows),
        ("selected_without_click", without, _COUNT, len(rows) + without),
        ("click_in_box", _mean(inside), _SHARE, len(inside)),
        ("centre_in_box", _mean(centre_inside), _SHARE, len(centre_inside)),
        ("click_to_centre_mean", _mean(distances), "fraction", len(rows)),
        ("click_to_centre_median", _quantile(distances, 0.5), "fraction", len(rows)),
        ("clicks_out_of_range", _mean(_outside(all_points)), _SHARE, len(all_points)),
    ]


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


def _times(table: pa.Table) -> list[_Statistic]:
    times = _selected_times_ms(table)
    n = len(times)
    return [
        ("estimate_time_quartile_1", _quantile(times, 0.25), _MS, n),
        ("estimate_time_median", _quantile(times, 0.5), _MS, n),
        ("estimate_time_quartile_3", _quantile(times, 0.75), _MS, n),
        ("estimate_time_mean", _mean(times), _MS, n),
        ("estimate_time_mean_clipped", _mean(np.minimum(times, CLIP_TIME_MS)), _MS, n),
        ("estimate_time_max", _most(times), _MS, n),
    ]


def _hovers(table: pa.Table) -> list[_Statistic]:
    actions, _ = inner_entries(table["hover_action"])
    enters = int(pc.sum(pc.equal(actions, "enter")).as_py() or 0)
    closed = int(_closed_hovers(table)[0].sum())
    durations = hover_times_ms(table)
    return [
        ("hover_closed", closed, _COUNT, enters),
        ("hover_unclosed", enters - closed, _COUNT, enters),
        ("hover_time_median", _quantile(durations, 0.5), _MS, len(durations)),
    ]


def _traces(table: pa.Table) -> list[_Statistic]:
    xy, _, lengths = points(table["trace_xy"])
    return [
        ("trace_points_mean", _mean(lengths), _COUNT, len(lengths)),
        ("trace_points_median", _quantile(lengths, 0.5), _COUNT, len(lengths)),
        ("trace_empty", _mean(lengths == 0), _SHARE, len(lengths)),
        ("trace_out_of_range", _mean(_outside(xy)), _SHARE, len(xy)),
    ]


def _workers(table: pa.Table) -> list[_Statistic]:
    selected, _ = entries(table["selected"])
    workers, _ = entries(table["worker_id"])
    timed = pa.array(_flat_integers(table, "estimate_time_ms") > 0)
    images = pc.value_counts(workers.filter(pc.and_(selected, timed)).drop_null()).field("counts").to_numpy()
    return [
        ("workers", len(images), _COUNT, int(images.sum())),
        ("images_per_worker_min", float(images.min()) if len(images) else np.nan, _COUNT, len(images)),
        ("images_per_worker_median", _quantile(images, 0.5), _COUNT, len(images)),
        ("images_per_worker_max", _most(images), _COUNT, len(images)),
    ]


def _selected_times_ms(table: pa.Table) -> Integers:
    selected, _ = entries(table["selected"])
    times = _flat_integers(table, "estimate_time_ms")
    return times[selected.to_numpy(zero_copy_only=False).astype(bool) & (times > 0)]


def _closed_hovers(table: pa.Table) -> tuple[Bools, Integers]:
    """Which of the n-1 neighbouring pairs of actions are one closed hover, and the n times."""
    actions, owner = inner_entries(table["hover_action"])
    times, _ = inner_entries(table["hover_time_ms"])
    enters = pc.equal(actions, "enter").to_numpy(zero_copy_only=False).astype(bool)
    closed = enters[:-1] & ~enters[1:] & (owner[:-1] == owner[1:])
    return closed, times.to_numpy()


# ---- numbers


def _flat_integers(table: pa.Table, column: str) -> Integers:
    return entries(table[column])[0].fill_null(0).to_numpy()


def _outside(xy: Floats) -> Bools:
    return np.any((xy < 0) | (xy > 1), axis=1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _quantile(values: NDArray[Any], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else np.nan


def _most(values: NDArray[Any]) -> float:
    return float(values.max()) if len(values) else np.nan
