"""Averages for the statistics of both data sets, and their table; an average over nothing is NaN, without a warning."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Statistic = tuple[str, float, str, int]
"""Name, value, unit (share and fraction in [0, 1]; count, ms), and number of values that it summarises."""

QUARTILES = ("quartile_1", "median", "quartile_3")
DECILES = ("decile_1", "median", "decile_9")

# Quantiles are linear between neighbours.
_MEASURES: dict[str, Callable[[NDArray[Any]], Any]] = {
    "mean": np.mean,
    "min": np.min,
    "max": np.max,
    "median": partial(np.quantile, q=0.5),
    "quartile_1": partial(np.quantile, q=0.25),
    "quartile_3": partial(np.quantile, q=0.75),
    "decile_1": partial(np.quantile, q=0.1),
    "decile_9": partial(np.quantile, q=0.9),
}


def table_of(statistics: Iterable[Statistic]) -> pd.DataFrame:
    """Returns the statistics as a tidy table with the columns statistic, value, unit and n."""
    frame = pd.DataFrame(list(statistics), columns=["statistic", "value", "unit", "n"])
    return frame.astype({"value": "float64", "n": "int64"})


def ratio(part: float, whole: float) -> float:
    """Returns part / whole."""
    return part / whole if whole else np.nan


def mean(values: NDArray[Any]) -> float:
    """Returns the mean of numbers, or the share of True."""
    return float(values.mean()) if len(values) else np.nan


def summary(name: str, values: NDArray[Any], unit: str, *measures: str) -> list[Statistic]:
    """Returns one statistic for each measure: mean, min, max, or one of `QUARTILES` and `DECILES`."""
    n = len(values)
    return [(f"{name}_{part}", float(_MEASURES[part](values)) if n else np.nan, unit, n) for part in measures]
