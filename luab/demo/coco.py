"""The demo world's COCO 2014: pictures of several objects, their masks in the official JSON, and COCO-AB."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_NAME
from luab.demo.backdrops import BACKDROPS
from luab.demo.canvas import Mask, Pixels, Size, mask_box, to_pixels
from luab.demo.classes import Colour
from luab.demo.coco_annotators import TagImage, coco_ab_json
from luab.demo.drawing import Look, Sprite, backdrop, over, paint, palette, place
from luab.demo.packing import Archive, Members, jpeg_bytes
from luab.demo.photos import photo_size
from luab.demo.polygons import SILHOUETTES, TABLES
from luab.demo.randomness import stream

_LOOK = Look(turn_deg=18, cut_off=0.06)
_ODD_BACKDROP = 0.15
_SMALLEST_PX = 24
_CROWD_SHARE, _EMPTY_EVERY = 0.3, 40


@dataclass(frozen=True)
class _Kind:
    """Appearance of one class."""

    silhouette: str  # key of SILHOUETTES
    hsv: Colour
    span: tuple[float, float]  # its size as share of the picture's shorter side


_KINDS = TypeAdapter(dict[str, _Kind]).validate_json((TABLES / "coco_classes.json").read_bytes())
# Backdrop -> classes usually seen together on it, each with the share of pictures that show it.
_THEMES: dict[str, dict[str, float]] = {
    "road": {"person": 0.8, "bicycle": 0.6, "truck": 0.6, "backpack": 0.45},
    "lawn": {"person": 0.6, "dog": 0.7, "frisbee": 0.5, "bird": 0.5},
    "tiles": {"cup": 0.7, "banana": 0.65, "vase": 0.6, "person": 0.35},
}


@dataclass(frozen=True)
class CocoObject:
    """One annotated object: official name, mask [H, W] of its visible part, whether it stands for a crowd."""

    name: str
    mask: Mask
    crowd: bool = False


@dataclass(frozen=True)
class CocoPicture:
    """One drawn picture with its number in COCO."""

    number: int
    pixels: Pixels
    objects: list[CocoObject]


def coco_archives(seed: int, size_px: int, train: int, val: int) -> Iterator[Archive]:
    """Yields images of both sets, their annotations and COCO-AB, with files and entries as in config/archives.yaml."""
    annotations: Members = {}
    for half, count in (("train2014", train), ("val2014", val)):
        pictures = coco_pictures(seed, half, size_px, count)
        members = {f"{half}/COCO_{half}_{one.number:012d}.jpg": jpeg_bytes(one.pixels) for one in pictures}
        annotations[f"annotations/instances_{half}.json"] = instances_json(half, pictures)
        name = f"coco_{half.removesuffix('2014')}"
        yield Archive(name, "coco", f"{half}.zip", "zip", members)
        if half == "train2014":
            records = coco_ab_json([_tag_image(one) for one in pictures], seed)
    yield Archive("coco_annotations", "coco", "annotations_trainval2014.zip", "zip", annotations)
    yield Archive("coco_ab", "coco_ab", "coco_ab_v1_0.json", "plain", {"coco_ab_v1_0.json": records}, unpack=False)


def coco_pictures(seed: int, half: str, size_px: int, count: int) -> list[CocoPicture]:
    """Draws the training or validation set; its numbers are unique and unsorted."""
    numbers = stream(seed, "coco", half, "numbers").choice(np.arange(9, 581_930), count, replace=False)
    return [
        _picture(int(number), size_px, stream(seed, "coco", half, k), empty=k % _EMPTY_EVERY == _EMPTY_EVERY - 1)
        for k, number in enumerate(numbers)
    ]


def _picture(number: int, size_px: int, rng: np.random.Generator, empty: bool) -> CocoPicture:
    size = photo_size(size_px, rng)
    theme = _choice(list(_THEMES), rng)
    ground = backdrop(_choice(list(BACKDROPS), rng) if rng.random() < _ODD_BACKDROP else theme, size, rng)
    names = [] if empty else _cast(_THEMES[theme], rng)
    sprites: list[tuple[str, Sprite]] = []
    flock = np.zeros(size[::-1], dtype=bool)
    if "bird" in names and rng.random() < _CROWD_SHARE:
        for _ in range(4):
            bird = _sprite("bird", size, rng, span=0.2)
            ground = over(ground, bird, shadow=True)
            flock |= bird.mask
    for name in names:
        sprite = _sprite(name, size, rng)
        ground = over(ground, sprite, shadow=True)
        flock &= ~sprite.mask
        sprites.append((name, sprite))
    objects = _visible_objects(sprites, size)
    if flock.sum() >= _SMALLEST_PX:
        objects.append(CocoObject("bird", flock, crowd=True))
    return CocoPicture(number, to_pixels(ground), objects)


def _cast(theme: dict[str, float], rng: np.random.Generator) -> list[str]:
    """Draws two to four objects of a theme, large ones first, so that small ones are in front."""
    names = [name for name, share in theme.items() if rng.random() < share]
    while len(names) < 2:  # a class may occur twice
        names.append(_choice(list(theme), rng))
    if len(names) < 4 and rng.random() < 0.2:
        names.append(_choice(names, rng))
    return sorted(names, key=lambda name: -_KINDS[name].span[1])


def _choice(names: list[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _sprite(name: str, size: Size, rng: np.random.Generator, span: float | None = None) -> Sprite:
    kind = _KINDS[name]
    look = replace(_LOOK, span=kind.span)
    colours = palette((kind.hsv[0] + rng.uniform(-0.05, 0.05), *kind.hsv[1:]), (0.85, 0.35, 0.30))
    return paint(place(SILHOUETTES[kind.silhouette], size, look, rng, span), colours, size, rng)


def _visible_objects(sprites: list[tuple[str, Sprite]], size: Size) -> list[CocoObject]:
    """Visible parts of the sprites behind later ones; parts below _SMALLEST_PX are not annotated."""
    hidden = np.zeros(size[::-1], dtype=bool)
    objects = []
    for name, sprite in reversed(sprites):
        visible = sprite.mask & ~hidden
        hidden |= sprite.mask
        if visible.sum() >= _SMALLEST_PX:
            objects.append(CocoObject(name, visible))
    return objects[::-1]


def _tag_image(picture: CocoPicture) -> TagImage:
    height, width = picture.pixels.shape[:2]
    by_size = sorted(picture.objects, key=lambda one: int(one.mask.sum()))
    # The largest object of a class comes last and wins.
    masks = {INDEX_OF_NAME[item.name]: item.mask for item in by_size}
    return TagImage(picture.number, width, height, masks)


# ---- the instances file -------------------------------------------------------------------------------------


def instances_json(half: str, pictures: list[CocoPicture]) -> bytes:
    """instances_<half>.json: masks as polygons, of crowds as run lengths, as in the release."""
    objects = [(picture.number, item) for picture in pictures for item in picture.objects]
    content = {
        "info": {"description": "demo world, drawn by luab", "version": "1.0", "year": 2014},
        "images": [_image(half, picture) for picture in pictures],
        "licenses": [{"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"}],
        "annotations": [_annotation(image, item, number) for number, (image, item) in enumerate(objects, start=1)],
        "categories": [{"supercategory": "demo", "id": item.category_id, "name": item.name} for item in COCO_CLASSES],
    }
    return json.dumps(content).encode()


def _image(half: str, picture: CocoPicture) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    name = f"COCO_{half}_{picture.number:012d}.jpg"
    return {"license": 1, "file_name": name, "height": height, "width": width, "id": picture.number}


def _annotation(image: int, item: CocoObject, number: int) -> dict[str, Any]:
    box = mask_box(item.mask)
    assert box is not None, "a visible object has a box"
    x0, y0, x1, y1 = box
    return {
        "segmentation": run_lengths(item.mask) if item.crowd else mask_polygons(item.mask),
        "area": float(item.mask.sum()),
        "iscrowd": int(item.crowd),
        "image_id": image,
        "bbox": [float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1)],
        "category_id": COCO_CLASSES[INDEX_OF_NAME[item.name]].category_id,
        "id": number,
    }


def run_lengths(mask: Mask) -> dict[str, Any]:
    """Encodes a mask as COCO's uncompressed run lengths: column by column, background first; size is height, width."""
    flat = mask.T.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)}


def mask_polygons(mask: Mask) -> list[list[float]]:
    """Returns outlines of a mask's pieces, x y x y ... along the pixels' edges; holes are filled, as annotators do."""
    import cv2

    # cv2's outlines run through the centres of pixels, which on a finer grid are near the original pixels' edges.
    fine = mask.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((line.reshape(-1, 2) + 0.5) / 4).round(3).ravel().tolist() for line in outlines if len(line) > 2]
