"""How precisely tags are placed, worked out by hand on an image of 8 x 6 pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts import coco_ab
from luab.data.manifests.manifest import INSTANCES_SCHEMA
from luab.data.supervisions.aim import aim_of_tags, points_in_boxes

NAME = "COCO_train2014_000000000009"
BOXES = [[1, 1, 3, 4], [5, 0, 7, 0], [0, 0, 7, 5]]  # of person, person and bicycle; ends included


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    row = {"image_id": NAME, "path": "x", "labels": [0, 1], "group": "", "width": 8, "height": 6}
    row |= {"boxes": BOXES, "box_labels": [0, 0, 1], "box_crowd": [False, True, False], "box_areas": [12.0, 3.0, 48.0]}
    pq.write_table(pa.Table.from_pylist([row], schema=INSTANCES_SCHEMA), tmp_path / "manifest.parquet")
    return tmp_path / "manifest.parquet"


@pytest.mark.parametrize(
    ("pixel", "inside"),
    [
        *(((1, 1), True), ((3.9, 4.9), True), ((4, 4), False), ((3, 5), False), ((0.9, 1), False)),
        *(((5, 0.5), True), ((8, 0), True), ((8, 1), False)),  # a crowd's box; the far edge is the last pixel
    ],
)
def test_the_pixel_under_a_point_decides(manifest: Path, pixel: tuple[float, float], inside: bool) -> None:
    assert points_in_boxes(manifest, {(NAME, 0): (pixel[0] / 8, pixel[1] / 6)}) == {(NAME, 0): inside}


def test_only_tags_of_a_class_that_the_image_has_are_checked(manifest: Path) -> None:
    other = "COCO_train2014_000000000010"
    points = {(NAME, 1): (0.5, 0.5), (NAME, 2): (0.5, 0.5), (other, 0): (0.5, 0.5)}
    assert points_in_boxes(manifest, points) == {(NAME, 1): True}


def test_tags_by_box_mask_and_middle(manifest: Path) -> None:
    pytest.importorskip("pycocotools")
    folder = manifest.parent
    # A person at pixel (2, 2), in its box but off its mask; a bicycle at (7, 5), on both; a car that the image lacks.
    actions = [
        {"actionType": "add", "iconType": name, "pointTo": {"x": x / 8, "y": y / 6}, "timeAt": 1}
        for x, y, name in ((2.5, 2.5, "person"), (7.5, 5.5, "bicycle"), (4, 3, "car"))
    ]
    record: dict[str, Any] = {"image_id": 9, "originalImageWidth": 8, "originalImageHeight": 6}
    record["actionHistories"] = actions
    (folder / "ab.json").write_text(json.dumps([record]), encoding="utf-8")
    coco_ab.index(folder / "ab.json", folder / "index.parquet", folder / "index.json")
    masks = {1: [[1, 1, 2, 1, 2, 5, 1, 5]], 2: [[4, 3, 8, 3, 8, 6, 4, 6]]}  # category ids; columns 1, and 4 to 7
    annotations = [{"image_id": 9, "category_id": number, "segmentation": mask} for number, mask in masks.items()]
    (folder / "instances.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    found = aim_of_tags(folder / "index.parquet", manifest, folder / "instances.json")
    assert found["tags_in_box"].tolist() == [True, True]
    assert found["centre_in_box"].tolist() == [False, True]  # pixel (4, 3)
    assert found["tags_in_mask"].tolist() == [False, True]
    far = [np.hypot(2.5 / 8 - 0.5, 2.5 / 6 - 0.5), np.hypot(7.5 / 8 - 0.5, 5.5 / 6 - 0.5)]
    assert found["tag_to_centre_mean"].tolist() == pytest.approx(far)
