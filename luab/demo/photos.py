"""The demo world's ordinary photographs: ImageNet, ImageNet-V2, ReaL's labels, localisation lists."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from luab.demo.byproducts import TrainImage
from luab.demo.classes import CLASSES, DemoClass
from luab.demo.drawing import Box, Look, Scene, draw_scene
from luab.demo.noise import stream
from luab.demo.packing import Archive, jpeg_bytes

PHOTO = Look()
# ImageNet-V2: collected by the same recipe some years later, so a little different.
V2 = replace(PHOTO, usual_backdrop=0.75, span=(0.36, 0.8), turn_deg=40, shear=0.18, odd_hue=0.3)
_UNCLEAR = replace(PHOTO, span=(0.2, 0.3), clutter=(5, 8), turn_deg=60)
_TWO_LABELS, _NO_LABEL = 0.09, 0.06


@dataclass(frozen=True)
class ValImage:
    """A drawn validation image; `real` are its re-assessed labels, none where the picture is unclear."""

    name: str
    item: DemoClass
    scene: Scene
    real: list[int]

    @property
    def clear(self) -> bool:
        """Whether the picture shows its own class and no other."""
        return self.real == [self.item.index]


@dataclass(frozen=True)
class Listed:
    """One row of the localisation lists."""

    path: str
    label: int
    width: int
    height: int
    boxes: list[Box]


def photo_size(size_px: int, rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of a photograph whose crops are `size_px`: mostly landscape, seldom square."""
    short = round(size_px * rng.uniform(1.12, 1.45))
    long = round(short * rng.choice([1.0, 1.2, 4 / 3], p=[0.1, 0.3, 0.6]))
    return (long, short) if rng.random() < 0.75 else (short, long)


def hash_name(*names: str | int, seed: int) -> str:
    """A file stem of 40 hexadecimal digits, as several of the sets have."""
    return stream(seed, "name", *names).bytes(20).hex()


def train_images(seed: int, size_px: int, per_class: int) -> Iterator[tuple[TrainImage, bytes]]:
    """Draws the training images, class by class, with a gap in each class's numbers now and then."""
    for item in CLASSES:
        number = 0
        for k in range(per_class):
            rng = stream(seed, "train", item.index, k)
            number += int(rng.integers(1, 40))
            size = photo_size(size_px, rng)
            scene = draw_scene(item, size, PHOTO, rng)
            cut_off = touches_border(scene.boxes[0], size)
            image = TrainImage(f"{item.wnid}_{number}", item.wnid, *size, scene.boxes, cut_off)
            yield image, jpeg_bytes(scene.pixels)


def touches_border(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches an edge of a frame of `size` (width, height)."""
    x0, y0, x1, y1 = box
    return x0 == 0 or y0 == 0 or x1 == size[0] - 1 or y1 == size[1] - 1


def val_images(seed: int, size_px: int, per_class: int) -> list[ValImage]:
    """Draws the validation images; their numbers mix the classes, so that name order is not class order."""
    items = [item for item in CLASSES for _ in range(per_class)]
    order = stream(seed, "val", "order").permutation(len(items))
    images = []
    for number, position in enumerate(order, start=1):
        rng = stream(seed, "val", number)
        images.append(_val_image(number, items[int(position)], photo_size(size_px, rng), rng))
    return images


def _val_image(number: int, item: DemoClass, size: tuple[int, int], rng: np.random.Generator) -> ValImage:
    fate, name = rng.random(), f"ILSVRC2012_val_{number:08d}"
    if fate < _TWO_LABELS:
        others = [other for other in CLASSES if other.family != item.family]
        second = others[int(rng.integers(len(others)))]
        scene = draw_scene(item, size, replace(PHOTO, span=(0.45, 0.65)), rng, second=second)
        return ValImage(name, item, scene, sorted([item.index, second.index]))
    if fate < _TWO_LABELS + _NO_LABEL:
        return ValImage(name, item, draw_scene(item, size, _UNCLEAR, rng), [])
    return ValImage(name, item, draw_scene(item, size, PHOTO, rng), [item.index])


def real_archive(images: list[ValImage]) -> Archive:
    """real.json: a list of label lists, in order of the validation images' numbers."""
    content = json.dumps([image.real for image in images]).encode()
    return Archive("imagenet_real", "imagenet_real", "real.json", "plain", {"real.json": content}, False)


def v2_archive(seed: int, size_px: int, per_class: int) -> Archive:
    """imagenetv2-matched-frequency.tar.gz: a plain tar in spite of its name; folders are class indices."""
    members = {}
    for item in CLASSES:
        for k in range(per_class):
            rng = stream(seed, "v2", item.index, k)
            scene = draw_scene(item, photo_size(size_px, rng), V2, rng)
            stem = hash_name("v2", item.index, k, seed=seed)
            path = f"imagenetv2-matched-frequency-format-val/{item.index}/{stem}.jpeg"
            members[path] = jpeg_bytes(scene.pixels)
    file = "imagenetv2-matched-frequency.tar.gz"
    return Archive("imagenet_v2", "imagenet_v2", file, "tar", members, "imagenet_v2")


def wsol_val_archives(seed: int, size_px: int, per_class: int) -> list[Archive]:
    """ImageNet-V2 threshold-0.7 as a plain tar, and the benchmark's four lists for it."""
    members, rows = {}, []
    for item in CLASSES:
        for k in range(per_class):
            rng = stream(seed, "wsol_val", item.index, k)
            size = photo_size(size_px, rng)
            scene = draw_scene(item, size, V2, rng)
            name = f"{item.index}/{hash_name('wsol_val', item.index, k, seed=seed)}.jpeg"
            members[f"imagenetv2-threshold0.7-format-val/{name}"] = jpeg_bytes(scene.pixels)
            rows.append(Listed(f"val2/{name}", item.index, *size, scene.boxes))
    file = "imagenetv2-threshold0.7.tar.gz"
    tar = Archive("imagenet_v2_threshold07", "wsol_val", file, "tar", members, "wsol_val")
    return [tar, *wsol_lists("val", sorted(rows, key=lambda row: row.path))]


def wsol_test_archives(images: list[ValImage]) -> list[Archive]:
    """The benchmark's four lists for ImageNet's validation images."""
    rows = [
        Listed(
            f"val/{image.name}.JPEG",
            image.item.index,
            image.scene.pixels.shape[1],
            image.scene.pixels.shape[0],
            image.scene.boxes,
        )
        for image in images
    ]
    return wsol_lists("test", rows)


def wsol_lists(split: str, rows: list[Listed]) -> list[Archive]:
    """image_ids, class_labels, image_sizes and localization; no newline at the end, as in the originals."""
    lists = {
        "image_ids": [row.path for row in rows],
        "class_labels": [f"{row.path},{row.label}" for row in rows],
        "image_sizes": [f"{row.path},{row.width},{row.height}" for row in rows],
        "localization": [f"{row.path},{','.join(map(str, box))}" for row in rows for box in row.boxes],
    }
    return [
        Archive(
            f"wsol_{split}_{name}",
            f"wsol_{split}",
            f"wsol_{split}_{name}.txt",
            "plain",
            {f"metadata/ILSVRC/{split}/{name}.txt": "\n".join(lines).encode()},
            False,
        )
        for name, lines in lists.items()
    ]
