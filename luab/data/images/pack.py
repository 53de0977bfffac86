"""A training set packed in a few large files: where each image lies, and reading it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luab.errors import DataError
from luab.files import file_sha256, read_json
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
"""Columns of a pack's index, in the order of the manifest: shard number, place in that file, and the size in pixels
that the image had before packing."""

_AGAIN = "Pack the images again with `luab pack`; it keeps the shards that are whole."
_OPEN_FILES = 256


def shard_name(number: int) -> str:
    """File name of a shard below the pack's folder."""
    return f"shard-{number:05d}.tar"


def shard_folder(index: Path) -> Path:
    """Where the shards of an index lie."""
    return index.with_suffix("")


class Pack:
    """The packed images of one manifest, readable by row from any number of processes.

    Args:
        index: data/packs/<dataset>.parquet; its card lies beside it, its shards in the folder data/packs/<dataset>.
        packing: How the config says that images are packed.
        image_ids: Of the manifest, in its order.

    Raises:
        DataError: Index, card or a shard is missing, damaged, shortened, or made for other images or another config.
    """

    def __init__(self, index: Path, packing: Packing, image_ids: pa.Array) -> None:
        self.folder = shard_folder(index)
        self.card = read_json(card(index))
        _check_card(index, self.card, packing)
        table = _read_index(index, self.card)
        if table["image_id"].combine_chunks() != image_ids.cast(pa.string()):
            raise DataError(f"{index}: expected the images of the manifest in its order, found others. {_AGAIN}")
        self._shard, self._offset, self._bytes, width, height = (
            table[name].to_numpy() for name in SCHEMA.names if name != "image_id"
        )
        self._size_wh = np.stack([width, height], axis=1)
        self._check_places(index)
        self._files: dict[int, int] = {}

    def read(self, i: int) -> bytes:
        """The image of row i as it was packed, as the bytes of a file.

        Raises:
            DataError: The shard ends before the image does, or is gone.
        """
        number, length = int(self._shard[i]), int(self._bytes[i])
        data = os.pread(self._file(number), length, int(self._offset[i]))
        if len(data) != length:
            raise DataError(
                f"{self.folder / shard_name(number)} (row {i}): expected {length} bytes at {self._offset[i]}, "
                f"found {len(data)}. {_AGAIN}"
            )
        return data

    def size_wh(self, i: int) -> tuple[int, int]:
        """Width and height of the image of row i before it was packed."""
        width, height = self._size_wh[i].tolist()
        return width, height

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay with the process that opened them."""
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        """Closes the shards."""
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def _file(self, number: int) -> int:
        if number not in self._files:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            path = self.folder / shard_name(number)
            try:
                self._files[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DataError(f"{path}: expected this shard; {error.strerror}. {_AGAIN}") from error
        return self._files[number]

    def _check_places(self, index: Path) -> None:
        sizes = np.array([shard["bytes"] for shard in self.card["shards"]], dtype=np.int64)
        for number, shard in enumerate(self.card["shards"]):
            path = self.folder / shard_name(number)
            found = path.stat().st_size if path.is_file() else None
            if found != shard["bytes"]:
                raise DataError(f"{path}: expected {shard['bytes']} bytes, found {found or 'nothing'}. {_AGAIN}")
        known = (self._shard >= 0) & (self._shard < len(sizes))
        room = sizes[np.where(known, self._shard, 0)] - self._offset
        if not (known & (self._offset >= 0) & (self._bytes > 0) & (self._bytes <= room)).all():
            raise DataError(f"{index}: expected places inside of the shards, found others. {_AGAIN}")
        if (self._size_wh < 1).any():
            raise DataError(f"{index}: expected widths and heights above 0, found others. {_AGAIN}")


def _check_card(index: Path, content: Any, packing: Packing) -> None:
    keys = {"packing", "shards", "index_sha256"}
    if not isinstance(content, dict) or not keys <= content.keys() or not content["shards"]:
        raise DataError(f"{card(index)}: expected the card of a pack, found something else. {_AGAIN}")
    wanted = packing.model_dump()
    if content["packing"] != wanted:
        raise DataError(
            f"{card(index)}: expected images packed as the config says ({wanted}), found {content['packing']}. {_AGAIN}"
        )


def _read_index(index: Path, content: dict[str, Any]) -> pa.Table:
    if not index.is_file() or file_sha256(index) != content["index_sha256"]:
        raise DataError(f"{index}: expected the index that its card names, found another or none. {_AGAIN}")
    try:
        table = pq.read_table(index)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{index}: expected Parquet, found something else ({error}). {_AGAIN}") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{index}: expected the columns {SCHEMA.names}, found {table.schema.names}. {_AGAIN}")
    return table
