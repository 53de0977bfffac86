"""Turns one record of COCO-AB, decoded from JSON, into a row.

`luab.byproducts.coco_ab` shows a record; `luab.byproducts.schema` explains the columns.
"""

import math
from collections import Counter
from typing import Any

from luab.byproducts.coco_classes import INDEX_OF_NAME, PANES
from luab.byproducts.reading.bad_records import BadRecord

Row = dict[str, Any]
Notes = Counter[str]
"""Counts that a row does not show: missing_values, unknown_keys, and absent or null points."""

_INT32, _INT64 = 2**31 - 1, 2**63 - 1
_MAX_CHARACTERS = 200
_INTEGERS = {  # column: (key, largest value); none may be negative
    "width": ("originalImageWidth", _INT32),
    "height": ("originalImageHeight", _INT32),
    "displayed_width": ("imageWidth", _INT32),
    "displayed_height": ("imageHeight", _INT32),
    "time_spent_ms": ("timeSpent", _INT64),
    "page_id": ("page_id", _INT32),
}
_TEXTS = ("worker_id", "hit_id")
_LISTS = ("actionHistories", "categoryHistories", "mouseTracking")
_KEYS = {"image_id", *(key for key, _ in _INTEGERS.values()), *_TEXTS, *_LISTS}
_NEEDED = {"add": ("pointTo",), "move": ("pointFrom", "pointTo"), "remove": ("pointFrom",)}
_NOWHERE = [math.nan, math.nan]


def parse_record(record: Any) -> tuple[Row, Notes]:
    """Turns a decoded record into a row.

    Required are image_id, and the type, class and time of every action. The sizes, times, identifiers and lists of a
    record may be absent or null. A point of an action that is absent or null becomes NaN. Raises BadRecord.
    """
    if not isinstance(record, dict):
        raise BadRecord(f"expected an object, found {_shown(record)}")
    notes: Notes = Counter(unknown_keys=len(record.keys() - _KEYS))
    image_id = _integer(record.get("image_id"), "image_id", _INT32)
    if image_id is None:
        raise BadRecord("image_id is missing")
    row: Row = {"image_id": image_id}
    row |= {name: _integer(record.get(key), key, largest) for name, (key, largest) in _INTEGERS.items()}
    row |= {name: _text(record.get(name), name) for name in _TEXTS}
    notes["missing_values"] = sum(record.get(key) is None for key in _KEYS)
    actions, panes, samples = (_objects(record.get(key), key) for key in _LISTS)
    row |= _actions(actions, notes) | _panes(panes)
    row["trace_xy"] = [_point(sample, "mouseTracking") for sample in samples]
    row["trace_time_ms"] = [_time(sample, "mouseTracking") for sample in samples]
    return row, notes


def _actions(actions: list[dict[str, Any]], notes: Notes) -> Row:
    for action in actions:
        kind, icon = action.get("actionType"), action.get("iconType")
        if not isinstance(kind, str) or kind not in _NEEDED:
            raise BadRecord(f"expected add, move or remove as actionType, found {_shown(kind)}")
        if not isinstance(icon, str) or icon not in INDEX_OF_NAME:
            raise BadRecord(f"expected one of the 80 classes as iconType, found {_shown(icon)}")
    return {
        "action_type": [action["actionType"] for action in actions],
        "action_class": [INDEX_OF_NAME[action["iconType"]] for action in actions],
        "action_from_xy": [_end(action, "pointFrom", notes) for action in actions],
        "action_to_xy": [_end(action, "pointTo", notes) for action in actions],
        "action_time_ms": [_time(action, "actionHistories") for action in actions],
    }


def _end(action: dict[str, Any], key: str, notes: Notes) -> list[float]:
    point = action.get(key)
    if point is not None:
        return _point(point, key)
    if key in _NEEDED[action["actionType"]]:
        notes["needed_points_missing"] += 1
    else:
        notes["points_null" if key in action else "points_absent"] += 1
    return _NOWHERE


def _panes(panes: list[dict[str, Any]]) -> Row:
    row: Row = {
        "pane_index": [_integer(pane.get("categoryIndex"), "categoryIndex", len(PANES) - 1) for pane in panes],
        "pane_name": [_text(pane.get("categoryName"), "categoryName") for pane in panes],
        "pane_time_ms": [_time(pane, "categoryHistories") for pane in panes],
        "pane_by_keyboard": [pane.get("usingKeyboard") for pane in panes],
    }
    for used in row["pane_by_keyboard"]:
        if used is not None and not isinstance(used, bool):
            raise BadRecord(f"expected true or false as usingKeyboard, found {_shown(used)}")
    return row


def _objects(value: Any, key: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise BadRecord(f"expected a list of objects as {key}, found {_shown(value)}")
    return value


def _integer(value: Any, key: str, largest: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= largest:  # isinstance would accept true
        raise BadRecord(f"expected a whole number from 0 to {largest} as {key}, found {_shown(value)}")
    return value


def _time(entry: dict[str, Any], key: str) -> int:
    value = entry.get("timeAt")
    if type(value) is int and 0 <= value <= _INT64:  # fast path: a record has dozens of times
        return value
    time_ms = _integer(value, f"timeAt of {key}", _INT64)
    if time_ms is None:
        raise BadRecord(f"an entry of {key} has no timeAt")
    return time_ms


def _text(value: Any, key: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise BadRecord(f"expected a string of at most {_MAX_CHARACTERS} characters as {key}, found {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        raise BadRecord(f"expected a string of valid Unicode as {key}, found {_shown(value)}") from error
    return value


def _point(value: Any, key: str) -> list[float]:
    if not isinstance(value, dict):
        raise BadRecord(f"expected an object with x and y as {key}, found {_shown(value)}")
    x, y = value.get("x"), value.get("y")
    if type(x) is float and type(y) is float and math.isfinite(x) and math.isfinite(y):
        return [x, y]
    return [_coordinate(x, f"x of {key}"), _coordinate(y, f"y of {key}")]


def _coordinate(value: Any, key: str) -> float:
    if not (type(value) is int and abs(value) <= _INT32) and not (isinstance(value, float) and math.isfinite(value)):
        raise BadRecord(f"expected a finite number as {key}, found {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    """The value for a message, shortened."""
    if isinstance(value, list | dict):
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and abs(value) > _INT64:
        return "an integer of more than 64 bits"
    return repr(value)[:60]
