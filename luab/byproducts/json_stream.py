"""Reads large JSON files strictly, one record at a time and in bounded memory.

It uses the decoder of the standard library, on a buffer that grows only to the size of one record. It is as fast as
`json.load`. ijson needs about as long and does not report the byte at which a record begins; msgspec is four times as
fast but accepts duplicate keys.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from luab.errors import DataError
from luab.progress import progress

LARGEST_RECORD_CHARS = 64 << 20
_CHUNK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class Item(NamedTuple):
    """One entry of an array in a JSON file.

    key: key of the array in the outermost object; "" if the array is outermost. number: position in the array, from 0.
    offset: position of the entry's first byte in the file. value: the decoded entry.
    """

    key: str
    number: int
    offset: int
    value: Any


@contextmanager
def array_items(path: Path) -> Iterator[Iterator[Item]]:
    """Opens a file with one JSON array and yields an iterator over its entries.

    Raises:
        DataError: The file is missing, is not an array, is truncated, or is not JSON by RFC 8259 or reasonable limits:
            invalid UTF-8, NaN, duplicate keys, integers of thousands of digits, brackets nested too deeply, a record
            of more than 64 Mi characters. The message has the number of the record and the byte at which it begins.
            (1e999 is valid and becomes inf.)
    """
    with _reader(path) as reader:
        yield _whole_array(reader)


@contextmanager
def object_items(path: Path, arrays: Collection[str]) -> Iterator[Iterator[Item]]:
    """Opens a file with one JSON object and yields an iterator over the entries of the arrays with the given keys.

    Raises:
        DataError: As for `array_items`; also if an array is missing, one of the values is not an array, or a key
            occurs twice.
    """
    with _reader(path) as reader:
        yield _whole_object(reader, arrays)


def _whole_array(reader: "_Reader") -> Iterator[Item]:
    reader.expect("[", "a JSON array")
    yield from _array(reader, "")
    reader.end()


def _whole_object(reader: "_Reader", arrays: Collection[str]) -> Iterator[Item]:
    reader.expect("{", "a JSON object")
    seen: set[str] = set()
    more = not reader.passes("}")
    while more:
        key = reader.value("a key")
        if not isinstance(key, str) or key in seen:
            reader.fail(f"expected keys that are unique strings, found {key!r}"[:200])
        seen.add(key)
        reader.expect(":", f"a colon after the key {key!r}")
        if reader.passes("["):
            for item in _array(reader, key):
                if key in arrays:
                    yield item
        elif key in arrays:
            reader.fail(f"expected an array as the value of {key!r}")
        else:
            reader.value(f"the value of {key!r}")
        more = reader.passes(",")
        if not more:
            reader.expect("}", "a comma or the end of the object")
    reader.end()
    if missing := sorted(set(arrays) - seen):
        reader.fail(f"expected the arrays {', '.join(arrays)}; {', '.join(missing)} not found")


def _array(reader: "_Reader", key: str) -> Iterator[Item]:
    """Entries of an array whose opening bracket is consumed; consumes the closing bracket."""
    number = 0
    of = f" of {key!r}" if key else ""
    more = reader.peek() != "]"
    while more:
        reader.peek()
        offset = reader.offset
        yield Item(key, number, offset, reader.value(f"record {number}{of}"))
        number += 1
        more = reader.passes(",")
    reader.expect("]", f"a comma or the end of the array after {number} records{of}")


@contextmanager
def _reader(path: Path) -> Iterator["_Reader"]:
    if not path.is_file():
        raise DataError(f"{path}: the JSON file is missing. Run `luab fetch` first.")
    with open(path, "rb") as file, progress(path.name, path.stat().st_size, "B") as advance:
        if file.peek(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise DataError(f"{path}: expected JSON, found a web page or XML. Remove it and run `luab fetch` again.")
        yield _Reader(path, file, advance)


class _Reader:
    """A moving window over a JSON text: `_text[_at:]` comes next, `offset` is its first byte in the file."""

    def __init__(self, path: Path, file: BinaryIO, advance: Callable[[float], None]) -> None:
        self.path, self.offset = path, 0
        self._file, self._advance = file, advance
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
        self._text, self._at, self._ended = "", 0, False

    def peek(self) -> str:
        """Returns the next character that is not white space; "" at the end of the file."""
        while True:
            self._advance_to(_SPACE.match(self._text, self._at).end())  # type: ignore[union-attr]  # always matches
            if self._at < len(self._text) or not self._read():
                return self._text[self._at : self._at + 1]

    def passes(self, character: str) -> bool:
        """Consumes the next character if it is this one."""
        if found := self.peek() == character:
            self._advance_to(self._at + 1)
        return found

    def expect(self, character: str, what: str) -> None:
        """Consumes this character or fails."""
        if not self.passes(character):
            following = self.peek()
            self.fail(f"expected {what}, found {repr(following) if following else 'the end of the file'}")

    def value(self, what: str) -> Any:
        """Consumes one JSON value of any kind."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                too_long = len(self._text) - self._at > LARGEST_RECORD_CHARS
                if too_long or not self._read():
                    limit = "longer than 64 Mi characters" if too_long else "truncated"
                    self.fail(f"{what} is not valid JSON, or {limit}: {error.msg}, {error.pos} characters on", error)
            except RecursionError as error:
                self.fail(f"{what} has brackets nested too deeply", error)
            except ValueError as error:  # from the hooks, or for integers with thousands of digits
                self.fail(f"{what}: {error}", error)
            else:
                # A number at the end of the window may continue after it: the window may end inside 1e-5, after 1.
                length = end - self._at
                if end + 2 < len(self._text) or not self._read():
                    self._advance_to(self._at + length)
                    return value

    def end(self) -> None:
        """Checks that only white space follows."""
        if self.peek():
            self.fail("expected the end of the file after the last bracket, found more text")

    def fail(self, why: str, cause: Exception | None = None) -> NoReturn:
        """Raises a DataError with the current position."""
        raise DataError(
            f"{self.path}, byte {self.offset}: {why}. The file is damaged, truncated or not the right one: remove it "
            "and fetch it again."
        ) from cause

    def _advance_to(self, to: int) -> None:
        self.offset += len(self._text[self._at : to].encode("utf-8", "surrogatepass"))
        self._at = to

    def _read(self) -> bool:
        """Reads more text, as much again as is left in the window; returns False at the end of the file."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        data = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._advance(len(data))
        self._ended = not data
        try:
            self._text, self._at = rest + self._utf8.decode(data, final=self._ended), 0
        except UnicodeDecodeError as error:
            self.fail(f"the next {len(rest) + len(data)} bytes are not valid UTF-8 ({error})", error)
        return not self._ended


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {repeated[:80]!r} occurs twice in one object")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON does not allow the number {name}")
