"""Packs drawn files the way the official archives are packed, with the same bytes on every run."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luab.files import file_sha256, replacing

Members = dict[str, bytes]
Kind = Literal["tar", "tar.gz", "zip", "plain"]

_EPOCH_S = 1_600_000_000
_ZIP_DATE = (2020, 9, 13, 12, 26, 40)


@dataclass(frozen=True)
class Archive:
    """One file of the demo's server, with the entry it gets in archives.yaml.

    Attributes:
        name: Key of the entry, as in config/archives.yaml.
        dataset: The set it belongs to.
        file: Its name on the server.
        kind: "plain" is one file as it is; its single member's name does not matter.
        members: Path in the archive -> content.
        unpack: Folder under data/raw that it is unpacked to; False when it is read as it is.
        keep_order: Whether members stay in the order given, as in archives made from an unsorted folder.
        counts: What an index of its records must count.
    """

    name: str
    dataset: str
    file: str
    kind: Kind
    members: Members
    unpack: str | bool
    keep_order: bool = False
    counts: dict[str, int] | None = None


def jpeg_bytes(pixels: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encodes a picture [H, W, 3] or [H, W] as JPEG."""
    return _encoded(pixels, "JPEG", quality=quality)


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes a picture [H, W, 3] as PNG."""
    return _encoded(pixels, "PNG")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Encodes an array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def pack(archive: Archive, folder: Path) -> dict[str, Any]:
    """Writes one archive into `folder` and returns its entry for archives.yaml."""
    members = archive.members.items() if archive.keep_order else sorted(archive.members.items())
    path = folder / archive.file
    with replacing(path) as aside:
        if archive.kind == "zip":
            _write_zip(aside, members)
        elif archive.kind == "plain":
            aside.write_bytes(b"".join(content for _, content in members))
        else:
            write_tar(aside, members, compressed=archive.kind == "tar.gz")
    return {
        "dataset": archive.dataset,
        "urls": [f"file:{archive.file}"],
        "file": archive.file,
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "md5": None,
        "checksum_source": "computed when the demo world was drawn",
        "licence": "drawn by luab itself; MIT",
        "unpack": archive.unpack,
        **({"counts": archive.counts} if archive.counts else {}),
        "note": "demo world",
    }


def write_archives_yaml(entries: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes the list of the demo's downloads in the layout of config/archives.yaml."""
    import yaml

    with replacing(path) as aside:
        aside.write_text(
            "# Every download of the demo world: drawn files that stand in for the real ones.\n"
            + yaml.safe_dump(entries, sort_keys=True, width=110)
        )


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], compressed: bool) -> None:
    """Writes members in the order given; equal members give equal bytes."""
    with ExitStack() as stack:
        out: Any = stack.enter_context(open(path, "wb"))
        if compressed:
            # The header would carry the time of day and the name of the file beside.
            out = stack.enter_context(gzip.GzipFile("", "wb", 6, out, mtime=0))
        tar = stack.enter_context(tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT))
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), _EPOCH_S, 0o644
            tar.addfile(info, io.BytesIO(content))
            tar.members.clear()  # type: ignore[attr-defined]  # an archive may have a million


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content)
