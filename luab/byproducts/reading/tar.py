"""Streams the files of a tar.gz or a folder, in order and in blocks of many, without unpacking them.

`tarfile` takes 40 us per member, so for a million members more than all other work of the index. This module therefore
parses headers itself, but only those that every tool writes for a regular file with a short name. From the first
other header on (a link, a long name, a damaged header), `tarfile` reads the rest of the archive.
"""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from luab.errors import DataError
from luab.fetch.formats import DAMAGE, decompressed, format_of, wrong_format
from luab.fetch.strict_tar import Stream, strict_members
from luab.fetch.verify import disown

LARGEST_RECORD_BYTES = 64 << 20

# Large enough that the work per block is negligible, small enough that dozens of blocks fit in memory.
BLOCK_BYTES = 8 << 20
_SECTOR = 512
_PLAIN, _FOLDER, _EXTENDED = b"05x"
# Keys of an extended header that change the name or the size of the member after it.
_CHANGES_MEMBER = re.compile(rb"(?:path|linkpath|size|hdrcharset|GNU\.sparse\..*)")
_NAME = slice(0, 100)
# Offset and length of the numbers that tarfile reads in addition to size and checksum; the last two may be empty.
_NUMBERS = ((100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8))
_SIZE, _CHECKSUM, _TYPE, _PREFIX = (124, 12), 148, 156, 345

# The type stub of isal declares the exception class as an instance.
_DAMAGE: tuple[type[Exception], ...] = (
    *DAMAGE,
    OSError,  # of bzip2, without errno
    RuntimeError,  # of an encrypted zip
    isal_zlib.error,  # type: ignore[assignment]
)

_Bytes = NDArray[np.uint8]
_Flags = NDArray[np.bool_]


class Block(NamedTuple):
    """Consecutive files.

    names: path of each file in the archive. sizes: bytes of each file. data: contents of all files, concatenated;
    empty for a member that is not a regular file or is larger than `LARGEST_RECORD_BYTES`. consumed: number of bytes
    that were read for the block, of the archive or of the files in the folder.
    """

    names: list[str]
    sizes: list[int]
    data: bytes
    consumed: int


def archive_blocks(archive: Path) -> Iterator[Block]:
    """Yields the files of a tar.gz and skips its folders; also of a tar, tar.bz2, tar.xz or zip, by content.

    Raises:
        DataError: The archive is truncated, damaged or not an archive; blocks before the damage are yielded first.
    """
    last, seen = "", 0
    if wrong := wrong_format(archive, "a.tar.gz"):
        disown(archive)
        raise DataError(f"{archive}: {wrong} Remove it and run `luab fetch` again.")
    try:
        with open(archive, "rb") as raw:
            for names, sizes, data in _files_in_archive(raw):
                last = names[-1] if names else last
                now = max(seen, raw.tell())
                yield Block(names, sizes, data, now - seen)
                seen = now
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        disown(archive)
        where = f"after {last}" if last else "at its start"
        raise DataError(
            f"{archive}: expected a complete tar or zip, but it is damaged or truncated {where} ({error}). "
            "Remove it and run `luab fetch` again."
        ) from error


def folder_blocks(folder: Path) -> Iterator[Block]:
    """Yields the files of a folder in the order of their sorted paths."""
    return (Block(names, sizes, data, len(data)) for names, sizes, data in _grouped(_files_below(folder)))


_Files = tuple[list[str], list[int], bytes]  # as in Block


def _grouped(files: Iterable[tuple[str, bytes]]) -> Iterator[_Files]:
    names: list[str] = []
    contents: list[bytes] = []
    size = 0
    try:
        for name, content in files:
            names.append(name)
            contents.append(content)
            size += _SECTOR + len(content)
            if size >= BLOCK_BYTES:
                yield _joined(names, contents)
                names, contents, size = [], [], 0
    except _DAMAGE:
        yield _joined(names, contents)
        raise
    yield _joined(names, contents)


def _joined(names: list[str], contents: list[bytes]) -> _Files:
    return names, [len(content) for content in contents], b"".join(contents)


def _files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            data = b"" if path.stat().st_size > LARGEST_RECORD_BYTES else path.read_bytes()
            yield path.relative_to(folder.parent).as_posix(), data


def _files_in_archive(raw: BinaryIO) -> Iterator[_Files]:
    found = format_of(raw.peek(1024))  # type: ignore[attr-defined]
    if found == "zip":
        with zipfile.ZipFile(raw) as archive:
            yield from _grouped(
                (member.filename, archive.read(member) if member.file_size <= LARGEST_RECORD_BYTES else b"")
                for member in archive.infolist()
                if not member.is_dir()
            )
        return
    stream: Any = igzip.IGzipFile(fileobj=raw) if found == "gzip" else decompressed(raw)
    with stream:
        yield from _files(stream)
        while stream.read(1 << 20):  # up to the end, where the checksum of the whole stream is compared
            pass


# ---- tar headers


def _files(stream: Stream) -> Iterator[_Files]:
    """Yields files by `_walk` while headers are plain, then by tarfile, which also detects damage."""
    data, more = b"", True
    while more:
        added = stream.read(BLOCK_BYTES)
        more = bool(added)
        data += added
        headers, end = _walk(data)
        plain = _plain_headers(data, headers)
        if plain:
            yield _cut(data, headers[:plain])
        if plain < len(headers):
            end, more = headers[plain], False
        elif _is_end(data, end):
            return
        elif _is_odd(data, end):
            more = False
        data = data[end:]
    yield from _grouped(_by_tarfile(_Rest(data, stream)))


