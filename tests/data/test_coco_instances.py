"""COCO 2014 as a manifest: labels, boxes and crowds of each image; damaged lists; missing images."""

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.coco_instances import read_instances
from luab.data.manifests.manifest import INSTANCES_SCHEMA, read_manifest, read_manifest_table
from luab.errors import DataError

NUMBERS = itertools.count(1)
CATEGORIES = [{"id": item.category_id, "name": item.name, "supercategory": "x"} for item in COCO_CLASSES]


def image(number: int, half: str = "train2014", size: tuple[int, int] = (64, 48)) -> dict[str, Any]:
    name = f"COCO_{half}_{number:012d}.jpg"
    return {"id": number, "file_name": name, "width": size[0], "height": size[1], "license": 3}


def annotation(
    number: int, category: int, bbox: Any = (1.5, 2.25, 10, 20), crowd: int = 0, **more: Any
) -> dict[str, Any]:
    made = {"image_id": number, "category_id": category, "bbox": list(bbox), "iscrowd": crowd, "area": 7.5}
    return made | {"id": next(NUMBERS)} | {"segmentation": [[1.5, 2.25, 11.5, 2.25, 11.5, 22.25]]} | more


def tree(root: Path, content: dict[str, Any] | str, *numbers: int, half: str = "train2014") -> Path:
    """Creates a COCO folder with files of one byte as images."""
    for folder in (half, "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (root / half / f"COCO_{half}_{number:012d}.jpg").write_bytes(b"\xff")
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / f"instances_{half}.json").write_text(text, encoding="utf-8")
    return root


def whole(images: list[Any], annotations: list[Any], categories: list[Any] = CATEGORIES) -> dict[str, Any]:
    return {
        "info": {"year": 2014},
        "images": images,
        "licenses": [],
        "annotations": annotations,
        "categories": categories,
    }


