"""Reads and checks the predictions of a test set; returns their columns as arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.data.manifests.testsets import TEST_SETS
from luab.errors import DataError
from luab.metrics.accuracy import Bools, Ints, padded
from luab.metrics.localization import LocalizationInput
from luab.progress import progress

_CLASSES = ("labels", "top5", "restricted_top1", "box_labels")
_MOST_CLASSES, _MOST_OWN = 1000, 2**15
OWN_SETS = tuple(name for name, test_set in TEST_SETS.items() if test_set.outputs is None)
"""Test sets of the user's own images, which may have more classes than ImageNet."""
_OPTIONAL = ("point_x", "point_y", "points", "recorded_x", "recorded_y")


def read_predictions(folder: Path, test_set: str, columns: tuple[str, ...]) -> pa.Table:
    """Reads columns of <folder>/<test_set>.parquet; see docs/data-formats.md.

    Raises:
        DataError: The file is missing or damaged, lacks columns or rows, lists an image twice, or contains empty cells
            (except points, which a model without a byproduct head lacks), numbers that are not finite, or invalid
            classes.
    """
    path = folder / f"{test_set}.parquet"
    remedy = "Remove the file and run `luab predict` or Snakemake again."
    table = _read(path, columns, remedy)
    for name in columns:
        if table[name].null_count and name not in _OPTIONAL:
            raise DataError(
                f"{path}: expected a value in every row of {name}, found {table[name].null_count} empty. {remedy}"
            )
        values = _flat(table[name])
        if pa.types.is_floating(values.type) and (bad := np.count_nonzero(~np.isfinite(values.drop_null().to_numpy()))):
            raise DataError(
                f"{path}: expected finite numbers in {name}, found {bad} that are not. The training diverged or the "
                "weights are damaged: check the run's log.csv, train again, then predict."
            )
    return table


def read_listed(
    folder: Path, dataset: str, columns: tuple[str, ...] = ("image_id", "labels"), command: str = "manifest"
) -> pa.Table:
    """Reads columns of the manifest <folder>/<dataset>.parquet, or of a file of targets that `command` writes.

    Raises:
        DataError: The file is missing or damaged, lacks these columns or rows, or lists an image twice.
    """
    return _read(folder / f"{dataset}.parquet", columns, f"Run `luab {command}` or Snakemake again.")


def _read(path: Path, columns: tuple[str, ...], remedy: str) -> pa.Table:
    """Reads columns of a Parquet file that must have at least one row and each image once."""
    if not path.is_file():
        raise DataError(f"{path}: expected this file, but it does not exist. {remedy}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            present = file.schema_arrow.names
            if missing := [name for name in columns if name not in present]:
                raise DataError(f"{path}: no {', '.join(missing)}; the file has {', '.join(present)}. {remedy}")
            table = file.read(list(columns))
        table.validate(full=True)  # Arrow reads invalid text and offsets beyond the values
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a Parquet file, could not read it ({error}). {remedy}") from error
    distinct = pc.count_distinct(table["image_id"]).as_py()
    if not table.num_rows or distinct != table.num_rows:
        raise DataError(
            f"{path}: expected every image once, found {table.num_rows} rows with {distinct} different image_id. "
            f"{remedy}"
        )
    for name in set(columns) & set(_CLASSES):
        _check_classes(path, name, _flat(table[name]), remedy, _MOST_OWN if path.stem in OWN_SETS else _MOST_CLASSES)
    return table


def _check_classes(path: Path, name: str, classes: pa.ChunkedArray, remedy: str, number: int) -> None:
    """Classes index arrays later, and an index below 0 would count from the end without an error."""
    if not pa.types.is_integer(classes.type):
        raise DataError(f"{path}: expected whole numbers in {name}, found {classes.type}. {remedy}")
    least, most = pc.min_max(classes).as_py().values()
    if least is not None and not 0 <= least <= most < number:
        raise DataError(f"{path}: expected classes from 0 to {number - 1} in {name}, found {least} to {most}. {remedy}")


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = pc.list_flatten(column)
    return column


def top5_of(table: pa.Table, most: int = 5) -> Ints:
    """[n, most] classes, best first.

    Raises:
        DataError: A row has more or fewer than `most` classes.
    """
    return np.asarray(_lists(table, "top5", most))


def labels_of(table: pa.Table) -> Ints:
    """[n, most] labels of each image, padded as `luab.metrics.accuracy.padded` does."""
    return padded(pc.list_flatten(table["labels"]).to_numpy(), _lengths(table, "labels"))


def label_table(table: pa.Table, classes: int) -> Bools:
    """[n, classes] whether an image has each label.

    Raises:
        DataError: A label is outside the range of the classes.
    """
    labels = pc.list_flatten(table["labels"]).to_numpy()
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"labels: expected classes from 0 to {classes - 1}, found {labels.min()} to {labels.max()}. Predict again."
        )
    shown = np.zeros((table.num_rows, classes), dtype=bool)
    shown[np.repeat(np.arange(table.num_rows), _lengths(table, "labels")), labels] = True
    return shown


