"""COCO training images with a point for each class that an annotator tagged, and the targets of a crop."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torchvision.transforms import ColorJitter

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.images.augmentations import Changes, Moves
from luab.data.images.crops import Crop, CropFlip
from luab.data.images.training_images import TrainingImages, View, augmentation_of, manifest_rows
from luab.data.supervisions.point_files import ClassPoints, read_class_points
from luab.shapes import Batch
from luab.study.config import Recipe

_NO_POINTS = ClassPoints(np.empty(0, np.int16), np.empty((0, 2)))


class CropTargets(NamedTuple):
    """Labels and points of a crop, for each of the 80 classes.

    labels: float32 [80], 1 for positive classes. points: float32 [80, 2] fractions of the crop, x right, y down;
    (-1, -1) for classes without a point. weights: float32 [80], 1 for classes with a point.
    """

    labels: NDArray[np.float32]
    points: NDArray[np.float32]
    weights: NDArray[np.float32]


def crop_targets(
    classes: NDArray[np.integer],
    tags: ClassPoints,
    size_wh: tuple[int, int],
    crop: Crop,
    flip: bool,
    keep_labels: bool = False,
    points: ClassPoints | None = None,
    moves: Moves | None = None,
) -> CropTargets:
    """Returns the labels and points of a crop by the rule of the official loader.

    A tagged class of the image is positive only if its point lies in the crop, borders included. An untagged class is
    always positive. Tags of classes that the image does not have are ignored. Points are first rounded down to whole
    pixels of the image.
    DEVIATES: crops keep the whole pixels in which they were drawn; the official loader divides them by the size of the
    image and multiplies again, and this rounding occasionally shifts a border by one pixel.
    DEVIATES: with the option `keep_labels`, off by default, a class stays positive when its point is cut away.

    Args:
        classes: [n] indices of the classes that the image is annotated with.
        tags: Points that decide the labels, fractions of the whole image.
        size_wh, crop, flip: See `View`.
        keep_labels: Whether classes stay positive when their points are cut away.
        points: Points to regress; None if they are the tags.
        moves: What happened to the crop afterwards; None for nothing. ASSUME: a point that an augmentation moves out of
            the crop was cut away, and one that random erasing covers keeps its label but is absent.

    Source:
        naver-ai/NeglectedFreeLunch:coco_dataloader.ipynb
    """
    moves = moves or Moves(1)
    tagged, _, inside = _in_crop(tags, classes, size_wh, crop, flip, moves)
    labels = np.zeros(len(COCO_CLASSES), dtype=np.float32)
    labels[classes] = 1
    if not keep_labels:
        labels[tagged[~inside]] = 0
    regressed, xy, inside = _in_crop(tags if points is None else points, classes, size_wh, crop, flip, moves)
    inside &= ~moves.covered(xy)
    targets = np.full((len(COCO_CLASSES), 2), -1, dtype=np.float32)
    weights = np.zeros(len(COCO_CLASSES), dtype=np.float32)
    targets[regressed[inside]] = xy[inside]
    weights[regressed[inside]] = 1
    return CropTargets(labels, targets, weights)


def _in_crop(
    points: ClassPoints,
    classes: NDArray[np.integer],
    size_wh: tuple[int, int],
    crop: Crop,
    flip: bool,
    moves: Moves,
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.bool_]]:
    """For the image's classes that have a point: class, point in fractions of the crop, whether it is inside."""
    top, left, height, width = crop
    annotated = np.isin(points.labels, classes)
    pixels = np.floor(points.xy[annotated] * size_wh)
    xy = (pixels - (left, top)) / (width, height)
    inside = np.asarray(((xy >= 0) & (xy <= 1)).all(axis=1))
    if flip:
        xy[:, 0] = 1 - xy[:, 0]
    xy, stayed = moves.points(xy)
    return points.labels[annotated], xy, inside & stayed


class CocoAB(TrainingImages):
    """COCO 2014 training images with the points of one supervision.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/coco_train.parquet, or its rows.
        targets: data/targets/coco/<supervision>.parquet, the points to regress; None for no points.
        recipe: Crop, interpolation and augmentation; None for those of the official loader.
        seed: The augmentation of image i in epoch e depends on (seed, e, i) alone, once `epoch` is set; by default
            every read draws a fresh one, see `TrainingImages`.
        keep_labels: See `crop_targets`.
        labelling: Targets whose points decide which labels a crop keeps; None for those of `targets`, as in the
            official loader, where both are the clicks. If both are None, a crop keeps every label.

    An item is a dict that a loader collates to a batch: images, uint8 [3, side, side]; labels, float32 [80]; points,
    float32 [80, 2] in fractions x, y of the crop; weights, float32 [80]; see `crop_targets`. Images without points keep
    the labels of their annotations.

    Raises:
        DataError: An image is missing or damaged; the message names the file and its row in the manifest.
    """

    def __init__(
        self,
        root: Path | str,
        manifest: Path | str | pd.DataFrame,
        targets: Path | str | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        keep_labels: bool = False,
        labelling: Path | str | None = None,
    ) -> None:
        rows = manifest_rows(manifest)
        official = CropFlip(interpolation="bilinear"), Changes(ColorJitter(0.4, 0.4, 0.4))
        super().__init__(root, rows, augmentation_of(recipe, official), seed)
        points = {} if targets is None else read_class_points(Path(targets), len(COCO_CLASSES))
        tags = (
            points
            if labelling is None or labelling == targets
            else read_class_points(Path(labelling), len(COCO_CLASSES))
        )
        self.labels = [np.asarray(labels, dtype=np.int16) for labels in rows["labels"]]
        self.points = [points.get(image_id, _NO_POINTS) for image_id in rows["image_id"]]
        self.tags = [tags.get(image_id, _NO_POINTS) for image_id in rows["image_id"]]
        self.keep_labels = keep_labels

    @property
    def taught_points(self) -> int:
        """Number of points over all images and classes."""
        return sum(len(points.labels) for points in self.points)

    def targets(self, i: int, view: View) -> Batch:
        """Labels, points and weights of a view of image i, by class."""
        targets = crop_targets(
            self.labels[i],
            self.tags[i],
            view.size_wh,
            view.crop,
            view.flip,
            self.keep_labels,
            self.points[i],
            view.moves,
        )
        return {name: torch.from_numpy(part) for name, part in targets._asdict().items()}
