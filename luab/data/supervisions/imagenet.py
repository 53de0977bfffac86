"""From the index of byproducts to the points that a model is taught: one file per supervision.

A supervision is one function from the index to points, entered in `TARGETS` by its name. To add one, write
it here and name it in the config::

    @register
    def last_click(index: Path, seed: int) -> Points:
        table = read_index(index, ["image_id", "click_xy"])
        ...
        return Points(image_ids, xy, {})

The file it becomes has the columns image_id, x and y, one row per image with a point, by image_id::

    n01440764_10027, 0.65, 0.61333
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luab.byproducts.digest import ContentDigest
from luab.byproducts.imagenet_ab import read_index, read_index_pieces
from luab.byproducts.statistics.imagenet import click_points, mean_by_row, samples_of_traces
from luab.errors import ConfigError, DataError
from luab.files import replacing, write_json

# Spacing of a moving pointer's samples stays below this (mean 47 ms); longer is a rest or an absence.
LONGEST_STEP_MS = 350
ANEW = "Remove it and run `luab targets` again."

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("x", pa.float32(), nullable=False, metadata={"doc": "fraction of the full image, to the right"}),
        pa.field("y", pa.float32(), nullable=False, metadata={"doc": "fraction of the full image, downwards"}),
    ]
)


class Points(NamedTuple):
    """One point per image that has one.

    image_ids: [n] unique, in any order. xy: [n, 2] fractions of the full image, x right, y down, in [0, 1].
    notes: for the card; how many were left out and why, or what the points depend on.
    """

    image_ids: pa.Array | pa.ChunkedArray
    xy: NDArray[np.floating[Any]]
    notes: dict[str, int]


Supervision = Callable[[Path, int], Points]

TARGETS: dict[str, Supervision] = {}


def register(function: Supervision) -> Supervision:
    """Enters a function in `TARGETS` under its own name."""
    TARGETS[function.__name__] = function
    return function


@register
def click(index: Path, seed: int) -> Points:
    """The click of the official loader (`click_points`); the seed has no part in it.

    A mean outside [0, 1] is dropped and counted: no crop of the image can hold it, so the official loader
    gives it weight 0 at every step. Such clicks were not seen in the release, but nothing forbids them.
    """
    table = read_index(index, ["image_id", "selected", "click_xy"])
    rows, xy, without = click_points(table)
    inside = ((xy >= 0) & (xy <= 1)).all(axis=1)
    notes = {"selected_without_click": without, "out_of_range": int((~inside).sum())}
    return Points(table["image_id"].take(pa.array(rows[inside])), xy[inside], notes)


@register
def random(index: Path, seed: int) -> Points:
    """One uniform point for each image that has a click, fixed for the whole study by its seed.

    The point is a hash of seed and image_id (BLAKE2b; 24 bits for x, 24 for y, so that each is exact as
    float32 and below 1). It does not depend on the order or the presence of other images.
    ASSUME: random points are uniform over the whole image and the same in every epoch.
    """
    image_ids = click(index, seed).image_ids
    # [n] ids -> [n, 2] integers below 2**24
    words = np.array([_hashed(seed, image_id) for image_id in image_ids.to_pylist()], dtype=np.float64)
    return Points(image_ids, words.reshape(-1, 2) / 2**24, {"seed": seed})


@register
def centre(index: Path, seed: int) -> Points:
    """The middle of each image that has a click: what a model can learn from no byproduct at all."""
    image_ids = click(index, seed).image_ids
    return Points(image_ids, np.full((len(image_ids), 2), 0.5), {})


@register
def box(index: Path, seed: int) -> Points:
    """The middle of the largest ILSVRC box of each image that has one, clicked or not.

    A middle outside the image is dropped and counted.
    ASSUME: of several boxes the largest in pixels counts, since a click is on one object as well; every image with
    a box has a point, clicked or not, since this stands for full supervision.
    """
    table = read_index(index, ["image_id", "boxes", "width", "height"])
    table = table.filter(pc.and_(pc.greater(pc.list_value_length(table["boxes"]), 0), table["width"].is_valid()))
    largest = [max(boxes, key=_area) for boxes in table["boxes"].to_pylist()]
    corners = np.array(largest, dtype=np.float64).reshape(-1, 4)
    size = np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1)
    xy = (corners[:, :2] + corners[:, 2:] + 1) / 2 / size  # + 1: the maximum is inclusive
    inside = ((xy >= 0) & (xy <= 1)).all(axis=1)
    return Points(table["image_id"].filter(pa.array(inside)), xy[inside], {"out_of_range": int((~inside).sum())})


@register
def trace(index: Path, seed: int) -> Points:
    """The mean of the mouse trace over time, for the images that have a click, averaged over annotations.

    Each sample weighs half the time since the one before it plus half the time to the next (the trapezoid
    rule). A step longer than `LONGEST_STEP_MS` counts as that long, one of no or negative length as 0, so
    gaps, duplicate stamps and clocks set back do no harm; a trace of no length gets its plain mean.
    Samples outside [0, 1] are dropped and counted. Only selected annotations count.
    ASSUME: a trace's point is its time-weighted mean; the paper trains on clicks alone.
    """
    columns = ["image_id", "selected", "click_xy", "trace_xy", "trace_time_ms"]
    # Piece by piece: the traces of the whole release are gigabytes.
    pieces = [_mean_traces_of(piece) for piece in read_index_pieces(index, columns)]
    notes = {name: sum(piece.notes[name] for piece in pieces) for name in _TRACE_NOTES}
    image_ids = pa.chunked_array([piece.image_ids for piece in pieces], pa.string())
    return Points(image_ids, np.concatenate([np.empty((0, 2)), *(piece.xy for piece in pieces)]), notes)


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


def write_targets(index_parquet: Path, supervision: str, seed: int, parquet: Path, card: Path) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image_id, and their card.

    Args:
        index_parquet: The index of ImageNet-AB.
        supervision: A name in `TARGETS`, or "none": no points, an empty table.
        seed: The study's seed; the same for all runs, so that they share their points.
        parquet: Where the points go.
        card: Where their identity goes: supervision, n, sha256 (`ContentDigest`), notes.

    Raises:
        ConfigError: There is no such supervision.
        DataError: The index is absent or damaged.
    """
    if supervision != "none" and supervision not in TARGETS:
        known = ", ".join(["none", *TARGETS])
        raise ConfigError(f"supervision: expected one of {known}; found {supervision!r}.")
    points = _no_points() if supervision == "none" else TARGETS[supervision](index_parquet, seed)
    return write_points(_table(points), parquet, card, {"supervision": supervision, "notes": points.notes})


