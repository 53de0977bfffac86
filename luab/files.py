"""Writing so that a reader never meets half a file, and naming files by their content."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from luab.errors import DataError, JobError

_CHUNK_BYTES = 1 << 20
_ASIDE = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
_STALE_S = 24 * 3600
# EFBIG is what a file size limit (ulimit -f) answers; for the user it is one more way to have no room.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it becomes `path`, on failure it goes.

    The temporary name keeps the suffix of `path`, since writers choose their format by it.

    Raises:
        JobError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise _no_write(path, error) from error
    aside = Path(name)
    try:
        yield aside
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
        _sweep(path.parent, f".{path.stem}-", path.suffix)
    except OSError as error:
        if not no_room(error):
            raise
        raise _no_write(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str) -> Iterator[Path]:
    """Like `replacing`, for a whole folder: an existing `path` is removed only on success.

    Raises:
        JobError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        yield aside
        os.chmod(aside, 0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
        _sweep(path.parent, f".{path.name}-")
    except OSError as error:
        if aside is not None and not no_room(error):
            raise
        raise _no_write(path, error) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path, prefix: str, suffix: str = "") -> None:
    """Removes what killed processes left of earlier replacements of one path, a day after its last change."""
    name = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    # The replacement has succeeded; a leftover that cannot be removed, or is just going, must not undo that.
    with contextlib.suppress(OSError):
        for leftover in folder.iterdir():
            if not name.fullmatch(leftover.name) or leftover.is_symlink():
                continue
            changed = max(path.lstat().st_mtime for path in (leftover, *leftover.rglob("*")))
            if time.time() - changed > _STALE_S:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def remove_leftovers(folder: Path) -> None:
    """Removes what `replacing` left in a killed process; only for a folder that one process writes to."""
    for path in folder.glob(".*-*"):
        if path.is_file() and _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_room(folder: Path, need: int, what: str) -> None:
    """Refuses to begin a write of `need` bytes, of `what`, that the disk of `folder` cannot hold.

    Raises:
        JobError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise JobError(
            f"{what}: expected room for {need:,} more bytes, found {free:,} free in {folder}. "
            "Make room or point the config's `paths.data` elsewhere, and run again."
        )


def write_json(path: Path | str, content: Any) -> None:
    """Writes `content` with sorted keys and a final newline, aside and then renamed."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: It is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected this JSON file; it is not there. Run the step that writes it.") from error
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets in brackets
        raise DataError(
            f"{path}: expected JSON, found something else ({error}). Remove the file and make it again."
        ) from error


def read_fields(path: Path | str, keys: Iterable[str]) -> dict[str, Any]:
    """Reads a JSON object that must hold some keys.

    Raises:
        DataError: It is missing, is not JSON, is no object or lacks a key.
    """
    card = read_json(path)
    if not isinstance(card, dict) or any(key not in card for key in keys):
        raise DataError(f"{path}: expected a card with {', '.join(keys)}, found one without. Make it again.")
    return card


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def lines_sha256(lines: Iterator[str] | list[str]) -> str:
    """SHA-256 of lines joined by newlines: the digest of a list of ids, in the order given."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def no_room(error: OSError) -> bool:
    """Whether an error means that nothing can be written there: disk full, quota, size limit, no permission."""
    # Arrow raises an OSError whose errno is unset but whose text carries the system's message.
    return error.errno in _NO_ROOM or os.strerror(errno.ENOSPC) in str(error)


def _no_write(path: Path, error: OSError) -> JobError:
    free = shutil.disk_usage(_existing(path)).free / 1e9
    return JobError(
        f"{path}: could not be written ({error.strerror or error}). {free:.1f} GB are free there; "
        "make room or point the config's `paths` elsewhere. Nothing half-written was left behind."
    )


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
