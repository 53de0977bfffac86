"""The files of training points, one for each kind of points and noise: how they are written and read.

All data sets have the columns image_id, class, x and y, sorted by image and class. The class is null where an image has
one point for all classes, as on ImageNet::

    n01440764_10027, null, 0.65, 0.61333

COCO has at most one point per image and class::

    COCO_train2014_000000459214, 41, 0.5839524517087668, 0.5888888888888889

Some uses of byproducts need one of the further columns in `EXTRAS`.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luab.byproducts.digest import ContentDigest
from luab.data.manifests.manifest import read_checked
from luab.errors import DataError
from luab.files import replacing, write_json
from luab.study.noises import Point

if TYPE_CHECKING:
    import pandas as pd

# Doubles: the official loader of COCO rounds fraction x size down to whole pixels, and a fraction stored as a 32-bit
# float could end up one pixel too low.
TARGETS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class", pa.int16(), metadata={"doc": "index of the class; null for one point per image"}),
        pa.field("x", pa.float64(), nullable=False, metadata={"doc": "fraction of the full image, to the right"}),
        pa.field("y", pa.float64(), nullable=False, metadata={"doc": "fraction of the full image, downwards"}),
    ]
)

MOMENTS = 32
"""Points of a trace, at equal intervals of time."""

TRACES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("moments", pa.list_(pa.list_(pa.float32(), 2 * MOMENTS)), metadata={"doc": "of each person's trace"}),
    ]
)
"""Columns of the file of held-out traces."""

EXTRAS = {
    "time_ms": pa.field("time_ms", pa.float64(), nullable=False, metadata={"doc": "time spent on the image"}),
    "moments": pa.field(
        "moments",
        pa.list_(pa.float32(), 2 * MOMENTS),
        nullable=False,
        metadata={"doc": "x y of each moment of a trace"},
    ),
}
"""Further columns, by name (`Supervision.column`)."""

_NO_CLASS = -1
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


def write_points(
    points: Iterable[Point], parquet: Path, card: Path, about: dict[str, Any], column: str | None = None
) -> dict[str, Any]:
    """Writes points, sorted by image and class, and their card.

    Args:
        points: At most one per image and label.
        parquet: Output file for the points.
        card: Output file for the card: numbers of points (n) and images, sha256 of the content (`ContentDigest`).
        about: Further entries of the card.
        column: The one of `EXTRAS` that `Point.extra` is written to; None for none.

    Returns:
        The content of the card.
    """
    rows = sorted(points, key=_key)
    schema = TARGETS_SCHEMA if column is None else TARGETS_SCHEMA.append(EXTRAS[column])
    columns = list(zip(*rows, strict=True))[: len(schema)] or [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    images = len({point.image_id for point in rows})
    return _write(pa.table(arrays, schema=schema), parquet, card, {"images": images, **about})


def write_traces(traces: Mapping[str, Sequence[NDArray[np.float32]]], parquet: Path, card: Path) -> dict[str, Any]:
    """Writes moments of traces, [`MOMENTS` * 2] of each person by image, sorted by image, and their card."""
    names = sorted(traces)
    arrays = [names, [[list(map(float, one)) for one in traces[name]] for name in names]]
    about = {"people": sum(map(len, traces.values())), "several": sum(len(of) > 1 for of in traces.values())}
    return _write(pa.table(arrays, schema=TRACES_SCHEMA), parquet, card, about)


def _write(table: pa.Table, parquet: Path, card: Path, about: dict[str, Any]) -> dict[str, Any]:
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
    digest = ContentDigest()
    digest.update(table)
    content = {"n": table.num_rows, **about, "sha256": digest.hexdigest()}
    write_json(card, content)
    return content


def read_image_points(parquet: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Reads the points of a data set with one point per image.

    Returns:
        image_ids [n], unique and sorted, and points [n, 2], fractions of the full image, x right, y down.

    Raises:
        DataError: The file is missing, is not such a file, has unsorted or repeated rows, a point outside [0, 1], or a
            point of one class.
    """
    image_ids, labels, xy, _ = _read(parquet)
    if (labels != _NO_CLASS).any():
        raise DataError(f"{parquet}: expected one point per image, found points of single classes. {_AGAIN}")
    return image_ids, xy.astype(np.float32)


