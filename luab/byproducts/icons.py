"""Icons on the images of COCO-AB: where annotators added, moved and left them. A class has at most one icon."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

TAG_COLUMNS = ["image_id", "width", "height", "action_type", "action_class", "action_to_xy"]
"""Columns of the index that the functions below need, and the size of the image."""

_BATCH_RECORDS = 4096


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the rows of a table; only some rows at a time are Python objects."""
    for batch in table.to_batches(max_chunksize=_BATCH_RECORDS):
        yield from batch.to_pylist()


def last_records(table: pa.Table) -> pa.Table:
    """Returns the last record of each image, in the order of the table; only these records count.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    last = {number: row for row, number in enumerate(table["image_id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


def added(record: Mapping[str, Any]) -> dict[int, list[float]]:
    """Returns class -> the place where its icon was last added; ignores moves and removals, so removed icons count.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    return {label: to for kind, label, to in _actions(record) if kind == "add"}


def left(record: Mapping[str, Any]) -> dict[int, list[float]]:
    """Returns class -> the place of its icon when the page was submitted."""
    icons: dict[int, list[float]] = {}
    for kind, label, to in _actions(record):
        if kind == "remove":
            icons.pop(label, None)
        else:
            icons[label] = to
    return icons


class IconPath(NamedTuple):
    """The path of one icon.

    places: its last add, then the places it was dragged to; x right, y down, fractions of the image; NaN where the
    release has no point. removed: whether it was removed in the end.
    """

    places: list[list[float]]
    removed: bool


def icon_paths(record: Mapping[str, Any]) -> dict[int, IconPath]:
    """Returns class -> the path of its icon since it was last added; ignores icons that were never added."""
    paths: dict[int, IconPath] = {}
    for kind, label, to in _actions(record):
        if kind == "add":
            paths[label] = IconPath([to], removed=False)
        elif label in paths:
            places = paths[label].places
            paths[label] = IconPath(places, True) if kind == "remove" else IconPath([*places, to], False)
    return paths


def _actions(record: Mapping[str, Any]) -> Iterator[tuple[str, int, list[float]]]:
    return zip(record["action_type"], record["action_class"], record["action_to_xy"], strict=True)
