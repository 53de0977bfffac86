"""Records of a shape that was seen before, read by one regular expression instead of as XML.

The released records were written by a program: order of tags, and nothing but plain texts. A record that the
strict reader (`luab.byproducts.reading.xml`) has accepted is turned into an expression that matches the whole of
any record with the same tags in the same order, whose values are of a kind that needs no judgement (digits,
letters). Whatever else a record holds (an entity, a comment, an attribute, a declared type, a number out of the
ordinary), it matches no shape and goes to the strict reader. 7 us a record, where libxml2 alone takes 18.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from luab.byproducts.reading.xml import INT32, INTEGERS, TEXTS, parse_xml

# What is longer goes to the strict reader, which has limits of its own.
_LARGEST_BYTES = 1 << 20
_MOST_SHAPES, _MOST_TRIES = 16, 64

_GAP = rb"[ \t\r\n]*+"
_WORD = rb"(?!None<)[0-9A-Za-z]{1,64}+"  # None stands for nothing
_SMALL = rb"[0-9]{1,9}+"  # fits int32
_LARGE = rb"[0-9]{1,15}+"  # fits int64, and float64 without rounding
_NUMBER = rb"-?[0-9]{1,4}+(?:\.[0-9]{1,25}+)?+"
_FREE = rb"[0-9A-Za-z_ ./-]*+"  # a text that the index does not keep
_DECLARATION = rb'(?:<\?xml version="1\.0"(?: encoding="(?:utf|UTF)-8")? ?\?>)?+'

# Leaves that are kept: path below <annotation> -> (group, kind).
_KEPT = {f"metadata/{name}": (name, _WORD) for name in TEXTS} | {
    f"metadata/{tag}": (name, _SMALL if most == INT32 else _LARGE) for name, (tag, most) in INTEGERS.items()
}
_KEPT |= {
    "metadata/selected": ("selected", rb"True|False"),
    "metadata/imagePosition/x": ("position_x", _NUMBER),
    "metadata/imagePosition/y": ("position_y", _NUMBER),
    "metadata/originalImageWidth": ("original_width", _SMALL),
    "metadata/originalImageHeight": ("original_height", _SMALL),
}
# A record with a box has these besides.
_SIZES = {"size/width": ("box_width", _SMALL), "size/height": ("box_height", _SMALL)}
_PASSED_OVER = {
    *("folder", "filename", "source/database", "size/depth", "segmented", "metadata/imageID"),
    *("object/name", "object/pose", "object/truncated", "object/difficult"),
}
_POINT = {"time": _LARGE, "x": _NUMBER, "y": _NUMBER}
# Leaves of the elements that repeat: path -> (group, leaf -> kind).
_REPEATED = {
    "metadata/hoveredRecord": ("hovers", {"action": rb"(?:enter|leave)", "time": _LARGE}),
    "metadata/mouseTracking": ("trace", _POINT),
    "metadata/selectedRecord": ("clicks", _POINT),
}
_OBJECTS = "objects"
_CORNERS = ["xmin", "ymin", "xmax", "ymax"]

VALUES = tuple(name for name, _ in (*_KEPT.values(), *_SIZES.values()))
LISTS = (_OBJECTS, *(name for name, _ in _REPEATED.values()))
_LEAST = {"hovers": {"action", "time"}, "trace": {"time", "x", "y"}, "clicks": {"x", "y"}}

# The texts of VALUES, and the elements of LISTS as they stand; empty where absent.
Fields = tuple[tuple[bytes, ...], tuple[bytes, ...]]


class _Unfit(Exception):
    """A record whose kind is not worth an expression."""


class Shapes:
    """The shapes met so far.

    orders: for each repeated element of metadata, the order of its leaves; the same in all shapes.
    """

    def __init__(self) -> None:
        self.orders: dict[str, list[str]] = {}
        self._examples: list[bytes] = []
        self._shapes: list[_Shape] = []
        self._tries = 0

    def read(self, record: bytes) -> Fields | None:
        """The texts of a record of a known shape, None for all others."""
        if len(record) > _LARGEST_BYTES:
            return None
        for shape in self._shapes:
            if match := shape.matches(record):
                shape.hits += 1
                texts = match.groups(b"")
                return shape.values(texts), shape.lists(texts)
        return None

    def learn(self, record: bytes) -> None:
        """Takes up the shape of a record that the strict reader has accepted, unless it is an unusual one."""
        if self._tries == _MOST_TRIES or len(self._examples) == _MOST_SHAPES or len(record) > _LARGEST_BYTES:
            return
        self._tries += 1
        orders = dict(self.orders)
        try:
            pattern = _pattern(parse_xml(record), orders)
        except _Unfit:
            return
        if not re.fullmatch(pattern, record):
            return
        self._examples.append(record)
        if orders == self.orders:
            self._add(pattern, record)
            return
        # A list that was empty in an example may hold entries in other records: with the order of its leaves known
        # now, shapes that differed in this alone become one.
        self.orders, self._shapes = orders, []
        for example in self._examples:
            self._add(_pattern(parse_xml(example), orders), example)

    def settle(self) -> None:
        """Puts the shapes that occur most in front."""
        self._shapes.sort(key=lambda shape: -shape.hits)

    def _add(self, pattern: bytes, example: bytes) -> None:
        for one in (_spaced_as(example, pattern), pattern):
            if all(shape.pattern != one for shape in self._shapes):
                self._shapes.append(_Shape(one))


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
    """The expression for records with the same white space between tags as one that it matches: a sixth quicker."""
    pieces = pattern.split(_GAP)
    gaps = [b"(?P<gap%d>%s)" % (number, _GAP) for number in range(len(pieces) - 1)]
    found = re.fullmatch(_woven(pieces, gaps), example)
    assert found, "an example matches its own pattern"
    texts = [found[f"gap{number}"] for number in range(len(gaps))]
    return _woven(pieces, [_GAP if text is None else re.escape(text) for text in texts])


def _woven(pieces: list[bytes], between: list[bytes]) -> bytes:
    return pieces[0] + b"".join(one + piece for one, piece in zip(between, pieces[1:], strict=True))


def _pattern(root: Any, orders: dict[str, list[str]]) -> bytes:
    """The expression for all records with the tags of this one; fills in the order of the leaves of its lists."""
    used: list[str] = []
    inside = b"".join(_children(root, "", used, orders))
    missing = [name for name in (*VALUES, *LISTS) if name not in used]
    optional = {*LISTS, *(name for name, _ in _SIZES.values())}
    if len(used) != len(set(used)) or not optional.issuperset(missing):
        raise _Unfit
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
            raise _Unfit
        elif len(elements[0]):
            yield _branch(elements[0], below, used, orders)
        else:
            yield _leaf(tag, below, used)


def _branch(element: Any, path: str, used: list[str], orders: dict[str, list[str]]) -> bytes:
    if path == "object/bndbox":
        if [child.tag for child in element] != _CORNERS:
            raise _Unfit
        inside = b"".join(_tagged(tag, _SMALL) for tag in _CORNERS)
    elif path == "object" and [child.tag for child in element].count("bndbox") != 1:
        raise _Unfit
    elif path in ("object", "source", "size", "metadata", "metadata/imagePosition"):
        inside = b"".join(_children(element, f"{path}/", used, orders))
    else:
        raise _Unfit
    return _tagged(element.tag, inside + _GAP)


def _leaf(tag: str, path: str, used: list[str]) -> bytes:
    name, kind = (_KEPT | _SIZES).get(path, ("", _FREE))
    if name:
        used.append(name)
        return _tagged(tag, b"(?P<%s>%s)" % (name.encode(), kind))
    if path not in _PASSED_OVER:
        raise _Unfit
    return _tagged(tag, kind)


def _list(elements: list[Any], path: str, used: list[str], orders: dict[str, list[str]]) -> bytes:
    """A repeated element; without entries it is there once, with the text None."""
    (name, kinds), tag = _REPEATED[path], elements[0].tag
    nothing = _tagged(tag, b"None")
    if len(elements) == 1 and not len(elements[0]):
        if name not in orders:
            return nothing
        order = orders[name]
    else:
        order = [child.tag for child in elements[0]]
    if len(order) != len(set(order)) or not _LEAST[name] <= set(order) <= set(kinds):
        raise _Unfit
    if orders.setdefault(name, order) != order:
        raise _Unfit
    used.append(name)
    entry = _tagged(tag, b"".join(_tagged(leaf, kinds[leaf]) for leaf in order) + _GAP)
    return b"(?:(?P<%s>(?:%s)++)|%s)" % (name.encode(), entry, nothing)


def _tagged(tag: str, inside: bytes) -> bytes:
    return _GAP + b"<%s>%s</%s>" % (tag.encode(), inside, tag.encode())
