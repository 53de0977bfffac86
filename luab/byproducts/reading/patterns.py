"""Reads records by regular expressions, which is faster than parsing them as XML.

A program wrote the released records, so most have the same tags in the same order (the same *shape*) and plain
values. From a record that the strict parser (`luab.byproducts.reading.xml`) accepted, this module builds a regular
expression that matches any whole record of the same shape with simple values (digits, letters). A record that contains
anything else (an entity, a comment, an attribute, a document type, an unusual number) does not match and goes to the
strict parser. A match takes 7 us per record; libxml2 alone takes 18 us.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from luab.byproducts.reading.xml import INT32, INTEGERS, TEXTS, parse_xml

# Longer records go to the strict parser, which has its own limits.
_LARGEST_BYTES = 1 << 20
_MAX_SHAPES, _MAX_TRIES = 16, 64

_GAP = rb"[ \t\r\n]*+"
_WORD = rb"(?!None<)[0-9A-Za-z]{1,64}+"  # None means a missing value
_SMALL = rb"[0-9]{1,9}+"  # fits int32
_LARGE = rb"[0-9]{1,15}+"  # fits int64, and float64 without rounding
_NUMBER = rb"-?[0-9]{1,4}+(?:\.[0-9]{1,25}+)?+"
_FREE = rb"[0-9A-Za-z_ ./-]*+"  # text that the index does not contain
_DECLARATION = rb'(?:<\?xml version="1\.0"(?: encoding="(?:utf|UTF)-8")? ?\?>)?+'

# Leaves that become columns: path below <annotation> -> (group, pattern).
_COLUMNS = {
    **{f"metadata/{name}": (name, _WORD) for name in TEXTS},
    **{f"metadata/{tag}": (name, _SMALL if most == INT32 else _LARGE) for name, (tag, most) in INTEGERS.items()},
    "metadata/selected": ("selected", rb"True|False"),
    "metadata/imagePosition/x": ("position_x", _NUMBER),
    "metadata/imagePosition/y": ("position_y", _NUMBER),
    "metadata/originalImageWidth": ("original_width", _SMALL),
    "metadata/originalImageHeight": ("original_height", _SMALL),
}
# Further leaves of a record with a box.
_SIZES = {"size/width": ("box_width", _SMALL), "size/height": ("box_height", _SMALL)}
_IGNORED = {
    *("folder", "filename", "source/database", "size/depth", "segmented", "metadata/imageID"),
    *("object/name", "object/pose", "object/truncated", "object/difficult"),
}
_POINT = {"time": _LARGE, "x": _NUMBER, "y": _NUMBER}
# Leaves of the elements that repeat: path -> (group, leaf -> pattern).
_REPEATED = {
    "metadata/hoveredRecord": ("hovers", {"action": rb"(?:enter|leave)", "time": _LARGE}),
    "metadata/mouseTracking": ("trace", _POINT),
    "metadata/selectedRecord": ("clicks", _POINT),
}
_OBJECTS = "objects"
_CORNERS = ["xmin", "ymin", "xmax", "ymax"]

VALUES = tuple(name for name, _ in (*_COLUMNS.values(), *_SIZES.values()))
LISTS = (_OBJECTS, *(name for name, _ in _REPEATED.values()))
_LEAST = {"hovers": {"action", "time"}, "trace": {"time", "x", "y"}, "clicks": {"x", "y"}}

# The texts of VALUES, and the raw elements of LISTS; empty if missing.
Fields = tuple[tuple[bytes, ...], tuple[bytes, ...]]


class _Unusual(Exception):
    """The record is too unusual for a regular expression."""


class Shapes:
    """The shapes of the records so far."""

    def __init__(self) -> None:
        # Order of the leaves of each repeated element, the same in all shapes.
        self.orders: dict[str, list[str]] = {}
        self._examples: list[bytes] = []
        self._shapes: list[_Shape] = []
        self._tries = 0

    def read(self, record: bytes) -> Fields | None:
        """Returns the texts of a record, or None if its shape is unknown."""
        if len(record) > _LARGEST_BYTES:
            return None
        for shape in self._shapes:
            if match := shape.matches(record):
                shape.hits += 1
                texts = match.groups(b"")
                return shape.values(texts), shape.lists(texts)
        return None

    def learn(self, record: bytes) -> None:
        """Adds the shape of a record that the strict parser accepted, unless it is too unusual."""
        if self._tries == _MAX_TRIES or len(self._examples) == _MAX_SHAPES or len(record) > _LARGEST_BYTES:
            return
        self._tries += 1
        orders = dict(self.orders)
        try:
            pattern = _pattern(parse_xml(record), orders)
        except _Unusual:
            return
        if not re.fullmatch(pattern, record):
            return
        self._examples.append(record)
        if orders == self.orders:
            self._add(pattern, record)
            return
        # A list that is empty in an example may have entries in other records. Now that the order of its leaves is
        # known, shapes that differed only in this become one.
        self.orders, self._shapes = orders, []
        for example in self._examples:
            self._add(_pattern(parse_xml(example), orders), example)

    def sort(self) -> None:
        """Sorts the shapes by frequency, so that the most frequent is tried first."""
        self._shapes.sort(key=lambda shape: -shape.hits)

    def _add(self, pattern: bytes, example: bytes) -> None:
        for variant in (_spaced_as(example, pattern), pattern):
            if all(shape.pattern != variant for shape in self._shapes):
                self._shapes.append(_Shape(variant))


class _Shape:
    def __init__(self, pattern: bytes) -> None:
        regex = re.compile(pattern)
        self.pattern = pattern
        self.matches = regex.fullmatch
        self.values, self.lists = (
            itemgetter(*(regex.groupindex[name] - 1 for name in names)) for names in (VALUES, LISTS)
        )
        self.hits = 0


def _spaced_as(example: bytes, pattern: bytes) -> bytes:
    """Replaces flexible white space in a pattern by that of an example, which matches in a sixth less time."""
    pieces = pattern.split(_GAP)
    gaps = [b"(?P<gap%d>%s)" % (number, _GAP) for number in range(len(pieces) - 1)]
    match = re.fullmatch(_interleaved(pieces, gaps), example)
    assert match, "an example matches its own pattern"
    texts = [match[f"gap{number}"] for number in range(len(gaps))]
    return _interleaved(pieces, [_GAP if text is None else re.escape(text) for text in texts])


def _interleaved(pieces: list[bytes], between: list[bytes]) -> bytes:
    return pieces[0] + b"".join(one + piece for one, piece in zip(between, pieces[1:], strict=True))


def _pattern(root: Any, orders: dict[str, list[str]]) -> bytes:
    """The pattern of all records with the same tags; adds the order of the leaves of its lists to `orders`."""
    used: list[str] = []
    inside = b"".join(_children(root, "", used, orders))
    missing = [name for name in (*VALUES, *LISTS) if name not in used]
    optional = {*LISTS, *(name for name, _ in _SIZES.values())}
    if len(used) != len(set(used)) or not optional.issuperset(missing):
        raise _Unusual
    absent = b"".join(b"(?P<%s>)" % name.encode() for name in missing)
    return _DECLARATION + _GAP + b"<annotation>" + inside + _GAP + b"</annotation>" + _GAP + absent


def _children(parent: Any, path: str, used: list[str], orders: dict[str, list[str]]) -> Iterator[bytes]:
    for tag, run in groupby(parent, key=lambda child: child.tag):
        elements = list(run)
        below = f"{path}{tag}"
        if below in _REPEATED:
            yield _list(elements, below, used, orders)
        elif below == "object":
            used.append(_OBJECTS)
            yield b"(?P<objects>(?:%s)++)" % _branch(elements[0], below, [], orders)
        elif len(elements) > 1:
            raise _Unusual
        elif len(elements[0]):
            yield _branch(elements[0], below, used, orders)
        else:
            yield _leaf(tag, below, used)


def _branch(element: Any, path: str, used: list[str], orders: dict[str, list[str]]) -> bytes:
    if path == "object/bndbox":
        if [child.tag for child in element] != _CORNERS:
            raise _Unusual
        inside = b"".join(_tagged(tag, _SMALL) for tag in _CORNERS)
    elif path == "object" and [child.tag for child in element].count("bndbox") != 1:
        raise _Unusual
    elif path in ("object", "source", "size", "metadata", "metadata/imagePosition"):
        inside = b"".join(_children(element, f"{path}/", used, orders))
    else:
        raise _Unusual
    return _tagged(element.tag, inside + _GAP)


def _leaf(tag: str, path: str, used: list[str]) -> bytes:
    name, pattern = (_COLUMNS | _SIZES).get(path, ("", _FREE))
    if name:
        used.append(name)
        return _tagged(tag, b"(?P<%s>%s)" % (name.encode(), pattern))
    if path not in _IGNORED:
        raise _Unusual
    return _tagged(tag, pattern)


def _list(elements: list[Any], path: str, used: list[str], orders: dict[str, list[str]]) -> bytes:
    """The pattern of a repeated element; without entries, the element occurs once, with the text None."""
    (name, patterns), tag = _REPEATED[path], elements[0].tag
    empty = _tagged(tag, b"None")
    if len(elements) == 1 and not len(elements[0]):
        if name not in orders:
            return empty
        order = orders[name]
    else:
        order = [child.tag for child in elements[0]]
    if len(order) != len(set(order)) or not _LEAST[name] <= set(order) <= set(patterns):
        raise _Unusual
    if orders.setdefault(name, order) != order:
        raise _Unusual
    used.append(name)
    entry = _tagged(tag, b"".join(_tagged(leaf, patterns[leaf]) for leaf in order) + _GAP)
    return b"(?:(?P<%s>(?:%s)++)|%s)" % (name.encode(), entry, empty)


def _tagged(tag: str, inside: bytes) -> bytes:
    return _GAP + b"<%s>%s</%s>" % (tag.encode(), inside, tag.encode())
