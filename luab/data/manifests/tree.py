"""A data set's folder: listing its folders and images, and the errors when it does not look as expected."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import join
from typing import NamedTuple

from luab.data.manifests.known_counts import DATA_SETS
from luab.data.manifests.labels import look_up
from luab.errors import DataError
from luab.study.roots import FROM_IMAGENET

IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
_DEPTH = 3


class Entry(NamedTuple):
    """One row of a manifest."""

    image_id: str
    path: str
    labels: Sequence[int]
    group: str = ""
    width: int | None = None
    height: int | None = None
    boxes: Sequence[Sequence[int]] = ()
    box_labels: Sequence[int] = ()
    box_crowd: Sequence[bool] = ()
    box_areas: Sequence[float] = ()


@dataclass
class Tree:
    """A data set's folder and side files; paths inside the folder are relative, with "/".

    Attributes:
        dataset: Name of the manifest.
        root: Folder that paths start from.
        partial: Whether classes, groups and listed images may be missing (`paths.partial`); unknown class folders are
            an error all the same.
        val: Manifest of imagenet_val; required for imagenet_real.
        real: real.json or its folder, for imagenet_real; None for `root`.
        lists: Folder of the localisation lists, by split (val/image_ids.txt) or with the split in the name
            (wsol_val_image_ids.txt); required for wsol_*.
        ignored: Number of ignored files and folders by kind.
    """

    dataset: str
    root: Path
    partial: bool = False
    val: Path | None = None
    real: Path | None = None
    lists: Path | None = None
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def expected(self) -> str:
        """What the folder should contain, for error messages."""
        return str(DATA_SETS[self.dataset]["tree"])

    def folders(self, at: str) -> list[str]:
        """Returns the names of the folders in `at`, sorted as text, without hidden ones."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir()]
        return sorted(names)

    def images(self, at: str) -> list[tuple[str, str]]:
        """Returns (stem, path) of the images in `at`, recognised by suffix; opens no file."""
        images = []
        for name in os.listdir(self.root / at):
            suffix = IMAGE_SUFFIX.search(name)
            if suffix and not _hidden(name):
                images.append((name[: suffix.start()], join(at, name)))
            elif _hidden(name) or "." in name:
                self.ignored["hidden files" if _hidden(name) else "other files"] += 1
        return images

    def parent_of(self, matches: Callable[[str], bool]) -> str:
        """Returns the first folder, breadth first and at most three levels down, with a matching subfolder."""
        level = [""]
        for _ in range(_DEPTH + 1):
            inside = {at: self.folders(at) for at in level}
            for at, names in inside.items():
                if any(map(matches, names)):
                    return at
            level = [join(at, name) for at, names in inside.items() for name in names]
        raise self.nothing()

    def all_named(self, names: Collection[str]) -> list[str]:
        """Returns all folders with one of these names, at most four levels down; does not search inside them."""
        folders, level = [], [""]
        for _ in range(_DEPTH + 1):
            inside = [(at, name) for at in level for name in self.folders(at)]
            folders += [join(at, name) for at, name in inside if name in names]
            level = [join(at, name) for at, name in inside if name not in names]
        return folders

    def require(self, name: str) -> None:
        """Raises DataError if the folder `name` does not exist."""
        if not (self.root / name).is_dir():
            raise self.nothing()

    def nothing(self) -> DataError:
        """Returns the error for a folder without images where they should be."""
        if self.dataset in FROM_IMAGENET:
            return DataError(
                f"{self.root}: expected your copy of ImageNet (ILSVRC2012): {self.expected}; found none. ImageNet has "
                "its own licence, so luab never downloads it: register at https://image-net.org/download, accept the "
                "terms, and download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
                "ILSVRC2012_devkit_t12.tar.gz. Unpack the training images to train/<wnid>/*.JPEG and the validation "
                "images to val/<wnid>/*.JPEG; or to val/*.JPEG, with the devkit unpacked next to val/ as "
                "ILSVRC2012_devkit_t12/data/ (meta.mat and ILSVRC2012_validation_ground_truth.txt). Then set the "
                "config key `paths.imagenet` to the folder that holds train/ and val/."
            )
        return DataError(
            f"{self.root}: expected {self.expected}, found no such images (folders are searched three levels deep for "
            f".jpg, .jpeg and .png). Fetch {self.dataset} again, or set `paths.copies.{self.dataset}` to the folder "
            "that holds them."
        )

    def complete(self, found: Iterable[str], expected: Iterable[str], what: str) -> None:
        """Raises DataError if something expected is missing, unless the tree may be partial."""
        missing = sorted(set(expected) - set(found))
        if missing and not self.partial:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise DataError(
                f"{self.root}: expected {self.expected}, found no images for {len(missing)} of the {what}: {shown}. "
                "Unpack them again, or set `paths.partial: true` if the folder is meant to hold only some."
            )

    def check_listed(self, missing: list[str], n: int, source: str, advice: str) -> None:
        """Raises DataError unless all `n` images that `source` lists exist, or at least one in a partial tree."""
        if len(missing) == n or (missing and not self.partial):
            raise DataError(
                f"{self.root}: expected the {n} images that {source} lists, found {n - len(missing)}; missing: "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. {advice} if the folder is meant to "
                "hold only some."
            )
        self.ignored["listed images that are not there"] += len(missing)


def by_class(
    tree: Tree,
    at: str,
    classes: Mapping[str, tuple[int, ...]],
    group: str = "",
    bare: bool = False,
    others: bool = False,
) -> Iterator[Entry]:
    """Yields the images of a folder of class folders.

    `classes` has the labels by name of class folder. image_id starts with the group; `bare` makes it the stem alone,
    without class folder. Other class folders are an error, unless `others` lets them be ignored.
    """
    filled = set()
    for name in tree.folders(at):
        if others and name not in classes:
            continue
        labels = look_up(name, classes, f"a class folder of {tree.dataset}", str(tree.root / at / name))
        for stem, path in tree.images(join(at, name)):
            filled.add(name)
            yield Entry(stem if bare else join(group, f"{name}/{stem}"), path, labels, group)
    tree.complete(filled, classes, f"{len(classes)} class folders in {at or 'it'}")


def _hidden(name: str) -> bool:
    # Archives packed on macOS contain "._name" files and a __MACOSX folder.
    return name.startswith(".") or name == "__MACOSX"
