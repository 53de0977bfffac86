"""Manifests as files: the columns that list a dataset's images, and reading them back checked."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("labels", pa.list_(pa.int16())),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.int32(), 4))),
    ]
)
"""Columns of a manifest. Boxes are x0 y0 x1 y1 in source pixels; sizes are null unless lists give them."""

INSTANCES_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("box_labels", pa.list_(pa.int16())),
        ("box_crowd", pa.list_(pa.bool_())),
        ("box_areas", pa.list_(pa.float64())),
    ]
)
"""Columns of a manifest with several objects per image: class, crowd flag and area of the mask, px, for each box."""


_LEAVES = r"^/|(^|/)\.\.(/|$)|\x00"
"""A path that leaves the folder which it starts from."""


def read_manifest(parquet: Path | str) -> "pd.DataFrame":
    """Reads a manifest.

    Returns:
        Columns of `SCHEMA`, for COCO of `INSTANCES_SCHEMA`, in the order of image_id as text; labels and boxes are
        arrays per row, width and height are nullable Int32.

    Raises:
        DataError: The file is missing, damaged or has other columns, or a path leaves the data set's folder.
    """
    import pandas as pd

    return read_manifest_table(parquet).to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)


def read_manifest_table(parquet: Path | str) -> pa.Table:
    """`read_manifest` without pandas: the checked Arrow table. Raises DataError like it."""
    path = Path(parquet)
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # Arrow reads text that is none, and offsets beyond the values
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected this manifest; it is not there. Make it with `luab manifest`.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: expected a manifest, found a damaged file ({error}). Make it again.") from error
    if not (table.schema.equals(SCHEMA) or table.schema.equals(INSTANCES_SCHEMA)):
        raise DataError(
            f"{path}: expected the columns {_columns(SCHEMA)}, found {_columns(table.schema)}. Remove the file and "
            "make the manifest again."
        )
    _check_inside(table, path)
    return table


def _check_inside(table: pa.Table, path: Path) -> None:
    """No image lies outside: a list that others made could show any file of this machine to what reads images."""
    for column in ("path", "image_id"):
        leaves = pc.index(pc.match_substring_regex(table[column], _LEAVES), True).as_py()
        if leaves >= 0:
            raise DataError(
                f"{path}, row {leaves}: expected a {column} below the data set's folder, found "
                f"{table[column][leaves].as_py()!r}. Remove the file and make the manifest again; do not trust where "
                "it came from."
            )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)