def read_extra(parquet: Path, column: str) -> tuple[list[str], NDArray[np.float32]]:
    """Reads a further column of a data set with one point per image.

    Returns:
        image_ids [n], unique and sorted, and values: "time_ms" [n], at least 0; "moments" [n, `MOMENTS`, 2], fractions
        of the full image, x right, y down.

    Raises:
        DataError: As for `read_image_points`; or the file lacks this column, or has a value outside its range.
    """
    image_ids, _, _, table = _read(parquet)
    if column not in table.column_names:
        raise DataError(f"{parquet}: expected the column {column}, found {', '.join(table.column_names)}. {_AGAIN}")
    lists = table[column].combine_chunks()
    moments = column == "moments"
    values = lists.flatten().to_numpy().reshape(-1, MOMENTS, 2) if moments else lists.to_numpy().astype(np.float32)
    if not ((values >= 0) & (values <= (1 if moments else np.inf))).all():
        raise DataError(f"{parquet}: expected {column} of at least 0{', at most 1' * moments}, found others. {_AGAIN}")
    return image_ids, values


def read_any_points(targets: "Path | str | pd.DataFrame") -> tuple[list[str], NDArray[np.float32]]:
    """Points of a file that luab wrote, of one that pandas wrote, or of a DataFrame; see the two functions below."""
    if not isinstance(targets, (Path, str)):
        return points_in_table(targets)
    path = Path(targets)
    with contextlib.suppress(OSError, pa.ArrowException):  # `read_image_points` says what is wrong with the file
        if b"pandas" in (pq.read_schema(path).metadata or {}):
            table = pq.read_table(path).to_pandas()
            return points_in_table(table if "image_id" in table.columns else table.reset_index(), str(path))
    return read_image_points(path)


def points_in_table(table: "pd.DataFrame", name: str = "targets") -> tuple[list[str], NDArray[np.float32]]:
    """Points of a DataFrame with the columns image_id, x and y; returns and raises the same as `read_image_points`.

    The rows may be in any order; those without x or y are left out. Errors call the table `name`.
    """
    if missing := [column for column in ("image_id", "x", "y") if column not in table.columns]:
        raise DataError(f"{name}: no column {', '.join(missing)}; found {', '.join(map(str, table.columns))}.")
    table = table.dropna(subset=["x", "y"])
    if repeated := sorted(map(str, table["image_id"][table["image_id"].duplicated()].unique())):
        raise DataError(f"{name}: expected one point per image, found several for {', '.join(repeated[:5])}.")
    xy = table[["x", "y"]].to_numpy(dtype=np.float64)
    if bad := int((~((xy >= 0) & (xy <= 1)).all(axis=1)).sum()):
        raise DataError(f"{name}: expected x and y in [0, 1], as fractions of the image; found {bad:,} points outside.")
    return table["image_id"].astype(str).tolist(), xy.astype(np.float32)


def read_class_points(parquet: Path, classes: int) -> dict[str, ClassPoints]:
    """Reads the points of a data set with a point per class, by image_id; images without points are left out.

    Raises:
        DataError: The file is missing, is not such a file, has unsorted or repeated rows, a point outside [0, 1], or a
            point without a class or with one that is not below `classes`.
    """
    image_ids, labels, xy, _ = _read(parquet)
    if not ((labels >= 0) & (labels < classes)).all():
        raise DataError(f"{parquet}: expected classes 0 to {classes - 1}, found others. {_AGAIN}")
    starts = [row for row, name in enumerate(image_ids) if row == 0 or name != image_ids[row - 1]]
    return {
        image_ids[start]: ClassPoints(labels[start:end], xy[start:end])
        for start, end in pairwise([*starts, len(image_ids)])
    }


def _read(parquet: Path) -> tuple[list[str], NDArray[np.int16], NDArray[np.float64], pa.Table]:
    """Reads and checks a file of points; returns image ids, classes (-1 for none), points [n, 2] and the table."""
    schemas = (TARGETS_SCHEMA, *map(TARGETS_SCHEMA.append, EXTRAS.values()))
    table = read_checked(parquet, "the points of a supervision", "luab targets", *schemas)
    image_ids, classes = table["image_id"].to_pylist(), table["class"].fill_null(_NO_CLASS)
    if any(after <= before for before, after in pairwise(zip(image_ids, classes.to_pylist(), strict=True))):
        raise DataError(f"{parquet}: expected unique rows, sorted by image_id and class; they are not. {_AGAIN}")
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    if not ((xy >= 0) & (xy <= 1)).all():
        raise DataError(f"{parquet}: expected x and y in [0, 1], found values outside. {_AGAIN}")
    return image_ids, classes.to_numpy(), xy, table


def _key(point: Point) -> tuple[str, int]:
    return point.image_id, _NO_CLASS if point.label is None else point.label
