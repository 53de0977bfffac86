"""The demo world's shifted test sets: ImageNet-A, -O, -R, -C, Sketch, ObjectNet and SI-Score."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from luab.data.manifests.labels import objectnet_folders, siscore_classes, subset
from luab.demo.classes import CLASSES, DemoClass, class_of
from luab.demo.corruptions import ARCHIVES, corrupt
from luab.demo.drawing import (
    Field,
    Look,
    Pixels,
    backdrop,
    choose_backdrop,
    class_palette,
    class_sprite,
    draw_scene,
    outline,
    over,
    paint,
    place,
    place_at,
    smooth_noise,
    to_pixels,
)
from luab.demo.noise import stream
from luab.demo.packing import Archive, Members, jpeg_bytes, png_bytes
from luab.demo.photos import PHOTO, ValImage, hash_name, photo_size
from luab.demo.silhouettes import SILHOUETTES

# Natural, but hard: odd poses and places, clutter, parts out of sight.
ADVERSARIAL = Look(
    usual_backdrop=0.0, span=(0.36, 0.7), turn_deg=150, shear=0.3, odd_hue=0.4, clutter=(3, 6), cut_off=0.35
)
STRANGE = replace(PHOTO, usual_backdrop=0.5, turn_deg=180, clutter=(0, 3))
# ObjectNet: things at home, in any pose, before any backdrop but the usual one.
ROTATED = Look(usual_backdrop=0.0, span=(0.45, 0.85), turn_deg=180, shear=0.25, clutter=(1, 4))
_RED = (255, 0, 0)

SISCORE_AREAS = (0.02, 0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)
SISCORE_ANGLES_DEG = (1, 61, 121, 181, 241, 301)
SISCORE_PLACES = (0.1, 0.5, 0.9)
_SISCORE_AREA = 0.2


def members_of(name: str) -> list[DemoClass]:
    """The world's classes that are in the class list of a set, e.g. "imagenet_a"."""
    listed = set(subset(name))
    return [item for item in CLASSES if item.index in listed]


