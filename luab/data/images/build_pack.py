"""Packing a training set: writes its images, resized if asked for, into tar shards with an index and a card."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch.utils.data import Dataset

from luab.data.images.image_files import open_image
from luab.data.images.loader import evaluation_loader, plain_errors
from luab.data.images.pack import SCHEMA, shard_folder, shard_name
from luab.data.manifests.manifest import read_manifest_table
from luab.files import file_sha256, lines_sha256, replacing, write_json
from luab.progress import progress
from luab.study.config import Packing
from luab.study.paths import card

_BATCH = 16
EncodedImage = tuple[bytes, int, int]
"""Content of the file, and the original width and height in pixels."""


def build_pack(root: Path, manifest: Path, packing: Packing, index: Path, workers: int) -> dict[str, Any]:
    """Packs the images of a manifest in its order and returns the card.

    Shards are plain tar files of <image_id>.<suffix>. Existing shards are kept if their SHA-256 is correct, so an
    interrupted run resumes and a damaged shard is repaired.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/imagenet_train.parquet.
        packing: Resizing, JPEG quality, shard size.
        index: data/packs/imagenet_train.parquet; the shards go into the folder data/packs/imagenet_train, and the card,
            written last, next to the index.
        workers: Processes that read and encode; 0 for this process.

    Raises:
        DataError: An image is missing or damaged; every image is decoded once.
        JobError: The disk is full.
    """
    rows = read_manifest_table(manifest)
    ids = rows["image_id"].to_pylist()
    key = json.dumps({"ids_sha256": lines_sha256(ids), "packing": packing.model_dump()}, sort_keys=True)
    parts: list[pa.Table] = []
    done = 0
    with progress(f"pack {index.stem}", len(ids), "images") as advance:
        while (part := _intact_shard(index, len(parts), key, done)) is not None:
            parts.append(part)
            done += part.num_rows
            advance(part.num_rows)
        images = _encoded(root, rows["path"].to_pylist()[done:], packing, workers)
        while done < len(ids):
            part = _write_shard(index, len(parts), key, ids, done, images, packing.shard_mb * 1_000_000)
            parts.append(part)
            done += part.num_rows
            advance(part.num_rows)
    return _write_index(index, parts, packing, ids)


def _write_index(index: Path, parts: list[pa.Table], packing: Packing, ids: list[str]) -> dict[str, Any]:
    """Writes the index, removes surplus shards and writes the card."""
    with replacing(index) as aside:
        whole = pa.concat_tables(part.replace_schema_metadata() for part in parts)
        pq.write_table(whole, aside, compression="zstd", write_page_checksum=True)
    shards = [json.loads(part.schema.metadata[b"shard"]) for part in parts]
    names = {shard["file"] for shard in shards}
    for path in shard_folder(index).glob("shard-*"):
        if path.with_suffix(".tar").name not in names:
            path.unlink()
    content = {
        "dataset": index.stem,
        "n": len(ids),
        "bytes": sum(shard["bytes"] for shard in shards),
        "ids_sha256": lines_sha256(ids),
        "index_sha256": file_sha256(index),
        "sha256": lines_sha256([shard["sha256"] for shard in shards]),
        "packing": packing.model_dump(),
        "shards": shards,
    }
    write_json(card(index), content)
    return content


def _intact_shard(index: Path, number: int, key: str, first: int) -> pa.Table | None:
    """Returns the rows of an existing shard; None if it is missing, changed, or holds other images."""
    path = shard_folder(index) / shard_name(number)
    try:
        part = pq.read_table(path.with_suffix(".parquet"), page_checksum_verification=True)
        metadata = part.schema.metadata or {}
        shard = json.loads(metadata.get(b"shard", b"{}"))
        same = metadata.get(b"key") == key.encode() and metadata.get(b"first") == str(first).encode()
        return part if same and shard["sha256"] == file_sha256(path) else None
    except (OSError, ValueError, KeyError):  # Arrow's own errors are ValueErrors
        return None


def _write_shard(
    index: Path,
    number: int,
    key: str,
    ids: list[str],
    first: int,
    images: Iterator[tuple[str, EncodedImage]],
    max_bytes: int,
) -> pa.Table:
    path = shard_folder(index) / shard_name(number)
    rows: list[tuple[str, int, int, int, int, int]] = []
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.GNU_FORMAT) as tar:
        for suffix, (data, width, height) in images:
            image_id = ids[first + len(rows)]
            member = tarfile.TarInfo(f"{image_id}{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            # The data are the last blocks of the file so far.
            begin = tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            rows.append((image_id, number, begin, len(data), width, height))
            if tar.offset >= max_bytes:
                break
    shard = {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    metadata = {"key": key, "first": str(first), "shard": json.dumps(shard)}
    columns = [list(column) for column in zip(*rows, strict=True)]
    part = pa.table(columns, schema=SCHEMA).replace_schema_metadata(metadata)
    with replacing(path.with_suffix(".parquet")) as aside:
        pq.write_table(part, aside, write_page_checksum=True)
    return part


def _encoded(root: Path, paths: list[str], packing: Packing, workers: int) -> Iterator[tuple[str, EncodedImage]]:
    """Yields the file suffix and the encoded image of every path, in order."""
    images = _Encoder(root, paths, packing)
    done = 0
    with plain_errors():
        for batch in evaluation_loader(images, _BATCH, workers, pinned=False):
            for data, width, height in zip(*batch, strict=True):
                yield Path(paths[done]).suffix.lower(), (data, int(width), int(height))
                done += 1


class _Encoder(Dataset[EncodedImage]):
    def __init__(self, root: Path, paths: list[str], packing: Packing) -> None:
        self.root, self.paths, self.packing = root, paths, packing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> EncodedImage:
        file = self.root / self.paths[i]
        image = open_image(file, f"row {i} of the images to pack")
        width, height = image.size
        target = self.packing.shorter_side_px
        if target is None or min(width, height) <= target:
            return file.read_bytes(), width, height
        scale = target / min(width, height)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=self.packing.quality)
        return encoded.getvalue(), width, height
