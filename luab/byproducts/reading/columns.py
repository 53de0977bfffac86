"""Turns blocks of XML records into Arrow batches, bit-identical to the values of the strict parser."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from luab.byproducts.reading.bad_records import BadRecord
from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.patterns import LISTS, VALUES, Fields, Shapes
from luab.byproducts.reading.tar import Block
from luab.byproducts.reading.xml import INTEGERS, TEXTS, Row, parse_record
from luab.byproducts.schema import SCHEMA

_WNID = re.compile(r"n\d{8}")
_USUAL_NAME = re.compile(r"(?:[\w.-]+/)*?(n[0-9]{8})/([0-9A-Za-z_]+)\.xml", re.ASCII)
_BOX = re.compile(rb"<xmin>(\d+)</xmin>\s*<ymin>(\d+)</ymin>\s*<xmax>(\d+)</xmax>\s*<ymax>(\d+)</ymax>")

_INT32, _INT64 = pa.int32(), pa.int64()
_TYPES: dict[str, pa.DataType] = dict.fromkeys(VALUES, _INT32) | {
    **dict.fromkeys(TEXTS, pa.string()),
    **{name: SCHEMA.field(name).type.value_type for name in INTEGERS},
    "selected": pa.bool_(),
    "position_x": pa.float64(),
    "position_y": pa.float64(),
}
_PLAIN = pyarrow.csv.ParseOptions(quote_char=False, double_quote=False)

# Repeated elements are read as CSV: of their text only the numbers stay, with one entry per line and a comma for each
# closing tag; an <action> is replaced by a number first. Each of these letters occurs in the opening and the closing
# tag of an entry (hoveredRecord, mouseTracking, selectedRecord) and nowhere else in it.
_LETTERS = {"hovers": b"R", "trace": b"T", "clicks": b"R"}
_TO_LINES = bytes.maketrans(b"/RT", b",\n\n")
_NOT_NUMBER = bytes(set(range(256)) - set(b"0123456789.-/RT"))
_LEAVES = {"action": pa.int8(), "time": _INT64, "x": pa.float64(), "y": pa.float64()}
_ENDS = ["end_of_entry", "end_of_line"]  # empty fields at the end of a line, from its last two commas
_ACTIONS = ["leave", "enter"]


class ReadBlock(NamedTuple):
    """The records of a block, and name and fault of the bad record at which reading stopped, or None."""

    batch: pa.RecordBatch
    tally: Tally
    bad: tuple[str, str] | None


class BlockReader:
    """Reads blocks of records; it learns the shapes of records, which changes its speed but not its results."""

    def __init__(self, skip_bad: bool, any_names: bool = False) -> None:
        """With `skip_bad`, bad records are counted and skipped; otherwise reading stops at the first one.

        With `any_names`, classes need not be wnids.
        """
        self._skip_bad, self._any_names = skip_bad, any_names
        self._shapes = Shapes()

    def read(self, block: Block) -> ReadBlock:
        """Turns a block into columns."""
        tally, rows, bad = Tally(), _Rows(), None
        end = 0
        for name, size in zip(block.names, block.sizes, strict=True):
            start, end = end, end + size
            try:
                if (ids := _ids(name, self._any_names)) is None:
                    tally.skip("junk_skipped")
                else:
                    self._read_record(*ids, block.data[start:end], rows)
            except BadRecord as error:
                if not self._skip_bad:
                    bad = (name, str(error))
                    break
                tally.skip("bad_records")
        batch = rows.batch(self._shapes.orders)
        tally.add(batch)
        self._shapes.sort()
        return ReadBlock(batch, tally, bad)

    def _read_record(self, image_id: str, wnid: str, record: bytes, rows: "_Rows") -> None:
        fields = self._shapes.read(record)
        if fields is None:
            row = parse_record(record)
            self._shapes.learn(record)
            rows.add_row({"image_id": image_id, "wnid": wnid} | row)
        else:
            rows.add_fields(image_id, wnid, fields)


class _Rows:
    """Records of a block in two forms, texts of the fast reader and rows of the strict parser, and their positions."""

    def __init__(self) -> None:
        self._fast: list[tuple[int, str, str, Fields]] = []
        self._strict: list[tuple[int, Row]] = []

    def add_fields(self, image_id: str, wnid: str, fields: Fields) -> None:
        self._fast.append((len(self._fast) + len(self._strict), image_id, wnid, fields))

    def add_row(self, row: Row) -> None:
        self._strict.append((len(self._fast) + len(self._strict), row))

    def batch(self, orders: dict[str, list[str]]) -> pa.RecordBatch:
        rows = [row for _, row in self._strict]
        if not self._fast:
            return batch_of_rows(rows)
        fast = self._batch_of_fields(orders)
        if not rows:
            return fast
        both = pa.Table.from_batches([fast, batch_of_rows(rows)]).combine_chunks()
        places = np.argsort([entry[0] for entry in self._fast] + [entry[0] for entry in self._strict])
        (batch,) = both.take(pa.array(places)).combine_chunks().to_batches()
        return batch

    def _batch_of_fields(self, orders: dict[str, list[str]]) -> pa.RecordBatch:
        _, image_ids, wnids, fields = zip(*self._fast, strict=True)
        values = _csv(b"\n".join([b",".join(texts) for texts, _ in fields]), VALUES, _TYPES)
        objects, *entries = zip(*(lists for _, lists in fields), strict=True)
        boxes, box_counts = _boxes(objects)
        width, height = _size(values)
        columns: dict[str, pa.Array] = {
            "image_id": pa.array(image_ids, pa.string()),
            "wnid": pa.array(wnids, pa.string()),
            "annotators": pa.array(np.ones(len(fields), np.int16)),
            "has_box": pa.array(box_counts > 0),
            "boxes": _lists(boxes, box_counts),
            "width": width,
            "height": height,
        }
        columns |= {name: _one_each(values[name]) for name in (*TEXTS, *INTEGERS, "selected")}
        position = np.stack([values["position_x"].to_numpy(), values["position_y"].to_numpy()], axis=1)
        columns["position_xy"] = _one_each(_pairs(position.astype(np.float32)))
        for name, texts in zip(LISTS[1:], entries, strict=True):
            columns |= _list_columns(name, texts, orders.get(name, []))
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def batch_of_rows(rows: Sequence[Row]) -> pa.RecordBatch:
    """Returns rows of the strict parser as columns."""
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _ids(name: str, any_names: bool) -> tuple[str, str] | None:
    """Image id and class from the path of a record; None for macOS junk."""
    if match := _USUAL_NAME.fullmatch(name):
        return match[2], match[1]
    path = PurePosixPath(name)
    if path.name.startswith("._") or path.name == ".DS_Store":
        return None
    if path.suffix != ".xml" or ".." in path.parts or not (any_names or _WNID.fullmatch(path.parent.name)):
        raise BadRecord("expected a file <wnid>/<wnid>_<number>.xml")
    return path.stem, path.parent.name


# ---- texts of many records at once


def _csv(lines: bytes, names: Sequence[str], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    """Parses CSV without a header, as one block in this thread; returns the columns that have a type."""
    reading = pyarrow.csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(lines) + 1)
    conversion = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    table = pyarrow.csv.read_csv(pa.BufferReader(lines), reading, _PLAIN, conversion).combine_chunks()
    return {name: table[name].chunk(0) for name in types}


def _size(values: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Width and height as the page measured them, or else from the box's <size>; null if both are unknown."""
    sources = [[values[f"{name}_{side}"].fill_null(0) for side in ("width", "height")] for name in ("original", "box")]
    known = [pc.and_(pc.not_equal(width, 0), pc.not_equal(height, 0)) for width, height in sources]
    width, height = (
        pc.if_else(known[0], by_page, pc.if_else(known[1], by_box, pa.scalar(None, _INT32)))
        for by_page, by_box in zip(*sources, strict=True)
    )
    return width, height


