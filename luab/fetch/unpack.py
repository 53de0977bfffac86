"""Unpacks tar and zip archives safely: members cannot write outside the folder."""

import errno
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from luab.errors import DataError, JobError
from luab.fetch.formats import DAMAGE, UNPACKABLE, decompressed, format_of
from luab.fetch.strict_tar import strict_members
from luab.fetch.verify import disown, known_sha256
from luab.files import check_room, replacing_folder, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_BAD_NAME = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


def unpack_all(archives: Mapping[str, Path], folder: Path, card: Path, dataset: str) -> dict[str, Any]:
    """Unpacks archives into one folder, all or nothing, and writes its card.

    Reads zips and tars; the compression of a tar is detected by content, not by name. Skips macOS junk (`._*`,
    `__MACOSX/`) and ignores modes, owners and times. Rejects devices, and members and links that leave the folder.
    An existing folder is replaced only on success, so the disk needs room for both.

    The card, whose content is returned too, is JSON, written last: dataset, archives (name: sha256), files (unpacked),
    skipped (junk members). `archives` has their paths by these names.

    Raises:
        DataError: An archive is missing, empty, truncated, damaged, encrypted, unsafe or of another format; the message
            names archive and member.
        JobError: The disk is full, or too small for the size that an archive declares.
    """
    for path in archives.values():
        if not path.is_file():
            raise DataError(f"{path}: archive not found. Download it with `luab fetch`.")
    with replacing_folder(folder) as aside:
        unpacker = _Unpacker(aside)
        for path in archives.values():
            unpacker.unpack(path)
        if not unpacker.files:
            raise DataError(f"{', '.join(map(str, archives.values()))}: expected files to unpack, found none.")
        # The old card describes the folder that is about to be replaced.
        card.unlink(missing_ok=True)
    content = {
        "dataset": dataset,
        "archives": {name: known_sha256(path) for name, path in sorted(archives.items())},
        "files": unpacker.files,
        "skipped": unpacker.skipped,
    }
    write_json(card, content)
    return content


@dataclass
class _Unpacker:
    """Unpacks archives into the folder `root` one after the other; counts their members and remembers their links."""

    root: Path
    path: Path = Path()  # the archive that is unpacked now
    files: int = 0
    skipped: int = 0
    links: set[PurePosixPath] = field(default_factory=set)

    def unpack(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file, progress(f"unpacking {path.name}", path.stat().st_size, "B") as advance:
                found = format_of(file.peek(1024))
                if found not in (*UNPACKABLE, "unknown"):
                    raise self._other_format(found)
                read = self._unzip if found == "zip" else self._untar
                read(file, advance)
        except DAMAGE as error:
            raise self._damaged(error) from error
        except OSError as error:
            # bz2 reports damage as an OSError without errno.
            if error.errno is not None and error.errno not in _BAD_NAME:
                raise
            raise self._damaged(error) from error
        # A second check at the end: a later link can make an earlier one point outside.
        for link in self.links:
            if not (self.root / link).resolve().is_relative_to(self.root.resolve()):
                raise self._unsafe(str(link), "is a link out of the folder")

    def _untar(self, file: BinaryIO, advance: Callable[[float], None]) -> None:
        if not hasattr(tarfile, "data_filter"):
            raise JobError("Unpacking tars safely needs Python 3.11.4 or newer (tarfile.data_filter).")
        done = 0
        with decompressed(file) as stream:
            for tar, member in strict_members(stream):
                self._untar_member(tar, member)
                advance(file.tell() - done)
                done = file.tell()
            while stream.read(_CHUNK_BYTES):
                pass  # read to the end, where gzip, bzip2 and xz verify their checksum

    def _untar_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if (relative := self._place(member.name)) is None:
            return
        if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
            raise self._unsafe(member.name, "is a device or a pipe")
        if member.islnk():
            goal = PurePosixPath(member.linkname)
            if goal.is_absolute() or ".." in goal.parts or self._through_link(goal):
                raise self._unsafe(member.name, f"is a hard link out of the folder, to {member.linkname!r}")
            if not (self.root / goal).is_file():
                raise self._unsafe(member.name, f"is a hard link to the missing file {member.linkname!r}")
        if member.isreg():
            check_room(self.root, member.size, f"{self.path} -> {member.name}")
        new = not os.path.lexists(self.root / relative)
        try:
            tar.extract(member, self.root, set_attrs=False, filter="data")
        except tarfile.FilterError as error:
            raise self._unsafe(member.name, f"leaves the folder ({error})") from error
        if member.issym():
            self.links.add(relative)
        self.files += new and (member.isreg() or member.islnk())

    def _unzip(self, file: BinaryIO, advance: Callable[[float], None]) -> None:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_room(self.root, sum(member.file_size for member in members), str(self.path))
            for member in members:
                self._unzip_member(archive, member)
                advance(member.compress_size)

    def _unzip_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        if (relative := self._place(member.filename)) is None:
            return
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._unsafe(member.filename, "is a link, a device or a pipe")
        goal = self.root / relative
        if member.is_dir():
            goal.mkdir(parents=True, exist_ok=True)
            return
        check_room(self.root, member.file_size, f"{self.path} -> {member.filename}")
        goal.parent.mkdir(parents=True, exist_ok=True)
        self.files += not goal.exists()
        try:
            with archive.open(member) as source, open(goal, "wb") as out:
                shutil.copyfileobj(source, out, _CHUNK_BYTES)
        except RuntimeError as error:  # NotImplementedError for an unsupported compression, else it is encrypted
            raise DataError(
                f"{self.path}: cannot read member {member.filename!r} ({error}). Unpack the archive with `unzip` (if "
                "it is encrypted: `unzip -P <password>`) and set the folder in the configuration under `paths.copies`."
            ) from error

    def _place(self, name: str) -> PurePosixPath | None:
        """Path of a member relative to the root; None, after counting it, for macOS junk."""
        relative = PurePosixPath(name)
        if relative.is_absolute():
            raise self._unsafe(name, "has an absolute path")
        if ".." in relative.parts:
            raise self._unsafe(name, "climbs out of the folder with '..'")
        if "\0" in name:
            raise self._unsafe(name, "has a zero byte in its name")
        if relative.name.startswith("._") or relative.parts[:1] == ("__MACOSX",):
            self.skipped += 1
            return None
        if self._through_link(relative):
            raise self._unsafe(name, "is written through a link")
        return relative

    def _through_link(self, relative: PurePosixPath) -> bool:
        return bool(self.links) and any(part in self.links for part in (relative, *relative.parents))

    def _other_format(self, found: str) -> DataError:
        disown(self.path)
        return DataError(
            f"{self.path}: expected a tar or zip, found {found}. Remove it and fetch it again; if it is an archive of "
            "another kind, unpack it with its own program and set the folder under `paths.copies`."
        )

    def _damaged(self, error: Exception) -> DataError:
        disown(self.path)
        return DataError(
            f"{self.path}: the archive is truncated or damaged ({error or 'it ends early'}), or not a tar or zip. "
            "Remove it and fetch it again."
        )

    def _unsafe(self, member: str, why: str) -> DataError:
        return DataError(
            f"{self.path}: member {member!r} {why}, which is unsafe. Nothing was unpacked. Remove the archive and "
            "fetch it again; if that does not help, do not trust its source."
        )
