"""Multi-label classification: average precision of each class, F1, and average precision on hard subsets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from luab.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]

AREA_LIMITS_PX = {"small": 32**2, "medium": 96**2, "large": np.inf}
"""COCO's object sizes -> exclusive upper limit of the mask's area in source pixels.
SOURCE: cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py."""

COMPANION_SHARE, COMPANION_LIFT = 0.1, 1.5


def average_precisions(scores: Floats, positive: Bools, counted: Bools | None = None) -> Floats:
    """Average precision of each class: the step-wise sum, without VOC 2007's 11-point interpolation.

    Images of equal score share one threshold.

    Args:
        scores: [images, classes]; any increasing function of the probability.
        positive: [images, classes].
        counted: [images, classes] which images count for a class; all by default.

    Returns:
        [classes], NaN for a class without a positive image that counts.

    Raises:
        DataError: A score is not finite, or the shapes differ.
    """
    from sklearn.metrics import average_precision_score

    if scores.shape != positive.shape or not np.isfinite(scores).all():
        raise DataError(
            f"Average precision: expected finite scores of shape {positive.shape}, one per image and class; found "
            f"shape {scores.shape} with {np.count_nonzero(~np.isfinite(scores))} that are not finite. Predict again."
        )
    counted = np.ones(scores.shape, dtype=bool) if counted is None else counted
    precisions = np.full(scores.shape[1], np.nan)
    for k in np.flatnonzero((positive & counted).any(axis=0)):
        rows = counted[:, k]
        precisions[k] = average_precision_score(positive[rows, k], scores[rows, k])
    return precisions


def f1_scores(scores: Floats, positive: Bools) -> dict[str, float]:
    """Per-class (CF1) and overall (OF1) F1 score at a probability threshold of one half.

    CF1 is the harmonic mean of precision and recall, each averaged over classes first; OF1 pools the decisions of all
    classes. A class that is never predicted has precision 0; a class that never occurs is left out of CF1.

    Args:
        scores: [images, classes] logits; a logit of 0 is a probability of one half.
        positive: [images, classes].

    Source:
        The definition of Wang et al., CNN-RNN (CVPR 2016), without the limit to three labels.
    """
    predicted = scores >= 0
    hits = (predicted & positive).sum(axis=0)
    n_predicted, n_positive = predicted.sum(axis=0), positive.sum(axis=0)
    precision, recall = ((hits / np.maximum(n, 1))[n_positive > 0] for n in (n_predicted, n_positive))
    return {
        "cf1": _harmonic(float(precision.mean()), float(recall.mean())),
        "of1": _harmonic(hits.sum() / max(n_predicted.sum(), 1), hits.sum() / max(n_positive.sum(), 1)),
    }


def of_size(largest_area_px: Floats, size: str) -> Bools:
    """[images, classes] whether the largest object of a class in an image has the given size.

    Args:
        largest_area_px: [images, classes] area of the largest mask in source pixels; 0 if the image has no object.
        size: A key of AREA_LIMITS_PX.
    """
    names = list(AREA_LIMITS_PX)
    low = 0 if size == names[0] else AREA_LIMITS_PX[names[names.index(size) - 1]]
    return np.asarray((largest_area_px > 0) & (largest_area_px >= low) & (largest_area_px < AREA_LIMITS_PX[size]))


def companions(shown: Bools) -> Bools:
    """[class, companion] which classes usually occur together with a class; a class is never its own companion.

    ASSUME: a class's usual companions are the classes that occur in at least a tenth of its images and at least 1.5
        times as often as in all images; no published list exists.

    Args:
        shown: [images, classes] labels of the training images.
    """
    counts = shown.astype(np.float64)
    together, single = counts.T @ counts, counts.sum(axis=0)
    share = together / np.maximum(single, 1)[:, None]
    usual = (share >= COMPANION_SHARE) & (share >= COMPANION_LIFT * (single / len(shown))[None, :])
    np.fill_diagonal(usual, False)
    return np.asarray(usual)


def in_context(shown: Bools, usual: Bools) -> Bools:
    """[images, classes] whether an image contains any usual companion of a class.

    Args:
        shown: [images, classes] labels.
        usual: From `companions`.
    """
    return np.asarray(shown.astype(np.int64) @ usual.T.astype(np.int64) > 0)


def mean_precision_of(scores: Floats, positive: Bools, subsets: Mapping[str, Bools]) -> dict[str, tuple[float, int]]:
    """Mean average precision with the positives of one subset at a time, always against all negatives.

    Subsets without any positive are ignored. The mean is over the classes that have positives in every other subset, so
    that the subsets are compared on the same classes.

    Args:
        scores: [images, classes].
        positive: [images, classes].
        subsets: Name -> [images, classes] which positives belong to the subset.

    Returns:
        Name -> (mean over classes, number of positives); empty if no class has positives in every subset.
    """
    inside = {name: positive & subset for name, subset in subsets.items() if (positive & subset).any()}
    if not inside:
        return {}
    shared = np.all([subset.any(axis=0) for subset in inside.values()], axis=0)
    if not shared.any():
        return {}
    means = {}
    for name, subset in inside.items():
        precision = average_precisions(scores[:, shared], positive[:, shared], (subset | ~positive)[:, shared])
        means[name] = (float(precision.mean()), int(subset[:, shared].sum()))
    return means


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
