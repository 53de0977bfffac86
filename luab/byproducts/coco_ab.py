"""COCO-AB: the released JSON array, streamed into one Parquet file, and its reader.

One record (shortened; times are milliseconds since the page began, points are fractions of the image)::

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

from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from luab.byproducts.cards import check_known, index_card
from luab.byproducts.json_stream import Item, array_items
from luab.byproducts.parquet import opened, write_batches
from luab.byproducts.reading.coco_record import BadRecord, Notes, Row, parse_record
from luab.byproducts.schema import field
from luab.errors import ConfigError, DataError
from luab.files import replacing, write_json

# SOURCE: huggingface.co/datasets/coallaoh/COCO-AB, LFS pointer of coco_ab_v1_0.json (398,322,779 bytes).
RELEASED_SHA256 = "dcc1c8ac0aa4a4d687b4325ae95c542ce2ea98a7a0229a7a29f0835b4b152775"

# SOURCE: records from the data set's card on the Hugging Face hub; classes from the tool's icons
# (naver-ai/coco-annotation-tool:icon-categories.json).
KNOWN_COUNTS = {"records": 82_765, "classes": 80}

# Rows wait as Python objects in small batches, since the garbage collector walks all that are alive, and as Arrow until
# a row group is full. A record holds about ten times what one of ImageNet-AB does, so fewer wait than there.
_BATCH_RECORDS, _GROUP_RECORDS = 1024, 2048

_XY = pa.list_(pa.float64(), 2)
_ACTION = "one entry per action on an icon, in order: "
_PANE = "one entry per change of pane, in order: "
_SAMPLE = "one entry per sample of the pointer, in order: "

SCHEMA = pa.schema(
    [
        field("image_id", pa.int32(), "official number of the train2014 image; may occur in several rows"),
        field("width", pa.int32(), "source image, pixels; 0 where the page could not load it"),
        field("height", pa.int32(), "source image, pixels; 0 where the page could not load it"),
        field("displayed_width", pa.int32(), "a copy of the height in the release (defect); do not use"),
        field("displayed_height", pa.int32(), "px on the page; 0 where it could not be loaded"),
        field("time_spent_ms", pa.int64(), "time that the page was open"),
        field("worker_id", pa.string(), "anonymised worker"),
        field("hit_id", pa.string(), "id of the task"),
        field("page_id", pa.int32(), "page within the task, from 0"),
        field("action_type", pa.list_(pa.string()), _ACTION + "add, move or remove"),
        field("action_class", pa.list_(pa.int16()), _ACTION + "index of the icon's class, 0 to 79 (COCO_CLASSES)"),
        field("action_from_xy", pa.list_(_XY), _ACTION + "where the icon was; fractions, x right y down; NaN if none"),
        field("action_to_xy", pa.list_(_XY), _ACTION + "where it went; fractions, x right y down; NaN if none"),
        field("action_time_ms", pa.list_(pa.int64()), _ACTION + "ms since the page began"),
        field("pane_index", pa.list_(pa.int16()), _PANE + "0 to 10; pane 0 is open at the start and not logged"),
        field("pane_name", pa.list_(pa.string()), _PANE + "its name in the tool"),
        field("pane_time_ms", pa.list_(pa.int64()), _PANE + "ms since the page began"),
        field("pane_by_keyboard", pa.list_(pa.bool_()), _PANE + "whether a key was used; null if absent"),
        field("trace_xy", pa.list_(_XY), _SAMPLE + "fractions, x right y down; none while an icon is dragged"),
        field("trace_time_ms", pa.list_(pa.int64()), _SAMPLE + "ms since the page began; may repeat"),
    ]
)


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
    known: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Streams every record of the JSON array into one Parquet file; the array is never in memory as a whole.

    Rows keep the array's order, in which a later record of an image overrules an earlier one. Columns and their
    frames: `SCHEMA`.

    Args:
        archive: coco_ab_v1_0.json.
        parquet: Where the table goes.
        card: Where its identity and counts go: rows, sha256 (`ContentDigest`), source_sha256, counts (`Tally`), known
            (`known`, or null where nothing is), agrees (whether they are met, or null).
        archive_sha256: Digest of the file if it is known; tells whether it is the release.
        on_bad: "raise" stops at a record that is JSON but not one of COCO-AB, "count" leaves it out and counts it as
            `bad_records`. What is not JSON always stops, since nothing says where the next record begins.
        known: What it must count, by names of `Tally`; the release's own counts if the digest is the release's.

    Returns:
        The content of the card.

    Raises:
        DataError: The file is absent, truncated, not JSON, or holds a record that is not one of COCO-AB.
        ConfigError: `on_bad` is neither of the two, or `known` has a name that nothing is counted under.
    """
    if on_bad not in ("raise", "count"):
        raise ConfigError(f"on_bad: expected 'raise' or 'count', found {on_bad!r}.")
    known = KNOWN_COUNTS if archive_sha256 == RELEASED_SHA256 else known
    tally = Tally()
    check_known(known, tally.counts())
    with replacing(parquet) as aside:
        with array_items(archive) as items:
            batches = _batches(_rows(items, archive, on_bad, tally))
            sha256 = write_batches(batches, SCHEMA, aside, _GROUP_RECORDS)
        if tally.counts()["records"] == 0:
            raise DataError(f"{archive}: expected records of COCO-AB, found none. Remove it and fetch it again.")
    content = index_card(tally.counts(), sha256, archive_sha256, known)
    write_json(card, content)
    return content