def build(root: Path, half: str = "coco_train", **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    made = root.parent / "manifest.parquet"
    card = build_manifest(half, root, made, made.with_suffix(".json"), **{"partial": True} | options)
    assert read_manifest_table(made).schema.equals(INSTANCES_SCHEMA)
    return read_manifest(made), card


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "coco"


def test_rows_hold_labels_boxes_crowds_and_areas(root: Path) -> None:
    annotations = [
        annotation(34, 24),
        annotation(9, 90, (0, 0, 64, 48), area=3072),  # the whole picture
        annotation(9, 13, (10.2, 20.7, 5.1, 0.0)),  # no height: one row of pixels
        annotation(9, 13, (60, 40.0, 9.9, 9.9), crowd=1),  # beyond the border
        annotation(9, 1, (2.0, 3.0, 4.0, 5.0)),  # whole numbers: columns 2 to 5, rows 3 to 7
    ]
    rows, card = build(tree(root, whole([image(34), image(9), image(100)], annotations), 9, 34, 100))
    assert rows["image_id"].tolist() == [f"COCO_train2014_{n:012d}" for n in (9, 34, 100)]
    assert rows["path"][0] == "train2014/COCO_train2014_000000000009.jpg"
    assert [list(labels) for labels in rows["labels"]] == [[0, 11, 79], [22], []]
    assert [list(labels) for labels in rows["box_labels"]] == [[79, 11, 11, 0], [22], []]
    assert [list(box) for box in rows["boxes"][0]] == [[0, 0, 63, 47], [10, 20, 15, 20], [60, 40, 63, 47], [2, 3, 5, 7]]
    assert rows["box_crowd"][0].tolist() == [False, False, True, False]
    assert rows["box_areas"][0].tolist() == [3072.0, 7.5, 7.5, 7.5]
    assert (rows["width"].tolist(), rows["height"].tolist()) == ([64] * 3, [48] * 3)
    assert (card["n"], card["classes"], card["agrees"]) == (3, 4, None)
    assert card["known"] == {"n": 82_783, "classes": 80}


def test_the_arrays_of_the_file_may_come_in_any_order(root: Path) -> None:
    content = whole([image(9)], [annotation(9, 1)])
    first, _ = build(tree(root, content, 9))
    again, _ = build(tree(root, dict(reversed(content.items())), 9))
    pd.testing.assert_frame_equal(first, again)


def test_the_other_half_has_its_own_folder_and_file(root: Path) -> None:
    tree(root, whole([image(9)], []), 9)
    tree(root, whole([image(42, "val2014")], [annotation(42, 2)]), 42, half="val2014")
    rows, card = build(root.parent, "coco_val")  # the folder can lie deeper
    assert (rows["path"][0], list(rows["labels"][0])) == ("coco/val2014/COCO_val2014_000000000042.jpg", [1])
    assert card["known"]["n"] == 40_504


def test_missing_and_unlisted_images(root: Path) -> None:
    tree(root, whole([image(9), image(25)], [annotation(25, 1)]), 9, 30)
    with pytest.raises(DataError, match=r"2 images that instances_train2014\.json lists, found 1.*0025.*partial"):
        build(root, partial=False)
    rows, card = build(root)
    assert (len(rows), card["agrees"]) == (1, None)
    assert card["ignored"] == {"images that are not listed": 1, "listed images that are not there": 1}
    tree(root, whole([image(77)], []))
    with pytest.raises(DataError, match="found 0"):
        build(root)


def test_a_list_that_was_cut_down_is_an_error_too(root: Path) -> None:
    tree(root, whole([image(9)], []), 9)
    with pytest.raises(DataError, match=r"expected the 82,783 images of coco_train, found 1; .*train2014 \(1\)"):
        build(root, partial=False)


def test_a_tree_without_the_annotations(root: Path) -> None:
    (root / "train2014").mkdir(parents=True)
    with pytest.raises(DataError, match=r"annotations/instances_train2014\.json.*annotations_trainval2014\.zip"):
        build(root)


@pytest.mark.parametrize(
    ("images", "annotations", "words"),
    [
        ([image(9), image(9)], [], "entry 1 of 'images' at byte [0-9]+: expected each id and each file once, found 9"),
        ([image(9), image(9) | {"id": 10}], [], r"entry 1 of 'images'.*found 10 \(COCO_train2014_000000000009.jpg\)"),
        ([image(9) | {"id": 9.0}], [], "id: Input should be a valid integer"),
        ([image(9)], [annotation(9, 1, id=3), annotation(9, 2, id=3)], "found 1 again, first id 3"),
        ([image(9)], [annotation(9.0, 1)], "image_id: Input should be a valid integer"),  # type: ignore[arg-type]
        ([image(9) | {"file_name": "../9.jpg"}], [], "file name"),
        ([image(9) | {"file_name": "9.png"}], [], "file name"),
        ([image(9) | {"width": 0}], [], "width: Input should be greater than 0"),
        ([image(9) | {"height": "48"}], [], "height: Input should be a valid integer"),
        ([5], [], "should be a valid dictionary"),
        ([image(9)], [annotation(25, 1)], "in `images`, found 1 images that are not listed, first 25"),
        ([image(9)], [annotation(9, 12)], "80 category ids .*, found 12; some tools number"),
        (
            [image(9)],
            [annotation(9, 1), annotation(9, 1, (1, 2, 3))],
            "entry 1 of 'annotations'.*bbox: List should have at least 4 items",
        ),
        ([image(9)], [annotation(9, 1, (1, 2, -3, 4))], "bbox of width and height >= 0"),
        ([image(9)], [annotation(9, 1, (1, 2, 3, "4"))], "bbox.3: Input should be a valid number"),
        ([image(9)], [annotation(9, 1, area=True)], "area: Input should be a valid number"),
        ([image(9)], [annotation(9, 1, area=10**400)], "area: Input should be a valid number"),
        ([image(9)], [annotation(9, 1, crowd=None)], "iscrowd"),  # type: ignore[arg-type]
        ([image(9)], [{"id": 1, "image_id": 9}], "category_id: Field required"),
    ],
)
def test_wrong_entries_are_named(root: Path, images: Any, annotations: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        build(tree(root, whole(images, annotations), 9))


def test_wrong_categories_and_damaged_files(root: Path) -> None:
    for categories in (CATEGORIES[:-1], [{"id": 1, "name": "aeroplane"}, *CATEGORIES[1:]]):
        with pytest.raises(DataError, match=r"80 categories.*\[(1|90)\]"):
            build(tree(root, whole([image(9)], [], categories), 9))
    text = json.dumps(whole([image(9)], [annotation(9, 1)]))
    for broken, words in ((text[:400], "byte"), ('{"images": []}', "annotations, categories not found")):
        with pytest.raises(DataError, match=words):
            build(tree(root, broken, 9))


def test_objects_of_one_image_by_its_number(root: Path) -> None:
    annotations = [annotation(34, 3), annotation(9, 2), annotation(34, 1)]
    instances = read_instances(
        tree(root, whole([image(9), image(34), image(40)], annotations)) / "annotations" / "instances_train2014.json"
    )
    assert [instances.of(number)["label"].tolist() for number in (9, 34, 40)] == [[1], [2, 0], []]
    assert instances.of(34)["xywh"].tolist() == [[1.5, 2.25, 10.0, 20.0]] * 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[1, 1, 5, 5]], "found a polygon of 4 numbers"),
        ([[1, 1, 5, 5, 1, 5], [1, 1, 5, 5, 1, 5, 2]], "found a polygon of 7 numbers"),
        ([[]], "found a polygon of 0 numbers"),
        ([], r"found \[\]"),
        (None, "found None"),
        ({"counts": "PPY", "size": [48, 64]}, "found compressed run lengths"),
        ({"counts": [64 * 48], "size": [64, 48]}, "image's 64 x 48 pixels, found run lengths of 48 x 64"),
        ({"counts": [9], "size": [48, 64]}, "whole numbers as run lengths"),
        ({"counts": [3072.0], "size": [48, 64]}, "whole numbers as run lengths"),
    ],
)
@pytest.mark.parametrize("first", ["images", "annotations"])
def test_masks_that_a_tool_rewrote_are_found_by_the_manifest(root: Path, first: str, given: Any, words: str) -> None:
    content = whole([image(9)], [annotation(9, 1), annotation(9, 2, segmentation=given)])
    ordered = {first: content[first]} | content
    with pytest.raises(DataError, match=rf"entry 1 of 'annotations'.*segmentation.*{words}|{words}.*rewritten"):
        build(tree(root, ordered, 9))


def test_run_lengths_that_fit_are_accepted_in_any_order(root: Path) -> None:
    content = whole([image(9)], [annotation(9, 1, segmentation={"counts": [64 * 48], "size": [48, 64]})])
    for ordered in (content, dict(reversed(content.items()))):
        assert build(tree(root, ordered, 9))[1]["n"] == 1