def _boxes(objects: Sequence[bytes]) -> tuple[pa.Array, NDArray[np.int64]]:
    """The boxes of all records, and the number of boxes of each record."""
    counts = np.array([text.count(b"<bndbox>") for text in objects])
    corners = [corner for box in _BOX.findall(b"".join(objects)) for corner in box]
    flat = pa.array(corners, pa.string()).cast(_INT32) if corners else pa.array([], _INT32)
    return pa.FixedSizeListArray.from_arrays(flat, type=SCHEMA.field("boxes").type.value_type), counts


def _list_columns(name: str, texts: Sequence[bytes], order: list[str]) -> dict[str, pa.Array]:
    """The columns of one repeated element, a list for each record; each record has one annotation."""
    letter = _LETTERS[name]
    counts = np.array([text.count(letter) for text in texts]) // 2
    text = b"".join(texts)
    if name == "hovers":
        text = text.replace(b"enter", b"1").replace(b"leave", b"0")
    leaves = _leaves(text, order)

    def nested(values: pa.Array) -> pa.Array:
        return _one_each(_lists(values, counts))

    if name == "hovers":
        return {
            "hover_action": nested(pa.array(_ACTIONS).take(leaves["action"])),
            "hover_time_ms": nested(leaves["time"]),
        }
    points = np.stack([leaves["x"].to_numpy(), leaves["y"].to_numpy()], axis=1)
    kind = "trace" if name == "trace" else "click"
    return {f"{kind}_xy": nested(_pairs(points)), f"{kind}_time_ms": nested(leaves["time"])}


def _leaves(text: bytes, order: list[str]) -> dict[str, pa.Array]:
    """The leaves of all entries as columns; leaves that are not in `order` are null."""
    if not text:
        return {leaf: pa.array([], kind) for leaf, kind in _LEAVES.items()}
    lines = text.translate(_TO_LINES, _NOT_NUMBER)
    columns = _csv(lines, [*order, *_ENDS], {leaf: _LEAVES[leaf] for leaf in order})
    entries = len(columns[order[0]])
    return {leaf: pa.nulls(entries, kind) for leaf, kind in _LEAVES.items()} | columns


def _pairs(xy: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(xy.ravel()), 2)


def _lists(values: pa.Array, counts: NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _one_each(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)
