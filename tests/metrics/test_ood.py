"""The metrics of ImageNet-O, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luab.errors import DataError
from luab.metrics.ood import aupr, auroc, fpr95


def split(out, known):
    confidence = np.array([*out, *known], dtype=np.float32)
    return confidence, np.arange(len(confidence)) < len(out)


def test_constant_confidence_gives_the_chance_level():
    assert aupr(*split([0.5] * 2000, [0.5] * 10000)) == 2000 / 12000
    assert auroc(*split([0.5] * 2000, [0.5] * 10000)) == 0.5
    assert fpr95(*split([0.5] * 2000, [0.5] * 10000)) == 1.0


def test_low_confidence_on_unknown_images_is_perfect():
    perfect = split([0.1, 0.2], [0.8, 0.9, 1.0])
    assert (aupr(*perfect), auroc(*perfect), fpr95(*perfect)) == (1.0, 1.0, 0.0)


def test_average_precision_by_steps():
    # Ranked by low confidence: out, known, out, known. Precision at the two positives: 1/1 and 2/3,
    # each adds half of the recall: (1 + 2/3) / 2 = 5/6. Pairs in order: 3 of 4.
    given = split([0.1, 0.3], [0.2, 0.4])
    assert aupr(*given) == pytest.approx(5 / 6)
    assert auroc(*given) == 0.75


def test_ties_enter_together():
    # Both at .5 come in one step: precision 1/2 at recall 1. A trapezoid would give something else.
    assert aupr(*split([0.5], [0.5])) == 0.5


def test_swapped_classes_would_show():
    bad = split([0.9, 0.95], [0.1, 0.2])
    assert aupr(*bad) == pytest.approx((1 / 3 + 2 / 4) / 2)  # found at places 3 and 4
    assert auroc(*bad) == 0.0


def test_fpr_takes_the_nearest_recall():
    # 100 unknown images in a row: recall is .95 exactly after the 95th. One known image lies behind the
    # 95th and one behind the 99th; the first still belongs to recall .95, the second does not.
    out = np.arange(1, 101) / 200
    assert fpr95(*split(out, [95.5 / 200, 99.5 / 200, 0.99, 0.995])) == 1 / 4


def test_fpr_among_equal_recalls_counts_the_most_false_alarms():
    # Recall .95 holds from the 95th unknown image on through the known one behind it: it counts.
    out = np.arange(1, 101) / 200
    assert fpr95(*split(out, [94.5 / 200, 95.2 / 200, 95.4 / 200, 0.99])) == 3 / 4


def test_fpr_with_a_single_unknown_image():
    # Recall jumps from 0 to 1 at the third place, after two known images of four.
    assert fpr95(*split([0.3], [0.1, 0.2, 0.4, 0.5])) == 2 / 4


@pytest.mark.parametrize("metric", [aupr, auroc, fpr95])
def test_bad_input_is_refused(metric):
    with pytest.raises(DataError, match="of both kinds"):
        metric(*split([0.5], []))
    with pytest.raises(DataError, match="of both kinds"):
        metric(np.array([0.5], dtype=np.float32), np.array([True, False]))
    with pytest.raises(DataError, match="finite"):
        metric(*split([0.5, np.nan], [0.1]))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
)
def test_the_order_of_images_does_not_matter(out, known, seed):
    confidence, is_out = split([v / 5 for v in out], [v / 5 for v in known])
    order = np.random.default_rng(seed).permutation(len(confidence))
    for metric in (aupr, auroc, fpr95):
        assert metric(confidence, is_out) == pytest.approx(metric(confidence[order], is_out[order]), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(out, known):
    pairs = [(o < k) + (o == k) / 2 for o in out for k in known]
    assert auroc(*split(out, known)) == pytest.approx(sum(pairs) / len(pairs))
