"""Localisation by hand, and against a slow literal version that tries every threshold."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luab.errors import DataError
from luab.metrics import localization
from luab.metrics.contours import contour_boxes, eight_bits
from luab.metrics.localization import (
    LocalizationInput,
    box_accuracy,
    box_focus,
    hits_mask,
    iou,
    pixel_average_precision,
    point_distances,
    points_in_box,
    scaled_boxes,
)


def literal_counts(images, side, step):
    """[2, 3, thresholds] counts, threshold by threshold, contour by contour, pair by pair."""
    thresholds = np.arange(0, 1, step)
    counts = np.zeros((2, 3, len(thresholds)), dtype=int)
    for score_map, boxes, (width, height) in images:
        drawn = [
            [int(x0 * side / width), int(y0 * side / height), int(x1 * side / width), int(y1 * side / height)]
            for x0, y0, x1, y1 in boxes.tolist()
        ]
        map8 = literal_map(score_map, side)
        for t, threshold in enumerate(thresholds):
            _, mask = cv2.threshold(map8, int(threshold * int(map8.max())), 255, cv2.THRESH_BINARY)
            contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            largest = [max(contours, key=cv2.contourArea)] if len(contours) else []
            for way, chosen in enumerate((largest, contours)):
                best = max(literal_iou(box, d) for box in literal_boxes(chosen, side) for d in drawn)
                for d, delta in enumerate((0.3, 0.5, 0.7)):
                    counts[way, d, t] += best >= delta
    return counts


def literal_map(score_map, side):
    big = cv2.resize(score_map.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    if np.isnan(big).any() or big.min() == big.max():
        return np.zeros((side, side), np.uint8)
    big = big - big.min()
    return (big / big.max() * 255).astype(np.uint8)


def literal_boxes(contours, side):
    if not len(contours):
        return [(0, 0, 0, 0)]
    rectangles = [cv2.boundingRect(contour) for contour in contours]
    return [(x, y, min(x + w, side - 1), min(y + h, side - 1)) for x, y, w, h in rectangles]


def literal_iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def random_images(n, seed, cells=(2, 9)):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        size = rng.integers(20, 300, 2)
        corners = np.sort(rng.random((rng.integers(1, 4), 2, 2)), axis=1) * size
        shape = rng.integers(*cells, 2)
        images.append(LocalizationInput(rng.random(shape), corners.reshape(-1, 4).astype(int), tuple(size.tolist())))
    return images


@pytest.mark.parametrize("step", [0.001, 0.01])
def test_counts_are_those_of_the_literal_version(step):
    side = 32
    images = random_images(20, seed=3)
    images.append(images[0]._replace(score_map=np.ones((7, 7))))  # constant
    images.append(images[1]._replace(score_map=np.full((7, 7), np.nan)))
    images.append(images[2]._replace(score_map=np.eye(7), boxes=np.array([[0, 0, 0, 0]])))
    found = box_accuracy(images, side, step)
    expected = literal_counts(images, side, step)
    assert found.n == 23
    assert found.thresholds.shape == (round(1 / step),)
    np.testing.assert_array_equal(found.largest, expected[0])
    np.testing.assert_array_equal(found.any_contour, expected[1])
    assert 0 < found.any_contour.max() < 23


def test_the_constant_map_gives_the_corner_pixel_at_every_threshold():
    corner = LocalizationInput(np.ones((7, 7)), np.array([[0, 0, 0, 0]]), (32, 32))
    found = box_accuracy([corner], 32)
    assert (found.any_contour == 1).all() and (found.largest == 1).all()


def test_v1_and_v2_by_hand():
    # Two bright blocks on black. Large: columns and rows 2 to 9; small: 20 to 23. Side 32, no resize.
    # The drawn box is the small block: largest contour misses, all contours hit at every IoU.
    bright = np.zeros((32, 32))
    bright[2:10, 2:10] = 1
    bright[20:24, 20:24] = 1
    small = LocalizationInput(bright, np.array([[20, 20, 23, 23]]), (32, 32))
    # Box of the large block is (2, 2, 10, 10), 9 x 9 pixels; drawn 8 x 8 inside it: IoU 64/81 = .79.
    large = LocalizationInput(bright, np.array([[2, 2, 9, 9]]), (32, 32))
    found = box_accuracy([small, large], 32)
    assert found.max_box_acc() == 1 / 2
    # small: predicted (20, 20, 24, 24) is 5 x 5, drawn 4 x 4: IoU 16/25 = .64, a hit at .3 and .5 alone.
    assert found.max_box_acc_v2() == (2 + 2 + 1) / (3 * 2)
    assert [found.found_at(pct) for pct in (30, 50, 70)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("drawn", "iou_of_block", "hits"),
    [
        ((8, 8, 16, 25), 81 / 162, (1, 1, 0)),  # one half exactly is enough
        ((8, 8, 16, 26), 81 / 171, (1, 0, 0)),
        ((8, 8, 16, 37), 81 / 270, (1, 0, 0)),  # and so is .3
        ((8, 8, 16, 38), 81 / 279, (0, 0, 0)),
    ],
)
def test_an_iou_as_large_as_asked_is_a_hit(drawn, iou_of_block, hits):
    # A bright block in columns and rows 8 to 15 has the box (8, 8, 16, 16): 9 x 9 pixels, at every threshold.
    bright = np.zeros((40, 40))
    bright[8:16, 8:16] = 1
    image = LocalizationInput(bright, np.array([drawn]), (40, 40))
    assert iou(np.array([[8, 8, 16, 16]]), np.array([drawn]))[0, 0] == pytest.approx(iou_of_block)
    found = box_accuracy([image], 40)
    assert found.largest.max(axis=1).tolist() == found.any_contour.max(axis=1).tolist() == list(hits)
    assert found.max_box_acc() == hits[1] and found.max_box_acc_v2() == sum(hits) / 3


def test_each_iou_takes_its_own_best_threshold():
    # A bright block in a dim one in the dark: low cuts give the outer box, high cuts the inner one.
    layered = np.zeros((32, 32))
    layered[4:28, 4:28] = 0.5
    layered[10:14, 10:14] = 1
    image = LocalizationInput(layered, np.array([[10, 10, 14, 14]]), (32, 32))
    found = box_accuracy([image], 32)
    assert found.max_box_acc_v2() == 1.0  # inner box (10, 10, 14, 14) fits exactly
    assert found.best_threshold(70) == pytest.approx(0.499, abs=0.005)  # .5 x 255 truncated is 127


def test_holes_are_contours_too():
    ring = np.zeros((20, 20), np.uint8)
    ring[2:18, 2:18] = 1
    ring[8:12, 8:12] = 0
    boxes, largest = contour_boxes(ring)
    assert len(boxes) == 2
    assert boxes[largest].tolist() == [2, 2, 18, 18]


def test_boxes_are_clipped_to_the_last_pixel():
    boxes, _ = contour_boxes(np.ones((20, 20), np.uint8))
    assert boxes.tolist() == [[0, 0, 19, 19]]


def test_an_empty_mask_has_one_box_of_a_pixel():
    boxes, largest = contour_boxes(np.zeros((20, 20), np.uint8))
    assert (boxes.tolist(), largest) == ([[0, 0, 0, 0]], 0)


def test_iou_counts_the_last_pixel():
    # (0,0,3,4) has 4 x 5 = 20 pixels, (1,1,3,5) has 3 x 5 = 15; shared columns 1-3, rows 1-4: 12; 12/23.
    assert iou(np.array([[0, 0, 3, 4]]), np.array([[1, 1, 3, 5]]))[0, 0] == 12 / 23
    # 2 x 4 = 8 of 3 x 9 = 27 pixels: the small box lies wholly inside.
    assert iou(np.array([[0, 0, 1, 3]]), np.array([[0, 0, 2, 8]]))[0, 0] == 8 / 27
    assert iou(np.array([[0, 0, 1, 1]]), np.array([[2, 0, 3, 1]]))[0, 0] == 0
    assert iou(np.array([[5, 5, 5, 5]]), np.array([[5, 5, 5, 5]]))[0, 0] == 1
    assert iou(np.array([[0, 0, -1, -1]]), np.array([[0, 0, -1, -1]]))[0, 0] == 0  # no pixels at all


def test_pixel_average_precision_by_hand():
    scores = np.array([[0.95, 0.75], [0.55, 0.35]])
    mask = np.array([[1, 0], [1, 0]])
    # By falling score: correct (1/1 at recall 1/2), wrong, correct (2/3 at recall 1), wrong: 1/2 + 1/2 x 2/3.
    assert pixel_average_precision([scores], [mask], 0.1) == pytest.approx(5 / 6)
    # Ignored pixels do not count: without the wrong pixel at .75 the ranking is perfect.
    assert pixel_average_precision([scores], [np.where(scores == 0.75, 255, mask)], 0.1) == 1.0
    # Pooled over images, not averaged: another wrong pixel at the top gives 1/2 and 2/4.
    top = (np.array([[1.0]]), np.array([[0]]))
    assert pixel_average_precision([scores, top[0]], [mask, top[1]], 0.1) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_pixels_of_one_bin_share_a_threshold():
    scores, mask = np.array([[0.51, 0.59]]), np.array([[1, 0]])
    assert pixel_average_precision([scores], [mask], 0.1) == 0.5
    assert pixel_average_precision([1 - scores], [mask], 0.01) == 1.0  # .49 before .41


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_map_gives_the_share_of_foreground(value):
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[:3] = 1
    assert pixel_average_precision([np.full((10, 10), value)], [mask]) == 0.3
    assert pixel_average_precision([mask.astype(float)], [mask]) == 1.0


def test_pixel_average_precision_refuses():
    with pytest.raises(DataError, match="found none"):
        pixel_average_precision([np.zeros((2, 2))], [np.zeros((2, 2), int)])
    with pytest.raises(DataError, match="same shape"):
        pixel_average_precision([np.zeros((2, 2))], [np.ones((2, 3), int)])
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        pixel_average_precision([np.full((2, 2), 1.5)], [np.ones((2, 2), int)])


def test_more_processes_change_nothing():
    images = random_images(600, seed=5)
    one, two = (box_accuracy(images, 16, 0.01, processes=processes) for processes in (1, 2))
    for field in ("largest", "any_contour", "hits"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    assert one.n == two.n == 600


def test_hits_at_best_are_those_that_are_counted():
    images = random_images(40, seed=6)
    found = box_accuracy(images, 32)
    assert found.hits_at_best().sum(axis=0).tolist() == [found.found_at(pct) for pct in (30, 50, 70)]
    assert found.hits_at_best().mean() == pytest.approx(found.max_box_acc_v2())


def test_the_reference_s_own_unit_values():
    """SOURCE: clovaai/wsolevaluation:evaluation_test.py; maps, boxes and results as they stand there."""
    assert iou(np.array([[1, 2, 5, 6]]), np.array([[3, 1, 4, 5]]))[0, 0] == 8 / 27
    assert (iou(np.array([[1, 1, 3, 3], [4, 4, 5, 5]]), np.array([[1, 1, 3, 3], [4, 4, 5, 5]])) == np.eye(2)).all()
    assert (iou(np.zeros((3, 4), int), np.zeros((5, 4), int)) == 1).all()
    assert scaled_boxes(np.array([[1, 2, 1, 2]]), (3, 3), (3, 3)).tolist() == [[1, 2, 1, 2]]
    unimodal = [[0, 0, 0, 0, 0], [0, 0.4, 0.4, 0.4, 0.6], [0, 0.4, 1, 0.8, 0.6], [0, 0.4, 0.4, 0.4, 0.6]]
    multimodal = [[0.4, 0, 0.2, 0.2, 0.2], [0.4, 0.4, 0, 0.4, 0], [0, 0, 0, 0.4, 0], [1, 0.6, 0.8, 0.2, 0.2]]
    assert largest_boxes(unimodal) == [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]]
    assert largest_boxes(multimodal) == [[0, 0, 4, 3], [0, 0, 2, 2], [0, 3, 3, 3], [2, 3, 3, 3], [0, 3, 1, 3]]
    assert largest_boxes(np.zeros((3, 3))) == [[0, 0, 0, 0]] * 5


def largest_boxes(score_map):
    """Box of the largest contour at the thresholds 0, .2, ..., .8."""
    map8 = (np.asarray(score_map, dtype=float) * 255).astype(np.uint8)
    found = []
    for threshold in np.arange(0, 1, 0.2):
        boxes, largest = contour_boxes((map8 > int(threshold * map8.max())).astype(np.uint8))
        found.append(boxes[largest].tolist())
    return found


def test_boxes_are_scaled_by_truncation():
    # 1 x 3.5 = 3.5, 2 x .5 = 1, 4 x 3.5 = 14, 3 x .5 = 1.5
    assert scaled_boxes(np.array([[1, 2, 4, 3]]), (10, 20), (35, 10)).tolist() == [[3, 1, 14, 1]]


def test_maps_become_eight_bits_by_truncation():
    steps = np.array([[0.0, 0.5], [0.999, 2.0]])
    assert eight_bits(steps, 2).tolist() == [[0, 63], [127, 255]]  # .25 x 255 = 63.75, .4995 x 255 = 127.4


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, -2.7, 1e-8, 1234.5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 7), (14, 14), (3, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_map_is_all_zeros_and_gives_one_empty_box(value, shape, dtype):
    """A bicubic resize in single precision makes noise of it, which scaling to [0, 1] would blow up."""
    flat = np.full(shape, value, dtype=dtype)
    assert not eight_bits(flat, 224).any()
    boxes = np.array([[40, 40, 120, 120]])
    counts = box_accuracy([LocalizationInput(flat, boxes, (224, 224))], 224, step=0.1)
    assert not counts.any_contour.any() and not counts.largest.any()
    at_origin = box_accuracy([LocalizationInput(flat, np.array([[0, 0, 0, 0]]), (224, 224))], 224, step=0.1)
    assert (at_origin.any_contour == 1).all()  # the box is (0, 0, 0, 0)


def test_the_pointing_game_of_a_constant_map_points_at_the_first_pixel():
    mask = np.zeros((60, 80), dtype=bool)
    mask[30:40, 30:40] = True
    assert not hits_mask(np.full((7, 7), 0.1), mask, 15)
    mask[0, 0] = True
    assert hits_mask(np.full((7, 7), 0.1), mask, 15)


@pytest.mark.parametrize(("column", "hit"), [(54, True), (55, False), (56, False)])
def test_the_pointing_game_counts_distances_below_the_tolerance(column, hit):
    """SOURCE: facebookresearch/TorchRay:torchray/benchmark/pointing_game.py, `(v + u) < self.tolerance**2`."""
    score_map = np.zeros((60, 80))
    score_map[30, 40] = 1  # already of the mask's size, so that the resize changes nothing
    mask = np.zeros((60, 80), dtype=bool)
    mask[30, column] = True  # 14, 15 and 16 px away
    assert hits_mask(score_map, mask, 15) is hit


@pytest.mark.parametrize("bad", [np.ones((3, 3)), np.array([[0, np.nan], [1, 2]]), np.array([[0, np.inf], [1, 2]])])
def test_useless_maps_become_zeros(bad):
    assert not eight_bits(bad, 8).any()


def test_no_images_and_no_boxes_are_errors():
    with pytest.raises(DataError, match="expected images"):
        box_accuracy([], 32)
    with pytest.raises(DataError, match="at least one box"):
        box_accuracy([LocalizationInput(np.eye(7), np.zeros((0, 4), int), (32, 32))], 32)


def test_the_centre_baseline_finds_a_centred_box():
    squared = ((np.arange(32) + 0.5) / 32 - 0.5) ** 2
    gaussian = np.exp(-(squared[:, None] + squared) / (2 * 0.25**2))
    image = LocalizationInput(gaussian, np.array([[8, 8, 23, 23]]), (32, 32))
    found = box_accuracy([image], 32)
    assert found.max_box_acc_v2() == 1.0
    assert box_accuracy([image._replace(boxes=np.array([[0, 0, 3, 3]]))], 32).max_box_acc_v2() == 0.0


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_images_does_not_matter(order):
    images = random_images(6, seed=5)
    found, shuffled = box_accuracy(images, 24), box_accuracy([images[i] for i in order], 24)
    np.testing.assert_array_equal(found.any_contour, shuffled.any_contour)
    np.testing.assert_array_equal(found.largest, shuffled.largest)


def test_points_in_any_box():
    # Image 100 x 50. (.1, .2) is pixel (10, 10); the box 5..10 reaches to the far edge 11.
    points = np.array([[0.1, 0.2], [0.1, 0.2], [0.12, 0.2], [0.9, 0.9]])
    boxes = [
        np.array([[5, 5, 10, 10]]),
        np.array([[50, 5, 60, 10]]),
        np.array([[5, 5, 10, 10]]),
        np.array([[0, 0, 1, 1], [80, 40, 99, 49]]),
    ]
    assert points_in_box(points, boxes, np.tile([100, 50], (4, 1))) == 2


def test_borders_of_a_box_are_inside_and_nothing_beyond():
    # Box 10..19 x 20..29 of an image of 100 x 100 reaches from 10 to 20 and from 20 to 30.
    box, size = [np.array([[10, 20, 19, 29]])], np.array([[100, 100]])
    inside = [(10, 25), (20, 25), (15, 20), (15, 30), (10, 20), (20, 30)]
    outside = [(9.99, 25), (20.01, 25), (15, 19.99), (15, 30.01)]
    found = [points_in_box(np.array([point]) / 100, box, size) for point in (*inside, *outside)]
    assert found == [1] * 6 + [0] * 4


def test_distance_to_the_nearest_centre_over_the_diagonal():
    # Image 40 x 30, diagonal 50. Box 9..10 x 4..5 has its centre at ((9 + 11) / 2, (4 + 6) / 2) = (10, 5).
    # The point (.4, .4333) is pixel (16, 13): 6 right, 8 down, 10 away, 10 / 50 = .2. The far box is ignored.
    boxes = [np.array([[39, 29, 39, 29], [9, 4, 10, 5]])]
    found = point_distances(np.array([[0.4, 13 / 30]]), boxes, np.array([[40, 30]]))
    assert found == pytest.approx([0.2])
    assert point_distances(np.array([[0.25, 5 / 30]]), boxes, np.array([[40, 30]])) == pytest.approx([0.0])


@given(st.lists(st.integers(0, 1000), min_size=1), st.lists(st.floats(0, 1, width=32)))
def test_bins_are_those_of_a_search(on_edges: list[int], anywhere: list[float]) -> None:
    """Scores on an edge, beside it by one digit, and anywhere."""
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0])
    exact = edges[on_edges].astype(np.float32)
    beside = [np.nextafter(exact, np.float32(side)) for side in (0, 1)]
    scores = np.clip(np.concatenate([exact, *beside, np.array(anywhere, np.float32)]), 0, 1).astype(np.float32)
    assert localization._bins_of(scores, edges).tolist() == (edges.searchsorted(scores, side="right") - 1).tolist()


def test_energy_in_the_box_by_hand_and_for_maps_without_energy():
    half = np.array([[1.0, 3.0], [-5.0, 0.0]])
    image = LocalizationInput(half, np.array([[1, 0, 1, 1]]), (2, 2))
    flat, negative = (image._replace(score_map=values) for values in (np.ones((2, 2)), -1 - np.eye(2)))
    found = box_focus([image, flat, negative, image._replace(score_map=np.full((2, 2), np.nan))], 2, 1)
    assert found.energy.tolist() == [3 / 4, 0, 0, 0]
    # The maxima are at (1, 0), and at the first pixel of a constant map; of the third map at (1, 0).
    assert found.hits.tolist() == [True, False, True, False]
    parts = random_images(300, seed=1)
    assert box_focus(parts, 16, 15).energy.tolist() == box_focus(parts, 16, 15, processes=2).energy.tolist()
