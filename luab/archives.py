"""Downloads: fetch with resume, verify by checksum, unpack without trusting what is inside."""

import bz2
import contextlib
import errno
import fcntl
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Annotated, Any, BinaryIO, Literal
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256, read_json, replacing_folder, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_REDIRECTS = 10
_LONGEST_WAIT_S = 60.0
_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)
# EFBIG is what a file size limit (ulimit -f) answers; for the user it is one more way to have no room.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_BAD_NAME = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_UNPUBLISHED = "none published"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Count = Annotated[int, Field(ge=0)]


class Source(BaseModel):
    """One address of an archive, with the size and checksums of the file that it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="http:, https: or file: address, as written in the list.")
    bytes: Count | None = Field(None, description="Exact size; None when no source states it.")
    sha256: Sha256 | None = Field(None, description="Published SHA-256.")
    md5: Md5 | None = Field(None, description="Published MD5.")
    # Where a relative file: address starts. Private, so that no absolute path gets into a card.
    _base: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any) -> None:
        """Takes the list's folder from the validation context."""
        if context:
            self._base = context["base"]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"url": given} if isinstance(given, str) else given

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc:
            return url
        if parts.scheme == "file" and not parts.netloc and parts.path:
            return url
        raise ValueError("expected http://host/..., https://host/... or file:path")

    @property
    def path(self) -> Path | None:
        """The local file of a file: address; None for http(s)."""
        parts = urlsplit(self.url)
        return self._base / url2pathname(parts.path) if parts.scheme == "file" else None

    @property
    def has_checksum(self) -> bool:
        """Whether a download can be checked by content."""
        return bool(self.sha256 or self.md5)


class Archive(BaseModel):
    """One entry of the list of downloads; see the head of config/archives.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FileName = Field(description="Key of the entry.")
    dataset: FileName = Field(description="The set that the file belongs to.")
    urls: tuple[Source, ...] = Field((), description="Mirrors, tried in this order.")
    file: FileName = Field(description="Name on disk.")
    bytes: Count | None = Field(None, description="Exact size; None when no source states it.")
    sha256: Sha256 | None = Field(None, description="Published SHA-256.")
    md5: Md5 | None = Field(None, description="Published MD5.")
    checksum_source: str = Field(min_length=1, description="Who stated the checksum, or 'none published'.")
    licence: str | None = Field(None, description="None where it was not seen stated.")
    unpack: FileName | Literal[False] = Field(False, description="Folder under data/raw, or false.")
    manual: str | None = Field(None, description="What a person must do to get it.")
    note: str | None = Field(None, description="Anything worth knowing.")

    @property
    def sources(self) -> tuple[Source, ...]:
        """The mirrors, each with the numbers that hold for it: its own, else the entry's."""
        shared = {"bytes": self.bytes, "sha256": self.sha256, "md5": self.md5}
        return tuple(
            source if source.has_checksum or source.bytes is not None else source.model_copy(update=shared)
            for source in self.urls
        )

    @model_validator(mode="after")
    def _relations_hold(self) -> "Archive":
        if bool(self.urls) == bool(self.manual):
            raise ValueError("expected either `urls` or `manual`, and not both")
        checked = [source.has_checksum for source in self.sources] or [bool(self.sha256 or self.md5)]
        unpublished = _UNPUBLISHED in self.checksum_source
        if not all(checked) and not unpublished:
            raise ValueError(
                f"no sha256 or md5 for every url: give one, or begin `checksum_source` with {_UNPUBLISHED!r}"
            )
        if any(checked) and unpublished:
            raise ValueError(f"there is a checksum, but `checksum_source` says {_UNPUBLISHED!r}")
        return self


