"""Reads the JSON array of COCO-AB as Arrow batches."""

from collections.abc import Generator, Iterator
from itertools import islice, pairwise
from pathlib import Path

import pyarrow as pa

from luab.byproducts.json_stream import Item, array_items
from luab.byproducts.reading.bad_records import BadRecord, bad_record
from luab.byproducts.reading.coco_record import Notes, Row, parse_record
from luab.byproducts.schema import COCO_SCHEMA
from luab.byproducts.tally import RecordTally
from luab.errors import DataError

# Rows are Python objects in batches of this length: the garbage collector visits every live object, so few are kept.
_BATCH_RECORDS = 1024


class Tally(RecordTally):
    """Counts over records of COCO-AB."""

    RELEASE = "COCO-AB"

    def add(self, row: Row, notes: Notes) -> None:
        """Counts one row of the table; `notes` are counts that the row does not show."""
        count = self._counts
        count.update(notes)
        count["records"] += 1
        count["duplicate_records"] += row["image_id"] in self._distinct["images"]
        count["zero_original_size"] += 0 in (row["width"], row["height"])
        count["zero_displayed_size"] += 0 in (row["displayed_width"], row["displayed_height"])
        count["empty_panes"] += not row["pane_index"]
        self._distinct["images"].add(row["image_id"])
        if row["worker_id"] is not None:
            self._distinct["workers"].add(row["worker_id"])
        self._add_actions(row)
        self._add_trace(row)

    def _add_actions(self, row: Row) -> None:
        count, kinds, classes = self._counts, row["action_type"], row["action_class"]
        count["without_actions"] += not kinds
        count.update(f"{kind}s" for kind in kinds)
        added = [number for kind, number in zip(kinds, classes, strict=True) if kind == "add"]
        last = dict(zip(classes, kinds, strict=True))
        count["added_again"] += len(added) - len(set(added))
        count["removed_icons"] += sum(kind == "remove" for kind in last.values())
        count["points_out_of_range"] += _outside(row["action_from_xy"]) + _outside(row["action_to_xy"])
        self._distinct["classes"].update(classes)

    def _add_trace(self, row: Row) -> None:
        count = self._counts
        count["empty_trace"] += not row["trace_xy"]
        count["trace_out_of_range"] += _outside(row["trace_xy"])
        for before, time in pairwise(row["trace_time_ms"]):
            count["trace_duplicate_times"] += time == before
            count["trace_backward_times"] += time < before


def read_records(archive: Path, tally: Tally, skip_bad: bool) -> Generator[pa.RecordBatch, None, None]:
    """Yields the records in batches and adds to the tally; with `skip_bad`, bad records are only counted."""
    with array_items(archive) as items:
        rows = _rows(items, archive, skip_bad, tally)
        while batch := list(islice(rows, _BATCH_RECORDS)):
            columns = {name: [row[name] for row in batch] for name in COCO_SCHEMA.names}
            yield pa.RecordBatch.from_pydict(columns, schema=COCO_SCHEMA)
    if tally.counts()["records"] == 0:
        raise DataError(f"{archive}: expected records of COCO-AB, found none. Remove it and fetch it again.")


def _rows(items: Iterator[Item], archive: Path, skip_bad: bool, tally: Tally) -> Iterator[Row]:
    for item in items:
        try:
            row, notes = parse_record(item.value)
        except BadRecord as error:
            if skip_bad:
                tally.skip()
                continue
            raise bad_record(archive, f"{item.number} at byte {item.offset}", "COCO-AB", str(error)) from error
        tally.add(row, notes)
        yield row


def _outside(points: list[list[float]]) -> int:
    # NaN, which means no point, is neither below 0 nor above 1.
    return sum(x < 0 or x > 1 or y < 0 or y > 1 for x, y in points)