def imagenet_a(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-a.tar: hard photographs of the world's classes on ImageNet-A's list."""
    members: Members = {"imagenet-a/README.txt": b"Drawn stand-in for ImageNet-A (demo world).\n"}
    for item in members_of("imagenet_a"):
        for k in range(per_class):
            rng = stream(seed, "a", item.index, k)
            scene = draw_scene(item, photo_size(size_px, rng), ADVERSARIAL, rng)
            # ASSUME: file names of ImageNet-A have blanks, two confidences and two class names, as recalled.
            wrong = CLASSES[int(rng.integers(len(CLASSES)))].name
            stem = f"{rng.uniform(0, 0.1):.6f}_{item.name} _ {wrong}_{rng.uniform(0.5, 1):.6f}"
            members[f"imagenet-a/{item.wnid}/{stem}.jpg"] = jpeg_bytes(scene.pixels)
    return Archive("imagenet_a", "imagenet_a", "imagenet-a.tar", "tar", members, "imagenet_a")


def imagenet_o(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-o.tar: things of no class, in folders of ImageNet-O's classes."""
    members: Members = {"imagenet-o/README.txt": b"Drawn stand-in for ImageNet-O (demo world).\n"}
    for item in members_of("imagenet_o"):
        for k in range(per_class):
            rng = stream(seed, "o", item.index, k)
            scene = draw_scene(None, photo_size(size_px, rng), STRANGE, rng)
            stem = hash_name("o", item.index, k, seed=seed)
            members[f"imagenet-o/{item.wnid}/{stem}.JPEG"] = jpeg_bytes(scene.pixels)
    return Archive("imagenet_o", "imagenet_o", "imagenet-o.tar", "tar", members, "imagenet_o")


def imagenet_r(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-r.tar: renditions of the world's classes on ImageNet-R's list."""
    members: Members = {"imagenet-r/README.txt": b"Drawn stand-in for ImageNet-R (demo world).\n"}
    styles = list(RENDITIONS)
    for item in members_of("imagenet_r"):
        first = int(stream(seed, "r", item.index).integers(len(styles)))
        for k in range(per_class):
            rng = stream(seed, "r", item.index, k)
            style = styles[(first + k) % len(styles)]
            picture = RENDITIONS[style](item, photo_size(size_px, rng), rng)
            members[f"imagenet-r/{item.wnid}/{style}_{k}.jpg"] = jpeg_bytes(to_pixels(picture))
    return Archive("imagenet_r", "imagenet_r", "imagenet-r.tar", "tar", members, "imagenet_r")


def _paper(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Plain paper in a soft tint."""
    return np.ones((size[1], size[0], 3)) * rng.uniform(0.75, 0.97, 3)


def _sketched(item: DemoClass, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Pencil on tinted paper."""
    parts = place(SILHOUETTES[item.name](), size, PHOTO, rng)
    return _paper(size, rng) * outline(parts, size, rng.uniform(0.15, 0.4), 1.0)[..., None]


def _printed(item: DemoClass, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """A print in three tones of one colour on a plain ground."""
    sprite = class_sprite(item, size, replace(PHOTO, odd_hue=0.5), rng)
    grey = np.round(sprite.colours.mean(axis=2, keepdims=True) * 2) / 2
    tinted = replace(sprite, colours=grey * rng.uniform(0.4, 1.0, 3))
    return over(_paper(size, rng), tinted)


def _brushed(item: DemoClass, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """A painting: the scene in coarse strokes and warmer colours."""
    scene = draw_scene(item, size, replace(PHOTO, usual_backdrop=0.4), rng)
    coarse = Image.fromarray(scene.pixels).filter(ImageFilter.ModeFilter(5))
    warmth = 1 + rng.uniform(-0.15, 0.2, 3)
    canvas = 0.92 + 0.16 * smooth_noise(rng, size, 30)[..., None]
    return np.clip(np.asarray(coarse) / 255 * warmth * canvas, 0, 1)


def _cartoon(item: DemoClass, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Flat colours with bold outlines before bright stripes."""
    parts = place(SILHOUETTES[item.name](), size, PHOTO, rng)
    sprite = paint(parts, class_palette(item, replace(PHOTO, odd_hue=0.3), rng), size, rng)
    x = np.linspace(0, rng.uniform(3, 6), size[0])[None, :, None]
    ground = np.where(x % 1 < 0.5, rng.uniform(0.55, 1.0, 3), rng.uniform(0.7, 1.0, 3))
    flat = over(np.broadcast_to(ground, (size[1], size[0], 3)), sprite)
    lines = outline(parts, size, 0.0, 1.0, width_px=1.6)
    return np.round(flat * 5) / 5 * lines[..., None]


RENDITIONS: dict[str, Callable[[DemoClass, tuple[int, int], np.random.Generator], Field]] = {
    "sketch": _sketched,
    "graphic": _printed,
    "art": _brushed,
    "cartoon": _cartoon,
}


def imagenet_sketch(seed: int, size_px: int, per_class: int) -> Archive:
    """ImageNet-Sketch.zip: grey line drawings on white, stored with one channel."""
    members = {}
    for item in CLASSES:
        for k in range(per_class):
            rng = stream(seed, "sketch", item.index, k)
            size = photo_size(size_px, rng)
            parts = place(SILHOUETTES[item.name](), size, PHOTO, rng)
            drawing = to_pixels(outline(parts, size, rng.uniform(0.05, 0.45), rng.uniform(0.94, 1.0)))
            members[f"sketch/{item.wnid}/sketch_{k}.JPEG"] = jpeg_bytes(drawing)
    return Archive("imagenet_sketch", "imagenet_sketch", "ImageNet-Sketch.zip", "zip", members, "imagenet_sketch")


def imagenet_c(seed: int, size_px: int, images: list[ValImage], per_class: int) -> Iterator[Archive]:
    """The four ImageNet-C tars, of each class's first clear validation images, cut to `size_px` already."""
    chosen = [
        image for item in CLASSES for image in [each for each in images if each.item is item and each.clear][:per_class]
    ]
    crops = {image.name: centre_crop(image.scene.pixels, size_px) for image in chosen}
    for name, corruptions in ARCHIVES.items():
        members = {}
        for corruption in corruptions:
            for severity in range(1, 6):
                for image in chosen:
                    rng = stream(seed, "c", corruption, severity, image.name)
                    path = f"{corruption}/{severity}/{image.item.wnid}/{image.name}.JPEG"
                    members[path] = jpeg_bytes(corrupt(crops[image.name], corruption, severity, rng), quality=85)
        yield Archive(f"imagenet_c_{name}", "imagenet_c", f"imagenet-c-{name}.tar", "tar", members, "imagenet_c")


def centre_crop(pixels: Pixels, size_px: int) -> Pixels:
    """Shorter side to 256/224 of `size_px`, then the middle: as ImageNet-C was made."""
    image = Image.fromarray(pixels)
    scale = size_px * 256 / 224 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (image.width - size_px) // 2, (image.height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px)))


def objectnet(seed: int, size_px: int, per_folder: int) -> Archive:
    """objectnet-1.0.zip without its password: red-bordered PNGs, one folder beyond ImageNet, mappings."""
    known = {item.index for item in CLASSES}
    items = {
        folder: class_of(next(index for index in ids if index in known))
        for folder, ids in sorted(objectnet_folders().items())
        if known & set(ids)
    }
    shown: dict[str, DemoClass | None] = {**items, "air_freshener": None}
    members: Members = {}
    for folder, item in shown.items():
        for k in range(per_folder):
            rng = stream(seed, "objectnet", folder, k)
            pixels = draw_scene(item, photo_size(size_px, rng), ROTATED, rng).pixels.copy()
            pixels[[0, -1], :], pixels[:, [0, -1]] = _RED, _RED
            stem = hash_name("objectnet", folder, k, seed=seed)
            members[f"objectnet-1.0/images/{folder}/{stem}.png"] = png_bytes(pixels)
    labels = {folder: folder.replace("_", " ").capitalize() for folder in shown}
    names = {labels[folder]: item.name for folder, item in items.items()}
    members["objectnet-1.0/mappings/folder_to_objectnet_label.json"] = json.dumps(labels).encode()
    members["objectnet-1.0/mappings/objectnet_to_imagenet_1k.json"] = json.dumps(names).encode()
    members["objectnet-1.0/README"] = b"Drawn stand-in for ObjectNet (demo world).\n"
    return Archive("objectnet", "objectnet", "objectnet-1.0.zip", "zip", members, "objectnet")


def siscore(seed: int, size_px: int, copies: int) -> Iterator[Archive]:
    """The three zips, of objects pasted at a given area, angle or place, each with its metadata.csv."""
    sides = {
        "size": ("area", [(area, 0, (0.5, 0.5), f"{area}") for area in SISCORE_AREAS]),
        "rotation": ("rotation", [(_SISCORE_AREA, a, (0.5, 0.5), f"{a}") for a in SISCORE_ANGLES_DEG]),
        "location": (
            "location20_area02_min0pc",
            [(_SISCORE_AREA, 0, (x, y), f"{x},{y}") for x in SISCORE_PLACES for y in SISCORE_PLACES],
        ),
    }
    columns = {"size": "area", "rotation": "rotation", "location": "x_coord,y_coord,pct_inside_image"}
    for name, (folder, factors) in sides.items():
        members, rows = {}, [f"image_id,{columns[name]}"]
        for class_name, item in _siscore_items():
            for number, factor in enumerate(f for f in factors for _ in range(copies)):
                rng = stream(seed, "siscore", name, item.index, number)
                image_id = f"{class_name}_{number:03d}"
                pixels, inside = _pasted(item, round(size_px * 1.25), factor[0], factor[1], factor[2], rng)
                members[f"{folder}/{class_name}/{image_id}.jpg"] = jpeg_bytes(pixels)
                rows.append(f"{image_id},{factor[3]}" + (f",{inside}" if name == "location" else ""))
        members[f"{folder}/metadata.csv"] = ("\n".join(rows) + "\n").encode()
        dataset = f"siscore_{name}"
        yield Archive(dataset, dataset, f"siscore-{name}.zip", "zip", members, dataset)


def _siscore_items() -> list[tuple[str, DemoClass]]:
    known = {item.index: item for item in CLASSES}
    return [(name, known[index]) for name, index in sorted(siscore_classes().items()) if index in known]


def _pasted(
    item: DemoClass,
    side: int,
    area: float,
    angle_deg: int,
    centre: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Pixels, int]:
    """Pastes an object so that it would cover `area` of a square; also the percentage of it in sight."""
    size, parts = (side, side), SILHOUETTES[item.name]()
    colours = class_palette(item, replace(PHOTO, odd_hue=0.0), rng)
    trial = paint(place_at(parts, (side / 2, side / 2), side / 3), colours, size, rng)
    half = side / 3 * float(np.sqrt(area / trial.mask.mean()))
    at = (centre[0] * side, centre[1] * side)
    sprite = paint(place_at(parts, at, half, angle_deg), colours, size, rng)
    ground = backdrop(choose_backdrop(item.family, 0.1, rng), size, rng)
    inside = min(100, round(100 * float(sprite.mask.mean()) / area))
    return to_pixels(over(ground, sprite, shadow=False)), inside
