"""Points on the masks of an instances file, in images of 8 x 6 pixels."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.data.manifests.manifest import INSTANCES_SCHEMA
from luab.data.supervisions.aim import points_in_masks
from luab.errors import DataError

pytest.importorskip("pycocotools")

SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]  # columns 2 to 5, rows 1 to 4
NAME = "COCO_train2014_000000000009"


def on_masks(folder: Path, segmentations: list[Any], points: dict[tuple[str, int], tuple[float, float]]) -> Any:
    annotations = [{"image_id": 9, "category_id": 1, "segmentation": given} for given in segmentations]
    (folder / "instances.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    row = {"image_id": NAME, "path": "x", "labels": [0], "group": "", "width": 8, "height": 6}
    pq.write_table(pa.Table.from_pylist([row], schema=INSTANCES_SCHEMA), folder / "manifest.parquet")
    return points_in_masks(folder / "instances.json", folder / "manifest.parquet", points)


@pytest.mark.parametrize(
    ("pixel", "inside"), [((2, 1), True), ((5.9, 4.9), True), ((1.9, 1), False), ((6, 4), False), ((2, 5), False)]
)
def test_the_pixel_under_a_point_decides(tmp_path: Path, pixel: tuple[float, float], inside: bool) -> None:
    point = {(NAME, 0): (pixel[0] / 8, pixel[1] / 6)}
    assert on_masks(tmp_path, [SQUARE], point) == {(NAME, 0): inside}


def test_any_mask_of_the_class_counts_including_run_lengths(tmp_path: Path) -> None:
    corner = {"counts": [47, 1], "size": [6, 8]}  # column 7, row 5
    for point, inside in (((1.0, 1.0), True), ((0.99, 0.99), True), ((0.5, 0.5), True), ((0.0, 1.0), False)):
        assert on_masks(tmp_path, [SQUARE, corner], {(NAME, 0): point}) == {(NAME, 0): inside}
    # Classes and images without an annotation are left out.
    assert on_masks(tmp_path, [SQUARE], {(NAME, 1): (0.5, 0.5), ("COCO_train2014_000000000010", 0): (0.5, 0.5)}) == {}


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("1e300")]],
        [["1"] * 6],
        {"counts": [48], "size": [8, 6]},
        {"counts": [47], "size": [6, 8]},
        {"counts": [-1, 49], "size": [6, 8]},
        {"counts": "abc", "size": [6, 8]},
    ],
)
def test_masks_that_pycocotools_would_misread_are_errors(tmp_path: Path, given: Any) -> None:
    with pytest.raises(DataError, match=r"entry 0 of 'annotations' at byte 17.*segmentation"):
        on_masks(tmp_path, [given], {(NAME, 0): (0.5, 0.5)})
