"""The index of ImageNet-AB: streams the released archive of XML records into one Parquet file, and reads that file.

One record (shortened; times of points are epoch milliseconds, the time of submission is in seconds)::

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

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from luab.byproducts import index_file
from luab.byproducts.index_file import Release, skips_bad_records
from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.imagenet import read_records
from luab.byproducts.schema import SCHEMA
from luab.errors import DataError

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

_RELEASE = Release(
    name="ImageNet-AB",
    module=__name__,
    schema=SCHEMA,
    sha256=RELEASED_SHA256,
    known_counts=KNOWN_COUNTS,
    group_records=16_384,
    # Takes a fifth less time to write, and an eighth less space.
    no_dictionary=(
        *("image_id", "assignment_id", "hit_id", "imagenet_hit_id", "estimate_time_ms"),
        *("click_time_ms", "trace_time_ms", "hover_time_ms"),
    ),
)


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
    processes: int | None = None,
    known: dict[str, int] | None = None,
    any_names: bool = False,
) -> dict[str, Any]:
    """Streams every record of the archive into one Parquet file, without unpacking the archive.

    Rows keep the archive's order (for a folder: the order of its sorted paths). macOS junk (`._*`, `.DS_Store`) is
    skipped and counted. `luab.byproducts.schema` explains the columns.

    Args:
        archive: imagenet_ab_v1_0.tar.gz, or a folder with its XML files.
        parquet: Output file for the table.
        card: Output file for the card: rows, sha256 (`ContentDigest`), source_sha256 (of the archive), counts
            (explained in luab/byproducts/counts.json), known (`known`, or null), agrees (whether the known counts are
            met, or null).
        archive_sha256: SHA-256 of the archive, if known; identifies the release.
        on_bad: "raise" stops at a bad record; "count" skips it and counts it as `bad_records`.
        processes: Number of processes that parse records; None for one per CPU core, at most 3. The result is the
            same.
        any_names: Whether classes may be other than wnids and images others than ImageNet's.
        known: Expected counts, by their name in the card; those of the release if the SHA-256 is the release's.

    Returns:
        The content of the card.

    Raises:
        DataError: The archive is missing, truncated or not a gzip; a record is bad, or occurs twice.
        ConfigError: `on_bad` is neither of the two, or `known` has a name that is not counted.
        JobError: A worker process died, or the disk is full.
    """
    tally = Tally()
    with closing(read_records(archive, tally, skips_bad_records(on_bad), processes, any_names)) as batches:
        return _RELEASE.write(
            batches, tally, parquet, card, archive_sha256, known, check=lambda table: _check_ids(table, archive)
        )


def read_index(parquet: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table that `index` wrote, or some of its columns.

    Raises:
        DataError: The file is missing, is not Parquet, or has another schema than `SCHEMA`.
        KeyError: The schema does not have one of the columns.
    """
    with _RELEASE.opened(parquet, columns) as file:
        return file.read(columns)


def read_index_pieces(parquet: Path, columns: list[str]) -> Iterator[pa.Table]:
    """As `read_index`, but yields one row group after the other; the whole index takes gigabytes of memory."""
    with _RELEASE.opened(parquet, columns) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)


def agreement(card: dict[str, Any]) -> str:
    """As for `luab.byproducts.index_file.agreement`; adds ImageNet's training images without a record."""
    if card["known"] != KNOWN_COUNTS:
        return index_file.agreement(card)
    without = TRAIN_IMAGES - card["counts"]["records"]
    return index_file.agreement(card, f", {without:,} of ImageNet's {TRAIN_IMAGES:,} training images without one")


def _check_ids(parquet: Path, archive: Path) -> None:
    ids = read_index(parquet, ["image_id"]).column("image_id")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    raise DataError(
        f"{archive}: expected one record per image, found {len(repeated)} images with several, for example "
        f"{repeated[0].as_py()}. Does the folder hold two copies? Give the folder of one."
    )
