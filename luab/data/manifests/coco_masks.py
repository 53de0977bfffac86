"""The masks in COCO's instances files."""

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as masks

from luab.byproducts.coco_classes import INDEX_OF_ID
from luab.byproducts.json_stream import Item, object_items
from luab.errors import DataError

Size = tuple[int, int]
"""Width and height in pixels."""


class AnnotatedMask(NamedTuple):
    """One annotation (item) of an instances file: number and size of its image, and its class index."""

    number: int
    label: int
    size_wh: Size
    item: Item
    instances: Path

    @property
    def is_crowd(self) -> bool:
        """Whether it is a crowd rather than a single object."""
        return bool(self.item.value.get("iscrowd"))

    def run_lengths(self) -> list[Any]:
        """Its pieces as compressed run lengths; DataError if it is neither polygons nor run lengths that fit."""
        width, height = self.size_wh
        check_segmentation(self.item, self.instances, self.size_wh)
        given = self.item.value["segmentation"]
        return list(masks.frPyObjects(given if isinstance(given, list) else [given], height, width))


def annotated_masks(instances: Path, sizes: Mapping[int, Size]) -> Iterator[AnnotatedMask]:
    """Reads the annotations of the images in `sizes` (by number) as a stream; DataError if the file is damaged."""
    with object_items(instances, ("annotations",)) as items:
        for item in items:
            number, label = _numbers(item, instances)
            if number in sizes:
                yield AnnotatedMask(number, label, sizes[number], item, instances)


class ClassMask(NamedTuple):
    """All masks of one class in one image as compressed run lengths: single objects and crowds, or None."""

    objects: dict[str, Any] | None
    crowds: dict[str, Any] | None


def class_masks(instances: Path, sizes: Mapping[int, Size]) -> dict[tuple[int, int], ClassMask]:
    """Returns the union of the masks of each class in each image, by image number and class.

    The run lengths of COCO's 40,504 validation images take about 100 MB. Arguments as for `annotated_masks`.

    Raises:
        DataError: The file is damaged; a mask is neither polygons nor run lengths that fit the image.
    """
    pieces: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    for mask in annotated_masks(instances, sizes):
        pieces.setdefault((mask.number, mask.label), ([], []))[mask.is_crowd].extend(mask.run_lengths())
    return {tag: ClassMask(*(masks.merge(part) if part else None for part in both)) for tag, both in pieces.items()}


def pixels_of(mask: dict[str, Any] | None, size_wh: Size) -> NDArray[np.bool_]:
    """Decodes run lengths to pixels [height, width]; None gives an empty mask."""
    if mask is None:
        return np.zeros(size_wh[::-1], dtype=bool)
    with warnings.catch_warnings():  # pycocotools copies arrays in a way that numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(masks.decode(mask).astype(bool))


def _numbers(item: Item, path: Path) -> tuple[int, int]:
    value = item.value if isinstance(item.value, dict) else {}
    image, category = value.get("image_id"), value.get("category_id")
    if type(image) is not int or type(category) is not int or category not in INDEX_OF_ID:
        raise bad_entry(item, path, "expected whole numbers as image_id and category_id, the latter one of COCO's 80")
    return image, INDEX_OF_ID[category]


def check_segmentation(item: Item, path: Path, size_wh: Size | None) -> list[int] | None:
    """Checks polygons or run lengths, since pycocotools does not check its input.

    Returns the height and width of run lengths; None for polygons. `size_wh` is None if the image is not known yet.

    Raises:
        DataError: They are neither, or do not fit the image.
    """
    given = item.value.get("segmentation")
    if isinstance(given, list) and given:
        wrong = [piece for piece in given if not _is_polygon(piece)]
        if not wrong:
            return None
        found = f"a polygon of {len(wrong[0])} numbers" if isinstance(wrong[0], list) else repr(wrong[0])[:80]
        raise bad_entry(
            item, path, f"expected polygons of x and y below 2^20, at least 3 pairs, as segmentation, found {found}"
        )
    counts, size = (given.get("counts"), given.get("size")) if isinstance(given, dict) else (None, None)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    pair = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if counts is None or size is None or not whole or not pair or sum(counts) != size[0] * size[1]:
        found = "compressed run lengths" if isinstance(counts, str) else repr(given)[:80]
        raise bad_entry(item, path, f"expected polygons or whole numbers as run lengths as segmentation, found {found}")
    if size_wh is not None:
        check_size(item, path, size, size_wh)
    return list(size)


def check_size(item: Item, path: Path, size_hw: list[int], size_wh: Size) -> None:
    """Raises DataError unless run lengths have the size of the image."""
    if size_hw != [size_wh[1], size_wh[0]]:
        raise bad_entry(
            item,
            path,
            f"expected a segmentation of the image's {size_wh[0]} x {size_wh[1]} pixels, found run lengths of "
            f"{size_hw[1]} x {size_hw[0]}",
        )


def _is_polygon(piece: Any) -> bool:
    # pycocotools would read four numbers as a box.
    if not isinstance(piece, list) or len(piece) < 6 or len(piece) % 2:
        return False
    return all(type(v) in (int, float) and abs(v) < 2**20 and math.isfinite(v) for v in piece)


def bad_entry(item: Item, path: Path, why: str) -> DataError:
    """The error for an entry of an instances file."""
    return DataError(
        f"{path}, entry {item.number} of {item.key!r} at byte {item.offset}: {why}. The file is damaged, was "
        "rewritten by a tool or belongs to another data set: unpack annotations_trainval2014.zip again."
    )
