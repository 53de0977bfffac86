"""Several labels per image: average precision of each class, F1, and what is left of them on hard subsets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from luab.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]

AREA_LIMITS_PX = {"small": 32**2, "medium": 96**2, "large": np.inf}
"""COCO's sizes of objects: the mask's area in source pixels lies below.
SOURCE: cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py."""

COMPANION_SHARE, COMPANION_LIFT = 0.1, 1.5


def average_precisions(scores: Floats, positive: Bools, kept: Bools | None = None) -> Floats:
    """Average precision of each class: the step-wise sum, images of equal score enter together.

    Args:
        scores: [images, classes], any monotone score.
        positive: [images, classes].
        kept: [images, classes] which images count for a class; all by default.

    Returns:
        [classes], NaN where no image that counts is positive. Not the 11-point interpolation of VOC 2007.

    Raises:
        DataError: A score is not finite, or the shapes differ.
    """
    from sklearn.metrics import average_precision_score

    if scores.shape != positive.shape or not np.isfinite(scores).all():
        raise DataError(
            f"Average precision: expected finite scores for every image and class {positive.shape}, found "
            f"{scores.shape} with {np.count_nonzero(~np.isfinite(scores))} that are not finite. Predict again."
        )
    kept = np.ones(scores.shape, dtype=bool) if kept is None else kept
    found = np.full(scores.shape[1], np.nan)
    for k in np.flatnonzero((positive & kept).any(axis=0)):
        rows = kept[:, k]
        found[k] = average_precision_score(positive[rows, k], scores[rows, k])
    return found


def f1_scores(scores: Floats, positive: Bools) -> dict[str, float]:
    """CF1 and OF1 of the classes whose probability is at least one half.

    CF1 is the harmonic mean of precision and recall that are first averaged over classes, OF1 that of all decisions
    together. A class that is never predicted has precision 0; one that never occurs is left out of CF1.

    Args:
        scores: [images, classes] logits: 0 is a probability of one half.
        positive: [images, classes].

    Source:
        The definition of Wang et al., CNN-RNN (CVPR 2016), without the limit to three labels.
    """
    predicted = scores >= 0
    right = (predicted & positive).sum(axis=0)
    said, there = predicted.sum(axis=0), positive.sum(axis=0)
    precision, recall = ((right / np.maximum(of, 1))[there > 0] for of in (said, there))
    return {
        "cf1": _harmonic(float(precision.mean()), float(recall.mean())),
        "of1": _harmonic(right.sum() / max(said.sum(), 1), right.sum() / max(there.sum(), 1)),
    }


def of_size(largest_area_px: Floats, size: str) -> Bools:
    """[images, classes] whether the largest object of a class in an image has a size.

    Args:
        largest_area_px: [images, classes] area of the largest mask, 0 where there is none.
        size: A key of AREA_LIMITS_PX.
    """
    names = list(AREA_LIMITS_PX)
    low = 0 if size == names[0] else AREA_LIMITS_PX[names[names.index(size) - 1]]
    return np.asarray((largest_area_px > 0) & (largest_area_px >= low) & (largest_area_px < AREA_LIMITS_PX[size]))


def companions(shown: Bools) -> Bools:
    """[classes, classes] which others usually come with a class, from the labels of the training images.

    ASSUME: a class's usual companions are those that at least a tenth of its images show, and one and a half times as
    often as images in general do; nobody has published such lists.

    Args:
        shown: [images, classes] labels of the training images.

    Returns:
        Row: the class. Column: its companion. None is its own.
    """
    counts = shown.astype(np.float64)
    together, single = counts.T @ counts, counts.sum(axis=0)
    share = together / np.maximum(single, 1)[:, None]
    usual = (share >= COMPANION_SHARE) & (share >= COMPANION_LIFT * (single / len(shown))[None, :])
    np.fill_diagonal(usual, False)
    return np.asarray(usual)


def in_context(shown: Bools, usual: Bools) -> Bools:
    """[images, classes] whether an image shows any usual companion of a class.

    Args:
        shown: [images, classes] labels.
        usual: From `companions`.
    """
    return np.asarray(shown.astype(np.int64) @ usual.T.astype(np.int64) > 0)


def mean_precision_of(scores: Floats, positive: Bools, subsets: Mapping[str, Bools]) -> dict[str, tuple[float, int]]:
    """Mean average precision with the positives of one subset at a time, against the same negatives.

    Only classes with positives in all subsets that have any count, so that the subsets differ in their images alone.

    Args:
        scores: [images, classes].
        positive: [images, classes].
        subsets: Name -> [images, classes] which positives belong to it.

    Returns:
        Name -> (mean over classes, number of positives that count), without subsets that have no positive; empty where
        no class has positives in all.
    """
    inside = {name: positive & subset for name, subset in subsets.items() if (positive & subset).any()}
    if not inside:
        return {}
    shared = np.all([subset.any(axis=0) for subset in inside.values()], axis=0)
    if not shared.any():
        return {}
    found = {}
    for name, subset in inside.items():
        precision = average_precisions(scores[:, shared], positive[:, shared], (subset | ~positive)[:, shared])
        found[name] = (float(precision.mean()), int(subset[:, shared].sum()))
    return found


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