def matrix_of(table: pa.Table, column: str, width: int) -> npt.NDArray[np.float32] | None:
    """[n, width] values of a column of lists; None if all lists are null.

    Raises:
        DataError: Some lists are null, or a list has another length than `width`.
    """
    if table[column].null_count == table.num_rows:
        return None
    return np.asarray(_lists(table, column, width), dtype=np.float32)


def _lists(table: pa.Table, column: str, width: int) -> npt.NDArray[Any]:
    flat = pc.list_flatten(table[column]).to_numpy()
    if len(flat) != width * table.num_rows:
        raise DataError(
            f"{column}: expected {width} values for each of {table.num_rows} images, found {len(flat)} in total. "
            "Predict again."
        )
    return np.asarray(flat.reshape(-1, width))


def rows_like(table: pa.Table, manifest: pa.Table, name: str) -> pa.Table:
    """The rows of a manifest in the order of the predictions.

    Args:
        table: Predictions.
        manifest: Manifest of the same images.
        name: Name of the manifest, for the error message.

    Raises:
        DataError: The predictions and the manifest differ in their images.
    """
    rows = pc.index_in(table["image_id"], manifest["image_id"].combine_chunks())
    if rows.null_count or table.num_rows != manifest.num_rows:
        raise DataError(
            f"{name}: expected the same images in the predictions ({table.num_rows} images) and in the manifest "
            f"({manifest.num_rows} images), but they differ. Build the manifest again, then predict."
        )
    return manifest.take(rows)


def _lengths(table: pa.Table, column: str) -> Ints:
    return np.asarray(pc.list_value_length(table[column]).to_numpy(), dtype=np.int64)


def numbers_of(table: pa.Table, column: str) -> npt.NDArray[Any]:
    """[n] values of a column of numbers."""
    return np.asarray(table[column].to_numpy())


def columns_of(table: pa.Table, *columns: str) -> npt.NDArray[Any]:
    """[n, columns] values of several columns of numbers."""
    return np.stack([numbers_of(table, column) for column in columns], axis=1)


def texts_of(table: pa.Table, column: str) -> npt.NDArray[np.object_]:
    """[n] values of a text column; equal texts are the same object."""
    encoded = table[column].dictionary_encode().combine_chunks()
    return np.asarray(np.array(encoded.dictionary.to_pylist(), dtype=object)[encoded.indices.to_numpy()])


def ids_of(table: pa.Table) -> list[str]:
    """Image ids in row order."""
    return [str(image_id) for image_id in table["image_id"].to_pylist()]


def boxes_of(table: pa.Table) -> list[Ints]:
    """One [boxes, 4] array per image: x0 y0 x1 y1 in source pixels."""
    flat = pc.list_flatten(pc.list_flatten(table["boxes"])).to_numpy().reshape(-1, 4)
    return np.split(flat, np.cumsum(_lengths(table, "boxes"))[:-1])


def points_of(name: str, table: pa.Table) -> npt.NDArray[np.float64] | None:
    """[n, 2] predicted points; None for a model without a byproduct head, whose points are all null."""
    empty = [table[column].null_count for column in ("point_x", "point_y")]
    if empty == [table.num_rows] * 2:
        return None
    if any(empty):
        raise DataError(
            f"{name}: expected a point for every image or for none, found {max(empty)} of {table.num_rows} empty. "
            "Predict again."
        )
    return columns_of(table, "point_x", "point_y").astype(np.float64)


def maps_of(name: str, table: pa.Table) -> list[npt.NDArray[Any]]:
    """The score map [cam_h, cam_w] of each image.

    Raises:
        DataError: The size of a map differs from cam_h x cam_w.
    """
    shapes = columns_of(table, "cam_h", "cam_w").astype(np.int64)
    if (shapes.prod(axis=1) != _lengths(table, "cam")).any():
        raise DataError(f"{name}: expected score maps of cam_h x cam_w values, found other sizes. Predict again.")
    maps = np.split(pc.list_flatten(table["cam"]).to_numpy(), np.cumsum(_lengths(table, "cam"))[:-1])
    return [values.reshape(shape) for values, shape in zip(maps, shapes, strict=True)]


def score_maps_of(name: str, table: pa.Table, boxes: list[Ints], size_wh: Ints) -> Iterator[LocalizationInput]:
    """Yields the input of `box_accuracy` for each image.

    Raises:
        DataError: The size of a map differs from cam_h x cam_w.
    """
    maps = maps_of(name, table)
    with progress(f"boxes of {name}", len(maps), "images") as advance:
        for score_map, image_boxes, (width, height) in zip(maps, boxes, size_wh, strict=True):
            yield LocalizationInput(score_map, image_boxes, (int(width), int(height)))
            advance(1)
