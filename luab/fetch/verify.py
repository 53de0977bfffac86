"""Checks downloaded files against published sizes and checksums; remembers verified files in stamps."""

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError
from luab.fetch.formats import damage_of, wrong_format
from luab.fetch.listing import FILE_NAME, Archive, Published
from luab.files import file_sha256, read_fields, read_json, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Digests:
    """Size and digests of a file on disk."""

    bytes: int
    sha256: str
    md5: str


class Hasher:
    """Size and both digests of a file that is written in chunks."""

    def __init__(self) -> None:
        self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Adds the next bytes of the file."""
        self._bytes += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)

    def digests(self) -> Digests:
        """Size and digests of the bytes so far."""
        return Digests(self._bytes, self._sha256.hexdigest(), self._md5.hexdigest())


def hasher_of(path: Path) -> Hasher:
    """Hasher of the bytes that a file has now; reads the whole file."""
    hasher = Hasher()
    with open(path, "rb") as file, progress(f"checking {path.name}", path.stat().st_size, "B") as advance:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            advance(len(chunk))
    return hasher


def verify(archive: Archive, folder: Path) -> Digests:
    """Reads a downloaded archive again and compares it with its published checksum, or else with the first download.

    Raises:
        DataError: The file is missing or differs; a file that differs is not removed.
    """
    target = folder / archive.file
    if not target.is_file():
        raise DataError(f"{target}: file not found. Download it: luab fetch {archive.name}")
    digests = hasher_of(target).digests()
    urls, mismatch = matching_urls(archive, digests, recorded_sha256(target, None), _wrong(target))
    if mismatch:
        stamp_path(target).unlink(missing_ok=True)
        if _wrong(target):
            disown(target, digests)
        raise DataError(f"{target}: {mismatch} Download it again: luab fetch {archive.name}")
    write_stamp(target, urls[0], digests)
    return digests


def difference(published: Published, digests: Digests, first_sha256: str | None, wrong: str = "") -> str:
    """How a file differs from the published one, or else from the first download; empty if it is the same.

    wrong: What is wrong with its content (`luab.fetch.formats`); does not count against a published checksum.
    """
    differences = [
        f"expected {key} {getattr(published, key)}, found {found}."
        for key, found in asdict(digests).items()
        if getattr(published, key) not in (None, found)
    ]
    if first_sha256 and first_sha256 != digests.sha256 and not published.has_checksum:
        differences.append(
            f"no checksum is published; the first download had sha256 {first_sha256}, this one has {digests.sha256}."
        )
    if wrong and (differences or not published.has_checksum):
        differences.insert(0, wrong)
    return " ".join(differences)


def matching_urls(
    archive: Archive, digests: Digests, first_sha256: str | None, wrong: str
) -> tuple[list[str | None], str]:
    """Urls of the mirrors that serve this file (None: got by hand), or no url and how it differs from the first's."""
    by_url: dict[str | None, Published] = {source.url: source for source in archive.sources}
    differences = {
        url: difference(published, digests, first_sha256, wrong)
        for url, published in (by_url or {None: archive}).items()
    }
    urls = [url for url, text in differences.items() if not text]
    return urls, "" if urls else next(iter(differences.values()))


def stamp_path(target: Path) -> Path:
    """Path of the hidden stamp next to a verified file."""
    return target.with_name(f".{target.name}.verified")


def write_stamp(target: Path, url: str | None, digests: Digests) -> None:
    """Records that `target` was verified as the file at `url`, with its size, modification time and digests."""
    # The time is in the stamp, not in the card, because cards must be equal on every machine.
    write_json(stamp_path(target), asdict(digests) | {"url": url, "mtime_ns": target.stat().st_mtime_ns})


def _read_stamp(target: Path) -> dict[str, Any]:
    """Content of the stamp of `target`; empty if it is missing or unreadable."""
    try:
        return read_fields(stamp_path(target), ("bytes", "sha256", "md5", "url", "mtime_ns"))
    except DataError:
        return {}


