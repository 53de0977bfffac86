"""Pictures and comparison of COCO's byproducts, from records and annotations small enough to check by hand."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from luab.byproducts.coco_ab import SCHEMA
from luab.data.manifest import INSTANCES_SCHEMA
from luab.errors import ConfigError, DataError
from luab.render import figures, interfaces, tables
from luab.render.figures_coco import Icon, TagSample, coco_samples

PERSON, BICYCLE, DOG = 0, 1, 16


def record(number, actions, spent=10_000, worker="W"):
    """One record; actions as (kind, class, to)."""
    row = {"image_id": number, "width": 40, "height": 20, "displayed_width": 450, "displayed_height": 450}
    row |= {"time_spent_ms": spent, "worker_id": worker, "hit_id": "h", "page_id": 0}
    row |= {"action_type": [a[0] for a in actions], "action_class": [a[1] for a in actions]}
    row |= {"action_time_ms": [1000 * k for k in range(len(actions))]}
    row |= {"action_from_xy": [[np.nan, np.nan]] * len(actions), "action_to_xy": [list(a[2]) for a in actions]}
    row |= {"trace_xy": [[0.1 * k, 0.5] for k in range(6)], "trace_time_ms": list(range(6))}
    return row


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
            ("remove", DOG, (np.nan, np.nan)),
        ],
        spent=12_000,
    ),
    record(2, [("add", BICYCLE, (0.75, 0.5)), ("add", PERSON, (0.1, 0.1))], spent=4_000),
    record(3, []),
]
LEFT, RIGHT = [[0, 0, 20, 0, 20, 20, 0, 20]], [[20, 0, 40, 0, 40, 20, 20, 20]]


@pytest.fixture
def files(tmp_path):
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
    (tmp_path / "instances.json").write_text(json.dumps({"images": [], "annotations": annotations, "categories": []}))
    return tmp_path


def test_tags_against_boxes_and_masks_by_hand(files):
    found = interfaces.tagging_statistics(
        files / "coco_ab.parquet", files / "coco_train.parquet", files / "instances.json"
    ).set_index("statistic")
    value, n = found["value"], found["n"]
    # Image 1: person (.25, .5) in its box and on its mask, bicycle at the same place in neither. Image 2: its bicycle.
    assert value["tags_in_box"] == value["tags_in_mask"] == pytest.approx(2 / 3) and n["tags_in_box"] == 3
    assert value["classes_tagged"] == 1.0 and n["classes_tagged"] == 3
    assert value["tags_right"] == pytest.approx(3 / 5)  # of 5 tags, the dog and image 2's person are not there
    assert value["images_pointed_at"] == pytest.approx(2 / 3) and n["images_pointed_at"] == 3
    assert value["time_per_tag_median"] == (12_000 / 3 + 4_000 / 2) / 2 and n["time_per_tag_median"] == 2


def test_the_comparison_takes_each_side_s_own_numbers(files):
    tagging = interfaces.tagging_statistics(
        files / "coco_ab.parquet", files / "coco_train.parquet", files / "instances.json"
    )
    known = {"records": 10, "images_with_click": 8, "click_in_box": 0.9, "estimate_time_median": 400.0}
    browsing = pd.DataFrame(
        [(k, v, "count", 10) for k, v in known.items()], columns=["statistic", "value", "unit", "n"]
    )
    compared = interfaces.compare_interfaces(browsing, tagging).set_index(["what", "interface"])
    assert compared.loc[("images with a point", "Browsing (ImageNet-AB)"), "value"] == 0.8
    assert compared.loc[("images with a point", "Tagging (COCO-AB)"), "value"] == pytest.approx(2 / 3)
    assert compared.loc[("points in a box of their class", "Browsing (ImageNet-AB)"), "value"] == 0.9
    assert ("points on a mask of their class", "Browsing (ImageNet-AB)") not in compared.index
    table = tables.interfaces(compared.reset_index())
    assert table.cells.iloc[:, 1:].isin(["–"]).to_numpy().any() and list(table.cells.columns)[1:] == [
        "Browsing (ImageNet-AB)",
        "Tagging (COCO-AB)",
    ]


def test_samples_show_icons_moves_and_removals(files):
    row = RECORDS[0]
    sample = figures._tag_sample(row, files / "COCO_train2014_000000000001.jpg")
    icons = {icon.name: icon for icon in sample.icons}
    assert icons["person"] == Icon("person", [(0.25, 0.5), (0.3, 0.5)], False)  # the last add, then its move
    assert icons["bicycle"].places_xy == [(0.25, 0.5)] and icons["dog"].removed
    figure = coco_samples([sample], "demo world")
    drawn = [line.get_gid() for axes in figure.axes for line in axes.lines]
    assert drawn.count("icon") == 3 and drawn.count("trace") == 1
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"person", "bicycle", "dog"} <= set(texts)


def test_the_figure_of_samples_from_files(files):
    sources = {"coco_index": files / "coco_ab.parquet", "manifest": files / "coco_train.parquet", "images_root": files}
    figures.render_figure("coco_samples", files / "coco_samples.pdf", **sources)
    assert (files / "coco_samples.png").stat().st_size > 5000
    with pytest.raises(ConfigError, match="expected the input `coco-index`"):
        figures.render_figure("coco_samples", files / "x.pdf")
    with pytest.raises(DataError, match="expected images with tags and a trace"):
        coco_samples([])


def test_an_icon_outside_of_any_sample_is_no_sample():
    sample = TagSample("1", np.zeros((4, 4, 3), np.uint8), np.zeros((0, 2)), [])
    assert len(coco_samples([sample]).axes) == 1
