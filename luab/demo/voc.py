"""The demo world's PASCAL VOC: pictures of several objects of classes that the demo's ImageNet has, too.

They are not part of `luab.demo.world`: only studies with a transfer to VOC draw them.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lxml import etree
from PIL import Image, ImageFilter

from luab.data.dense.dense_set import IGNORED
from luab.data.dense.voc import CLASSES as VOC_CLASSES
from luab.data.dense.voc import PALETTE
from luab.demo.backdrops import BACKDROPS
from luab.demo.canvas import Mask, Pixels, Size, mask_box, to_pixels
from luab.demo.classes import CLASSES
from luab.demo.drawing import Look, backdrop, class_sprite, over, strange_sprite
from luab.demo.packing import Archive, Members, jpeg_bytes, pack, write_archives_yaml
from luab.demo.photos import photo_size
from luab.demo.randomness import stream
from luab.files import replacing_folder, write_json
from luab.progress import progress
from luab.study.drawn_world import Demo

# Class of VOC -> the demo's ImageNet classes that are drawn for it.
DRAWN = {
    "bicycle": ("bicycle-built-for-two",),
    "bird": ("goose", "flamingo"),
    "bottle": ("vase",),
    "car": ("ambulance",),
    "dog": ("Chihuahua", "golden retriever"),
}
_LOOK = Look(span=(0.25, 0.6), cut_off=0.1, turn_deg=20)
_COUNTS = {1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}  # number of objects -> share of pictures
_CLUTTER = 0.3  # share of pictures with an object of no class
_SMALLEST_PX = 24  # visible parts below this are not annotated
_DIFFICULT = 0.4  # objects of which less than this share is visible are difficult
_LICENCE = "drawn by luab itself; MIT"


@dataclass(frozen=True)
class VocObject:
    """One annotated object: class of VOC, mask [H, W] of its visible part, and its flags."""

    name: str
    mask: Mask
    difficult: bool


@dataclass(frozen=True)
class VocPicture:
    """One drawn picture: name of its files, pixels and objects."""

    name: str
    pixels: Pixels
    objects: list[VocObject]


def draw_voc(folder: Path, world: Demo) -> None:
    """Draws VOC into `folder`, which appears complete at the end and replaces an older one.

    The folder holds `server/`, with the archives in official name and layout and the `archives.yaml` to fetch them, and
    `voc.json`, their digests. Boxes have half as many pictures as COCO, for training and for validation; so have masks.
    The same arguments give the same bytes on one machine.

    Raises:
        JobError: The disk is full, or the folder is not writable.
    """
    with replacing_folder(folder) as aside, progress("demo VOC", None, "files") as advance:
        server, entries = aside / "server", {}
        server.mkdir()
        for archive in voc_archives(world.seed, world.size_px, world.sizes.coco_train // 2, world.sizes.coco_val // 2):
            entries[archive.name] = pack(archive, server)
            advance(len(archive.members))
        write_archives_yaml(entries, server / "archives.yaml")
        content = {
            "seed": world.seed,
            "size_px": world.size_px,
            "archives": {k: v["sha256"] for k, v in entries.items()},
        }
        write_json(aside / "voc.json", content)


def voc_archives(seed: int, size_px: int, train: int, val: int) -> Iterator[Archive]:
    """Yields the three archives, with files and entries as in config/archives.yaml.

    A third of the `train` pictures with boxes are in 2007 and the others in 2012. All `val` pictures with boxes are in
    2007. The pictures with masks are in 2012; those that are for boxes as well are its trainval pictures.
    """
    early = train // 3
    numbers = stream(seed, "voc", "numbers").permutation(np.arange(1, 9964))
    trainval, test = (
        [_picture(seed, size_px, f"{number:06d}") for number in part]
        for part in (numbers[:early], numbers[early : early + val])
    )
    yield _archive("voc2007_trainval", "VOCtrainval_06-Nov-2007.tar", "VOC2007", trainval, {"Main/trainval": trainval})
    yield _archive("voc2007_test", "VOCtest_06-Nov-2007.tar", "VOC2007", test, {"Main/test": test})
    numbers = stream(seed, "voc", "later numbers").permutation(np.arange(1, 9964))[: train + val]
    later = [_picture(seed, size_px, f"{2008 + place % 4}_{number:06d}") for place, number in enumerate(numbers)]
    lists = {
        "Main/trainval": later[: train - early],
        "Segmentation/train": later[:train],
        "Segmentation/val": later[train:],
        "Segmentation/trainval": later,
    }
    yield _archive("voc2012_trainval", "VOCtrainval_11-May-2012.tar", "VOC2012", later, lists)


def _archive(
    name: str, file: str, year: str, pictures: list[VocPicture], lists: dict[str, list[VocPicture]]
) -> Archive:
    at = f"VOCdevkit/{year}"
    members: Members = {}
    for one in pictures:
        members[f"{at}/JPEGImages/{one.name}.jpg"] = jpeg_bytes(one.pixels)
        members[f"{at}/Annotations/{one.name}.xml"] = annotation_xml(one, year)
        members[f"{at}/SegmentationClass/{one.name}.png"] = mask_png(one)
    for of, listed in lists.items():
        members[f"{at}/ImageSets/{of}.txt"] = "".join(f"{one.name}\n" for one in sorted(listed, key=_name)).encode()
    return Archive(name, "voc", file, "tar", members)


def _name(picture: VocPicture) -> str:
    return picture.name


def _picture(seed: int, size_px: int, name: str) -> VocPicture:
    rng = stream(seed, "voc", name)
    size = photo_size(size_px, rng)
    ground = backdrop(list(BACKDROPS)[int(rng.integers(len(BACKDROPS)))], size, rng)
    if rng.random() < _CLUTTER:
        ground = over(ground, strange_sprite(size, _LOOK, rng, span=rng.uniform(0.15, 0.3)))
    count = int(rng.choice(list(_COUNTS), p=list(_COUNTS.values())))
    names = [list(DRAWN)[k] for k in rng.integers(len(DRAWN), size=count)]
    masks = []
    for of, span in zip(names, sorted(rng.uniform(*_LOOK.span, size=count), reverse=True), strict=True):
        drawn = DRAWN[of][int(rng.integers(len(DRAWN[of])))]
        item = next(item for item in CLASSES if item.name == drawn)
        sprite = class_sprite(item, size, _LOOK, rng, span=float(span))
        ground = over(ground, sprite, shadow=True)
        masks.append(sprite.mask)
    return VocPicture(name, to_pixels(ground), _visible(names, masks, size))


def _visible(names: list[str], masks: list[Mask], size: Size) -> list[VocObject]:
    """The visible parts of objects behind later ones."""
    hidden = np.zeros(size[::-1], dtype=bool)
    objects = []
    for name, mask in zip(reversed(names), reversed(masks), strict=True):
        visible = mask & ~hidden
        hidden |= mask
        if visible.sum() >= _SMALLEST_PX:
            objects.append(VocObject(name, visible, bool(visible.sum() < _DIFFICULT * mask.sum())))
    return objects[::-1]


def annotation_xml(picture: VocPicture, year: str) -> bytes:
    """The annotation as in the release: pixels count from 1, and both ends of a box are inside."""
    height, width = picture.pixels.shape[:2]
    root = etree.Element("annotation")
    for tag, text in (("folder", year), ("filename", f"{picture.name}.jpg")):
        etree.SubElement(root, tag).text = text
    etree.SubElement(etree.SubElement(root, "source"), "database").text = _LICENCE
    size = etree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        etree.SubElement(size, tag).text = str(value)
    etree.SubElement(root, "segmented").text = "1"
    for item in picture.objects:
        box = mask_box(item.mask)
        assert box is not None, "a visible object has a box"
        x0, y0, x1, y1 = box
        truncated = x0 == 0 or y0 == 0 or x1 == width - 1 or y1 == height - 1
        element = etree.SubElement(root, "object")
        flags = {"truncated": str(int(truncated)), "difficult": str(int(item.difficult))}
        for tag, text in {"name": item.name, "pose": "Unspecified", **flags}.items():
            etree.SubElement(element, tag).text = text
        bounds = etree.SubElement(element, "bndbox")
        for tag, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1 + 1), ("ymax", y1 + 1)):
            etree.SubElement(bounds, tag).text = str(value)
    return bytes(etree.tostring(root, pretty_print=True))


def mask_png(picture: VocPicture) -> bytes:
    """The classes of all pixels with VOC's palette; a border of one pixel around each object is ignored, as there."""
    classes = np.zeros(picture.pixels.shape[:2], dtype=np.uint8)
    for item in picture.objects:
        classes[item.mask] = VOC_CLASSES.index(item.name) + 1
    for item in picture.objects:
        wide = np.asarray(Image.fromarray(item.mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(3)))
        classes[(wide > 0) & ~item.mask] = IGNORED
    image = Image.fromarray(classes)
    image.putpalette(PALETTE)  # the image is now one of palette indices
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
