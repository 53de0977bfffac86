"""Statistics over seeds: mean and spread, and differences to the baseline with intervals and tests."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from luab.benchmarks.catalogue import BENCHMARKS
from luab.errors import DataError

BASELINE = "none"
CONFIDENCE = 0.95

_NUMBER = ["benchmark", "metric", "group"]
_METHOD = ["dataset", "backbone", "supervision", "lambda"]
# Equal accuracies may differ by rounding; a standard deviation up to this counts as zero.
_NO_SPREAD = 1e-12

Floats = npt.NDArray[np.float64]


def mean_std(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of every number.

    Args:
        scores: The tidy table from luab.benchmarks.collect.read_scores.

    Returns:
        dataset, backbone, supervision, lambda, benchmark, metric, group, mean, std (ddof = 1, NaN for a single seed),
        n (seeds); sorted.

    Raises:
        DataError: A number occurs twice for one seed.
    """
    _check_cells(scores)
    grouped = scores.groupby(_METHOD + _NUMBER, as_index=False, sort=True)
    return grouped.agg(mean=("value", "mean"), std=("value", "std"), n=("value", "size"))


def difference_to_baseline(scores: pd.DataFrame, headlines: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Differences between each method and the baseline ("none") of its backbone, paired by seed.

    For a metric where lower is better, a negative difference is a gain. Intervals and p come from the paired t-test;
    they are NaN with fewer than two common seeds or if all differences are equal.

    Args:
        scores: The tidy table from luab.benchmarks.collect.read_scores.
        headlines: Benchmark -> metric that is corrected for multiple tests; by default the headlines of
            luab.benchmarks.catalogue.

    Returns:
        dataset, backbone, supervision, lambda, benchmark, metric, group, difference (mean), low, high (95 %
        t-interval), p (two-sided), n (common seeds), p_holm; sorted. p_holm is p corrected over the headlines of all
        benchmarks of one method on one backbone, and NaN for other metrics. Numbers without a common seed are left
        out.

    Raises:
        DataError: A number occurs twice for one seed.

    ASSUME: each method (supervision and lambda) is a separate question; the correction for multiple tests is over its
        benchmarks, not over methods.
    """
    _check_cells(scores)
    differences = _paired(scores)
    rows = [
        dict(zip(_METHOD + _NUMBER, key, strict=True))
        | _paired_test(*part[["with", "without"]].to_numpy(dtype=float).T)
        for key, part in differences.groupby(_METHOD + _NUMBER, sort=True)
    ]
    table = pd.DataFrame(rows, columns=[*_METHOD, *_NUMBER, "difference", "low", "high", "p", "n"])
    if headlines is None:
        headlines = {name: benchmark.headline for name, benchmark in BENCHMARKS.items()}
    is_headline = (table["group"] == "") & (table["metric"] == table["benchmark"].map(dict(headlines)))
    table["p_holm"] = np.nan
    for _, family in table[is_headline].groupby(_METHOD):
        table.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(dtype=float))
    return table


def difference_to(
    scores: pd.DataFrame, method: str, control: str, headlines: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Differences between one supervision and another one, as `difference_to_baseline` returns them.

    Args:
        scores: As for `difference_to_baseline`, with one lambda of each supervision.
        method: Supervision whose differences are returned.
        control: Supervision that takes the place of the baseline.
        headlines: As for `difference_to_baseline`.
    """
    pair = scores[scores["supervision"].isin([method, control])].copy()
    is_control = pair["supervision"] == control
    pair.loc[is_control, "lambda"] = 0.0
    pair.loc[is_control, "supervision"] = BASELINE
    return difference_to_baseline(pair, headlines)


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p values; NaN stays NaN and does not count as a test.

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
    """One row per number of a method and seed: its value (with) and the baseline's value for that seed (without)."""
    values = scores[[*_METHOD, "seed", *_NUMBER, "value"]]
    is_baseline = values["supervision"] == BASELINE
    baseline = values[is_baseline].drop(columns=["supervision", "lambda"])
    same = ["dataset", "backbone", "seed", *_NUMBER]
    methods = values[~is_baseline].rename(columns={"value": "with"})
    return methods.merge(baseline.rename(columns={"value": "without"}), on=same, validate="many_to_one")


def _paired_test(with_: Floats, without: Floats) -> dict[str, float | int]:
    differences = with_ - without
    row: dict[str, float | int] = {"difference": float(differences.mean()), "n": len(differences)}
    if len(differences) < 2 or differences.std(ddof=1) <= _NO_SPREAD:
        return row | dict.fromkeys(("low", "high", "p"), np.nan)
    from scipy.stats import ttest_rel

    test = ttest_rel(with_, without)
    interval = test.confidence_interval(CONFIDENCE)
    return row | {"low": float(interval.low), "high": float(interval.high), "p": float(test.pvalue)}


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
            f"Scores: expected one baseline per backbone, found '{BASELINE}' with several lambdas. The lambda of the "
            "baseline must be 0: correct the config, then collect the scores again."
        )
