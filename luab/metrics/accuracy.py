"""Shares of correctly classified images, with any number of correct labels per image, and per group."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luab.errors import DataError

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Labels = Ints | Sequence[int] | Sequence[Sequence[int]]
"""Correct labels: one per image, ragged rows (an empty row is an image without a label), or a padded array."""

NO_LABEL = -1


class Count(NamedTuple):
    """Number of correct images among `n`; integers, so that a fraction is rounded only once."""

    correct: int
    n: int

    @property
    def fraction(self) -> float:
        """`correct / n`, in [0, 1].

        Raises:
            DataError: `n` is 0.
        """
        if not self.n:
            raise DataError(
                "Cannot compute an accuracy over zero images: no image has a label. Check the labels in the manifest "
                "of this test set."
            )
        return self.correct / self.n


def label_matrix(labels: Labels) -> Ints:
    """[n, m] one row of correct labels per image, padded with -1; m is at least 1."""
    if isinstance(labels, np.ndarray) and labels.dtype != object:
        return labels.reshape(len(labels), -1) if labels.ndim != 1 else labels[:, None]
    rows = [np.atleast_1d(np.asarray(row, dtype=np.int64)) for row in labels]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    return padded(flat, lengths)


def padded(flat: Ints, lengths: Ints) -> Ints:
    """Splits `flat` into rows of the given lengths and pads them with -1: integers [n, m], m >= 1."""
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(len(flat)) - np.repeat(starts, lengths)
    matrix = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), NO_LABEL, dtype=np.int64)
    matrix[np.repeat(np.arange(len(lengths)), lengths), columns] = flat
    return matrix


def has_label(labels: Labels) -> Bools:
    """[n] whether each image has any label."""
    return np.asarray((label_matrix(labels) >= 0).any(axis=1))


def is_correct(answers: Ints, labels: Labels) -> Bools:
    """[n] whether any answer for an image is one of its labels.

    Args:
        answers: [n] or [n, k] classes; a negative answer is never correct.
        labels: Correct labels; an image without labels is never correct.

    Raises:
        DataError: The numbers of images differ.
    """
    truth, predicted = label_matrix(labels), label_matrix(answers)
    if len(truth) != len(predicted):
        raise DataError(
            f"Expected one set of labels per image, found {len(predicted)} answers and {len(truth)} label sets. "
            "Read both from the same predictions file."
        )
    correct = np.zeros(len(predicted), dtype=bool)
    for column in truth.T:  # a loop over the few labels needs memory for [n, k] only
        correct |= ((predicted == column[:, None]) & (column[:, None] >= 0)).any(axis=1)
    return correct


def labelled_count(correct: Bools, labels: Labels) -> Count:
    """Number of correct images among those that have a label; ImageNet-ReaL leaves the others out.

    Source:
        google-research/reassessed-imagenet, README.md.
    """
    labelled = has_label(labels)
    return Count(int(np.count_nonzero(correct & labelled)), int(np.count_nonzero(labelled)))


def count_by_group(correct: Bools, groups: npt.ArrayLike) -> dict[str, Count]:
    """Counts the correct images of each group; groups are sorted by name.

    Args:
        correct: [n] whether each image is correct.
        groups: [n] group names.
    """
    # Encoding by hash: sorting the names of ImageNet-C's 3.75 million rows would take longer than everything else.
    encoded = pa.array(np.asarray(groups, dtype=object), pa.string()).dictionary_encode()
    names, index = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    n = np.bincount(index, minlength=len(names))
    hits = np.bincount(index[correct], minlength=len(names))
    return {name: Count(int(hits[i]), int(n[i])) for name, i in sorted(zip(names, range(len(names)), strict=True))}


def mean_over_groups(counts: Mapping[str, Count]) -> float:
    """Mean of the accuracies of all groups, each group with the same weight; a fraction.

    SI-Score averages over the values of a factor like this. The result differs slightly from the share of correct
    images, since the groups differ in size.

    Args:
        counts: Group (factor value) -> number of correct images and of images.

    Raises:
        DataError: There is no group, or a group has no images.

    Source:
        google-research/robustness_metrics, metrics/synthetic.py.
    """
    if not counts:
        raise DataError("SI-Score: expected at least one factor value, found none. Build the manifest again.")
    return float(statistics.mean(count.fraction for count in counts.values()))
