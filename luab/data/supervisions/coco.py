"""Training points for COCO, one per image and tagged class: one function and one file per supervision.

A supervision is a function from `Sources` to `Tagged`; `COCO_TARGETS` lists them by name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from luab.byproducts.coco_ab import read_index
from luab.byproducts.icons import TAG_COLUMNS, added, last_records, left, rows_of
from luab.data.manifests.manifest import INSTANCES_SCHEMA, read_manifest_table
from luab.data.supervisions.makers import random_point, supervision_named
from luab.data.supervisions.point_files import CLASS_POINTS, TagPoints, coco_image_id, write_points
from luab.errors import DataError


class Sources(NamedTuple):
    """What supervisions are computed from: the index of COCO-AB, the manifest of coco_train, the seed of the study."""

    records: Path
    manifest: Path
    seed: int


class Tagged(NamedTuple):
    """Training points by image and class.

    notes: entries of the card, such as how many points were dropped and why.
    """

    points: TagPoints
    notes: dict[str, int]


Supervision = Callable[[Sources], Tagged]

COCO_TARGETS: dict[str, Supervision] = {}


def register(function: Supervision) -> Supervision:
    """Adds a function to `COCO_TARGETS` under its own name."""
    COCO_TARGETS[function.__name__] = function
    return function


@register
def click(sources: Sources) -> Tagged:
    """Returns the official loader's points: for each class the place where its icon was last added.

    Moves and removals are ignored, so a removed icon keeps its point. A later record of an image replaces an earlier
    one as a whole. Points outside [0, 1] are dropped and counted, since no crop can contain them.
    DEVIATES: points of a record without an image size (0 by 0: the page could not load the image) are dropped and
    counted; the official loader puts them all into the upper left corner.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    return _tagged(sources.records, added)


@register
def replayed(sources: Sources) -> Tagged:
    """Returns the place of each icon when the page was submitted.

    DEVIATES: this supervision of COCO, an alternative to the official rule (`click`), replays moves and removals: a
    moved icon has its last place, a removed one has none.
    """
    return _tagged(sources.records, left)


@register
def random(sources: Sources) -> Tagged:
    """Returns one uniform point for each class that has a point under `click`; the seed fixes it for the whole study.

    The point is a hash of seed, image_id and class (`random_point`).
    ASSUME: on COCO, too, random points are uniform over the whole image and the same in every epoch.
    """
    tags = click(sources).points
    points = {(image_id, label): random_point(f"{sources.seed}:{image_id}:{label}") for image_id, label in tags}
    return Tagged(points, {"seed": sources.seed})


@register
def centre(sources: Sources) -> Tagged:
    """Returns the centre of the image for each class that has a point under `click`."""
    return Tagged(dict.fromkeys(click(sources).points, (0.5, 0.5)), {})


@register
def box(sources: Sources) -> Tagged:
    """Returns the centre of the largest box of each class in each image, tagged or not: full supervision.

    A crowd counts only where its class has no other box.
    ASSUME: of several boxes of a class the largest in pixels counts, and an object before a crowd.
    """
    table = read_manifest_table(sources.manifest)
    if not table.schema.equals(INSTANCES_SCHEMA):
        raise DataError(f"{sources.manifest}: expected a manifest with several objects per image, found another.")
    names = ["image_id", "width", "height", "boxes", "box_labels", "box_crowd"]
    points: TagPoints = {}
    for row in rows_of(table.select(names)):
        best: dict[int, tuple[bool, int, list[int]]] = {}
        for corners, label, crowd in zip(row["boxes"], row["box_labels"], row["box_crowd"], strict=True):
            x0, y0, x1, y1 = corners
            candidate = (not crowd, (x1 - x0 + 1) * (y1 - y0 + 1), corners)
            if label not in best or candidate[:2] > best[label][:2]:
                best[label] = candidate
        for label, (_, _, (x0, y0, x1, y1)) in best.items():
            points[row["image_id"], label] = ((x0 + x1 + 1) / 2 / row["width"], (y0 + y1 + 1) / 2 / row["height"])
    return Tagged(points, {})


def write_coco_targets(
    index: Path, manifest: Path, supervision: str, seed: int, parquet: Path, card: Path
) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image and class, and their card.

    Arguments and errors as for `write_targets` of ImageNet; `manifest` is that of coco_train. The card also has the
    number of images.
    """
    function = supervision_named(supervision, COCO_TARGETS)
    points, notes = function(Sources(index, manifest, seed)) if function else Tagged({}, {})
    images = len({image_id for image_id, _ in points})
    return write_points(_table(points), parquet, card, {"supervision": supervision, "images": images, "notes": notes})


def _tagged(index: Path, rule: Callable[[Mapping[str, Any]], dict[int, list[float]]]) -> Tagged:
    """The points of the last record of each image; `rule` maps a record to a point for each class."""
    table = read_index(index, TAG_COLUMNS)
    last = last_records(table)
    earlier = table.num_rows - last.num_rows
    notes = {"earlier_records": earlier, "without_size": 0, "without_point": 0, "out_of_range": 0}
    points: TagPoints = {}
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
    return Tagged(points, notes)


def _table(points: TagPoints) -> pa.Table:
    tags = sorted(points)
    xy = np.array([points[tag] for tag in tags], dtype=np.float64).reshape(-1, 2)
    columns = [[image_id for image_id, _ in tags], [label for _, label in tags], xy[:, 0], xy[:, 1]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, CLASS_POINTS, strict=True)]
    return pa.table(arrays, schema=CLASS_POINTS)
