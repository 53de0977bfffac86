"""ImageNet-AB: the released archive of XML records, streamed into one Parquet file, and its reader.

One record (shortened; times of points are epoch milliseconds, the submission's is in seconds)::

    <annotation>
      <filename>n01440764_10027</filename>      <folder>n01440764</folder>
      <metadata>
        <estimateTime>570</estimateTime>        <hit_submit_time>1640942400</hit_submit_time>
        <hoveredRecord><action>enter</action><time>1640942069944</time></hoveredRecord>
        <mouseTracking><time>1640942069944</time><x>0.895</x><y>0.49333</y></mouseTracking>
        <selected>True</selected>
        <selectedRecord><time>1640942070514</time><x>0.65</x><y>0.61333</y></selectedRecord>
      </metadata>
    </annotation>
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.byproducts import cards
from luab.byproducts.parquet import opened, write_batches
from luab.byproducts.reading.columns import ReadBlock
from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.tar import Block, archive_blocks, folder_blocks
from luab.byproducts.reading.workers import default_processes, read_blocks
from luab.byproducts.schema import SCHEMA
from luab.errors import ConfigError, DataError
from luab.files import replacing, write_json
from luab.progress import progress

# SOURCE: huggingface.co/datasets/coallaoh/ImageNet-AB, imagenet_ab_v1_0.tar.gz.
RELEASED_SHA256 = "38e67940a68adb5a3d436a25a0656d8c99023731077395b60097d01cd97868b1"

# SOURCE: aldakata/NeglectedFreeLunch, which read the release: records from
# interpolation_sanity_check.ipynb, with_metadata from correlations_final.ipynb (printed there as
# "selected", but bool() of the text "False" is true), the other two summed over writer_statistics.csv.
KNOWN_COUNTS = {
    "records": 1_274_843,
    "with_metadata": 1_271_643,
    "selected_with_time": 1_106_453,
    "workers_selected_with_time": 1_705,
}

# ImageNet's training images; 6,324 of them have no record.
TRAIN_IMAGES = 1_281_167

_GROUP_RECORDS = 16_384
# Plain instead of by dictionary: a fifth less time to write, an eighth less room.
_SELDOM_REPEATED = (
    *("image_id", "assignment_id", "hit_id", "imagenet_hit_id", "estimate_time_ms"),
    *("click_time_ms", "trace_time_ms", "hover_time_ms"),
)


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
    processes: int | None = None,
    known: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Streams every record of the archive into one Parquet file; nothing is unpacked.

    Rows keep the archive's order (a folder is read in the order of its sorted paths). macOS junk (`._*`,
    `.DS_Store`) is skipped and counted. Columns and their frames: `SCHEMA`.

    Args:
        archive: imagenet_ab_v1_0.tar.gz, or a folder that holds its XML files.
        parquet: Where the table goes.
        card: Where its identity and counts go: rows, sha256 (`ContentDigest`), source_sha256, counts (`Tally`), known
            (`known`, or null where nothing is), agrees (whether they are met, or null).
        archive_sha256: Digest of the archive if it is known; tells whether it is the release.
        on_bad: "raise" stops at a broken record, "count" leaves it out and counts it as `bad_records`.
        processes: How many read records at once; None takes one per core, at most 3. The result is the same.
        known: What it must count, by names of `Tally`; the release's own counts if the digest is the release's.

    Returns:
        The content of the card.

    Raises:
        DataError: The archive is absent, truncated or not a gzip; a record is broken, or occurs twice.
        ConfigError: `on_bad` is neither of the two, or `known` has a name that nothing is counted under.
        JobError: A process was ended from outside, or there is no room to write.
    """
    if on_bad not in ("raise", "count"):
        raise ConfigError(f"on_bad: expected 'raise' or 'count', found {on_bad!r}.")
    known = KNOWN_COUNTS if archive_sha256 == RELEASED_SHA256 else known
    tally = Tally()
    cards.check_known(known, tally.counts())
    with replacing(parquet) as aside:
        with (
            _blocks(archive) as (blocks, advance),
            closing(read_blocks(blocks, processes or default_processes(), on_bad == "count")) as parts,
        ):
            sha256 = write_batches(
                _batches(parts, archive, tally, advance), SCHEMA, aside, _GROUP_RECORDS, _SELDOM_REPEATED
            )
        _check_ids(aside, archive)
    content = cards.index_card(tally.counts(), sha256, archive_sha256, known)
    write_json(card, content)
    return content


def read_index(parquet: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table that `index` wrote, or some columns of it.

    Raises:
        DataError: The file is absent, is not Parquet, or has another schema than `SCHEMA`.
        KeyError: A column is asked for that the schema does not have.
    """
    with _opened(parquet, columns) as file:
        return file.read(columns)


def read_index_pieces(parquet: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Reads some columns of the index, one row group after the other: the whole takes gigabytes of memory.

    Raises:
        DataError, KeyError: As `read_index`.
    """
    with _opened(parquet, columns) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)


def _opened(parquet: Path, columns: list[str] | None) -> AbstractContextManager[pq.ParquetFile]:
    return opened(parquet, SCHEMA, columns, "ImageNet-AB", __name__)


def agreement(card: dict[str, Any]) -> str:
    """Says whether an index counted what is known of its archive, and of the release how many images have no record.

    Args:
        card: As `index` returns it.
    """
    if card["known"] != KNOWN_COUNTS:
        return cards.agreement(card)
    without = TRAIN_IMAGES - card["counts"]["records"]
    return cards.agreement(card, f", {without:,} of ImageNet's {TRAIN_IMAGES:,} training images without one")


# ---- blocks of an archive or a folder -> batches -> row groups


@contextmanager
def _blocks(archive: Path) -> Iterator[tuple[Iterator[Block], Callable[[float], None]]]:
    """Yields the archive's blocks, and what to tell how far their reading is."""
    if archive.is_dir():
        with progress(archive.name, None, "B") as advance:
            yield folder_blocks(archive), advance
    elif not archive.is_file():
        raise DataError(f"{archive}: expected the archive of ImageNet-AB; it is not there. Run `luab fetch` first.")
    else:
        with progress(archive.name, archive.stat().st_size, "B") as advance:
            yield archive_blocks(archive), advance


def _batches(
    parts: Iterator[tuple[ReadBlock, int]], archive: Path, tally: Tally, advance: Callable[[float], None]
) -> Iterator[pa.RecordBatch]:
    for part, consumed in parts:
        if part.bad:
            raise DataError(_record_message(archive, *part.bad))
        tally.merge(part.tally)
        advance(consumed)
        yield part.batch


def _check_ids(parquet: Path, archive: Path) -> None:
    ids = read_index(parquet, ["image_id"]).column("image_id")
    if len(ids) == 0:
        raise DataError(f"{archive}: expected XML records <wnid>/<wnid>_<number>.xml, found none.")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    raise DataError(
        f"{archive}: expected one record per image, found {len(twice)} images with several, for example "
        f"{twice[0].as_py()}. Does the folder hold two copies? Give the folder of one."
    )


# ---- messages


def _record_message(archive: Path, name: str, fault: str) -> str:
    return (
        f"{archive}: expected records as in ImageNet-AB, found a broken one, {name}: {fault}. Fetch "
        "the archive again (its SHA-256 is in config/archives.yaml), or pass on_bad='count' to leave such "
        "records out."
    )
