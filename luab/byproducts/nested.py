"""The index's nested columns as flat arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def entries(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """The entries of all rows' lists, and the row of each."""
    lists = _whole(column)
    return pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()


def inner_entries(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """The same one level down: entries of all annotations' lists, and the annotation of each."""
    lists, _ = entries(column)
    return pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()


def points(column: pa.Array | pa.ChunkedArray) -> tuple[Floats, Integers, Integers]:
    """Points [n, 2] of all annotations; where each annotation's begin, and how many it has."""
    lists, _ = entries(column)
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    xy = pc.list_flatten(lists).flatten().to_numpy().reshape(-1, 2)
    return xy, np.cumsum(lengths) - lengths, lengths


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])
