"""Rows of a COCO 2014 manifest, from the images and instances_{train,val}2014.json.

One image, one annotation and one category (shortened; bbox is x, y, width, height in fractional pixels)::

    {"info": {...}, "licenses": [...],
     "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 640, "height": 480, ...}],
     "annotations": [{"id": 1038967, "image_id": 9, "category_id": 51, "iscrowd": 0, "area": 120057.13,
                      "bbox": [1.08, 187.69, 611.59, 285.84], "segmentation": [[500.49, 473.53, ...]]}],
     "categories": [{"id": 51, "name": "bowl", "supercategory": "kitchen"}]}

The manifest does not hold the masks; `luab.data.manifests.coco_masks` reads them.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_ID
from luab.byproducts.json_stream import Item, object_items
from luab.data.manifests.tree import Entry, Tree, join
from luab.errors import DataError

_MAX_SIDE_PX = 1 << 20
_MAX_AREA_PX = _MAX_SIDE_PX**2
_Id = Annotated[int, Field(ge=0, lt=2**62)]
_Side = Annotated[int, Field(gt=0, le=_MAX_SIDE_PX)]
_Number = Annotated[float, Field(ge=-_MAX_AREA_PX, le=_MAX_AREA_PX, allow_inf_nan=False)]


class _Record(BaseModel):
    """An entry of an instances file; other keys are ignored."""

    model_config = ConfigDict(strict=True)


_RecordT = TypeVar("_RecordT", bound=_Record)


class CocoImage(_Record):
    """An entry of `images`; width and height in pixels."""

    id: _Id
    file_name: Annotated[str, Field(max_length=200)]
    width: _Side
    height: _Side

    @property
    def stem(self) -> str:
        """File name without .jpg: the image_id of the manifest."""
        return self.file_name.removesuffix(".jpg")


class _Annotation(_Record):
    image_id: _Id
    category_id: int
    iscrowd: _Id
    bbox: Annotated[list[_Number], Field(min_length=4, max_length=4)]
    area: _Number


class _Category(_Record):
    id: _Id
    name: str


@dataclass(frozen=True)
class Objects:
    """Annotated objects of one image, in the order of the file.

    labels: int [n] class indices. xywh: [n, 4] pixels: left, top, width, height. crowd: bool [n]. areas: [n] areas of
    the masks in square pixels.
    """

    labels: NDArray[np.int16]
    xywh: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def at(self, rows: NDArray[np.int64] | slice) -> "Objects":
        """Returns the objects of these rows."""
        return Objects(self.labels[rows], self.xywh[rows], self.crowd[rows], self.areas[rows])


class Instances:
    """Content of an instances file without the masks; takes 50 bytes per object.

    Attributes:
        images: By official number, in the order of the file.
    """

    def __init__(self, images: dict[int, CocoImage], numbers: NDArray[np.int64], objects: Objects) -> None:
        self.images = images
        order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[order]
        self._objects = objects.at(order)

    def of(self, image: int) -> Objects:
        """Returns the objects of one image."""
        first, end = np.searchsorted(self._numbers, [image, image + 1])
        return self._objects.at(slice(int(first), int(end)))


def coco_entries(tree: Tree) -> Iterator[Entry]:
    """Entries of one half of COCO 2014; labels are class indices 0 to 79 by ascending category id.

    train2014/COCO_train2014_000000000009.jpg
    annotations/instances_train2014.json

    image_id is the stem of the file. The labels of an image are the classes of its annotations, crowds included; images
    without annotations have none. Boxes are rounded outwards to whole pixels and clipped to the image.
    """
    half = tree.dataset.removeprefix("coco_") + "2014"
    base = tree.parent_of(half.__eq__)
    source = tree.root / base / "annotations" / f"instances_{half}.json"
    if not source.is_file():
        raise DataError(
            f"{source}: expected the boxes and classes of {half}, found no file. Unpack annotations_trainval2014.zip "
            "next to the images."
        )
    instances = read_instances(source)
    present = dict(tree.images(join(base, half)))
    listed = [image.stem for image in instances.images.values()]
    missing = [stem for stem in listed if stem not in present]
    tree.check_listed(missing, len(listed), source.name, "Unpack the images again, or set `paths.partial: true`")
    tree.ignored["images that are not listed"] += len(present) - (len(listed) - len(missing))
    for number, image in instances.images.items():
        if image.stem in present:
            yield _entry(image, present[image.stem], instances.of(number))


def read_instances(path: Path) -> Instances:
    """Reads an instances file as a stream; its arrays may come in any order.

    Raises:
        DataError: The file is damaged; an entry is incomplete or has a value of another type (the message has its
            number and byte); an id occurs twice; an annotation belongs to an unlisted image; the categories are not
            the 80 of COCO.
    """
    images: dict[int, CocoImage] = {}
    categories: dict[int, str] = {}
    numbers, labels, crowd = array("q"), array("h"), array("b")
    xywh, areas = array("d"), array("d")
    with object_items(path, ("images", "annotations", "categories")) as items:
        for item in items:
            if item.key == "images":
                image = _parse(CocoImage, item, path)
                if not image.file_name.endswith(".jpg") or not image.stem.isprintable() or "/" in image.stem:
                    raise _bad(item, path, f"expected a file name <stem>.jpg, found {image.file_name!r}")
                if image.id in images:
                    raise _bad(item, path, f"expected each id once, found {image.id} again")
                images[image.id] = image
            elif item.key == "categories":
                category = _parse(_Category, item, path)
                categories[category.id] = category.name
            else:
                annotation = _parse(_Annotation, item, path)
                if min(annotation.bbox[2:]) < 0:
                    raise _bad(item, path, f"expected a bbox of width and height >= 0, found {annotation.bbox}")
                numbers.append(annotation.image_id)
                labels.append(_class_index(annotation.category_id, item, path))
                crowd.append(bool(annotation.iscrowd))
                xywh.extend(annotation.bbox)
                areas.append(annotation.area)
    _check_categories(categories, path)
    objects = Objects(
        np.array(labels, dtype=np.int16),
        np.array(xywh, dtype=np.float64).reshape(-1, 4),
        np.array(crowd, dtype=bool),
        np.array(areas, dtype=np.float64),
    )
    owners = np.array(numbers, dtype=np.int64)
    unlisted = sorted(set(owners.tolist()) - set(images))
    if unlisted:
        raise DataError(
            f"{path}: expected the image of every annotation in `images`, found {len(unlisted)} images that are not "
            f"listed, first {unlisted[0]}. Unpack annotations_trainval2014.zip again."
        )
    return Instances(images, owners, objects)


def _parse(kind: type[_RecordT], item: Item, path: Path) -> _RecordT:
    try:
        return kind.model_validate(item.value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _bad(item, path, f"{place}: {first['msg']}" if place else first["msg"]) from error


def _class_index(category_id: int, item: Item, path: Path) -> int:
    if category_id not in INDEX_OF_ID:
        raise _bad(item, path, f"expected one of COCO's 80 category ids, found {category_id}")
    return INDEX_OF_ID[category_id]


def _bad(item: Item, path: Path, why: str) -> DataError:
    return DataError(
        f"{path}, entry {item.number} of {item.key!r} at byte {item.offset}: {why}. The file is damaged or belongs to "
        "another data set: unpack annotations_trainval2014.zip again."
    )


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
    """Returns boxes x0 y0 x1 y1 with inclusive maxima, each of at least one pixel."""
    last = np.array([image.width - 1, image.height - 1])
    low = np.clip(np.floor(xywh[:, :2]), 0, last)
    high = np.clip(np.ceil(xywh[:, :2] + xywh[:, 2:]) - 1, low, last)
    return np.concatenate([low, high], axis=1).astype(np.int64)


def _check_categories(categories: dict[int, str], path: Path) -> None:
    expected = {item.category_id: item.name for item in COCO_CLASSES}
    if categories != expected:
        ids = categories.keys() | expected.keys()
        wrong = sorted(number for number in ids if categories.get(number) != expected.get(number))
        raise DataError(
            f"{path}: expected the 80 categories of COCO with their official ids, found others for the ids "
            f"{wrong[:10]}. Does the file belong to another data set? Unpack annotations_trainval2014.zip again."
        )
