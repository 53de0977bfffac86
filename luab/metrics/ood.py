"""ImageNet-O: how well the confidence tells unknown classes from known ones."""

from typing import Any

import numpy as np
import numpy.typing as npt

from luab.errors import DataError
from luab.metrics.accuracy import Bools

Floats = npt.NDArray[np.floating[Any]]

RECALL = 0.95


def aupr(confidence: Floats, is_out: Bools) -> float:
    """Average precision of finding the out-of-distribution images by low confidence.

    The step-wise sum, not the trapezoid; images of equal confidence enter together. Chance is the share
    of out-of-distribution images, 2000 / 12000 for ImageNet-O.

    Args:
        confidence: [n] maximum softmax probability, taken over the 200 ImageNet-O classes.
        is_out: [n] whether the image is out of distribution: the positives.

    Returns:
        A fraction, higher is better.

    Raises:
        DataError: A confidence is not finite, a kind of image is missing, or the lengths differ.

    Source:
        hendrycks/natural-adv-examples, eval_many_models.py and calibration_tools.py.
    """
    from sklearn.metrics import average_precision_score

    _check(confidence, is_out)
    return float(average_precision_score(is_out, _score(confidence)))


def auroc(confidence: Floats, is_out: Bools) -> float:
    """Area under the ROC curve; chance is 0.5, higher is better. Arguments and errors as in `aupr`."""
    from sklearn.metrics import roc_auc_score

    _check(confidence, is_out)
    return float(roc_auc_score(is_out, _score(confidence)))


def fpr95(confidence: Floats, is_out: Bools) -> float:
    """Share of known images taken for unknown, at the cut whose recall of unknown ones is nearest 0.95.

    The releasing project's rule: the nearest recall, not the first that reaches it. Where two recalls are
    equally near, the higher one; where several cuts share the recall, the one with most false alarms.
    Cuts below the first that finds everything do not count. Lower is better. Arguments and errors as
    in `aupr`.
    """
    _check(confidence, is_out)
    found, false_alarms = _cuts(_score(confidence), is_out)
    complete = int(np.searchsorted(found, found[-1]))
    recall = found[: complete + 1] / found[-1]
    nearest = complete - int(np.argmin(np.abs(recall[::-1] - RECALL)))
    return int(false_alarms[nearest]) / int(np.count_nonzero(~is_out))


def _score(confidence: Floats) -> Floats:
    return -confidence.astype(np.float64)


def _cuts(score: Floats, is_out: Bools) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Unknown and known images at or above each distinct score, from the highest score down."""
    order = np.argsort(-score, kind="stable")
    last_of_score = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = np.cumsum(is_out[order])[last_of_score]
    return found, last_of_score + 1 - found


def _check(confidence: Floats, is_out: Bools) -> None:
    out, n = int(np.count_nonzero(is_out)), len(is_out)
    if len(confidence) != n or not 0 < out < n:
        raise DataError(
            "ImageNet-O: expected a confidence for each image of both kinds, found "
            f"{len(confidence)} confidences for {out} unknown and {n - out} known images. "
            "Index ImageNet-O and the validation set, then predict again."
        )
    if not np.isfinite(confidence).all():
        raise DataError(
            f"ImageNet-O: expected finite confidences, found {np.count_nonzero(~np.isfinite(confidence))} "
            "that are not. The model is damaged or diverged: look at its log.csv."
        )
