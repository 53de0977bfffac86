"""From the index of COCO-AB to the points that a model is taught, one for each class tagged: one file per supervision.

The file has the columns image_id, class, x and y, one row per image and class, sorted::

    COCO_train2014_000000459214, 41, 0.5839524517087668, 0.5888888888888889

A supervision is one function from `Tags` to points, entered in `COCO_TARGETS` by its name.
"""

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from luab.byproducts.coco_ab import read_index
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.byproducts.icons import TAG_COLUMNS, added, last_records, left, rows_of
from luab.data.manifests.manifest import INSTANCES_SCHEMA, read_manifest_table
from luab.data.supervisions.imagenet import ANEW, read_points, write_points
from luab.errors import ConfigError, DataError

Tag = tuple[str, int]
"""image_id and class index."""
Points = dict[Tag, tuple[float, float]]
"""Of each tag: x right, y down, fractions of the whole image, in [0, 1]."""

# Doubles: the official loader cuts fraction x size to whole pixels, and a fraction rounded to a float would fall to the
# pixel before.
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class", pa.int16(), nullable=False, metadata={"doc": "0 to 79, by ascending category id"}),
        pa.field("x", pa.float64(), nullable=False, metadata={"doc": "fraction of the full image, to the right"}),
        pa.field("y", pa.float64(), nullable=False, metadata={"doc": "fraction of the full image, downwards"}),
    ]
)


class Sources(NamedTuple):
    """What supervisions are made from: the index of COCO-AB, the manifest of coco_train, the study's seed."""

    records: Path
    manifest: Path
    seed: int


class ClassPoints(NamedTuple):
    """Points of one image.

    labels: int [n] class indices, ascending. xy: float64 [n, 2] fractions of the full image, x right, y down.
    """

    labels: NDArray[np.int16]
    xy: NDArray[np.float64]


class Found(NamedTuple):
    """Points, and for the card how many were left out and why, or what the points depend on."""

    points: Points
    notes: dict[str, int]


COCO_TARGETS: dict[str, Callable[[Sources], Found]] = {}


def register(function: Callable[[Sources], Found]) -> Callable[[Sources], Found]:
    """Enters a function in `COCO_TARGETS` under its own name."""
    COCO_TARGETS[function.__name__] = function
    return function


@register
def click(sources: Sources) -> Found:
    """The official loader's points: of each class the last place that its icon was added at.

    Moves and removals have no say, so a removed icon keeps its point. A later record of an image overrules an earlier
    one as a whole. Points outside [0, 1] are dropped and counted: no crop can hold them.
    DEVIATES: points of a record without an image size (0 by 0: the page could not load the image) are dropped and
    counted; the official loader puts them all into the upper left corner.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    return _tagged(sources.records, added)


@register
def replayed(sources: Sources) -> Found:
    """Where each icon was when the page was submitted.

    DEVIATES: this supervision of COCO, an option beside the official rule (`click`), replays moves and removals: a
    moved icon has its last place, a removed one has none.
    """
    return _tagged(sources.records, left)


@register
def random(sources: Sources) -> Found:
    """One uniform point for each class that `click` has a point of, fixed for the whole study by its seed.

    The point is a hash of seed, image_id and class (BLAKE2b; 24 bits for x, 24 for y).
    ASSUME: on COCO, too, random points are uniform over the whole image and the same in every epoch.
    """
    points = {tag: _hashed(sources.seed, *tag) for tag in click(sources).points}
    return Found(points, {"seed": sources.seed})


@register
def centre(sources: Sources) -> Found:
    """The middle of the image for each class that `click` has a point of."""
    return Found(dict.fromkeys(click(sources).points, (0.5, 0.5)), {})


@register
def box(sources: Sources) -> Found:
    """The middle of the largest box of each class of each image, tagged or not: what full supervision would give.

    Crowds are left out where a class has other boxes.
    ASSUME: of several boxes of a class the largest in pixels counts, and an object before a crowd.
    """
    table = read_manifest_table(sources.manifest)
    if not table.schema.equals(INSTANCES_SCHEMA):
        raise DataError(f"{sources.manifest}: expected a manifest with several objects per image, found another.")
    names = ["image_id", "width", "height", "boxes", "box_labels", "box_crowd"]
    points: Points = {}
    for row in rows_of(table.select(names)):
        best: dict[int, tuple[bool, int, list[int]]] = {}
        for corners, label, crowd in zip(row["boxes"], row["box_labels"], row["box_crowd"], strict=True):
            x0, y0, x1, y1 = corners
            candidate = (not crowd, (x1 - x0 + 1) * (y1 - y0 + 1), corners)
            if label not in best or candidate[:2] > best[label][:2]:
                best[label] = candidate
        for label, (_, _, (x0, y0, x1, y1)) in best.items():
            points[row["image_id"], label] = ((x0 + x1 + 1) / 2 / row["width"], (y0 + y1 + 1) / 2 / row["height"])
    return Found(points, {})


def write_coco_targets(
    index: Path, manifest: Path, supervision: str, seed: int, parquet: Path, card: Path
) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image and class, and their card.

    Args:
        index: The index of COCO-AB.
        manifest: The manifest of coco_train.
        supervision: A name in `COCO_TARGETS`, or "none": no points, an empty table.
        seed: The study's seed; the same for all runs, so that they share their points.
        parquet: Where the points go.
        card: Where their identity goes: supervision, n, images, sha256 (`ContentDigest`), notes.

    Raises:
        ConfigError: There is no such supervision.
        DataError: Index or manifest is absent or damaged.
    """
    if supervision != "none" and supervision not in COCO_TARGETS:
        known = ", ".join(["none", *COCO_TARGETS])
        raise ConfigError(f"supervision: expected one of {known}; found {supervision!r}.")
    found = Found({}, {}) if supervision == "none" else COCO_TARGETS[supervision](Sources(index, manifest, seed))
    images = len({image_id for image_id, _ in found.points})
    about = {"supervision": supervision, "images": images, "notes": found.notes}
    return write_points(_table(found.points), parquet, card, about)


