"""Download of one archive: tries its mirrors in order, resumes, and keeps a verified copy."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError, JobError
from luab.fetch.download import Dropped, MirrorFailed, PartialFile, copy_file, download
from luab.fetch.listing import Archive, Source
from luab.fetch.verify import Digests, Offer, find_verified, offers_of, recorded_sha256, stamp_path, write_stamp
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
    """Downloads an archive to `folder` unless a verified copy is there, and writes its card.

    A verified file is not read again: a hidden stamp next to it records its size, time and digests. An interrupted
    download stays as `<file>.part` and is resumed. A wrong file is renamed to `<file>.bad` (only the last one is
    kept). If no checksum is published, the card records that of the first download, and later ones must match it.

    Args:
        archive: Archive to download.
        folder: Folder of archives; created if missing.
        card: JSON, written only if it changes: name, url (None for a file put there by hand), file, bytes, sha256,
            checksum (how it was checked).
        attempts: Tries per mirror without progress before the next mirror.
        backoff_s: Wait after the first failed try; doubles up to a minute.
        timeout_s: Longest wait for a connection or for the next bytes.

    Returns:
        Content of the card.

    Raises:
        DataError: No mirror served the right file, or it must be downloaded by hand; every reason is listed.
        JobError: The disk is full or not writable, or another process is downloading the file.
    """
    target = folder / archive.file
    _make_folder(folder)
    first_sha256 = recorded_sha256(target, card)
    offers = offers_of(archive, first_sha256)
    reasons: list[str] = []
    verified = find_verified(target, offers, reasons)
    if verified is None and archive.manual:
        raise DataError("\n".join([f"{target}: download this file by hand. {archive.manual}", *reasons]))
    url, digests = verified or _from_mirrors(target, offers, _Patience(attempts, backoff_s, timeout_s), reasons)
    content = _card(archive, url, digests)
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
) -> tuple[str | None, Digests]:
    for offer in offers:
        if offer.source is None:
            continue
        try:
            digests = _from_mirror(offer, offer.source, target, patience)
        except MirrorFailed as failure:
            reasons.append(f"  {offer.source.url}: {failure}")
            print(f"{target.name}: {offer.source.url}: {failure}", file=sys.stderr, flush=True)
            continue
        write_stamp(target, offer.source.url, digests)
        return offer.source.url, digests
    raise DataError("\n".join([f"{target}: download failed from every address:", *reasons, _remedy(target, offers)]))


def _remedy(target: Path, offers: list[Offer]) -> str:
    text = (
        "Run the command again to resume the download, or add a mirror to the list of downloads, or download the file "
        f"in another way and save it as {target}."
    )
    if any(offer.first_sha256 for offer in offers):
        text += (
            " If the publisher has replaced the file and you accept the new version, first remove the card of the "
            f"archive and {stamp_path(target)}."
        )
    return text


def _from_mirror(offer: Offer, source: Source, target: Path, patience: _Patience) -> Digests:
    with PartialFile(target) as part:
        if offer.bytes is not None:
            check_room(target.parent, offer.bytes - part.size, target.name)
        _persist(offer, source, part, patience)
        digests = part.hasher().digests()
        if mismatch := offer.mismatch(digests):
            raise MirrorFailed(f"{mismatch} The file is kept as {part.set_aside()}.")
        part.finish()
    return digests


def _persist(offer: Offer, source: Source, part: PartialFile, patience: _Patience) -> None:
    """Transfers until the file is complete; gives up after `patience.attempts` tries without progress."""
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
                raise MirrorFailed(f"{drop}; gave up after {tries} attempts without progress.") from drop
            time.sleep(min(max(patience.backoff_s * 2 ** (tries - 1), drop.wait_s), _LONGEST_WAIT_S))


def _card(archive: Archive, url: str | None, digests: Digests) -> dict[str, Any]:
    published = next((source for source in archive.sources if source.url == url), archive)
    checksum = "published sha256" if published.sha256 else "published md5" if published.md5 else None
    return {
        "name": archive.name,
        "url": url,
        "file": archive.file,
        "bytes": digests.bytes,
        "sha256": digests.sha256,
        "checksum": checksum or "none published: recorded at the first download",
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder}: cannot create this folder ({error.strerror}).") from error
