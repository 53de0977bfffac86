"""Alignment of maps and traces: ranks, ties and densities by hand."""

import math

import numpy as np
import pytest

from luab.metrics.alignment import SIDE, SIGMA, at_positions, rank_correlations, trace_density


def test_rank_correlations_by_hand() -> None:
    one = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4], [1, 1, 2, 2], [5, 5, 5, 5]])
    other = np.array([[10.0, 20, 30, 99], [1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4], [1, 2, 3, 4]])
    # Third: squared differences of ranks 1 1 1 1, so 1 - 6 * 4 / (4 * 15) = .6. Fourth: ranks 1.5 1.5 3.5 3.5, so
    # (1.5 + .5 + .5 + 1.5) / sqrt(4 * 5). A constant row prefers no place.
    assert rank_correlations(one, other).tolist() == pytest.approx([1, -1, 0.6, 4 / math.sqrt(20), 0])


def test_a_density_is_the_mean_of_gaussians_with_x_to_the_right() -> None:
    first, last = 0.5 / SIDE, 1 - 0.5 / SIDE
    (found,) = trace_density(np.array([[[last, first], [last, first], [first, first], [0.5, 9.0]]])).reshape(
        1, SIDE, SIDE
    )
    across = math.exp(-((last - first) ** 2) / (2 * SIGMA**2))
    assert found[0, -1] == pytest.approx((2 + across) / 4) and found[0, 0] == pytest.approx((1 + 2 * across) / 4)
    assert found[-1].max() < 1e-6
    assert found[0, 1] == pytest.approx(math.exp(-((1 / SIDE) ** 2) / (2 * SIGMA**2)) / 4, rel=1e-6)


def test_maps_of_any_size_get_the_same_positions() -> None:
    ramp = np.tile(np.arange(7.0), (5, 1))
    values = at_positions(ramp).reshape(SIDE, SIDE)
    assert (values == values[0]).all() and (np.diff(values[0]) >= 0).all() and values[0, 0] == 0 and values[0, -1] == 6
    assert not at_positions(np.full((3, 3), 0.1)).any()
    same = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    assert (at_positions(same) == same.ravel()).all()
