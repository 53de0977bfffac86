"""Records to columns: blocks of XML files in, Arrow batches out, with the strict reader's values to the bit."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.patterns import LISTS, VALUES, Fields, Shapes
from luab.byproducts.reading.tar import Block
from luab.byproducts.reading.xml import INTEGERS, TEXTS, BadRecord, Row, parse_record
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

# Of an element's entries only the numbers stay, one entry per line and a comma at each end of a tag; an <action> is
# made a number before. LETTERS stand in both tags of an entry, hoveredRecord, mouseTracking, selectedRecord, and
# nowhere else in it.
_LETTERS = {"hovers": b"R", "trace": b"T", "clicks": b"R"}
_TO_LINES = bytes.maketrans(b"/RT", b",\n\n")
_NO_NUMBER = bytes(set(range(256)) - set(b"0123456789.-/RT"))
_LEAVES = {"action": pa.int8(), "time": _INT64, "x": pa.float64(), "y": pa.float64()}
_ENDS = ["end_of_entry", "end_of_line"]  # fields that the last two commas make
_ACTIONS = ["leave", "enter"]


class ReadBlock(NamedTuple):
    """What became of a block.

    batch: its records, columns of `SCHEMA`. tally: what they hold. bad: name and fault of the broken record
    at which the reading stopped, or None.
    """

    batch: pa.RecordBatch
    tally: Tally
    bad: tuple[str, str] | None


class BlockReader:
    """Reads blocks of records; knows the shapes it has met, which change its speed and nothing else.

    Args:
        skip_bad: Whether broken records are counted and left out; otherwise the first one ends its block.
    """

    def __init__(self, skip_bad: bool) -> None:
        self._skip_bad = skip_bad
        self._shapes = Shapes()

    def read(self, block: Block) -> ReadBlock:
        """Turns one block into columns."""
        tally, rows, bad = Tally(), _Rows(), None
        end = 0
        for name, size in zip(block.names, block.sizes, strict=True):
            start, end = end, end + size
            try:
                if (ids := _ids(name)) is None:
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
        self._shapes.settle()
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
    """Records of a block in the two forms they come in, and the place of each."""

    def __init__(self) -> None:
        self._image_ids: list[str] = []
        self._wnids: list[str] = []
        self._lines: list[bytes] = []
        self._lists: list[tuple[bytes, ...]] = []
        self._field_places: list[int] = []
        self._rows: list[Row] = []
        self._row_places: list[int] = []

    def add_fields(self, image_id: str, wnid: str, fields: Fields) -> None:
        values, lists = fields
        self._field_places.append(len(self._lines) + len(self._rows))
        self._image_ids.append(image_id)
        self._wnids.append(wnid)
        self._lines.append(b",".join(values))
        self._lists.append(lists)

    def add_row(self, row: Row) -> None:
        self._row_places.append(len(self._lines) + len(self._rows))
        self._rows.append(row)

    def batch(self, orders: dict[str, list[str]]) -> pa.RecordBatch:
        if not self._lines:
            return batch_of_rows(self._rows)
        usual = self._batch_of_fields(orders)
        if not self._rows:
            return usual
        both = pa.Table.from_batches([usual, batch_of_rows(self._rows)]).combine_chunks()
        places = np.argsort(np.array(self._field_places + self._row_places))
        (batch,) = both.take(pa.array(places)).combine_chunks().to_batches()
        return batch

    def _batch_of_fields(self, orders: dict[str, list[str]]) -> pa.RecordBatch:
        values = _values(self._lines)
        objects, *entries = zip(*self._lists, strict=True)
        boxes, box_counts = _boxes(objects)
        width, height = _size(values)
        columns: dict[str, pa.Array] = {
            "image_id": pa.array(self._image_ids, pa.string()),
            "wnid": pa.array(self._wnids, pa.string()),
            "annotators": pa.array(np.ones(len(self._lines), np.int16)),
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
    """The strict reader's rows as columns."""
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _ids(name: str) -> tuple[str, str] | None:
    """Image and class of a record's path, None for macOS junk."""
    usual = _USUAL_NAME.fullmatch(name)
    if usual:
        return usual[2], usual[1]
    path = PurePosixPath(name)
    if path.name.startswith("._") or path.name == ".DS_Store":
        return None
    if path.suffix != ".xml" or not _WNID.fullmatch(path.parent.name):
        raise BadRecord("expected a file <wnid>/<wnid>_<number>.xml")
    return path.stem, path.parent.name


# ---- texts of many records at once


_SIZES = ("original", "box")


def _values(lines: list[bytes]) -> dict[str, pa.Array]:
    """The texts that occur once per record, as columns by their group's name."""
    return _csv(b"\n".join(lines), VALUES, _TYPES)


def _csv(lines: bytes, names: Sequence[str], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    """The columns that have a type."""
    # One block, read by this thread: the processes around share the cores out.
    how = pyarrow.csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(lines) + 1)
    read = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    table = pyarrow.csv.read_csv(pa.BufferReader(lines), how, _PLAIN, read).combine_chunks()
    return {name: table[name].chunk(0) for name in types}


def _size(values: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Width and height: as the page read them, or where it could not, as the box's <size> has them."""
    sources = [[values[f"{source}_{side}"].fill_null(0) for side in ("width", "height")] for source in _SIZES]
    known = [pc.and_(pc.not_equal(width, 0), pc.not_equal(height, 0)) for width, height in sources]
    width, height = (
        pc.if_else(known[0], by_page, pc.if_else(known[1], by_box, pa.scalar(None, _INT32)))
        for by_page, by_box in zip(*sources, strict=True)
    )
    return width, height


def _boxes(objects: Sequence[bytes]) -> tuple[pa.Array, NDArray[np.int64]]:
    """The boxes of all records, and how many each has."""
    counts = np.array([text.count(b"<bndbox>") for text in objects])
    corners = [corner for box in _BOX.findall(b"".join(objects)) for corner in box]
    flat = pa.array(corners, pa.string()).cast(_INT32) if corners else pa.array([], _INT32)
    return pa.FixedSizeListArray.from_arrays(flat, type=SCHEMA.field("boxes").type.value_type), counts


def _list_columns(name: str, texts: Sequence[bytes], order: list[str]) -> dict[str, pa.Array]:
    """The columns of one repeated element of metadata, a list for each record's single metadata."""
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
    """The leaves of all entries, each a column; those that are not in `order` are null throughout."""
    if not text:
        return {leaf: pa.array([], kind) for leaf, kind in _LEAVES.items()}
    lines = text.translate(_TO_LINES, _NO_NUMBER)
    found = _csv(lines, [*order, *_ENDS], {leaf: _LEAVES[leaf] for leaf in order})
    entries = len(found[order[0]])
    return {leaf: pa.nulls(entries, kind) for leaf, kind in _LEAVES.items()} | found


def _pairs(xy: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(xy.ravel()), 2)


def _lists(values: pa.Array, counts: NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _one_each(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)