def _walk(data: bytes) -> tuple[list[int], int]:
    """Offsets of the headers whose file is complete in `data`, and the offset after the last of these files."""
    headers: list[int] = []
    at, length = 0, len(data)
    while at + _SECTOR <= length:
        try:
            size = int(data[at + 124 : at + 135], 8)
        except ValueError:
            break
        after = at + _SECTOR + (size + _SECTOR - 1 & -_SECTOR)
        if size < 0 or after > length:
            break
        headers.append(at)
        at = after
    if headers and data[headers[-1] + _TYPE] == _EXTENDED:  # must be checked together with the member it extends
        at = headers.pop()
    return headers, at


def _plain_headers(data: bytes, headers: list[int]) -> int:
    """Number of plain headers before the first one that is not plain."""
    if not headers:
        return 0
    view = np.frombuffer(data, np.uint8)
    table = np.lib.stride_tricks.sliding_window_view(view, _SECTOR)[headers]  # [n, 512]
    plain = _summed(table) & _named(table) & _typed(table) & _numbered(table)
    count = len(headers) if plain.all() else int(plain.argmin())
    extended = np.flatnonzero(table[:count, _TYPE] == _EXTENDED).tolist()
    for place in extended:
        # The extended member must follow, as a plain file, and the extended header must not change it.
        follows = place + 1 < count and table[place + 1, _TYPE] == _PLAIN
        if not follows or not _harmless(_content(data, headers[place])):
            return place
    return count


def _summed(table: _Bytes) -> _Flags:
    """Whether the checksum, six octal digits, is the sum over the header with the checksum field set to blanks."""
    field = table[:, _CHECKSUM : _CHECKSUM + 8]
    total = table.sum(axis=1, dtype=np.int64) - field.sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    claimed = (field[:, :6].astype(np.int64) - ord("0")) @ (8 ** np.arange(5, -1, -1))
    return _octal(field[:, :6]) & _blank(field[:, 6:]) & (claimed == total)


def _named(table: _Bytes) -> _Flags:
    """Whether the name is short, ASCII and not split into two fields."""
    name = table[:, _NAME]
    return (name[:, 0] != 0) & (name == 0).any(axis=1) & (name < 128).all(axis=1) & (table[:, _PREFIX] == 0)


def _typed(table: _Bytes) -> _Flags:
    kind = table[:, _TYPE]
    empty = (table[:, _SIZE[0] : _SIZE[0] + 11] == ord("0")).all(axis=1)
    return (kind == _PLAIN) | (kind == _EXTENDED) | ((kind == _FOLDER) & empty)


def _numbered(table: _Bytes) -> _Flags:
    """Whether size, mode, owner, time and device fill their fields with octal digits; all but size may be empty."""
    start, length = _SIZE
    right = _octal(table[:, start : start + length - 1]) & _blank(table[:, start + length - 1 : start + length])
    for start, length in _NUMBERS:
        field = table[:, start : start + length]
        # Tools end a number with a NUL, a blank, or both.
        last = _octal(field[:, -2:-1]) | _blank(field[:, -2:-1])
        right &= (_octal(field[:, :-2]) & last & _blank(field[:, -1:])) | (field[:, 0] == 0)
    return right


def _octal(field: _Bytes) -> _Flags:
    return np.all((field >= ord("0")) & (field <= ord("7")), axis=1)


def _blank(field: _Bytes) -> _Flags:
    return np.all((field == 0) | (field == ord(" ")), axis=1)


def _harmless(content: bytes) -> bool:
    """Whether an extended header is complete and does not change the name, size or type of the file after it."""
    while content:
        length = re.match(rb"([1-9]\d{0,5}) ([^=]+)=", content)
        if not length or _CHANGES_MEMBER.fullmatch(length[2]):
            return False
        size = int(length[1])
        if not len(length[0]) < size <= len(content) or content[size - 1 : size] != b"\n":
            return False
        content = content[size:]
    return True


def _cut(data: bytes, headers: list[int]) -> _Files:
    files = [at for at in headers if data[at + _TYPE] == _PLAIN]
    names = [data[at : at + 100].split(b"\0", 1)[0].decode("ascii") for at in files]
    contents = [_content(data, at) for at in files]
    return _joined(names, contents)


def _content(data: bytes, header: int) -> bytes:
    start = header + _SECTOR
    return data[start : start + int(data[header + 124 : header + 135], 8)]


def _is_end(data: bytes, at: int) -> bool:
    return data[at : at + _SECTOR] == bytes(_SECTOR)


def _is_odd(data: bytes, at: int) -> bool:
    """Whether `_walk` stopped at a complete header for another reason than missing file content."""
    header = data[at : at + _SECTOR]
    if len(header) < _SECTOR:
        return False
    try:
        return not 0 <= int(header[124:135], 8) <= BLOCK_BYTES
    except ValueError:
        return True


class _Rest:
    """A stream whose first bytes, `ahead`, were read already."""

    def __init__(self, ahead: bytes, stream: Stream) -> None:
        self._ahead, self._stream = ahead, stream

    def read(self, size: int) -> bytes:
        if not self._ahead:
            return self._stream.read(size)
        some, self._ahead = self._ahead[:size], self._ahead[size:]
        return some


def _by_tarfile(rest: _Rest) -> Iterator[tuple[str, bytes]]:
    for tar, member in strict_members(rest):
        if not member.isdir():
            fits = member.isreg() and member.size <= LARGEST_RECORD_BYTES
            file = tar.extractfile(member) if fits else None
            yield member.name, file.read() if file else b""
