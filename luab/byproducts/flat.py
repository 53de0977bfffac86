"""Clicks and mouse traces as flat tables, straight from the released archives of ImageNet-AB and COCO-AB."""

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.byproducts import coco_ab, imagenet_ab
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.byproducts.nested import Floats, Integers, entries, inner_entries, points
from luab.errors import DataError
from luab.fetch.formats import UNPACKABLE, format_of

if TYPE_CHECKING:
    import pandas as pd

_OF_TRACES = ("image_id", "record", "annotator", "order", "x", "y", "time_ms", "selected", "worker_id")
_OF_CLICKS = ("image_id", "label", *_OF_TRACES[1:4], "action", *_OF_TRACES[4:], "width", "height")
_Flatten = Callable[[pa.Table], pa.Table]


def read_clicks(
    archive: Path | str,
    *,
    images: Collection[Any] | None = None,
    on_bad: Literal["raise", "count"] = "raise",
) -> "pd.DataFrame":
    """Reads the clicks of a release, one row per click, in the order of the archive.

    Args:
        archive: imagenet_ab_v1_0.tar.gz (or a tar, zip or folder of its records), coco_ab_v1_0.json, or an index that
            `luab index` wrote. What it is decides its content, not its name.
        images: Only the clicks on these images (image_id, as in the table); None for all.
        on_bad: "raise" stops at a record that does not have the format of the release; "count" leaves it out.

    Returns:
        image_id; label, the wnid of the record on ImageNet-AB and the name of the icon's class on COCO-AB; record, the
        position in the archive, from 0; annotator, the number of the annotator of the record, from 0; order, that of
        the click within them, from 0; action, "click", or on COCO-AB "add", "move" or "remove"; x and y in fractions of
        the image, x right, y down (they may lie outside [0, 1]; NaN without a place); time_ms, epoch ms on ImageNet-AB
        and ms since the page began on COCO-AB, NaN if absent; selected, whether the image was selected, or the icon was
        on the image, when the page was submitted; worker_id; width and height of the image in pixels, NaN if unknown.
        image_id is text on ImageNet-AB and COCO's number on COCO-AB.

    Raises:
        DataError: As for `luab.byproducts.imagenet_ab.index` and `luab.byproducts.coco_ab.index`, which read the
            archive; or the file is neither.
    """
    return _read(Path(archive), images, on_bad, _clicks, _icons)


def read_traces(
    archive: Path | str,
    *,
    images: Collection[Any] | None = None,
    on_bad: Literal["raise", "count"] = "raise",
) -> "pd.DataFrame":
    """Reads the mouse traces of a release, one row per sample of the pointer, in the order of the archive.

    All traces of ImageNet-AB do not fit into the memory of a small machine: `images` chooses some.

    Args:
        archive, images, on_bad: As for `read_clicks`.

    Returns:
        image_id, record, annotator, order, x, y, time_ms, selected (NA on COCO-AB, where images are not selected) and
        worker_id, as for `read_clicks`.

    Raises:
        DataError: As for `read_clicks`.
    """
    return _read(Path(archive), images, on_bad, _traces, _pointer)


def index_file(archive: Path, parquet: Path, card: Path, **options: Any) -> str:
    """Indexes a released archive, and returns a sentence with its counts.

    Args:
        archive: As for `read_clicks`, but not an index.
        parquet, card: Files to write.
        options: As for `luab.byproducts.imagenet_ab.index`.

    Raises:
        DataError: As for `read_clicks`.
    """
    reader: Any = coco_ab if _format(archive) == "JSON" else imagenet_ab
    return str(reader.agreement(reader.index(archive, parquet, card, **options)))


def _read(
    archive: Path, images: Collection[Any] | None, on_bad: str, browsing: _Flatten, tagging: _Flatten
) -> "pd.DataFrame":
    with tempfile.TemporaryDirectory() as folder:
        parquet = archive
        if _format(archive) != "Parquet":
            parquet = Path(folder, "index.parquet")
            index_file(archive, parquet, Path(folder, "card.json"), on_bad=on_bad)
        is_coco, pieces = _pieces(parquet)
        flatten = tagging if is_coco else browsing
        tables, start = [], 0
        for piece in pieces:
            numbered = piece.append_column("record", pa.array(np.arange(start, start + piece.num_rows)))
            start += piece.num_rows
            if images is not None:
                chosen = pa.array(list(images), piece.schema.field("image_id").type)
                numbered = numbered.filter(pc.is_in(piece["image_id"], chosen))
            tables.append(flatten(numbered.combine_chunks()))
    return pa.concat_tables(tables).unify_dictionaries().to_pandas()


def _format(archive: Path) -> str:
    """The format of a file by its content; "folder" for a folder."""
    if archive.is_dir():
        return "folder"
    if not archive.is_file():
        raise DataError(
            f"{archive}: expected the archive of ImageNet-AB or COCO-AB, or an index, found no file. `luab fetch "
            "imagenet_ab` and `luab fetch coco_ab` download them."
        )
    with open(archive, "rb") as file:
        found = format_of(file.read(1024))
    if found not in (*UNPACKABLE, "JSON", "Parquet"):
        raise DataError(
            f"{archive}: expected a tar or zip (ImageNet-AB), JSON (COCO-AB) or an index (Parquet), found "
            f"{found if found != 'unknown' else 'another format'}. Download it again."
        )
    return found


