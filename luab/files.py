"""Atomic writing of files and folders, JSON files, and SHA-256 digests."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from luab.errors import DataError, JobError, did_you_mean

_ASIDE = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
_STALE_S = 24 * 3600
# EFBIG is the error of a file size limit (ulimit -f); to the user it is one more way of having no space.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def replacing(path: Path | str, folder: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder; renames it to `path` on success and removes it on failure.

    The temporary name keeps the suffix of `path`, because some writers choose their format by it.

    Raises:
        JobError: The disk is full, or the folder is not writable.
    """
    path = Path(path)
    prefix, suffix = (f".{path.name}-", "") if folder else (f".{path.stem}-", path.suffix)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
        else:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
            os.close(handle)
            aside = Path(name)
        yield aside
        if not folder:
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
        os.umask(mask := os.umask(0))  # the only way to read it is to set it
        os.chmod(aside, (0o777 if folder else 0o666) & ~mask)
        if folder and path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
        _remove_stale(path.parent, prefix, suffix)
    except OSError as error:
        if aside is not None and not no_room(error):
            raise
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        free = shutil.disk_usage(existing).free / 1e9
        raise JobError(
            f"{path}: could not be written ({error.strerror or error}). The disk has {free:.1f} GB free; "
            "free some space or set `paths` in the config to another disk. No partial file was left."
        ) from error
    finally:
        if folder and aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        elif aside is not None:
            aside.unlink(missing_ok=True)


def replacing_folder(path: Path | str) -> contextlib.AbstractContextManager[Path]:
    """Like `replacing`, for a whole folder; an existing `path` is removed only on success."""
    return replacing(path, folder=True)


def _remove_stale(folder: Path, prefix: str, suffix: str) -> None:
    """Removes temporary files and folders of one path that killed processes left, a day after their last change."""
    name = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    # The replacement has succeeded; a leftover that cannot be removed must not turn that into an error.
    with contextlib.suppress(OSError):
        for leftover in folder.iterdir():
            if not name.fullmatch(leftover.name) or leftover.is_symlink():
                continue
            changed = max(path.lstat().st_mtime for path in (leftover, *leftover.rglob("*")))
            if time.time() - changed > _STALE_S:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that `replacing` left in killed processes; only for folders with a single writer."""
    for path in folder.glob(".*-*"):
        if path.is_file() and _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_room(folder: Path, need: int, what: str) -> None:
    """Raises JobError unless the disk of `folder` has the `need` bytes free that writing `what` takes."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise JobError(
            f"{what}: expected room for {need:,} more bytes, found {free:,} free in {folder}. "
            "Free some space or set `paths.data` in the config to another disk, and run again."
        )


