"""A digest of the content of an Arrow table, independent of file, chunking and library version."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContentDigest:
    """SHA-256 of the content of a table, updated table by table.

    Tables with equal columns, types and rows have the same digest, however they are cut into chunks and whichever
    version of Parquet wrote them. A change of a value, of the row order or of a column changes it.
    """

    def __init__(self) -> None:
        self._parts: dict[str, hashlib._Hash] = {}

    def update(self, table: pa.Table) -> None:
        """Adds the rows of a table."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            for chunk in column.chunks or [pa.array([], column.type)]:
                self._add(name, chunk)

    def hexdigest(self) -> str:
        """Returns 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for path in sorted(self._parts):
            whole.update(f"{path} {self._parts[path].hexdigest()}\n".encode())
        return whole.hexdigest()

    def _add(self, path: str, array: pa.Array) -> None:
        self._feed(f"{path}/valid", pc.cast(array.is_valid(), pa.uint8()))
        if pa.types.is_fixed_size_list(array.type):
            self._add(f"{path}/items", array.flatten())
        elif pa.types.is_list(array.type):
            self._feed(f"{path}/lengths", array.value_lengths().fill_null(0))
            self._add(f"{path}/items", array.flatten())
        elif pa.types.is_string(array.type):
            self._feed(f"{path}/lengths", pc.binary_length(array).fill_null(0))
            self._part(f"{path}/text").update(_text(array.fill_null("")))
        elif pa.types.is_boolean(array.type):
            self._feed(path, pc.cast(array, pa.uint8()).fill_null(0))
        else:
            self._feed(path, array.fill_null(0))

    def _feed(self, path: str, numbers: pa.Array) -> None:
        values = numbers.to_numpy(zero_copy_only=False)
        path = f"{path}:{values.dtype.name}"
        self._part(path).update(values.astype(values.dtype.newbyteorder("<")).tobytes())

    def _part(self, path: str) -> "hashlib._Hash":
        return self._parts.setdefault(path, hashlib.sha256())


def _text(strings: pa.Array) -> memoryview:
    """All strings of an array without nulls, concatenated as UTF-8: a view of its buffer."""
    _, offsets, data = strings.buffers()
    if not len(strings) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return memoryview(data)[ends[0] : ends[-1]]
