"""Averages for the statistics of both data sets, and their table; an average over nothing is NaN, without a warning."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Statistic = tuple[str, float, str, int]
"""Name, value, unit (share and fraction in [0, 1]; count, ms), and number of values that it summarises."""


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


def smallest(values: NDArray[Any]) -> float:
    """Returns the minimum."""
    return float(values.min()) if len(values) else np.nan


def largest(values: NDArray[Any]) -> float:
    """Returns the maximum."""
    return float(values.max()) if len(values) else np.nan


def quantile(values: NDArray[Any], share: float) -> float:
    """Returns the number below which a share of the values lies, in [0, 1]; linear between neighbours."""
    return float(np.quantile(values, share)) if len(values) else np.nan


def quartiles(name: str, times_ms: NDArray[Any]) -> list[Statistic]:
    """Returns the quartiles and the median of times, as statistics."""
    shares = {"quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75}
    return [(f"{name}_{part}", quantile(times_ms, share), "ms", len(times_ms)) for part, share in shares.items()]


def deciles(name: str, values: NDArray[Any], unit: str) -> list[Statistic]:
    """Returns the first and last decile and the median of values, as statistics."""
    shares = {"decile_1": 0.1, "median": 0.5, "decile_9": 0.9}
    return [(f"{name}_{part}", quantile(values, share), unit, len(values)) for part, share in shares.items()]
