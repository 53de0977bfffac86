"""Packing a training set: its images, resized where asked for, as tar shards with an index and a card."""

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

_BLOCK = tarfile.BLOCKSIZE
_AT_ONCE = 16
Encoded = tuple[bytes, int, int]


def build_pack(root: Path, manifest: Path, packing: Packing, index: Path, workers: int) -> dict[str, Any]:
    """Packs the images of a manifest in its order and returns the card.

    Shards are plain tar files of <image_id>.<suffix>, readable by any tar program. A shard that is there and
    whole (its SHA-256 is taken anew) is kept, so that an interrupted packing goes on and a damaged shard is mended.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/imagenet_train.parquet.
        packing: Resizing, quality, size of a shard.
        index: data/packs/imagenet_train.parquet; card and shards lie beside it. The card is written last.
        workers: Processes that read and encode; 0 does it here.

    Raises:
        DataError: An image is missing or damaged; every image is decoded once.
        JobError: No room.
    """
    rows = read_manifest_table(manifest)
    ids = rows["image_id"].to_pylist()
    key = json.dumps({"ids_sha256": lines_sha256(ids), "packing": packing.model_dump()}, sort_keys=True)
    parts: list[pa.Table] = []
    done = 0
    with progress(f"pack {index.stem}", len(ids), "images") as advance:
        while (part := _whole_shard(index, len(parts), key, done)) is not None:
            parts.append(part)
            done += part.num_rows
            advance(part.num_rows)
        images = _encoded(root, rows["path"].to_pylist()[done:], packing, workers)
        while done < len(ids):
            part = _write_shard(index, len(parts), key, ids, done, images, packing.shard_mb * 1_000_000)
            parts.append(part)
            done += part.num_rows
            advance(part.num_rows)
    return _finish(index, parts, packing, ids)


def _finish(index: Path, parts: list[pa.Table], packing: Packing, ids: list[str]) -> dict[str, Any]:
    with replacing(index) as aside:
        pq.write_table(pa.concat_tables(part.replace_schema_metadata() for part in parts), aside, compression="zstd")
    shards = [json.loads(part.schema.metadata[b"shard"]) for part in parts]
    kept = {shard["file"] for shard in shards}
    for path in shard_folder(index).glob("shard-*"):
        if path.with_suffix(".tar").name not in kept:
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


def _whole_shard(index: Path, number: int, key: str, first: int) -> pa.Table | None:
    """The rows of a shard that an earlier packing of the same images wrote and nobody changed."""
    path = shard_folder(index) / shard_name(number)
    try:
        part = pq.read_table(path.with_suffix(".parquet"))
        metadata = part.schema.metadata or {}
        said = json.loads(metadata.get(b"shard", b"{}"))
        same = metadata.get(b"key") == key.encode() and metadata.get(b"first") == str(first).encode()
        return part if same and said["sha256"] == file_sha256(path) else None
    except (OSError, ValueError, KeyError):  # Arrow's own errors are ValueErrors
        return None


def _write_shard(
    index: Path, number: int, key: str, ids: list[str], first: int, images: Iterator[tuple[str, Encoded]], room: int
) -> pa.Table:
    path = shard_folder(index) / shard_name(number)
    places: list[tuple[str, int, int, int, int, int]] = []
    with replacing(path) as aside, tarfile.open(aside, "w", format=tarfile.GNU_FORMAT) as tar:
        for suffix, (data, width, height) in images:
            image_id = ids[first + len(places)]
            member = tarfile.TarInfo(f"{image_id}{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            begin = tar.offset - -(-len(data) // _BLOCK) * _BLOCK  # the data's own blocks come last
            places.append((image_id, number, begin, len(data), width, height))
            if tar.offset >= room:
                break
    said = {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    metadata = {"key": key, "first": str(first), "shard": json.dumps(said)}
    columns = [list(column) for column in zip(*places, strict=True)]
    part = pa.table(columns, schema=SCHEMA).replace_schema_metadata(metadata)
    with replacing(path.with_suffix(".parquet")) as aside:
        pq.write_table(part, aside)
    return part


def _encoded(root: Path, paths: list[str], packing: Packing, workers: int) -> Iterator[tuple[str, Encoded]]:
    """File suffix, bytes, and size before packing of every image, in order."""
    images = _Encoding(root, paths, packing)
    done = 0
    with plain_errors():
        for batch in evaluation_loader(images, _AT_ONCE, workers, pinned=False):
            for data, width, height in zip(*batch, strict=True):
                yield Path(paths[done]).suffix.lower(), (data, int(width), int(height))
                done += 1


class _Encoding(Dataset[Encoded]):
    def __init__(self, root: Path, paths: list[str], packing: Packing) -> None:
        self.root, self.paths, self.packing = root, paths, packing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Encoded:
        file = self.root / self.paths[i]
        image = open_image(file, f"row {i} of the images to pack")
        width, height = image.size
        shorter = self.packing.shorter_side_px
        if shorter is None or min(width, height) <= shorter:
            return file.read_bytes(), width, height
        side = shorter / min(width, height)
        image = image.resize((round(width * side), round(height * side)), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=self.packing.quality)
        return encoded.getvalue(), width, height
