"""The demo world's shifted test sets: ImageNet-A, -O, -R, Sketch, ObjectNet and SI-Score."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from luab.data.manifests.labels import objectnet_folders, siscore_classes, subset
from luab.demo.canvas import Field, Pixels, Size, to_pixels
from luab.demo.classes import CLASSES, DemoClass
from luab.demo.drawing import (
    Look,
    backdrop,
    choose_backdrop,
    class_palette,
    class_sprite,
    draw_scene,
    line_drawing,
    over,
    paint,
    place,
    place_at,
)
from luab.demo.packing import Archive, Members, jpeg_bytes, png_bytes
from luab.demo.photos import PHOTO, each_draw, hash_name, photo_size
from luab.demo.polygons import SILHOUETTES
from luab.demo.randomness import smooth_noise, stream

# Natural but hard: odd poses and places, clutter, objects partly out of sight.
ADVERSARIAL = Look(
    usual_backdrop=0.0, span=(0.36, 0.7), turn_deg=150, shear=0.3, odd_hue=0.4, clutter=(3, 6), cut_off=0.35
)
STRANGE = replace(PHOTO, usual_backdrop=0.5, turn_deg=180, clutter=(0, 3))
# ObjectNet: objects at home, in any pose, on any backdrop except the usual one.
ROTATED = Look(usual_backdrop=0.0, span=(0.45, 0.85), turn_deg=180, shear=0.25, clutter=(1, 4))
_RED = (255, 0, 0)

SISCORE_AREAS = (0.02, 0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)
SISCORE_ANGLES_DEG = (1, 61, 121, 181, 241, 301)
SISCORE_PLACES = (0.1, 0.5, 0.9)
_SISCORE_AREA = 0.2


def _classes_of(name: str) -> list[DemoClass]:
    """The world's classes that are in the class list of a set, e.g. "imagenet_a"."""
    listed = set(subset(name))
    return [item for item in CLASSES if item.index in listed]


def _readme(folder: str, name: str) -> Members:
    return {f"{folder}/README.txt": f"Drawn stand-in for {name} (demo world).\n".encode()}


