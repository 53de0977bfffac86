"""SI-Score's mean by hand."""

import pytest

from luab.errors import DataError
from luab.metrics.accuracy import Count
from luab.metrics.synthetic import mean_over_values


def test_each_value_has_the_same_weight():
    # (1/2 + 1/10) / 2 = .3, whereas 2 right of 12 images would be .1667.
    assert mean_over_values({"0.01": Count(1, 2), "0.02": Count(1, 10)}) == pytest.approx(0.3)


def test_one_value_is_its_accuracy():
    assert mean_over_values({"1": Count(3, 10)}) == 0.3


def test_nothing_to_average():
    with pytest.raises(DataError, match="factor value"):
        mean_over_values({})
    with pytest.raises(DataError, match="zero images"):
        mean_over_values({"1": Count(0, 0)})
