"""Download of one archive: tries its mirrors in order, resumes, and keeps a verified copy."""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luab.errors import DataError, JobError
from luab.fetch.download import Dropped, MirrorFailed, PartialFile, copy_file, download
from luab.fetch.formats import damage_of, is_packed, wrong_format
from luab.fetch.listing import Archive, Source
from luab.fetch.verify import Digests, difference, find_verified, recorded_sha256, stamp_path, write_stamp
from luab.files import check_room, read_json, write_json

_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Patience:
    """Tries per mirror without progress, first wait after a failed try (it doubles), longest wait for the server."""

    attempts: int = 5
    backoff_s: float = 1.0
    timeout_s: float = 60.0


def fetch(archive: Archive, folder: Path, card: Path, patience: Patience | None = None) -> dict[str, Any]:
    """Downloads an archive to `folder` unless a verified copy is there; writes its card and returns the content.

    A verified file is not read again: a hidden stamp next to it records its size, time and digests. An interrupted
    download stays as `<file>.part` and is resumed. A wrong file is renamed to `<file>.bad` (only the last one is
    kept). If no checksum is published, the card records that of the first download, and later ones must match it.

    The card is JSON, written only if it changes: name, url (None for a file put there by hand), file, bytes, sha256,
    checksum (how it was checked).

    Raises:
        DataError: No mirror served the right file, or it must be downloaded by hand; every reason is listed.
        JobError: The disk is full or not writable, or another process is downloading the file.
    """
    target = folder / archive.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder}: cannot create this folder ({error.strerror}).") from error
    first_sha256 = recorded_sha256(target, card)
    reasons: list[str] = []
    verified = find_verified(target, archive, first_sha256, reasons)
    first_sha256 = recorded_sha256(target, card)  # read again: a web page recorded as an archive does not count
    if verified is None and archive.manual:
        raise DataError("\n".join([f"{target}: download this file by hand. {archive.manual}", *reasons]))
    url, digests = verified or _from_mirrors(archive, target, first_sha256, patience or Patience(), reasons)
    published = next((source for source in archive.sources if source.url == url), archive)
    checksum = "published sha256" if published.sha256 else "published md5" if published.md5 else None
    content = {
        "name": archive.name,
        "url": url,
        "file": archive.file,
        "bytes": digests.bytes,
        "sha256": digests.sha256,
        "checksum": checksum or "none published: recorded at the first download",
    }
    if not card.exists() or read_json(card) != content:
        write_json(card, content)
    return content


def _from_mirrors(
    archive: Archive, target: Path, first_sha256: str | None, patience: Patience, reasons: list[str]
) -> tuple[str, Digests]:
    for source in archive.sources:
        try:
            digests = _from_mirror(source, target, first_sha256, patience)
        except MirrorFailed as failure:
            reasons.append(f"  {source.url}: {failure}")
            print(f"{target.name}: {source.url}: {failure}", file=sys.stderr, flush=True)
            continue
        write_stamp(target, source.url, digests)
        return source.url, digests
    remedy = (
        "Run the command again to resume the download, or add a mirror to the list of downloads, or download the file "
        f"in another way and save it as {target}."
    )
    if first_sha256 and not all(source.has_checksum for source in archive.sources):
        remedy += (
            " If the publisher has replaced the file and you accept the new version, first remove the card of the "
            f"archive and {stamp_path(target)}."
        )
    raise DataError("\n".join([f"{target}: download failed from every address:", *reasons, remedy]))


def _from_mirror(source: Source, target: Path, first_sha256: str | None, patience: Patience) -> Digests:
    with PartialFile(target) as part:
        if source.bytes is not None:
            check_room(target.parent, source.bytes - part.size, target.name)
        known = source.has_checksum or first_sha256

        def mismatch(path: Path, digests: Digests) -> str:
            wrong = wrong_format(path, target.name) if known else damage_of(path, target.name)
            return difference(source, digests, first_sha256, wrong)

        def reason() -> str:
            return mismatch(part.path, part.hasher().digests())

        _persist(source, part, patience, reason)
        if part.resumed and source.has_checksum and (why := reason()):
            print(f"{target.name}: {why} Downloading it again from the start.", file=sys.stderr, flush=True)
            part.restart(None)
            _persist(source, part, patience, reason)
        why = reason()
        if part.encoding and (why or (not known and is_packed(part.path, target.name))):
            with contextlib.suppress(MirrorFailed):
                return part.decode(mismatch)
        if why:
            why += f" It was sent with Content-Encoding {part.encoding}." if part.encoding else ""
            raise MirrorFailed(f"{why} The file is kept as {part.set_aside()}.")
        digests = part.hasher().digests()
        part.finish()
    return digests


def _persist(source: Source, part: PartialFile, patience: Patience, mismatch: Callable[[], str]) -> None:
    """Transfers until the file is complete; gives up after `patience.attempts` tries without progress.

    mismatch: Returns how the part differs from a complete file. If the server sends no size, this decides.
    """
    furthest, tries = part.size, 0
    while True:
        try:
            if source.path is not None:
                copy_file(source.path, part, source)
            else:
                download(source, part, patience.timeout_s)
            if part.open_ended and (why := mismatch()):
                raise Dropped(f"the transfer ended at byte {part.size} ({why})")
            return
        except Dropped as drop:
            tries = 0 if part.size > furthest else tries
            furthest, tries = max(furthest, part.size), tries + 1
            if tries >= patience.attempts:
                raise MirrorFailed(f"{drop}; gave up after {tries} attempts without progress.") from drop
            time.sleep(min(max(patience.backoff_s * 2 ** (tries - 1), drop.wait_s), _LONGEST_WAIT_S))
