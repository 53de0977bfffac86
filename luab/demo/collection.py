"""Drawn images and a configuration for `luab annotate --demo`: both interfaces with nothing to configure."""

from pathlib import Path

import yaml

from luab.demo.classes import CLASSES
from luab.demo.coco import coco_pictures
from luab.demo.packing import jpeg_bytes
from luab.demo.photos import train_images
from luab.files import replacing_folder

_CLASSES, _PER_CLASS, _TAGGED = 6, 12, 12
_SIZE_PX = 224
_GOLD = 3  # of each class, and of the images to tag

_CONSENT = [
    "This is the demo of luab annotate. All images are drawn, and what you record stays on this machine.",
    "In a collection of your own, this text says who collects, why, on which legal basis, how long the records are "
    "kept, what is paid, and whom to ask.",
]


def draw_collection(folder: Path, seed: int = 0) -> Path:
    """Draws a small collection into `folder`, unless it is already there; returns its configuration file.

    The same seed gives the same images. The folder holds photos/<class>/*.jpg, scenes/*.jpg, their lists with the known
    ones, and annotate.yaml.

    Raises:
        JobError: The disk is full, or the folder is not writable.
    """
    if not (folder / "annotate.yaml").exists():
        with replacing_folder(folder) as aside:
            _draw(aside, seed)
    return folder / "annotate.yaml"


def _draw(folder: Path, seed: int) -> None:
    names = {item.wnid: item.name for item in CLASSES}
    photos = ["image,class,gold"]
    numbers: dict[str, int] = {}
    for image, content in train_images(seed, _SIZE_PX, _PER_CLASS):
        name = names[image.wnid]
        if name not in numbers and len(numbers) == _CLASSES:
            break
        numbers[name] = numbers.get(name, 0) + 1
        path = f"{name}/{image.image_id}.jpg"
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / path).write_bytes(content)
        photos.append(f"{path},{name},{'yes' if numbers[name] <= _GOLD else ''}")
    scenes = ["image,class,gold"]
    (folder / "scenes").mkdir()
    for place, picture in enumerate(coco_pictures(seed, "train2014", _SIZE_PX, _TAGGED)):
        path = f"COCO_train2014_{picture.number:012d}.jpg"
        (folder / "scenes" / path).write_bytes(jpeg_bytes(picture.pixels))
        if place < _GOLD:
            scenes += [f"{path},{name},yes" for name in sorted({item.name for item in picture.objects})]
    for name, lines in (("photos", photos), ("scenes", scenes)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "annotate.yaml").write_text(yaml.safe_dump(_configuration(), sort_keys=False), encoding="utf-8")


def _configuration() -> dict[str, object]:
    return {
        "title": "Demo of luab annotate",
        "consent": {"version": "1", "text": _CONSENT},
        "assignments_per_worker": None,
        "browsing": {
            "images": "photos",
            "image_list": "photos.csv",
            "instructions": [
                "Click every image that contains at least one such object: click on the object. It counts even if it "
                "is partly hidden or small. Click again to undo. With the keyboard, Tab moves from image to image, and "
                "the space bar selects."
            ],
            "images_per_page": 12,
            "pages": 3,
            "gold_per_page": 1,
            "distractors_per_page": 3,
            "annotators_per_image": 3,
        },
        "tagging": {
            "images": "scenes",
            "image_list": "scenes.csv",
            "pages": 4,
            "gold_per_assignment": 1,
            "annotators_per_image": 3,
        },
    }
