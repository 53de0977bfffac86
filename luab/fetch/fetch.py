"""Downloads: fetch an archive from its mirrors with resume, and keep a verified copy."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError, JobError
from luab.fetch.download import Dropped, MirrorFailed, PartialFile, copy_file, download
from luab.fetch.listing import Archive, Source
from luab.fetch.verify import Offer, Seen, find_present, offers_of, recorded_sha256, stamp_path, write_stamp
from luab.files import check_room, read_json, write_json

_LONGEST_WAIT_S = 60.0


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
    first_sha256 = recorded_sha256(target, card)
    offers = offers_of(archive, first_sha256)
    reasons: list[str] = []
    found = find_present(target, offers, reasons)
    if found is None and archive.manual:
        raise DataError("\n".join([f"{target}: expected this file. {archive.manual}", *reasons]))
    if found is None:
        found = _from_mirrors(target, offers, _Patience(attempts, backoff_s, timeout_s), reasons)
    url, seen = found
    content = _card(archive, url, seen)
    if not card.exists() or read_json(card) != content:
        write_json(card, content)
    return content


@dataclass(frozen=True)
class _Patience:
    attempts: int
    backoff_s: float
    timeout_s: float


def _from_mirrors(
    target: Path, offers: list[Offer], patience: _Patience, reasons: list[str]
) -> tuple[str | None, Seen]:
    for offer in offers:
        if offer.source is None:
            continue
        try:
            seen = _from_mirror(offer, offer.source, target, patience)
        except MirrorFailed as failure:
            reasons.append(f"  {offer.source.url}: {failure}")
            print(f"{target.name}: {offer.source.url}: {failure}", file=sys.stderr, flush=True)
            continue
        write_stamp(target, offer.source.url, seen)
        return offer.source.url, seen
    raise DataError(
        "\n".join([f"{target}: could not be fetched; every address failed:", *reasons, _remedy(target, offers)])
    )


def _remedy(target: Path, offers: list[Offer]) -> str:
    text = (
        "Run again to try once more (a part that has arrived is resumed); or add a mirror to the list of "
        f"downloads; or get the file by other means and put it at {target}."
    )
    if any(offer.first_sha256 for offer in offers):
        text += (
            " If the publisher has replaced the file and you accept the new one, first remove the archive's "
            f"card and {stamp_path(target)}."
        )
    return text


def _from_mirror(offer: Offer, source: Source, target: Path, patience: _Patience) -> Seen:
    with PartialFile(target) as part:
        if offer.bytes is not None:
            check_room(target.parent, offer.bytes - part.size, target.name)
        _persist(offer, source, part, patience)
        seen = part.digest().seen()
        wrong = offer.wrong(seen)
        if wrong:
            raise MirrorFailed(f"{wrong} The file is kept as {part.set_aside()}.")
        part.finish()
    return seen


def _persist(offer: Offer, source: Source, part: PartialFile, patience: _Patience) -> None:
    """Transfers until the file is whole, as long as tries make progress."""
    furthest, tries = part.size, 0
    while True:
        try:
            if source.path is not None:
                copy_file(source.path, part, offer)
            else:
                download(source.url, part, offer, patience.timeout_s)
            return
        except Dropped as drop:
            tries = 0 if part.size > furthest else tries
            furthest, tries = max(furthest, part.size), tries + 1
            if tries >= patience.attempts:
                raise MirrorFailed(f"{drop}; gave up after {tries} tries without progress.") from drop
            time.sleep(min(max(patience.backoff_s * 2 ** (tries - 1), drop.wait_s), _LONGEST_WAIT_S))


def _card(archive: Archive, url: str | None, seen: Seen) -> dict[str, Any]:
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder}: expected to make this folder; {error.strerror}.") from error