def load_archives(path: Path | str) -> dict[str, Archive]:
    """Reads the list of downloads.

    Args:
        path: YAML, one entry per file. Relative file: addresses start at its folder.

    Returns:
        Archives by name, in the order of the file.

    Raises:
        ConfigError: The list is missing or wrong; every mistake is named with its place.
    """
    path = Path(path)
    entries = _read_entries(path)
    archives: dict[str, Archive] = {}
    mistakes: list[str] = []
    for name, entry in entries.items():
        content = {**entry, "name": name} if isinstance(entry, dict) else entry
        try:
            archives[str(name)] = Archive.model_validate(content, context={"base": path.parent.absolute()})
        except ValidationError as error:
            mistakes.extend(_as_lines(str(name), error))
    mistakes.extend(_shared_names(archives))
    if mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise ConfigError(f"{path}: {len(mistakes)} mistake(s) in the list of downloads:\n{listed}")
    return archives


def fetch(
    archive: Archive,
    folder: Path,
    card: Path,
    *,
    attempts: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Makes sure that a verified copy of an archive lies in `folder`, and describes it in `card`.

    A verified file is not read or fetched again: a hidden stamp beside it keeps its size, time and digests.
    An interrupted download stays as `<file>.part` and is resumed. A file that is not what it should be
    becomes `<file>.bad` (the last one is kept). Where no checksum is published, the first download is
    recorded in the card and every later one must equal it.

    Args:
        archive: What to fetch.
        folder: Where archives lie; made if missing.
        card: JSON to write if it changes: name, url (None for a file put there by hand), file, bytes, sha256,
            checksum (how it was checked).
        attempts: Tries per mirror without any progress before the next mirror.
        backoff_s: Wait after the first failed try; doubles up to a minute.
        timeout_s: Longest wait for a connection or for the next bytes.

    Returns:
        The card's content.

    Raises:
        DataError: No mirror served the right file, or a person must fetch it; each reason is listed.
        JobError: The disk is full or cannot be written to, or another process is fetching the file.
    """
    target = folder / archive.file
    _make_folder(folder)
    first_sha256 = _first_sha256(target, card)
    offers = _offers(archive, first_sha256)
    reasons: list[str] = []
    found = _present(target, offers, reasons)
    if found is None and archive.manual:
        raise DataError("\n".join([f"{target}: expected this file. {archive.manual}", *reasons]))
    if found is None:
        found = _download(target, offers, _Patience(attempts, backoff_s, timeout_s), reasons)
    url, seen = found
    content = _card(archive, url, seen)
    if not card.exists() or read_json(card) != content:
        write_json(card, content)
    return content


def verify(archive: Archive, folder: Path) -> dict[str, Any]:
    """Reads an archive anew and compares it with what is published, or else with its first download.

    Returns:
        file, bytes, sha256 and md5 as found.

    Raises:
        DataError: The file is missing or differs; it is left where it is.
    """
    target = folder / archive.file
    if not target.is_file():
        raise DataError(f"{target}: expected this file; it is not there. Fetch it: luab fetch {archive.name}")
    first_sha256 = _first_sha256(target, None)
    seen = _hash_file(target)
    url, wrong = _match(_offers(archive, first_sha256), seen)
    if wrong:
        _stamp_path(target).unlink(missing_ok=True)
        raise DataError(f"{target}: {wrong} Fetch it again: luab fetch {archive.name}")
    _write_stamp(target, url, seen)
    return {"file": archive.file, "bytes": seen.bytes, "sha256": seen.sha256, "md5": seen.md5}


def unpack_all(
    archives: Sequence[Path] | Mapping[str, Path],
    folder: Path,
    card: Path,
    dataset: str,
    password: str | None = None,
) -> dict[str, Any]:
    """Unpacks archives into one folder, all or nothing, and describes it in `card`.

    Tars of any compression (found by content, not by name) and zips. macOS junk (`._*`, `__MACOSX/`) is
    skipped. Modes, owners and times in the archives are ignored. Members that leave the folder, links that
    do, and devices are refused. An existing folder is replaced on success only: both need room for a while.

    Args:
        archives: Files, by name for the card; a plain list goes by file name.
        folder: What to make.
        card: JSON to write last: dataset, archives (name: sha256), files (unpacked), skipped (junk members).
        dataset: Name for the card.
        password: Of encrypted zips. Python decrypts slowly; `unzip -P` is quicker for a large one.

    Returns:
        The card's content.

    Raises:
        DataError: An archive is missing, truncated, damaged or hostile; the message names archive and member.
        JobError: The disk is full or too small for what an archive declares.
    """
    named = dict(archives) if isinstance(archives, Mapping) else {path.name: path for path in archives}
    for path in named.values():
        if not path.is_file():
            raise DataError(f"{path}: expected this archive; it is not there. Fetch it: luab fetch")
    tally = _Tally()
    with replacing_folder(folder) as aside:
        for path in named.values():
            _unpack(path, aside, tally, password)
        # From here on the old card would describe a tree that is about to go.
        card.unlink(missing_ok=True)
    content = {
        "dataset": dataset,
        "archives": {name: _known_sha256(path) for name, path in sorted(named.items())},
        "files": tally.files,
        "skipped": tally.skipped,
    }
    write_json(card, content)
    return content


# ---- the list --------------------------------------------------------------------------------------------


def _read_entries(path: Path) -> dict[Any, Any]:
    try:
        entries = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: expected the list of downloads; it is not there.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: expected YAML, found something else: {error}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: expected one entry per download, found {type(entries).__name__}.")
    return entries


def _as_lines(name: str, error: ValidationError) -> Iterator[str]:
    for mistake in error.errors():
        place = ".".join([name, *(str(part) for part in mistake["loc"])])
        got = f" (got {mistake['input']!r})" if isinstance(mistake["input"], str | int | float) else ""
        yield f"{place}: {mistake['msg']}{got}"


def _shared_names(archives: Mapping[str, Archive]) -> Iterator[str]:
    owners: dict[str, str] = {f"{name}.json": f"the card of {name}" for name in archives}
    for name, archive in archives.items():
        if archive.file in owners:
            yield f"{name}.file: {archive.file!r} is also {owners[archive.file]}; rename one of them"
        owners[archive.file] = f"the file of {name}"


# ---- what a file is, and what it should be ----------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    bytes: int
    sha256: str
    md5: str


class _Digest:
    """Both digests of a growing file; MD5 costs little beside a download."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)

    def seen(self) -> _Seen:
        return _Seen(self.bytes, self._sha256.hexdigest(), self._md5.hexdigest())


@dataclass(frozen=True)
class _Offer:
    """What a mirror (None: a person) should give; `first_sha256` stands in where nothing is published."""

    source: Source | None
    bytes: int | None
    sha256: str | None
    md5: str | None
    first_sha256: str | None

    def wrong(self, seen: _Seen) -> str:
        """Why `seen` is not this file, as sentences; empty when it is."""
        expected = {"bytes": self.bytes, "sha256": self.sha256, "md5": self.md5}
        differ = [
            f"expected {key} {value}, found {getattr(seen, key)}."
            for key, value in expected.items()
            if value is not None and value != getattr(seen, key)
        ]
        if self.first_sha256 and self.first_sha256 != seen.sha256:
            differ.append(
                f"no checksum is published; the first download had sha256 {self.first_sha256}, "
                f"this one has {seen.sha256}."
            )
        return " ".join(differ)


def _offers(archive: Archive, first_sha256: str | None) -> list[_Offer]:
    sources: Sequence[Source | None] = archive.sources or (None,)
    offers = []
    for source in sources:
        stated = source if source is not None else archive
        published = bool(stated.sha256 or stated.md5)
        offers.append(
            _Offer(source, stated.bytes, stated.sha256, stated.md5, None if published else first_sha256)
        )
    return offers


def _match(offers: Iterable[_Offer], seen: _Seen) -> tuple[str | None, str]:
    """The url of the first offer that `seen` is, or why it is none of them."""
    wrong = ""
    for offer in offers:
        differs = offer.wrong(seen)
        if not differs:
            return (offer.source.url if offer.source else None), ""
        wrong = wrong or differs
    return None, wrong


def _card(archive: Archive, url: str | None, seen: _Seen) -> dict[str, Any]:
    stated = next((source for source in archive.sources if source.url == url), archive)
    how = "published sha256" if stated.sha256 else "published md5" if stated.md5 else None
    return {
        "name": archive.name,
        "url": url,
        "file": archive.file,
        "bytes": seen.bytes,
        "sha256": seen.sha256,
        "checksum": how or "none published: recorded at the first download",
    }


def _hash_file(path: Path) -> _Seen:
    digest = _Digest()
    with open(path, "rb") as file, progress(f"checking {path.name}", path.stat().st_size, "B") as advance:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.seen()


def _stamp_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.verified")


def _write_stamp(target: Path, url: str | None, seen: _Seen) -> None:
    # The time stays out of the card: cards must be equal on every machine.
    stamp = {"bytes": seen.bytes, "sha256": seen.sha256, "md5": seen.md5, "url": url}
    write_json(_stamp_path(target), {**stamp, "mtime_ns": target.stat().st_mtime_ns})


def _read_stamp(target: Path) -> dict[str, Any]:
    """The stamp beside `target`; empty where there is none or it cannot be read."""
    try:
        content = read_json(_stamp_path(target))
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def _stamped(target: Path) -> _Seen | None:
    """What the stamp says of an untouched file; None when file or stamp changed."""
    stamp, status = _read_stamp(target), target.stat()
    if (stamp.get("bytes"), stamp.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
        return None
    return _Seen(stamp["bytes"], stamp["sha256"], stamp["md5"])


def _known_sha256(path: Path) -> str:
    stamped = _stamped(path)
    return stamped.sha256 if stamped else file_sha256(path)


def _first_sha256(target: Path, card: Path | None) -> str | None:
    # The workflow removes a rule's card before it runs the rule; the stamp then remembers.
    if card is not None and card.exists():
        return read_json(card).get("sha256")
    return _read_stamp(target).get("sha256")


def _present(target: Path, offers: list[_Offer], reasons: list[str]) -> tuple[str | None, _Seen] | None:
    """The file that is there already, if it is the right one; a wrong one is set aside."""
    if not target.is_file():
        return None
    seen = _stamped(target)
    if seen is not None:
        url, wrong = _match(offers, seen)
        if not wrong:
            stamped_url = _read_stamp(target).get("url")
            listed = [offer.source.url for offer in offers if offer.source and not offer.wrong(seen)]
            return (stamped_url if stamped_url in listed else url), seen
    seen = _hash_file(target)
    url, wrong = _match(offers, seen)
    if wrong:
        reasons.append(f"  the file that was there: {wrong} It is now {_set_aside(target, target)}.")
        return None
    _write_stamp(target, url, seen)
    return url, seen


def _set_aside(path: Path, target: Path) -> Path:
    bad = target.with_name(f"{target.name}.bad")
    os.replace(path, bad)
    return bad


# ---- room --------------------------------------------------------------------------------------------------


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder}: expected to make this folder; {error.strerror}.") from error


def _check_room(folder: Path, need: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise JobError(
            f"{what}: expected room for {need:,} more bytes, found {free:,} free in {folder}. "
            "Make room or point the config's `paths.data` elsewhere, and run again."
        )


def _no_write(path: Path, error: OSError) -> JobError:
    free = shutil.disk_usage(path.parent).free / 1e9
    return JobError(
        f"{path}: could not be written ({error.strerror or error}); {free:.1f} GB are free there. Make "
        "room and run again: what has arrived is kept, and the download goes on from there."
    )


# ---- the part of a file that has arrived ----------------------------------------------------------------


class _Part:
    """`<file>.part`, its digest, and a note of which version of which address it is a part of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._digest: _Digest | None = None

    def __enter__(self) -> "_Part":
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
        self.size, self._digest = 0, _Digest()
        if note:
            write_json(self._note, note)

    def digest(self) -> _Digest:
        """The digest of what has arrived; read from disk once."""
        if self._digest is None:
            self._digest = _Digest()
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
                if error.errno not in _NO_ROOM:
                    raise
                raise _no_write(self.path, error) from error
            digest.update(bytes(rest[:written]))
            self.size += written
            rest = rest[written:]

    def set_aside(self) -> Path:
        """Moves the part to `<file>.bad`."""
        self.forget()
        return _set_aside(self.path, self.target)

    def finish(self) -> None:
        """Moves the part to its final name."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self.forget()


# ---- download ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patience:
    attempts: int
    backoff_s: float
    timeout_s: float


class _MirrorFailed(Exception):
    """This address will not serve the file; the next one may."""


class _Dropped(Exception):
    """The transfer broke; trying again may help."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def _download(
    target: Path, offers: list[_Offer], patience: _Patience, reasons: list[str]
) -> tuple[str | None, _Seen]:
    for offer in offers:
        if offer.source is None:
            continue
        try:
            seen = _from_mirror(offer, offer.source, target, patience)
        except _MirrorFailed as failure:
            reasons.append(f"  {offer.source.url}: {failure}")
            print(f"{target.name}: {offer.source.url}: {failure}", file=sys.stderr, flush=True)
            continue
        _write_stamp(target, offer.source.url, seen)
        return offer.source.url, seen
    raise DataError(
        "\n".join(
            [f"{target}: could not be fetched; every address failed:", *reasons, _remedy(target, offers)]
        )
    )


def _remedy(target: Path, offers: list[_Offer]) -> str:
    text = (
        "Run again to try once more (a part that has arrived is resumed); or add a mirror to the list of "
        f"downloads; or get the file by other means and put it at {target}."
    )
    if any(offer.first_sha256 for offer in offers):
        text += (
            " If the publisher has replaced the file and you accept the new one, first remove the archive's "
            f"card and {_stamp_path(target)}."
        )
    return text


def _from_mirror(offer: _Offer, source: Source, target: Path, patience: _Patience) -> _Seen:
    with _Part(target) as part:
        if offer.bytes is not None:
            _check_room(target.parent, offer.bytes - part.size, target.name)
        _persist(offer, source, part, patience)
        seen = part.digest().seen()
        wrong = offer.wrong(seen)
        if wrong:
            raise _MirrorFailed(f"{wrong} The file is kept as {part.set_aside()}.")
        part.finish()
    return seen


def _persist(offer: _Offer, source: Source, part: _Part, patience: _Patience) -> None:
    """Transfers until the file is whole, as long as tries make progress."""
    furthest, tries = part.size, 0
    while True:
        try:
            if source.path is not None:
                _copy(source.path, part, offer)
            else:
                _get(source.url, part, offer, patience.timeout_s)
            return
        except _Dropped as drop:
            tries = 0 if part.size > furthest else tries
            furthest, tries = max(furthest, part.size), tries + 1
            if tries >= patience.attempts:
                raise _MirrorFailed(f"{drop}; gave up after {tries} tries without progress.") from drop
            time.sleep(min(max(patience.backoff_s * 2 ** (tries - 1), drop.wait_s), _LONGEST_WAIT_S))


def _copy(path: Path, part: _Part, offer: _Offer) -> None:
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise _MirrorFailed(f"{error.strerror}.") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        _check_offered(total, offer)
        part.restart(None)
        _check_room(part.path.parent, total, part.target.name)
        _pour(iter(lambda: file.read(_CHUNK_BYTES), b""), part, total, offer)


def _get(url: str, part: _Part, offer: _Offer, timeout_s: float) -> None:
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
            _check_room(part.path.parent, total - part.size, part.target.name)
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
            raise _MirrorFailed(f"redirects from {before}: to {following}, which is refused.")
        url = following
    raise _MirrorFailed(f"more than {_REDIRECTS} redirects.")


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Sorts what may go wrong on the way into what is worth another try and what is not."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise _MirrorFailed(f"no secure connection ({error}).") from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Dropped(f"the connection failed ({error})") from error
    except requests.RequestException as error:
        raise _MirrorFailed(f"{error}.") from error


def _check_status(response: Any, part: _Part) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status == 416:
        part.forget()
        raise _Dropped("the server does not have the rest of the part; starting over")
    said = f"HTTP {status} {response.reason}"
    if status in _TRY_LATER:
        wait = response.headers.get("Retry-After", "")
        raise _Dropped(said, float(wait) if wait.isdigit() else 0.0)
    raise _MirrorFailed(f"{said}.")


def _resumed_total(response: Any, part: _Part, note: dict[str, Any]) -> int:
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
        raise _Dropped(f"the server sent another piece than the one asked for ({given!r}); starting over")
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


def _started_total(response: Any, part: _Part, offer: _Offer, url: str) -> int | None:
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


def _check_offered(total: int, offer: _Offer) -> None:
    if offer.bytes is not None and offer.bytes != total:
        raise _MirrorFailed(f"expected {offer.bytes} bytes, the address offers {total}.")


def _pour(chunks: Iterable[bytes], part: _Part, total: int | None, offer: _Offer) -> None:
    whole = total if total is not None else offer.bytes
    what = f"{part.target.name} (resumed)" if part.size else part.target.name
    with progress(what, None if whole is None else whole - part.size, "B") as advance:
        for chunk in chunks:
            part.write(chunk)
            advance(len(chunk))
            if whole is not None and part.size > whole:
                return  # too long: the check that follows says so
    if whole is not None and part.size < whole:
        raise _Dropped(f"the transfer ended at byte {part.size} of {whole}")


# ---- unpack ------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    files: int = 0
    skipped: int = 0
    links: set[PurePosixPath] = field(default_factory=set)


class _StrictMember(tarfile.TarInfo):
    """A tar header; tarfile takes a damaged or missing one for the end of the archive, this one does not."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictMember":
        """Reads the next header.

        Raises:
            tarfile.ReadError: There is none, and no end-of-archive mark either, or it is damaged.
        """
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {tar.offset} of its content: {error}") from error


def _unpack(path: Path, root: Path, tally: _Tally, password: str | None) -> None:
    damage = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
    try:
        with open(path, "rb") as file:
            if file.peek(4)[:2] == b"PK":
                _unzip(path, file, root, tally, password)
            else:
                _untar(path, file, root, tally)
    except damage as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # bz2 reports damage as an OSError without a number.
        if error.errno is not None and error.errno not in _BAD_NAME:
            raise
        raise _damaged(path, error) from error
    _check_links(path, root, tally)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: expected a whole tar or zip archive, found a truncated or damaged one "
        f"({error or 'it ends early'}). Remove it and fetch it again."
    )


def _hostile(path: Path, member: str, why: str) -> DataError:
    return DataError(
        f"{path}: its member {member!r} {why}, which no dataset needs. Nothing was unpacked. Remove the "
        "archive and fetch it again; if that does not help, do not trust where it came from."
    )


def _untar(path: Path, file: BinaryIO, root: Path, tally: _Tally) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise JobError("Unpacking tars safely needs Python 3.11.4 or newer (tarfile.data_filter).")
    done = 0
    with (
        progress(f"unpacking {path.name}", path.stat().st_size, "B") as advance,
        _decompressed(file) as stream,
        # errorlevel 2: a hard link that cannot be made would otherwise go missing in silence
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictMember, errorlevel=2) as tar,
    ):
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else a million members stay in memory
            _untar_member(path, tar, member, root, tally)
            advance(file.tell() - done)
            done = file.tell()
        while stream.read(_CHUNK_BYTES):
            pass  # to the end, where gzip, bzip2 and xz keep their checksum


