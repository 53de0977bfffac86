"""Where the images of each manifest lie: the user's own copy, or the unpacked download."""

from pathlib import Path

from luab.errors import DataError
from luab.study.config import Study

FROM_IMAGENET = ("imagenet_train", "imagenet_val", "imagenet_real", "wsol_test")
"""Manifests over the user's licensed ImageNet."""


FROM_COCO = ("coco_train", "coco_val")
"""Manifests over the one tree that COCO 2014's archives unpack to."""


def tree_of(manifest: str) -> str:
    """The unpacked data set, below data/raw, that a manifest lists."""
    return "coco" if manifest in FROM_COCO else manifest


def source_root(study: Study, manifest: str) -> Path:
    """The tree that a manifest's paths start from.

    Raises:
        DataError: It is ImageNet, and `paths.imagenet` is not set.
    """
    if manifest in study.paths.copies:
        return study.paths.copies[manifest]
    if manifest not in FROM_IMAGENET:
        return study.layout.raw_folder(tree_of(manifest))
    if study.paths.imagenet is None:
        raise DataError(
            "paths.imagenet is not set. ImageNet-1k (ILSVRC2012) needs a licence and is never downloaded "
            "by luab: register at image-net.org, unpack ILSVRC2012_img_train.tar so that "
            "<folder>/train/<wnid>/*.JPEG holds 1,281,167 images, sort ILSVRC2012_img_val.tar into "
            "<folder>/val/<wnid>/*.JPEG (or leave it flat and put the devkit beside it), and set "
            "paths.imagenet: <folder> in config/config.yaml."
        )
    return study.paths.imagenet
