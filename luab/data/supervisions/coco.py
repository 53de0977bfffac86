"""Training points for COCO, computed from the index of COCO-AB: one per image and class."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as masks

from luab.byproducts.coco_ab import read_index
from luab.byproducts.icons import TAG_COLUMNS, added, last_records, left, rows_of
from luab.data.manifests.coco_masks import annotated_masks, pixels_of
from luab.data.manifests.manifest import INSTANCES_SCHEMA, read_manifest_table
from luab.data.supervisions.makers import Byproducts, Made, Maker, Sources, Worker, area_of, centre_of
from luab.data.supervisions.point_files import coco_image_id
from luab.errors import DataError
from luab.study.noises import Point

INSTANCES = "annotations/instances_train2014.json"
"""Official annotations of the training images, below their folder."""

MAKERS: dict[str, Maker] = {}


def register(function: Maker) -> Maker:
    """Adds a function to `MAKERS` under its own name."""
    MAKERS[function.__name__] = function
    return function


@register
def click(sources: Sources) -> Made:
    """Returns the official loader's points: for each class the place where its icon was last added.

    Moves and removals are ignored, so a removed icon keeps its point. A later record of an image replaces an earlier
    one as a whole. Points outside [0, 1] are dropped and counted, since no crop can contain them.
    DEVIATES: points of a record without an image size (0 by 0: the page could not load the image) are dropped and
    counted; the official loader puts them all into the upper left corner.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    return _tagged(sources, added)


@register
def replayed(sources: Sources) -> Made:
    """Returns the place of each icon when the page was submitted.

    DEVIATES: this supervision of COCO, an alternative to the official rule (`click`), replays moves and removals: a
    moved icon has its last place, a removed one has none.
    """
    return _tagged(sources, left)


@register
def box(sources: Sources) -> Made:
    """Returns the centre of the largest box of each class in each image, tagged or not: full supervision.

    A crowd counts only where its class has no other box.
    ASSUME: of several boxes of a class the largest in pixels counts, and an object before a crowd.
    """
    table = read_manifest_table(sources.manifest)
    if not table.schema.equals(INSTANCES_SCHEMA):
        raise DataError(f"{sources.manifest}: expected a manifest with several objects per image, found another.")
    names = ["image_id", "width", "height", "boxes", "box_labels", "box_crowd"]
    points = []
    for row in rows_of(table.select(names)):
        best: dict[int, tuple[bool, int, list[int]]] = {}
        for corners, label, crowd in zip(row["boxes"], row["box_labels"], row["box_crowd"], strict=True):
            candidate = (not crowd, area_of(corners), corners)
            if label not in best or candidate[:2] > best[label][:2]:
                best[label] = candidate
        for label, (_, _, corners) in best.items():
            points.append(Point(row["image_id"], label, *centre_of(corners, row["width"], row["height"])))
    return Made(points, {})


@register
def mask(sources: Sources) -> Made:
    """Returns the centroid of the largest mask of each class in each image, tagged or not: full supervision.

    Crowds count as in `box`. The centroid of a ring or a crescent lies off its mask.
    ASSUME: of several masks of a class the largest in pixels counts, and an object before a crowd.
    """
    if sources.images is None:
        raise DataError("The points `mask` need the folder of COCO's images, which holds annotations/; none was given.")
    rows = rows_of(read_manifest_table(sources.manifest).select(["image_id", "width", "height"]))
    sizes = {int(row["image_id"][-12:]): (row["width"], row["height"]) for row in rows}
    best: dict[tuple[int, int], tuple[bool, int, tuple[float, float]]] = {}
    for annotated in annotated_masks(sources.images / INSTANCES, sizes):
        pixels = pixels_of(masks.merge(annotated.run_lengths()), annotated.size_wh)
        candidate = (not annotated.is_crowd, int(pixels.sum()))
        tag = annotated.number, annotated.label
        if candidate[1] and (tag not in best or candidate > best[tag][:2]):
            best[tag] = (*candidate, _centroid(pixels))
    return Made([Point(coco_image_id(number), label, *xy) for (number, label), (*_, xy) in best.items()], {})


def classes(sources: Sources) -> Mapping[str, Hashable]:
    """Empty: every point of COCO has a label."""
    return {}


def workers(sources: Sources) -> Mapping[str, Worker]:
    """Returns the time and recall of each worker.

    The time is the mean time that a page was open. The recall is the share of the images' classes that were tagged,
    over all images of a worker that the manifest lists; None if it lists none of them.
    """
    images = read_manifest_table(sources.manifest).select(["image_id", "labels"]).to_pylist()
    labels_of = {image["image_id"]: set(image["labels"]) for image in images}
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])  # pages, ms, tagged, classes
    for record in rows_of(read_index(sources.index, [*TAG_COLUMNS, "worker_id", "time_spent_ms"])):
        if record["worker_id"]:
            labels = labels_of.get(coco_image_id(record["image_id"]), set())
            found = (1, record["time_spent_ms"] or 0, len(labels & added(record).keys()), len(labels))
            sums[record["worker_id"]] = [a + b for a, b in zip(sums[record["worker_id"]], found, strict=True)]
    return {name: Worker(ms / n, right / of if of else None) for name, (n, ms, right, of) in sums.items()}


BYPRODUCTS = Byproducts(MAKERS, classes, workers)


def _centroid(pixels: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean place of the pixels [height, width] that are set, as fractions x, y of the image."""
    lines, columns = np.nonzero(pixels)
    height, width = pixels.shape
    return float(columns.mean() + 0.5) / width, float(lines.mean() + 0.5) / height


def _tagged(sources: Sources, rule: Callable[[Mapping[str, Any]], dict[int, list[float]]]) -> Made:
    """The points of the last record of each image; `rule` maps a record to a point for each class."""
    if sources.workers is None:
        table = read_index(sources.index, TAG_COLUMNS)
    else:
        table = read_index(sources.index, [*TAG_COLUMNS, "worker_id"])
        table = table.filter(pc.is_in(table["worker_id"], pa.array(sorted(sources.workers), pa.string())))
    last = last_records(table)
    earlier = table.num_rows - last.num_rows
    notes = {"earlier_records": earlier, "without_size": 0, "without_point": 0, "out_of_range": 0}
    points = []
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
                points.append(Point(coco_image_id(record["image_id"]), label, x, y))
    return Made(points, notes)
