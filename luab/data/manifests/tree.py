"""A data set's folder: listing its folders and images, and the errors when it does not look as expected."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from luab.data.manifests.labels import look_up
from luab.errors import DataError
from luab.study.roots import FROM_IMAGENET

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
    """A data set's folder and side files; paths inside the folder are relative, with "/".

    Attributes:
        dataset: Name of the manifest.
        root: Folder that paths start from.
        expected: What the folder should contain, for error messages.
        partial: Whether classes, groups and listed images may be missing.
        val: Manifest of imagenet_val (for imagenet_real).
        real: real.json or its folder; None for `root` (for imagenet_real).
        lists: Folder of the localisation lists (for wsol_*).
        metadata: SI-Score's metadata.csv; None to look for it below `root`.
        ignored: Number of ignored files and folders by kind.
    """

    dataset: str
    root: Path
    expected: str
    partial: bool = False
    val: Path | None = None
    real: Path | None = None
    lists: Path | None = None
    metadata: Path | None = None
    ignored: Counter[str] = field(default_factory=Counter)

    def folders(self, at: str) -> list[str]:
        """Returns the names of the folders in `at`, sorted as text, without hidden ones."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir()]
        return sorted(names)

    def images(self, at: str) -> list[tuple[str, str]]:
        """Returns (stem, path) of the images in `at`, recognised by suffix; opens no file."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries]
        images = []
        for name in names:
            suffix = IMAGE_SUFFIX.search(name)
            if suffix and not _hidden(name):
                images.append((name[: suffix.start()], join(at, name)))
            elif _hidden(name) or "." in name:
                self.ignored["hidden files" if _hidden(name) else "other files"] += 1
        return images

    def parent_of(self, matches: Callable[[str], bool]) -> str:
        """Returns the first folder, breadth first and at most three levels down, with a subfolder whose name matches.

        Raises:
            DataError: No folder has one; the message shows the expected tree.
        """
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
        """Checks that the tree holds everything expected, unless it may be partial.

        Raises:
            DataError: Something is missing; the message names it.
        """
        missing = sorted(set(expected) - set(found))
        if missing and not self.partial:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise DataError(
                f"{self.root}: expected {self.expected}, found no images for {len(missing)} of the {what}: {shown}. "
                "Unpack them again, or set `paths.partial: true` if the folder is meant to hold only some."
            )

    def check_listed(self, missing: list[str], n: int, source: str, advice: str) -> None:
        """Checks that the `n` images that `source` lists exist: all of them, or at least one in a partial tree.

        Raises:
            DataError: Images are missing; the message names the first three and ends with the advice.
        """
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

    Args:
        tree: The data set.
        at: Folder of the class folders.
        classes: Labels by name of class folder.
        group: Group of the images; image_id starts with it.
        bare: Whether image_id is the stem alone, without class folder.
        others: Whether other class folders are ignored; otherwise they are an error.
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


def join(at: str, name: str) -> str:
    """Returns the path of `name` inside the folder `at`, which is "" for the root."""
    return f"{at}/{name}" if at else name


def _hidden(name: str) -> bool:
    # Archives packed on macOS contain "._name" files and a __MACOSX folder.
    return name.startswith(".") or name == "__MACOSX"
