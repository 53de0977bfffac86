"""Intervals and paired tests against other libraries, against formulas, and by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score

from luab.benchmarks.outcomes import Outcomes, Rankings, grouped, ranking, rankings, share
from luab.comparison.over_images import headline, interval, mcnemar, paired, resampled, wilson
from luab.errors import DataError


def ids(n: int) -> pa.ChunkedArray:
    return pa.chunked_array([[f"i{k:05d}" for k in range(n)]])


def coin(n: int, right: int) -> Outcomes:
    return share(ids(n), np.arange(n) < right)


def a_ranking(seed: int, out: int = 40, known: int = 160) -> Rankings:
    rng = np.random.default_rng(seed)
    is_out = np.arange(out + known) < out
    confidence = np.round(rng.random(out + known) * (1 - 0.4 * is_out), 2)  # rounded, for ties
    return ranking(ids(out + known), is_out, confidence)


def test_wilson_by_its_formula():
    z, p, n = norm.ppf(0.975), 0.3, 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(30, 100) == pytest.approx((centre - half, centre + half))
    assert wilson(0, 10)[0] == 0 and 0.2 < wilson(0, 10)[1] < 0.35  # the width is not zero at the edge


def test_a_plain_share_gets_wilson_and_the_bootstrap_agrees():
    images = coin(2000, 1400)
    found = interval(images)
    assert found.method == "Wilson" and found.value == pytest.approx(0.7)
    drawn = np.quantile(resampled(images, 10_000, 0), [0.025, 0.975])
    assert drawn == pytest.approx([found.low, found.high], abs=0.002)


@pytest.mark.parametrize("n", [49, 321])
def test_a_share_is_a_count_of_whole_images(n):
    # The sum of k times 1/49 is not always k/49; the count is still k.
    for k in range(n + 1):
        assert interval(coin(n, k))[1:] == (*wilson(k, n), "Wilson")


def test_resamples_have_the_binomial_spread_and_depend_on_the_seed_only():
    images = coin(500, 100)
    first = resampled(images, 10_000, 3)
    assert first.std() == pytest.approx(np.sqrt(0.2 * 0.8 / 500), rel=0.03)
    assert (resampled(images, 10_000, 3) == first).all()
    assert (resampled(images, 10_000, 4) != first).any()


def test_the_bootstrap_interval_covers_95_per_cent():
    images = share(ids(400), np.random.default_rng(0).random(400))
    found = interval(images, 20_000)
    half = norm.ppf(0.975) * images.values.std() * np.sqrt(400)  # of a sum of 400
    assert found.method == "bootstrap"
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.03 * half)
    change = paired(images, images._replace(values=images.values[::-1]), 20_000)
    half = norm.ppf(0.975) * (images.values[::-1] - images.values).std() * np.sqrt(400)
    assert (change.low, change.high) == pytest.approx((-half, half), abs=0.03 * half)


def test_groups_of_equal_size_are_resampled_separately():
    # Each image adds 1/n or nothing, as in a plain share, but a resample has two images of each group.
    table = pa.table({"image_id": ["1", "2", "3", "4"], "group": ["a", "a", "b", "b"]})
    images = grouped(table, np.array([True, True, False, False]), {"a": 0.5, "b": 0.5})
    assert images.values.tolist() == [0.25, 0.25, 0, 0] and not images.is_share
    assert interval(images, 100) == (0.5, 0.5, 0.5, "bootstrap")


def test_many_distinct_values_are_resampled_like_few():
    # More than 64 distinct values use the other code path; the spread is that of a mean.
    values = np.random.default_rng(0).random(400)
    drawn = resampled(share(ids(400), values), 4000, 0)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.003)
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)


def test_strata_keep_their_sizes():
    # Group a is always correct, b always wrong: the mean of the two is 1/2 in every resample.
    table = pa.table({"image_id": ["1", "2", "3", "4", "5"], "group": ["a", "a", "a", "b", "b"]})
    images = grouped(table, np.array([True] * 3 + [False] * 2), {"a": 0.5, "b": 0.5})
    assert images.strata.tolist() == [0, 0, 0, 1, 1]
    assert resampled(images, 100, 0) == pytest.approx([0.5] * 100)
    assert not images.is_share


def test_versions_of_one_image_are_resampled_together():
    # Five versions of each image, all correct or all wrong: the spread is that of 100 images, not of 500.
    names = [(f"fog/{s}/{k:03d}", f"fog/{s}", k < 40) for s in range(1, 6) for k in range(100)]
    table = pa.table({"image_id": [n for n, _, _ in names], "group": [g for _, g, _ in names]})
    images = grouped(table, np.array([r for _, _, r in names]), {f"fog/{s}": 0.2 for s in range(1, 6)})
    assert len(images.ids) == 100 and images.headline == pytest.approx(0.4)
    assert resampled(images, 10_000, 0).std() == pytest.approx(np.sqrt(0.4 * 0.6 / 100), rel=0.03)


def test_images_in_the_same_groups_form_a_stratum():
    rows = [("a/1", "a"), ("a/2", "a"), ("a/3", "a"), ("b/2", "b"), ("b/3", "b"), ("b/4", "b"), ("c/9", "c")]
    table = pa.table({"image_id": [i for i, _ in rows], "group": [g for _, g in rows]})
    images = grouped(table, np.array([True] * 7), {"a": 1.0, "b": -1.0})  # c does not count
    assert images.ids == ["1", "2", "3", "4"]
    assert images.strata[1] == images.strata[2] and len(set(images.strata.tolist())) == 3
    assert images.values == pytest.approx([1 / 3, 0, 0, -1 / 3])


def test_aupr_equals_scikit_learn_and_is_resampled_with_ties():
    for seed in range(5):
        images = a_ranking(seed)
        is_out, score = images.positive[:, 0], images.scores[:, 0]
        expected = average_precision_score(is_out, score)
        assert headline(images) == pytest.approx(expected, abs=1e-12)
    drawn = resampled(images, 500, 0)
    rng = np.random.default_rng(1)
    plain = []
    for _ in range(500):  # the same, one resample at a time
        chosen = np.concatenate([rng.choice(np.flatnonzero(is_out == kind), (is_out == kind).sum())
                                 for kind in (False, True)])  # fmt: skip
        plain.append(average_precision_score(is_out[chosen], score[chosen]))
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.15)


def test_mcnemar_by_hand():
    # 1 gained, 5 lost: 2 x (C(6,0) + C(6,1)) / 64 = 14/64.
    assert mcnemar(1, 5) == mcnemar(5, 1) == pytest.approx(14 / 64)
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)


def test_a_share_is_compared_by_mcnemar():
    first = share(ids(10), np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0]))
    second = share(ids(10), np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0]))
    found = paired(first, second)
    assert found.method == "McNemar" and found.p == pytest.approx(14 / 64)
    assert found.difference == pytest.approx(-0.4)
    assert found.low < -0.4 < found.high


def test_a_run_against_itself():
    for images in (coin(50, 20), a_ranking(0), coin(50, 20)._replace(offset=1.0)):
        found = paired(images, images, resamples=200)
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_paired_bootstrap_finds_a_difference_despite_overlapping_intervals():
    # Images differ much, runs by a small constant amount: each interval is wide, the difference is certain.
    hard = np.random.default_rng(0).random(200)
    first, second = share(ids(200), hard), share(ids(200), hard + 0.01 + 0.001 * np.arange(200) / 200)
    apart = [interval(images, 1000) for images in (first, second)]
    assert apart[0].high > apart[1].low
    found = paired(first, second, resamples=1000)
    assert found.method == "bootstrap" and found.p == pytest.approx(1 / 1001) and found.low > 0


def test_p_of_the_paired_bootstrap_is_uniform_without_a_difference():
    rng = np.random.default_rng(0)
    p = [
        paired(share(ids(100), rng.random(100)), share(ids(100), rng.random(100)), resamples=300, seed=k).p
        for k in range(150)
    ]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (coin(10, 5), coin(11, 5)),
        (coin(10, 5), coin(10, 5)._replace(ids=[f"x{k}" for k in range(10)])),
        (coin(10, 5), coin(10, 5)._replace(strata=np.arange(10))),
        (coin(200, 5), a_ranking(0)),
    ],
)
def test_different_images_are_an_error(first, second):
    with pytest.raises(DataError, match="the same images"):
        paired(first, second)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_order_of_images_does_not_matter(right, seed):
    order = np.random.default_rng(seed).permutation(len(right))
    values, names = np.array(right), ids(len(right))
    plain, shuffled = share(names, values), share(names.take(order), values[order])
    assert plain.ids == shuffled.ids
    assert interval(plain, 100) == interval(shuffled, 100)
    assert (resampled(plain, 50, 1) == resampled(shuffled, 50, 1)).all()


def multi_label(seed: int, gain: float = 0.0) -> Rankings:
    """60 images and 4 classes, the last without a positive; positives score higher by 1 + gain."""
    rng = np.random.default_rng(seed)
    positive = np.arange(60)[:, None] % 5 == np.arange(4)
    positive[:, 3] = False
    scores = np.random.default_rng(0).normal(size=(60, 4)) + positive * (1 + gain)
    order = rng.permutation(60)
    names = pa.chunked_array([[f"i{k:05d}" for k in order]])
    return rankings(names, positive[order], scores[order].astype(np.float32), np.ones((60, 4), dtype=bool))


def test_map_is_computed_for_each_resample():
    images = multi_label(1)
    assert images.ids == sorted(images.ids) and images.scores.shape == (60, 3)
    expected = [average_precision_score(images.positive[:, k], images.scores[:, k]) for k in range(3)]
    assert headline(images) == pytest.approx(np.mean(expected))
    again = multi_label(2)  # another order of rows
    assert headline(again) == pytest.approx(headline(images)) and again.ids == images.ids
    drawn = resampled(images, 400, 0)
    found = interval(images, 400)
    assert found.low < found.value < found.high and 0.01 < drawn.std() < 0.2


def test_two_multi_label_rankings_are_compared_image_by_image():
    first, second = multi_label(1), multi_label(1, gain=2.0)
    found = paired(first, second, 400)
    assert found.method == "bootstrap" and found.difference > 0.1 and found.low > 0 and found.p < 0.02
    assert paired(first, first, 400).p == 1.0
    with pytest.raises(DataError, match="same images"):
        paired(first, second._replace(positive=~second.positive), 400)
    with pytest.raises(DataError, match="same images"):
        paired(first, a_ranking(0), 400)


def test_a_resample_without_positives_of_a_class_leaves_the_class_out():
    positive = np.zeros((40, 2), dtype=bool)
    positive[0, 0], positive[:20, 1] = True, True  # a single positive: missing in a third of the resamples
    scores = np.where(positive, 1.0, 0.0).astype(np.float32)
    images = rankings(ids(40), positive, scores, np.ones((40, 2), dtype=bool))
    assert resampled(images, 200, 0).tolist() == [1.0] * 200
