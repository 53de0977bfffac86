"""Rows of byproducts to Parquet and back: written group by group, read back only with the expected columns."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from luab.byproducts.digest import ContentDigest
from luab.errors import DataError

# Rows wait as Python objects in small batches, since the garbage collector walks all that are alive
# (1024 instead of 4096: a quarter more records per second), and as Arrow until a row group is full.
_BATCH_RECORDS, _GROUP_RECORDS = 1024, 16_384


def write_rows(
    rows: Iterator[dict[str, Any]], schema: pa.Schema, parquet: Path, group_records: int = _GROUP_RECORDS
) -> str:
    """Writes rows that each have all columns of the schema; returns the digest of their content (`ContentDigest`).

    Rows of one group wait in memory until it is full.
    """
    digest = ContentDigest()
    with pq.ParquetWriter(parquet, schema, compression="zstd") as writer:
        for group in _row_groups(rows, schema, group_records):
            digest.update(group)
            writer.write_table(group)
    return digest.hexdigest()


def read_rows(parquet: Path, schema: pa.Schema, columns: list[str] | None, release: str, home: str) -> pa.Table:
    """Reads a table that `write_rows` wrote, or some columns of it.

    Args:
        parquet: The file.
        schema: What its columns must be.
        columns: Which to read; None for all.
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
            return file.read(columns)
    except FileNotFoundError as error:
        raise DataError(f"{parquet}: expected the index of {release}; run `luab index` first.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{parquet}: expected the index of {release} as Parquet, found something unreadable ({error}). "
            "Remove it and run `luab index` again."
        ) from error


def agreement(card: dict[str, Any]) -> str:
    """One line: whether the index of the release has its known counts, and which differ."""
    if card["known"] is None:
        return f"{card['rows']:,} records; not the released file, so there are no known counts to compare."
    wrong = [
        f"{name}: expected {n:,}, found {card['counts'][name]:,}"
        for name, n in card["known"].items()
        if card["counts"][name] != n
    ]
    return f"{card['rows']:,} records; " + ("; ".join(wrong) if wrong else "all known counts of the release are met.")


def _row_groups(rows: Iterator[dict[str, Any]], schema: pa.Schema, group_records: int) -> Iterator[pa.Table]:
    batch_records = min(_BATCH_RECORDS, group_records)
    batches = _batches(rows, schema, batch_records)
    while some := list(islice(batches, group_records // batch_records)):
        yield pa.Table.from_batches(some)


def _batches(rows: Iterator[dict[str, Any]], schema: pa.Schema, batch_records: int) -> Iterator[pa.RecordBatch]:
    while some := list(islice(rows, batch_records)):
        columns = {name: [row[name] for row in some] for name in schema.names}
        yield pa.RecordBatch.from_pydict(columns, schema=schema)


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
