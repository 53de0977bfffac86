"""Writes and reads the index of byproducts: one Parquet file, and a card with its identity and counts."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from luab.byproducts.digest import ContentDigest
from luab.byproducts.tally import RecordTally
from luab.errors import ConfigError, DataError
from luab.files import replacing, write_json


@dataclass(frozen=True)
class Release:
    """Byproducts that were released, and the format of their index.

    module: where `schema` is exported, for messages. known_counts: published counts, by their name in the card.
    group_records: rows of a row group. no_dictionary: columns whose values seldom repeat; without a dictionary of
    values they take less time to write.
    """

    name: str
    module: str
    schema: pa.Schema
    sha256: str
    known_counts: dict[str, int]
    group_records: int
    no_dictionary: Collection[str] = ()

    def write(
        self,
        batches: Iterator[pa.RecordBatch],
        tally: RecordTally,
        parquet: Path,
        card: Path,
        archive_sha256: str | None,
        known: dict[str, int] | None,
        check: Callable[[Path], None] = lambda parquet: None,
    ) -> dict[str, Any]:
        """Writes the index and returns the content of its card; arguments are those of `imagenet_ab.index`.

        Neither the file nor its digest depends on the length of the batches. The tally must be complete after the last
        one. If `check` raises for the path of the finished table, nothing is written.
        """
        known = self.known_counts if archive_sha256 == self.sha256 else known
        if uncounted := sorted(set(known or {}) - set(tally.counts())):
            raise ConfigError(f"known counts: expected {', '.join(tally.counts())}; found {', '.join(uncounted)}.")
        with replacing(parquet) as aside:
            sha256 = self._write_table(batches, aside)
            check(aside)
        counts = tally.counts()
        content = {
            "rows": counts["records"],
            "sha256": sha256,
            "source_sha256": archive_sha256,
            "counts": counts,
            "known": known,
            "agrees": None if known is None else all(counts[name] == n for name, n in known.items()),
        }
        write_json(card, content)
        return content

    @contextmanager
    def opened(self, parquet: Path, columns: list[str] | None) -> Iterator[pq.ParquetFile]:
        """Opens the index to read some columns; None for all. Raises the errors of `imagenet_ab.read_index`."""
        for name in columns or []:
            self.schema.field(name)
        try:
            with pq.ParquetFile(parquet, page_checksum_verification=True) as file:
                if not file.schema_arrow.equals(self.schema):
                    raise DataError(self._schema_message(parquet, file.schema_arrow))
                yield file
        except FileNotFoundError as error:
            raise DataError(f"{parquet}: the index of {self.name} is missing. Run `luab index` first.") from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{parquet}: expected the index of {self.name} as Parquet, but the file is unreadable ({error}). "
                "Remove it and run `luab index` again."
            ) from error

    def _write_table(self, batches: Iterator[pa.RecordBatch], parquet: Path) -> str:
        """Writes row groups of equal length; returns the digest of their content."""
        digest = ContentDigest()
        dictionary = [_leaf_path(field) for field in self.schema if field.name not in self.no_dictionary]
        options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        with pq.ParquetWriter(parquet, self.schema, use_dictionary=dictionary, **options) as writer:
            for group in self._row_groups(batches):
                digest.update(group)
                writer.write_table(group)
        return digest.hexdigest()

    def _row_groups(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Tables of equal length, except for the last."""
        pending = self.schema.empty_table()
        for batch in batches:
            pending = pa.concat_tables([pending, pa.Table.from_batches([batch])])
            while pending.num_rows >= self.group_records:
                yield pending.slice(0, self.group_records).combine_chunks()
                pending = pending.slice(self.group_records)
        if pending.num_rows:
            yield pending.combine_chunks()

    def _schema_message(self, parquet: Path, actual: pa.Schema) -> str:
        types = dict(zip(actual.names, actual.types, strict=True))
        wrong = [field.name for field in self.schema if types.get(field.name) != field.type]
        extra = [name for name in actual.names if name not in self.schema.names]
        return (
            f"{parquet}: the columns are not those of {self.module}.SCHEMA. Missing or of another type: "
            f"{wrong or 'none'}; extra: {extra or 'none'}. Remove the file and run `luab index` again."
        )


def skips_bad_records(on_bad: str) -> bool:
    """Returns whether to skip bad records: True for "count", False for "raise"."""
    if on_bad not in ("raise", "count"):
        raise ConfigError(f"on_bad: expected 'raise' or 'count', found {on_bad!r}.")
    return on_bad == "count"


def agreement(card: dict[str, Any], remark: str = "") -> str:
    """Returns a sentence or two on whether the counts of an index agree with what is known of its archive.

    A difference is not an error: the checksum of the archive was verified, so either a published count or the reader
    is wrong. The remark follows the number of records.
    """
    counts, known = card["counts"], card["known"]
    records = f"{card['rows']:,} records{remark}"
    if known is None:
        return f"{records}; no known counts to compare with."
    wrong = [f"{name} {n:,} instead of {known[name]:,}" for name in known if (n := counts[name]) != known[name]]
    if wrong:
        return (
            f"{records}. WARNING: these counts differ from the known counts of this archive: {', '.join(wrong)}. "
            "The index was written nevertheless; its card has both."
        )
    return f"{records}; all {len(known)} known counts agree ({', '.join(f'{name} {known[name]:,}' for name in known)})."


def _leaf_path(field: pa.Field) -> str:
    """Parquet's name of the column of a field that is a value, or lists of lists of values."""
    path, kind = field.name, field.type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return path
