"""Unpacking tars and zips without trusting what is inside."""

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from luab.errors import DataError, JobError
from luab.fetch.strict_tar import strict_members
from luab.fetch.verify import known_sha256
from luab.files import check_room, replacing_folder, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_BAD_NAME = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


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
        "archives": {name: known_sha256(path) for name, path in sorted(named.items())},
        "files": tally.files,
        "skipped": tally.skipped,
    }
    write_json(card, content)
    return content


@dataclass
class _Tally:
    files: int = 0
    skipped: int = 0
    links: set[PurePosixPath] = field(default_factory=set)


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
    with progress(f"unpacking {path.name}", path.stat().st_size, "B") as advance, _decompressed(file) as stream:
        for tar, member in strict_members(stream):
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


def _untar_member(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, tally: _Tally) -> None:
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
        check_room(root, member.size, f"{path} -> {member.name}")
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
        check_room(root, total, str(path))
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
    check_room(root, member.file_size, f"{path} -> {member.filename}")
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
