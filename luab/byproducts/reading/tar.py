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

from luab.errors import DataError
from luab.fetch.formats import DAMAGE, decompressed, format_of, wrong_format
from luab.fetch.strict_tar import Stream, strict_members
from luab.fetch.verify import disown

LARGEST_RECORD_BYTES = 64 << 20

# Large enough that the work per block is negligible, small enough that dozens of blocks fit in memory.
BLOCK_BYTES = 8 << 20
_SECTOR = 512

# A number of a header, in octal digits, which tools end with a NUL, a blank, or both; it may be missing.
_OCTAL_8, _OCTAL_12 = (rb"(?:[0-7]{%d}[0-7\0 ][\0 ]|\0.{%d})" % (length - 2, length - 1) for length in (8, 12))
_PLAIN_HEADER = re.compile(
    rb"(?=(?P<name>[^\0\x80-\xff]{1,99}+)\0).{100}"  # short and ASCII
    + 3 * _OCTAL_8  # mode, owner and group
    + rb"(?P<size>[0-7]{11})[\0 ]"
    + _OCTAL_12  # time
    + rb"(?P<checksum>[0-7]{6})[\0 ]{2}(?P<kind>[05x]).{172}"  # a file, a folder or an extended header
    + 2 * _OCTAL_8  # device
    + rb"\0.{166}",  # the name is not split into two fields
    re.DOTALL,
)
# Keys of an extended header that change the name or the size of the member after it.
_CHANGES_MEMBER = re.compile(rb"(?:path|linkpath|size|hdrcharset|GNU\.sparse\..*)")

# The type stub of isal declares the exception class as an instance.
_DAMAGE: tuple[type[Exception], ...] = (
    *DAMAGE,
    OSError,  # of bzip2, without errno
    RuntimeError,  # of an encrypted zip
    isal_zlib.error,  # type: ignore[assignment]
)


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
    data, plain = b"", True
    while plain and (added := stream.read(BLOCK_BYTES)):
        data += added
        names, contents, end, plain = _walk(data)
        if names:
            yield _joined(names, contents)
        if data[end : end + _SECTOR] == bytes(_SECTOR):
            return
        data = data[end:]
    yield from _grouped(_by_tarfile(_Rest(data, stream)))


def _walk(data: bytes) -> tuple[list[str], list[bytes], int, bool]:
    """Names and contents of the first files, the offset after them, and whether only more data is missing there."""
    headers, may_continue = _headers(data)
    names: list[str] = []
    contents: list[bytes] = []
    end, extended = 0, False
    for header, correct in zip(headers, _checksums_are_correct(data, headers), strict=True):
        start, kind = header.end(), header["kind"]
        content = data[start : start + int(header["size"], 8)]
        if kind == b"x":
            plain = not extended and _harmless(content)
        else:
            plain = kind == b"0" or not (extended or content)
        if not correct or not plain:
            return names, contents, end, False
        extended = kind == b"x"
        if not extended:  # otherwise it belongs to the file that must follow
            end = start + _padded(len(content))
        if kind == b"0":
            names.append(header["name"].decode("ascii"))
            contents.append(content)
    return names, contents, end, may_continue


def _headers(data: bytes) -> tuple[list[re.Match[bytes]], bool]:
    """Headers of plain form whose content is complete, and whether only more data is missing after the last."""
    headers: list[re.Match[bytes]] = []
    at = 0
    while header := _PLAIN_HEADER.match(data, at):
        size = int(header["size"], 8)
        at += _SECTOR + _padded(size)
        if at > len(data):
            return headers, size <= BLOCK_BYTES
        headers.append(header)
    return headers, len(data) - at < _SECTOR


def _padded(size: int) -> int:
    return size + _SECTOR - 1 & -_SECTOR


def _checksums_are_correct(data: bytes, headers: list[re.Match[bytes]]) -> list[bool]:
    """Whether each checksum is the sum over its header with the checksum field set to blanks."""
    sectors = np.frombuffer(data, np.uint8, len(data) // _SECTOR * _SECTOR).reshape(-1, _SECTOR)
    table = sectors[[header.start() // _SECTOR for header in headers]]
    table[:, 148:156] = ord(" ")
    sums = table.sum(axis=1, dtype=np.int64).tolist()
    return [int(header["checksum"], 8) == total for header, total in zip(headers, sums, strict=True)]


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
