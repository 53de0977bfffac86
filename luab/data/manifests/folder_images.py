"""Your own images: in folders by class, or listed in a table; split into training and held-out images.

    train/red fox/001.jpg        red fox/001.jpg         image,label,split
    val/red fox/314.jpg          badger/001.jpg          all/001.jpg,red fox,train

Without a split (the folder or the column), a share of each class is held out by a hash of the file's name, so that more
images do not move the others. Classes are numbered in the order of their names as text.
"""

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import join
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from luab.data.manifests.tree import IMAGE_SUFFIX, Entry, Tree
from luab.errors import DataError, did_you_mean, listed
from luab.files import file_sha256, read_number, read_rows

SPLITS = ("train", "val")
COLUMNS, OPTIONAL = ("image", "label"), ("split", "x0", "y0", "x1", "y1")
_MOST_CLASSES = 2**15  # labels are 16-bit numbers
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


class OwnImage(NamedTuple):
    """One of the user's images: path below the folder, class, split ("" if not given), boxes in pixels."""

    path: str
    label: str
    split: str
    boxes: tuple[tuple[int, int, int, int], ...] = ()


def folder_entries(tree: Tree) -> Iterator[Entry]:
    """Entries of the split that the manifest's name ends in; `tree.names` becomes the names of all classes.

    Raises:
        DataError: The folder or table has mistakes; all are listed.
    """
    images = own_images(tree)
    mistakes = [*_mistakes_of_classes(images), *_copies(tree.root, images)]
    split = tree.dataset.rpartition("_")[2]
    names = sorted({image.label for image in images})
    held_out = _held_out(images, tree.held_out)
    rows = [image for image in images if (image.split or ("val" if image.path in held_out else "train")) == split]
    sizes = {image.path: size for image in rows if (size := image_size(tree.root, image.path, mistakes))}
    mistakes += _wrong_boxes(rows, sizes)
    if mistakes:
        raise DataError(f"{tree.root}: {len(mistakes):,} mistakes:\n{listed(mistakes)}")
    tree.names = names
    number = {name: place for place, name in enumerate(names)}
    for image in rows:
        width, height = sizes[image.path]
        yield Entry(image_id(image.path), image.path, (number[image.label],), image.label, width, height, image.boxes)


def own_test_entries(tree: Tree) -> Iterator[Entry]:
    """Entries of the user's own test sets, `tree.tests`, with the classes `tree.names`; groups are the test sets.

    A test set is a folder with <class>/*.jpg for some or all of the classes. image_id starts with its name.

    Raises:
        DataError: A folder is missing, empty or has other classes, or an image cannot be read; all are listed.
    """
    number = {name: place for place, name in enumerate(tree.names)}
    mistakes: list[str] = []
    for test, folder in tree.tests.items():
        at = os.path.relpath(folder, tree.root).replace(os.sep, "/")
        at = "" if at == "." else at
        if not folder.is_dir():
            mistakes.append(f"{test}: {folder}: expected a folder with <class>/*.jpg, found none")
            continue
        if loose := tree.images(at):
            mistakes.append(f"{test}: {folder}: found {len(loose):,} images outside the class folders, {loose[0][1]}")
        found = 0
        for name in tree.folders(at):
            label = unicodedata.normalize("NFC", name)
            if label not in number:
                mistakes.append(
                    f"{test}: {folder / name} is no class of the training images. {did_you_mean(label, number)}"
                )
                continue
            for _, path in [image for below_it in _all_below(tree, join(at, name)) for image in tree.images(below_it)]:
                found += 1
                if size := image_size(tree.root, path, mistakes):
                    name_in_test = image_id(path.removeprefix(join(at, "")))
                    yield Entry(f"{test}/{name_in_test}", path, (number[label],), test, *size)
        if not found:
            mistakes.append(f"{test}: {folder}: expected images of the classes of the training images, found none")
    if mistakes:
        raise DataError(f"folder.tests: {len(mistakes):,} mistakes:\n{listed(mistakes)}")


def image_id(path: str) -> str:
    """Path below the folder, without suffix."""
    return IMAGE_SUFFIX.sub("", path)


