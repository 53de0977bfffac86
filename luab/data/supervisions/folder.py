"""Training points for your own images, from their byproducts: at most one point per image.

Held-out images have points too, which predictions are compared with; training reads those of its own images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from luab.byproducts.folder_ab import read_index
from luab.data.manifests.manifest import read_manifest_table
from luab.data.manifests.tree import Entry
from luab.data.own_points import own_points
from luab.data.supervisions.imagenet import Points
from luab.data.supervisions.makers import random_point, supervision_named
from luab.data.supervisions.point_files import IMAGE_POINTS, write_points
from luab.files import read_fields


class Sources(NamedTuple):
    """What supervisions are computed from.

    records: index of the byproducts. manifests: of training and held-out images. root: folder of the images. unit: of
    the points. skip_bad: whether rows that fit no image are counted instead of refused. seed: of the study.
    """

    records: Path
    manifests: tuple[Path, ...]
    root: Path
    unit: str
    skip_bad: bool
    seed: int


def entries(manifest: Path) -> list[Entry]:
    """The rows of a manifest; DataError if it is missing or damaged."""
    return [Entry(**row) for row in read_manifest_table(manifest).to_pylist()]


def click(sources: Sources) -> Points:
    """Returns the mean of each image's points, with the same weight for each row of the table."""
    names = read_fields(sources.manifests[0].with_suffix(".json"), ("names",))["names"]
    images = [entry for manifest in sources.manifests for entry in entries(manifest)]
    found = own_points(read_index(sources.records), images, names, sources.root, sources.unit, sources.skip_bad)
    xy = np.array([found.xy[rows].mean(axis=0) for rows in found.rows.values()]).reshape(-1, 2)
    return Points(pa.array(list(found.rows), pa.string()), xy, found.notes)


def random(sources: Sources) -> Points:
    """Returns one uniform point for each image that has a point under `click`; the seed fixes it for the study."""
    image_ids = click(sources).image_ids
    xy = [random_point(f"{sources.seed}:{image_id}") for image_id in image_ids.to_pylist()]
    return Points(image_ids, np.array(xy).reshape(-1, 2), {"seed": sources.seed})


def centre(sources: Sources) -> Points:
    """Returns the centre of each image that has a point under `click`."""
    image_ids = click(sources).image_ids
    return Points(image_ids, np.full((len(image_ids), 2), 0.5), {})


def box(sources: Sources) -> Points:
    """Returns the centre of the largest box of each image that has one."""
    image_ids, xy = [], []
    for entry in (entry for manifest in sources.manifests for entry in entries(manifest) if entry.boxes):
        x0, y0, x1, y1 = max(entry.boxes, key=lambda b: (b[2] - b[0] + 1) * (b[3] - b[1] + 1))
        image_ids.append(entry.image_id)
        width, height = entry.width or 1, entry.height or 1  # manifests of own images have sizes
        xy.append(((x0 + x1 + 1) / 2 / width, (y0 + y1 + 1) / 2 / height))
    return Points(pa.array(image_ids, pa.string()), np.array(xy).reshape(-1, 2), {})


TARGETS: dict[str, Callable[[Sources], Points]] = {f.__name__: f for f in (click, random, centre, box)}


def write_folder_targets(sources: Sources, supervision: str, parquet: Path, card: Path) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image_id, and their card, as `write_targets` of ImageNet."""
    function = supervision_named(supervision, TARGETS)
    points = function(sources) if function else Points(pa.array([], pa.string()), np.empty((0, 2)), {})
    x, y = points.xy.astype(np.float32).T
    table = pa.table([points.image_ids, x, y], schema=IMAGE_POINTS).sort_by("image_id")
    return write_points(table, parquet, card, {"supervision": supervision, "notes": points.notes})
