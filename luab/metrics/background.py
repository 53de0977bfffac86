"""Backgrounds Challenge (ImageNet-9): how much a model leans on the background."""

import numpy as np
import numpy.typing as npt

from luab.errors import DataError
from luab.metrics.accuracy import Bools, Count, Ints, count_by_group, is_correct


def in9_answers(top1: Ints, in9_of_class: Ints) -> Ints:
    """The ImageNet-9 class (0 to 8) of each 1000-way arg-max; -1 where the class is in none of the nine.

    Args:
        top1: [n] ImageNet indices.
        in9_of_class: [1000] the map, -1 for an unmapped class.

    Raises:
        DataError: The map does not have 1000 entries.

    Source:
        MadryLab/backgrounds_challenge, in9_eval.py: the arg-max is over all 1000 logits.
    """
    if in9_of_class.shape != (1000,):
        raise DataError(f"Expected a map of 1000 ImageNet classes to IN-9, found shape {in9_of_class.shape}.")
    return in9_of_class[top1]


def nine_class_answers(top1: Ints) -> Ints:
    """The answers of a model with nine outputs, in the order of the nine folders, as they are.

    Raises:
        DataError: An answer is above 8: the model has another set of classes.

    Source:
        MadryLab/backgrounds_challenge, in9_eval.py: no map for models trained on ImageNet-9 itself.
    """
    if top1.max(initial=0) > 8:
        raise DataError(
            f"ImageNet-9: expected answers 0 to 8 of a model with nine outputs, found {int(top1.max())}. "
            "Score a model with 1000 classes by the benchmark in9, which maps them."
        )
    return top1


def in9_counts(top1: Ints, labels: Ints, variants: npt.ArrayLike, in9_of_class: Ints) -> dict[str, Count]:
    """Right images and images of every variant that is there; an unmapped arg-max is always wrong.

    Args:
        top1: [n] ImageNet indices.
        labels: [n] or [n, 1] ImageNet-9 classes 0 to 8.
        variants: [n] names such as "mixed_rand".
        in9_of_class: As in `in9_answers`.

    Raises:
        DataError: The map or the lengths are wrong.
    """
    return count_by_group(is_correct(in9_answers(top1, in9_of_class), labels), variants)


def in9_accuracies(top1: Ints, labels: Ints, variants: npt.ArrayLike, in9_of_class: Ints) -> dict[str, float]:
    """Accuracy of each variant that is there, fractions; arguments as in `in9_counts`."""
    counts = in9_counts(top1, labels, variants, in9_of_class)
    return {variant: count.fraction for variant, count in counts.items()}


def bg_gap(accuracies: dict[str, float]) -> float:
    """BG-Gap: accuracy on mixed_same minus accuracy on mixed_rand; lower is better, may be negative.

    Raises:
        DataError: One of the two variants is missing.
    """
    missing = [name for name in ("mixed_same", "mixed_rand") if name not in accuracies]
    if missing:
        raise DataError(
            f"BG-Gap: expected the variants mixed_same and mixed_rand, {' and '.join(missing)} missing; "
            f"found {', '.join(sorted(accuracies)) or 'none'}. Unpack the missing ones and predict again."
        )
    return accuracies["mixed_same"] - accuracies["mixed_rand"]


def challenge_accuracy(vulnerable: Bools) -> float:
    """Share of foregrounds that no background at all could turn into another class; higher is better.

    Args:
        vulnerable: [n] whether some background made the answer wrong.

    Raises:
        DataError: There are no foregrounds.

    Source:
        MadryLab/backgrounds_challenge, challenge_eval.py.
    """
    return Count(int(np.count_nonzero(~np.asarray(vulnerable, dtype=bool))), len(vulnerable)).fraction
