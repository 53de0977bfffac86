"""Uncertainty over images: confidence intervals of one run, and paired tests of two runs on the same images.

The bootstrap resamples images with replacement. Three choices apply to all benchmarks:

- Strata. A test set has a design, for example 50 images per class and corruption level, or 2,000 unknown and 10,000
  known images. Images are resampled within these groups, so that every resample follows the design and no mean is
  empty.
- Shared images. ImageNet-C contains each validation image in 75 versions, which are resampled together. A model that is
  correct on one version tends to be correct on the others, and resampling 3.75 million images independently would make
  the interval of mCE far too narrow. The same holds for the variants of ImageNet-9 if their file names agree. If a
  release names them differently, variants are resampled independently; the interval of BG-Gap is then wider, never
  narrower, as long as a model finds the same foregrounds hard in both variants.
- Fixed thresholds. Localisation is scored at the threshold that is best for all images. Resamples keep it; choosing it
  again in each resample would add the selection bias to the number itself.

AUPR and mAP are not means over images: the rankings of a resample are scored again, class by class; a class without a
positive in a resample is left out of its mean. The same holds for AP of boxes and for mIoU, where a class without an
object or a pixel in a resample is left out.
These intervals are over images; luab.comparison.over_seeds computes the spread over seeds.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from luab.benchmarks.outcomes import Outcomes, Rankings
from luab.comparison.weighted import Weighted
from luab.errors import DataError

RESAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]
Contributions = Outcomes | Rankings | Weighted

_FEW = 64  # up to this many distinct values, their counts are drawn instead of images
_CELLS = 4_000_000  # images times resamples in memory at once


class Interval(NamedTuple):
    """A headline with its 95 % interval; method is "Wilson" or "bootstrap"."""

    value: float
    low: float
    high: float
    method: str


class Paired(NamedTuple):
    """Second run minus first run on the same images: 95 % bootstrap interval, p, and the name of the test for p."""

    difference: float
    low: float
    high: float
    p: float
    method: str


def interval(images: Contributions, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """The 95 % interval of one run's headline: Wilson's for a plain share, otherwise bootstrap percentiles."""
    value = headline(images)
    if isinstance(images, Outcomes) and images.is_share:
        return Interval(value, *wilson(round(value * len(images.ids)), len(images.ids)), "Wilson")
    return Interval(value, *_percentiles(resampled(images, resamples, seed)), "bootstrap")


def paired(first: Contributions, second: Contributions, resamples: int = RESAMPLES, seed: int = SEED) -> Paired:
    """The second run's headline minus the first's, with a two-sided test of equality.

    The test is the exact McNemar test if each image is correct or wrong; otherwise the paired bootstrap, whose p is the
    share of resamples that differ from the observed difference by at least as much as that differs from 0.

    Raises:
        DataError: The two runs differ in their images or groups.
    """
    difference = headline(second) - headline(first)
    _check_same(first, second)
    differences = _resampled_differences(first, second, resamples, seed)
    low, high = _percentiles(differences)
    if isinstance(first, Outcomes) and isinstance(second, Outcomes) and first.is_share and second.is_share:
        gained = int(np.count_nonzero((second.values > 0) & (first.values == 0)))
        lost = int(np.count_nonzero((second.values == 0) & (first.values > 0)))
        return Paired(difference, low, high, mcnemar(gained, lost), "McNemar")
    # With a tolerance, since sums of equal values in another order differ by rounding.
    as_far = np.abs(differences - difference) >= abs(difference) - 1e-12
    as_far |= np.isnan(differences)  # a resample without anything to measure speaks for no difference
    return Paired(difference, low, high, (1 + np.count_nonzero(as_far)) / (1 + resamples), "bootstrap")


def headline(images: Contributions) -> float:
    """The headline, from the contributions of the images."""
    if isinstance(images, Outcomes):
        return images.headline
    return float(_measure(images)(np.ones((1, len(images.ids))))[0])


def resampled(images: Contributions, resamples: int, seed: int) -> Floats:
    """[resamples] headlines of bootstrap resamples; equal seeds give equal resamples."""
    if isinstance(images, Outcomes):
        return images.offset + _sums(images, resamples, seed)
    measure = _measure(images)
    return np.concatenate([measure(weights) for weights in _weights(images, resamples, seed)])


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, which also holds for shares near 0 or 1.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927 (scipy).
    """
    from scipy.stats import binomtest

    bounds = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(bounds.low), float(bounds.high)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test; 1 if no image changes.

    Args:
        gained: Number of images that only the second run classifies correctly.
        lost: Number of images that only the first run classifies correctly.

    Source:
        McNemar, Note on the sampling error of the difference between correlated proportions, 1947; exact
        binomial distribution for the changed images (scipy).
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _resampled_differences(first: Contributions, second: Contributions, resamples: int, seed: int) -> Floats:
    if isinstance(first, Outcomes) and isinstance(second, Outcomes):
        change = second._replace(values=second.values - first.values, offset=second.offset - first.offset)
        return resampled(change, resamples, seed)
    assert not isinstance(first, Outcomes) and not isinstance(second, Outcomes), "checked by _check_same"
    of_first, of_second = _measure(first), _measure(second)
    return np.concatenate([of_second(w) - of_first(w) for w in _weights(first, resamples, seed)])


