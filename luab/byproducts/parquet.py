"""Tables of byproducts to Parquet and back: written group by group, read back only with the expected columns."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from luab.byproducts.digest import ContentDigest
from luab.errors import DataError


def write_batches(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    parquet: Path,
    group_records: int,
    seldom_repeated: Collection[str] = (),
) -> str:
    """Writes batches in row groups of one length; returns the digest of their content (`ContentDigest`).

    Neither file nor digest depends on the length of the batches. Rows of one group wait in memory until it is full.

    Args:
        batches: Of `schema`.
        schema: Columns.
        parquet: Where they go.
        group_records: Rows of a row group; the last may be shorter.
        seldom_repeated: Columns written without a dictionary of their values, which would cost time and room.
    """
    digest = ContentDigest()
    repeated = [_leaf_path(field) for field in schema if field.name not in seldom_repeated]
    with pq.ParquetWriter(parquet, schema, compression="zstd", use_dictionary=repeated) as writer:
        for group in _row_groups(batches, schema, group_records):
            digest.update(group)
            writer.write_table(group)
    return digest.hexdigest()


@contextmanager
def opened(
    parquet: Path, schema: pa.Schema, columns: list[str] | None, release: str, home: str
) -> Iterator[pq.ParquetFile]:
    """Opens a table that `write_batches` wrote.

    Args:
        parquet: The file.
        schema: What its columns must be.
        columns: Which will be read; None for all.
        release: What it is the index of, for messages: "ImageNet-AB".
        home: Module that documents the schema, for messages.

    Raises:
        DataError: The file is absent, is not Parquet, or has another schema.
        KeyError: A column is asked for that the schema does not have.
    """
    for name in columns or []:
        schema.field(name)
    try:
        with pq.ParquetFile(parquet) as file:
            found = file.schema_arrow
            if not found.equals(schema):
                raise DataError(_schema_message(parquet, schema, found, home))
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{parquet}: expected the index of {release}; run `luab index` first.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{parquet}: expected the index of {release} as Parquet, found something unreadable ({error}). "
            "Remove it and run `luab index` again."
        ) from error


def _leaf_path(field: pa.Field) -> str:
    """What Parquet calls the column of a field that is a value, or lists of lists of values."""
    path, kind = field.name, field.type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return path


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema, group_records: int) -> Iterator[pa.Table]:
    """Tables of equal length, but for the last, whatever the length of the batches."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= group_records:
            yield held.slice(0, group_records).combine_chunks()
            held = held.slice(group_records)
    if held.num_rows:
        yield held.combine_chunks()


def _schema_message(parquet: Path, schema: pa.Schema, found: pa.Schema, home: str) -> str:
    wrong = [
        field.name
        for field in schema
        if field.name not in found.names or not found.field(field.name).type.equals(field.type)
    ]
    more = [name for name in found.names if name not in schema.names]
    return (
        f"{parquet}: expected the columns of {home}.SCHEMA, found these absent or of "
        f"another type: {wrong or 'none'}, and these besides: {more or 'none'}. Remove it and run "
        "`luab index` again."
    )