@contextlib.contextmanager
def _decompressed(file: BinaryIO) -> Iterator[IO[bytes]]:
    """The content of a tar, whatever its name says of the compression."""
    magic = file.peek(6)[:6]  # type: ignore[attr-defined]
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream  # type: ignore[misc]
    elif magic[:3] == b"BZh":
        with bz2.BZ2File(file) as stream:
            yield stream
    elif magic == b"\xfd7zXZ\x00":
        with lzma.LZMAFile(file) as stream:
            yield stream
    else:
        yield file


def _untar_member(
    path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, tally: _Tally
) -> None:
    place = _place(path, member.name)
    if _is_junk(place):
        tally.skipped += 1
        return
    if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
        raise _hostile(path, member.name, "is a device or a pipe")
    if _through_link(place, tally):
        raise _hostile(path, member.name, "is written through a link")
    if member.islnk():
        _check_hard_link(path, member, root, tally)
    if member.isreg():
        _check_room(root, member.size, f"{path} -> {member.name}")
    new = not os.path.lexists(root / place)
    try:
        tar.extract(member, root, set_attrs=False, filter="data")
    except tarfile.FilterError as error:
        raise _hostile(path, member.name, f"leaves the folder ({error})") from error
    if member.issym():
        tally.links.add(place)
    tally.files += new and (member.isreg() or member.islnk())


