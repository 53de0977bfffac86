"""The data sets of a study for dense tasks."""

from collections.abc import Callable
from typing import Literal

from luab.data.dense import coco, imagenet, voc
from luab.data.dense.dense_set import DenseSet, Transforms
from luab.errors import ConfigError
from luab.study.config import Study
from luab.study.roots import own_copy, source_root
from luab.study.transfers import POINTS, POINTS_OF, VOC, DenseData

Task = Literal["detection", "segmentation", "points"]
Split = Literal["train", "val"]
Opener = Callable[[Study, Split, Transforms | None, int], DenseSet]
"""Opens a data set of a study for one task."""

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
    opener = _OPENERS.get((data, task))
    if opener is None or (task == "points" and split != "train"):
        raise ConfigError(
            f"{data} has no {split} images for the task {task}. Points are for training on coco or imagenet_points; "
            "the result is scored on the masks of a data set that has them (task segmentation)."
        )
    return opener(study, split, transforms, seed)


def _of_coco(make: Callable[..., DenseSet]) -> Opener:
    def opened(study: Study, split: Split, transforms: Transforms | None, seed: int) -> DenseSet:
        return make(source_root(study, f"coco_{split}"), split, transforms, seed, study.paths.partial)

    return opened


def _of_voc(make: Callable[..., DenseSet]) -> Opener:
    def opened(study: Study, split: Split, transforms: Transforms | None, seed: int) -> DenseSet:
        root = own_copy(study, VOC) or study.layout.raw_folder(VOC)
        return make(root, split, transforms, seed, study.paths.partial)

    return opened


def _coco_points(study: Study, split: Split, transforms: Transforms | None, seed: int) -> DenseSet:
    targets = study.layout.target(POINTS, POINTS_OF["coco"])
    return coco.points(source_root(study, f"coco_{split}"), targets, transforms, seed, study.paths.partial)


def _imagenet_points(study: Study, split: Split, transforms: Transforms | None, seed: int) -> DenseSet:
    name = f"imagenet_{split}"
    manifest, targets = study.layout.manifest(name), study.layout.target(POINTS, POINTS_OF["imagenet_points"])
    return imagenet.points(source_root(study, name), manifest, targets, transforms, seed)


_OPENERS: dict[tuple[DenseData, Task], Opener] = {
    ("coco", "detection"): _of_coco(coco.detection),
    ("coco", "segmentation"): _of_coco(coco.segmentation),
    ("coco", "points"): _coco_points,
    ("voc", "detection"): _of_voc(voc.detection),
    ("voc", "segmentation"): _of_voc(voc.segmentation),
    ("imagenet_points", "points"): _imagenet_points,
}