def _stamped_digests(target: Path) -> Digests | None:
    """Digests from the stamp; None if the file has changed since, or has no stamp."""
    stamp, status = _read_stamp(target), target.stat()
    if (stamp.get("bytes"), stamp.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
        return None
    return Digests(stamp["bytes"], stamp["sha256"], stamp["md5"])


def known_sha256(path: Path) -> str:
    """SHA-256 of a file; from its stamp if the file is unchanged since it was verified."""
    stamped = _stamped_digests(path)
    return stamped.sha256 if stamped else file_sha256(path)


def archived(folder: Path, card: Path) -> tuple[Path, str]:
    """Path in the folder of archives and SHA-256 of the archive that a card of `luab.fetch.fetch.fetch` describes.

    Raises:
        DataError: The card is missing or damaged, or its file name has a path.
    """
    content = read_json(card)
    name, sha256 = (content.get(key) for key in ("file", "sha256")) if isinstance(content, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(sha256, str) or not re.fullmatch(FILE_NAME, name):
        raise DataError(
            f"{card}: expected the card of a download, with the sha256 and the name of a file in {folder}; found file "
            f"{name!r}. Remove the card and download again: luab fetch {card.stem}"
        )
    return folder / name, sha256


def recorded_sha256(target: Path, card: Path | None) -> str | None:
    """SHA-256 of the first download, from the card or else from the stamp; None before it, or if it was disowned."""
    # Snakemake removes the card before it runs the rule again; the stamp stays.
    stamp = _read_stamp(target)
    first = read_json(card).get("sha256") if card is not None and card.exists() else stamp.get("sha256")
    return None if first == stamp.get("disowned") else first


def disown(target: Path, digests: Digests | None = None) -> None:
    """Marks the digest of a file that cannot be read as an archive, so that another file may replace the download.

    Damage since the download changes the digest, so the recorded one still holds. Without a stamp, only with `digests`.
    """
    if digests and not _read_stamp(target):
        write_stamp(target, None, digests)
    if stamp := _read_stamp(target):
        write_json(stamp_path(target), stamp | {"disowned": file_sha256(target)})


def _wrong(target: Path) -> str:
    disowned, stamped = _read_stamp(target).get("disowned"), _stamped_digests(target)
    unreadable = "the file could not be read as an archive." if stamped and stamped.sha256 == disowned else ""
    return wrong_format(target, target.name) or unreadable


def find_verified(
    target: Path, archive: Archive, first_sha256: str | None, reasons: list[str]
) -> tuple[str | None, Digests] | None:
    """Url and digests of an existing file that a mirror serves; None if it is missing or wrong.

    A wrong file is renamed to `<target>.bad`, and the reason is appended to `reasons`.
    """
    if not target.is_file():
        return None
    stamp, digests = _read_stamp(target), _stamped_digests(target)
    wrong = _wrong(target)
    is_known = digests is not None and bool(matching_urls(archive, digests, first_sha256, wrong)[0])
    if digests is None or not is_known:
        digests = hasher_of(target).digests()
        if first_sha256 is None and not all(published.has_checksum for published in archive.sources or (archive,)):
            wrong = wrong or damage_of(target, archive.file)
    urls, mismatch = matching_urls(archive, digests, first_sha256, wrong)
    if mismatch:
        if wrong and first_sha256 == digests.sha256:
            disown(target, digests)
        reasons.append(f"  existing file: {mismatch} It was renamed to {set_aside(target, target)}.")
        return None
    url = stamp.get("url") if stamp.get("url") in urls else urls[0]
    if not is_known:
        write_stamp(target, url, digests)
    return url, digests


def set_aside(path: Path, target: Path) -> Path:
    """Renames a wrong file to `<target>.bad` and returns the new path."""
    bad = target.with_name(f"{target.name}.bad")
    os.replace(path, bad)
    return bad