def read_targets(parquet: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Reads the points that `write_targets` wrote.

    Returns:
        image_ids [n], unique and sorted, and points [n, 2], fractions of the full image, x right, y down.

    Raises:
        DataError: The file is absent, is not such a file, or holds a point outside [0, 1] or an id twice.
    """
    table = read_points(parquet, SCHEMA)
    image_ids = table["image_id"].to_pylist()
    if any(after <= before for before, after in pairwise(image_ids)):
        raise DataError(f"{parquet}: expected image ids sorted and unique, found them otherwise. {ANEW}")
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    if not ((xy >= 0) & (xy <= 1)).all():
        raise DataError(f"{parquet}: expected x and y in [0, 1], found others. {ANEW}")
    return image_ids, xy


def write_points(table: pa.Table, parquet: Path, card: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the points of a supervision, of any dataset, and a card with their number and digest beside `about`."""
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd")
    digest = ContentDigest()
    digest.update(table)
    content = {"n": table.num_rows, "sha256": digest.hexdigest(), **about}
    write_json(card, content)
    return content


def read_points(parquet: Path, schema: pa.Schema) -> pa.Table:
    """Reads what `write_points` wrote.

    Raises:
        DataError: The file is absent, is not such a file, or has another schema.
    """
    try:
        table = pq.read_table(parquet)
        table.validate(full=True)
    except FileNotFoundError as error:
        raise DataError(f"{parquet}: expected the points of a supervision; run `luab targets` first.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{parquet}: expected points as Parquet, found something else ({error}). {ANEW}") from error
    if not table.schema.equals(schema):
        raise DataError(f"{parquet}: expected the columns {_columns(schema)}, found {_columns(table.schema)}. {ANEW}")
    return table


def _table(points: Points) -> pa.Table:
    x, y = points.xy.astype(np.float32).T
    return pa.table([points.image_ids, x, y], schema=SCHEMA).sort_by("image_id")


def _no_points() -> Points:
    return Points(pa.array([], pa.string()), np.empty((0, 2)), {})


def _hashed(seed: int, image_id: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=6).digest()
    return int.from_bytes(digest[:3], "little"), int.from_bytes(digest[3:], "little")


def _area(corners: list[int]) -> int:
    x0, y0, x1, y1 = corners
    return (x1 - x0 + 1) * (y1 - y0 + 1)


def _mean_traces(
    rows: NDArray[np.int64],
    annotations: NDArray[np.int64],
    xy: NDArray[np.float64],
    times_ms: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mean of each annotation's samples over time, then of each row's annotations."""
    if len(rows) == 0:
        return rows, xy
    # Annotations come in order: number those that are left from 0.
    _, first, number = np.unique(annotations, return_index=True, return_inverse=True)
    step = np.where(np.diff(number) == 0, np.clip(np.diff(times_ms), 0, LONGEST_STEP_MS), 0) / 2
    weights = np.concatenate([[0], step]) + np.concatenate([step, [0]])
    length = np.bincount(number, weights)
    weights = np.where(length[number] > 0, weights, 1.0)
    _, means = mean_by_row(number, xy, len(first), weights)
    return mean_by_row(rows[first], means, int(rows.max()) + 1)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
