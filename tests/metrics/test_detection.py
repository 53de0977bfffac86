"""Average precision of boxes: against pycocotools run directly, an independent VOC reference, and by hand."""

import contextlib
import io
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from luab.errors import DataError
from luab.metrics.detection import (
    Detections,
    Objects,
    average_precisions,
    coco_scores,
    mean_precision,
    shown_classes,
    voc_matches,
)

CLASSES = 3


def world(seed, images=12, ties=False):
    """Random objects, and detections near some of them; boxes of all three sizes, crowds, empty images."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for row in range(images):
        n = rng.integers(0, 6)
        boxes = _boxes(rng, n)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * rng.uniform(0.4, 1, n)
        truth.append(Objects(f"{row:03}", boxes, rng.integers(1, CLASSES + 1, n), area, rng.random(n) < 0.15))
        near = rng.integers(0, n, rng.integers(0, 8)) if n else np.zeros(0, int)
        extra = rng.integers(0, 4)
        moved = np.concatenate([boxes[near] + rng.normal(0, 4, (len(near), 4)), _boxes(rng, extra)])
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        labels = np.concatenate([truth[-1].labels[near], rng.integers(1, CLASSES + 1, extra)])
        scores = rng.integers(1, 5, len(moved)) / 5 if ties else rng.random(len(moved))
        found.append(Detections(moved, labels, scores))
    return truth, found


def _boxes(rng, n):
    corner, size = rng.uniform(0, 200, (n, 2)), rng.choice([12.0, 50.0, 150.0], (n, 1)) * rng.uniform(0.8, 1.5, (n, 2))
    return np.concatenate([corner, corner + size], axis=1)


def directly(truth, found):
    """The twelve numbers of pycocotools, from records as its users write them."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        records = []
        for row, of in enumerate(truth):
            for (x0, y0, x1, y1), label, area, crowd in zip(*of[1:], strict=True):
                record = {"id": len(records) + 1, "image_id": row, "category_id": int(label), "area": area}
                records.append(record | {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(crowd)})
        gt.dataset = {"images": [{"id": row} for row in range(len(truth))], "annotations": records, "info": {}}
        gt.dataset["categories"] = [{"id": k + 1} for k in range(CLASSES)]
        gt.createIndex()
        results = [
            {"image_id": row, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            for row, of in enumerate(found)
            for (x0, y0, x1, y1), label, score in zip(*of, strict=True)
        ]
        evaluation = COCOeval(gt, gt.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_coco_ap_equals_pycocotools(seed, ties):
    truth, found = world(seed, ties=ties)
    result, reference = coco_scores(truth, found, CLASSES), directly(truth, found)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    expected = dict(zip(names, reference.stats[:6], strict=True))
    assert result.metrics == pytest.approx({name: value for name, value in expected.items() if value > -1}, abs=1e-9)
    # Our own accumulation of the matches, which the bootstrap weights.
    for size, name in (("all", "ap"), ("small", "ap_small"), ("medium", "ap_medium"), ("large", "ap_large")):
        own = mean_precision(average_precisions(result.matches[size], "coco"))[0]
        assert own == pytest.approx(result.metrics.get(name, np.nan), abs=1e-9, nan_ok=True)
    own = average_precisions(result.matches["all"], "coco")[0]
    assert mean_precision(own[None, :1])[0] == pytest.approx(result.metrics.get("ap50", np.nan), abs=1e-9, nan_ok=True)
    assert own.mean(axis=0) == pytest.approx(result.per_class, abs=1e-9, nan_ok=True)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_repeated_images(seed):
    """A weight of 2 is the image twice, for each rule and for pycocotools itself."""
    truth, found = world(seed)
    times = np.random.default_rng(seed).integers(0, 4, len(truth))
    if not times.any():
        return
    pairs = [(of, there) for of, there, n in zip(truth, found, times, strict=True) for _ in range(n)]
    twice = [of._replace(image_id=f"{row:04}") for row, (of, _) in enumerate(pairs)]
    again = [there for _, there in pairs]
    weights = times[None].astype(float)
    weighted = average_precisions(coco_scores(truth, found, CLASSES).matches["all"], "coco", weights)
    expected = coco_scores(twice, again, CLASSES)
    assert weighted[0].mean(axis=0) == pytest.approx(expected.per_class, abs=1e-9, nan_ok=True)
    for rule in ("area", "eleven"):
        weighted = average_precisions(voc_matches(truth, found, CLASSES), rule, weights)
        plain = average_precisions(voc_matches(twice, again, CLASSES), rule)
        assert weighted == pytest.approx(plain, abs=1e-9, nan_ok=True)


def voc_reference(truth, found, label, eleven):
    """VOC's devkit in plain Python with fractions: boxes that include their last pixel, one class."""
    ranked = sorted(
        ((-score, row, place) for row, of in enumerate(found) for place, score in enumerate(of.scores)),
        key=lambda item: (item[0], item[1]),
    )
    ranked = [(row, place) for _, row, place in ranked if found[row].labels[place] == label]
    objects = sum(int(np.sum((of.labels == label) & ~of.ignored)) for of in truth)
    if not objects:
        return None
    taken, right, wrong, curve = set(), 0, 0, []
    for row, place in ranked:
        best, overlap = None, -1.0
        for number, (box, of_label) in enumerate(zip(truth[row].boxes, truth[row].labels, strict=True)):
            value = inclusive_iou(found[row].boxes[place], box)
            if of_label == label and value > overlap:
                best, overlap = number, value
        if overlap >= 0.5 and truth[row].ignored[best]:
            continue
        is_right = overlap >= 0.5 and (row, best) not in taken
        taken |= {(row, best)} if is_right else set()
        right, wrong = right + is_right, wrong + (not is_right)
        curve.append((Fraction(right, objects), Fraction(right, right + wrong)))
    if eleven:
        return sum(max((p for r, p in curve if r >= Fraction(t, 10)), default=Fraction(0)) for t in range(11)) / 11
    recalls = sorted({Fraction(0), *(r for r, _ in curve)})
    return sum((high - low) * max(p for r, p in curve if r >= high) for low, high in itertools.pairwise(recalls))


def inclusive_iou(one, other):
    """IoU of boxes given as first and last pixel, from 1, as in VOC's files; ours begin a pixel before."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = ((x0 + 1, y0 + 1, x1, y1) for x0, y0, x1, y1 in (one, other))
    width, height = min(ax1, bx1) - max(ax0, bx0) + 1, min(ay1, by1) - max(ay0, by0) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area = (ax1 - ax0 + 1) * (ay1 - ay0 + 1) + (bx1 - bx0 + 1) * (by1 - by0 + 1)
    return width * height / (area - width * height)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_voc_ap_equals_an_independent_reference(seed):
    truth, found = world(seed)
    # Whole pixels, as in VOC's files.
    truth = [of._replace(boxes=of.boxes.round()) for of in truth]
    found = [of._replace(boxes=of.boxes.round()) for of in found]
    matches = voc_matches(truth, found, CLASSES)
    for rule in ("area", "eleven"):
        precision = average_precisions(matches, rule)[0, 0]
        for k in range(CLASSES):
            expected = voc_reference(truth, found, k + 1, rule == "eleven")
            expected = np.nan if expected is None else float(expected)
            assert precision[k] == pytest.approx(expected, abs=1e-9, nan_ok=True)


BOX = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])


def test_voc_by_hand():
    """Three objects, one difficult. Found: the first, nothing, the difficult one, the first again, the second."""
    truth = [Objects("a", BOX, np.array([1, 1, 1]), np.full(3, 100.0), np.array([False, False, True]))]
    boxes = np.array([BOX[0], [70, 70, 80, 80], BOX[2], BOX[0], BOX[1]])
    found = [Detections(boxes, np.ones(5, int), np.array([0.9, 0.8, 0.7, 0.6, 0.5]))]
    matches = voc_matches(truth, found, 1)
    assert matches.matched[:, 0].tolist() == [True, False, False, False, True]
    assert matches.ignored[:, 0].tolist() == [False, False, True, False, False]
    # Precision 1 at recall 1/2; 2 of 4 at recall 1.
    assert average_precisions(matches, "area").item() == pytest.approx((1 + 2 / 4) / 2)
    assert average_precisions(matches, "eleven").item() == pytest.approx((6 * 1 + 5 * 2 / 4) / 11)


def test_coco_by_hand():
    """One of two objects is found, with IoU 0.8: AP at seven of ten overlaps, half of the recalls (51 of 101)."""
    truth = [Objects("a", BOX[:2], np.array([1, 1]), np.full(2, 100.0), np.zeros(2, bool))]
    found = [Detections(np.array([[0.0, 0, 10, 8]]), np.array([1]), np.array([0.3]))]
    metrics = coco_scores(truth, found, 1).metrics
    assert metrics == pytest.approx(
        {"ap": 0.7 * 51 / 101, "ap50": 51 / 101, "ap75": 51 / 101, "ap_small": 0.7 * 51 / 101}
    )


def test_no_detection_is_zero_and_no_object_is_nothing():
    truth = [Objects("a", BOX[:1], np.array([2]), np.full(1, 100.0), np.zeros(1, bool))]
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))]
    result = coco_scores(truth, nothing, 2)
    assert result.metrics["ap"] == 0 and np.isnan(result.per_class[0]) and result.per_class[1] == 0
    assert "ap_large" not in result.metrics
    assert average_precisions(voc_matches(truth, nothing, 2), "area")[0, 0].tolist() == pytest.approx(
        [np.nan, 0], nan_ok=True
    )
    empty = [Objects("a", np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0, bool))]
    assert coco_scores(empty, nothing, 2).metrics == {}
    assert np.isnan(mean_precision(average_precisions(voc_matches(empty, nothing, 2), "area")))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pairs_that_do_not_count_are_as_if_not_there(seed):
    truth, found = world(seed)
    counted = np.random.default_rng(seed).random((len(truth), CLASSES)) < 0.5
    fewer = [
        Objects(of.image_id, *(column[counted[row, of.labels - 1]] for column in of[1:]))
        for row, of in enumerate(truth)
    ]
    left = [Detections(*(column[counted[row, of.labels - 1]] for column in of)) for row, of in enumerate(found)]
    part = coco_scores(truth, found, CLASSES).matches["all"].only(counted)
    expected = coco_scores(fewer, left, CLASSES).per_class
    assert average_precisions(part, "coco")[0].mean(axis=0) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_perfect_detector_has_one():
    truth, _ = world(3)
    found = [Detections(of.boxes, of.labels, np.linspace(1, 0.5, len(of.labels))) for of in truth]
    metrics = coco_scores(truth, found, CLASSES).metrics
    assert len(metrics) == 6 and list(metrics.values()) == pytest.approx([1.0] * 6)
    assert shown_classes(truth, CLASSES).sum() == len({(of.image_id, k) for of in truth for k in of.labels})


def test_what_cannot_be_scored_is_refused():
    truth, found = world(0)
    with pytest.raises(DataError, match=r"sorted by image_id.*Predict again"):
        coco_scores(truth[::-1], found, CLASSES)
    with pytest.raises(DataError, match=r"12 different.*detections of 11"):
        voc_matches(truth, found[1:], CLASSES)
    many = Detections(np.tile(BOX[:1], (101, 1)), np.ones(101, int), np.linspace(0, 1, 101))
    with pytest.raises(DataError, match=r"at most 100 detections an image, found 101\. Keep the best"):
        coco_scores(truth, [many, *found[1:]], CLASSES)
