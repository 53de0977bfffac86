"""IoU of masks: against torchmetrics, an independent reference, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from luab.errors import DataError
from luab.metrics.segmentation import areas_of, confusion_triples, ious, mean_iou

CLASSES = 4


def masks(seed, images=6):
    """Random masks of different sizes; the last class occurs rarely, and some pixels do not count."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        size = rng.integers(1, 12, 2)
        true = rng.choice([0, 1, 2, 3, 255], size, p=[0.5, 0.25, 0.14, 0.01, 0.1])
        pairs.append((true, np.where(rng.random(size) < 0.6, true % 255, rng.integers(0, CLASSES - 1, size))))
    return pairs


def areas(pairs):
    return areas_of(
        [f"{k:03}" for k in range(len(pairs))], [confusion_triples(*pair, CLASSES) for pair in pairs], CLASSES
    )


def by_sets(pairs, k):
    """IoU of a class from sets of pixels, in plain Python."""
    true, predicted = set(), set()
    for image, (one, other) in enumerate(pairs):
        for place in np.ndindex(one.shape):
            if one[place] != 255:
                true |= {(image, place)} if one[place] == k else set()
                predicted |= {(image, place)} if other[place] == k else set()
    return len(true & predicted) / len(true | predicted) if true else np.nan


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_iou_equals_independent_references(seed):
    pairs = masks(seed)
    own = ious(areas(pairs))[0]
    expected = np.array([by_sets(pairs, k) for k in range(CLASSES)])
    assert own == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert mean_iou(own[None])[0] == pytest.approx(np.nanmean(expected), abs=1e-9)
    metric = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=255)
    confusion = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
    for true, predicted in pairs:
        metric.update(torch.from_numpy(predicted), torch.from_numpy(true))
        confusion.update(torch.from_numpy(predicted), torch.from_numpy(true))
    there = ~np.isnan(own)
    assert own[there] == pytest.approx(metric.compute().numpy()[there], abs=1e-6)  # torchmetrics divides in float32
    matrix = confusion.compute().double()
    exact = matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())
    assert own[there] == pytest.approx(exact.numpy()[there], abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_repeated_images(seed):
    pairs = masks(seed)
    times = np.random.default_rng(seed).integers(0, 3, len(pairs))
    repeated = [pair for pair, n in zip(pairs, times, strict=True) for _ in range(n)]
    if repeated:
        weighted = ious(areas(pairs), times[None].astype(float))
        assert weighted == pytest.approx(ious(areas(repeated)), abs=1e-9, nan_ok=True)


def test_by_hand():
    true = np.array([[0, 0, 1], [1, 255, 2]])
    predicted = np.array([[0, 1, 1], [1, 1, 0]])
    triples = confusion_triples(true, predicted, 4)
    assert triples == [0, 0, 1, 0, 1, 1, 1, 1, 2, 2, 0, 1]
    values = ious(areas_of(["a"], [triples], 4))[0]
    # Background: 1 of 3 pixels; class 1: 2 of 3; class 2: missed; class 3 does not occur.
    assert values == pytest.approx([1 / 3, 2 / 3, 0, np.nan], nan_ok=True)
    assert mean_iou(values[None])[0] == pytest.approx(1 / 3)
    without = areas_of(["a"], [triples], 4).only(np.array([[True, True, False, True]]))
    assert mean_iou(ious(without))[0] == pytest.approx(1 / 2)


def test_a_class_that_is_only_predicted_is_left_out():
    triples = confusion_triples(np.array([[0, 0]]), np.array([[0, 3]]), 4)
    assert ious(areas_of(["a"], [triples], 4))[0] == pytest.approx([1 / 2, np.nan, np.nan, np.nan], nan_ok=True)


def test_an_image_without_a_pixel_that_counts_changes_nothing():
    blank = np.full((2, 3), 255), np.zeros((2, 3), dtype=int)
    assert confusion_triples(*blank, CLASSES) == []
    assert np.isnan(mean_iou(ious(areas([blank])))[0])


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"expected \(2, 2\) predicted pixels, found \(2, 3\)"),
        (np.full((2, 2), 4), np.zeros((2, 2), int), "true classes from 0 to 3, found 4 to 4"),
        (np.zeros((2, 2), int), np.full((2, 2), 255), "predicted classes from 0 to 3, found 255"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "predicted classes from 0 to 3, found -1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(true, predicted, message):
    with pytest.raises(DataError, match=message):
        confusion_triples(true, predicted, CLASSES)
