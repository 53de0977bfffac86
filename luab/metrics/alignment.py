"""Alignment of score maps with mouse traces: rank correlation with the time that the pointer spent at each place."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from luab.metrics.contours import is_flat

Floats = npt.NDArray[np.floating[Any]]

SIDE, SIGMA = 14, 0.1
"""Positions per side at which maps are compared, and standard deviation of a density in sides of the image."""


def trace_density(moments_xy: Floats) -> npt.NDArray[np.float32]:
    """Time spent around each position: the mean of Gaussians of `SIGMA` around the moments of a trace.

    Args:
        moments_xy: [n, moments, 2] where the pointer was at equal intervals of time; fractions of the image, x right, y
            down.

    Returns:
        [n, SIDE * SIDE] at the centres of the positions, row by row; in single precision, so that rounding does not
        rank places that are equal.
    """
    centres = (np.arange(SIDE) + 0.5) / SIDE
    x, y = (np.exp(-((centres - moments_xy[..., axis, None]) ** 2) / (2 * SIGMA**2)) for axis in (0, 1))
    density = np.einsum("nmr,nmc->nrc", y.astype(np.float64), x.astype(np.float64)) / moments_xy.shape[1]
    return density.reshape(len(moments_xy), -1).astype(np.float32)


def at_positions(score_map: Floats) -> Floats:
    """[SIDE * SIDE] values of a score map [h, w] of the whole image, resized bilinearly; zeros for a constant map."""
    if is_flat(score_map):
        return np.zeros(SIDE * SIDE, dtype=np.float32)
    resized = cv2.resize(score_map.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized.ravel())


def rank_correlations(one: Floats, other: Floats) -> npt.NDArray[np.float64]:
    """[n] Spearman's correlation of the rows of two arrays [n, values]; equal values have their mean rank.

    A constant row has the correlation 0: it prefers no place.
    """
    first, second = (rankdata(rows, axis=1) - (rows.shape[1] + 1) / 2 for rows in (one, other))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.asarray((first * second).sum(axis=1) / np.where(scale > 0, scale, 1.0))
