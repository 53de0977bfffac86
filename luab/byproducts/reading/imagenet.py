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
    archive: Path, tally: Tally, skip_bad: bool, processes: int | None = None, any_names: bool = False
) -> Generator[pa.RecordBatch, None, None]:
    """Yields the records in batches of any length and adds to the tally; with `skip_bad`, bad records are only counted.

    `processes` parse the records; None for one per CPU core, at most 3. With `any_names`, classes need not be wnids.
    """
    if archive.is_dir():
        blocks, total = folder_blocks(archive), None
    elif archive.is_file():
        blocks, total = archive_blocks(archive), archive.stat().st_size
    else:
        raise DataError(f"{archive}: the archive of ImageNet-AB is missing. Run `luab fetch` first.")
    with (
        progress(archive.name, total, "B") as advance,
        closing(read_blocks(blocks, processes or default_processes(), skip_bad, any_names)) as parts,
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
