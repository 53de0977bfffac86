"""Clicks, mouse traces and hovers from the index of ImageNet-AB, as flat arrays."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.byproducts.nested import Bools, Floats, Integers, entries, inner_entries, points


class Clicks(NamedTuple):
    """The click of each image that has one.

    rows: [n] rows of the images in the table, ascending. xy: [n, 2] fractions of the image, x right, y down; may lie
    outside [0, 1]. selected_without_click: number of selected annotations that have no click.
    """

    rows: Integers
    xy: Floats
    selected_without_click: int


def click_points(table: pa.Table) -> Clicks:
    """Returns the click of each image as the official loader computes it.

    It is the mean, over the selected annotations of an image, of the first selecting click of each. Annotations that
    were not selected in the end are ignored, even if they were clicked before.
    DEVIATES: a selected annotation without a click is left out and counted, where the official loader would stop.

    The table needs the columns selected and click_xy.

    Source: naver-ai/NeglectedFreeLunch, imagenet_dataloader.ipynb.
    """
    selected, owner = final_states(table)
    xy, starts, lengths = points(table["click_xy"])
    used = selected & (lengths > 0)
    rows, means = mean_by_row(owner[used], xy[starts[used]], table.num_rows)
    return Clicks(rows, means, int((selected & (lengths == 0)).sum()))


class Samples(NamedTuple):
    """The samples of all mouse traces, in order.

    rows: [n] row of the image. annotations: [n] number of the annotation, counted over the whole table. selected: [n]
    final state of that annotation. xy: [n, 2] fractions, may lie outside [0, 1]. times_ms: [n] epoch ms; may repeat,
    and may decrease.
    """

    rows: Integers
    annotations: Integers
    selected: Bools
    xy: Floats
    times_ms: Integers


def samples_of_traces(table: pa.Table) -> Samples:
    """Returns the mouse traces as flat arrays, from the columns selected, trace_xy and trace_time_ms."""
    selected, owner = final_states(table)
    times, annotations = inner_entries(table["trace_time_ms"])
    xy, _, _ = points(table["trace_xy"])
    return Samples(owner[annotations], annotations, selected[annotations], xy, times.to_numpy())


class Hovers(NamedTuple):
    """The n hover actions of all annotations, in order.

    enters: [n] whether the action is an enter; the others are leaves. closed: [n - 1] whether the action is an enter
    that the next action closes: a leave in the same annotation. times_ms: [n] epoch ms.
    """

    enters: Bools
    closed: Bools
    times_ms: Integers


def hovers(table: pa.Table | pa.RecordBatch) -> Hovers:
    """Returns the hover actions as flat arrays, from the columns hover_action and hover_time_ms."""
    actions, owner = inner_entries(table["hover_action"])
    times, _ = inner_entries(table["hover_time_ms"])
    enters = pc.equal(actions, "enter").to_numpy(zero_copy_only=False).astype(bool)
    return Hovers(enters, enters[:-1] & ~enters[1:] & (owner[:-1] == owner[1:]), times.to_numpy())


def mean_by_row(rows: Integers, xy: Floats, of: int, weights: Floats | None = None) -> tuple[Integers, Floats]:
    """Returns the rows [m] whose weight is not 0, ascending, and the weighted means [m, 2] of their points.

    The points xy [n, 2], in any frame, belong to `rows` [n], from 0 to of - 1. `weights` [n] are at least 0; None for
    equal weights.
    """
    total = np.bincount(rows, weights, minlength=of).astype(np.float64)
    present = np.flatnonzero(total)
    share = np.ones(len(rows)) if weights is None else weights
    sums = [np.bincount(rows, xy[:, axis] * share, minlength=of)[present] for axis in (0, 1)]
    return present, np.stack(sums, axis=1) / total[present, None]


def final_states(table: pa.Table | pa.RecordBatch) -> tuple[Bools, Integers]:
    """Returns whether each annotation was selected when the page was submitted, and its row in the table."""
    selected, owner = entries(table["selected"])
    return selected.to_numpy(zero_copy_only=False).astype(bool), owner


def recorded_times_ms(table: pa.Table | pa.RecordBatch) -> Integers:
    """Returns the recorded time (estimateTime) of each annotation; 0 if missing."""
    return entries(table["estimate_time_ms"])[0].fill_null(0).to_numpy()
