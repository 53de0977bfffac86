"""The data sets of a study for dense tasks."""

from collections.abc import Callable
from typing import Literal

from luab.data.dense import coco, imagenet, voc
from luab.data.dense.dense_set import DenseSet, Transforms
from luab.errors import ConfigError
from luab.study.config import Study
from luab.study.roots import own_copy, source_root
from luab.study.transfers import POINTED, VOC, DenseData

Task = Literal["detection", "segmentation", "points"]
Split = Literal["train", "val"]

_CLASSES: dict[DenseData, tuple[str, ...]] = {
    "coco": coco.CLASSES,
    "voc": voc.CLASSES,
    "imagenet_points": imagenet.CLASSES,
}


def classes_of(data: DenseData) -> list[str]:
    """Names of a data set's classes; the label of a class is its place plus 1, and 0 is the background."""
    return list(_CLASSES[data])


def dense_set(
    study: Study, data: DenseData, split: Split, task: Task, transforms: Transforms | None = None, seed: int = 0
) -> DenseSet:
    """Opens a data set of the study for a dense task, and checks that it is complete.

    Args:
        study: Gives the folders, and whether they may be incomplete (`paths.partial`).
        data: "coco" (2014), "voc" (2007 and 2012), or "imagenet_points": ImageNet with the clicks of ImageNet-AB.
        split: "train" or "val"; of VOC's boxes, "val" are the test images of 2007.
        task: "points" is segmentation supervised by points: COCO with the clicks of COCO-AB, or "imagenet_points".
        transforms: Called with image and target of each item; None for originals.
        seed: Seed of the transforms' random numbers; see `DenseSet`.

    Raises:
        ConfigError: The data set does not have this task or split.
        DataError: Files are missing or damaged, or their number is not the published one.
    """
    found = _OPENERS[data](study, split, task, transforms, seed)
    if found is None:
        raise ConfigError(
            f"{data} has no {split} images for the task {task}. Points are for training on coco or imagenet_points; "
            "the result is scored on the masks of a data set that has them (task segmentation)."
        )
    return found


def _coco(study: Study, split: Split, task: Task, transforms: Transforms | None, seed: int) -> DenseSet | None:
    root, partial = source_root(study, f"coco_{split}"), study.paths.partial
    if task == "points":
        targets = study.layout.target("click", POINTED["coco"])
        return coco.points(root, targets, transforms, seed, partial) if split == "train" else None
    make = coco.detection if task == "detection" else coco.segmentation
    return make(root, split, transforms, seed, partial)


def _voc(study: Study, split: Split, task: Task, transforms: Transforms | None, seed: int) -> DenseSet | None:
    root = own_copy(study, VOC) or study.layout.raw_folder(VOC)
    if task == "points":
        return None
    make = voc.detection if task == "detection" else voc.segmentation
    return make(root, split, transforms, seed, study.paths.partial)


def _imagenet(study: Study, split: Split, task: Task, transforms: Transforms | None, seed: int) -> DenseSet | None:
    if task != "points" or split != "train":
        return None
    manifest, targets = study.layout.manifest("imagenet_train"), study.layout.target("click")
    return imagenet.points(source_root(study, "imagenet_train"), manifest, targets, transforms, seed)


_OPENERS: dict[DenseData, Callable[[Study, Split, Task, Transforms | None, int], DenseSet | None]] = {
    "coco": _coco,
    "voc": _voc,
    "imagenet_points": _imagenet,
}
"""Functions that open a data set; they return None if it has no such images."""
