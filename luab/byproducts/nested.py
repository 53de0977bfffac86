"""Nested columns of an index as flat arrays.

An annotation is one metadata element of a record: what one annotator did on one image.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def entries(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """Returns the entries of all rows' lists, and the row of each entry."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()


def inner_entries(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """Returns the entries of all annotations' lists, and the annotation of each entry."""
    lists, _ = entries(column)
    return pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()


def points(column: pa.Array | pa.ChunkedArray) -> tuple[Floats, Integers, Integers]:
    """Returns the points [n, 2] of all annotations, where the points of each annotation start, and their numbers."""
    lists, _ = entries(column)
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    xy = pc.list_flatten(lists).flatten().to_numpy().reshape(-1, 2)
    return xy, np.cumsum(lengths) - lengths, lengths


def outside(xy: Floats) -> Bools:
    """Returns whether x or y of each point [n, 2] is outside [0, 1]."""
    return np.any((xy < 0) | (xy > 1), axis=1)