def read_index(parquet: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table that `index` wrote, or some columns of it.

    Raises:
        DataError: The file is absent, is not Parquet, or has another schema than `SCHEMA`.
        KeyError: A column is asked for that the schema does not have.
    """
    with opened(parquet, SCHEMA, columns, "COCO-AB", __name__) as file:
        return file.read(columns)


class Tally:
    """Counts what the records hold, one `add` per record.

    records: rows. bad_records: left out under `on_bad="count"`. images, workers, classes: distinct.
    duplicate_records: records whose image has an earlier one.
    zero_original_size, zero_displayed_size: records whose width or height is 0.
    without_actions, empty_trace, empty_panes: records whose list is empty.
    adds, moves, removes: actions. added_again: adds of a class that the record added before.
    removed_icons: classes of a record whose last action is a removal.
    points_absent, points_null: pointFrom and pointTo that an action does not need and that are absent, or null.
    needed_points_missing: those that it needs (to: add, move; from: move, remove), absent or null.
    points_out_of_range, trace_out_of_range: points with x or y outside [0, 1].
    trace_duplicate_times, trace_backward_times: samples stamped as, or before, the one before them.
    missing_values: sizes, times, identifiers and lists of a record that are absent or null.
    unknown_keys: keys of records that COCO-AB does not have.
    """

    _NAMES = (
        "records",
        "bad_records",
        "duplicate_records",
        "zero_original_size",
        "zero_displayed_size",
        "without_actions",
        "empty_trace",
        "empty_panes",
        "adds",
        "moves",
        "removes",
        "added_again",
        "removed_icons",
        "points_absent",
        "points_null",
        "needed_points_missing",
        "points_out_of_range",
        "trace_out_of_range",
        "trace_duplicate_times",
        "trace_backward_times",
        "missing_values",
        "unknown_keys",
    )

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(self._NAMES, 0))
        self._images: set[int] = set()
        self._workers: set[str] = set()
        self._classes: set[int] = set()

    def skip(self) -> None:
        """Counts a record that gives no row."""
        self._counts["bad_records"] += 1

    def add(self, row: Row, notes: Notes) -> None:
        """Counts one row of the table, and what its JSON said beyond it."""
        count = self._counts
        count.update(notes)
        count["records"] += 1
        count["duplicate_records"] += row["image_id"] in self._images
        count["zero_original_size"] += 0 in (row["width"], row["height"])
        count["zero_displayed_size"] += 0 in (row["displayed_width"], row["displayed_height"])
        count["empty_panes"] += not row["pane_index"]
        self._images.add(row["image_id"])
        if row["worker_id"] is not None:
            self._workers.add(row["worker_id"])
        self._add_actions(row)
        self._add_trace(row)

    def counts(self) -> dict[str, int]:
        """All counts, the distinct ones included."""
        distinct = {"images": len(self._images), "workers": len(self._workers), "classes": len(self._classes)}
        return dict(self._counts) | distinct

    def _add_actions(self, row: Row) -> None:
        count, kinds, classes = self._counts, row["action_type"], row["action_class"]
        count["without_actions"] += not kinds
        for kind in kinds:
            count[f"{kind}s"] += 1
        added = [number for kind, number in zip(kinds, classes, strict=True) if kind == "add"]
        last = dict(zip(classes, kinds, strict=True))
        count["added_again"] += len(added) - len(set(added))
        count["removed_icons"] += sum(kind == "remove" for kind in last.values())
        count["points_out_of_range"] += _outside(row["action_from_xy"]) + _outside(row["action_to_xy"])
        self._classes.update(classes)

    def _add_trace(self, row: Row) -> None:
        count = self._counts
        count["empty_trace"] += not row["trace_xy"]
        count["trace_out_of_range"] += _outside(row["trace_xy"])
        for before, time in pairwise(row["trace_time_ms"]):
            count["trace_duplicate_times"] += time == before
            count["trace_backward_times"] += time < before


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    while some := list(islice(rows, _BATCH_RECORDS)):
        yield pa.RecordBatch.from_pydict({name: [row[name] for row in some] for name in SCHEMA.names}, schema=SCHEMA)


def _rows(items: Iterator[Item], archive: Path, on_bad: Literal["raise", "count"], tally: Tally) -> Iterator[Row]:
    for item in items:
        try:
            row, notes = parse_record(item.value)
        except BadRecord as error:
            if on_bad == "raise":
                raise DataError(
                    f"{archive}: expected records as in COCO-AB, found another, record {item.number} at byte "
                    f"{item.offset}: {error}. Fetch the file again (its SHA-256 is in config/archives.yaml), or pass "
                    "on_bad='count' to leave such records out."
                ) from error
            tally.skip()
            continue
        tally.add(row, notes)
        yield row


def _outside(points: list[list[float]]) -> int:
    # NaN stands for no point, so it is not asked whether a point is inside.
    return sum(x < 0 or x > 1 or y < 0 or y > 1 for x, y in points)
