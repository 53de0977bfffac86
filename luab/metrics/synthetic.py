"""SI-Score: accuracy averaged over the values of one factor (size, location or rotation)."""

import statistics
from collections.abc import Mapping

from luab.errors import DataError
from luab.metrics.accuracy import Count


def mean_over_values(counts: Mapping[str, Count]) -> float:
    """Mean of the accuracies of each factor value, every value with the same weight; a fraction.

    It differs a little from the share of right images, since the values have unequal numbers of images.

    Args:
        counts: Factor value -> right images and images.

    Raises:
        DataError: There is no value, or one has no images.

    Source:
        google-research/robustness_metrics, metrics/synthetic.py.
    """
    if not counts:
        raise DataError("SI-Score: expected at least one factor value, found none. Index the dataset again.")
    return float(statistics.mean(count.fraction for count in counts.values()))
