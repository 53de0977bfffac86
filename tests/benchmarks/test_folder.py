"""Benchmarks of your own images, by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from luab.benchmarks.folder import FORMULAS
from luab.benchmarks.formula import Inputs, Scores
from luab.errors import DataError


def scored(name: str, columns: dict[str, Any]) -> Scores:
    return FORMULAS[name](Inputs({name: pa.table(columns)}, {}, 8))


def test_balanced_accuracy_weighs_classes_and_top5_needs_six_classes() -> None:
    columns = {
        "image_id": ["a/1", "a/2", "a/3", "b/1"],  # equal names in two classes are different images
        "group": ["a", "a", "a", "b"],
        "labels": pa.array([[0], [0], [0], [1]], pa.list_(pa.int16())),
        "top5": pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 0, 1, 1, 0, 1, 0], pa.int16()), 2),
    }
    scores = scored("folder_val", columns)
    assert scores.metrics == {"top1": 3 / 4, "balanced_accuracy": (2 / 3 + 1) / 2} and scores.n == 4
    assert scores.images is not None and len(scores.images().ids) == 4
    assert scores.images().headline == pytest.approx(scores.metrics["balanced_accuracy"])
    assert {d.group: d.value for d in scores.details if d.metric == "accuracy"} == {"a": 2 / 3, "b": 1.0}
    controls = {d.group: d.value for d in scores.details if d.metric == "chance"}
    assert controls == {"top1": 1 / 2, "balanced_accuracy": 1 / 2}


def test_each_test_set_counts_as_much_as_the_others_and_so_does_each_of_its_classes() -> None:
    columns = {
        "image_id": ["day/a/1", "day/a/2", "day/a/3", "day/b/1", "night/a/1", "night/a/2"],
        "group": ["day", "day", "day", "day", "night", "night"],
        "labels": pa.array([[0], [0], [0], [1], [0], [0]], pa.list_(pa.int16())),
        "top5": pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1], pa.int16()), 2),
    }
    scores = scored("folder_tests", columns)
    # By day two of three a and the b are right, by night one of two a.
    assert scores.metrics["balanced_accuracy"] == pytest.approx(((2 / 3 + 1) / 2 + 1 / 2) / 2)
    assert scores.metrics["top1"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    parts = {(d.group, d.metric): (d.value, d.n) for d in scores.details if d.metric != "chance"}
    assert parts == {
        ("day", "top1"): (3 / 4, 4),
        ("day", "balanced_accuracy"): (pytest.approx((2 / 3 + 1) / 2), 4),
        ("night", "top1"): (1 / 2, 2),
        ("night", "balanced_accuracy"): (1 / 2, 2),
    }
    # Two classes by day, one by night: a guess is right for 1/2 and 1 of the images.
    assert {d.value for d in scores.details if d.metric == "chance"} == {(1 / 2 + 1) / 2}
    assert scores.images is not None and scores.images().headline == pytest.approx(scores.metrics["balanced_accuracy"])
    assert scores.n == len(scores.images().ids) == 6


def columns(points: bool = True, boxes: Any = ((), (), ())) -> dict[str, Any]:
    """Three images of 30 x 40 px, diagonal 50, with maps of 2 x 2; the last one has no recorded point."""
    cam = [[0, 1, 2, 3], [0, 1, 2, 3], [5, 5, 5, 5]]
    nothing: list[float | None] = [None] * 3
    return {
        "image_id": ["1", "2", "3"],
        "cam": pa.array(cam, pa.list_(pa.float32())),
        "cam_h": np.full(3, 2, np.int16),
        "cam_w": np.full(3, 2, np.int16),
        "width": np.full(3, 30, np.int32),
        "height": np.full(3, 40, np.int32),
        "boxes": pa.array([list(map(list, of)) for of in boxes], pa.list_(pa.list_(pa.int32(), 4))),
        "point_x": pa.array([0.5, 0.0, 0.1] if points else nothing, pa.float32()),
        "point_y": pa.array([0.5, 1.0, 0.1] if points else nothing, pa.float32()),
        "recorded_x": pa.array([1.0, 0.0, None], pa.float32()),
        "recorded_y": pa.array([1.0, 0.0, None], pa.float32()),
    }


def test_points_and_maps_are_compared_with_recorded_points() -> None:
    scores = scored("folder_points", columns())
    # Values 3 (three below, itself half) and 0; distances 25 and 40 of 50; the centre is 25 from both corners.
    assert scores.metrics == pytest.approx(
        {"map_rank": (3.5 / 4 + 0.5 / 4) / 2, "point_distance": (0.5 + 0.8) / 2, "centre_distance": 0.5}
    )
    assert scores.n == 2 and list(scores.ids) == ["1", "2"]


def test_a_baseline_has_the_map_alone() -> None:
    assert list(scored("folder_points", columns(points=False)).metrics) == ["map_rank"]


def test_boxes_add_their_metrics() -> None:
    scores = scored("folder_points", columns(boxes=([(0, 0, 14, 19)], [(0, 30, 9, 39)], ())))
    assert scores.metrics["point_in_box"] == 1.0 and 0 <= scores.metrics["max_box_acc_v2"] <= 1


def test_without_any_recorded_point_the_error_names_the_remedy() -> None:
    table = columns() | {"recorded_x": pa.nulls(3, pa.float32()), "recorded_y": pa.nulls(3, pa.float32())}
    with pytest.raises(DataError, match=r"Add held-out images to `folder\.byproducts`"):
        scored("folder_points", table)


def test_a_name_of_a_class_may_be_any_text(tmp_path: Path) -> None:
    columns = {
        "image_id": ["1", "2"],
        "group": ["=cmd|x", "猫 und Hund"],
        "labels": pa.array([[0], [1]], pa.list_(pa.int16())),
        "top5": pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 0, 1], pa.int16()), 2),
    }
    assert scored("folder_val", columns).metrics["balanced_accuracy"] == 0.5
