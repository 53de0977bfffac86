"""Transfer of one archive from one address to disk, over HTTP or from a file, with resume."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from luab.errors import DataError, JobError
from luab.fetch.formats import is_page
from luab.fetch.listing import Source, without_credentials
from luab.fetch.verify import Digests, Hasher, hasher_of, set_aside
from luab.files import check_room, no_room, read_fields, replacing, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_REDIRECTS = 10
_ENCODINGS = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"))
_CERTIFICATES = "Check the clock; for a certificate authority of your own, set REQUESTS_CA_BUNDLE to the file with it."
_PROXY = "Set user and password of the proxy: HTTPS_PROXY=http://user:password@host:port, also HTTP_PROXY."
_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)


class MirrorFailed(Exception):
    """This address does not serve the file; try the next one."""


class Dropped(Exception):
    """The transfer was interrupted; the same address may work on the next try."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class PartialFile:
    """`<file>.part`, its digests, and a note of the address and version that it belongs to.

    A context manager that locks the part: two processes cannot download one file at the same time.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._hasher: Hasher | None = None
        self.encoding = ""  # the answer's Content-Encoding; the part holds the bytes as sent
        self.resumed = False  # bytes of several answers, perhaps of several versions
        self.open_ended = False  # nothing but its content shows whether the file is complete

    def __enter__(self) -> "PartialFile":
        try:
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems have no locks; there, the checksum catches two downloads at once.
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._file.close()
                raise JobError(
                    f"{self.path}: another process is downloading this file. Wait for it, or stop it first."
                ) from error
        self.size = os.fstat(self._file.fileno()).st_size
        self.resumed = self.size > 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.size == 0 and self.path.exists():
            self.path.unlink()
            self.forget()
        self._file.close()

    def note(self, source: Source) -> dict[str, Any]:
        """The note on the interrupted download; empty if it cannot be resumed from `source`.

        Keys: url, validator (of the server), total (size in bytes or None), encoding, checksum (the published one). A
        mirror resumes the part of another if the same checksum is published for both.
        """
        try:
            note = read_fields(self._note, ("url", "validator", "total", "encoding", "checksum")) if self.size else {}
        except DataError:
            return {}
        same = note and (note["url"] == source.url or note["checksum"] == (source.sha256 or source.md5 or ""))
        return note if same else {}

    def forget(self) -> None:
        """Removes the note, so that the next download starts from the beginning."""
        self._note.unlink(missing_ok=True)

    def restart(self, note: dict[str, Any] | None) -> None:
        """Empties the part and writes a new note; without a note the download cannot be resumed."""
        self.forget()
        self._file.truncate(0)
        self.size, self._hasher, self.resumed = 0, Hasher(), False
        if note:
            write_json(self._note, note)

    def hasher(self) -> Hasher:
        """Hasher of the bytes so far; reads them from disk once."""
        self._hasher = self._hasher or hasher_of(self.path)
        return self._hasher

    def write(self, chunk: bytes) -> None:
        """Appends a chunk; if the disk is full, keeps the bytes that were written and raises JobError."""
        hasher, rest = self.hasher(), memoryview(chunk)
        while rest:
            try:
                written = self._file.write(rest)
            except OSError as error:
                if not no_room(error):
                    raise
                raise _cannot_write(self.path, error) from error
            hasher.update(bytes(rest[:written]))
            self.size += written
            rest = rest[written:]

    def set_aside(self) -> Path:
        """Renames the part to `<file>.bad` and returns the new path."""
        self.forget()
        return set_aside(self.path, self.target)

    def finish(self) -> None:
        """Renames the part to its final name."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self.forget()

    def decode(self, accept: Callable[[Path, Digests], str]) -> Digests:
        """Writes the part, decoded by its `encoding`, under the final name; returns the digests of the new file.

        Raises:
            MirrorFailed: It cannot be decoded, or `accept` returns a reason against the decoded file.
        """
        hasher = Hasher()
        headers = {"Content-Encoding": self.encoding}
        try:
            with replacing(self.target) as aside:
                with open(self.path, "rb") as file, open(aside, "wb") as out:
                    body = urllib3.HTTPResponse(file, headers, preload_content=False)
                    for chunk in body.stream(_CHUNK_BYTES, decode_content=True):
                        out.write(chunk)
                        hasher.update(chunk)
                if reason := accept(aside, hasher.digests()):
                    raise MirrorFailed(reason)
        except urllib3.exceptions.HTTPError as error:
            raise MirrorFailed(f"cannot decode Content-Encoding {self.encoding} ({error}).") from error
        self.restart(None)
        return hasher.digests()


