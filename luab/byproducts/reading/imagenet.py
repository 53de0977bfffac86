"""Reads the archive of ImageNet-AB as Arrow batches."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from luab.byproducts.reading.bad_records import bad_record
from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.tar import archive_blocks, folder_blocks
from luab.byproducts.reading.workers import default_processes, read_blocks
from luab.errors import DataError
from luab.progress import progress


def read_records(
    archive: Path, tally: Tally, skip_bad: bool, processes: int | None = None
) -> Generator[pa.RecordBatch, None, None]:
    """Yields the records in batches of any length, with the columns of `luab.byproducts.schema.SCHEMA`.

    Args:
        archive: imagenet_ab_v1_0.tar.gz, or a folder with its XML files.
        tally: Receives the counts over the records.
        skip_bad: Whether to skip and count bad records; otherwise the first one raises.
        processes: Number of processes that parse records; None for one per CPU core, at most 3.

    Raises:
        DataError: The archive is missing, damaged or has no records; a record is bad.
        JobError: A worker process died.
    """
    if archive.is_dir():
        blocks, total = folder_blocks(archive), None
    elif archive.is_file():
        blocks, total = archive_blocks(archive), archive.stat().st_size
    else:
        raise DataError(f"{archive}: the archive of ImageNet-AB is missing. Run `luab fetch` first.")
    with (
        progress(archive.name, total, "B") as advance,
        closing(read_blocks(blocks, processes or default_processes(), skip_bad)) as parts,
    ):
        for part, consumed in parts:
            if part.bad:
                name, fault = part.bad
                raise bad_record(archive, name, "ImageNet-AB", fault)
            tally.merge(part.tally)
            advance(consumed)
            yield part.batch
    if tally.counts()["records"] == 0:
        raise DataError(f"{archive}: expected XML records <wnid>/<wnid>_<number>.xml, found none.")