def _place(path: Path, name: str) -> PurePosixPath:
    """Where a member goes, relative to the root.

    Raises:
        DataError: It would go elsewhere.
    """
    place = PurePosixPath(name)
    if place.is_absolute():
        raise _hostile(path, name, "has an absolute path")
    if ".." in place.parts:
        raise _hostile(path, name, "climbs out of the folder with '..'")
    if "\0" in name:
        raise _hostile(path, name, "has a zero byte in its name")
    return place


def _is_junk(place: PurePosixPath) -> bool:
    return place.name.startswith("._") or place.parts[:1] == ("__MACOSX",)


def _through_link(place: PurePosixPath, tally: _Tally) -> bool:
    return bool(tally.links) and any(part in tally.links for part in (place, *place.parents))


def _check_hard_link(path: Path, member: tarfile.TarInfo, root: Path, tally: _Tally) -> None:
    goal = PurePosixPath(member.linkname)
    if goal.is_absolute() or ".." in goal.parts or _through_link(goal, tally):
        raise _hostile(path, member.name, f"is a hard link out of the folder, to {member.linkname!r}")
    if not (root / goal).is_file():
        raise _hostile(path, member.name, f"is a hard link to {member.linkname!r}, which is not there")


def _check_links(path: Path, root: Path, tally: _Tally) -> None:
    # Once more at the end: a link may come to point outside through a link that was made after it.
    top = root.resolve()
    for link in tally.links:
        if not (root / link).resolve().is_relative_to(top):
            raise _hostile(path, str(link), "is a link out of the folder")


