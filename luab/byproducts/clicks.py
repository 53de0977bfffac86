"""Clicks and mouse traces from the index of ImageNet-AB, as flat arrays."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from luab.byproducts.nested import Bools, Floats, Integers, entries, inner_entries, points


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
    chosen, owner = final_states(table)
    xy, starts, lengths = points(table["click_xy"])
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
    chosen, owner = final_states(table)
    times, annotations = inner_entries(table["trace_time_ms"])
    xy, _, _ = points(table["trace_xy"])
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


def final_states(table: pa.Table) -> tuple[Bools, Integers]:
    """Returns whether each annotation was selected when the page was submitted, and its row in the table."""
    selected, owner = entries(table["selected"])
    return selected.to_numpy(zero_copy_only=False).astype(bool), owner
