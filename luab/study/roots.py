"""Folders that hold the images of each manifest: the user's own copy or the unpacked download."""

import os
from collections.abc import Iterable
from pathlib import Path

from luab.errors import DataError
from luab.study.config import OWN_TESTS, Study

HELD_OUT = "imagenet_held_out"
"""Manifest of the training images that no training sees (`held_out_byproducts`), and the test set of its images."""
FROM_IMAGENET = ("imagenet_train", HELD_OUT, "imagenet_val", "imagenet_real", "wsol_test")
"""Manifests of images in the user's licensed ImageNet."""
FROM_COCO = ("coco_train", "coco_val")
"""Manifests of images in the one tree that COCO 2014's archives unpack to."""

OWN = ("folder_train", "folder_val")
"""Manifests of the user's own images (`folder`)."""


def tree_of(manifest: str) -> str:
    """Name of the folder below data/raw that holds a manifest's images."""
    return "coco" if manifest in FROM_COCO else manifest


def own_copy(study: Study, manifest: str) -> Path | None:
    """The user's own folder of a manifest's images; None for downloaded images.

    That of `folder.tests` is the folder that holds them all.
    """
    if manifest in OWN:
        return study.folder.images if study.folder else None
    if manifest == OWN_TESTS:
        tests = study.folder.tests if study.folder else {}
        return common_folder(tests.values()) if tests else None
    manifest = "imagenet_train" if manifest == HELD_OUT else manifest  # these images are in the same folder
    return study.paths.copies.get(manifest, study.paths.imagenet if manifest in FROM_IMAGENET else None)


def common_folder(folders: Iterable[Path]) -> Path:
    """The innermost folder that holds all of these, of which there is at least one; an absolute path."""
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def source_root(study: Study, manifest: str) -> Path:
    """The folder that a manifest's paths are relative to.

    Raises:
        DataError: The manifest lists ImageNet images and `paths.imagenet` is not set.
    """
    if own := own_copy(study, manifest):
        return own
    if manifest in OWN:
        raise DataError("The configuration has no section `folder`. `luab init` writes one for your own images.")
    if manifest == OWN_TESTS:
        raise DataError("The configuration has no test sets of your own. Name their folders in `folder.tests`.")
    if manifest in FROM_IMAGENET:
        raise DataError(
            "paths.imagenet is not set. ImageNet-1k (ILSVRC2012) requires a licence, so luab does not "
            "download it: register at image-net.org, unpack ILSVRC2012_img_train.tar so that "
            "<folder>/train/<wnid>/*.JPEG holds 1,281,167 images, sort ILSVRC2012_img_val.tar into "
            "<folder>/val/<wnid>/*.JPEG (or leave it flat and put the devkit next to it), and set "
            "paths.imagenet: <folder> in config/config.yaml."
        )
    return study.layout.raw_folder(tree_of(manifest))
