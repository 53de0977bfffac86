"""Training points for ImageNet, computed from the index of ImageNet-AB: one function and one file per supervision.

To add a supervision, write its function here and name it in the config::

    @register
    def last_click(index: Path, seed: int) -> Points:
        table = read_index(index, ["image_id", "click_xy"])
        ...
        return Points(image_ids, xy, {})
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.clicks import click_points, mean_by_row, samples_of_traces
from luab.byproducts.imagenet_ab import read_index, read_index_pieces
from luab.data.supervisions.makers import random_point, supervision_named
from luab.data.supervisions.point_files import IMAGE_POINTS, write_points

LONGEST_STEP_MS = 350
"""A longer step between two trace samples is a rest or an absence; a moving pointer has 47 ms on average."""


class Points(NamedTuple):
    """Training points, at most one per image.

    image_ids: [n] unique, in any order. xy: [n, 2] fractions of the full image, x right, y down, in [0, 1].
    notes: entries of the card, such as how many points were dropped and why.
    """

    image_ids: pa.Array | pa.ChunkedArray
    xy: NDArray[np.floating[Any]]
    notes: dict[str, int]


Supervision = Callable[[Path, int], Points]
"""Computes points from the path of the index and the seed of the study."""

TARGETS: dict[str, Supervision] = {}


def register(function: Supervision) -> Supervision:
    """Adds a function to `TARGETS` under its own name."""
    TARGETS[function.__name__] = function
    return function


@register
def click(index: Path, seed: int) -> Points:
    """Returns the click of each image by the rule of the official loader (`click_points`).

    A mean outside [0, 1] is dropped and counted. No crop of the image can contain it, so the official loader gives
    it weight 0 in every step. The release has no such click as far as we saw, but its format allows it.
    """
    table = read_index(index, ["image_id", "selected", "click_xy"])
    rows, xy, without = click_points(table)
    image_ids, xy, dropped = _inside(table["image_id"].take(pa.array(rows)), xy)
    return Points(image_ids, xy, {"selected_without_click": without, "out_of_range": dropped})


@register
def random(index: Path, seed: int) -> Points:
    """Returns one uniform point for each image that has a click; the seed fixes it for the whole study.

    The point is a hash of seed and image_id (`random_point`), so it does not depend on other images or their order.
    ASSUME: random points are uniform over the whole image and the same in every epoch.
    """
    image_ids = click(index, seed).image_ids
    xy = np.array([random_point(f"{seed}:{image_id}") for image_id in image_ids.to_pylist()], dtype=np.float64)
    return Points(image_ids, xy.reshape(-1, 2), {"seed": seed})


@register
def centre(index: Path, seed: int) -> Points:
    """Returns the centre of each image that has a click: what a model can learn without any byproduct."""
    image_ids = click(index, seed).image_ids
    return Points(image_ids, np.full((len(image_ids), 2), 0.5), {})


@register
def box(index: Path, seed: int) -> Points:
    """Returns the centre of the largest ILSVRC box of each image that has one, with or without a click.

    A centre outside the image is dropped and counted.
    ASSUME: of several boxes the largest in pixels counts, since a click is on one object as well; every image with
    a box has a point, clicked or not, since this stands for full supervision.
    """
    table = read_index(index, ["image_id", "boxes", "width", "height"])
    table = table.filter(pc.and_(pc.greater(pc.list_value_length(table["boxes"]), 0), table["width"].is_valid()))
    largest = [max(boxes, key=_area) for boxes in table["boxes"].to_pylist()]
    corners = np.array(largest, dtype=np.float64).reshape(-1, 4)
    size = np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1)
    xy = (corners[:, :2] + corners[:, 2:] + 1) / 2 / size  # + 1: the maximum is inclusive
    image_ids, xy, dropped = _inside(table["image_id"], xy)
    return Points(image_ids, xy, {"out_of_range": dropped})


@register
def trace(index: Path, seed: int) -> Points:
    """Returns the mean of the mouse trace over time for each image that has a click, averaged over annotations.

    The weight of a sample is half the time since the previous sample plus half the time to the next (trapezoid rule).
    Steps are clipped to [0, `LONGEST_STEP_MS`], so gaps, repeated time stamps and clocks that were set back do no
    harm; a trace without duration gets its unweighted mean. Samples outside [0, 1] are dropped and counted. Only
    selected annotations count.
    ASSUME: a trace's point is its time-weighted mean; the paper trains on clicks alone.
    """
    columns = ["image_id", "selected", "click_xy", "trace_xy", "trace_time_ms"]
    # Piece by piece: the traces of the whole release take gigabytes of memory.
    pieces = [_mean_traces_of(piece) for piece in read_index_pieces(index, columns)]
    notes = {name: sum(piece.notes[name] for piece in pieces) for name in _TRACE_NOTES}
    image_ids = pa.chunked_array([piece.image_ids for piece in pieces], pa.string())
    return Points(image_ids, np.concatenate([np.empty((0, 2)), *(piece.xy for piece in pieces)]), notes)


def write_targets(index_parquet: Path, supervision: str, seed: int, parquet: Path, card: Path) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image_id, and their card.

    Args:
        index_parquet: The index of ImageNet-AB.
        supervision: A name in `TARGETS`, or "none" for an empty table.
        seed: Seed of the study; the same for all runs, so that they share their points.
        parquet: Output file for the points.
        card: Output file for the card: supervision, n, sha256 (`ContentDigest`), notes.

    Raises:
        ConfigError: The supervision is unknown.
        DataError: The index is missing or damaged.
    """
    function = supervision_named(supervision, TARGETS)
    points = function(index_parquet, seed) if function else Points(pa.array([], pa.string()), np.empty((0, 2)), {})
    x, y = points.xy.astype(np.float32).T
    table = pa.table([points.image_ids, x, y], schema=IMAGE_POINTS).sort_by("image_id")
    return write_points(table, parquet, card, {"supervision": supervision, "notes": points.notes})


