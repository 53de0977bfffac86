"""Boxes of contours at all levels of a map: against contours drawn at every level, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luab.metrics.contours import Levels, contour_boxes

SIDE = 24


def at_every_level(levels):
    """What `Levels.boxes` gives, level by level: all boxes, and that of the largest contour."""
    every, begins, largest = levels.boxes(np.arange(len(levels.values)))
    ends = [len(every), *begins[:-1].tolist()]  # the highest level comes first
    parts = [every[begin:end] for begin, end in zip(begins.tolist(), ends, strict=True)]
    return [(sorted(map(tuple, part.tolist())), every[k].tolist()) for part, k in zip(parts, largest, strict=True)]


def drawn_at_every_level(levels):
    found = []
    for value in levels.values:
        boxes, largest = contour_boxes((levels.map8 > value).astype(np.uint8))
        found.append((sorted(map(tuple, boxes.tolist())), boxes[largest].tolist()))
    return found


coarse = st.tuples(st.integers(2, 9), st.integers(2, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(0, 6).map(float))
)
"""Few values, so that plateaus, holes and pieces that touch at corners are common."""


@settings(max_examples=150, deadline=None)
@given(coarse, st.sampled_from([SIDE, 9]))
def test_all_levels_have_the_boxes_of_traced_contours(score_map, side):
    levels = Levels(score_map, side)
    assert at_every_level(levels) == drawn_at_every_level(levels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 14), st.floats(0, 2))
def test_smooth_and_noisy_maps_do_too(seed, cells, noise):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:cells, :cells] / cells
    hill = np.exp(-((x - rng.random()) ** 2 + (y - rng.random()) ** 2) / 0.1)
    levels = Levels(hill + noise * rng.random((cells, cells)), 48)
    assert at_every_level(levels) == drawn_at_every_level(levels)


@settings(max_examples=50, deadline=None)
@given(coarse, st.data())
def test_levels_may_be_left_out(score_map, data):
    levels = Levels(score_map, SIDE)
    wanted = sorted(data.draw(st.sets(st.integers(0, len(levels.values) - 1), min_size=1)))
    every, begins, largest = levels.boxes(np.array(wanted))
    whole = drawn_at_every_level(levels)
    assert [every[k].tolist() for k in largest] == [whole[level][1] for level in wanted]
    assert len(every) == sum(len(whole[level][0]) for level in wanted)
    assert begins[-1] == 0


@pytest.mark.parametrize(
    ("drawn", "euler"),
    [
        (["....", ".#..", "....", "...."], 1),
        (["#...", "....", "..#.", "...."], 2),
        (["#...", ".#..", "..#.", "...#"], 1),  # corners connect
        (["###.", "#.#.", "###.", "...."], 0),  # a ring
        (["##..", "#.#.", ".##.", "...."], 0),  # closed at corners too
        (["###.", "#.#.", "#.#.", "...."], 1),  # open below
        (["#.#.", "....", "###.", "#.##"], 3),  # open to the border
        (["####", "#.##", "##.#", "####"], -1),  # holes that meet at a corner are two
    ],
)
def test_pieces_minus_holes(drawn, euler):
    score_map = np.array([[cell == "#" for cell in row] for row in drawn], dtype=np.float32)
    assert Levels(score_map, 4)._euler == [euler, 0]  # above 0, above 255


@pytest.mark.parametrize("useless", [np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_a_useless_map_has_one_level_and_no_contour(useless):
    levels = Levels(useless, SIDE)
    assert levels.values.tolist() == [0]
    assert at_every_level(levels) == [([(0, 0, 0, 0)], [0, 0, 0, 0])]


def test_few_contours_are_traced_for_a_smooth_hill(monkeypatch):
    """There is one component without a hole at nearly every level; resizing leaves ripples at the border."""
    y, x = np.mgrid[:7, :7]
    levels = Levels(np.exp(-((x - 3.2) ** 2 + (y - 2.3) ** 2) / 8.0), 224)
    traced, trace = [], Levels._contours
    monkeypatch.setattr(Levels, "_contours", lambda self, level: traced.append(level) or trace(self, level))
    levels.boxes(np.arange(len(levels.values)))
    assert len(levels.values) == 256
    assert len(traced) < 30
