"""How much a number would move with other images: intervals of one run, paired tests of two runs on the same images.

Images are drawn with replacement. Three choices hold everywhere:

- Strata. A test set has a design: 50 images per class and corruption level, 2,000 unknown among 10,000 known
  images, so many images per size of an object. Images are drawn within the groups that the metric averages over, so
  that each draw has the design's numbers and no mean is over nothing.
- Shared images. ImageNet-C shows each validation image in 75 versions. They are drawn together: what a model gets
  right in one it tends to get right in the others, and drawing 3.75 million images one by one would make the
  interval of mCE far too narrow. The same holds for ImageNet-9's variants where their file names agree; where a
  release names them apart, variants are drawn apart, which makes the interval of BG-Gap wider, never narrower, as
  long as a model finds the same foregrounds hard in both.
- Fixed thresholds. Localisation is scored at the threshold that is best for all images. Draws keep it; choosing it
  anew in each would add the luck of the choice to the number itself.

AUPR is no mean over images: known and unknown ones are drawn, and the ranking is scored anew each time. So it is with
mAP, class by class; a class without a positive in a draw is left out of that draw's mean.
These intervals are over images; luab.comparison.over_seeds computes the spread over seeds.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from luab.benchmarks.outcomes import Outcomes, Ranking, Rankings
from luab.errors import DataError

RESAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]
Material = Outcomes | Ranking | Rankings

_FEW = 64  # distinct worths below which counts of worths are drawn instead of images
_CELLS = 4_000_000  # images times draws held at a time


class Interval(NamedTuple):
    """A headline, its 95 % interval, and how that was found: "Wilson" or "bootstrap"."""

    value: float
    low: float
    high: float
    method: str


class Paired(NamedTuple):
    """Second run minus first on the same images, its 95 % interval (bootstrap), p, and the test behind p."""

    difference: float
    low: float
    high: float
    p: float
    method: str


def interval(images: Material, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """The 95 % interval of one run's headline: Wilson's for a plain share, percentiles of draws for the rest."""
    value = headline(images)
    if isinstance(images, Outcomes) and images.is_share:
        return Interval(value, *wilson(round(value * len(images.ids)), len(images.ids)), "Wilson")
    return Interval(value, *_percentiles(draws(images, resamples, seed)), "bootstrap")


def paired(first: Material, second: Material, resamples: int = RESAMPLES, seed: int = SEED) -> Paired:
    """The second run's headline minus the first's, with a test of whether the two are alike.

    Where each image is right or wrong, the exact McNemar test; otherwise the paired bootstrap: the share of draws whose
    difference lies at least as far from the one found as that lies from 0. Both are two-sided.

    Raises:
        DataError: The two are not about the same images in the same groups.
    """
    difference = headline(second) - headline(first)
    _check_same(first, second)
    drawn = _difference_draws(first, second, resamples, seed)
    low, high = _percentiles(drawn)
    if isinstance(first, Outcomes) and isinstance(second, Outcomes) and first.is_share and second.is_share:
        gained = int(np.count_nonzero((second.values > 0) & (first.values == 0)))
        lost = int(np.count_nonzero((second.values == 0) & (first.values > 0)))
        return Paired(difference, low, high, mcnemar(gained, lost), "McNemar")
    # A small allowance: sums of equal worths in another order differ by rounding.
    as_far = np.abs(drawn - difference) >= abs(difference) - 1e-12
    return Paired(difference, low, high, (1 + np.count_nonzero(as_far)) / (1 + resamples), "bootstrap")


def headline(images: Material) -> float:
    """The number itself, from its images."""
    if isinstance(images, Outcomes):
        return images.headline
    return float(_average_precision(images)(np.ones((1, len(images.ids))))[0])


def draws(images: Material, resamples: int, seed: int) -> Floats:
    """[resamples] the headline on images drawn anew; the same seed gives the same draws."""
    if isinstance(images, Outcomes):
        return images.offset + _sums(images, resamples, seed)
    precision = _average_precision(images)
    return np.concatenate([precision(weights) for weights in _weights(images, resamples, seed)])


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: right where the share is near 0 or 1 too.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927 (scipy).
    """
    from scipy.stats import binomtest

    found = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that images change sides either way equally often; 1 where none changes.

    Args:
        gained: Images that the second run alone gets right.
        lost: Images that the first run alone gets right.

    Source:
        McNemar, Note on the sampling error of the difference between correlated proportions, 1947; the
        binomial law for the changed images (scipy).
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _difference_draws(first: Material, second: Material, resamples: int, seed: int) -> Floats:
    if isinstance(first, Outcomes) and isinstance(second, Outcomes):
        change = second._replace(values=second.values - first.values, offset=second.offset - first.offset)
        return draws(change, resamples, seed)
    assert not isinstance(first, Outcomes) and not isinstance(second, Outcomes), "checked by _check_same"
    of_first, of_second = _average_precision(first), _average_precision(second)
    return np.concatenate([of_second(w) - of_first(w) for w in _weights(first, resamples, seed)])


