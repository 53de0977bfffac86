"""Manifest files: the columns that list a data set's images, and reading with checks."""

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
"""Columns of a manifest. Boxes are x0 y0 x1 y1 in pixels of the file; sizes are null unless a list has them."""

INSTANCES_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("box_labels", pa.list_(pa.int16())),
        ("box_crowd", pa.list_(pa.bool_())),
        ("box_areas", pa.list_(pa.float64())),
    ]
)
"""Columns of a manifest with several objects per image: class, crowd flag and mask area (square pixels) of each box."""

_OUTSIDE = r"^/|(^|/)\.\.(/|$)|\x00"
"""Matches paths that lead out of the folder they start from."""


def read_manifest(parquet: Path | str) -> "pd.DataFrame":
    """Reads a manifest.

    Returns:
        Columns of `SCHEMA`, or `INSTANCES_SCHEMA` for COCO, in the order of image_id as text; labels and boxes are
        arrays per row, width and height are nullable Int32.

    Raises:
        DataError: The file is missing, damaged or has other columns, or a path leads out of the data set's folder.
    """
    import pandas as pd

    return read_manifest_table(parquet).to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)


def read_manifest_table(parquet: Path | str) -> pa.Table:
    """Reads a manifest as an Arrow table, without pandas; raises DataError like `read_manifest`."""
    path = Path(parquet)
    table = read_checked(path, "a manifest", "luab manifest", SCHEMA, INSTANCES_SCHEMA)
    _check_inside(table, path)
    return table


def read_checked(path: Path, what: str, command: str, *schemas: pa.Schema) -> pa.Table:
    """Reads a Parquet file that `command` writes; DataError if it is missing, damaged or has none of the schemas."""
    again = f"Delete the file and run `{command}` again."
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # Arrow itself accepts invalid UTF-8 and offsets beyond the values
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected {what}, found no file. Run `{command}` first.") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected {what}, found a damaged file ({error}). {again}") from error
    if not any(table.schema.equals(schema) for schema in schemas):
        raise DataError(f"{path}: expected the columns {_columns(schemas[0])}, found {_columns(table.schema)}. {again}")
    return table


def _check_inside(table: pa.Table, path: Path) -> None:
    """Checks that no path leads out of the folder: a manifest from others could expose any file of this machine."""
    for column in ("path", "image_id"):
        row = pc.index(pc.match_substring_regex(table[column], _OUTSIDE), True).as_py()
        if row >= 0:
            raise DataError(
                f"{path}, row {row}: expected a {column} below the data set's folder, found "
                f"{table[column][row].as_py()!r}. Delete the file, build the manifest again, and do not trust its "
                "source."
            )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)
