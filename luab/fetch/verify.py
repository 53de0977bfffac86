"""Checks downloaded files against published sizes and checksums; remembers verified files in stamps."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError
from luab.fetch.listing import FILE_NAME, Archive, Source
from luab.files import file_sha256, read_json, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_FILE = re.compile(FILE_NAME)


def verify(archive: Archive, folder: Path) -> dict[str, Any]:
    """Reads a downloaded archive again and compares it with its published checksum, or else with the first download.

    Returns:
        file, bytes, sha256 and md5 of the file on disk.

    Raises:
        DataError: The file is missing or differs; a file that differs is not removed.
    """
    target = folder / archive.file
    if not target.is_file():
        raise DataError(f"{target}: file not found. Download it: luab fetch {archive.name}")
    first_sha256 = recorded_sha256(target, None)
    digests = hash_file(target)
    url, mismatch = match_offers(offers_of(archive, first_sha256), digests)
    if mismatch:
        stamp_path(target).unlink(missing_ok=True)
        raise DataError(f"{target}: {mismatch} Download it again: luab fetch {archive.name}")
    write_stamp(target, url, digests)
    return {"file": archive.file} | asdict(digests)


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


@dataclass(frozen=True)
class Offer:
    """What one mirror should serve; `source` is None for a manual download.

    `first_sha256`, of the first download, replaces the checksum if none is published.
    """

    source: Source | None
    bytes: int | None
    sha256: str | None
    md5: str | None
    first_sha256: str | None

    def mismatch(self, digests: Digests) -> str:
        """How a file differs from this offer, as sentences; empty if it matches."""
        expected = {"bytes": self.bytes, "sha256": self.sha256, "md5": self.md5}
        differences = [
            f"expected {key} {value}, found {getattr(digests, key)}."
            for key, value in expected.items()
            if value is not None and value != getattr(digests, key)
        ]
        if self.first_sha256 and self.first_sha256 != digests.sha256:
            differences.append(
                f"no checksum is published; the first download had sha256 {self.first_sha256}, "
                f"this one has {digests.sha256}."
            )
        return " ".join(differences)


def offers_of(archive: Archive, first_sha256: str | None) -> list[Offer]:
    """One offer for each mirror of an archive, in the order of the list, or one for a manual download."""
    sources: Sequence[Source | None] = archive.sources or (None,)
    offers = []
    for source in sources:
        published = source if source is not None else archive
        has_checksum = bool(published.sha256 or published.md5)
        first = None if has_checksum else first_sha256
        offers.append(Offer(source, published.bytes, published.sha256, published.md5, first))
    return offers


def match_offers(offers: Iterable[Offer], digests: Digests) -> tuple[str | None, str]:
    """The url of the first offer that a file matches, or None and how the file differs from the first offer."""
    first_mismatch = ""
    for offer in offers:
        mismatch = offer.mismatch(digests)
        if not mismatch:
            return (offer.source.url if offer.source else None), ""
        first_mismatch = first_mismatch or mismatch
    return None, first_mismatch


def hash_file(path: Path) -> Digests:
    """Size and digests of a file; reads the whole file."""
    hasher = Hasher()
    with open(path, "rb") as file, progress(f"checking {path.name}", path.stat().st_size, "B") as advance:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            advance(len(chunk))
    return hasher.digests()


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
        content = read_json(stamp_path(target))
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


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
    """Path and SHA-256 of the archive that a card describes.

    Args:
        folder: Folder of archives.
        card: Written by `luab.fetch.fetch.fetch`.

    Raises:
        DataError: The card is missing or damaged, or its file name has a path.
    """
    content = read_json(card)
    name, sha256 = (content.get(key) for key in ("file", "sha256")) if isinstance(content, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(sha256, str) or not _FILE.fullmatch(name):
        raise DataError(
            f"{card}: expected the card of a download, with the sha256 and the name of a file in {folder}; found file "
            f"{name!r}. Remove the card and download again: luab fetch {card.stem}"
        )
    return folder / name, sha256


def recorded_sha256(target: Path, card: Path | None) -> str | None:
    """SHA-256 of the first download, from the card or else from the stamp; None before the first download."""
    # Snakemake removes the card before it runs the rule again; the stamp stays.
    if card is not None and card.exists():
        return read_json(card).get("sha256")
    return _read_stamp(target).get("sha256")


def find_verified(target: Path, offers: list[Offer], reasons: list[str]) -> tuple[str | None, Digests] | None:
    """Url and digests of an existing file that matches an offer; None if it is missing or wrong.

    A wrong file is renamed to `<target>.bad`, and the reason is appended to `reasons`.
    """
    if not target.is_file():
        return None
    digests = _stamped_digests(target)
    if digests is not None:
        url, mismatch = match_offers(offers, digests)
        if not mismatch:
            stamped_url = _read_stamp(target).get("url")
            matching_urls = [offer.source.url for offer in offers if offer.source and not offer.mismatch(digests)]
            return (stamped_url if stamped_url in matching_urls else url), digests
    digests = hash_file(target)
    url, mismatch = match_offers(offers, digests)
    if mismatch:
        reasons.append(f"  existing file: {mismatch} It was renamed to {set_aside(target, target)}.")
        return None
    write_stamp(target, url, digests)
    return url, digests


def set_aside(path: Path, target: Path) -> Path:
    """Renames a wrong file to `<target>.bad` and returns the new path."""
    bad = target.with_name(f"{target.name}.bad")
    os.replace(path, bad)
    return bad
