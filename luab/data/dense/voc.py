"""PASCAL VOC 2007 and 2012: boxes and masks, from the tree that the official archives unpack to.

The files::

    VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCdevkit/VOC2007/Annotations/000005.xml
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt          one name per line: 000005
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png    palette index = class, 0 = background, 255 = border
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt

Detection is trained on both years' trainval and scored on the test images of 2007; segmentation is trained on train and
scored on val of 2012. An annotation (shortened; parts of a person and other elements are ignored)::

    <annotation>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object>
        <name>chair</name><truncated>0</truncated><difficult>0</difficult>
        <bndbox><xmin>263</xmin><ymin>211</ymin><xmax>324</xmax><ymax>339</ymax></bndbox>
      </object>
    </annotation>

Coordinates count pixels from 1 and include both ends, so xmin - 1, ymin - 1, xmax, ymax are positions from 0 with the
end excluded. Some files of 2012 have fractions.
"""

import math
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luab.byproducts.reading.bad_records import BadRecord
from luab.byproducts.reading.xml import parse_xml
from luab.data.dense.dense_set import IGNORED, OBJECT, DetectionSet, Images, SegmentationSet, Transforms
from luab.data.images.image_files import readable
from luab.errors import DataError, did_you_mean
from luab.progress import progress

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes in official order; the label of a class is its place here plus 1."""

_LISTS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("detection", "train"): (("VOC2007", "Main/trainval"), ("VOC2012", "Main/trainval")),
    ("detection", "val"): (("VOC2007", "Main/test"),),
    ("segmentation", "train"): (("VOC2012", "Segmentation/train"),),
    ("segmentation", "val"): (("VOC2012", "Segmentation/val"),),
}
# SOURCE: the tables of the challenges' pages (voc2007/index.html, voc2012/dbstats.html).
KNOWN_COUNTS = {
    ("VOC2007", "Main/trainval"): 5011,
    ("VOC2007", "Main/test"): 4952,
    ("VOC2012", "Main/trainval"): 11540,
    ("VOC2012", "Segmentation/train"): 1464,
    ("VOC2012", "Segmentation/val"): 1449,
}
"""Published number of images by year and list."""

_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")
_MAX_XML_BYTES = 1 << 20
_MAX_SIDE_PX = 1 << 16
_AGAIN = "Unpack the archives of VOC again."


def _palette() -> list[int]:
    """Red, green and blue of the 256 classes: bit k of a colour is bit 7 - k // 3 of channel k % 3.

    SOURCE: VOCdevkit, VOCcode/VOClabelcolormap.m.
    """
    colours = [[0, 0, 0] for _ in range(256)]
    for label, colour in enumerate(colours):
        for bit in range(8):
            colour[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return [value for colour in colours for value in colour]


PALETTE = _palette()
"""VOC's colours of the 256 palette indices, red green blue of each."""


def detection(
    root: Path,
    split: Literal["train", "val"],
    transforms: Transforms | None = None,
    seed: int = 0,
    partial: bool = False,
) -> DetectionSet:
    """Reads the boxes of a split; difficult objects are flagged, in training as well.

    Args:
        root: Folder that VOCdevkit/ is in, or VOCdevkit/ itself.
        split, transforms, seed: As for `luab.data.dense.dense_sets.dense_set`.
        partial: Whether the lists may be shorter than published, and images without objects are accepted.

    Raises:
        DataError: A list, an image or an annotation is missing or damaged, or a list has another length than published.
    """
    images = _listed(root, "detection", split, partial)
    sizes, objects = [], []
    with progress("annotations of VOC", len(images.paths), "files") as advance:
        for path in images.paths:
            size_wh, found = read_annotation(_beside(images.root / path, "Annotations", ".xml"))
            sizes.append(size_wh)
            objects.append(found)
            advance(1)
    return DetectionSet(images, np.array(sizes, dtype=np.int64), objects, transforms, seed)


def segmentation(
    root: Path,
    split: Literal["train", "val"],
    transforms: Transforms | None = None,
    seed: int = 0,
    partial: bool = False,
) -> SegmentationSet:
    """Reads the list of a split and checks that all masks exist; arguments and errors as for `detection`."""
    images = _listed(root, "segmentation", split, partial)
    masks = [_beside(images.root / path, "SegmentationClass", ".png") for path in images.paths]
    _check_files(masks)
    return SegmentationSet(images, lambda i: read_mask(masks[i]), transforms, seed)


