"""COCO 2014 as rows of a manifest: its images and what instances_{train,val}2014.json says of each.

One image, one annotation and one category (shortened; bbox is x, y, width, height in pixels, not whole ones)::

    {"info": {...}, "licenses": [...],
     "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 640, "height": 480, ...}],
     "annotations": [{"id": 1038967, "image_id": 9, "category_id": 51, "iscrowd": 0, "area": 120057.13,
                      "bbox": [1.08, 187.69, 611.59, 285.84], "segmentation": [[500.49, 473.53, ...]]}],
     "categories": [{"id": 51, "name": "bowl", "supercategory": "kitchen"}]}

Masks stay in the JSON: `luab.data.manifests.coco_masks` asks them.
"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_ID
from luab.byproducts.json_stream import Item, object_items
from luab.data.manifests.tree import Entry, Tree, join
from luab.errors import DataError

_LARGEST = 1 << 20  # pixels of a side


def coco_entries(tree: Tree) -> Iterator[Entry]:
    """Entries of one half of COCO 2014; labels are class indices 0 to 79 by ascending category id.

    train2014/COCO_train2014_000000000009.jpg
    annotations/instances_train2014.json

    image_id is the file's stem. An image is labelled with each class that it has an annotation of, crowds included;
    labels are empty where it has none. Boxes are rounded outwards to whole pixels and cut at the image's border.
    """
    half = tree.dataset.removeprefix("coco_") + "2014"
    base = tree.parent_of(half.__eq__)
    source = tree.root / base / "annotations" / f"instances_{half}.json"
    if not source.is_file():
        raise DataError(
            f"{source}: expected the boxes and classes of {half}; the file is not there. Unpack "
            "annotations_trainval2014.zip beside the images."
        )
    instances = read_instances(source)
    present = dict(tree.images(join(base, half)))
    _check_present(tree, source, present, [image.stem for image in instances.images.values()])
    for number, image in instances.images.items():
        if image.stem in present:
            yield _entry(image, present[image.stem], instances.of(number))


class CocoImage(NamedTuple):
    """One image as the list names it: stem of its file, size in pixels."""

    stem: str
    width: int
    height: int


@dataclass(frozen=True)
class Objects:
    """Annotated objects of one image, in the file's order.

    labels: int [n] class indices. xywh: [n, 4] pixels, left, top, width, height. crowd: bool [n]. areas: [n] of the
    masks, square pixels.
    """

    labels: NDArray[np.int16]
    xywh: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def at(self, rows: NDArray[np.int64] | slice) -> "Objects":
        """Some of them."""
        return Objects(self.labels[rows], self.xywh[rows], self.crowd[rows], self.areas[rows])


class Instances:
    """What an instances file says, without its masks: 50 bytes for each object.

    Attributes:
        images: By official number, in the file's order.
    """

    def __init__(self, images: dict[int, CocoImage], numbers: NDArray[np.int64], objects: Objects) -> None:
        self.images = images
        order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[order]
        self._objects = objects.at(order)

    def of(self, image: int) -> Objects:
        """Objects of one image."""
        first, behind = np.searchsorted(self._numbers, [image, image + 1])
        return self._objects.at(slice(int(first), int(behind)))


def read_instances(path: Path) -> Instances:
    """Reads an instances file as a stream; its arrays may come in any order.

    Raises:
        DataError: The file is damaged; an entry lacks something or has another type (named with its number and byte);
            an id occurs twice; an annotation's image is not listed; the categories are not COCO's 80.
    """
    images: dict[int, CocoImage] = {}
    categories: dict[int, str] = {}
    numbers, labels, crowd = array("q"), array("h"), array("b")
    xywh, areas = array("d"), array("d")
    with object_items(path, ("images", "annotations", "categories")) as items:
        for item in items:
            if item.key == "images":
                _add_image(images, item, path)
            elif item.key == "categories":
                categories[_whole(item, "id", path)] = _text(item, "name", path)
            else:
                numbers.append(_whole(item, "image_id", path))
                labels.append(_label(item, path))
                crowd.append(bool(_whole(item, "iscrowd", path)))
                xywh.extend(_box(item, path))
                areas.append(_number(_value(item, "area", path), item, "area", path))
    _check_categories(categories, path)
    objects = Objects(
        np.array(labels, dtype=np.int16),
        np.array(xywh, dtype=np.float64).reshape(-1, 4),
        np.array(crowd, dtype=bool),
        np.array(areas, dtype=np.float64),
    )
    owners = np.array(numbers, dtype=np.int64)
    lost = sorted(set(owners.tolist()) - set(images))
    if lost:
        raise DataError(
            f"{path}: expected every annotation's image among `images`, found {len(lost)} others, first {lost[0]}. "
            "Unpack annotations_trainval2014.zip again."
        )
    return Instances(images, owners, objects)


def _entry(image: CocoImage, path: str, objects: Objects) -> Entry:
    return Entry(
        image.stem,
        path,
        tuple(sorted(set(objects.labels.tolist()))),
        "",
        image.width,
        image.height,
        tuple(map(tuple, _whole_pixels(objects.xywh, image).tolist())),
        tuple(objects.labels.tolist()),
        tuple(objects.crowd.tolist()),
        tuple(objects.areas.tolist()),
    )


def _whole_pixels(xywh: NDArray[np.float64], image: CocoImage) -> NDArray[np.int64]:
    """Boxes x0 y0 x1 y1, maxima inclusive, of at least one pixel each."""
    last = np.array([image.width - 1, image.height - 1])
    low = np.clip(np.floor(xywh[:, :2]), 0, last)
    high = np.clip(np.ceil(xywh[:, :2] + xywh[:, 2:]) - 1, low, last)
    return np.concatenate([low, high], axis=1).astype(np.int64)


def _check_present(tree: Tree, source: Path, present: dict[str, str], listed: list[str]) -> None:
    missing = [stem for stem in listed if stem not in present]
    if len(missing) == len(listed) or (missing and not tree.partial):
        raise DataError(
            f"{tree.root}: expected the {len(listed)} images that {source.name} lists, found "
            f"{len(listed) - len(missing)}; missing are {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. "
            "Unpack the images again, or set `paths.partial: true` if the tree holds only some."
        )
    tree.ignored["listed images that are not there"] += len(missing)
    tree.ignored["images that are not listed"] += len(present) - (len(listed) - len(missing))


# ---- entries of the JSON, one by one ------------------------------------------------------------------------


def _add_image(images: dict[int, CocoImage], item: Item, path: Path) -> None:
    number, name = _whole(item, "id", path), _text(item, "file_name", path)
    if number in images:
        raise _bad(item, path, f"expected each id once, found {number} again")
    if not name.endswith(".jpg") or "/" in name:
        raise _bad(item, path, f"expected a file name <stem>.jpg, found {name!r}")
    images[number] = CocoImage(name.removesuffix(".jpg"), _side(item, "width", path), _side(item, "height", path))


def _side(item: Item, key: str, path: Path) -> int:
    side = _whole(item, key, path)
    if not 0 < side <= _LARGEST:
        raise _bad(item, path, f"expected a {key} from 1 to {_LARGEST}, found {side}")
    return side


def _label(item: Item, path: Path) -> int:
    number = _whole(item, "category_id", path)
    if number not in INDEX_OF_ID:
        raise _bad(item, path, f"expected one of COCO's 80 category ids, found {number}")
    return INDEX_OF_ID[number]


def _box(item: Item, path: Path) -> list[float]:
    box = _value(item, "bbox", path)
    if not isinstance(box, list) or len(box) != 4:
        raise _bad(item, path, "expected four numbers as bbox")
    found = [_number(number, item, "bbox", path) for number in box]
    if min(found[2:]) < 0:
        raise _bad(item, path, f"expected a bbox whose width and height are not negative, found {found}")
    return found


def _value(item: Item, key: str, path: Path) -> Any:
    if not isinstance(item.value, dict) or key not in item.value:
        raise _bad(item, path, f"expected an object with the key {key}")
    return item.value[key]


def _whole(item: Item, key: str, path: Path) -> int:
    value = _value(item, key, path)
    if type(value) is not int or not 0 <= value < 2**62:
        raise _bad(item, path, f"expected a whole number as {key}")
    return value


def _text(item: Item, key: str, path: Path) -> str:
    value = _value(item, key, path)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise _bad(item, path, f"expected a short text as {key}")
    return value


def _number(value: Any, item: Item, key: str, path: Path) -> float:
    if type(value) not in (int, float) or abs(value) > _LARGEST**2 or not math.isfinite(value):
        raise _bad(item, path, f"expected finite numbers as {key}")
    return float(value)


def _check_categories(found: dict[int, str], path: Path) -> None:
    expected = {item.category_id: item.name for item in COCO_CLASSES}
    if found != expected:
        wrong = sorted(number for number in found.keys() | expected if found.get(number) != expected.get(number))
        raise DataError(
            f"{path}: expected the 80 categories of COCO with their official ids, found others for the ids "
            f"{wrong[:10]}. Is it another data set's file? Unpack annotations_trainval2014.zip again."
        )


def _bad(item: Item, path: Path, why: str) -> DataError:
    return DataError(
        f"{path}, entry {item.number} of {item.key!r} at byte {item.offset}: {why}. The file is damaged or of another "
        "data set: unpack annotations_trainval2014.zip again."
    )