def _sums(images: Outcomes, resamples: int, seed: int) -> Floats:
    """[resamples] sums of the worths of images drawn anew, stratum by stratum."""
    rng = np.random.default_rng(seed)
    order = np.argsort(images.strata, kind="stable")
    starts = np.flatnonzero(np.diff(images.strata[order], prepend=-1))
    total = np.zeros(resamples)
    for worths in np.split(images.values[order], starts[1:]):
        distinct, counts = np.unique(worths, return_counts=True)
        if len(distinct) <= _FEW:  # how often each worth is drawn has the multinomial law
            total += rng.multinomial(len(worths), counts / len(worths), size=resamples) @ distinct
            continue
        for start, stop in _chunks(resamples, len(worths)):
            drawn = rng.integers(0, len(worths), (stop - start, len(worths)), dtype=np.int32)
            total[start:stop] += worths[drawn].sum(axis=1)
    return total


def _weights(images: Ranking | Rankings, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, [draws, images] at a time; known and unknown ones keep their numbers."""
    rng = np.random.default_rng(seed)
    strata = images.is_out if isinstance(images, Ranking) else np.zeros(len(images.ids), dtype=bool)
    kinds = [places for kind in (False, True) if len(places := np.flatnonzero(strata == kind))]
    for start, stop in _chunks(resamples, len(images.ids)):
        weights = np.zeros((stop - start, len(images.ids)))
        for places in kinds:
            drawn = rng.integers(0, len(places), (stop - start, len(places)))
            drawn += np.arange(stop - start)[:, None] * len(places)
            counts = np.bincount(drawn.ravel(), minlength=(stop - start) * len(places))
            weights[:, places] = counts.reshape(stop - start, len(places))
        yield weights


def _average_precision(images: Ranking | Rankings) -> Callable[[Floats], Floats]:
    """The step-wise average precision as a function of how often each image counts, [draws, images].

    Of `Rankings` the mean over classes.
    """
    if isinstance(images, Ranking):
        return _precision_of(images.confidence, images.is_out)
    classes = zip(images.scores.T, images.positive.T, images.kept.T, strict=True)
    parts = [(np.flatnonzero(kept), _precision_of(-s[kept], positive[kept])) for s, positive, kept in classes]
    return lambda weights: np.nanmean([of_class(weights[:, kept]) for kept, of_class in parts], axis=0)


def _precision_of(rising: Floats, positive: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Average precision of finding positives by low values, as a function of how often each image counts."""
    order = np.argsort(rising, kind="stable")
    last = np.append(np.flatnonzero(np.diff(rising[order])), len(order) - 1)
    found_here = positive[order]

    def precision(weights: Floats) -> Floats:
        counts = weights[:, order]
        above = np.cumsum(counts, axis=1)[:, last]
        found = np.cumsum(counts * found_here, axis=1)[:, last]
        steps = np.diff(found, axis=1, prepend=0.0)
        summed = (steps * found / np.maximum(above, 1)).sum(axis=1)
        return np.divide(summed, found[:, -1], out=np.full(len(found), np.nan), where=found[:, -1] > 0)

    return precision


def _check_same(first: Material, second: Material) -> None:
    if type(first) is not type(second) or first.ids != second.ids or not np.array_equal(_kind(first), _kind(second)):
        raise DataError(
            f"A paired comparison needs the same images in the same groups; found {len(first.ids)} and "
            f"{len(second.ids)} images that are not the same. Predict both runs on the same manifests."
        )


def _kind(images: Material) -> npt.NDArray[np.generic]:
    """What each image is, which both runs must agree on."""
    if isinstance(images, Outcomes):
        return images.strata
    return images.is_out if isinstance(images, Ranking) else images.positive


def _chunks(resamples: int, images: int) -> Iterator[tuple[int, int]]:
    size = max(1, _CELLS // images)
    for start in range(0, resamples, size):
        yield start, min(start + size, resamples)


def _percentiles(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