def _inside(image_ids: pa.ChunkedArray, xy: NDArray[np.float64]) -> tuple[pa.ChunkedArray, NDArray[np.float64], int]:
    """The images whose point is in [0, 1], their points, and the number of the others."""
    inside = ((xy >= 0) & (xy <= 1)).all(axis=1)
    return image_ids.filter(pa.array(inside)), xy[inside], int((~inside).sum())


def _area(corners: list[int]) -> int:
    x0, y0, x1, y1 = corners
    return (x1 - x0 + 1) * (y1 - y0 + 1)


_TRACE_NOTES = ("clicked_without_trace", "samples_out_of_range")


def _mean_traces_of(table: pa.Table) -> Points:
    clicked = np.zeros(table.num_rows, dtype=bool)
    clicked[click_points(table).rows] = True
    samples = samples_of_traces(table)
    inside = ((samples.xy >= 0) & (samples.xy <= 1)).all(axis=1)
    used = inside & samples.selected & clicked[samples.rows]
    rows, xy = _mean_traces(samples.rows[used], samples.annotations[used], samples.xy[used], samples.times_ms[used])
    notes = dict(zip(_TRACE_NOTES, (int(clicked.sum()) - len(rows), int((~inside).sum())), strict=True))
    return Points(table["image_id"].combine_chunks().take(pa.array(rows)), xy, notes)


def _mean_traces(
    rows: NDArray[np.int64],
    annotations: NDArray[np.int64],
    xy: NDArray[np.float64],
    times_ms: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The mean of each annotation's samples over time, then the mean of each row's annotations."""
    if len(rows) == 0:
        return rows, xy
    # Annotations are in ascending order; renumber the remaining ones from 0.
    _, first, number = np.unique(annotations, return_index=True, return_inverse=True)
    step = np.where(np.diff(number) == 0, np.clip(np.diff(times_ms), 0, LONGEST_STEP_MS), 0) / 2
    weights = np.concatenate([[0], step]) + np.concatenate([step, [0]])
    duration = np.bincount(number, weights)
    weights = np.where(duration[number] > 0, weights, 1.0)
    _, means = mean_by_row(number, xy, len(first), weights)
    return mean_by_row(rows[first], means, int(rows.max()) + 1)
