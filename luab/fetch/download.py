"""Moving the bytes of one archive from one address to disk, over HTTP or from a file, so that it can be resumed."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

from luab.errors import DataError, JobError
from luab.fetch.listing import without_credentials
from luab.fetch.verify import Digest, Offer, set_aside
from luab.files import check_room, no_room, read_json, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_REDIRECTS = 10
_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)


class MirrorFailed(Exception):
    """This address will not serve the file; the next one may."""


class Dropped(Exception):
    """The transfer broke; trying again may help."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class PartialFile:
    """`<file>.part`, its digest, and a note of which version of which address it is a part of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._digest: Digest | None = None

    def __enter__(self) -> "PartialFile":
        try:
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise _no_write(self.path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems have no locks; then two fetches at once are caught by the checksum.
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._file.close()
                raise JobError(
                    f"{self.path}: another process is fetching this file. Wait for it, or stop it first."
                ) from error
        self.size = os.fstat(self._file.fileno()).st_size
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 0 and self.path.exists():
            self.path.unlink()
            self.forget()
        self._file.close()

    def note(self, url: str) -> dict[str, Any]:
        """What is known of the download that the part is of; empty when it cannot be resumed from `url`."""
        try:
            note = read_json(self._note) if self.size else {}
        except DataError:
            return {}
        return note if note.get("url") == url else {}

    def forget(self) -> None:
        """Gives up resuming: the next download starts over."""
        self._note.unlink(missing_ok=True)

    def restart(self, note: dict[str, Any] | None) -> None:
        """Empties the part; without a note it cannot be resumed."""
        self.forget()
        self._file.truncate(0)
        self.size, self._digest = 0, Digest()
        if note:
            write_json(self._note, note)

    def digest(self) -> Digest:
        """The digest of what has arrived; read from disk once."""
        if self._digest is None:
            self._digest = Digest()
            with open(self.path, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    self._digest.update(chunk)
        return self._digest

    def write(self, chunk: bytes) -> None:
        """Appends; a full disk keeps what was written.

        Raises:
            JobError: There is no room.
        """
        digest, rest = self.digest(), memoryview(chunk)
        while rest:
            try:
                written = self._file.write(rest)
            except OSError as error:
                if not no_room(error):
                    raise
                raise _no_write(self.path, error) from error
            digest.update(bytes(rest[:written]))
            self.size += written
            rest = rest[written:]

    def set_aside(self) -> Path:
        """Moves the part to `<file>.bad`."""
        self.forget()
        return set_aside(self.path, self.target)

    def finish(self) -> None:
        """Moves the part to its final name."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self.forget()


def copy_file(path: Path, part: PartialFile, offer: Offer) -> None:
    """Copies a local file into the part, from its beginning.

    Raises:
        MirrorFailed: It cannot be opened, or has another size than promised.
        Dropped: It ended early.
        JobError: There is no room.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise MirrorFailed(f"{error.strerror}.") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        _check_offered(total, offer)
        part.restart(None)
        check_room(part.path.parent, total, part.target.name)
        _pour(iter(lambda: file.read(_CHUNK_BYTES), b""), part, total, offer)


def download(url: str, part: PartialFile, offer: Offer, timeout_s: float) -> None:
    """Fetches what is missing of the part, or the whole file where the address cannot resume it.

    Raises:
        MirrorFailed: This address will not serve the file.
        Dropped: The transfer broke; another try may go on from where it stopped.
        JobError: There is no room.
    """
    note = part.note(url)
    if note and note["total"] == part.size:
        return  # it arrived whole and was stopped before its check
    headers = {"Accept-Encoding": "identity", "User-Agent": "luab"}
    if note.get("validator") or (note and (offer.sha256 or offer.md5)):
        headers["Range"] = f"bytes={part.size}-"
        if note["validator"]:
            headers["If-Range"] = note["validator"]
    with _network(), contextlib.closing(_open(url, headers, timeout_s)) as response:
        _check_status(response, part)
        total: int | None
        if response.status_code == 206:
            total = _resumed_total(response, part, note)
        else:
            total = _started_total(response, part, offer, url)
        if total is not None:
            check_room(part.path.parent, total - part.size, part.target.name)
        _pour(response.iter_content(_CHUNK_BYTES), part, total, offer)


def _open(url: str, headers: Mapping[str, str], timeout_s: float) -> Any:
    """Follows redirects by hand: none to a file, none from https to http."""
    import requests

    for _ in range(_REDIRECTS):
        response = requests.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout_s)
        if not response.is_redirect:
            return response
        following = urljoin(url, response.headers["Location"])
        response.close()
        before, after = urlsplit(url).scheme, urlsplit(following).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise MirrorFailed(f"redirects from {before}: to {without_credentials(following)}, which is refused.")
        url = following
    raise MirrorFailed(f"more than {_REDIRECTS} redirects.")


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Sorts what may go wrong on the way into what is worth another try and what is not."""
    import requests

    def said(error: Exception) -> str:  # a proxy's address, or one redirected to, may hold a password
        return without_credentials(str(error))

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise MirrorFailed(f"no secure connection ({said(error)}).") from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise Dropped(f"the connection failed ({said(error)})") from error
    except requests.RequestException as error:
        raise MirrorFailed(f"{said(error)}.") from error


