"""ImageNet-O: how well the confidence separates images of unknown classes from images of known classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from luab.errors import DataError
from luab.metrics.accuracy import Bools

Floats = npt.NDArray[np.floating[Any]]

RECALL = 0.95


def aupr(confidence: Floats, is_out: Bools) -> float:
    """Average precision of detecting out-of-distribution images by low confidence; higher is better.

    The step-wise sum, not the trapezoid; images of equal confidence share one threshold. Chance level is the share of
    out-of-distribution images, 2000 / 12000 for ImageNet-O.

    Args:
        confidence: [n] maximum softmax probability over the 200 ImageNet-O classes.
        is_out: [n] whether the image is out of distribution (the positives).

    Raises:
        DataError: A confidence is not finite, one kind of image is missing, or the lengths differ.

    Source:
        hendrycks/natural-adv-examples, eval_many_models.py and calibration_tools.py.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_out, _score(confidence, is_out)))


def auroc(confidence: Floats, is_out: Bools) -> float:
    """Area under the ROC curve; chance level is 0.5, higher is better. Arguments and errors as for `aupr`."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_out, _score(confidence, is_out)))


def fpr95(confidence: Floats, is_out: Bools) -> float:
    """False positive rate at the threshold whose recall of unknown images is nearest to 0.95; lower is better.

    The rule of the releasing project: the nearest recall, not the first that reaches 0.95. Of two equally near recalls
    the higher one counts; of several thresholds with that recall, the one with most false alarms. Thresholds below the
    first one with recall 1 are ignored. Arguments and errors as for `aupr`.
    """
    from sklearn.metrics import roc_curve

    false_alarms, recall, _ = roc_curve(is_out, _score(confidence, is_out), drop_intermediate=False)
    complete = int(np.searchsorted(recall, 1.0))
    nearest = complete - int(np.argmin(np.abs(recall[complete::-1] - RECALL)))
    return float(false_alarms[nearest])


def _score(confidence: Floats, is_out: Bools) -> Floats:
    """How far each image looks out of distribution, after a check of both inputs."""
    out, n = int(np.count_nonzero(is_out)), len(is_out)
    if len(confidence) != n or not 0 < out < n:
        raise DataError(
            "ImageNet-O: expected images of both kinds, each with a confidence; found "
            f"{len(confidence)} confidences for {out} unknown and {n - out} known images. Build the manifests of "
            "ImageNet-O and of the validation set, then predict again."
        )
    if not np.isfinite(confidence).all():
        raise DataError(
            f"ImageNet-O: {np.count_nonzero(~np.isfinite(confidence))} confidences are not finite. The training "
            "diverged or the weights are damaged: check the run's log.csv."
        )
    return -confidence.astype(np.float64)
