"""Packs drawn files like the official archives, with the same bytes on every run."""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from luab.byproducts.writing import write_tar
from luab.demo.canvas import Pixels
from luab.files import file_sha256, replacing

Members = dict[str, bytes]
Kind = Literal["tar", "tar.gz", "zip", "plain"]

_ZIP_DATE = (2020, 9, 13, 12, 26, 40)


@dataclass(frozen=True)
class Archive:
    """One file of the demo's server and its entry in archives.yaml."""

    name: str  # key of the entry, as in config/archives.yaml
    dataset: str  # data set that it belongs to, and folder under data/raw to unpack to
    file: str  # file name on the server
    kind: Kind  # format; "plain" is a single file, whose member's name does not matter
    members: Members  # path in the archive -> content
    unpack: bool = True  # False if the study reads it without unpacking
    keep_order: bool = False  # whether members keep the order given, as in archives made from an unsorted folder
    counts: dict[str, int] | None = None  # expected of an index of its records


def jpeg_bytes(pixels: Pixels, quality: int = 90) -> bytes:
    """Encodes a picture [H, W, 3] or [H, W] as JPEG."""
    return _encoded(pixels, "JPEG", quality=quality)


def png_bytes(pixels: Pixels) -> bytes:
    """Encodes a picture [H, W, 3] as PNG."""
    return _encoded(pixels, "PNG")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Encodes an array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _encoded(pixels: Pixels, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
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
        "unpack": archive.dataset if archive.unpack else False,
        **({"counts": archive.counts} if archive.counts else {}),
        "note": "demo world",
    }


def write_archives_yaml(entries: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes the demo's list of downloads in the format of config/archives.yaml."""
    with replacing(path) as aside:
        aside.write_text(
            "# Every download of the demo world: drawn files that stand in for the real ones.\n"
            + yaml.safe_dump(entries, sort_keys=True, width=110),
            encoding="utf-8",
        )


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content)
