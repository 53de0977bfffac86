"""Noise on points, worked out by hand: what is kept, exchanged, moved and reflected, and which workers count."""

import math
from pathlib import Path

import numpy as np
import pytest

from luab.data.supervisions.coco import MAKERS as COCO_MAKERS
from luab.data.supervisions.imagenet import MAKERS as IMAGENET_MAKERS
from luab.data.supervisions.makers import CONTROLS, Worker, chosen_workers, shuffled
from luab.errors import ConfigError, DataError
from luab.study import supervisions
from luab.study.config import Coco, StudyPart
from luab.study.noises import Noise, Point, Workers, random_pair
from luab.study.supervisions import BASELINE, MAKERS, Supervision

MANY = [Point(f"i{n}", n % 3, n / 1000, 1 - n / 1000) for n in range(1000)]


def noise(**keys):
    return Noise.model_validate(keys)


def spoilt(points=MANY, seed=0, **keys):
    return noise(**keys).spoil(points, seed, lambda point: point.label)


def test_no_noise_changes_nothing():
    assert spoilt() == (MANY, {}) and spoilt(keep=1, jitter=0, seed=3) == (MANY, {})
    assert noise(seed=3).digest == "" and noise(jitter=0.1).digest != noise(jitter=0.1, seed=3).digest
    assert Supervision.model_validate({"points": "click", "noise": {"jitter": 0.1}}).target.startswith("click_")


def test_a_smaller_share_is_a_subset_of_a_larger():
    half, fifth = (spoilt(keep=share) for share in (0.5, 0.2))
    assert set(fifth.points) < set(half.points) < set(MANY)
    assert half.notes == {"keep_dropped": 1000 - len(half.points)} and 440 < len(half.points) < 560
    assert spoilt(keep=0).points == [] and set(spoilt(keep=0.5, seed=1).points) != set(half.points)


def test_wrong_points_change_places_within_their_class():
    moved, notes = spoilt(wrong=0.3)
    changed = [(a, b) for a, b in zip(MANY, moved, strict=True) if a != b]
    assert len(changed) == notes["wrong_exchanged"] and 240 < len(changed) < 360 and notes["wrong_alone"] == 0
    for label in range(3):
        of_class = [pair for pair in changed if pair[0].label == label]
        assert sorted(a[2:] for a, _ in of_class) == sorted(b[2:] for _, b in of_class)
    assert spoilt([Point("a", 1, 0.2, 0.3)], wrong=1) == (
        [Point("a", 1, 0.2, 0.3)],
        {"wrong_exchanged": 0, "wrong_alone": 1},
    )


def test_centre_bias_is_a_share_of_the_way():
    assert spoilt([Point("a", None, 0.1, 1.0)], centre_bias=0.25).points == [Point("a", None, 0.2, 0.875)]
    assert spoilt([Point("a", None, 0.1, 1.0)], centre_bias=1).points == [Point("a", None, 0.5, 0.5)]


def test_jitter_is_gaussian_and_reflected_at_the_border():
    middle = [Point(f"i{n}", None, 0.5, 0.5) for n in range(4000)]
    xy = np.array([point[2:4] for point in spoilt(middle, jitter=0.05).points])
    assert np.allclose(xy.mean(axis=0), 0.5, atol=0.003) and np.allclose(xy.std(axis=0), 0.05, atol=0.002)
    u, v = random_pair("7:jitter:a")
    x, y = (f(2 * math.pi * v) * math.sqrt(-2 * math.log(1 - u)) for f in (math.cos, math.sin))
    ((_, _, *found, _),), notes = spoilt([Point("a", None, 0, 0)], jitter=0.1, seed=7)
    assert found == pytest.approx([abs(0.1 * x), abs(0.1 * y)]) and notes["jitter_reflected"] == (x < 0 or y < 0)
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, _, x, y, _ in spoilt(jitter=1).points)


def test_kinds_draw_for_themselves():
    """The points that `keep` leaves are exchanged or not by other draws than those that kept them."""
    kept = {point.key for point in spoilt(keep=0.3).points}
    moved = {a.key for a, b in zip(MANY, spoilt(wrong=0.3).points, strict=True) if a != b}
    assert 60 < len(kept & moved) < 120  # 0.3 x 0.3 x 1000


def test_shuffled_points_are_those_of_another_image_of_the_class():
    alone = Point("alone", 9, 0.5, 0.5)
    made, notes = shuffled([*MANY, alone], 0, lambda point: point.label)
    assert notes == {"seed": 0, "alone_in_class": 1} and len(made) == len(MANY)
    for before, after in zip(MANY, made, strict=True):
        assert before[:2] == after[:2] and before[2:] != after[2:]
        assert round(after.x * 1000) % 3 == before.label  # x is the number of the image that it comes from
    assert shuffled(MANY[::-1], 0, lambda point: point.label)[0] == made[::-1]
    assert shuffled(MANY, 1, lambda point: point.label)[0] != made


WORKERS = {"a": Worker(300, 0.5), "b": Worker(100, 0.9), "c": Worker(200, None), "d": Worker(100, 0.7)}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"fastest": 0.5}, "bd"),
        ({"fastest": 0.25}, "b"),
        ({"slowest": 0.5}, "ac"),
        ({"most_accurate": 0.34}, "b"),
        ({"most_accurate": 0.01}, "b"),
        ({"listed": ["c", "a"]}, "ac"),
    ],
)
def test_workers_by_hand(keys, expected):
    assert chosen_workers(WORKERS, Workers.model_validate(keys), Path("index")) == frozenset(expected)


def test_impossible_workers_are_refused():
    with pytest.raises(DataError, match="index: has no record of the listed workers x, y"):
        chosen_workers(WORKERS, Workers.model_validate({"listed": ["y", "x", "a"]}), Path("index"))
    with pytest.raises(ConfigError, match="does not show which workers were right"):
        chosen_workers({"c": Worker(1, None)}, Workers.model_validate({"most_accurate": 1}), Path("index"))


def test_the_configuration_knows_the_points_of_every_data_set():
    assert set(StudyPart.makers) == {BASELINE, *CONTROLS, *IMAGENET_MAKERS}
    assert set(Coco.makers) == {BASELINE, *CONTROLS, *COCO_MAKERS}
    assert set(MAKERS) == {*StudyPart.makers, *Coco.makers}
    assert set(supervisions.CONTROLS) == set(CONTROLS) and set(supervisions.FROM_TAGS) <= set(IMAGENET_MAKERS)
