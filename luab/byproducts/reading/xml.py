"""Parses one record of ImageNet-AB from XML to a row, strictly.

`luab.byproducts.imagenet_ab` shows a record; `luab.byproducts.schema` explains the columns.
"""

import math
from typing import Any

from lxml import etree

from luab.byproducts.reading.bad_records import BadRecord

Row = dict[str, Any]
_Size = tuple[int | None, int | None]

INT32, _INT64 = 2**31 - 1, 2**63 - 1
TEXTS = ("assignment_id", "hit_id", "imagenet_hit_id", "worker_id")
INTEGERS = {  # column: (tag, largest value)
    "hit_submit_time_s": ("hit_submit_time", _INT64),
    "estimate_time_ms": ("estimateTime", _INT64),
    "hovered_count": ("hoveredCount", INT32),
    "selected_count": ("selectedCount", INT32),
    "page_idx": ("page_idx", INT32),
    "image_idx": ("image_idx", INT32),
    "displayed_height": ("imageHeight", INT32),
    "displayed_width": ("imageWidth", INT32),
}
LISTS = ("click_xy", "click_time_ms", "trace_xy", "trace_time_ms", "hover_action", "hover_time_ms")
PER_METADATA = (*TEXTS, *INTEGERS, "selected", "position_xy", *LISTS)

# Entities are not resolved, nothing is downloaded, and the limits of libxml2 on depth and size stay on.
_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, remove_comments=True, remove_pis=True
)


def parse_record(data: bytes) -> Row:
    """Parses one XML record; the row has no image_id and wnid, since these come from the path of the file.

    The release writes an empty list as one element with the text None, so only elements with children are entries.
    Numbers that describe the page or the image may be missing (null). A point must have its coordinates, a trace
    sample and a hover action must also have their time. Otherwise raises BadRecord.
    """
    root = parse_xml(data)
    boxes: list[list[int]] = []
    entries: list[Row] = []
    sizes: list[_Size] = []
    for child in root:
        if child.tag == "metadata" and len(child):
            entries.append(_metadata(child))
        elif child.tag == "object":
            boxes.append(_box(child))
        elif child.tag == "size":
            sizes.append(_size({part.tag: part.text for part in child}, "width", "height"))
    # The page measured the picture itself, so its size takes precedence over the box's <size>.
    # It is 0 if the page could not load the picture.
    known = (size for size in [entry["original"] for entry in entries] + sizes if all(size))
    width, height = next(known, (None, None))
    row: Row = {"annotators": len(entries), "has_box": bool(boxes), "boxes": boxes, "width": width, "height": height}
    row |= {name: [entry[name] for entry in entries] for name in PER_METADATA}
    return row


def parse_xml(data: bytes) -> Any:
    """Returns the root element of a record; it must be well-formed, without a document type."""
    if not data:
        raise BadRecord("it is empty, not a regular file, or larger than 64 MiB")
    if b"<!DOCTYPE" in data:
        raise BadRecord(_DOCTYPE)
    try:
        root = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        raise BadRecord(f"not XML: {error}") from error
    if root.getroottree().docinfo.doctype:  # the check of the bytes misses it in UTF-16
        raise BadRecord(_DOCTYPE)
    if root.tag != "annotation":
        raise BadRecord(f"expected <annotation>, found <{root.tag}>")
    return root


_DOCTYPE = "it declares a document type; the release never does, and a document type can hide an XML bomb"


def _metadata(element: Any) -> Row:
    texts: dict[str, str | None] = {}
    tags = ("selectedRecord", "mouseTracking", "hoveredRecord", "imagePosition")
    lists: dict[str, list[dict[str, str | None]]] = {tag: [] for tag in tags}
    for child in element:
        parts = lists.get(child.tag)
        if parts is None:
            texts[child.tag] = child.text
        elif len(child):  # otherwise its text is None: an empty list
            parts.append({part.tag: part.text for part in child})
    clicks, trace, hovers, positions = lists.values()
    entry: Row = {name: _text(texts.get(name)) for name in TEXTS}
    entry |= {name: _integer(texts.get(tag), tag, most) for name, (tag, most) in INTEGERS.items()}
    entry["selected"] = _selected(texts.get("selected"))
    entry["position_xy"] = _point(positions[0]) if positions else [math.nan, math.nan]
    entry["click_xy"] = [_point(click) for click in clicks]
    entry["click_time_ms"] = [_integer(click.get("time"), "time", _INT64) for click in clicks]
    entry["trace_xy"] = [_point(sample) for sample in trace]
    entry["trace_time_ms"] = [_time(sample) for sample in trace]
    entry["hover_action"] = [_action(hover) for hover in hovers]
    entry["hover_time_ms"] = [_time(hover) for hover in hovers]
    entry["original"] = _size(texts, "originalImageWidth", "originalImageHeight")
    return entry


def _box(element: Any) -> list[int]:
    bounds = element.find("bndbox")
    if bounds is None:
        raise BadRecord("an <object> has no <bndbox>")
    box = [_integer(bounds.findtext(tag), tag) for tag in ("xmin", "ymin", "xmax", "ymax")]
    if None in box:
        raise BadRecord("a <bndbox> does not have all four numbers")
    return box  # type: ignore[return-value]


def _size(texts: dict[str, str | None], width: str, height: str) -> _Size:
    return _integer(texts.get(width), width), _integer(texts.get(height), height)


def _text(text: str | None) -> str | None:
    return None if text is None or text == "None" else text


def _selected(text: str | None) -> bool:
    if text not in ("True", "False"):  # compare the text: bool("False") is true
        raise BadRecord(f"expected True or False as <selected>, found {text!r}")
    return text == "True"


def _integer(text: str | None, tag: str, most: int = INT32) -> int | None:
    if text is None or text == "None":
        return None
    try:
        value = int(text)
    except ValueError as error:
        raise BadRecord(f"expected an integer as <{tag}>, found {text[:40]!r}") from error
    if not -most <= value <= most:
        raise BadRecord(f"expected at most {most} as <{tag}>, found {text[:40]}")
    return value


def _time(parts: dict[str, str | None]) -> int:
    time_ms = _integer(parts.get("time"), "time", _INT64)
    if time_ms is None:
        raise BadRecord("a mouseTracking or hoveredRecord has no <time>")
    return time_ms


def _action(parts: dict[str, str | None]) -> str:
    action = parts.get("action")
    if action not in ("enter", "leave"):
        raise BadRecord(f"expected enter or leave as <action>, found {action!r}")
    return action


def _point(parts: dict[str, str | None]) -> list[float]:
    try:
        point = [float(parts["x"] or ""), float(parts["y"] or "")]
    except (KeyError, ValueError) as error:
        raise BadRecord(f"expected a point with numbers <x> and <y>, found {parts}") from error
    if not all(map(math.isfinite, point)):
        raise BadRecord(f"expected a point with finite <x> and <y>, found {parts}")
    return point