def own_images(tree: Tree) -> list[OwnImage]:
    """All images with their classes, of every split, sorted by path.

    Raises:
        DataError: There is no image; or the table lists images that do not exist, or an image twice.
    """
    tree.require("")
    images = _from_table(tree, tree.lists) if tree.lists else list(_from_folders(tree))
    tree.check_readable()
    if not images:
        raise DataError(
            f"{tree.root}: expected images (.jpg, .jpeg or .png) in one folder per class, or in train/<class>/ and "
            "val/<class>/, found none. Correct `folder.images`, or list the images in a table (`folder.labels`)."
        )
    return sorted(images)


def _from_folders(tree: Tree) -> Iterator[OwnImage]:
    for split in SPLITS if set(SPLITS) <= set(tree.folders("")) else ("",):
        if loose := tree.images(split):
            raise DataError(
                f"{tree.root / split}: expected one folder per class, found {len(loose):,} images outside of them, "
                f"first {loose[0][0]}. Move each into the folder of its class, or list the images in a table "
                "(`folder.labels`)."
            )
        for name in tree.folders(split):
            for folder in _all_below(tree, join(split, name)):
                for _, path in tree.images(folder):
                    yield OwnImage(path, unicodedata.normalize("NFC", name), split)


def _all_below(tree: Tree, at: str) -> Iterator[str]:
    yield at
    for name in tree.folders(at):
        yield from _all_below(tree, join(at, name))


def _from_table(tree: Tree, table: Path) -> list[OwnImage]:
    rows = read_rows(table, COLUMNS, optional=OPTIONAL)
    mistakes: list[str] = []
    images: dict[str, OwnImage] = {}
    for place, row in rows:
        path = below(row["image"], tree.root, table.parent)
        if path is None or not (tree.root / path).is_file():
            mistakes.append(f"{place}: there is no image {row['image']!r} below {tree.root}")
            continue
        if not IMAGE_SUFFIX.search(path):
            mistakes.append(f"{place}: {path} is not .jpg, .jpeg or .png")
        label, split = unicodedata.normalize("NFC", row["label"]), row.get("split", "")
        split = {"val": "val", "test": "val", "valid": "val", "validation": "val"}.get(split, split)
        if not label:
            mistakes.append(f"{place}: the label is empty")
        if split not in ("", *SPLITS):
            mistakes.append(f"{place}: expected train or val as the split, found {split!r}")
        image = OwnImage(path, label, split, _box(place, row, mistakes))
        earlier = images.setdefault(path, image)
        if earlier is not image:
            if (earlier.label, earlier.split) != (label, split):
                mistakes.append(f"{place}: {path} is in two classes or splits, {earlier.label!r} and {label!r}")
            elif not image.boxes:
                mistakes.append(f"{place}: {path} is listed twice")
            images[path] = earlier._replace(boxes=(*earlier.boxes, *image.boxes))
    if mistakes:
        raise DataError(f"{table}: {len(mistakes):,} mistakes:\n{listed(mistakes)}")
    return list(images.values())


def _box(place: str, row: Mapping[str, str], mistakes: list[str]) -> tuple[tuple[int, int, int, int], ...]:
    corners = [row.get(name, "") for name in ("x0", "y0", "x1", "y1")]
    if not any(corners):
        return ()
    try:
        x0, y0, x1, y1 = (round(read_number(corner, place)) for corner in corners)
    except DataError as error:
        mistakes.append(str(error))
        return ()
    return ((x0, y0, x1, y1),)


def below(name: str, root: Path, start: Path | None = None) -> str | None:
    """The path below `root`, with "/", that a table means by a relative or absolute path; None if it leads out.

    A relative path is below `root`, or else below `start`, the folder of the table.
    """
    text = name.strip().replace("\\", "/")
    folders = [root.resolve()] + ([start.resolve()] if start else [])
    for folder in folders:
        full = Path(os.path.normpath(folder / text))
        if full.is_relative_to(folders[0]) and (full.is_file() or folder == folders[-1]):
            return full.relative_to(folders[0]).as_posix()
    return None