def write_json(path: Path | str, content: Any) -> None:
    """Writes `content` atomically, with sorted keys and a final newline."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path | str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a UTF-8 table atomically; floats are written by repr, so that reading them back gives the same ones."""
    with replacing(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([repr(float(cell)) if isinstance(cell, float) else cell for cell in row] for row in rows)


def read_text(path: Path | str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark; DataError for another encoding."""
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: expected text in UTF-8, found {'UTF-16' if wide else 'another encoding, such as Latin-1,'} in "
            f"line {line}. Save it again as UTF-8: in Excel as 'CSV UTF-8', in an editor with the encoding UTF-8, or "
            f"with `iconv -f {'UTF-16' if wide else 'WINDOWS-1252'} -t UTF-8`."
        ) from error


def read_rows(
    path: Path | str, columns: Sequence[str], key: Sequence[str] = (), optional: Sequence[str] = ()
) -> list[tuple[str, dict[str, str]]]:
    """Reads a small table that people edit: UTF-8, separated by commas, semicolons (Excel) or tabs.

    Args:
        path: The table; blanks around cells and empty lines are ignored.
        columns: Its columns, in any order.
        key: Columns whose cells together may occur once.
        optional: Columns that may be missing.

    Returns:
        Place ("<path>, line <n>", for messages) and cells of each row.

    Raises:
        DataError: The file is missing or not UTF-8, a column is missing, unknown or twice, a row has another number of
            cells, or two rows have the same key.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the table ({error.strerror}).") from error
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    head: list[str] = []
    places: dict[tuple[str, ...], str] = {}
    line = 0
    try:
        for cells in reader:
            line, place = reader.line_num, f"{path}, line {line + 1}"
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not head:
                head = cells[: len(cells) - next(i for i, cell in enumerate(reversed(cells)) if cell)]
                _check_columns(path, head, columns, optional)
                continue
            if len(cells) < len(head) or any(cells[len(head) :]):
                raise DataError(
                    f"{place}: expected {len(head)} cells, found {len(cells)}. Put a cell that contains a separator in "
                    "double quotes."
                )
            row = dict(zip(head, cells, strict=False))
            name = tuple(row[column] for column in key)
            if name and places.setdefault(name, place) != place:
                raise DataError(f"{place}: {', '.join(name)} is already in {places[name]}. Remove one of the two rows.")
            rows.append((place, row))
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1}: not a row of a table ({error}). Check the quotes.") from error
    if not head:
        raise DataError(f"{path}: expected the columns {', '.join(columns)}, found an empty file.")
    return rows


def _check_columns(path: Path | str, found: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    expected = [*needed, *optional]
    unknown = [f"{name!r} is unknown. {did_you_mean(name, expected)}" for name in found if name not in expected]
    twice = [f"{name!r} is there twice." for name in dict.fromkeys(found) if found.count(name) > 1]
    lacking = [f"{name!r} is missing." for name in needed if name not in found]
    if unknown or twice or lacking:
        mistakes = " ".join([*unknown, *twice, *lacking])
        raise DataError(f"{path}: expected the columns {', '.join(expected)}, found {', '.join(found)}. {mistakes}")


def read_number(text: str, place: str) -> float:
    """Reads a number of a small table, with a decimal point or a decimal comma; DataError, which begins with `place`.

    NaN, infinity and thousands separators are refused.
    """
    if not re.fullmatch(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", text):
        raise DataError(f"{place}: expected a number such as 76.1, found {text!r}.")
    return float(text.replace(",", "."))


def read_percent(text: str, place: str, metric: str) -> float:
    """Like `read_number`, for a value of a metric in percent; fractions and values above 100 are refused.

    A gap may be small or negative, and mCE may exceed 100.
    """
    value = read_number(text.removesuffix("%").rstrip(), place)
    if "gap" not in metric and (value < 0 or 0 < value < 1 or (value > 100 and metric != "mce")):
        hint = f" Is it a fraction? Then write {100 * value:g}." if 0 < value < 1 else ""
        raise DataError(f"{place}: expected {metric} in percent, from 1 to 100, found {text}.{hint}")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a JSON object of its pairs; ValueError if a key stands twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return content


def read_json(path: Path | str) -> Any:
    """Reads a JSON file; a file that is missing or is not JSON is a DataError."""
    path = Path(path)
    try:
        return json.loads(read_text(path), object_pairs_hook=unique_keys)
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected this JSON file, found none. Run the step that writes it.") from error
    except (ValueError, RecursionError) as error:  # the latter for deeply nested brackets
        raise DataError(
            f"{path}: expected JSON, could not parse it ({error}). Remove the file and run the step that writes it."
        ) from error


def read_fields(path: Path | str, keys: Iterable[str]) -> dict[str, Any]:
    """Like `read_json`, for an object that must have the given keys."""
    content = read_json(path)
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise DataError(
            f"{path}: expected a card with {', '.join(keys)}, found other content. Run the step that writes it again."
        )
    return content


def file_sha256(path: Path | str) -> str:
    """Computes the SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, whatever the order of their keys; shows if a file was changed later."""
    as_read = json.loads(json.dumps(content))  # keys as text, tuples as lists
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def lines_sha256(lines: Iterable[str]) -> str:
    """Computes the SHA-256 of lines that each end with a newline: the digest of a list of ids, in their order."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def no_room(error: OSError) -> bool:
    """Whether an error means that the place is not writable: disk full, quota, size limit, no permission."""
    # Arrow raises an OSError without errno, but with the system's message in its text.
    return error.errno in _NO_ROOM or os.strerror(errno.ENOSPC) in str(error)
