"""Runs against each other: spread over seeds, and differences to the baseline with their uncertainty."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from luab.benchmarks.catalogue import BENCHMARKS
from luab.errors import DataError

BASELINE = "none"
CONFIDENCE = 0.95

_NUMBER = ["benchmark", "metric", "group"]
_METHOD = ["dataset", "backbone", "supervision", "lambda"]
# Differences of equal accuracies differ from 0 by rounding alone; anything this small is no variance.
_NO_SPREAD = 1e-12

Floats = npt.NDArray[np.float64]


def mean_std(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of every number.

    Args:
        scores: The tidy table, see luab.benchmarks.collect.read_scores.

    Returns:
        dataset, backbone, supervision, lambda, benchmark, metric, group, mean, std (ddof = 1, NaN for one
        seed), n (seeds); sorted.

    Raises:
        DataError: A seed is there twice.
    """
    _check_cells(scores)
    grouped = scores.groupby(_METHOD + _NUMBER, as_index=False, sort=True)
    return grouped.agg(mean=("value", "mean"), std=("value", "std"), n=("value", "size"))


def difference_to_baseline(scores: pd.DataFrame, headlines: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Each method minus the baseline ("none") of its backbone, seed against the same seed.

    The sign is that of the value: for a metric where lower is better, below zero is a gain. Intervals and
    p are of the paired t-test; they are NaN with fewer than two common seeds or when all differences are
    equal, since then nothing can be said about the spread.

    Args:
        scores: The tidy table, see luab.benchmarks.collect.read_scores.
        headlines: Benchmark -> metric to which the correction applies; that of luab.benchmarks.catalogue by default.

    Returns:
        dataset, backbone, supervision, lambda, benchmark, metric, group, difference (mean), low, high (95 %
        t-interval), p (two-sided), n (common seeds), p_holm; sorted. p_holm corrects p over the headline
        metrics of all benchmarks of one method on one backbone (those with a p); NaN elsewhere. Numbers
        without a common seed are left out.

    Raises:
        DataError: A seed is there twice.

    ASSUME: each method (supervision and lambda) is a question of its own; the correction for many tests is over
        its benchmarks, not over methods.
    """
    _check_cells(scores)
    differences = _paired(scores)
    rows = [
        dict(zip(_METHOD + _NUMBER, key, strict=True)) | _paired_test(part["with"], part["without"])
        for key, part in differences.groupby(_METHOD + _NUMBER, sort=True)
    ]
    columns = [*_METHOD, *_NUMBER, "difference", "low", "high", "p", "n"]
    table = pd.DataFrame(rows, columns=columns)
    chosen = headlines if headlines is not None else {name: b.headline for name, b in BENCHMARKS.items()}
    is_headline = (table["group"] == "") & (table["metric"] == table["benchmark"].map(dict(chosen)))
    table["p_holm"] = np.nan
    for _, family in table[is_headline].groupby(_METHOD):
        table.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(dtype=float))
    return table


def holm(p: Floats) -> Floats:
    """Holm's step-down correction; NaN stays NaN and does not count as a test.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _paired(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per number of a method and seed, with the baseline's value of the same seed beside it."""
    values = scores[[*_METHOD, "seed", *_NUMBER, "value"]]
    is_baseline = values["supervision"] == BASELINE
    baseline = values[is_baseline].drop(columns=["supervision", "lambda"])
    same = ["dataset", "backbone", "seed", *_NUMBER]
    methods = values[~is_baseline].rename(columns={"value": "with"})
    return methods.merge(baseline.rename(columns={"value": "without"}), on=same, validate="many_to_one")


def _paired_test(with_: "pd.Series[Any]", without: "pd.Series[Any]") -> dict[str, float | int]:
    differences = with_.to_numpy(dtype=float) - without.to_numpy(dtype=float)
    row: dict[str, float | int] = {
        "difference": float(differences.mean()),
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "n": len(differences),
    }
    if len(differences) >= 2 and differences.std(ddof=1) > _NO_SPREAD:
        from scipy.stats import ttest_rel

        test = ttest_rel(with_.to_numpy(dtype=float), without.to_numpy(dtype=float))
        interval = test.confidence_interval(CONFIDENCE)
        row |= {"low": float(interval.low), "high": float(interval.high), "p": float(test.pvalue)}
    return row


def _check_cells(scores: pd.DataFrame) -> None:
    cell = [*_METHOD, "seed", *_NUMBER]
    double = scores[scores.duplicated(cell)]
    if len(double):
        raise DataError(
            f"Scores: expected each number once per seed, found {len(double)} twice, first "
            f"{' '.join(str(value) for value in double.iloc[0][cell])}. Collect the scores again."
        )
    baselines = scores.loc[scores["supervision"] == BASELINE, ["dataset", "backbone", "lambda"]].drop_duplicates()
    if baselines.duplicated(["dataset", "backbone"]).any():
        raise DataError(
            f"Scores: expected one baseline per backbone, found several lambdas of '{BASELINE}'. The "
            "baseline has lambda 0 alone: correct the config and collect again."
        )
