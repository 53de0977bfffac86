"""A dataset's folder as the readers of layouts walk it, and what to say when it is not as expected."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from luab.data.manifests.labels import look_up
from luab.errors import DataError

TREES = {
    "imagenet_train": "train/<wnid>/<wnid>_<n>.JPEG",
    "imagenet_val": "val/<wnid>/ILSVRC2012_val_<8 digits>.JPEG, or val/*.JPEG beside ILSVRC2012_devkit_t12/",
    "imagenet_real": "real.json",
    "imagenet_v2": "imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg",
    "imagenet_a": "imagenet-a/<wnid>/*.jpg",
    "imagenet_o": "imagenet-o/<wnid>/*.JPEG",
    "imagenet_r": "imagenet-r/<wnid>/*.jpg",
    "imagenet_sketch": "sketch/<wnid>/*.JPEG",
    "imagenet_c": "<corruption>/<1..5>/<wnid>/*.JPEG",
    "imagenet_c_extra": "<extra corruption>/<1..5>/<wnid>/*.JPEG",
    "objectnet": "objectnet-1.0/images/<object>/*.png",
    "siscore_size": "area/<class>/<image id>.jpg and metadata.csv",
    "siscore_location": "location20_area02_min0pc/<class>/<image id>.jpg and metadata.csv",
    "siscore_rotation": "rotation/<class>/<image id>.jpg and metadata.csv",
    "in9": "bg_challenge/<variant>/val/<00_dog..08_fish>/*.JPEG and bg_challenge/fg_mask/val/<class>/*.npy",
    "wsol_val": "imagenetv2-threshold0.7-format-val/<0..999>/*.jpeg",
    "wsol_test": "val/<wnid>/ILSVRC2012_val_<8 digits>.JPEG, or val/*.JPEG",
    "coco_train": "train2014/COCO_train2014_<12 digits>.jpg and annotations/instances_train2014.json",
    "coco_val": "val2014/COCO_val2014_<12 digits>.jpg and annotations/instances_val2014.json",
}
"""What a dataset's folder looks like, for messages. Folders above the first may be up to three levels deep."""

LICENSED = ("imagenet_train", "imagenet_val", "wsol_test")
"""Datasets over the user's own copy of ImageNet."""

IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
_DEPTH = 3


class Entry(NamedTuple):
    """One row of a manifest."""

    image_id: str
    path: str
    labels: tuple[int, ...]
    group: str = ""
    width: int | None = None
    height: int | None = None
    boxes: tuple[tuple[int, ...], ...] = ()
    box_labels: tuple[int, ...] = ()
    box_crowd: tuple[bool, ...] = ()
    box_areas: tuple[float, ...] = ()


