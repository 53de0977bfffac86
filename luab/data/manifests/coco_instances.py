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
from pathlib import Path
from posixpath import join
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_ID
from luab.byproducts.json_stream import Item, object_items
from luab.data.manifests.coco_masks import Size, bad_entry, check_segmentation, check_size
from luab.data.manifests.tree import Entry, Tree
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
    def size_wh(self) -> Size:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def stem(self) -> str:
        """File name without .jpg: the image_id of the manifest."""
        return self.file_name.removesuffix(".jpg")


class _Annotation(_Record):
    id: _Id
    image_id: _Id
    category_id: int
    iscrowd: _Id
    bbox: Annotated[list[_Number], Field(min_length=4, max_length=4)]
    area: _Number


class _Category(_Record):
    id: _Id
    name: str


OBJECT = np.dtype(
    [("image", np.int64), ("label", np.int16), ("xywh", np.float64, 4), ("crowd", np.bool_), ("area", np.float64)]
)
"""An annotated object in 51 bytes: number of the image; class index; left, top, width, height in pixels; whether it is
a crowd; area of the mask in square pixels."""


class Instances(NamedTuple):
    """Content of an instances file without the masks.

    images: by official number, in the order of the file. objects: [n] `OBJECT`, by ascending image and then in the
    order of the file. numbers: [n] the images of the objects, in one piece for a quick search.
    """

    images: dict[int, CocoImage]
    objects: NDArray[np.void]
    numbers: NDArray[np.int64]

    def of(self, image: int) -> NDArray[np.void]:
        """Returns the objects of one image."""
        first, end = np.searchsorted(self.numbers, [image, image + 1])
        return self.objects[first:end]


def coco_entries(tree: Tree) -> Iterator[Entry]:
    """Entries of one half of COCO 2014; labels are class indices 0 to 79 by ascending category id.

    train2014/COCO_train2014_000000000009.jpg
    annotations/instances_train2014.json

    image_id is the stem of the file. The labels of an image are the classes of its annotations, crowds included; images
    without annotations have none. Boxes are rounded outwards to whole pixels and clipped to the image.
    """
    source, present = coco_files(tree)
    instances = read_instances(source)
    listed = [image.stem for image in instances.images.values()]
    missing = [stem for stem in listed if stem not in present]
    tree.check_listed(missing, len(listed), source.name, "Unpack the images again, or set `paths.partial: true`")
    tree.ignored["images that are not listed"] += len(present) - (len(listed) - len(missing))
    for number, image in instances.images.items():
        if image.stem in present:
            yield _entry(image, present[image.stem], instances.of(number))


def coco_files(tree: Tree) -> tuple[Path, dict[str, str]]:
    """Returns the instances file of one half of COCO, and the paths of the images that are there, by stem."""
    half = tree.dataset.removeprefix("coco_") + "2014"
    base = tree.parent_of(half.__eq__)
    source = tree.root / base / "annotations" / f"instances_{half}.json"
    if not source.is_file():
        raise DataError(
            f"{source}: expected the boxes and classes of {half}, found no file. Unpack annotations_trainval2014.zip "
            "next to the images."
        )
    return source, dict(tree.images(join(base, half)))


def read_instances(path: Path) -> Instances:
    """Reads an instances file as a stream; its arrays may come in any order.

    Raises:
        DataError: The file is damaged or was rewritten: an entry is incomplete or has a value of another type (the
            message has its number and byte); an id or file name occurs twice; an annotation belongs to an unlisted
            image; a segmentation is neither polygons nor run lengths that fit the image; the categories are not the
            80 of COCO.
    """
    images: dict[int, CocoImage] = {}
    stems: set[str] = set()
    ids = array("q")
    early: list[tuple[int, list[int], Item]] = []
    categories: dict[int, str] = {}

    def parsed(items: Iterator[Item]) -> Iterator[tuple[Any, ...]]:
        """Yields the objects; keeps images and categories."""
        for item in items:
            if item.key == "images":
                image = _parse(CocoImage, item, path)
                if not image.file_name.endswith(".jpg") or not image.stem.isprintable() or "/" in image.stem:
                    raise bad_entry(item, path, f"expected a file name <stem>.jpg, found {image.file_name!r}")
                if image.id in images or image.stem in stems:
                    raise bad_entry(
                        item, path, f"expected each id and each file once, found {image.id} ({image.file_name}) again"
                    )
                images[image.id] = image
                stems.add(image.stem)
            elif item.key == "categories":
                category = _parse(_Category, item, path)
                categories[category.id] = category.name
            else:
                a = _parse(_Annotation, item, path)
                if min(a.bbox[2:]) < 0:
                    raise bad_entry(item, path, f"expected a bbox of width and height >= 0, found {a.bbox}")
                if a.category_id not in INDEX_OF_ID:
                    raise bad_entry(
                        item,
                        path,
                        f"expected one of COCO's 80 category ids (1 to 90 with gaps), found {a.category_id}; some "
                        "tools number the categories without gaps",
                    )
                ids.append(a.id)
                known = images.get(a.image_id)
                size_hw = check_segmentation(item, path, None if known is None else known.size_wh)
                if size_hw and known is None:  # run lengths that come before their image
                    early.append((a.image_id, size_hw, item._replace(value=None)))
                yield a.image_id, INDEX_OF_ID[a.category_id], a.bbox, a.iscrowd > 0, a.area

    with object_items(path, ("images", "annotations", "categories")) as items:
        objects = np.fromiter(parsed(items), OBJECT)
    _check_categories(categories, path)
    objects = objects[np.argsort(objects["image"], kind="stable")]
    numbers = np.ascontiguousarray(objects["image"])
    unlisted = sorted(set(numbers.tolist()) - set(images))
    if unlisted:
        raise DataError(
            f"{path}: expected the image of every annotation in `images`, found {len(unlisted)} images that are not "
            f"listed, first {unlisted[0]}. Unpack annotations_trainval2014.zip again."
        )
    for image_id, size_hw, item in early:
        check_size(item, path, size_hw, images[image_id].size_wh)
    values, times = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    if len(values) < len(ids):
        raise DataError(
            f"{path}: expected each annotation once, found {len(ids) - len(values)} again, first id "
            f"{values[times > 1][0]}. Was the file merged from others? Unpack annotations_trainval2014.zip again."
        )
    return Instances(images, objects, numbers)


def _parse(kind: type[_RecordT], item: Item, path: Path) -> _RecordT:
    try:
        return kind.model_validate(item.value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise bad_entry(item, path, f"{place}: {first['msg']}" if place else first["msg"]) from error


def _entry(image: CocoImage, path: str, objects: NDArray[np.void]) -> Entry:
    labels = objects["label"].tolist()
    boxes = _whole_pixels(objects["xywh"], image).tolist()
    crowd, areas = objects["crowd"].tolist(), objects["area"].tolist()
    return Entry(image.stem, path, sorted(set(labels)), "", *image.size_wh, boxes, labels, crowd, areas)


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