def imagenet_a(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-a.tar: hard photographs of those classes that are on ImageNet-A's list."""
    members = _readme("imagenet-a", "ImageNet-A")
    for item, _, rng in each_draw(seed, "a", _classes_of("imagenet_a"), per_class):
        scene = draw_scene(item, photo_size(size_px, rng), ADVERSARIAL, rng)
        # ASSUME: file names of ImageNet-A have blanks, two confidences and two class names, as recalled.
        wrong = CLASSES[int(rng.integers(len(CLASSES)))].name
        stem = f"{rng.uniform(0, 0.1):.6f}_{item.name} _ {wrong}_{rng.uniform(0.5, 1):.6f}"
        members[f"imagenet-a/{item.wnid}/{stem}.jpg"] = jpeg_bytes(scene.pixels)
    return Archive("imagenet_a", "imagenet_a", "imagenet-a.tar", "tar", members)


def imagenet_o(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-o.tar: objects of no class, in folders named after the classes of ImageNet-O."""
    members = _readme("imagenet-o", "ImageNet-O")
    for item, k, rng in each_draw(seed, "o", _classes_of("imagenet_o"), per_class):
        scene = draw_scene(None, photo_size(size_px, rng), STRANGE, rng)
        stem = hash_name("o", item.index, k, seed=seed)
        members[f"imagenet-o/{item.wnid}/{stem}.JPEG"] = jpeg_bytes(scene.pixels)
    return Archive("imagenet_o", "imagenet_o", "imagenet-o.tar", "tar", members)


def imagenet_r(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenet-r.tar: renditions of those classes that are on ImageNet-R's list."""
    members = _readme("imagenet-r", "ImageNet-R")
    styles = list(RENDITIONS)
    for item, k, rng in each_draw(seed, "r", _classes_of("imagenet_r"), per_class):
        first = int(stream(seed, "r", item.index).integers(len(styles)))
        style = styles[(first + k) % len(styles)]
        picture = RENDITIONS[style](item, photo_size(size_px, rng), rng)
        members[f"imagenet-r/{item.wnid}/{style}_{k}.jpg"] = jpeg_bytes(to_pixels(picture))
    return Archive("imagenet_r", "imagenet_r", "imagenet-r.tar", "tar", members)


def _paper(size: Size, rng: np.random.Generator) -> Field:
    """Plain paper in a soft tint."""
    return np.ones((size[1], size[0], 3)) * rng.uniform(0.75, 0.97, 3)


def _sketch(item: DemoClass, size: Size, rng: np.random.Generator) -> Field:
    """Pencil on tinted paper."""
    placed = place(SILHOUETTES[item.name], size, PHOTO, rng)
    return _paper(size, rng) * line_drawing(placed, size, rng.uniform(0.15, 0.4), 1.0)[..., None]


def _graphic(item: DemoClass, size: Size, rng: np.random.Generator) -> Field:
    """A print in three tones of one colour on a plain ground."""
    sprite = class_sprite(item, size, replace(PHOTO, odd_hue=0.5), rng)
    grey = np.round(sprite.colours.mean(axis=2, keepdims=True) * 2) / 2
    tinted = replace(sprite, colours=grey * rng.uniform(0.4, 1.0, 3))
    return over(_paper(size, rng), tinted)


def _art(item: DemoClass, size: Size, rng: np.random.Generator) -> Field:
    """A painting: the scene in coarse strokes and warmer colours."""
    scene = draw_scene(item, size, replace(PHOTO, usual_backdrop=0.4), rng)
    coarse = Image.fromarray(scene.pixels).filter(ImageFilter.ModeFilter(5))
    warmth = 1 + rng.uniform(-0.15, 0.2, 3)
    canvas = 0.92 + 0.16 * smooth_noise(rng, size, 30)[..., None]
    return np.clip(np.asarray(coarse) / 255 * warmth * canvas, 0, 1)


def _cartoon(item: DemoClass, size: Size, rng: np.random.Generator) -> Field:
    """Flat colours with bold outlines on bright stripes."""
    placed = place(SILHOUETTES[item.name], size, PHOTO, rng)
    sprite = paint(placed, class_palette(item, replace(PHOTO, odd_hue=0.3), rng), size, rng)
    x = np.linspace(0, rng.uniform(3, 6), size[0])[None, :, None]
    ground = np.where(x % 1 < 0.5, rng.uniform(0.55, 1.0, 3), rng.uniform(0.7, 1.0, 3))
    flat = over(np.broadcast_to(ground, (size[1], size[0], 3)), sprite)
    lines = line_drawing(placed, size, 0.0, 1.0, width_px=1.6)
    return np.round(flat * 5) / 5 * lines[..., None]


RENDITIONS: dict[str, Callable[[DemoClass, Size, np.random.Generator], Field]] = {
    "sketch": _sketch,
    "graphic": _graphic,
    "art": _art,
    "cartoon": _cartoon,
}


def imagenet_sketch(seed: int, size_px: int, per_class: int) -> Archive:
    """ImageNet-Sketch.zip: grey line drawings on white, stored with one channel."""
    members: Members = {}
    for item, k, rng in each_draw(seed, "sketch", CLASSES, per_class):
        size = photo_size(size_px, rng)
        placed = place(SILHOUETTES[item.name], size, PHOTO, rng)
        drawing = to_pixels(line_drawing(placed, size, rng.uniform(0.05, 0.45), rng.uniform(0.94, 1.0)))
        members[f"sketch/{item.wnid}/sketch_{k}.JPEG"] = jpeg_bytes(drawing)
    return Archive("imagenet_sketch", "imagenet_sketch", "ImageNet-Sketch.zip", "zip", members)


def objectnet(seed: int, size_px: int, per_folder: int) -> Archive:
    """objectnet-1.0.zip without its password: PNGs with a red border, a folder outside ImageNet, the mappings."""
    classes = {item.index: item for item in CLASSES}
    items = {
        folder: next(classes[index] for index in ids if index in classes)
        for folder, ids in sorted(objectnet_folders().items())
        if not classes.keys().isdisjoint(ids)
    }
    folders: dict[str, DemoClass | None] = {**items, "air_freshener": None}
    members: Members = {}
    for folder, item in folders.items():
        for k in range(per_folder):
            rng = stream(seed, "objectnet", folder, k)
            pixels = draw_scene(item, photo_size(size_px, rng), ROTATED, rng).pixels.copy()
            pixels[[0, -1], :], pixels[:, [0, -1]] = _RED, _RED
            stem = hash_name("objectnet", folder, k, seed=seed)
            members[f"objectnet-1.0/images/{folder}/{stem}.png"] = png_bytes(pixels)
    labels = {folder: folder.replace("_", " ").capitalize() for folder in folders}
    names = {labels[folder]: item.name for folder, item in items.items()}
    members["objectnet-1.0/mappings/folder_to_objectnet_label.json"] = json.dumps(labels).encode()
    members["objectnet-1.0/mappings/objectnet_to_imagenet_1k.json"] = json.dumps(names).encode()
    members["objectnet-1.0/README"] = b"Drawn stand-in for ObjectNet (demo world).\n"
    return Archive("objectnet", "objectnet", "objectnet-1.0.zip", "zip", members)


def siscore(seed: int, size_px: int, copies: int) -> Iterator[Archive]:
    """The three zips of SI-Score: objects pasted at a given area, angle or place, each with its metadata.csv."""
    folders = {"size": "area", "rotation": "rotation", "location": "location20_area02_min0pc"}
    columns = {"size": "area", "rotation": "rotation", "location": "x_coord,y_coord,pct_inside_image"}
    # Area, angle, centre, and the values in metadata.csv.
    factors: dict[str, list[tuple[float, int, tuple[float, float], str]]] = {
        "size": [(area, 0, (0.5, 0.5), f"{area}") for area in SISCORE_AREAS],
        "rotation": [(_SISCORE_AREA, a, (0.5, 0.5), f"{a}") for a in SISCORE_ANGLES_DEG],
        "location": [(_SISCORE_AREA, 0, (x, y), f"{x},{y}") for x in SISCORE_PLACES for y in SISCORE_PLACES],
    }
    classes = {item.index: item for item in CLASSES}
    items = [(name, classes[index]) for name, index in sorted(siscore_classes().items()) if index in classes]
    for name, folder in folders.items():
        members: Members = {}
        rows = [f"image_id,{columns[name]}"]
        for class_name, item in items:
            for number, (area, angle_deg, centre, values) in enumerate(f for f in factors[name] for _ in range(copies)):
                rng = stream(seed, "siscore", name, item.index, number)
                image_id = f"{class_name}_{number:03d}"
                pixels, inside = _pasted(item, round(size_px * 1.25), area, angle_deg, centre, rng)
                members[f"{folder}/{class_name}/{image_id}.jpg"] = jpeg_bytes(pixels)
                rows.append(f"{image_id},{values}" + (f",{inside}" if name == "location" else ""))
        members[f"{folder}/metadata.csv"] = ("\n".join(rows) + "\n").encode()
        dataset = f"siscore_{name}"
        yield Archive(dataset, dataset, f"siscore-{name}.zip", "zip", members)


def _pasted(
    item: DemoClass, side: int, area: float, angle_deg: int, centre: tuple[float, float], rng: np.random.Generator
) -> tuple[Pixels, int]:
    """Pastes an object that would cover `area` of a square; also returns the percentage of it in sight."""
    size, silhouette = (side, side), SILHOUETTES[item.name]
    colours = class_palette(item, replace(PHOTO, odd_hue=0.0), rng)
    trial = paint(place_at(silhouette, (side / 2, side / 2), side / 3), colours, size, rng)
    half = side / 3 * float(np.sqrt(area / trial.mask.mean()))
    centre_px = (centre[0] * side, centre[1] * side)
    sprite = paint(place_at(silhouette, centre_px, half, angle_deg), colours, size, rng)
    ground = backdrop(choose_backdrop(item.family, replace(PHOTO, usual_backdrop=0.1, plain=0), rng), size, rng)
    inside = min(100, round(100 * float(sprite.mask.mean()) / area))
    return to_pixels(over(ground, sprite)), inside
