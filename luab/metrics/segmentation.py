"""Intersection over union of semantic masks, also of weighted images, from the confusion of pixels in each image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from luab.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IGNORED = 255
"""Value of a true mask's pixels that do not count, as in the masks of VOC."""


class Areas(NamedTuple):
    """Pixels of each class in each image, without those that do not count.

    Attributes:
        ids: Image ids in ascending text order.
        hits: [images, classes] pixels that have the class and are predicted as it.
        true: [images, classes] pixels that have the class.
        predicted: [images, classes] pixels that are predicted as the class.
    """

    ids: list[str]
    hits: Ints
    true: Ints
    predicted: Ints

    def only(self, counted: Bools) -> "Areas":
        """The areas without some pairs of image and class.

        Args:
            counted: [images, classes] which pairs count.
        """
        return Areas(self.ids, *(np.where(counted, pixels, 0) for pixels in self[1:]))


def confusion_triples(true: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> list[int]:
    """Counts the pixels of every pair of true and predicted class, by torchmetrics.

    Args:
        true: [h, w] classes from 0, the background included, and `IGNORED` for pixels that do not count.
        predicted: [h, w] classes from 0.
        classes: Number of classes, the background included.

    Returns:
        True class, predicted class and pixels of each pair that occurs, one after the other, in ascending order.

    Raises:
        DataError: The masks differ in size, or a class is out of range.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    if true.shape != predicted.shape:
        raise DataError(f"Masks: expected {true.shape} predicted pixels, found {predicted.shape}. Predict again.")
    counts = true != IGNORED
    for name, values in (("true", true[counts]), ("predicted", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise DataError(
                f"Masks: expected {name} classes from 0 to {classes - 1}, found {values.min()} to {values.max()}. "
                "Check the masks and the number of classes, then predict again."
            )
    if not counts.any():
        return []
    found, expected = (torch.from_numpy(np.asarray(mask[counts], dtype=np.int64)) for mask in (predicted, true))
    matrix = multiclass_confusion_matrix(found, expected, num_classes=classes).numpy()
    rows, columns = np.nonzero(matrix)
    return [int(number) for number in np.stack([rows, columns, matrix[rows, columns]], axis=1).ravel()]


def areas_of(ids: Sequence[str], triples: Sequence[Sequence[int] | Ints], classes: int) -> Areas:
    """The areas of images from their `confusion_triples`; images in ascending order of their ids."""
    hits, true, predicted = np.zeros((3, len(ids), classes), dtype=np.int64)
    for row, flat in enumerate(triples):
        table = np.asarray(flat, dtype=np.int64).reshape(-1, 3)
        same = table[:, 0] == table[:, 1]
        hits[row, table[same, 0]] = table[same, 2]
        np.add.at(true[row], table[:, 0], table[:, 2])
        np.add.at(predicted[row], table[:, 1], table[:, 2])
    return Areas(list(ids), hits, true, predicted)


def ious(areas: Areas, weights: Floats | None = None) -> Floats:
    """IoU of every class over all pixels, for any weights of the images.

    Args:
        areas: From `areas_of`.
        weights: [resamples, images] how often each image counts; once by default.

    Returns:
        [resamples, classes] fractions; NaN for a class without a true pixel in a resample.

    DEVIATES: torchmetrics counts the pixels, but its quotient is in float32, and its mean counts a class that occurs
        nowhere but is predicted as 0. Here the quotient is in float64, and such a class is left out, as one without an
        object is from AP; where all classes occur, as in VOC, the means are the same.
    """
    weights = np.ones((1, len(areas.ids))) if weights is None else weights
    hits, true = weights @ areas.hits, weights @ areas.true
    union = true + weights @ (areas.predicted - areas.hits)
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=true > 0)


def mean_iou(values: Floats) -> Floats:
    """[resamples] mean of `ious` over classes, without NaN; NaN if nothing remains."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(values), np.nan), where=defined.any(axis=1))
