"""The statistics of COCO-AB from files to table, on records and annotations small enough to check by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from luab.byproducts.coco_ab import SCHEMA
from luab.byproducts.icons import IconPath
from luab.data.manifests.manifest import INSTANCES_SCHEMA
from luab.render import tables
from luab.render.figures import figures
from luab.render.products import Inputs

pytest.importorskip("pycocotools")

PERSON, BICYCLE, DOG = 0, 1, 16
Action = tuple[str, int, tuple[float, float]]
NOWHERE = (np.nan, np.nan)


def record(number: int, actions: list[Action], spent: int = 10_000) -> dict[str, Any]:
    """One record; actions as (kind, class, to)."""
    row: dict[str, Any] = {"image_id": number, "width": 40, "height": 20, "displayed_width": 450}
    row |= {"displayed_height": 450, "time_spent_ms": spent, "worker_id": "W", "hit_id": "h", "page_id": 0}
    row |= {"action_type": [a[0] for a in actions], "action_class": [a[1] for a in actions]}
    row |= {"action_time_ms": [1000 * k for k in range(len(actions))]}
    row |= {"action_from_xy": [list(NOWHERE)] * len(actions), "action_to_xy": [list(a[2]) for a in actions]}
    return row | {"trace_xy": [[0.1 * k, 0.5] for k in range(6)], "trace_time_ms": list(range(6))}


RECORDS = [
    # A person added twice and moved, a bicycle on no bicycle, a dog that is not there and was taken away.
    record(
        1,
        [
            ("add", PERSON, (0.9, 0.9)),
            ("add", PERSON, (0.25, 0.5)),
            ("move", PERSON, (0.3, 0.5)),
            ("add", BICYCLE, (0.25, 0.5)),
            ("add", DOG, (0.5, 0.5)),
            ("remove", DOG, NOWHERE),
        ],
        spent=12_000,
    ),
    record(2, [("add", BICYCLE, (0.75, 0.5)), ("add", PERSON, (0.1, 0.1))], spent=4_000),
    record(3, []),
]
LEFT, RIGHT = [[0, 0, 20, 0, 20, 20, 0, 20]], [[20, 0, 40, 0, 40, 20, 20, 20]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Index, manifest, images and masks: image 1 shows a person left and a bicycle right, image 2 a bicycle right."""
    rows = [{name: row.get(name) for name in SCHEMA.names} for row in RECORDS]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "coco_ab.parquet")
    names = [f"COCO_train2014_{number:012d}" for number in (1, 2, 3)]
    listed = {
        "image_id": names,
        "path": [f"{name}.jpg" for name in names],
        "labels": [[PERSON, BICYCLE], [BICYCLE], []],
        "group": [""] * 3,
        "width": [40] * 3,
        "height": [20] * 3,
        "boxes": [[[0, 0, 19, 19], [20, 0, 39, 19]], [[20, 0, 39, 19]], []],
        "box_labels": [[PERSON, BICYCLE], [BICYCLE], []],
        "box_crowd": [[False, False], [False], []],
        "box_areas": [[400.0, 400.0], [400.0], []],
    }
    pq.write_table(pa.table(listed, schema=INSTANCES_SCHEMA), tmp_path / "coco_train.parquet")
    for name in names:
        Image.new("RGB", (40, 20), "white").save(tmp_path / f"{name}.jpg")
    objects = [(1, 1, LEFT), (1, 2, RIGHT), (2, 2, RIGHT)]
    annotations = [{"image_id": i, "category_id": c, "iscrowd": 0, "segmentation": s} for i, c, s in objects]
    (tmp_path / "annotations").mkdir()
    instances = tmp_path / "annotations" / "instances_train2014.json"
    instances.write_text(json.dumps({"images": [], "annotations": annotations, "categories": []}), encoding="utf-8")
    return tmp_path


def test_tags_against_boxes_and_masks_by_hand(files: Path) -> None:
    out = [files / f"coco_statistics.{suffix}" for suffix in ("csv", "md", "tex")]
    sources = {"tags": files / "coco_ab.parquet", "manifest": files / "coco_train.parquet", "images_root": files}
    tables.render_table("coco_statistics", *out, Inputs(label="demo world", **sources))
    found = pd.read_csv(out[0]).set_index("statistic")
    value, n = found["value"], found["n"]
    # Image 1: person (.25, .5) in its box and on its mask, bicycle at the same place in neither. Image 2: its bicycle.
    assert value["tags_in_box"] == value["tags_in_mask"] == pytest.approx(2 / 3) and n["tags_in_box"] == 3
    assert value["centre_in_box"] == pytest.approx(2 / 3)  # pixel (20, 10) is in the right half: both bicycles'
    assert value["tag_to_centre_mean"] == 0.25
    assert value["classes_tagged"] == 1.0 and n["classes_tagged"] == 3
    assert value["tags_right"] == pytest.approx(3 / 5)  # of 5 tags, the dog and image 2's person are not there
    assert value["images_with_tags"] == pytest.approx(2 / 3) and n["images_with_tags"] == 3
    assert value["time_per_tag_median"] == (12_000 / 3 + 4_000 / 2) / 2 and n["time_per_tag_median"] == 2
    assert out[1].read_text(encoding="utf-8").startswith("**Annotation byproducts of COCO (demo world)**")


def test_samples_show_adds_moves_and_removals(files: Path) -> None:
    sample = figures._tagged_image(
        RECORDS[0], files, {"COCO_train2014_000000000001": "COCO_train2014_000000000001.jpg"}
    )
    icons = dict(sample.icons)
    assert icons["person"] == IconPath([[0.25, 0.5], [0.3, 0.5]], removed=False)  # the last add, then its move
    assert icons["bicycle"].places == [[0.25, 0.5]] and icons["dog"].removed


def test_places_that_the_release_lacks_are_not_drawn(files: Path) -> None:
    broken = record(1, [("add", PERSON, (0.5, 0.5)), ("move", PERSON, NOWHERE), ("add", DOG, NOWHERE)])
    sample = figures._tagged_image(broken, files, {"COCO_train2014_000000000001": "COCO_train2014_000000000001.jpg"})
    assert sample.icons == [("person", IconPath([[0.5, 0.5]], removed=False))]
