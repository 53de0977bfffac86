"""Draws the demo world and packs it in the official formats, ready for the study to fetch."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from luab.demo.backgrounds_challenge import in9_archive
from luab.demo.classes import CLASSES
from luab.demo.coco import coco_archives
from luab.demo.imagenet_annotators import TrainImage, image_ab_members, record_counts
from luab.demo.imagenet_c import imagenet_c
from luab.demo.packing import Archive, jpeg_bytes, pack, write_archives_yaml
from luab.demo.photos import (
    ValImage,
    real_archive,
    train_images,
    v2_archive,
    val_images,
    wsol_test_archives,
    wsol_val_archives,
)
from luab.demo.shifted import imagenet_a, imagenet_o, imagenet_r, imagenet_sketch, objectnet, siscore
from luab.files import file_sha256, lines_sha256, replacing_folder, write_json
from luab.progress import progress
from luab.study.drawn_world import Demo

_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


def draw_world(folder: Path, world: Demo) -> None:
    """Draws the world into `folder`, which appears complete at the end and replaces an older one.

    The folder holds `imagenet/{train,val}/<wnid>/*.JPEG`, which stands in for the user's own copy; `server/`, with
    all other sets as archives of official name and layout and the `archives.yaml` to fetch them; and `world.json`.
    The same arguments give the same bytes on one machine.

    Args:
        folder: Folder to write.
        world: Seed, sizes and shares; the default takes a few seconds to draw.

    Raises:
        JobError: The disk is full, or the folder is not writable.
    """
    seed, size_px, sizes = world.seed, world.size_px, world.sizes
    # A second process draws the archives that need no picture of the first one, on the second core.
    other = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with replacing_folder(folder) as aside, other, progress("demo world", None, "files") as advance:
        tree, server = aside / "imagenet", aside / "server"
        for path in [server, *(tree / split / item.wnid for split in ("train", "val") for item in CLASSES)]:
            path.mkdir(parents=True)
        apart = other.submit(_pack_apart, world, server)
        images = []
        for image, content in train_images(seed, size_px, sizes.train):
            (tree / "train" / image.wnid / f"{image.image_id}.JPEG").write_bytes(content)
            images.append(image)
            advance(1)
        val = val_images(seed, size_px, sizes.val)
        for one in val:
            (tree / "val" / one.item.wnid / f"{one.name}.JPEG").write_bytes(jpeg_bytes(one.scene.pixels))
            advance(1)
        packed = _pack_all(archives_of_imagenet(world, images, val), server, advance) | apart.result()
        entries = {name: entry for name, (entry, _) in packed.items()}
        counts = {name: pictures for name, (_, pictures) in packed.items()}
        counts |= {"imagenet_train": len(images), "imagenet_val": len(val)}
        write_archives_yaml(entries, server / "archives.yaml")
        files = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.JPEG"))
        card = {
            "seed": seed,
            "size_px": size_px,
            "boxed": world.boxed,
            "sizes": sizes.model_dump(),
            "classes": {str(item.index): {"name": item.name, "wnid": item.wnid} for item in CLASSES},
            "counts": {name: count for name, count in counts.items() if count},
            "imagenet_sha256": lines_sha256([f"{name} {file_sha256(tree / name)}" for name in files]),
            "archives": {name: entry["sha256"] for name, entry in entries.items()},
        }
        write_json(aside / "world.json", card)


def archives_of_imagenet(world: Demo, images: list[TrainImage], val: list[ValImage]) -> Iterator[Archive]:
    """Yields the archives about the images of the drawn ImageNet one by one, so that only one is in memory."""
    seed, size_px = world.seed, world.size_px
    records, file = image_ab_members(images, seed, world.boxed), "imagenet_ab_v1_0.tar.gz"
    counts = record_counts(images, seed, records)
    yield Archive("imagenet_ab", "imagenet_ab", file, "tar.gz", records, unpack=False, keep_order=True, counts=counts)
    yield real_archive(val)
    yield from imagenet_c(seed, size_px, val, world.sizes.corrupted)
    yield from wsol_test_archives(val)


def archives_apart(world: Demo) -> Iterator[Archive]:
    """Yields the archives that have pictures of their own, one by one."""
    seed, size_px, sizes = world.seed, world.size_px, world.sizes
    yield v2_archive(seed, size_px, sizes.v2)
    yield imagenet_a(seed, size_px, sizes.adversarial)
    yield imagenet_o(seed, size_px, sizes.strange)
    yield imagenet_r(seed, size_px, sizes.renditions)
    yield imagenet_sketch(seed, size_px, sizes.sketches)
    yield objectnet(seed, size_px, sizes.objectnet)
    yield from siscore(seed, size_px, sizes.siscore)
    yield in9_archive(seed, size_px, sizes.in9)
    yield from wsol_val_archives(seed, size_px, sizes.wsol_val)
    yield from coco_archives(seed, size_px, sizes.coco_train, sizes.coco_val)


def _pack_apart(world: Demo, server: Path) -> dict[str, tuple[dict[str, Any], int]]:
    return _pack_all(archives_apart(world), server, lambda _: None)


def _pack_all(
    archives: Iterable[Archive], server: Path, advance: Callable[[int], None]
) -> dict[str, tuple[dict[str, Any], int]]:
    """Packs archives; returns each one's entry for archives.yaml and its number of pictures, by name."""
    packed = {}
    for archive in archives:
        pictures = sum(name.lower().endswith(_IMAGE_SUFFIXES) for name in archive.members)
        packed[archive.name] = pack(archive, server), pictures
        advance(len(archive.members))
    return packed
