"""Reading a training set that is packed into a few large tar files (shards)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luab.data.manifests.manifest import read_checked
from luab.errors import DataError
from luab.files import file_sha256, read_fields
from luab.study.config import Packing
from luab.study.paths import card

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Columns of a pack's index, in the order of the manifest: shard number, position in that shard, and the original size
in pixels."""

_REPACK = "Run `luab pack` again; it keeps intact shards."
_MAX_OPEN_FILES = 256


def shard_name(number: int) -> str:
    """File name of a shard inside the pack's folder."""
    return f"shard-{number:05d}.tar"


def shard_folder(index: Path) -> Path:
    """Folder of the shards that an index describes."""
    return index.with_suffix("")


class Pack:
    """The packed images of one manifest, read by row; works in any number of processes.

    Args:
        index: data/packs/<dataset>.parquet, next to its card and the folder data/packs/<dataset> with the shards.
        packing: Packing options of the config.
        image_ids: image_id column of the manifest.

    Raises:
        DataError: Index, card or a shard is missing or damaged, or belongs to other images or another config.
    """

    def __init__(self, index: Path, packing: Packing, image_ids: pa.Array) -> None:
        self.folder = shard_folder(index)
        self.card = _read_card(card(index), packing)
        if not index.is_file() or file_sha256(index) != self.card["index_sha256"]:
            raise DataError(f"{index}: expected the index that its card names, found another or none. {_REPACK}")
        table = read_checked(index, "the index of a pack", "luab pack", SCHEMA)
        if table["image_id"].combine_chunks() != image_ids.cast(pa.string()):
            raise DataError(f"{index}: expected the images of the manifest in its order, found others. {_REPACK}")
        self._shard, self._offset, self._bytes, width, height = (
            table[name].to_numpy() for name in SCHEMA.names if name != "image_id"
        )
        self._size_wh = np.stack([width, height], axis=1)
        self._check_places(index)
        self._files: dict[int, int] = {}

    def read(self, i: int) -> bytes:
        """Returns the image file of row i, as it was packed.

        Raises:
            DataError: The shard is missing or too short.
        """
        number, length = int(self._shard[i]), int(self._bytes[i])
        data = os.pread(self._file(number), length, int(self._offset[i]))
        if len(data) != length:
            raise DataError(
                f"{self.folder / shard_name(number)} (row {i}): expected {length} bytes at {self._offset[i]}, "
                f"found {len(data)}. {_REPACK}"
            )
        return data

    def size_wh(self, i: int) -> tuple[int, int]:
        """Width and height in pixels that the image of row i had before packing."""
        width, height = self._size_wh[i].tolist()
        return width, height

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out file handles, which are valid only in the process that opened them."""
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        """Closes the shards."""
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def _file(self, number: int) -> int:
        if number not in self._files:
            if len(self._files) >= _MAX_OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            path = self.folder / shard_name(number)
            try:
                self._files[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DataError(f"{path}: expected this shard; {error.strerror}. {_REPACK}") from error
        return self._files[number]

    def _check_places(self, index: Path) -> None:
        sizes = np.array([shard["bytes"] for shard in self.card["shards"]], dtype=np.int64)
        for number, size in enumerate(sizes):
            path = self.folder / shard_name(number)
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                raise DataError(f"{path}: expected {size} bytes, found {found or 'nothing'}. {_REPACK}")
        known = (self._shard >= 0) & (self._shard < len(sizes))
        available = sizes[np.where(known, self._shard, 0)] - self._offset
        if not (known & (self._offset >= 0) & (self._bytes > 0) & (self._bytes <= available)).all():
            raise DataError(f"{index}: expected places inside the shards, found others. {_REPACK}")
        if (self._size_wh < 1).any():
            raise DataError(f"{index}: expected widths and heights above 0, found others. {_REPACK}")


def _read_card(path: Path, packing: Packing) -> dict[str, Any]:
    content: dict[str, Any] = read_fields(path, ("packing", "shards", "index_sha256"))
    configured = packing.model_dump()
    found = content["packing"] if content["shards"] else "no shards"
    if found != configured:
        raise DataError(f"{path}: expected images packed as the config says ({configured}), found {found}. {_REPACK}")
    return content