@dataclass
class Tree:
    """A dataset's folder and side files, as a reader sees them; places inside it are relative, with "/".

    Attributes:
        dataset: Name of the manifest.
        root: Folder that paths start from.
        partial: Whether classes, groups and listed images may be missing.
        val: Manifest of imagenet_val (imagenet_real).
        real: real.json, or a folder that holds it; None means below the root (imagenet_real).
        lists: Folder of the localisation lists (wsol_*).
        metadata: SI-Score's metadata.csv; None means below the root.
        ignored: What was passed over, counted by kind.
    """

    dataset: str
    root: Path
    partial: bool = False
    val: Path | None = None
    real: Path | None = None
    lists: Path | None = None
    metadata: Path | None = None
    ignored: Counter[str] = field(default_factory=Counter)

    def folders(self, at: str) -> list[str]:
        """Names of the folders in `at`, sorted as text; hidden ones left out."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir()]
        return sorted(names)

    def images(self, at: str) -> list[tuple[str, str]]:
        """(stem, path) of the images in `at`, by suffix alone; no file is opened or looked up."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries]
        found = []
        for name in names:
            suffix = IMAGE_SUFFIX.search(name)
            if suffix and not _hidden(name):
                found.append((name[: suffix.start()], join(at, name)))
            elif _hidden(name) or "." in name:
                self.ignored["hidden files" if _hidden(name) else "other files"] += 1
        return found

    def parent_of(self, wanted: Callable[[str], bool]) -> str:
        """The first folder, breadth first and at most three levels down, that holds a wanted folder.

        Raises:
            DataError: There is none; the message shows the expected tree.
        """
        level = [""]
        for _ in range(_DEPTH + 1):
            inside = {at: self.folders(at) for at in level}
            for at, names in inside.items():
                if any(map(wanted, names)):
                    return at
            level = [join(at, name) for at, names in inside.items() for name in names]
        raise self.nothing()

    def all_named(self, wanted: Collection[str]) -> list[str]:
        """Every folder with a wanted name whose parent is at most three levels down; not looked into."""
        found, level = [], [""]
        for _ in range(_DEPTH + 1):
            inside = [(at, name) for at in level for name in self.folders(at)]
            found += [join(at, name) for at, name in inside if name in wanted]
            level = [join(at, name) for at, name in inside if name not in wanted]
        return found

    def nothing(self) -> DataError:
        """The error for a tree without a single image where they should be."""
        key = "imagenet" if self.dataset in LICENSED else None
        return DataError(
            f"{self.root}: expected {TREES[self.dataset]}, found no such images (folders are looked for three levels "
            f"deep; .jpg, .jpeg and .png count). Fetch {self.dataset} again, or point "
            f"`paths.{key or 'copies.' + self.dataset}` to the folder that holds this tree."
        )

    def complete(self, found: Iterable[str], expected: Iterable[str], what: str) -> None:
        """Refuses a tree that lacks some of what it should hold, unless it may be partial.

        Raises:
            DataError: Names what is missing.
        """
        missing = sorted(set(expected) - set(found))
        if missing and not self.partial:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise DataError(
                f"{self.root}: expected {TREES[self.dataset]}, found no images for {len(missing)} of the {what}: "
                f"{shown}. Unpack them again, or set `paths.partial: true` if the tree is meant to hold only some."
            )


def by_class(
    tree: Tree,
    at: str,
    classes: Mapping[str, tuple[int, ...]],
    group: str = "",
    bare: bool = False,
    others: bool = False,
) -> Iterator[Entry]:
    """Entries of a folder of class folders; refuses unknown ones unless `others` lets them pass unread."""
    filled = set()
    for name in tree.folders(at):
        if others and name not in classes:
            continue
        labels = look_up(name, classes, f"a class folder of {tree.dataset}", str(tree.root / at / name))
        for stem, path in tree.images(join(at, name)):
            filled.add(name)
            yield Entry(stem if bare else join(group, f"{name}/{stem}"), path, labels, group)
    tree.complete(filled, classes, f"{len(classes)} class folders in {at or 'it'}")


def no_imagenet(tree: Tree) -> DataError:
    """What to do when the licensed images are not where they should be."""
    return DataError(
        f"{tree.root}: expected your copy of ImageNet (ILSVRC2012): {TREES[tree.dataset]}; it was not found there. "
        "ImageNet comes under its own licence, so luab never downloads it: register at "
        "https://image-net.org/download, accept the terms, and download ILSVRC2012_img_train.tar, "
        "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz. Unpack the training images to train/<wnid>/*.JPEG "
        "and the validation images to val/<wnid>/*.JPEG, or to val/*.JPEG with the devkit unpacked beside as "
        "ILSVRC2012_devkit_t12/data/ (meta.mat and ILSVRC2012_validation_ground_truth.txt). Then set the config key "
        "`paths.imagenet` to the folder that holds train/ and val/."
    )


def join(at: str, name: str) -> str:
    """`name` inside the folder `at`, which is "" for the root."""
    return f"{at}/{name}" if at else name


def _hidden(name: str) -> bool:
    # Archives packed on macOS carry "._name" files and a __MACOSX folder.
    return name.startswith(".") or name == "__MACOSX"
