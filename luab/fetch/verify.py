"""Whether a downloaded file is the one that was published: digests, stamps and what mirrors promise."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError
from luab.fetch.listing import FILE_NAME, Archive, Source
from luab.files import file_sha256, read_json, write_json
from luab.progress import progress

_CHUNK_BYTES = 1 << 16
_FILE = re.compile(FILE_NAME)


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
    first_sha256 = recorded_sha256(target, None)
    seen = hash_file(target)
    url, wrong = match_offers(offers_of(archive, first_sha256), seen)
    if wrong:
        stamp_path(target).unlink(missing_ok=True)
        raise DataError(f"{target}: {wrong} Fetch it again: luab fetch {archive.name}")
    write_stamp(target, url, seen)
    return {"file": archive.file, "bytes": seen.bytes, "sha256": seen.sha256, "md5": seen.md5}


@dataclass(frozen=True)
class Seen:
    """Size and digests of a file as found on disk."""

    bytes: int
    sha256: str
    md5: str


class Digest:
    """Both digests of a growing file; MD5 costs little beside a download."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Takes the next bytes of the file."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)

    def seen(self) -> Seen:
        """What has gone in so far."""
        return Seen(self.bytes, self._sha256.hexdigest(), self._md5.hexdigest())


@dataclass(frozen=True)
class Offer:
    """What a mirror (None: a person) should give; `first_sha256` stands in where nothing is published."""

    source: Source | None
    bytes: int | None
    sha256: str | None
    md5: str | None
    first_sha256: str | None

    def wrong(self, seen: Seen) -> str:
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


def offers_of(archive: Archive, first_sha256: str | None) -> list[Offer]:
    """What each mirror of an archive should give, in the order of the list; one offer where a person fetches it."""
    sources: Sequence[Source | None] = archive.sources or (None,)
    offers = []
    for source in sources:
        stated = source if source is not None else archive
        published = bool(stated.sha256 or stated.md5)
        offers.append(Offer(source, stated.bytes, stated.sha256, stated.md5, None if published else first_sha256))
    return offers


def match_offers(offers: Iterable[Offer], seen: Seen) -> tuple[str | None, str]:
    """The url of the first offer that `seen` is, or why it is none of them."""
    wrong = ""
    for offer in offers:
        differs = offer.wrong(seen)
        if not differs:
            return (offer.source.url if offer.source else None), ""
        wrong = wrong or differs
    return None, wrong


def hash_file(path: Path) -> Seen:
    """Size and digests of a file; reads all of it."""
    digest = Digest()
    with open(path, "rb") as file, progress(f"checking {path.name}", path.stat().st_size, "B") as advance:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.seen()


def stamp_path(target: Path) -> Path:
    """Where the stamp of a verified file lies: hidden, beside it."""
    return target.with_name(f".{target.name}.verified")


def write_stamp(target: Path, url: str | None, seen: Seen) -> None:
    """Notes that `target` was verified as what `url` serves, with its size, time and digests."""
    # The time stays out of the card: cards must be equal on every machine.
    stamp = {"bytes": seen.bytes, "sha256": seen.sha256, "md5": seen.md5, "url": url}
    write_json(stamp_path(target), {**stamp, "mtime_ns": target.stat().st_mtime_ns})


def _read_stamp(target: Path) -> dict[str, Any]:
    """The stamp beside `target`; empty where there is none or it cannot be read."""
    try:
        content = read_json(stamp_path(target))
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def _stamped(target: Path) -> Seen | None:
    """What the stamp says of an untouched file; None when file or stamp changed."""
    stamp, status = _read_stamp(target), target.stat()
    if (stamp.get("bytes"), stamp.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
        return None
    return Seen(stamp["bytes"], stamp["sha256"], stamp["md5"])


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, from its stamp where the file is untouched since."""
    stamped = _stamped(path)
    return stamped.sha256 if stamped else file_sha256(path)


def archived(folder: Path, card: Path) -> tuple[Path, str]:
    """The verified file that a card names, and its SHA-256 there.

    Args:
        folder: Where archives lie.
        card: What `luab.fetch.fetch.fetch` wrote.

    Raises:
        DataError: The card is missing or damaged, or names a file elsewhere.
    """
    content = read_json(card)
    name, sha256 = (content.get(key) for key in ("file", "sha256")) if isinstance(content, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(sha256, str) or not _FILE.fullmatch(name):
        raise DataError(
            f"{card}: expected the card of a download with the name of its file in {folder} and its sha256, found "
            f"file {name!r}. Remove the card and fetch again: luab fetch {card.stem}"
        )
    return folder / name, sha256


def recorded_sha256(target: Path, card: Path | None) -> str | None:
    """SHA-256 of the first download, from the card or else from the stamp; None before there was one."""
    # The workflow removes a rule's card before it runs the rule; the stamp then remembers.
    if card is not None and card.exists():
        return read_json(card).get("sha256")
    return _read_stamp(target).get("sha256")


def find_present(target: Path, offers: list[Offer], reasons: list[str]) -> tuple[str | None, Seen] | None:
    """The file that is there already, if it is the right one; a wrong one is set aside."""
    if not target.is_file():
        return None
    seen = _stamped(target)
    if seen is not None:
        url, wrong = match_offers(offers, seen)
        if not wrong:
            stamped_url = _read_stamp(target).get("url")
            listed = [offer.source.url for offer in offers if offer.source and not offer.wrong(seen)]
            return (stamped_url if stamped_url in listed else url), seen
    seen = hash_file(target)
    url, wrong = match_offers(offers, seen)
    if wrong:
        reasons.append(f"  the file that was there: {wrong} It is now {set_aside(target, target)}.")
        return None
    write_stamp(target, url, seen)
    return url, seen


def set_aside(path: Path, target: Path) -> Path:
    """Renames a wrong file to `<target>.bad`, and says where it is now."""
    bad = target.with_name(f"{target.name}.bad")
    os.replace(path, bad)
    return bad