def _listed(root: Path, task: str, split: str, partial: bool) -> Images:
    """Images of a split in the order of their names, after checking that all of them exist."""
    paths: dict[str, str] = {}
    base = "" if (root / "VOC2007").is_dir() or (root / "VOC2012").is_dir() else "VOCdevkit/"
    for year, name in _LISTS[task, split]:
        file = root / f"{base}{year}/ImageSets/{name}.txt"
        stems = _read_list(file)
        if not partial and len(stems) != KNOWN_COUNTS[year, name]:
            raise DataError(
                f"{file}: expected the {KNOWN_COUNTS[year, name]:,} images of the release, found {len(stems):,}. "
                f"{_AGAIN} Set `paths.partial: true` if the folder is meant to hold only some."
            )
        if repeated := sorted(set(stems) & paths.keys()):
            raise DataError(f"{file}: {repeated[0]} is an image of another year as well. {_AGAIN}")
        paths |= {stem: f"{base}{year}/JPEGImages/{stem}.jpg" for stem in stems}
    ordered = sorted(paths)
    images = Images(root, ordered, [paths[stem] for stem in ordered])
    _check_files([root / path for path in images.paths])
    return images


def _read_list(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="ascii").split("\n")
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: expected a list of images, found no file. Fetch and unpack VOC with `luab fetch` and "
            "`luab unpack voc`, or set `paths.copies.voc` to the folder that VOCdevkit is in."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected a list of images, could not read it ({error}). {_AGAIN}") from error
    stems = [line.strip() for line in lines if line.strip()]
    wrong = next((stem for stem in stems if not _NAME.fullmatch(stem)), None)
    if wrong is not None or len(set(stems)) < len(stems) or not stems:
        found = f"{wrong[:80]!r}" if wrong is not None else "a name twice" if stems else "no name"
        raise DataError(f"{file}: expected one name of an image per line, each once, found {found}. {_AGAIN}")
    return stems


def _check_files(files: list[Path]) -> None:
    """Raises DataError if files are missing; lists each folder once."""
    present = {folder: set(os.listdir(folder)) if folder.is_dir() else set() for folder in {f.parent for f in files}}
    missing = [file for file in files if file.name not in present[file.parent]]
    if missing:
        raise DataError(
            f"{missing[0].parent}: expected the files of {len(files):,} listed images, found "
            f"{len(files) - len(missing):,}; first missing {missing[0].name}. {_AGAIN}"
        )


def _beside(image: Path, folder: str, suffix: str) -> Path:
    return image.parent.parent / folder / f"{image.stem}{suffix}"


def read_annotation(file: Path) -> tuple[tuple[int, int], NDArray[np.void]]:
    """Reads an annotation: width and height in pixels, and `OBJECT` [n], clipped to the image.

    Raises:
        DataError: The file is missing, too large, declares a document type, or is not an annotation of VOC.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(_MAX_XML_BYTES + 1)
    except OSError as error:
        raise DataError(f"{file}: cannot read the annotation ({error.strerror}). {_AGAIN}") from error
    try:
        if len(content) > _MAX_XML_BYTES:
            raise BadRecord("it is larger than 1 MiB")
        root = parse_xml(content)
        size = root.find("size")
        if size is None:
            raise BadRecord("it has no <size>")
        width, height = (int(_number(size, name, 1, _MAX_SIDE_PX)) for name in ("width", "height"))
        rows = [_object(element, width, height) for element in root.findall("object")]
    except BadRecord as error:
        raise DataError(f"{file}: expected an annotation of VOC; {error}. {_AGAIN}") from error
    return (width, height), np.array(rows, dtype=OBJECT)


def _object(element: Any, width: int, height: int) -> tuple[Any, ...]:
    name, box = element.findtext("name", "").strip(), element.find("bndbox")
    if name not in CLASSES:
        raise BadRecord(f"{name[:40]!r} is not one of its 20 classes. {did_you_mean(name[:40], CLASSES).rstrip('.')}")
    if box is None:
        raise BadRecord("an <object> has no <bndbox>")
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise BadRecord(f"expected 0 or 1 as <difficult>, found {difficult[:40]!r}")
    corners = [_number(box, side, 0, _MAX_SIDE_PX) for side in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = np.clip(np.subtract(corners, (1, 1, 0, 0)), 0, (width, height, width, height)).tolist()
    if x1 <= x0 or y1 <= y0:
        raise BadRecord(f"the <bndbox> {corners} is empty or outside the image of {width} x {height} pixels")
    return (x0, y0, x1, y1), CLASSES.index(name) + 1, False, difficult == "1", (x1 - x0) * (y1 - y0)


def _number(element: Any, tag: str, least: float, most: float) -> float:
    text = element.findtext(tag, "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise BadRecord(f"expected a number from {least} to {most} as <{tag}>, found {text[:40]!r}")
    return value


def read_mask(file: Path) -> NDArray[np.uint8]:
    """Reads a mask: classes [height, width], 0 for background and 255 for ignored pixels.

    Raises:
        DataError: The file is missing or damaged, has no palette, or contains another number.
    """
    with readable(file, "mask"), Image.open(file) as image:
        mode, mask = image.mode, np.array(image)
    if mode not in ("P", "L"):
        raise DataError(f"{file}: expected a PNG with a palette, found the mode {mode}. {_AGAIN}")
    values = np.unique(mask)
    if len(wrong := values[(values > len(CLASSES)) & (values != IGNORED)]):
        raise DataError(f"{file}: expected classes 0 to {len(CLASSES)} or 255, found {wrong[0]}. {_AGAIN}")
    return mask
