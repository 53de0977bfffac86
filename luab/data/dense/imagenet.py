"""ImageNet training images with the click of ImageNet-AB as a point on an object, for segmentation by points."""

from pathlib import Path

import numpy as np

from luab.data.dense.dense_set import Images, Pointed, PointSet, Transforms
from luab.data.images.image_files import check_images
from luab.data.manifests.labels import class_names
from luab.data.manifests.manifest import read_manifest
from luab.data.supervisions.point_files import read_image_points
from luab.errors import DataError

CLASSES = class_names()
"""The 1,000 classes; the label of a class is its ImageNet index plus 1."""


def points(root: Path, manifest: Path, targets: Path, transforms: Transforms | None = None, seed: int = 0) -> PointSet:
    """Reads the training images that have a point; its class is that of the image.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/imagenet_train.parquet.
        targets: data/targets/imagenet/<supervision>.parquet, which `luab targets` makes from the index of ImageNet-AB.
        transforms, seed: As for `luab.data.dense.dense_sets.dense_set`.

    Raises:
        DataError: The manifest or the file of points is missing or damaged, images are missing, or none has a point.
    """
    rows = read_manifest(manifest)
    image_ids, xy = read_image_points(targets)
    place = {image_id: row for row, image_id in enumerate(image_ids)}
    rows = rows[rows["image_id"].isin(place)]
    if rows.empty:
        raise DataError(f"{targets}: expected points of images in {manifest}, found none. Run `luab targets` again.")
    check_images(root, rows["path"].to_numpy())
    pointed = []
    for image_id, labels in zip(rows["image_id"], rows["labels"], strict=True):
        label = np.asarray(labels, dtype=np.int64) + 1
        pointed.append(Pointed(label, xy[place[image_id]][None].astype(np.float64), label))
    return PointSet(Images(root, rows["image_id"].tolist(), rows["path"].tolist()), pointed, transforms, seed)