def _unzip(path: Path, file: BinaryIO, root: Path, tally: _Tally, password: str | None) -> None:
    secret = password.encode() if password else None
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        _check_room(root, total, str(path))
        with progress(f"unpacking {path.name}", total, "B") as advance:
            for member in members:
                _unzip_member(path, archive, member, root, tally, secret)
                advance(member.file_size)


def _unzip_member(
    path: Path,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    root: Path,
    tally: _Tally,
    secret: bytes | None,
) -> None:
    place = _place(path, member.filename)
    if _is_junk(place):
        tally.skipped += 1
        return
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _hostile(path, member.filename, "is a link, a device or a pipe")
    if _through_link(place, tally):
        raise _hostile(path, member.filename, "is written through a link")
    goal = root / place
    if member.is_dir():
        goal.mkdir(parents=True, exist_ok=True)
        return
    _check_room(root, member.file_size, f"{path} -> {member.filename}")
    goal.parent.mkdir(parents=True, exist_ok=True)
    tally.files += not goal.exists()
    with _zip_errors(path, member), archive.open(member, pwd=secret) as source, open(goal, "wb") as out:
        shutil.copyfileobj(source, out, _CHUNK_BYTES)


@contextlib.contextmanager
def _zip_errors(path: Path, member: zipfile.ZipInfo) -> Iterator[None]:
    """zipfile says RuntimeError for a password and NotImplementedError for a compression it lacks."""
    try:
        yield
    except NotImplementedError as error:
        raise DataError(
            f"{path}: its member {member.filename!r} cannot be read here ({error}). Unpack it with `unzip` "
            "and name the folder in the config's `paths.copies`."
        ) from error
    except RuntimeError as error:
        raise DataError(
            f"{path}: its member {member.filename!r} needs the right password ({error}). Take it from where "
            "the archive is offered."
        ) from error
