"""The points of each supervision on COCO, worked out by hand: official rule, replay, control, boxes, and the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts import coco_ab
from luab.data.manifests.manifest import INSTANCES_SCHEMA
from luab.data.supervisions.coco import BYPRODUCTS, mask
from luab.data.supervisions.makers import Sources, write_targets
from luab.data.supervisions.point_files import TARGETS_SCHEMA, read_class_points
from luab.errors import ConfigError, DataError
from luab.study.noises import Noise
from luab.study.supervisions import Supervision

PERSON, BICYCLE, DOG = 0, 1, 16
Found = dict[tuple[int, int], tuple[float, float]]


def act(kind: str, icon: str, to: Any = None, start: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = {"actionType": kind, "iconType": icon, "timeAt": 1}
    made |= {} if to is None else {"pointTo": dict(zip("xy", to, strict=True))}
    return made | ({} if start is None else {"pointFrom": dict(zip("xy", start, strict=True))})


def record(number: int, *actions: dict[str, Any], size: tuple[int, int] = (640, 480)) -> dict[str, Any]:
    made = {"image_id": number, "originalImageWidth": size[0], "originalImageHeight": size[1]}
    return made | {"actionHistories": list(actions)}


def points(
    folder: Path, supervision: str, *records: dict[str, Any], seed: int = 0, manifest: Any = (), **noise: Any
) -> Found:
    """Writes and reads the points of a supervision; returns (number of the image, class) -> point."""
    (folder / "ab.json").write_text(json.dumps(list(records) or [record(1)]), encoding="utf-8")
    coco_ab.index(folder / "ab.json", folder / "index.parquet", folder / "index.json")
    pq.write_table(pa.Table.from_pylist(list(manifest), schema=INSTANCES_SCHEMA), folder / "manifest.parquet")
    parquet, card = folder / "points.parquet", folder / "points.json"
    sources = Sources(folder / "index.parquet", folder / "manifest.parquet", seed)
    written = write_targets(
        BYPRODUCTS, sources, Supervision(points=supervision, noise=Noise.model_validate(noise)), parquet, card
    )
    assert json.loads(card.read_text(encoding="utf-8")) == written
    found = read_class_points(parquet, 80)
    flat = {
        (int(image_id.removeprefix("COCO_train2014_")), int(label)): (float(x), float(y))
        for image_id, of in found.items()
        for label, (x, y) in zip(of.labels, of.xy, strict=True)
    }
    assert (written["n"], written["images"], written["supervision"]) == (len(flat), len(found), supervision)
    return flat


def notes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "points.json").read_text(encoding="utf-8"))["notes"]
    return found


HISTORY = [
    act("add", "dog", (0.1, 0.2)),
    act("move", "dog", (0.3, 0.4), (0.1, 0.2)),
    act("add", "person", (0.5, 0.6)),
    act("remove", "person", start=(0.5, 0.6)),
    act("add", "bicycle", (0.7, 0.7)),
    act("remove", "bicycle", start=(0.7, 0.7)),
    act("add", "bicycle", (0.8, 0.9)),
]


def test_click_takes_the_last_add_of_each_class_and_nothing_else(tmp_path: Path) -> None:
    found = points(tmp_path, "click", record(9, *HISTORY))
    assert found == {(9, DOG): (0.1, 0.2), (9, PERSON): (0.5, 0.6), (9, BICYCLE): (0.8, 0.9)}


def test_replayed_follows_moves_and_removals(tmp_path: Path) -> None:
    assert points(tmp_path, "replayed", record(9, *HISTORY)) == {(9, DOG): (0.3, 0.4), (9, BICYCLE): (0.8, 0.9)}
    # A removal or a move of an icon that was never added is not an error.
    odd = record(9, act("remove", "dog", start=(0, 0)), act("move", "person", (0.5, 0.25), (0, 0)))
    assert points(tmp_path, "replayed", odd) == {(9, PERSON): (0.5, 0.25)}


def test_a_later_record_of_an_image_replaces_the_earlier_one(tmp_path: Path) -> None:
    first = record(9, act("add", "dog", (0.1, 0.2)), act("add", "person", (0.5, 0.5)))
    found = points(tmp_path, "click", first, record(2, act("add", "dog", (0, 1))), record(9, act("add", "dog", (1, 0))))
    assert found == {(2, DOG): (0.0, 1.0), (9, DOG): (1.0, 0.0)}
    assert notes(tmp_path) == {"earlier_records": 1, "without_size": 0, "without_point": 0, "out_of_range": 0}


def test_unusable_points_are_dropped_and_counted(tmp_path: Path) -> None:
    found = points(
        tmp_path,
        "click",
        record(9, act("add", "dog", (0.1, 1.01)), act("add", "person", (-0.1, 0)), act("add", "bicycle")),
        record(25, act("add", "dog", (0.5, 0.5)), act("add", "person", (0.5, 0.5)), size=(0, 480)),
        record(30, act("add", "dog", (0, 1.0))),
    )
    assert found == {(30, DOG): (0.0, 1.0)}
    assert notes(tmp_path) == {"earlier_records": 0, "without_size": 2, "without_point": 1, "out_of_range": 2}


def test_fractions_stay_doubles(tmp_path: Path) -> None:
    # 0.7 x 640 is 448; as a 32-bit float, 0.7 would give 447.99999 and so the previous pixel.
    (x, _) = points(tmp_path, "click", record(9, act("add", "dog", (0.7, 0.5))))[9, DOG]
    assert int(x * 640) == 448 and int(float(np.float32(x)) * 640) == 447


def test_random_points_are_for_exactly_the_tagged_and_fixed_by_the_seed(tmp_path: Path) -> None:
    records = [record(n, *HISTORY) for n in range(1, 40)]
    first = points(tmp_path, "random", *records, seed=3)
    assert set(first) == set(points(tmp_path, "click", *records))
    assert points(tmp_path, "random", *records, seed=3) == first
    assert points(tmp_path, "random", *reversed(records[:5]), seed=3).items() <= first.items()
    other = points(tmp_path, "random", *records, seed=4)
    assert all(other[tag] != first[tag] for tag in first)
    assert len(set(first.values())) == len(first)
    # BLAKE2b, 6 bytes, of "0:COCO_train2014_000000000009:16", with b2sum -l 48: 697442 252694.
    x, y = points(tmp_path, "random", record(9, *HISTORY), seed=0)[9, DOG]
    assert [round(v * 2**24) for v in (x, y)] == [0x427469, 0x942625]


def test_random_points_are_uniform(tmp_path: Path) -> None:
    records = [record(n, act("add", "dog", (0, 0)), act("add", "person", (0, 0))) for n in range(3200)]
    xy = np.array(list(points(tmp_path, "random", *records).values()))
    cells, _, _ = np.histogram2d(*xy.T, bins=8, range=[[0, 1], [0, 1]])
    assert 30 < ((cells - 100) ** 2 / 100).sum() < 103  # 63 degrees of freedom: 99.9 % on either side


def test_centre_and_none(tmp_path: Path) -> None:
    assert points(tmp_path, "centre", record(9, *HISTORY)) == dict.fromkeys(
        [(9, PERSON), (9, BICYCLE), (9, DOG)], (0.5, 0.5)
    )
    assert points(tmp_path, "none", record(9, *HISTORY)) == {}


def test_box_is_the_middle_of_the_largest_of_each_class(tmp_path: Path) -> None:
    boxes = [[0, 0, 9, 9], [10, 20, 29, 39], [0, 0, 99, 49], [0, 0, 99, 49], [3, 3, 3, 3]]
    row = {"image_id": "COCO_train2014_000000000009", "path": "x", "labels": [0, 1, 16], "group": ""}
    row |= {"width": 100, "height": 50, "boxes": boxes, "box_labels": [0, 0, 0, 1, 16], "box_areas": [1.0] * 5}
    row |= {"box_crowd": [False, False, True, True, False]}
    found = points(tmp_path, "box", manifest=[row])
    assert found == {(9, PERSON): (0.2, 0.6), (9, BICYCLE): (0.5, 0.5), (9, DOG): (0.035, 0.07)}


def test_unknown_supervisions_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no points 'trace'"):
        points(tmp_path, "trace")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", 80, 0.5, 0.5)], "classes 0 to 79"),
        ([("a", 0, 0.5, 1.5)], r"x and y in \[0, 1\]"),
        ([("a", 0, 0.5, float("nan"))], r"x and y in \[0, 1\]"),
        ([("a", 1, 0.5, 0.5), ("a", 1, 0.5, 0.5)], "unique rows, sorted by image_id and class; "),
        ([("b", 1, 0.5, 0.5), ("a", 1, 0.5, 0.5)], "unique rows, sorted by image_id and class; "),
    ],
)
def test_the_reader_refuses_other_files(tmp_path: Path, rows: Any, words: str) -> None:
    columns = list(zip(*rows, strict=True))
    pq.write_table(pa.table([list(column) for column in columns], schema=TARGETS_SCHEMA), tmp_path / "p.parquet", 80)
    with pytest.raises(DataError, match=words):
        read_class_points(tmp_path / "p.parquet", 80)
    with pytest.raises(DataError, match="luab targets"):
        read_class_points(tmp_path / "none.parquet", 80)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="expected the columns"):
        read_class_points(tmp_path / "other.parquet", 80)


def test_the_centroid_of_the_largest_mask_of_a_class(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    row = {
        "image_id": "COCO_train2014_000000000009",
        "path": "x",
        "labels": [PERSON],
        "group": "",
        "width": 8,
        "height": 6,
    }
    row |= {"boxes": [], "box_labels": [], "box_crowd": [], "box_areas": []}
    pq.write_table(pa.Table.from_pylist([row], schema=INSTANCES_SCHEMA), tmp_path / "manifest.parquet")

    def annotation(category: int, x0: int, y0: int, x1: int, y1: int, crowd: int = 0) -> dict[str, Any]:
        polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
        return {"image_id": 9, "category_id": category, "segmentation": [polygon], "iscrowd": crowd}

    given = [
        annotation(1, 0, 0, 2, 2),
        annotation(1, 2, 1, 6, 5),  # the largest person: columns 2 to 5, lines 1 to 4
        annotation(1, 0, 0, 8, 6, crowd=1),  # larger, but a crowd
        annotation(2, 0, 0, 8, 6, crowd=1),  # of a bicycle there is a crowd alone
        annotation(18, 0, 0, 2, 6),
        {**annotation(18, 0, 0, 8, 6), "image_id": 10},  # of an image that is not listed
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text(
        json.dumps({"annotations": given}), encoding="utf-8"
    )
    sources = Sources(tmp_path / "none.parquet", tmp_path / "manifest.parquet", images=tmp_path)
    found = {point.label: (point.x, point.y) for point in mask(sources).points}
    assert found == {PERSON: (0.5, 0.5), BICYCLE: (0.5, 0.5), DOG: (0.125, 0.5)}
    with pytest.raises(DataError, match="folder of COCO's images"):
        mask(Sources(tmp_path / "none.parquet", tmp_path / "manifest.parquet"))
