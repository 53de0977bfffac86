"""The index of COCO-AB: streams the released JSON array into one Parquet file, and reads that file.

One record (shortened; times are milliseconds since the start of the page, points are fractions of the image)::

    {"image_id": 459214, "originalImageHeight": 428, "originalImageWidth": 640, "imageHeight": 450, "imageWidth": 450,
     "timeSpent": 22283, "worker_id": "00AA3B5E80", "hit_id": "0123456789abcdef0123456789abcdef", "page_id": 3,
     "actionHistories": [
       {"actionType": "add", "iconType": "pizza", "pointTo": {"x": 0.584, "y": 0.589}, "timeAt": 16686},
       {"actionType": "move", "iconType": "pizza", "pointFrom": {...}, "pointTo": {...}, "timeAt": 17000},
       {"actionType": "remove", "iconType": "pizza", "pointFrom": {...}, "timeAt": 18000}],
     "categoryHistories": [
       {"categoryIndex": 1, "categoryName": "Animal", "timeAt": 10815, "usingKeyboard": false}],
     "mouseTracking": [{"x": 0.679, "y": 0.862, "timeAt": 15725}]}
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from luab.byproducts.index_file import Release, agreement, skips_bad_records
from luab.byproducts.reading.coco import Tally, read_records
from luab.byproducts.schema import COCO_SCHEMA as SCHEMA

__all__ = ["KNOWN_COUNTS", "RELEASED_SHA256", "SCHEMA", "agreement", "index", "read_index", "read_index_pieces"]

# SOURCE: huggingface.co/datasets/coallaoh/COCO-AB, LFS pointer of coco_ab_v1_0.json (398,322,779 bytes).
RELEASED_SHA256 = "dcc1c8ac0aa4a4d687b4325ae95c542ce2ea98a7a0229a7a29f0835b4b152775"

# SOURCE: records from the data set's card on the Hugging Face hub; classes from the tool's icons
# (naver-ai/coco-annotation-tool:icon-categories.json).
KNOWN_COUNTS = {"records": 82_765, "classes": 80}

# A record is about ten times as large as one of ImageNet-AB, so a row group has fewer of them.
_RELEASE = Release("COCO-AB", __name__, SCHEMA, RELEASED_SHA256, KNOWN_COUNTS, group_records=2048)


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
    known: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Streams every record of the JSON array into one Parquet file; the array is never in memory as a whole.

    Rows keep the array's order, in which a later record of an image replaces an earlier one. `luab.byproducts.schema`
    explains the columns.

    Args:
        archive: coco_ab_v1_0.json.
        parquet, card, archive_sha256, known: As for `luab.byproducts.imagenet_ab.index`.
        on_bad: "raise" stops at a record that is JSON but not a record of COCO-AB; "count" skips it and counts it as
            `bad_records`. Invalid JSON always stops, since the start of the next record is unknown.

    Returns:
        The content of the card.

    Raises:
        DataError, ConfigError: As there; also if the file is not JSON.
    """
    tally = Tally()
    with closing(read_records(archive, tally, skips_bad_records(on_bad))) as batches:
        return _RELEASE.write(batches, tally, parquet, card, archive_sha256, known)


def read_index(parquet: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table that `index` wrote, or some of its columns; errors as for `imagenet_ab.read_index`."""
    with _RELEASE.opened(parquet, columns) as file:
        return file.read(columns)


def read_index_pieces(parquet: Path, columns: list[str]) -> Iterator[pa.Table]:
    """As `read_index`, but yields one row group after the other."""
    with _RELEASE.opened(parquet, columns) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)