def _pieces(parquet: Path) -> tuple[bool, Iterator[pa.Table]]:
    """Whether an index is of COCO-AB, and its row groups."""
    try:
        is_coco = "action_type" in pq.read_schema(parquet).names
    except (pa.ArrowException, OSError):
        is_coco = False  # the reader below says what is wrong
    reader: Any = coco_ab if is_coco else imagenet_ab
    return is_coco, reader.read_index_pieces(parquet, reader.SCHEMA.names)


def _clicks(table: pa.Table) -> pa.Table:
    xy, _, lengths = points(table["click_xy"])
    times, _ = inner_entries(table["click_time_ms"])
    columns = _of_annotators(table, lengths)
    columns |= {"action": pa.repeat("click", len(xy)), **_places(xy), "time_ms": _floats(times)}
    rows = np.repeat(entries(table["click_xy"])[1], lengths)
    columns |= {"label": table["wnid"].take(pa.array(rows)), **_sizes(table, rows)}
    return _ordered(columns, _OF_CLICKS)


def _traces(table: pa.Table) -> pa.Table:
    xy, _, lengths = points(table["trace_xy"])
    times, _ = inner_entries(table["trace_time_ms"])
    return _ordered(_of_annotators(table, lengths) | _places(xy) | {"time_ms": _floats(times)}, _OF_TRACES)


def _of_annotators(table: pa.Table, lengths: Integers) -> dict[str, Any]:
    """Columns of the annotators of ImageNet-AB, each repeated for so many points."""
    workers, owner = entries(table["worker_id"])
    first = np.searchsorted(owner, owner)  # of the annotators of the same record
    annotators = np.repeat(np.arange(len(owner)), lengths)
    return _of_records(table, owner[annotators]) | {
        "annotator": (np.arange(len(owner)) - first)[annotators],
        "order": _order(lengths),
        "selected": entries(table["selected"])[0].take(pa.array(annotators)),
        "worker_id": workers.take(pa.array(annotators)),
    }


def _icons(table: pa.Table) -> pa.Table:
    kinds, rows = entries(table["action_type"])
    xy, _, lengths = _points_of_rows(table["action_to_xy"])
    classes = entries(table["action_class"])[0].to_numpy()
    names = pa.array([item.name for item in COCO_CLASSES])
    actions = kinds.to_pylist()
    icons = list(zip(rows.tolist(), classes.tolist(), strict=True))
    last = dict(zip(icons, actions, strict=True))  # decides whether an icon was there in the end
    kept = [last[icon] != "remove" for icon in icons]
    columns = _of_records(table, rows) | _places(xy) | _sizes(table, rows)
    columns |= {"label": names.take(pa.array(classes)), "action": kinds, "selected": pa.array(kept, pa.bool_())}
    columns |= {"annotator": np.zeros(len(rows), np.int64), "order": _order(lengths)}
    columns |= {"time_ms": _floats(entries(table["action_time_ms"])[0]), "worker_id": _taken(table, "worker_id", rows)}
    return _ordered(columns, _OF_CLICKS)


def _pointer(table: pa.Table) -> pa.Table:
    xy, rows, lengths = _points_of_rows(table["trace_xy"])
    columns = _of_records(table, rows) | _places(xy)
    columns |= {"annotator": np.zeros(len(rows), np.int64), "order": _order(lengths)}
    columns |= {"time_ms": _floats(entries(table["trace_time_ms"])[0]), "worker_id": _taken(table, "worker_id", rows)}
    return _ordered(columns | {"selected": pa.nulls(len(rows), pa.bool_())}, _OF_TRACES)


def _points_of_rows(column: pa.ChunkedArray) -> tuple[Floats, Integers, Integers]:
    """Returns the points [n, 2] of all rows, the row of each, and their number in each row."""
    found, rows = entries(column)
    lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
    return found.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2), rows, lengths


def _of_records(table: pa.Table, rows: Integers) -> dict[str, Any]:
    return {name: _taken(table, name, rows) for name in ("image_id", "record")}


def _sizes(table: pa.Table, rows: Integers) -> dict[str, Any]:
    sizes = {name: _floats(_taken(table, name, rows)) for name in ("width", "height")}
    return {name: pc.if_else(pc.equal(size, 0), None, size) for name, size in sizes.items()}


def _taken(table: pa.Table, name: str, rows: Integers) -> Any:
    return table[name].take(pa.array(rows))


def _places(xy: Floats) -> dict[str, Any]:
    return {"x": xy[:, 0], "y": xy[:, 1]}


def _floats(values: Any) -> Any:
    return values.cast(pa.float64())


def _order(lengths: Integers) -> Integers:
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _ordered(columns: dict[str, Any], names: tuple[str, ...]) -> pa.Table:
    """The columns in order; text as dictionaries, which take little memory."""
    arrays = {}
    for name in names:
        values = columns[name] if isinstance(columns[name], pa.ChunkedArray) else pa.chunked_array([columns[name]])
        arrays[name] = values.dictionary_encode() if pa.types.is_string(values.type) else values
    return pa.table(arrays)
