"""Statistics of COCO-AB, worked by hand."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from luab.byproducts.coco_ab import SCHEMA
from luab.byproducts.statistics.coco import coco_statistics


def row(number: int, worker: str | None, spent: int | None, *actions: tuple[str, int, int], samples: int = 0) -> Any:
    """One record; actions as (kind, class, ms)."""
    made: dict[str, Any] = {"image_id": number, "worker_id": worker, "time_spent_ms": spent, "width": 10, "height": 10}
    made |= {"action_type": [kind for kind, _, _ in actions], "action_class": [label for _, label, _ in actions]}
    made |= {"action_from_xy": [[0.5, 0.5]] * len(actions), "action_to_xy": [[0.5, 0.5]] * len(actions)}
    made |= {"action_time_ms": [time for _, _, time in actions]}
    return made | {"trace_time_ms": [1] * samples, "trace_xy": [[0.1, 0.1]] * samples}


ROWS = [
    row(9, "V", 99, ("add", 5, 3)),  # replaced by the next record of the image
    row(9, "W", 20_000, ("add", 0, 4000), ("move", 0, 5000), ("add", 1, 6000), ("remove", 1, 7000), samples=6),
    row(25, "W", 40_000, ("add", 0, 9000), samples=2),
    row(30, "V", 9_000_000),
    row(34, None, None, ("add", 7, 8000), ("remove", 7, 8500), ("add", 7, 8600)),
]


def of(*rows: Any, **more: Any) -> dict[str, tuple[float, int]]:
    frame = coco_statistics(pa.Table.from_pylist(list(rows), schema=SCHEMA), **more)
    assert list(frame.columns) == ["statistic", "value", "unit", "n"]
    assert set(frame["unit"]) <= {"share", "fraction", "count", "ms"} and frame["statistic"].is_unique
    return {name: (value, n) for name, value, n in zip(frame["statistic"], frame["value"], frame["n"], strict=True)}


def test_tags_times_and_workers_by_hand() -> None:
    found = of(*ROWS)
    assert found["records"] == (5, 5) and found["images"] == (4, 5)
    assert found["tags"] == (4, 4)  # 9: classes 0 and 1; 25: class 0; 34: class 7
    assert found["tags_per_image_mean"] == (1.0, 4)
    assert found["images_with_tags"] == (0.75, 4)
    assert found["tags_taken_back"] == (0.25, 4)  # class 1 of image 9; class 7 of image 34 was added again
    assert found["moves_per_tag"] == (0.25, 4) and found["removals_per_tag"] == (0.5, 4)
    assert found["trace_points_mean"] == (2.0, 4) and found["trace_empty"] == (0.5, 4)
    assert found["time_spent_median"] == (40_000, 3) and found["time_spent_max"] == (9_000_000, 3)
    assert found["time_spent_mean_clipped"] == (220_000, 3)  # (20 + 40 + 600) s / 3
    assert found["time_per_tag_median"] == (25_000, 2)  # 20 s / 2 tags, 40 s / 1; image 34 has no time, 30 has no tag
    assert [found[f"time_per_tag_quartile_{k}"][0] for k in (1, 3)] == [17_500, 32_500]
    assert found["first_tag_time_median"] == (8000, 3)
    assert found["workers"] == (2, 3)
    assert found["images_per_worker_median"] == (1.5, 2)
    assert found["time_spent_per_worker_decile_9"][0] == pytest.approx(30_000 + 0.9 * (9_000_000 - 30_000))
    assert "classes_tagged" not in found and "tags_in_mask" not in found


def test_tags_against_the_annotations() -> None:
    aim = {"tags_in_mask": np.array([True, False, True, True]), "tag_to_centre_mean": np.array([0.1, 0.3])}
    found = of(*ROWS, classes_of={9: [0, 3], 25: [0], 30: [2, 4]}, aim=aim)
    assert found["classes_tagged"] == (0.4, 5)  # 9: one of two; 25: one of one; 30: none of two
    assert found["tags_right"] == (pytest.approx(2 / 3), 3)  # image 34 has no ground truth
    assert found["classes_tagged_per_worker_median"] == (pytest.approx((2 / 3 + 0) / 2), 2)
    assert found["tags_in_mask"] == (0.75, 4) and found["tag_to_centre_mean"] == (pytest.approx(0.2), 2)


def test_an_empty_index_gives_nan_without_a_warning() -> None:
    found = of(classes_of={}, aim={"tags_in_mask": np.zeros(0, dtype=bool)})
    assert found["records"] == (0, 0)
    for name in ("tags_per_image_mean", "time_spent_median", "classes_tagged", "tags_in_mask", "time_spent_max"):
        assert math.isnan(found[name][0]) and found[name][1] == 0
