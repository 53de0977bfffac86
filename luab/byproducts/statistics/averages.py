"""Averages for the statistics of either data set: a value over nothing is NaN, and no warning."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ratio(part: float, whole: float) -> float:
    """part / whole."""
    return part / whole if whole else np.nan


def mean(values: NDArray[Any]) -> float:
    """Mean of numbers, or share of what is true."""
    return float(values.mean()) if len(values) else np.nan


def quantile(values: NDArray[Any], share: float) -> float:
    """The number that a share of the values, in [0, 1], lies below; linear between neighbours."""
    return float(np.quantile(values, share)) if len(values) else np.nan
