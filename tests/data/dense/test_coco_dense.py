"""COCO's boxes and masks, and the points of COCO-AB."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.dense.coco import CLASSES, detection, points, segmentation
from luab.data.supervisions.point_files import write_points
from luab.errors import DataError
from luab.study.noises import Point

SIZE_WH = (64, 48)


def stem(number: int, half: str = "train2014") -> str:
    return f"COCO_{half}_{number:012d}"


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(number: int, image: int, category: int, x: float, y: float, side: float, **more: Any) -> dict[str, Any]:
    made = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": side * side}
    return made | {"bbox": [x, y, side, side], "segmentation": square(x, y, side)} | more


def crowd(x0: int, x1: int) -> dict[str, Any]:
    """Run lengths of the columns x0 to x1 - 1."""
    width, height = SIZE_WH
    return {"counts": [x0 * height, (x1 - x0) * height, (width - x1) * height], "size": [height, width]}


ANNOTATIONS = [
    annotation(1, 9, 1, 4, 4, 10),
    annotation(2, 9, 18, 8, 8, 10),  # a dog over the person
    annotation(3, 9, 1, 2, 4, 6),  # a second person over the first
    annotation(4, 9, 16, 16, 0, 8, iscrowd=1, segmentation=crowd(16, 48), bbox=[16, 0, 32, 48]),  # over the dog
    annotation(5, 30, 90, 60.5, 40.25, 10),  # over the border
    annotation(6, 30, 1, 5, 5, 4, bbox=[5, 5, 0, 4]),  # without area
    annotation(7, 31, 16, 0, 0, 8, iscrowd=1, segmentation=crowd(0, 8)),  # nothing but a crowd
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for half in ("train2014", "val2014"):
        (root / half).mkdir()
        images = []
        for number in (31, 9, 30, 32):
            name = f"{stem(number, half)}.jpg"
            images.append({"id": number, "file_name": name, "width": SIZE_WH[0], "height": SIZE_WH[1]})
            Image.new("RGB", SIZE_WH).save(root / half / name)
        categories = [{"id": item.category_id, "name": item.name} for item in COCO_CLASSES]
        content = {"info": {}, "images": images, "annotations": ANNOTATIONS, "categories": categories}
        (root / "annotations" / f"instances_{half}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_training_leaves_out_crowds_and_images_without_boxes(root: Path) -> None:
    train = detection(root, "train", partial=True)
    assert train.image_ids == [stem(9), stem(30)]
    image, target = train[0]
    assert image.shape == (3, 48, 64)
    assert target["boxes"].tolist() == [[4, 4, 14, 14], [8, 8, 18, 18], [2, 4, 8, 10]]
    assert target["labels"].tolist() == [1, 17, 1] and target["area"].tolist() == [100, 100, 36]
    assert not target["iscrowd"].any() and not target["difficult"].any()
    assert train.target(1)["boxes"].tolist() == [[60.5, 40.25, 64, 48]] and train.target(1)["labels"].tolist() == [80]


def test_validation_keeps_everything_as_annotated(root: Path) -> None:
    val = detection(root, "val", partial=True)
    assert val.image_ids == [stem(number, "val2014") for number in (9, 30, 31, 32)]
    assert val.target(0)["iscrowd"].tolist() == [False, False, False, True]
    assert val.objects(1)["xyxy"].tolist() == [[60.5, 40.25, 70.5, 50.25], [5, 5, 5, 9]]
    assert val.target(3)["boxes"].shape == (0, 4) and val[3][1]["labels"].shape == (0,)
    assert [CLASSES[label - 1] for label in val.objects(0)["label"]] == ["person", "dog", "person", "bird"]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools and numpy 2
def test_masks_agree_with_pycocotools(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official = COCO(root / "annotations/instances_val2014.json")
    masks = {number: official.annToMask(official.anns[number]).astype(bool) for number in official.anns}
    capsys.readouterr()
    mask = segmentation(root, "val", partial=True)[0][1]["mask"].numpy()
    person, dog, bird = masks[1] | masks[3], masks[2], masks[4]
    assert (person & dog).any() and (dog & bird).any()
    expected = np.select([person & dog, person, dog, bird], [255, 1, 17, 255], 0)
    assert np.array_equal(mask, expected)


def test_images_without_objects_are_background_and_left_out_in_training(root: Path) -> None:
    train, val = segmentation(root, "train", partial=True), segmentation(root, "val", partial=True)
    assert train.image_ids == [stem(9), stem(30), stem(31)] and len(val) == 4
    assert not val[3][1]["mask"].any()
    assert val[2][1]["mask"].unique().tolist() == [0, 255]


def test_points_are_pixels_of_annotated_classes(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "click.parquet"
    made = [Point(stem(9), 0, 0.125, 0.25), Point(stem(9), 16, 1.0, 0.5), Point(stem(9), 3, 0.5, 0.5)]
    write_points([*made, Point(stem(30), 3, 0.5, 0.5)], file, file.with_suffix(".json"), {})
    pointed = points(root, file, partial=True)
    assert pointed.image_ids == [stem(9)]  # the only tag of image 30 is of a class that it does not have
    image, target = pointed[0]
    assert image.shape == (3, 48, 64) and target["points"].canvas_size == (48, 64)
    assert target["points"][0].tolist() == [8, 12] and target["points"].floor().tolist()[1] == [63, 24]
    assert target["point_labels"].tolist() == [1, 17]
    assert target["image_labels"].tolist() == [1, 15, 17]  # with the crowd of birds, which nobody tagged


def test_points_of_other_images_are_an_error(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "click.parquet"
    write_points([Point(stem(77), 0, 0.5, 0.5)], file, file.with_suffix(".json"), {})
    with pytest.raises(DataError, match="expected points of images in"):
        points(root, file, partial=True)


def test_missing_images_are_an_error(root: Path) -> None:
    (root / "val2014" / f"{stem(30, 'val2014')}.jpg").unlink()
    with pytest.raises(DataError, match=r"expected the 4 images that instances_val2014\.json lists, found 3"):
        detection(root, "val")
    assert len(detection(root, "val", partial=True)) == 3


def test_another_number_of_images_than_published_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match="expected the 40,504 images of coco_val, found 4"):
        detection(root, "val")
