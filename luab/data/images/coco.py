"""COCO training images with a point for each class that an annotator tagged, and the rule for what a crop shows."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision.transforms import ColorJitter

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.images.crops import Crop, CropFlip, colour_augmentation, to_uint8
from luab.data.images.imagenet import open_image, own_randomness
from luab.data.manifests.manifest import read_manifest
from luab.data.supervisions.coco import ClassPoints, read_coco_targets
from luab.study.config import Recipe

CocoSample = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
_NONE = ClassPoints(np.empty(0, np.int16), np.empty((0, 2)))


class CropTargets(NamedTuple):
    """What a crop shows of the 80 classes.

    labels: float32 [80], 1 for classes that count as present. points: float32 [80, 2] fractions of the crop, x right,
    y down; (-1, -1) where there is none. weights: float32 [80], 1 where there is a point.
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
) -> CropTargets:
    """The official loader's rule for one crop.

    A class of the image that was tagged is positive only if its point lies in the crop, borders included; one that was
    not tagged is positive always; a tag of a class that the image does not have is ignored. Points are cut to whole
    pixels of the image first.
    DEVIATES: crops are the drawn ones, in whole pixels; the official loader divides them by the image's size and
    multiplies again, by which rounding shifts the border by a pixel now and then.
    DEVIATES: with the option `keep_labels`, off by default, a class whose point was cut away stays positive.

    Args:
        classes: [n] indices of the classes that the image has by its annotations.
        tags: The points that decide the labels, fractions of the whole image.
        size_wh: The whole image in pixels.
        crop: top, left, height, width in pixels of the whole image.
        flip: Whether the crop is mirrored left to right.
        keep_labels: Whether classes whose points were cut away stay positive.
        points: The points that are taught, where they are not those that decide the labels.

    Source:
        naver-ai/NeglectedFreeLunch:coco_dataloader.ipynb
    """
    tagged, _, inside = _in_crop(tags, classes, size_wh, crop)
    labels = np.zeros(len(COCO_CLASSES), dtype=np.float32)
    labels[classes] = 1
    if not keep_labels:
        labels[tagged[~inside]] = 0
    taught, xy, inside = _in_crop(tags if points is None else points, classes, size_wh, crop)
    if flip:
        xy[:, 0] = 1 - xy[:, 0]
    targets = np.full((len(COCO_CLASSES), 2), -1, dtype=np.float32)
    weights = np.zeros(len(COCO_CLASSES), dtype=np.float32)
    targets[taught[inside]] = xy[inside]
    weights[taught[inside]] = 1
    return CropTargets(labels, targets, weights)


def _in_crop(
    points: ClassPoints, classes: NDArray[np.integer], size_wh: tuple[int, int], crop: Crop
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.bool_]]:
    """Of the image's own classes that have a point: class, place in the crop's frame, whether it lies in the crop."""
    top, left, height, width = crop
    known = np.isin(points.labels, classes)
    pixels = np.floor(points.xy[known] * size_wh)
    xy = (pixels - (left, top)) / (width, height)
    return points.labels[known], xy, np.asarray(((xy >= 0) & (xy <= 1)).all(axis=1))


class CocoAB(Dataset[CocoSample]):
    """COCO 2014 training images with the points of one supervision.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/coco_train.parquet, or its rows.
        targets: data/targets/coco/<supervision>.parquet, the points that are taught; None for none.
        recipe: Crop, interpolation and colour augmentation; None for the official loader's.
        seed: Augmentation of image i in epoch e depends on (seed, e, i) alone.
        keep_labels: See `crop_targets`.
        labelling: The targets whose points decide which labels a crop keeps; by default those that are taught, as in
            the official loader, where these are the clicks. Without any, every label stays as annotated.

    An item is (uint8 [3, side, side], labels float32 [80], points float32 [80, 2] in crop fractions x, y, weights
    float32 [80]) by `crop_targets`. Images without points keep the labels of their annotations.

    Raises:
        DataError: An image is missing or damaged; it is named with its row in the manifest.
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
        rows = manifest if isinstance(manifest, pd.DataFrame) else read_manifest(Path(manifest))
        points = {} if targets is None else read_coco_targets(Path(targets))
        tags = points if labelling is None or labelling == targets else read_coco_targets(Path(labelling))
        self.root = Path(root)
        self.paths = rows["path"].to_numpy()
        self.labels = [np.asarray(labels, dtype=np.int16) for labels in rows["labels"]]
        self.taught = [points.get(image_id, _NONE) for image_id in rows["image_id"]]
        self.tags = [tags.get(image_id, _NONE) for image_id in rows["image_id"]]
        self.seed = seed
        self.epoch = 0
        self.keep_labels = keep_labels
        if recipe is None:
            self.crop = CropFlip(interpolation="bilinear")
            self.colour = ColorJitter(0.4, 0.4, 0.4)
        else:
            self.crop = CropFlip(recipe.input_px, recipe.crop_scale, recipe.interpolation)
            self.colour = colour_augmentation(recipe.input_px, recipe.auto_augment, recipe.color_jitter)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def taught_points(self) -> int:
        """Points that are taught, over all images and classes."""
        return sum(len(points.labels) for points in self.taught)

    def __getitem__(self, i: int) -> CocoSample:
        image = open_image(self.root / self.paths[i], f"row {i} of the training manifest")
        with own_randomness(self.seed, self.epoch, i, self.colour is not None):
            crop, flip, _ = self.crop.draw(image.size, None)
            tags, taught = self.tags[i], self.taught[i]
            seen = crop_targets(self.labels[i], tags, image.size, crop, flip, self.keep_labels, taught)
            view = self.crop.cut(image, crop, flip)
            if self.colour is not None:
                view = self.colour(view)
        return to_uint8(view), *(torch.from_numpy(part) for part in seen)  # type: ignore[return-value]
