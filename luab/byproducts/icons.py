"""What an annotator of COCO-AB said of an image: a point for each class whose icon was put on it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

TAG_COLUMNS = ["image_id", "width", "height", "action_type", "action_class", "action_from_xy", "action_to_xy"]
"""Columns of the index that `added` and `left` read."""


_BATCH_RECORDS = 4096


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table one after the other; few are Python objects at a time."""
    for batch in table.to_batches(max_chunksize=_BATCH_RECORDS):
        yield from batch.to_pylist()


def last_records(table: pa.Table) -> pa.Table:
    """The rows that count: of each image the last, in the table's order.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    last = {number: row for row, number in enumerate(table["image_id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


def added(record: Mapping[str, Any]) -> dict[int, list[float]]:
    """Class -> where its icon was added last; moves and removals have no say, so a removed icon keeps its point.

    Source: naver-ai/NeglectedFreeLunch, coco_dataloader.ipynb.
    """
    actions = zip(record["action_type"], record["action_class"], record["action_to_xy"], strict=True)
    return {label: to for kind, label, to in actions if kind == "add"}


def left(record: Mapping[str, Any]) -> dict[int, list[float]]:
    """Class -> where its icon was when the page was submitted; a class has one icon."""
    icons: dict[int, list[float]] = {}
    for kind, label, to in zip(record["action_type"], record["action_class"], record["action_to_xy"], strict=True):
        if kind == "remove":
            icons.pop(label, None)
        else:
            icons[label] = to
    return icons


class IconPath(NamedTuple):
    """Where one icon was: its last add, then the places that it was dragged to; and whether it was removed in the end.

    places: x right, y down, fractions of the image; NaN where the release has no point.
    """

    places: list[list[float]]
    removed: bool


def icon_paths(record: Mapping[str, Any]) -> dict[int, IconPath]:
    """Class -> the way of its icon since it was added last; what was done with an icon never added has no way."""
    found: dict[int, IconPath] = {}
    for kind, label, to in zip(record["action_type"], record["action_class"], record["action_to_xy"], strict=True):
        if kind == "add":
            found[label] = IconPath([to], removed=False)
        elif label in found:
            places = found[label].places
            found[label] = IconPath(places, True) if kind == "remove" else IconPath([*places, to], False)
    return found
