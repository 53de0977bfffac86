"""Formats of files by their first bytes, which show a web page in place of an archive or a zip that is named tar.gz."""

import bz2
import gzip
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from luab.fetch.strict_tar import strict_members

UNPACKABLE = ("tar", "gzip", "bzip2", "xz", "zip")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
_HEAD_BYTES = 1024
_LONGEST_ERROR_BYTES = 1 << 16
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x07\x08": "zip",
    b"PAR1": "Parquet",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"%PDF": "PDF",
    b"version https://git-lfs": "a Git LFS pointer",
}
_BY_SUFFIX = {
    "tar": "tar",
    "zip": "zip",
    "parquet": "Parquet",
    **dict.fromkeys(("gz", "tgz"), "gzip"),
    **dict.fromkeys(("bz2", "tbz", "tbz2"), "bzip2"),
    **dict.fromkeys(("xz", "txz"), "xz"),
    **dict.fromkeys(("json", "jsonl"), "JSON"),
}
_PAGE = "a web page or XML"
_PAGE_NAME = re.compile(r"\.(html?|xml|svg)\b")
_MARKUP = re.compile(rb"<(!doctype|html|head|body|script|title|meta|!--|\?xml|error)", re.IGNORECASE)


def format_of(head: bytes) -> str:
    """Name of a format by the first kilobyte of a file; "unknown" also for an empty file and for zeros."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        return "tar"
    except tarfile.HeaderError:
        pass
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16", "ignore").encode() if wide else head.removeprefix(b"\xef\xbb\xbf")
    text = text.lstrip()
    if _MARKUP.match(text):
        return _PAGE
    return "JSON" if text[:1] in (b"{", b"[") else "unknown"


def is_page(head: bytes, name: str) -> bool:
    """Whether the first kilobyte of a file is of a web page or XML, and its name is of something else."""
    return format_of(head) == _PAGE and not _PAGE_NAME.search(name.lower())


def wrong_format(path: Path, name: str) -> str:
    """How the first bytes of a file contradict its name, as a sentence; empty if they do not.

    A tar or zip may have the name of another: `.tar.gz` for a zip, `.tar` for a compressed tar. A web page is wrong for
    every name except those of web pages and XML; a short JSON error message is wrong for a JSON file.
    """
    name = name.lower()
    own = _own_format(name)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        found = format_of(head)
        inner = _inner_format(file) if found in UNPACKABLE else ""
    what = "a tar or zip" if own in UNPACKABLE else own or "data"
    if inner == _PAGE or (inner == "JSON" and own in UNPACKABLE and ".json" not in name):
        found = f"{inner}, compressed"
    if own in UNPACKABLE:
        right = found in UNPACKABLE
    else:
        right = found == own or (not own and not found.startswith(_PAGE))
    if not right and not (found.startswith(_PAGE) and _PAGE_NAME.search(name)):
        found = "another format" if found == "unknown" else found
        return f"expected {what}, found {found + _quoted(head) if head else 'an empty file'}."
    if own == "JSON" and _is_error_message(path):
        return f"expected data, found an error message{_quoted(head)}."
    return ""


def damage_of(path: Path, name: str) -> str:
    """Like `wrong_format`, and reads the file to its end: how it is damaged or truncated, as a sentence, or empty."""
    if wrong := wrong_format(path, name):
        return wrong
    try:
        with open(path, "rb") as file:
            found = format_of(file.peek(_HEAD_BYTES)) if _own_format(name) else "unknown"
            if found == "zip":
                zipfile.ZipFile(file).close()
            elif found == "tar":
                for _ in strict_members(file):
                    pass
            elif found in UNPACKABLE:
                with decompressed(file) as stream:
                    while stream.read(1 << 20):
                        pass
            elif found in ("JSON", "Parquet"):
                file.seek(max(0, path.stat().st_size - _HEAD_BYTES))
                if not file.read().rstrip().endswith((b"}", b"]") if found == "JSON" else b"PAR1"):
                    raise EOFError
    except (*DAMAGE, OSError) as error:
        return f"the file is truncated or damaged ({error or 'it ends early'})."
    return ""


def is_packed(path: Path, name: str) -> bool:
    """Whether a file sent with a Content-Encoding is the named one in compressed form, rather than the file itself."""
    own = _own_format(name)
    with open(path, "rb") as file:
        return own is None or _inner_format(file) == own


def decompressed(file: BinaryIO) -> IO[bytes]:
    """The uncompressed tar; the compression is detected by content."""
    magic = file.peek(6)[:6]  # type: ignore[attr-defined]
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if magic[:3] == b"BZh":
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if magic == b"\xfd7zXZ\x00" else file


def _own_format(name: str) -> str | None:
    return _BY_SUFFIX.get(name.lower().rpartition(".")[2])


def _inner_format(file: BinaryIO) -> str:
    file.seek(0)
    try:
        return format_of(decompressed(file).read(_HEAD_BYTES))
    except (*DAMAGE, OSError):
        return "unknown"


def _is_error_message(path: Path) -> bool:
    if path.stat().st_size > _LONGEST_ERROR_BYTES:
        return False
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and not {"error", "errors", "message", "detail"}.isdisjoint(content)


def _quoted(head: bytes) -> str:
    return f", which begins with {head[:60].decode('utf-8', 'backslashreplace')!r}"
