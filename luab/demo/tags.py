"""Tags on the demo's ImageNet pictures, as if people had used the interface of COCO-AB on the images of ImageNet-AB."""

import csv
from pathlib import Path

from luab.demo.coco_annotators import tag_one
from luab.demo.photos import train_scenes
from luab.files import replacing
from luab.study.drawn_world import Demo

_COLUMNS = ("image", "x", "y", "time_ms", "worker", "class")


def draw_tags(world: Demo, file: Path) -> None:
    """Writes at most one tag for each training image of the world, as a table that `luab annotate` could have written.

    The tag is on the main object, or off it where the annotator erred. The same arguments give the same bytes on one
    machine.
    ASSUME: the demo's annotators of tags miss, err and aim on ImageNet's pictures as on COCO's.

    Args:
        world: Seed and sizes; those of the training images alone matter.
        file: CSV file to write.

    Raises:
        JobError: The disk is full, or the folder is not writable.
    """
    with replacing(file) as aside, open(aside, "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(_COLUMNS)
        for image_id, item, scene in train_scenes(world.seed, world.size_px, world.sizes.train):
            if tag := tag_one(image_id, item.name, scene.mask, world.seed):
                table.writerow([f"{item.wnid}/{image_id}.JPEG", tag.x, tag.y, tag.time_ms, tag.worker_id, item.name])
