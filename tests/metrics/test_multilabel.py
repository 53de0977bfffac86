"""Multi-label metrics: by hand, against an independent implementation, and on subsets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luab.errors import DataError
from luab.metrics.multilabel import (
    average_precisions,
    companions,
    f1_scores,
    in_context,
    mean_precision_of,
    of_size,
)

SCORES = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 0.0], [-1.0, -2.0]])
POSITIVE = np.array([[True, False], [False, True], [True, False], [False, False]])


def test_average_precision_by_hand():
    # First class: + - + -: (1/1 + 2/3) / 2. Second: two images share the best score, one is right: 1/2.
    assert average_precisions(SCORES, POSITIVE).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])


def test_a_class_without_positives_has_none():
    found = average_precisions(SCORES, POSITIVE & [True, False])
    assert found[0] == pytest.approx(5 / 6) and np.isnan(found[1])
    counted = np.ones((4, 2), dtype=bool)
    counted[1, 0] = False  # the false positive in between
    assert average_precisions(SCORES, POSITIVE, counted)[0] == 1.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_average_precision_equals_independent_implementations(seed, ties):
    """The code uses scikit-learn; the test sums over thresholds in Python and over ranks in torch."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (40, 5)).astype(float) if ties else rng.normal(size=(40, 5))
    positive = rng.random((40, 5)) < 0.3
    positive[0] = True
    found = average_precisions(scores, positive)
    for k in range(5):
        assert found[k] == pytest.approx(by_thresholds(scores[:, k], positive[:, k]), abs=1e-9)
    if not ties:
        assert found.mean() == pytest.approx(by_ranks(scores, positive), abs=1e-9)


def by_thresholds(scores, positive):
    """Sum over distinct scores, from the best, of the step in recall times the precision."""
    total, before = 0.0, 0
    for cut in sorted(set(scores), reverse=True):
        above = scores >= cut
        right = int((positive & above).sum())
        total += (right - before) / positive.sum() * right / above.sum()
        before = right
    return total


def by_ranks(scores, positive):
    """Mean over the positives of the precision at their rank, in torch."""
    order = torch.argsort(torch.from_numpy(scores), dim=0, descending=True)
    hits = torch.gather(torch.from_numpy(positive), 0, order).double()
    precision = hits.cumsum(0) / torch.arange(1, len(scores) + 1).unsqueeze(1)
    return float(((precision * hits).sum(0) / hits.sum(0)).mean())


def test_scores_that_are_not_finite_are_an_error():
    with pytest.raises(DataError, match="1 that are not finite"):
        average_precisions(np.where(SCORES == 3, np.nan, SCORES), POSITIVE)


def test_f1_by_hand():
    # Predicted: class 0 three times, 2 correct, of 2 positives; class 1 three times (0 is a half), 1 correct, of 1.
    found = f1_scores(SCORES, POSITIVE)
    precision, recall = (2 / 3 + 1 / 3) / 2, (1 + 1) / 2
    assert found["cf1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["of1"] == pytest.approx(2 * (3 / 6) * 1 / (3 / 6 + 1))
    assert f1_scores(np.full((4, 2), -1.0), POSITIVE) == {"cf1": 0.0, "of1": 0.0}
    absent = f1_scores(SCORES, POSITIVE & [True, False])  # a class that never occurs is ignored in CF1
    assert absent["cf1"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_sizes_include_their_lower_limit():
    areas = np.array([[0.0, 1023.9], [1024.0, 9215.0], [9216.0, 1e6]])
    assert of_size(areas, "small").tolist() == [[False, True], [False, False], [False, False]]
    assert of_size(areas, "medium").tolist() == [[False, False], [True, True], [False, False]]
    assert of_size(areas, "large").tolist() == [[False, False], [False, False], [True, True]]


def test_companions_by_hand():
    # Class 0 in 10 of 40 images, class 1 in 4 of them and in 4 others: 40 % against 20 % in general: twice as often.
    # Class 2 is in every image: never more often than usual. Class 3 is in one of the 10, a tenth: 4 times as often.
    shown = np.zeros((40, 4), dtype=bool)
    shown[:10, 0], shown[:4, 1], shown[20:24, 1], shown[:, 2], shown[5, 3] = True, True, True, True, True
    usual = companions(shown)
    assert usual[0].tolist() == [False, True, False, True]
    assert usual[1].tolist() == [True, False, False, False]
    assert usual[3].tolist() == [True, False, False, False]
    assert in_context(shown, usual)[[0, 5, 6, 20]].tolist() == [
        [True, True, False, True],
        [True, True, False, True],
        [False, True, False, True],
        [True, False, False, False],
    ]


def test_subsets_share_negatives_and_classes():
    scores = np.array([[3.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    positive = np.array([[True, True], [True, False], [False, False], [False, False]])
    first = np.array([[True, True], [False, False], [False, False], [False, False]])
    found = mean_precision_of(scores, positive, {"one": first, "other": ~first, "none": np.zeros((4, 2), dtype=bool)})
    # Class 1 has no positive in "other" and is ignored. Class 0: 3 ranks above 2 and 0; 1 ranks below 2.
    assert found == {"one": (1.0, 1), "other": (0.5, 1)}
    assert mean_precision_of(scores, positive & first, {"other": ~first}) == {}
