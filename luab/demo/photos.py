"""The demo world's ordinary photographs: ImageNet, ImageNet-V2, the labels of ReaL, the lists for localisation."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from luab.demo.canvas import Size
from luab.demo.classes import CLASSES, DemoClass
from luab.demo.drawing import Look, Scene, draw_scene
from luab.demo.imagenet_annotators import TrainImage
from luab.demo.packing import Archive, jpeg_bytes
from luab.demo.randomness import stream

PHOTO = Look()
# ImageNet-V2 was collected by the same procedure some years later, so it differs a little.
V2 = replace(PHOTO, usual_backdrop=0.75, span=(0.36, 0.8), turn_deg=40, shear=0.18, odd_hue=0.3)
_UNCLEAR = replace(PHOTO, span=(0.2, 0.3), clutter=(5, 8), turn_deg=60)
Row = tuple[str, DemoClass, Scene]  # path, class and picture of a photograph
_TWO_LABELS, _NO_LABEL = 0.09, 0.06  # shares of the validation images in ReaL


@dataclass(frozen=True)
class ValImage:
    """A drawn validation image."""

    name: str  # of its file, without the suffix
    item: DemoClass
    scene: Scene
    real: list[int]  # its labels in ReaL; empty if the picture is unclear

    @property
    def clear(self) -> bool:
        """Whether the picture shows its own class and no other."""
        return self.real == [self.item.index]


def photo_size(size_px: int, rng: np.random.Generator) -> Size:
    """Draws width and height of a photograph whose crops are `size_px`: mostly landscape, rarely square."""
    short = round(size_px * rng.uniform(1.12, 1.45))
    long = round(short * rng.choice([1.0, 1.2, 4 / 3], p=[0.1, 0.3, 0.6]))
    return (long, short) if rng.random() < 0.75 else (short, long)


def hash_name(*names: str | int, seed: int) -> str:
    """Returns a file stem of 40 hexadecimal digits, as several of the sets have."""
    return stream(seed, "name", *names).bytes(20).hex()


def each_draw(
    seed: int, name: str, items: Iterable[DemoClass], per_class: int
) -> Iterator[tuple[DemoClass, int, np.random.Generator]]:
    """Yields class, number within the class, and a random stream of its own for each picture of a set."""
    for item in items:
        for k in range(per_class):
            yield item, k, stream(seed, name, item.index, k)


def train_images(seed: int, size_px: int, per_class: int) -> Iterator[tuple[TrainImage, bytes]]:
    """Draws the training images as annotators see them, and their JPEGs."""
    for image_id, item, scene in train_scenes(seed, size_px, per_class):
        (width, height), (x0, y0, x1, y1) = scene.size, scene.boxes[0]
        cut_off = x0 == 0 or y0 == 0 or x1 == width - 1 or y1 == height - 1
        yield TrainImage(image_id, item.wnid, width, height, scene.boxes, cut_off), jpeg_bytes(scene.pixels)


def train_scenes(seed: int, size_px: int, per_class: int) -> Iterator[tuple[str, DemoClass, Scene]]:
    """Draws the training images, class by class, with random gaps in the numbers of each class: id, class, picture."""
    numbers = dict.fromkeys(CLASSES, 0)
    for item, _, rng in each_draw(seed, "train", CLASSES, per_class):
        numbers[item] += int(rng.integers(1, 40))
        yield f"{item.wnid}_{numbers[item]}", item, draw_scene(item, photo_size(size_px, rng), PHOTO, rng)


def val_images(seed: int, size_px: int, per_class: int) -> list[ValImage]:
    """Draws the validation images; their numbers mix the classes, so that name order is not class order."""
    items = [item for item in CLASSES for _ in range(per_class)]
    order = stream(seed, "val", "order").permutation(len(items))
    images = []
    for number, position in enumerate(order, start=1):
        rng = stream(seed, "val", number)
        images.append(_val_image(number, items[int(position)], photo_size(size_px, rng), rng))
    return images


def _val_image(number: int, item: DemoClass, size: Size, rng: np.random.Generator) -> ValImage:
    chance, name = rng.random(), f"ILSVRC2012_val_{number:08d}"
    if chance < _TWO_LABELS:
        others = [other for other in CLASSES if other.family != item.family]
        second = others[int(rng.integers(len(others)))]
        scene = draw_scene(item, size, replace(PHOTO, span=(0.45, 0.65)), rng, second=second)
        return ValImage(name, item, scene, sorted([item.index, second.index]))
    if chance < _TWO_LABELS + _NO_LABEL:
        return ValImage(name, item, draw_scene(item, size, _UNCLEAR, rng), [])
    return ValImage(name, item, draw_scene(item, size, PHOTO, rng), [item.index])


def real_archive(images: list[ValImage]) -> Archive:
    """real.json: a list of label lists, in order of the validation images' numbers."""
    content = json.dumps([image.real for image in images]).encode()
    return Archive("imagenet_real", "imagenet_real", "real.json", "plain", {"real.json": content}, unpack=False)


def v2_archive(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenetv2-matched-frequency.tar.gz: a plain tar despite its name; folders are class indices."""
    rows = _v2_photos(seed, size_px, per_class, "v2")
    return _v2_tar("imagenet_v2", "imagenet_v2", "imagenetv2-matched-frequency", rows)


def wsol_val_archives(seed: int, size_px: int, per_class: int) -> list[Archive]:
    """ImageNet-V2 threshold-0.7 as a plain tar, and the localisation benchmark's four lists for it."""
    rows = _v2_photos(seed, size_px, per_class, "wsol_val")
    tar = _v2_tar("imagenet_v2_threshold07", "wsol_val", "imagenetv2-threshold0.7", rows)
    listed = [(f"val2/{name}", item, scene) for name, item, scene in rows]
    return [tar, *_wsol_lists("val", sorted(listed, key=lambda row: row[0]))]


def _v2_photos(seed: int, size_px: int, per_class: int, name: str) -> list[Row]:
    rows = []
    for item, k, rng in each_draw(seed, name, CLASSES, per_class):
        path = f"{item.index}/{hash_name(name, item.index, k, seed=seed)}.jpeg"
        rows.append((path, item, draw_scene(item, photo_size(size_px, rng), V2, rng)))
    return rows


def _v2_tar(name: str, dataset: str, stem: str, rows: list[Row]) -> Archive:
    members = {f"{stem}-format-val/{path}": jpeg_bytes(scene.pixels) for path, _, scene in rows}
    return Archive(name, dataset, f"{stem}.tar.gz", "tar", members)


def wsol_test_archives(images: list[ValImage]) -> list[Archive]:
    """The localisation benchmark's four lists for ImageNet's validation images."""
    return _wsol_lists("test", [(f"val/{image.name}.JPEG", image.item, image.scene) for image in images])


def _wsol_lists(split: str, rows: list[Row]) -> list[Archive]:
    """image_ids, class_labels, image_sizes and localization; no newline at the end, as in the originals."""
    lists = {
        "image_ids": [path for path, _, _ in rows],
        "class_labels": [f"{path},{item.index}" for path, item, _ in rows],
        "image_sizes": [f"{path},{scene.size[0]},{scene.size[1]}" for path, _, scene in rows],
        "localization": [f"{path},{','.join(map(str, box))}" for path, _, scene in rows for box in scene.boxes],
    }
    archives = []
    for name, lines in lists.items():
        key, members = f"wsol_{split}_{name}", {name: "\n".join(lines).encode()}
        archives.append(Archive(key, f"wsol_{split}", f"{key}.txt", "plain", members, unpack=False))
    return archives