def _check_status(response: Any, part: PartialFile) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status == 416:
        part.forget()
        raise Dropped("the server does not have the rest of the part; starting over")
    said = f"HTTP {status} {response.reason}"
    if status in _TRY_LATER:
        wait = response.headers.get("Retry-After", "")
        raise Dropped(said, float(wait) if wait.isdigit() else 0.0)
    raise MirrorFailed(f"{said}.")


def _resumed_total(response: Any, part: PartialFile, note: dict[str, Any]) -> int:
    """Size of the whole file, if the server's answer continues this very part."""
    total = note.get("total")
    end = total - 1 if total is not None else None
    given = response.headers.get("Content-Range", "")
    unit, _, span = given.partition(" ")
    reach, _, length = span.partition("/")
    fits = unit == "bytes" and length.isdigit() and reach == f"{part.size}-{int(length) - 1}"
    fits = fits and (end is None or int(length) - 1 == end)
    if not fits or not _same_version(response, note):
        part.forget()
        raise Dropped(f"the server sent another piece than the one asked for ({given!r}); starting over")
    return int(length)


def _same_version(response: Any, note: dict[str, Any]) -> bool:
    validator = note.get("validator")
    return validator is None or _validator(response) in (validator, None)


def _validator(response: Any) -> str | None:
    """What If-Range may carry: a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    modified = response.headers.get("Last-Modified")
    return str(modified) if modified else None


def _started_total(response: Any, part: PartialFile, offer: Offer, url: str) -> int | None:
    """Empties the part for a whole answer; None when the server does not say how long it is."""
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() and not encoded else None
    if total is not None:
        _check_offered(total, offer)
    # An encoded answer is decoded on the way, and then a range of it means nothing.
    note = {
        "url": url,
        "validator": _validator(response),
        "total": total if total is not None else offer.bytes,
    }
    part.restart(None if encoded else note)
    return total


def _check_offered(total: int, offer: Offer) -> None:
    if offer.bytes is not None and offer.bytes != total:
        raise MirrorFailed(f"expected {offer.bytes} bytes, the address offers {total}.")


def _pour(chunks: Iterable[bytes], part: PartialFile, total: int | None, offer: Offer) -> None:
    whole = total if total is not None else offer.bytes
    what = f"{part.target.name} (resumed)" if part.size else part.target.name
    with progress(what, None if whole is None else whole - part.size, "B") as advance:
        for chunk in chunks:
            part.write(chunk)
            advance(len(chunk))
            if whole is not None and part.size > whole:
                return  # too long: the check that follows says so
    if whole is not None and part.size < whole:
        raise Dropped(f"the transfer ended at byte {part.size} of {whole}")


def _no_write(path: Path, error: OSError) -> JobError:
    free = shutil.disk_usage(path.parent).free / 1e9
    return JobError(
        f"{path}: could not be written ({error.strerror or error}); {free:.1f} GB are free there. Make "
        "room and run again: what has arrived is kept, and the download goes on from there."
    )
