"""Share of images whose answer is among the right labels, top-k and per group."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luab.errors import DataError

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

NO_LABEL = -1


class Count(NamedTuple):
    """How many of `n` images were right; kept in integers, divided once."""

    correct: int
    n: int

    @property
    def fraction(self) -> float:
        """`correct / n`, in [0, 1].

        Raises:
            DataError: There are no images.
        """
        if not self.n:
            raise DataError(
                "A share of zero images was asked for: expected at least one image with a label, found none. "
                "Check that the labels of this test set were read."
            )
        return self.correct / self.n


def label_matrix(labels: Ints | Sequence[int] | Sequence[Sequence[int]]) -> Ints:
    """One row of right labels per image, filled up with -1.

    Args:
        labels: One label per image, several (ragged; an empty row is an image without a label), or an
            [n, m] array that is filled up already and is returned as it is.

    Returns:
        Integers [n, m], m at least 1.
    """
    if isinstance(labels, np.ndarray) and labels.dtype != object:
        return labels.reshape(len(labels), -1) if labels.ndim != 1 else labels[:, None]
    rows = [np.atleast_1d(np.asarray(row, dtype=np.int64)) for row in labels]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    return padded(flat, lengths)


def padded(flat: Ints, lengths: Ints) -> Ints:
    """Cuts `flat` into rows of the given lengths and fills them up with -1: integers [n, m], m >= 1."""
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(len(flat)) - np.repeat(starts, lengths)
    matrix = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), NO_LABEL, dtype=np.int64)
    matrix[np.repeat(np.arange(len(lengths)), lengths), columns] = flat
    return matrix


def has_label(labels: Ints | Sequence[int] | Sequence[Sequence[int]]) -> Bools:
    """Whether each image has any label at all: booleans [n]."""
    return np.asarray((label_matrix(labels) >= 0).any(axis=1))


def is_correct(answers: Ints, labels: Ints | Sequence[int] | Sequence[Sequence[int]]) -> Bools:
    """Whether any of an image's answers is among its labels.

    Args:
        answers: [n] or [n, k]; a negative answer is never right.
        labels: As in `label_matrix`; an image without labels is never right.

    Returns:
        Booleans [n].

    Raises:
        DataError: The numbers of images differ.
    """
    truth = label_matrix(labels)
    given = label_matrix(answers)
    if len(truth) != len(given):
        raise DataError(
            f"Expected one set of labels per image, found {len(given)} answers and {len(truth)} label sets. "
            "Read both from the same predictions file."
        )
    right = np.zeros(len(given), dtype=bool)
    for column in truth.T:  # a loop over the few labels keeps memory at [n, k]
        right |= ((given == column[:, None]) & (column[:, None] >= 0)).any(axis=1)
    return right


def topk_accuracy(top5: Ints, labels: Ints | Sequence[int] | Sequence[Sequence[int]], k: int = 1) -> float:
    """Share of labelled images for which one of the k best classes is a right one.

    Images without any label are left out of both numbers, as ImageNet-ReaL asks.

    Args:
        top5: [n, 5] class indices, best first.
        labels: As in `label_matrix`.
        k: How many of the best count, 1 to 5.

    Returns:
        A fraction in [0, 1].

    Raises:
        DataError: No image has a label, fewer than k classes are there, or the lengths differ.

    Source:
        ImageNet-ReaL: google-research/reassessed-imagenet, README.md.
    """
    if top5.ndim != 2 or not 1 <= k <= top5.shape[1]:
        raise DataError(f"Expected the {k} best classes of each image, found an array of shape {top5.shape}.")
    return labelled_count(is_correct(top5[:, :k], labels), labels).fraction


def restricted_accuracy(restricted_top1: Ints, labels: Ints | Sequence[int] | Sequence[Sequence[int]]) -> float:
    """Share of labelled images whose arg-max over the test set's own classes is right; a fraction.

    Args:
        restricted_top1: [n] class indices in the 1000-class numbering, arg-max over the subset only.
        labels: As in `label_matrix`.

    Raises:
        DataError: No image has a label, or the lengths differ.

    Source:
        hendrycks/natural-adv-examples, eval.py (ImageNet-A, -R); ObjectNet with 125 classes.
    """
    return labelled_count(is_correct(restricted_top1, labels), labels).fraction


def labelled_count(correct: Bools, labels: Ints | Sequence[int] | Sequence[Sequence[int]]) -> Count:
    """Right images among those that have a label."""
    scored = has_label(labels)
    return Count(int(np.count_nonzero(correct & scored)), int(np.count_nonzero(scored)))


def count_by_group(correct: Bools, groups: npt.ArrayLike) -> dict[str, Count]:
    """Right images and images of each group, the groups in text order.

    Args:
        correct: Booleans [n].
        groups: [n] names.
    """
    # Encoded by hashing: sorting the names of ImageNet-C's 3.75 million rows would take longer than all the rest.
    encoded = pa.array(np.asarray(groups, dtype=object), pa.string()).dictionary_encode()
    names, index = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    n = np.bincount(index, minlength=len(names))
    right = np.bincount(index[correct], minlength=len(names))
    return {name: Count(int(right[i]), int(n[i])) for name, i in sorted(zip(names, range(len(names)), strict=True))}