def _sums(images: Outcomes, resamples: int, seed: int) -> Floats:
    """[resamples] sums of the values of resampled images, stratum by stratum."""
    rng = np.random.default_rng(seed)
    order = np.argsort(images.strata, kind="stable")
    starts = np.flatnonzero(np.diff(images.strata[order], prepend=-1))
    total = np.zeros(resamples)
    for values in np.split(images.values[order], starts[1:]):
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= _FEW:  # the counts of the distinct values follow the multinomial distribution
            total += rng.multinomial(len(values), counts / len(values), size=resamples) @ distinct
            continue
        for start, stop in _chunks(resamples, len(values)):
            drawn = rng.integers(0, len(values), (stop - start, len(values)), dtype=np.int32)
            total[start:stop] += values[drawn].sum(axis=1)
    return total


def _weights(images: Rankings | Weighted, resamples: int, seed: int) -> Iterator[Floats]:
    """Yields how often each image is drawn, [resamples, images] at a time; strata keep their sizes."""
    rng = np.random.default_rng(seed)
    strata = [np.flatnonzero(images.strata == stratum) for stratum in np.unique(images.strata)]
    for start, stop in _chunks(resamples, len(images.ids)):
        weights = np.zeros((stop - start, len(images.ids)))
        for members in strata:
            drawn = rng.integers(0, len(members), (stop - start, len(members)))
            drawn += np.arange(stop - start)[:, None] * len(members)
            counts = np.bincount(drawn.ravel(), minlength=(stop - start) * len(members))
            weights[:, members] = counts.reshape(stop - start, len(members))
        yield weights


def _measure(images: Rankings | Weighted) -> Callable[[Floats], Floats]:
    """Returns a function from image weights [resamples, images] to headlines [resamples]."""
    return images.measure if isinstance(images, Weighted) else _average_precision(images)


def _average_precision(images: Rankings) -> Callable[[Floats], Floats]:
    """Returns a function from image weights [resamples, images] to the mean step-wise average precision [resamples]."""
    classes = zip(images.scores.T, images.positive.T, images.counted.T, strict=True)
    parts = [(np.flatnonzero(rows), _precision_of(-s[rows], positive[rows])) for s, positive, rows in classes]
    return lambda weights: np.nanmean([of_class(weights[:, rows]) for rows, of_class in parts], axis=0)


def _precision_of(values: Floats, positive: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Average precision of detecting positives by low values, as a function of image weights."""
    order = np.argsort(values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    sorted_positive = positive[order]

    def precision(weights: Floats) -> Floats:
        counts = weights[:, order]
        n_above = np.cumsum(counts, axis=1)[:, last]
        hits = np.cumsum(counts * sorted_positive, axis=1)[:, last]
        steps = np.diff(hits, axis=1, prepend=0.0)
        summed = (steps * hits / np.maximum(n_above, 1)).sum(axis=1)
        return np.divide(summed, hits[:, -1], out=np.full(len(hits), np.nan), where=hits[:, -1] > 0)

    return precision


def _check_same(first: Contributions, second: Contributions) -> None:
    comparable = type(first) is type(second) and first.ids == second.ids and np.array_equal(first.strata, second.strata)
    if isinstance(first, Rankings) and isinstance(second, Rankings):
        comparable = comparable and np.array_equal(first.positive, second.positive)
    if isinstance(first, Weighted) and isinstance(second, Weighted):
        comparable = comparable and first.truth == second.truth
    if not comparable:
        raise DataError(
            f"A paired comparison needs the same images in the same groups; the two runs ({len(first.ids)} and "
            f"{len(second.ids)} images) differ. Predict both runs with the same manifests."
        )


def _chunks(resamples: int, images: int) -> Iterator[tuple[int, int]]:
    size = max(1, _CELLS // images)
    for start in range(0, resamples, size):
        yield start, min(start + size, resamples)


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