def copy_file(path: Path, part: PartialFile, source: Source) -> None:
    """Copies a local file into the part, from the beginning; raises the errors of `download`."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise MirrorFailed(f"{error.strerror}.") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        _check_published(total, source)
        part.restart(None)
        check_room(part.path.parent, total, part.target.name)
        _pour(iter(lambda: file.read(_CHUNK_BYTES), b""), part, total)


def download(source: Source, part: PartialFile, timeout_s: float) -> None:
    """Downloads the rest of the part, or the whole file if the server cannot resume.

    Raises MirrorFailed, also for a size other than the published one; Dropped; and JobError if the disk is full.
    """
    note = part.note(source)
    part.open_ended, part.encoding = False, note.get("encoding", "")
    if note and note["total"] == part.size:
        return  # complete, but interrupted before it was checked
    headers = {"Accept-Encoding": "identity", "User-Agent": "luab"}
    if note and (note["validator"] or source.has_checksum):
        headers["Range"] = f"bytes={part.size}-"
        if not source.has_checksum:  # a checksum detects another version; servers of one name may differ in validators
            headers["If-Range"] = note["validator"]
    with (
        _network(),
        requests.Session() as session,
        contextlib.closing(_open(session, source.url, headers, timeout_s)) as response,
    ):
        if response.status_code == 416 and _is_complete(response, part, source):
            return
        _check_status(response, part)
        # Bytes as sent: servers label a stored .tar.gz with a Content-Encoding, and its digest is of the stored bytes.
        chunks = response.raw.stream(_CHUNK_BYTES, decode_content=False)
        resumes = response.status_code == 206
        if not resumes:
            first = next(chunks, b"")
            if part.size and is_page(first[:1024], part.target.name):
                raise MirrorFailed(f"sent a web page or XML; the {part.size} bytes in {part.path} are kept.")
            chunks = chain((first,), chunks)
        total = _resumed_total(response, part, note, source) if resumes else _started_total(response, part, source)
        if total is not None:
            check_room(part.path.parent, total - part.size, part.target.name)
        part.resumed, part.open_ended = resumes, total is None and not response.raw.chunked
        _pour(chunks, part, total)


def _open(session: requests.Session, url: str, headers: Mapping[str, str], timeout_s: float) -> requests.Response:
    """Sends the request; follows redirects with their cookies, but not to file: addresses or from https to http."""
    for _ in range(_REDIRECTS):
        try:
            response = session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout_s)
            if not (location := session.get_redirect_target(response)):
                return response
            following = urljoin(url, location)
            before, after = urlsplit(url).scheme, urlsplit(following).scheme
        except (OSError, ValueError) as error:  # no such file of certificates; no valid address
            if isinstance(error, requests.RequestException):
                raise
            raise MirrorFailed(f"{without_credentials(str(error))}.") from error
        response.close()
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise MirrorFailed(f"redirects from {before}: to {without_credentials(following)}, which is not allowed.")
        url = following
    raise MirrorFailed(f"more than {_REDIRECTS} redirects.")


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Converts network errors to Dropped if another try may help, and to MirrorFailed otherwise."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        text = without_credentials(str(error))  # the address of a proxy or a redirect may contain a password
        if isinstance(error, requests.exceptions.SSLError):
            raise MirrorFailed(f"no secure connection ({text}). {_CERTIFICATES}") from error
        if isinstance(error, requests.exceptions.ProxyError) and " 407 " in text:
            raise MirrorFailed(f"{text}. {_PROXY}") from error
        if isinstance(error, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError):
            raise Dropped(f"the connection failed ({text})") from error
        raise MirrorFailed(f"{text}.") from error


def _is_complete(response: requests.Response, part: PartialFile, source: Source) -> bool:
    """Whether no bytes after the part (status 416) means that it is complete; a checksum is compared later."""
    return source.has_checksum or response.headers.get("Content-Range") == f"bytes */{part.size}"


def _check_status(response: requests.Response, part: PartialFile) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status == 416:
        part.forget()
        raise Dropped("the server cannot resume this download; starting over")
    reason = f"HTTP {status} {response.reason}"
    if status in _TRY_LATER:
        wait = response.headers.get("Retry-After", "")
        raise Dropped(reason, float(wait) if wait.isdigit() else 0.0)
    raise MirrorFailed(f"{reason}. {_PROXY}" if status == 407 else f"{reason}.")


def _resumed_total(response: requests.Response, part: PartialFile, note: dict[str, Any], source: Source) -> int:
    """Size of the whole file; checks that the response continues this version of the part."""
    content_range = response.headers.get("Content-Range", "")
    length = content_range.rpartition("/")[2]
    total = int(length) if length.isdigit() else 0
    continues = content_range == f"bytes {part.size}-{total - 1}/{total}" and note.get("total") in (None, total)
    same_version = source.has_checksum or _validator(response) in (note.get("validator"), None)
    if not continues or not same_version or _encoding(response) != note.get("encoding", ""):
        part.forget()
        raise Dropped(f"the server sent a different range than requested ({content_range!r}); starting over")
    return total


def _validator(response: requests.Response) -> str | None:
    """Value for If-Range: a strong ETag, else the Last-Modified date."""
    etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified")
    return (modified if etag.startswith("W/") else etag or modified) or None


def _started_total(response: requests.Response, part: PartialFile, source: Source) -> int | None:
    """Size of the whole file, None if neither sent nor published; empties the part for a download from the start."""
    encoding, length = _encoding(response), response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None if encoding else source.bytes
    if total is not None and not encoding:
        _check_published(total, source)
    note = {"url": source.url, "validator": _validator(response), "total": total, "encoding": encoding}
    # Without a checksum, nothing shows whether the server would encode the whole file and its rest alike.
    resumable = source.has_checksum or not encoding
    part.restart(note | {"checksum": source.sha256 or source.md5} if resumable else None)
    part.encoding = encoding
    return total


def _encoding(response: requests.Response) -> str:
    """Content-Encoding of an answer; empty for none and for a label that is none, such as utf-8."""
    encoding: str = response.headers.get("Content-Encoding", "").strip().lower()
    return encoding if _ENCODINGS.intersection(re.split(r"[\s,]+", encoding)) else ""


def _check_published(total: int, source: Source) -> None:
    if source.bytes not in (None, total):
        raise MirrorFailed(f"expected {source.bytes} bytes, the file there has {total}.")


def _pour(chunks: Iterable[bytes], part: PartialFile, total: int | None) -> None:
    what = f"{part.target.name} (resumed)" if part.size else part.target.name
    with progress(what, None if total is None else total - part.size, "B") as advance:
        for chunk in chunks:
            part.write(chunk)
            advance(len(chunk))
            if total is not None and part.size > total:
                return  # too long; the checksum fails
    if total is not None and part.size < total:
        raise Dropped(f"the transfer ended at byte {part.size} of {total}")


def _cannot_write(path: Path, error: OSError) -> JobError:
    free = shutil.disk_usage(path.parent).free / 1e9
    return JobError(
        f"{path}: cannot write ({error.strerror or error}); {free:.1f} GB are free on this disk. Free some space and "
        "run again: the downloaded part is kept and the download resumes."
    )