def read_coco_targets(parquet: Path) -> dict[str, ClassPoints]:
    """Reads the points that `write_coco_targets` wrote, by image_id, for the images that have any.

    Raises:
        DataError: The file is absent, is not such a file, or holds a point outside [0, 1], a class beyond 79, or rows
            that are not sorted and unique.
    """
    table = read_points(parquet, SCHEMA)
    image_ids, labels = table["image_id"].to_pylist(), table["class"].to_numpy()
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    if not ((labels >= 0) & (labels < len(COCO_CLASSES))).all() or not ((xy >= 0) & (xy <= 1)).all():
        raise DataError(f"{parquet}: expected classes 0 to 79 and x and y in [0, 1], found others. {ANEW}")
    if any(after <= before for before, after in pairwise(zip(image_ids, labels, strict=True))):
        raise DataError(f"{parquet}: expected rows sorted by image and class and unique, found others. {ANEW}")
    starts = [row for row, name in enumerate(image_ids) if row == 0 or name != image_ids[row - 1]]
    return {
        image_ids[start]: ClassPoints(labels[start:end], xy[start:end])
        for start, end in pairwise([*starts, len(image_ids)])
    }


def coco_image_id(number: int) -> str:
    """The manifest's name of a training image, which COCO-AB knows by its official number."""
    return f"COCO_train2014_{number:012d}"


def _tagged(index: Path, rule: Callable[[Mapping[str, Any]], dict[int, list[float]]]) -> Found:
    """Points of the last record of each image by a rule from record to points."""
    table = read_index(index, TAG_COLUMNS)
    last = last_records(table)
    earlier = table.num_rows - last.num_rows
    notes = {"earlier_records": earlier, "without_size": 0, "without_point": 0, "out_of_range": 0}
    points: Points = {}
    for record in rows_of(last):
        tags = rule(record)
        if not record["width"] or not record["height"]:
            notes["without_size"] += len(tags)
            continue
        for label, (x, y) in tags.items():
            if np.isnan(x):
                notes["without_point"] += 1
            elif not (0 <= x <= 1 and 0 <= y <= 1):
                notes["out_of_range"] += 1
            else:
                points[coco_image_id(record["image_id"]), label] = (x, y)
    return Found(points, notes)


def _hashed(seed: int, image_id: str, label: int) -> tuple[float, float]:
    digest = hashlib.blake2b(f"{seed}:{image_id}:{label}".encode(), digest_size=6).digest()
    return int.from_bytes(digest[:3], "little") / 2**24, int.from_bytes(digest[3:], "little") / 2**24


def _table(points: Points) -> pa.Table:
    tags = sorted(points)
    xy = np.array([points[tag] for tag in tags], dtype=np.float64).reshape(-1, 2)
    columns = [[image_id for image_id, _ in tags], [label for _, label in tags], xy[:, 0], xy[:, 1]]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
