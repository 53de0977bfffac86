"""The points of each supervision on ImageNet: the official click, its random control, and the others."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts import imagenet_ab
from luab.byproducts.imagenet_ab import SCHEMA
from luab.data.supervisions import imagenet
from luab.data.supervisions.imagenet import BYPRODUCTS, MAKERS
from luab.data.supervisions.makers import CONTROLS, Byproducts, Made, Sources, make_points, write_targets
from luab.data.supervisions.point_files import TARGETS_SCHEMA, read_image_points
from luab.errors import ConfigError, DataError
from luab.study.noises import Noise, Point
from luab.study.supervisions import FROM_TAGS, Supervision

PER_METADATA = SCHEMA.names[7:]


def entry(selected: bool = True, clicks: Any = (), trace: Any = ()) -> dict[str, Any]:
    """One annotation; clicks as (x, y), trace samples as (x, y, ms)."""
    given: dict[str, Any] = dict.fromkeys(PER_METADATA)
    given |= {"selected": selected, "position_xy": [0, 0], "hover_action": [], "hover_time_ms": []}
    given |= {"click_xy": [list(xy) for xy in clicks], "click_time_ms": [0 for _ in clicks]}
    given |= {"trace_xy": [list(sample[:2]) for sample in trace]}
    given |= {"trace_time_ms": [int(sample[2]) for sample in trace]}
    return given


def row(image_id: str, *entries: dict[str, Any], boxes: Any = (), size: Any = (100, 50)) -> dict[str, Any]:
    made: dict[str, Any] = {"image_id": image_id, "wnid": "n01440764", "annotators": len(entries)}
    made |= {"has_box": bool(boxes), "boxes": list(boxes), "width": size[0], "height": size[1]}
    return made | {name: [one[name] for one in entries] for name in PER_METADATA}


def points(
    folder: Path,
    supervision: str,
    *rows: dict[str, Any],
    seed: int = 0,
    byproducts: Byproducts = BYPRODUCTS,
    **noise: Any,
) -> dict[str, list[float]]:
    """Writes the points of a supervision from an index of these records, and reads them."""
    # Row groups of two rows: the result must not depend on where a piece ends.
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / "index.parquet", row_group_size=2)
    sources, entry = (
        Sources(folder / "index.parquet", folder, seed),
        Supervision(points=supervision, noise=Noise.model_validate(noise)),
    )
    write_targets(byproducts, sources, entry, folder / "points.parquet", folder / "points.json")
    image_ids, xy = read_image_points(folder / "points.parquet")
    card = json.loads((folder / "points.json").read_text(encoding="utf-8"))
    assert (card["n"], card["supervision"]) == (len(image_ids), supervision)
    assert xy.dtype == np.float32 and xy.shape == (len(image_ids), 2)
    return dict(zip(image_ids, xy.tolist(), strict=True))


def notes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "points.json").read_text(encoding="utf-8"))["notes"]
    return found


def clicked(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [row(f"n01440764_{i}", entry(clicks=[(0.25, 0.75)])) for i in range(start, start + n)]


def test_click_is_the_mean_of_first_clicks_sorted_by_image(tmp_path: Path) -> None:
    several = [entry(clicks=[(0.25, 0.5), (0.9, 0.9)]), entry(False, [(0, 0)]), entry(clicks=[(0.75, 1.0)])]
    found = points(tmp_path, "click", row("b", *several), row("c"), row("a", entry(clicks=[(0, 1)])))
    assert found == {"a": [0.0, 1.0], "b": [0.5, 0.75]}
    assert list(found) == ["a", "b"]


def test_click_drops_and_counts_images_without_a_point(tmp_path: Path) -> None:
    found = points(
        tmp_path,
        "click",
        row("none", entry(False, [(0.5, 0.5)])),
        row("without", entry()),
        row("half", entry(), entry(clicks=[(0.5, 0.25)])),
        row("outside", entry(clicks=[(1.01, 0.5)])),
        # Only the mean must be in the image: the official loader checks the mean against the crop.
        row("mean", entry(clicks=[(1.25, 0.5)]), entry(clicks=[(0.25, 0.5)])),
    )
    assert found == {"half": [0.5, 0.25], "mean": [0.75, 0.5]}
    assert notes(tmp_path) == {"selected_without_click": 2, "out_of_range": 1}


def test_click_of_real_records(samples: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    imagenet_ab.index(samples / "imagenet_ab", index, tmp_path / "index.json")
    entry = Supervision(points="click")
    write_targets(BYPRODUCTS, Sources(index, tmp_path), entry, tmp_path / "p.parquet", tmp_path / "p.json")
    image_ids, xy = read_image_points(tmp_path / "p.parquet")
    assert image_ids == ["n01440764_10027", "n02490219_6469"]
    assert xy.tolist() == np.float32([[0.65, 0.61333], [0.5401234567901234, 0.4732510288065844]]).tolist()


def test_random_points_are_for_the_clicked_and_depend_on_seed_and_image_alone(tmp_path: Path) -> None:
    rows = [*clicked(20), row("unclicked", entry(False)), row("without")]
    first = points(tmp_path, "random", *rows, seed=3)
    assert set(first) == {one["image_id"] for one in clicked(20)}
    assert points(tmp_path, "random", *rows, seed=3) == first
    assert points(tmp_path, "random", *reversed(rows), *clicked(5, start=90), seed=3).items() >= first.items()
    other = points(tmp_path, "random", *rows, seed=4)
    assert all(other[image_id] != first[image_id] for image_id in first)
    assert notes(tmp_path) == {"seed": 4}


def test_random_points_are_uniform_and_independent(tmp_path: Path) -> None:
    xy = np.array(list(points(tmp_path, "random", *clicked(6400), seed=0).values()))
    assert ((xy >= 0) & (xy < 1)).all()
    cells, _, _ = np.histogram2d(*xy.T, bins=8, range=[[0, 1], [0, 1]])
    chi_square = ((cells - 100) ** 2 / 100).sum()
    assert 30 < chi_square < 103  # 63 degrees of freedom: 99.9 % on either side
    assert abs(np.corrcoef(*xy.T)[0, 1]) < 0.04


def test_a_random_point_does_not_change_between_versions(tmp_path: Path) -> None:
    # BLAKE2b, 6 bytes, of "0:n01440764_10027", with b2sum -l 48: 837908 80cd64.
    found = points(tmp_path, "random", row("n01440764_10027", entry(clicks=[(0.5, 0.5)])), seed=0)
    assert found == {"n01440764_10027": [0x087983 / 2**24, 0x64CD80 / 2**24]}


def test_centre_is_for_the_clicked(tmp_path: Path) -> None:
    assert points(tmp_path, "centre", row("a"), *clicked(1)) == {"n01440764_0": [0.5, 0.5]}


def test_only_the_chosen_workers_count(tmp_path: Path) -> None:
    def by(worker: str, click: Any, time: int, selected: bool = True) -> dict[str, Any]:
        return entry(selected, [click]) | {"worker_id": worker, "estimate_time_ms": time}

    rows = [
        row("both", by("fast", (0.0, 0.0), 100), by("slow", (1.0, 1.0), 900)),
        row("slow", by("slow", (0.5, 0.25), 700)),
        row("fast", by("fast", (0.25, 0.25), 100, selected=False)),
    ]
    assert points(tmp_path, "click", *rows)["both"] == [0.5, 0.5]
    assert points(tmp_path, "click", *rows, workers={"fastest": 0.5}) == {"both": [0.0, 0.0]}
    assert notes(tmp_path)["workers"] == 2 and notes(tmp_path)["workers_kept"] == 1
    expected = {"both": [1.0, 1.0], "slow": [0.5, 0.25]}
    assert points(tmp_path, "click", *rows, workers={"slowest": 0.5}) == expected
    assert points(tmp_path, "click", *rows, workers={"most_accurate": 0.5}) == expected  # 2 of 2, not 1 of 2
    assert set(points(tmp_path, "random", *rows, workers={"listed": ["slow"]})) == {"both", "slow"}
    assert points(tmp_path, "click", *rows, workers={"least_accurate": 0.5}) == {"both": [0.0, 0.0]}  # 1 of 2


def test_only_annotations_that_took_long_enough_count(tmp_path: Path) -> None:
    def timed(click: Any, time: int | None) -> dict[str, Any]:
        return entry(clicks=[click]) | {"worker_id": f"w{time}", "estimate_time_ms": time}

    rows = [
        row("both", timed((0.0, 0.0), 100), timed((1.0, 1.0), 900)),
        row("at the limit", timed((0.5, 0.25), 300)),
        row("below", timed((0.25, 0.25), 299)),
        row("without a time", timed((0.25, 0.25), None)),
    ]
    expected = {"both": [1.0, 1.0], "at the limit": [0.5, 0.25]}
    assert points(tmp_path, "click", *rows, after_ms=300) == expected
    assert len(points(tmp_path, "click", *rows)) == 4
    assert points(tmp_path, "click", *rows, after_ms=300, workers={"listed": ["w100", "w300"]}) == {
        "at the limit": [0.5, 0.25]
    }


def test_shuffled_is_a_derangement_within_the_class(tmp_path: Path) -> None:
    rows = [row(f"{k}", entry(clicks=[(k / 8, 0.5)])) for k in range(7)]
    rows += [row("other", entry(clicks=[(0.9, 0.9)])) | {"wnid": "n02490219"}]
    found = points(tmp_path, "shuffled", *rows)
    assert sorted(x for x, _ in found.values()) == [k / 8 for k in range(7)]
    assert all(found[f"{k}"][0] != k / 8 for k in range(7)) and notes(tmp_path) == {"seed": 0, "alone_in_class": 1}


def test_box_is_the_middle_of_the_largest_box_clicked_or_not(tmp_path: Path) -> None:
    found = points(
        tmp_path,
        "box",
        row("two", boxes=[[0, 0, 9, 9], [20, 10, 59, 29]]),
        row("whole", entry(clicks=[(0.1, 0.1)]), boxes=[[0, 0, 99, 49]]),
        row("equal", boxes=[[0, 0, 9, 9], [90, 40, 99, 49]]),
        row("sizeless", boxes=[[0, 0, 9, 9]], size=(None, None)),
        row("outside", boxes=[[150, 0, 170, 9]]),
        row("boxless", entry(clicks=[(0.1, 0.1)])),
    )
    expected = {"two": [0.4, 0.4], "whole": [0.5, 0.5], "equal": [0.05, 0.1]}
    assert found == {name: np.float32(xy).tolist() for name, xy in expected.items()}
    assert notes(tmp_path) == {"out_of_range": 1}


def test_trace_is_a_mean_over_time(tmp_path: Path) -> None:
    click = [(0.5, 0.5)]
    found = points(
        tmp_path,
        "trace",
        # Steps of 100 and 300 ms: weights 50, 200, 150.
        row("steps", entry(clicks=click, trace=[(0, 0, 0), (0.5, 1, 100), (1, 0, 400)])),
        # The middle step is 5 s, so 350: weights 25, 200, 175 after a duplicate that weighs 25 and 0.
        row("gap", entry(clicks=click, trace=[(0, 0, 0), (0, 1, 50), (1, 0, 50), (1, 1, 5050)])),
        row("back", entry(clicks=click, trace=[(0, 0, 100), (1, 0.5, 0), (1, 1, 0)])),
        row("one", entry(clicks=click, trace=[(0.25, 0.75, 9)])),
    )
    assert found["steps"] == np.float32([(0.5 * 200 + 150) / 400, 200 / 400]).tolist()
    assert found["gap"] == np.float32([350 / 400, (25 + 175) / 400]).tolist()
    assert found["back"] == np.float32([2 / 3, 0.5]).tolist()
    assert found["one"] == [0.25, 0.75]


def test_trace_counts_selected_annotations_of_clicked_images_inside_the_image(tmp_path: Path) -> None:
    click = [(0.5, 0.5)]
    found = points(
        tmp_path,
        "trace",
        row("unclicked", entry(trace=[(0.1, 0.1, 0)])),
        row(
            "mean",
            entry(clicks=click, trace=[(0, 1, 0)]),
            entry(trace=[(1, 0, 0)] * 3),
            entry(False, click, [(1, 1, 0)]),
        ),
        row("outside", entry(clicks=click, trace=[(0.5, 0.25, 0), (1.5, 0.5, 10)])),
        row("empty", entry(clicks=click)),
    )
    assert found == {"mean": [0.5, 0.5], "outside": [0.5, 0.25]}
    assert notes(tmp_path) == {"clicked_without_trace": 1, "samples_out_of_range": 1}


@pytest.mark.parametrize("supervision", ["none", *CONTROLS, *(name for name in MAKERS if name not in FROM_TAGS)])
def test_an_index_without_points_gives_an_empty_table(tmp_path: Path, supervision: str) -> None:
    assert points(tmp_path, supervision, row("a"), row("b", entry(False))) == {}


TAGS = """image,x,y,worker
n01440764/n01440764_0.JPEG,0.5,0.125,a
n01440764/n01440764_1.JPEG,0.25,0.25,a
n01440764_2.JPEG,0.75,0.5,b
n01440764_3,1.25,0.5,b
n01440764_9,0.5,0.5,b
n01440764/n01440764_1.JPEG,0.125,0.875,b
"""
"""Image 3 has its tag outside, and image 9 was not clicked; the later tag of image 1 counts."""


def both_kinds(folder: Path, supervision: str, of: str = "click", seed: int = 0) -> Made:
    """Points made from clicks on five images, at x = their number / 8, and from the tags above."""
    rows = [row(f"n01440764_{k}", entry(clicks=[(k / 8, 0.5)])) for k in range(5)]
    pq.write_table(pa.Table.from_pylist([*rows, row("n01440764_9", entry(False))], schema=SCHEMA), folder / "i.parquet")
    (folder / "tags.csv").write_text(TAGS, encoding="utf-8")
    sources = Sources(folder / "i.parquet", folder, seed, tags=folder / "tags.csv")
    return make_points(BYPRODUCTS, sources, Supervision(points=supervision, of=of))


def test_browsed_and_tagged_points_are_on_the_images_that_have_both(tmp_path: Path) -> None:
    browsed, tagged = both_kinds(tmp_path, "browsed"), both_kinds(tmp_path, "tagged")
    assert {point.image_id[-1]: (point.x, point.y) for point in browsed.points} == {
        "0": (0.0, 0.5), "1": (0.125, 0.5), "2": (0.25, 0.5),
    }  # fmt: skip
    assert {point.image_id[-1]: (point.x, point.y) for point in tagged.points} == {
        "0": (0.5, 0.125), "1": (0.125, 0.875), "2": (0.75, 0.5),
    }  # fmt: skip
    assert browsed.notes == tagged.notes == {"clicked": 5, "tagged": 4, "with_both": 3, "tags_out_of_range": 1}


def test_both_has_one_of_the_two_points_of_each_image_by_its_seed(tmp_path: Path) -> None:
    clicks, tags = (dict(zip("012", both_kinds(tmp_path, name).points, strict=True)) for name in ("browsed", "tagged"))
    chosen = set()
    for seed in range(12):
        made = both_kinds(tmp_path, "both", seed=seed)
        picked = [point == clicks[point.image_id[-1]] for point in made.points]
        others = [point for point, is_click in zip(made.points, picked, strict=True) if not is_click]
        assert all(point == tags[point.image_id[-1]] for point in others)
        assert (made.notes["seed"], made.notes["clicks"]) == (seed, sum(picked))
        chosen.add(tuple(picked))
    assert len(chosen) > 3  # 8 are possible
    # BLAKE2b, 6 bytes, of "0:both:n01440764_0", with b2sum -l 48: 1c0ef7 f2e7a0. 0xf70e1c is above half of 2**24.
    assert both_kinds(tmp_path, "both").points[0] == tags["0"] != clicks["0"]


def test_controls_of_tagged_images_have_as_many_points_and_exchange_those_points(tmp_path: Path) -> None:
    images = {point.image_id for point in both_kinds(tmp_path, "tagged").points}
    for of in FROM_TAGS:
        assert {point.image_id for point in both_kinds(tmp_path, of).points} == images
        places = sorted((point.x, point.y) for point in both_kinds(tmp_path, of).points)
        shuffled = both_kinds(tmp_path, "shuffled", of)
        assert sorted((point.x, point.y) for point in shuffled.points) == places
        assert not set(shuffled.points) & set(both_kinds(tmp_path, of).points)
        assert both_kinds(tmp_path, "random", of).points == both_kinds(tmp_path, "random", "both").points
        assert {point.image_id for point in both_kinds(tmp_path, "random", of).points} == images
    everywhere = dict(zip("01234", both_kinds(tmp_path, "random").points, strict=True))
    assert all(point == everywhere[point.image_id[-1]] for point in both_kinds(tmp_path, "random", "both").points)


def test_points_of_tags_need_tags_on_clicked_images(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(clicked(2), schema=SCHEMA), tmp_path / "i.parquet")
    sources = Sources(tmp_path / "i.parquet", tmp_path)
    with pytest.raises(ConfigError, match=r"set `paths\.tags`"):
        make_points(BYPRODUCTS, sources, Supervision(points="tagged"))
    (tmp_path / "tags.csv").write_text("image,x,y\ncats/1.jpg,0.5,0.5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"tags\.csv: none of its 1 images has a click"):
        make_points(BYPRODUCTS, dataclasses.replace(sources, tags=tmp_path / "tags.csv"), Supervision(points="both"))
    with pytest.raises(ConfigError, match=r"there are no points 'taged'\. Did you mean tagged"):
        make_points(BYPRODUCTS, sources, Supervision(points="random", of="taged"))


def test_the_card_says_what_a_control_is_made_of(tmp_path: Path) -> None:
    both_kinds(tmp_path, "browsed")
    sources = Sources(tmp_path / "i.parquet", tmp_path, tags=tmp_path / "tags.csv")
    entry = Supervision(points="shuffled", of="tagged")
    card = write_targets(BYPRODUCTS, sources, entry, tmp_path / "p.parquet", tmp_path / "p.json")
    assert (card["n"], card["supervision"], card["of"]) == (3, "shuffled", "tagged")
    assert card["tags_sha256"] == hashlib.sha256(TAGS.encode()).hexdigest()
    assert entry.target == "shuffled_of_tagged" and Supervision(points="shuffled").target == "shuffled"


def test_none_has_no_points_even_if_images_have_clicks(tmp_path: Path) -> None:
    assert points(tmp_path, "none", *clicked(3)) == {}


def test_points_are_added_by_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "MAKERS", dict(MAKERS))

    @imagenet.register
    def corner(sources: Sources) -> Made:
        table = imagenet_ab.read_index(sources.index, ["image_id"])
        return Made([Point(name, None, 0.0, 0.0) for name in table["image_id"].to_pylist()], {"made_up": 1})

    byproducts = dataclasses.replace(BYPRODUCTS, makers=imagenet.MAKERS)
    assert points(tmp_path, "corner", row("b"), row("a"), byproducts=byproducts) == {"a": [0.0, 0.0], "b": [0.0, 0.0]}
    assert notes(tmp_path) == {"made_up": 1}


def test_repeats_are_identical_and_the_card_names_the_content(tmp_path: Path) -> None:
    written = []
    for rows in (clicked(9), list(reversed(clicked(9))), clicked(8)):
        points(tmp_path, "click", *rows)
        written.append([(tmp_path / name).read_bytes() for name in ("points.parquet", "points.json")])
    assert written[0] == written[1]
    assert written[0][1] != written[2][1]


def test_an_unknown_supervision_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are no points 'clicks'\. Did you mean click"):
        points(tmp_path, "clicks")


def test_the_reader_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "points.parquet"
    with pytest.raises(DataError, match="Run `luab targets` first"):
        read_image_points(path)
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(DataError, match="expected the points of a supervision, found a damaged file"):
        read_image_points(path)
    pq.write_table(pa.table({"image_id": ["a"], "x": [0.5]}), path)
    with pytest.raises(DataError, match="class int16, x double, y double, found image_id string, x double"):
        read_image_points(path)
    for image_ids, x, reason in [
        (["b", "a"], 0.5, "unique rows, sorted by image_id and class; "),
        (["a", "a"], 0.5, "unique rows, sorted by image_id and class; "),
        (["a", "b"], 1.5, "in \\[0, 1\\]"),
        (["a", "b"], float("nan"), "in \\[0, 1\\]"),
    ]:
        pq.write_table(pa.table([image_ids, [None] * 2, [0.5, x], [0.5, x]], schema=TARGETS_SCHEMA), path)
        with pytest.raises(DataError, match=reason):
            read_image_points(path)
