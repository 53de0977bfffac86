"""The masks of COCO's instances files, and whether points lie on them; needs pycocotools."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luab.byproducts.coco_classes import INDEX_OF_ID
from luab.byproducts.json_stream import Item, object_items
from luab.data.manifests.manifest import read_manifest_table
from luab.data.supervisions.point_files import Tag, TagPoints, coco_image_id
from luab.errors import DataError


def points_in_masks(instances: Path, manifest: Path, points: TagPoints) -> dict[Tag, bool]:
    """Whether each point lies on a mask of its class in its image; for the classes that the image has.

    The pixel under the point decides; the far edge of the image belongs to the last one. Masks are read as a stream and
    none is kept.

    Args:
        instances: instances_train2014.json.
        manifest: Manifest of coco_train, for the sizes of images.
        points: By image and class.

    Returns:
        One entry for each point whose class is annotated in its image.

    Raises:
        DataError: A file is damaged; a mask is neither polygons nor run lengths that fit the image.
    """
    columns = read_manifest_table(manifest).select(["image_id", "width", "height"]).columns
    sizes = {name: (width, height) for name, width, height in zip(*(c.to_pylist() for c in columns), strict=True)}
    found: dict[Tag, bool] = {}
    with object_items(instances, ("annotations",)) as items:
        for item in items:
            tag = _tag(item, instances)
            if tag in points and tag[0] in sizes:
                found[tag] = found.get(tag, False) or _on_mask(item, points[tag], sizes[tag[0]], instances)
    return found


class ClassMask(NamedTuple):
    """All masks of one class in one image, as compressed run lengths: single objects and crowds; None for none."""

    objects: dict[str, Any] | None
    crowds: dict[str, Any] | None


def class_masks(instances: Path, sizes: Mapping[int, tuple[int, int]]) -> dict[tuple[int, int], ClassMask]:
    """The union of the masks of each class in each image, by image number and class.

    Masks are read as a stream; run lengths of COCO's 40,504 validation images take about 100 MB.

    Args:
        instances: instances_val2014.json.
        sizes: Width and height of the images that are wanted, by number.

    Raises:
        DataError: The file is damaged; a mask is neither polygons nor run lengths that fit the image.
    """
    from pycocotools import mask as masks

    pieces: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    with object_items(instances, ("annotations",)) as items:
        for item in items:
            number, label = _numbers(item, instances)
            if number not in sizes:
                continue
            width, height = sizes[number]
            found = masks.frPyObjects(_segmentation(item, (width, height), instances), height, width)
            crowd = int(bool(item.value.get("iscrowd")))
            pieces.setdefault((number, label), ([], []))[crowd].extend(found)
    return {tag: ClassMask(*(masks.merge(part) if part else None for part in both)) for tag, both in pieces.items()}


def pixels_of(mask: dict[str, Any] | None, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """[height, width] the pixels of run lengths; all False for None."""
    from pycocotools import mask as masks

    if mask is None:
        return np.zeros(size_wh[::-1], dtype=bool)
    with warnings.catch_warnings():  # pycocotools has not followed numpy 2 in how arrays are copied
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(masks.decode(mask).astype(bool))


def _tag(item: Item, path: Path) -> Tag:
    number, label = _numbers(item, path)
    return coco_image_id(number), label


def _numbers(item: Item, path: Path) -> tuple[int, int]:
    value = item.value if isinstance(item.value, dict) else {}
    image, category = value.get("image_id"), value.get("category_id")
    if type(image) is not int or type(category) is not int or category not in INDEX_OF_ID:
        raise _bad(item, path, "expected whole numbers as image_id and category_id, the latter one of COCO's 80")
    return image, INDEX_OF_ID[category]


def _on_mask(item: Item, point: tuple[float, float], size: tuple[int, int], path: Path) -> bool:
    from pycocotools import mask as masks

    (x, y), (width, height) = point, size
    before = min(int(x * width), width - 1) * height + min(int(y * height), height - 1)  # pixels, column by column
    pixel = {"counts": [before, 1, width * height - before - 1], "size": [height, width]}
    pieces = masks.frPyObjects(_segmentation(item, size, path), height, width)
    together = masks.merge([masks.merge(pieces), masks.frPyObjects(pixel, height, width)], intersect=True)
    return bool(masks.area(together))


def _segmentation(item: Item, size: tuple[int, int], path: Path) -> list[Any]:
    """Polygons or one set of run lengths, checked, since pycocotools trusts what it is given."""
    given = item.value.get("segmentation")
    if isinstance(given, list) and given and all(_is_polygon(piece) for piece in given):
        return given
    if isinstance(given, dict) and given.get("size") == [size[1], size[0]]:
        counts = given.get("counts")
        whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
        if counts is not None and whole and sum(counts) == size[0] * size[1]:
            return [given]
    raise _bad(item, path, "expected polygons or run lengths that fit the image as segmentation")


def _is_polygon(piece: Any) -> bool:
    # Four numbers would be taken for a box.
    if not isinstance(piece, list) or len(piece) < 6 or len(piece) % 2:
        return False
    return all(type(v) in (int, float) and abs(v) < 2**20 and math.isfinite(v) for v in piece)


def _bad(item: Item, path: Path, why: str) -> DataError:
    return DataError(
        f"{path}, annotation {item.number} at byte {item.offset}: {why}. The file is damaged or of another data set: "
        "unpack annotations_trainval2014.zip again."
    )
