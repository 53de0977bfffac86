"""COCO 2014 for dense tasks: boxes, masks and the points of COCO-AB, from instances_{train,val}2014.json.

`luab.data.manifests.coco_instances` shows the file. Labels are the class index plus 1: 1 to 80, by ascending
category id.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.dense.dense_set import (
    IGNORED,
    OBJECT,
    DetectionSet,
    Images,
    Pointed,
    PointSet,
    SegmentationSet,
    Transforms,
)
from luab.data.manifests.coco_instances import Instances, coco_files, read_instances
from luab.data.manifests.coco_masks import annotated_masks, pixels_of
from luab.data.manifests.tree import Tree
from luab.data.supervisions.point_files import read_class_points
from luab.errors import DataError

CLASSES = tuple(item.name for item in COCO_CLASSES)
"""Official names of the 80 classes; the label of a class is its place here plus 1."""

Split = Literal["train", "val"]


class _Half(NamedTuple):
    """One half of COCO: its instances file, their content, and path and number of each image by its id, sorted."""

    root: Path
    source: Path
    instances: Instances
    paths: dict[str, str]
    numbers: dict[str, int]

    def images(self, image_ids: list[str]) -> Images:
        return Images(self.root, image_ids, [self.paths[image_id] for image_id in image_ids])


def detection(
    root: Path, split: Split, transforms: Transforms | None = None, seed: int = 0, partial: bool = False
) -> DetectionSet:
    """Reads the boxes of a split.

    Training leaves out crowds, boxes without area, and images without any other box, and clips boxes to the image;
    validation keeps all as annotated.

    Args:
        root: Folder that the images and annotations were unpacked to.
        split, transforms, seed: As for `luab.data.dense.dense_sets.dense_set`.
        partial: Whether images may be missing.

    Raises:
        DataError: Images are missing, their number is not the published one, or the instances file is damaged.

    Source:
        torchvision's references/detection/coco_utils.py, for what training leaves out.
    """
    half = _read(root, split, partial)
    chosen, sizes, objects = [], [], []
    for image_id, number in half.numbers.items():
        size_wh = half.instances.images[number].size_wh
        annotated = _objects(half.instances.of(number))
        if split == "train":
            annotated = annotated[~annotated["crowd"]]
            annotated["xyxy"] = np.clip(annotated["xyxy"], 0, (*size_wh, *size_wh))
            annotated = annotated[(annotated["xyxy"][:, 2:] > annotated["xyxy"][:, :2]).all(axis=1)]
            if len(annotated) == 0:
                continue
        chosen.append(image_id)
        sizes.append(size_wh)
        objects.append(annotated)
    if not chosen:
        raise DataError(f"{half.source}: expected images with boxes, found none.")
    return DetectionSet(half.images(chosen), np.array(sizes, dtype=np.int64), objects, transforms, seed)


def segmentation(
    root: Path, split: Split, transforms: Transforms | None = None, seed: int = 0, partial: bool = False
) -> SegmentationSet:
    """Makes a class for each pixel from the instances' masks; arguments and errors as for `detection`.

    Pixels that masks of two classes share, and those of crowds, are ignored. Training leaves out images without
    objects.

    Source:
        torchvision's references/segmentation/coco_utils.py, which ignores pixels of several objects.
    """
    half = _read(root, split, partial)
    sizes = {number: half.instances.images[number].size_wh for number in half.numbers.values()}
    masks = _Masks(half.source, sizes)
    chosen = [name for name, number in half.numbers.items() if split == "val" or number in masks.numbers]
    numbers = [half.numbers[image_id] for image_id in chosen]
    return SegmentationSet(half.images(chosen), lambda i: masks.of(numbers[i]), transforms, seed)


def points(
    root: Path, targets: Path, transforms: Transforms | None = None, seed: int = 0, partial: bool = False
) -> PointSet:
    """Reads the training images that have at least one point, with their points and classes.

    Points of classes that the image is not annotated with are ignored, as in training for classification.

    Args:
        root, transforms, seed, partial: As for `detection`.
        targets: data/targets/coco/<supervision>.parquet, which `luab targets` makes from the index of COCO-AB.

    Raises:
        DataError: As for `detection`; or the file of points is missing or damaged, or has none for these images.
    """
    half = _read(root, "train", partial)
    by_image = read_class_points(targets, len(CLASSES))
    pointed: dict[str, Pointed] = {}
    for image_id, number in half.numbers.items():
        classes = np.unique(half.instances.of(number)["label"]).astype(np.int64)
        if image_id in by_image:
            labels, xy = by_image[image_id]
            known = np.isin(labels, classes)
            if known.any():
                pointed[image_id] = Pointed(labels[known].astype(np.int64) + 1, xy[known], classes + 1)
    if not pointed:
        raise DataError(f"{targets}: expected points of images in {root}, found none. Run `luab targets` again.")
    return PointSet(half.images(list(pointed)), list(pointed.values()), transforms, seed)


def _read(root: Path, split: Split, partial: bool) -> _Half:
    tree = Tree(f"coco_{split}", root, partial)
    with tree.reading():
        tree.require("")
        source, present = coco_files(tree)
    tree.check_readable()
    instances = read_instances(source)
    numbers = {image.stem: number for number, image in instances.images.items()}
    missing = [stem for stem in numbers if stem not in present]
    tree.check_listed(missing, len(numbers), source.name, "Unpack the images again, or set `paths.partial: true`")
    numbers = {stem: numbers[stem] for stem in sorted(numbers.keys() & present.keys())}
    if not partial and (difference := tree.difference(len(numbers))):
        raise DataError(f"{difference}. Set `paths.partial: true` if the folder is meant to hold only some.")
    return _Half(root, source, instances, present, numbers)


def _objects(annotated: NDArray[np.void]) -> NDArray[np.void]:
    objects = np.zeros(len(annotated), OBJECT)
    objects["xyxy"] = annotated["xywh"]
    objects["xyxy"][:, 2:] += annotated["xywh"][:, :2]
    objects["label"], objects["crowd"], objects["area"] = annotated["label"] + 1, annotated["crowd"], annotated["area"]
    return objects


class _Masks:
    """The masks of all instances as compressed run lengths, about 250 MB for the training images.

    In few arrays: small objects would cost a page of memory each in every loader process that reads them.
    """

    def __init__(self, source: Path, sizes: dict[int, tuple[int, int]]) -> None:
        self.sizes = sizes
        images, labels, crowds, ends, pieces = [], [], [], [0], []
        for mask in annotated_masks(source, sizes):
            for piece in mask.run_lengths():
                images.append(mask.number)
                labels.append(mask.label + 1)
                crowds.append(mask.is_crowd)
                pieces.append(piece["counts"])
                ends.append(ends[-1] + len(piece["counts"]))
        order = np.argsort(np.array(images, dtype=np.int64), kind="stable")
        self._images = np.array(images, dtype=np.int64)[order]
        self._labels = np.array(labels, dtype=np.uint8)[order]
        self._crowds = np.array(crowds, dtype=bool)[order]
        self._starts, self._ends = np.array(ends[:-1], dtype=np.int64)[order], np.array(ends[1:], dtype=np.int64)[order]
        self._counts = b"".join(pieces)
        self.numbers = frozenset(images)

    def of(self, number: int) -> NDArray[np.uint8]:
        """Classes [height, width] of one image."""
        width, height = self.sizes[number]
        classes = np.zeros((height, width), dtype=np.uint8)
        crowded = np.zeros((height, width), dtype=bool)
        for row in range(*np.searchsorted(self._images, [number, number + 1])):
            counts = self._counts[self._starts[row] : self._ends[row]]
            pixels = pixels_of({"counts": counts, "size": [height, width]}, (width, height))
            if self._crowds[row]:
                crowded |= pixels
                continue
            shared = pixels & (classes != 0) & (classes != self._labels[row])
            classes[pixels] = self._labels[row]
            classes[shared] = IGNORED
        classes[crowded & (classes == 0)] = IGNORED
        return classes
