"""Spread and paired differences by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luab.comparison.over_seeds import difference_to_baseline, holm, mean_std
from luab.errors import DataError


def table(*rows):
    """Rows of (supervision, lambda, seed, benchmark, metric, value)."""
    names = ["supervision", "lambda", "seed", "benchmark", "metric", "value"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(dataset="imagenet", backbone="resnet18", group="", n=10, protocol="p")


def runs(supervision, weight, values, benchmark="imagenet_val", metric="top1"):
    return [(supervision, weight, seed, benchmark, metric, value) for seed, value in enumerate(values)]


def test_mean_and_standard_deviation():
    # mean (.1 + .2 + .6) / 3 = .3; squares .04 + .01 + .09 = .14; over n - 1 = 2: .07
    found = mean_std(table(*runs("none", 0.0, [0.1, 0.2, 0.6]))).iloc[0]
    assert found["mean"] == pytest.approx(0.3)
    assert found["std"] == pytest.approx(math.sqrt(0.07))
    assert found["n"] == 3


def test_one_seed_has_no_standard_deviation():
    found = mean_std(table(*runs("none", 0.0, [0.1]))).iloc[0]
    assert (found["mean"], found["n"]) == (0.1, 1) and math.isnan(found["std"])


def test_lambdas_are_kept_apart():
    found = mean_std(table(*runs("click", 0.1, [0.1, 0.3]), *runs("click", 1.0, [0.5])))
    assert found["lambda"].tolist() == [0.1, 1.0] and found["mean"].tolist() == [0.2, 0.5]


def test_the_paired_difference_by_hand():
    # Differences .01, .02, .06: mean .03, variance (.0004 + .0001 + .0009) / 2 = .0007, standard error
    # sqrt(.0007 / 3) = .0152753; t = 1.963961; t(.975) with 2 degrees is 4.302653, half width .0657243.
    # For two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2) = 1 - 1.963961 / 2.420153 = .188497.
    found = difference_to_baseline(table(*runs("none", 0.0, [0.5, 0.6, 0.7]), *runs("click", 1.0, [0.51, 0.62, 0.76])))
    row = found.iloc[0]
    assert len(found) == 1 and row["n"] == 3
    assert row["difference"] == pytest.approx(0.03)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(0.0657243, abs=1e-6)
    assert row["p"] == pytest.approx(0.188497, abs=1e-5)
    assert row["p_holm"] == row["p"]  # one benchmark, one test


def test_seeds_are_paired_by_number_not_by_place():
    rows = table(*runs("none", 0.0, [0.5, 0.6]), *runs("click", 1.0, [0.7, 0.9, 0.1]))
    found = difference_to_baseline(rows.sample(frac=1, random_state=3)).iloc[0]
    assert found["n"] == 2  # seed 2 has no baseline
    assert found["difference"] == pytest.approx(0.25)  # (.2 + .3) / 2


@pytest.mark.parametrize("click", [[0.6], [0.6, 0.7, 0.8]])
def test_one_pair_or_equal_differences_have_no_interval(click):
    found = difference_to_baseline(table(*runs("none", 0.0, [0.5, 0.6, 0.7]), *runs("click", 1.0, click)))
    row = found.iloc[0]
    assert row["difference"] == pytest.approx(0.1) and row["n"] == len(click)
    assert np.isnan(row[["low", "high", "p", "p_holm"]].astype(float)).all()


def test_numbers_that_the_baseline_lacks_are_left_out():
    rows = [*runs("none", 0.0, [0.5]), *runs("click", 1.0, [0.5], "wsol_test", "point_in_box")]
    found = difference_to_baseline(table(*rows))
    assert len(found) == 0 and "p_holm" in found.columns


def test_correction_is_over_the_headlines_of_one_method():
    rows = []
    for benchmark, metric in (("imagenet_val", "top1"), ("imagenet_val", "top5"), ("imagenet_a", "accuracy")):
        rows += runs("none", 0.0, [0.5, 0.5, 0.5], benchmark, metric)
        rows += runs("click", 1.0, [0.51, 0.52, 0.56], benchmark, metric)
        rows += runs("random", 1.0, [0.51, 0.52, 0.56], benchmark, metric)
    found = difference_to_baseline(table(*rows))
    top5 = found["metric"] == "top5"
    assert top5.sum() == 2 and found.loc[top5, "p_holm"].isna().all()
    # two headlines with the same p: the smaller is doubled, the other may not be smaller
    assert found.loc[~top5, "p_holm"].tolist() == pytest.approx((2 * found.loc[~top5, "p"]).tolist())
    assert len(found) == 6


def test_holm_by_hand():
    # Sorted .01, .02, .04 times 3, 2, 1: .03, .04, .04
    assert holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    # Sorted .01, .03, .03 times 3, 2, 1: .03, .06, .03 raised to .06
    assert holm(np.array([0.03, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.6, np.nan, 0.7])) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert holm(np.array([np.nan])) == pytest.approx([np.nan], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_the_bonferroni_value(p):
    given_p = np.array(p)
    corrected = holm(given_p)
    assert (corrected >= given_p).all()
    assert (corrected <= np.minimum(1, len(p) * given_p)).all()


@pytest.mark.parametrize("compare", [mean_std, difference_to_baseline])
def test_double_cells_and_double_baselines_are_refused(compare):
    with pytest.raises(DataError, match="found 1 twice, first imagenet resnet18 none"):
        compare(table(*runs("none", 0.0, [0.5]), *runs("none", 0.0, [0.6])))
    with pytest.raises(DataError, match="one baseline per backbone"):
        compare(table(*runs("none", 0.0, [0.5]), *runs("none", 1.0, [0.6])))
