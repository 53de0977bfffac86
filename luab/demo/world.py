"""Draws the demo world and packs it in the official formats, ready for the study to fetch."""

from collections.abc import Iterator
from pathlib import Path

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
    with replacing_folder(folder) as aside, progress("demo world", None, "files") as advance:
        tree, server = aside / "imagenet", aside / "server"
        for path in [server, *(tree / split / item.wnid for split in ("train", "val") for item in CLASSES)]:
            path.mkdir(parents=True)
        images = []
        for image, content in train_images(seed, size_px, sizes.train):
            (tree / "train" / image.wnid / f"{image.image_id}.JPEG").write_bytes(content)
            images.append(image)
            advance(1)
        val = val_images(seed, size_px, sizes.val)
        for one in val:
            (tree / "val" / one.item.wnid / f"{one.name}.JPEG").write_bytes(jpeg_bytes(one.scene.pixels))
            advance(1)
        entries, counts = {}, {"imagenet_train": len(images), "imagenet_val": len(val)}
        for archive in archives(world, images, val):
            entries[archive.name] = pack(archive, server)
            counts[archive.name] = sum(name.lower().endswith(_IMAGE_SUFFIXES) for name in archive.members)
            advance(len(archive.members))
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


def archives(world: Demo, images: list[TrainImage], val: list[ValImage]) -> Iterator[Archive]:
    """Yields the archives of the demo's server one by one, so that only one is in memory."""
    seed, size_px, sizes = world.seed, world.size_px, world.sizes
    records, file = image_ab_members(images, seed, world.boxed), "imagenet_ab_v1_0.tar.gz"
    counts = record_counts(images, seed, records)
    yield Archive("imagenet_ab", "imagenet_ab", file, "tar.gz", records, unpack=False, keep_order=True, counts=counts)
    yield real_archive(val)
    yield v2_archive(seed, size_px, sizes.v2)
    yield imagenet_a(seed, size_px, sizes.adversarial)
    yield imagenet_o(seed, size_px, sizes.strange)
    yield imagenet_r(seed, size_px, sizes.renditions)
    yield imagenet_sketch(seed, size_px, sizes.sketches)
    yield from imagenet_c(seed, size_px, val, sizes.corrupted)
    yield objectnet(seed, size_px, sizes.objectnet)
    yield from siscore(seed, size_px, sizes.siscore)
    yield in9_archive(seed, size_px, sizes.in9)
    yield from wsol_val_archives(seed, size_px, sizes.wsol_val)
    yield from wsol_test_archives(val)
    yield from coco_archives(seed, size_px, sizes.coco_train, sizes.coco_val)