def _held_out(images: Iterable[OwnImage], share: float) -> set[str]:
    """Paths of the images that are held out, of those without a split: a share of each class, at least one of two."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if not image.split:
            by_class[image.label].append(image.path)
    chosen: set[str] = set()
    for paths in by_class.values():
        count = min(max(1, round(share * len(paths))), len(paths) - 1) if share else 0
        chosen |= set(sorted(paths, key=lambda path: hashlib.blake2b(path.encode()).digest())[:count])
    return chosen


def _mistakes_of_classes(images: list[OwnImage]) -> Iterator[str]:
    by_class: dict[str, list[OwnImage]] = defaultdict(list)
    for image in images:
        by_class[image.label].append(image)
    if len(by_class) < 2:
        yield f"expected two or more classes, found {len(by_class)}: {', '.join(map(repr, by_class))}"
    if len(by_class) > _MOST_CLASSES:
        yield f"expected at most {_MOST_CLASSES:,} classes, found {len(by_class):,}"
    same: dict[str, list[str]] = defaultdict(list)
    for name, members in by_class.items():
        same[name.casefold()].append(name)
        if len(members) < 2:
            yield f"the class {name!r} has one image; two or more are required, to train and to evaluate"
        for split in SPLITS:
            if all(image.split for image in members) and not any(image.split == split for image in members):
                yield f"the class {name!r} has no image in {split}"
    for names in same.values():
        if len(names) > 1:
            yield f"the classes {' and '.join(map(repr, sorted(names)))} differ in case only; rename one of them"
    ids: dict[str, list[str]] = defaultdict(list)
    for image in images:
        ids[image_id(image.path)].append(image.path)
    for paths in ids.values():
        if len(paths) > 1:
            yield f"{' and '.join(paths)} have the same name up to the suffix; rename one of them"


def _copies(root: Path, images: list[OwnImage]) -> Iterator[str]:
    """Files of equal content in two classes, or in both splits, which would be seen in training and in evaluation."""
    by_size: dict[int, list[OwnImage]] = defaultdict(list)
    for image in images:
        by_size[os.stat(root / image.path).st_size].append(image)
    by_content: dict[str, list[OwnImage]] = defaultdict(list)
    for several in by_size.values():
        for image in several if len(several) > 1 else []:
            by_content[file_sha256(root / image.path)].append(image)
    for several in by_content.values():
        first = several[0]
        for other in several[1:]:
            if other.label != first.label:
                yield f"{first.path} and {other.path} are the same image in two classes; remove one of them"
            elif other.split != first.split:
                yield f"{first.path} and {other.path} are the same image, in train and in val; remove one of them"


def image_size(root: Path, path: str, mistakes: list[str]) -> tuple[int, int] | None:
    """Width and height in pixels as stored; None, and a further mistake, if the image is unreadable or to be turned."""
    try:
        with Image.open(root / path) as image:
            if image.getexif().get(_ORIENTATION, 1) != 1:
                mistakes.append(
                    f"{path}: its EXIF data says that it is to be turned. Browsers turn it and loaders of training "
                    "images do not, so points would be wrong. Turn the file itself (`mogrify -auto-orient`)"
                )
                return None
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        mistakes.append(f"{path}: not an image that can be read ({error})")
        return None


def _wrong_boxes(images: Iterable[OwnImage], sizes: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for image in images:
        width, height = sizes.get(image.path, (0, 0))
        for x0, y0, x1, y1 in image.boxes if width else ():
            if not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
                yield (
                    f"{image.path}: the box {x0}, {y0}, {x1}, {y1} is not inside the image of {width} x {height} "
                    "pixels; expected x0, y0, x1, y1 in pixels, the last ones included"
                )


class Names:
    """Finds the image that a name in a table of byproducts means.

    A name is the path below the folder, with or without `train/` or `val/`, the suffix and the folders, as long as one
    image fits.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root = root
        self._ids: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            for key in _keys(path):
                self._ids[key].add(image_id(path))

    def find(self, name: str) -> str:
        """The image_id.

        Raises:
            DataError: No image has this name, or several have.
        """
        text = name.strip().replace("\\", "/")
        if text.startswith("/"):
            text = below(text, self.root) or text
        text = PurePosixPath(unicodedata.normalize("NFC", text)).as_posix()
        ids = self._ids.get(text, set())
        if len(ids) > 1:
            raise DataError(f"{name!r} fits {' and '.join(sorted(ids)[:3])}; write the path below {self.root}")
        if not ids:
            raise DataError(f"there is no image {name!r}")
        return next(iter(ids))


def _keys(path: str) -> Iterator[str]:
    pure = PurePosixPath(unicodedata.normalize("NFC", path))
    parts = pure.parts
    forms = [parts, parts[-1:]] + ([parts[1:]] if parts[0] in SPLITS else [])
    for form in forms:
        text = "/".join(form)
        yield text
        yield image_id(text)
