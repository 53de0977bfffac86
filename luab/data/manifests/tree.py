"""A data set's folder: listing its folders and images, and the errors when it does not look as expected."""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import join
from typing import NamedTuple

from luab.data.manifests.known_counts import DATA_SETS
from luab.data.manifests.labels import look_up
from luab.errors import DataError
from luab.study.roots import FROM_IMAGENET, OWN

IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
ELSEWHERE = "images of the other manifest"
"""Images of this folder that another manifest lists, in `Tree.ignored`."""
_DEPTH = 3
_FOREIGN = re.compile(r"[.@#$]|(__MACOSX|lost\+found|System Volume Information)$")
"""Folders of archive tools, file systems, storage servers and editors, such as .snapshot, @eaDir and #recycle."""


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
            (wsol_val_image_ids.txt); required for wsol_*. For folder_*, the table of images and labels, if any.
        held_out: Share of each class that folder_val holds where nothing says which images it has; share of ImageNet's
            training images that imagenet_held_out holds, in place of imagenet_train.
        thorough: Whether each image is also examined for being an empty or unreadable file or a dangling link.
        ignored: Number of ignored files and folders by kind.
        counts: Number of images in each folder that holds some.
        broken: Images that cannot be read, each with the reason.
        unread: Reason by folder or link that was passed over because it cannot be read.
        names: Names of the user's own classes, in order; empty for data sets whose classes are known. Given for
            folder_tests, found for the others.
        tests: Folders of the user's own test sets, by name, for folder_tests.
    """

    dataset: str
    root: Path
    partial: bool = False
    val: Path | None = None
    real: Path | None = None
    lists: Path | None = None
    held_out: float = 0.0
    thorough: bool = True
    ignored: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    tests: Mapping[str, Path] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """What the folder should contain, for error messages."""
        return str(DATA_SETS[self.dataset]["tree"])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Context for listing the tree: turns a file or folder that cannot be read into a DataError that names it."""
        try:
            yield
        except OSError as error:
            where = Path(error.filename or self.root)
            raise DataError(
                f"{where}: expected a readable file or folder of {self.dataset}, found {_reason(error, where)}. Ask "
                "the owner for permission to read it (chmod -R u+rX for your own files), or copy the data again."
            ) from error

    def folders(self, at: str) -> list[str]:
        """Returns the names of the folders in `at`, sorted as text, without foreign ones and links that lead back."""
        with os.scandir(self.root / at) as entries:
            return sorted(entry.name for entry in entries if self._is_folder(entry, at))

    def _is_folder(self, entry: os.DirEntry[str], at: str) -> bool:
        if _FOREIGN.match(entry.name):
            return False
        try:
            if not entry.is_symlink():
                return entry.is_dir()
            link, target = os.path.abspath(entry.path), os.path.realpath(entry.path, strict=True)
        except OSError as error:  # a dangling link, a loop of links, or a target that may not be read
            if not IMAGE_SUFFIX.search(entry.name):
                self.unread[join(at, entry.name)] = f"a broken link: {error.strerror}"
            return False
        return os.path.isdir(target) and not join(os.path.realpath(os.path.dirname(link)), "").startswith(
            join(target, "")
        )

    def _folders_in_search(self, at: str) -> list[str]:
        """Like `folders`; below the root, passes over a folder that may not be read."""
        try:
            return self.folders(at)
        except PermissionError as error:
            if not at:
                raise
            self.unread[at] = _reason(error, self.root / at)
            return []

    def images(self, at: str) -> list[tuple[str, str]]:
        """Returns (stem, path) of the images in `at`, recognised by suffix; opens no file."""
        images = []
        with os.scandir(self.root / at) as entries:
            for entry in entries:
                name, suffix = entry.name, IMAGE_SUFFIX.search(entry.name)
                if suffix and not _hidden(name):
                    fault = _fault(entry) if self.thorough else ""
                    if fault or not (name.isascii() or _is_utf8(name)):
                        self.broken.append(f"{join(at, name)!a} ({fault or 'its name is not UTF-8'})")
                    else:
                        images.append((name[: suffix.start()], join(at, name)))
                elif _hidden(name) or "." in name:
                    self.ignored["hidden files" if _hidden(name) else "other files"] += 1
        if images:
            self.counts[at] = len(images)
        return images

    def parent_of(self, matches: Callable[[str], bool]) -> str:
        """Returns the first folder, breadth first and at most three levels down, with a matching subfolder."""
        level = [""]
        for _ in range(_DEPTH + 1):
            inside = {at: self._folders_in_search(at) for at in level}
            for at, names in inside.items():
                if any(map(matches, names)):
                    return at
            level = [join(at, name) for at, names in inside.items() for name in names]
        raise self.nothing()

    def all_named(self, names: Collection[str]) -> list[str]:
        """Returns all folders with one of these names, at most four levels down; does not search inside them."""
        folders, level = [], [""]
        for _ in range(_DEPTH + 1):
            inside = [(at, name) for at in level for name in self._folders_in_search(at)]
            folders += [join(at, name) for at, name in inside if name in names]
            level = [join(at, name) for at, name in inside if name not in names]
        return folders

    def may_not_read(self, at: str) -> bool:
        """Whether a folder may not be read; keeps the reason."""
        if readable := os.access(self.root / at, os.R_OK | os.X_OK):
            return not readable
        self.unread[at] = _reason(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), self.root / at)
        return True

    def require(self, name: str) -> None:
        """Raises DataError if the folder `name` does not exist."""
        try:
            if stat.S_ISDIR(os.stat(self.root / name).st_mode):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise self.nothing()

    def nothing(self) -> DataError:
        """Returns the error for a folder without images where they should be."""
        if self.dataset in FROM_IMAGENET:
            return DataError(
                f"{self.root}: expected your copy of ImageNet (ILSVRC2012): {self.expected}; found {self._content()}. "
                "ImageNet has its own licence, so luab never downloads it: register at "
                "https://image-net.org/download, accept the terms, and download ILSVRC2012_img_train.tar, "
                "ILSVRC2012_img_val.tar and "
                "ILSVRC2012_devkit_t12.tar.gz. Unpack the training images to train/<wnid>/*.JPEG and the validation "
                "images to val/<wnid>/*.JPEG; or to val/*.JPEG, with the devkit unpacked next to val/ as "
                "ILSVRC2012_devkit_t12/data/ (meta.mat and ILSVRC2012_validation_ground_truth.txt). Then set the "
                "config key `paths.imagenet` to the folder that holds train/ and val/."
            )
        if self.tests:
            return DataError(f"{self.root}: expected {self.expected}, found no folder. Correct `folder.tests`.")
        if self.dataset in OWN:
            return DataError(f"{self.root}: expected {self.expected}, found no folder. Correct `folder.images`.")
        return DataError(
            f"{self.root}: expected {self.expected}, found no such images but {self._content()} (folders are searched "
            f"three levels deep for .jpg, .jpeg and .png). Fetch {self.dataset} again, or set "
            f"`paths.copies.{self.dataset}` to the folder that holds them."
        )

    def _content(self) -> str:
        """What the root holds, and what in the tree could not be read."""
        try:
            names = sorted(os.listdir(self.root))
        except OSError as error:
            return error.strerror or str(error)
        shown = ", ".join(map(ascii, names[:5])) + (", ..." if len(names) > 5 else "")
        return (shown or "an empty folder") + self._passed_over()

    def _passed_over(self) -> str:
        shown = ", ".join(f"{at!a} ({reason})" for at, reason in list(self.unread.items())[:3])
        return f"; could not read {len(self.unread)}: {shown}" if shown else ""

    def complete(self, found: Iterable[str], expected: Iterable[str], what: str, at: str | None = None) -> None:
        """Raises DataError if something expected is missing in the folder `at`, unless the tree may be partial."""
        missing = sorted(set(expected) - set(found))
        if missing and not self.partial:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            tars = [f"{name}.tar" for name in missing if at is not None and (self.root / at / f"{name}.tar").exists()]
            packed = f"; {len(tars)} are still packed, first {tars[0]}" if tars else ""
            raise DataError(
                f"{self.root}: expected {self.expected}, found no images for {len(missing)} of the {what}: {shown}"
                f"{packed}{self._passed_over()}. Unpack them again, each into a folder of its name, or set "
                "`paths.partial: true` if the folder is meant to hold only some."
            )

    def check_listed(self, missing: list[str], n: int, source: str, advice: str) -> None:
        """Raises DataError unless all `n` images that `source` lists exist, or at least one in a partial tree."""
        if len(missing) == n or (missing and not self.partial):
            raise DataError(
                f"{self.root}: expected the {n} images that {source} lists, found {n - len(missing)}; missing: "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}{self._passed_over()}. {advice} if the "
                "folder is meant to hold only some."
            )
        self.ignored["listed images that are not there"] += len(missing)

    def check_readable(self) -> None:
        """Raises DataError if images were found that cannot be read."""
        if self.broken:
            shown = ", ".join(self.broken[:5]) + (", ..." if len(self.broken) > 5 else "")
            raise DataError(
                f"{self.root}: expected images that can be read, found {len(self.broken):,} that cannot: {shown}. Copy "
                "these files again, or correct their links, names or permissions."
            )

    def difference(self, n: int) -> str:
        """Returns how `n` images differ from the published number, with examples; "" if they agree."""
        known = DATA_SETS[self.dataset]["n"]
        if known is None or n == known:
            return ""
        where = sorted(self.counts, key=lambda at: (self.counts[at] * (1 if n < known else -1), at))
        names = [f"{at or '.'} ({self.counts[at]:,})" for at in where[:3]]
        text = f"folders with the {'fewest' if n < known else 'most'}: {', '.join(names)}"
        if self.dataset == "imagenet_val" and n < known:
            present = {IMAGE_SUFFIX.sub("", name) for at in where for name in os.listdir(self.root / at)}
            numbers = (f"ILSVRC2012_val_{number:08d}" for number in range(1, known + 1))
            text = "missing: " + ", ".join([name for name in numbers if name not in present][:3])
        text = f"; {text}" if where else ""
        return f"{self.root}: expected the {known:,} images of {self.dataset}, found {n:,}{text}{self._passed_over()}"


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
    if bare and (loose := tree.images(at)):
        raise DataError(
            f"{tree.root / at}: expected {tree.expected}, found {len(loose):,} images outside the class folders, first "
            f"{loose[0][0]}. Move each into the folder of its class, then try again."
        )
    for name in tree.folders(at):
        if name not in classes and (others or tree.may_not_read(join(at, name))):
            continue
        labels = look_up(name, classes, f"a class folder of {tree.dataset}", str(tree.root / at / name))
        for stem, path in tree.images(join(at, name)):
            filled.add(name)
            yield Entry(stem if bare else join(group, f"{name}/{stem}"), path, labels, group)
    tree.complete(filled, classes, f"{len(classes)} class folders in {at or 'it'}", at)


def _hidden(name: str) -> bool:
    # Archives packed on macOS contain "._name" files and a __MACOSX folder.
    return name.startswith(".") or name == "__MACOSX"


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _fault(entry: os.DirEntry[str]) -> str:
    """Why an image cannot be read; "" if it can, as far as can be told without opening it."""
    try:
        status = entry.stat()
    except OSError as error:
        return f"a broken link: {error.strerror}" if entry.is_symlink() else str(error.strerror)
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    if not status.st_size:
        return "empty"
    return "" if os.access(entry.path, os.R_OK) else _reason(PermissionError(), Path(entry.path))


def _reason(error: OSError, path: Path) -> str:
    """What is wrong with a file or folder; for a lack of permission, which folder stops us, its mode and its owner."""
    if not isinstance(error, PermissionError):
        return error.strerror or str(error)
    target = Path(os.path.realpath(path))
    stop = next((parent for parent in reversed(target.parents) if not os.access(parent, os.X_OK)), target)
    status = os.stat(stop)
    return f"no permission ({stat.filemode(status.st_mode)}, user {status.st_uid}: {stop})"
