"""Points on your own images: finds the image of each row of a table of byproducts, and checks the points."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from luab.data.manifests.folder_images import Names
from luab.data.manifests.tree import Entry
from luab.errors import DataError, listed

_MOST_IN_PIXELS = 1.5  # fractions that are only a little above 1 lie outside the image; larger ones are pixels


class OwnPoints(NamedTuple):
    """Rows of the table by image.

    rows: image_id -> rows of the table, ascending. xy: [rows, 2] fractions of the image, x right, y down. notes: number
    of rows that were left out, by reason.
    """

    rows: dict[str, list[int]]
    xy: np.ndarray
    notes: dict[str, int]


def own_points(
    table: pa.Table, images: Iterable[Entry], names: list[str], root: Path, unit: str, skip_bad: bool = False
) -> OwnPoints:
    """Assigns points to images.

    Points of another class than the image's are left out and counted, since a point shows where its own class is.

    Args:
        table: Columns image, x, y and class, as `luab.byproducts.folder_ab.read_index` returns them.
        images: Rows of both manifests.
        names: Names of the classes.
        root: Folder of the images, for absolute paths.
        unit: "fractions", or "pixels" of the files.
        skip_bad: Whether rows without an image and points outside are counted instead of refused.

    Raises:
        DataError: A name fits no image or several, or a point lies outside its image; all are listed.
    """
    entries = {entry.image_id: entry for entry in images}
    find = Names(root, [entry.path for entry in entries.values()]).find
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.float64)
    if unit == "fractions" and (np.median(xy.max(axis=1)) > _MOST_IN_PIXELS):
        raise DataError(
            f"x and y go up to {xy[:, 0].max():g} and {xy[:, 1].max():g}, so they are pixels, not fractions of the "
            "image. Set `folder.points: pixels` (`luab init --points pixels`)."
        )
    rows: dict[str, list[int]] = defaultdict(list)
    mistakes: list[str] = []
    notes = {"of_another_class": 0, "without_image": 0, "out_of_range": 0}
    for row, (name, label) in enumerate(zip(table["image"].to_pylist(), table["class"].to_pylist(), strict=True)):
        try:
            entry = entries[find(name)]
        except DataError as error:
            notes["without_image"] += 1
            mistakes.append(f"row {row}: {error}")
            continue
        if unit == "pixels":
            xy[row] /= entry.width, entry.height
        if label is not None and label != names[entry.labels[0]]:
            notes["of_another_class"] += 1
        elif not ((xy[row] >= 0) & (xy[row] <= 1)).all():
            notes["out_of_range"] += 1
            x, y = (float(table[axis][row].as_py()) for axis in ("x", "y"))
            mistakes.append(f"row {row}: the point {x:g}, {y:g} is outside {entry.path}")
        else:
            rows[entry.image_id].append(row)
    if mistakes and not skip_bad:
        raise DataError(
            f"{len(mistakes):,} of {table.num_rows:,} rows of byproducts do not fit the images:\n{listed(mistakes)}\n"
            "Correct them, or set `on_bad: count` to leave them out."
        )
    if not rows:
        raise DataError(f"None of the {table.num_rows:,} rows of byproducts has a point on an image ({notes}).")
    return OwnPoints(dict(rows), xy, notes)
