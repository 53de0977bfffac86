"""Unpacks tar and zip archives safely: members cannot write outside the folder."""

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
    """Unpacks archives into one folder, all or nothing, and writes its card.

    Reads zips and tars; the compression of a tar is detected by content, not by name. Skips macOS junk (`._*`,
    `__MACOSX/`) and ignores modes, owners and times. Rejects devices, and members and links that leave the folder.
    An existing folder is replaced only on success, so the disk needs room for both.

    Args:
        archives: Paths by name in the card, or a list of paths, named by file name.
        folder: Output folder.
        card: JSON, written last: dataset, archives (name: sha256), files (unpacked), skipped (junk members).
        dataset: Name in the card.
        password: Of encrypted zips. Python decrypts slowly; `unzip -P` is faster for large ones.

    Returns:
        Content of the card.

    Raises:
        DataError: An archive is missing, truncated, damaged or unsafe; the message names archive and member.
        JobError: The disk is full, or too small for the size that an archive declares.
    """
    named = dict(archives) if isinstance(archives, Mapping) else {path.name: path for path in archives}
    for path in named.values():
        if not path.is_file():
            raise DataError(f"{path}: archive not found. Download it with `luab fetch`.")
    tally = _Tally()
    with replacing_folder(folder) as aside:
        for path in named.values():
            _unpack(path, aside, tally, password)
        # The old card describes the folder that is about to be replaced.
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
        # bz2 reports damage as an OSError without errno.
        if error.errno is not None and error.errno not in _BAD_NAME:
            raise
        raise _damaged(path, error) from error
    _check_links(path, root, tally)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the archive is truncated or damaged ({error or 'it ends early'}), or not a tar or zip. Remove it and "
        "fetch it again."
    )


def _unsafe(path: Path, member: str, why: str) -> DataError:
    return DataError(
        f"{path}: member {member!r} {why}, which is unsafe. Nothing was unpacked. Remove the archive and fetch it "
        "again; if that does not help, do not trust its source."
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
            pass  # read to the end, where gzip, bzip2 and xz verify their checksum


@contextlib.contextmanager
def _decompressed(file: BinaryIO) -> Iterator[IO[bytes]]:
    """The uncompressed tar; the compression is detected by content."""
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
    relative = _member_path(path, member.name)
    if _is_junk(relative):
        tally.skipped += 1
        return
    if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
        raise _unsafe(path, member.name, "is a device or a pipe")
    if _through_link(relative, tally):
        raise _unsafe(path, member.name, "is written through a link")
    if member.islnk():
        _check_hard_link(path, member, root, tally)
    if member.isreg():
        check_room(root, member.size, f"{path} -> {member.name}")
    new = not os.path.lexists(root / relative)
    try:
        tar.extract(member, root, set_attrs=False, filter="data")
    except tarfile.FilterError as error:
        raise _unsafe(path, member.name, f"leaves the folder ({error})") from error
    if member.issym():
        tally.links.add(relative)
    tally.files += new and (member.isreg() or member.islnk())


def _member_path(path: Path, name: str) -> PurePosixPath:
    """Path of a member relative to the root.

    Raises:
        DataError: The path is outside the root.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute():
        raise _unsafe(path, name, "has an absolute path")
    if ".." in relative.parts:
        raise _unsafe(path, name, "climbs out of the folder with '..'")
    if "\0" in name:
        raise _unsafe(path, name, "has a zero byte in its name")
    return relative


def _is_junk(relative: PurePosixPath) -> bool:
    return relative.name.startswith("._") or relative.parts[:1] == ("__MACOSX",)


def _through_link(relative: PurePosixPath, tally: _Tally) -> bool:
    return bool(tally.links) and any(part in tally.links for part in (relative, *relative.parents))


def _check_hard_link(path: Path, member: tarfile.TarInfo, root: Path, tally: _Tally) -> None:
    goal = PurePosixPath(member.linkname)
    if goal.is_absolute() or ".." in goal.parts or _through_link(goal, tally):
        raise _unsafe(path, member.name, f"is a hard link out of the folder, to {member.linkname!r}")
    if not (root / goal).is_file():
        raise _unsafe(path, member.name, f"is a hard link to the missing file {member.linkname!r}")


def _check_links(path: Path, root: Path, tally: _Tally) -> None:
    # A second check at the end: a later link can make an earlier one point outside.
    top = root.resolve()
    for link in tally.links:
        if not (root / link).resolve().is_relative_to(top):
            raise _unsafe(path, str(link), "is a link out of the folder")


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
    relative = _member_path(path, member.filename)
    if _is_junk(relative):
        tally.skipped += 1
        return
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(path, member.filename, "is a link, a device or a pipe")
    if _through_link(relative, tally):
        raise _unsafe(path, member.filename, "is written through a link")
    goal = root / relative
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
    """zipfile raises RuntimeError for a wrong password and NotImplementedError for an unsupported compression."""
    try:
        yield
    except NotImplementedError as error:
        raise DataError(
            f"{path}: cannot read member {member.filename!r} ({error}). Unpack the archive with `unzip` and set the "
            "folder in the configuration under `paths.copies`."
        ) from error
    except RuntimeError as error:
        raise DataError(
            f"{path}: member {member.filename!r} needs the right password ({error}). The publisher of the archive "
            "provides it."
        ) from error
