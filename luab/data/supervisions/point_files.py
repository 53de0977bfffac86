"""The files that hold the points of a supervision, one table for each supervision: how they are written and read.

ImageNet has at most one point per image, in the columns image_id, x and y, sorted by image::

    n01440764_10027, 0.65, 0.61333

COCO has at most one point per image and class, in the columns image_id, class, x and y, sorted by image and class::

    COCO_train2014_000000459214, 41, 0.5839524517087668, 0.5888888888888889
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.byproducts.digest import ContentDigest
from luab.data.manifests.manifest import read_checked
from luab.errors import DataError
from luab.files import replacing, write_json

Tag = tuple[str, int]
"""image_id and class index."""
TagPoints = dict[Tag, tuple[float, float]]
"""The point of each tag: x right, y down, fractions of the whole image, in [0, 1]."""

_X = {"doc": "fraction of the full image, to the right"}
_Y = {"doc": "fraction of the full image, downwards"}

IMAGE_POINTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("x", pa.float32(), nullable=False, metadata=_X),
        pa.field("y", pa.float32(), nullable=False, metadata=_Y),
    ]
)

# Doubles: the official loader rounds fraction x size down to whole pixels, and a fraction stored as a 32-bit float
# could end up one pixel too low.
CLASS_POINTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class", pa.int16(), nullable=False, metadata={"doc": "0 to 79, by ascending category id"}),
        pa.field("x", pa.float64(), nullable=False, metadata=_X),
        pa.field("y", pa.float64(), nullable=False, metadata=_Y),
    ]
)

_AGAIN = "Remove it and run `luab targets` again."


class ClassPoints(NamedTuple):
    """Points of one image.

    labels: int [n] class indices, ascending. xy: float64 [n, 2] fractions of the full image, x right, y down.
    """

    labels: NDArray[np.int16]
    xy: NDArray[np.float64]


def coco_image_id(number: int) -> str:
    """Returns the manifest's name of a training image, from the official image number that COCO-AB uses."""
    return f"COCO_train2014_{number:012d}"


def write_points(table: pa.Table, parquet: Path, card: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Writes a table of points and its card: number of points (n), sha256 of the content, and the entries of `about`.

    Args:
        table: Has the schema `IMAGE_POINTS` or `CLASS_POINTS`, sorted.
        parquet: Output file for the points.
        card: Output file for the card.
        about: Further entries of the card.

    Returns:
        The content of the card.
    """
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
    digest = ContentDigest()
    digest.update(table)
    content = {"n": table.num_rows, "sha256": digest.hexdigest(), **about}
    write_json(card, content)
    return content


def read_image_points(parquet: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Reads the points of a supervision on ImageNet.

    Returns:
        image_ids [n], unique and sorted, and points [n, 2], fractions of the full image, x right, y down.

    Raises:
        DataError: The file is missing, is not such a file, has unsorted or repeated ids, or a point outside [0, 1].
    """
    (image_ids,), xy = _read(parquet, IMAGE_POINTS)
    return image_ids, xy


def read_class_points(parquet: Path) -> dict[str, ClassPoints]:
    """Reads the points of a supervision on COCO, by image_id; images without points are left out.

    Raises:
        DataError: The file is missing, is not such a file, has unsorted or repeated rows, a point outside [0, 1], or a
            class above 79.
    """
    (image_ids, classes), xy = _read(parquet, CLASS_POINTS)
    labels = np.array(classes, np.int16)
    if not ((labels >= 0) & (labels < len(COCO_CLASSES))).all():
        raise DataError(f"{parquet}: expected classes 0 to 79, found others. {_AGAIN}")
    starts = [row for row, name in enumerate(image_ids) if row == 0 or name != image_ids[row - 1]]
    return {
        image_ids[start]: ClassPoints(labels[start:end], xy[start:end])
        for start, end in pairwise([*starts, len(image_ids)])
    }


def _read(parquet: Path, schema: pa.Schema) -> tuple[list[list[Any]], NDArray[Any]]:
    """Reads and checks a table of points; returns image_id, class if any, and points [n, 2]."""
    table = read_checked(parquet, "the points of a supervision", "luab targets", schema)
    *names, _, _ = schema.names
    keys = [table[name].to_pylist() for name in names]
    if any(after <= before for before, after in pairwise(zip(*keys, strict=True))):
        raise DataError(f"{parquet}: expected unique rows, sorted by {' and '.join(names)}; they are not. {_AGAIN}")
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    if not ((xy >= 0) & (xy <= 1)).all():
        raise DataError(f"{parquet}: expected x and y in [0, 1], found values outside. {_AGAIN}")
    return keys, xy
