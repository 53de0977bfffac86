"""How precisely the tags of COCO-AB are placed: in a box or on a mask of their class, and how far from the centre."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as masks

from luab.byproducts.icons import rows_of
from luab.data.manifests.coco_masks import Size, annotated_masks
from luab.data.manifests.manifest import read_manifest_table
from luab.data.supervisions.coco import click
from luab.data.supervisions.makers import Sources
from luab.data.supervisions.point_files import coco_image_id

Tag = tuple[str, int]
"""image_id and class index."""
TagPoints = dict[Tag, tuple[float, float]]
"""The point of each tag: x right, y down, fractions of the whole image, in [0, 1]."""


def aim_of_tags(index: Path, manifest: Path, instances: Path) -> dict[str, NDArray[Any]]:
    """Checks the points of `luab.data.supervisions.coco.click` against the objects of their class.

    Only tags of a class that the image has are checked; the centre of the image is checked for the same tags.
    ASSUME: an icon on a crowd is right, so boxes and masks of crowds count like others.

    Returns:
        tags_in_box, centre_in_box, tags_in_mask: bool; tag_to_centre_mean: distance to (0.5, 0.5) in fractions of the
        image. Each has one entry per tag.

    Raises:
        DataError: A file is missing or damaged.
    """
    points: TagPoints = {
        (point.image_id, point.label or 0): (point.x, point.y) for point in click(Sources(index, manifest)).points
    }
    in_box = points_in_boxes(manifest, points)
    right: TagPoints = {tag: points[tag] for tag in in_box}
    centre = points_in_boxes(manifest, dict.fromkeys(right, (0.5, 0.5)))
    xy = np.array(list(right.values()), dtype=np.float64).reshape(-1, 2)
    return {
        "tags_in_box": _array(in_box),
        "centre_in_box": _array(centre),
        "tags_in_mask": _array(points_in_masks(instances, manifest, right)),
        "tag_to_centre_mean": np.hypot(*(xy - 0.5).T),
    }


def points_in_boxes(manifest: Path, points: TagPoints) -> dict[Tag, bool]:
    """Returns whether each point is in a box of its class in its image, for the classes that the image has.

    A point is in a box if the pixel under it is, with both ends of the box included.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    inside: dict[Tag, bool] = {}
    columns = ["image_id", "width", "height", "boxes", "box_labels"]
    for row in rows_of(read_manifest_table(manifest).select(columns)):
        for (x0, y0, x1, y1), label in zip(row["boxes"], row["box_labels"], strict=True):
            tag = row["image_id"], label
            if tag in points:
                column, line = _pixel(points[tag], (row["width"], row["height"]))
                inside[tag] = inside.get(tag, False) or (x0 <= column <= x1 and y0 <= line <= y1)
    return inside


def points_in_masks(instances: Path, manifest: Path, points: TagPoints) -> dict[Tag, bool]:
    """Returns whether each point is on a mask of its class in its image, for the classes that the image has.

    The pixel under the point decides. Masks are read as a stream; sizes come from the manifest.

    Raises:
        DataError: A file is damaged; a mask is neither polygons nor run lengths that fit the image.
    """
    rows = rows_of(read_manifest_table(manifest).select(["image_id", "width", "height"]))
    sizes = {int(row["image_id"][-12:]): (row["width"], row["height"]) for row in rows}
    hits: dict[Tag, bool] = {}
    for mask in annotated_masks(instances, sizes):
        tag = coco_image_id(mask.number), mask.label
        if tag in points:
            hits[tag] = hits.get(tag, False) or _is_on(mask.run_lengths(), points[tag], mask.size_wh)
    return hits


def _pixel(point_xy: tuple[float, float], size_wh: Size) -> tuple[int, int]:
    """Column and line of the pixel under a point; the far edges of the image belong to its last pixels."""
    (x, y), (width, height) = point_xy, size_wh
    return min(int(x * width), width - 1), min(int(y * height), height - 1)


def _is_on(pieces: list[Any], point_xy: tuple[float, float], size_wh: Size) -> bool:
    """Whether a point, given as fractions of the image, lies on a mask of several pieces."""
    width, height = size_wh
    column, line = _pixel(point_xy, size_wh)
    before = column * height + line  # run lengths go column by column
    pixel = {"counts": [before, 1, width * height - before - 1], "size": [height, width]}
    overlap = masks.merge([masks.merge(pieces), masks.frPyObjects(pixel, height, width)], intersect=True)
    return bool(masks.area(overlap))


def _array(values: dict[Tag, bool]) -> NDArray[np.bool_]:
    return np.fromiter(values.values(), dtype=bool, count=len(values))
