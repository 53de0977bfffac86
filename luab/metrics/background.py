"""Backgrounds Challenge (ImageNet-9): how much a model relies on the background."""

import numpy as np

from luab.errors import DataError
from luab.metrics.accuracy import Bools, Count, Ints


def in9_answers(top1: Ints, in9_of_class: Ints) -> Ints:
    """The ImageNet-9 class (0 to 8) of each 1000-way arg-max; -1 if the class belongs to none of the nine.

    Args:
        top1: [n] ImageNet indices.
        in9_of_class: [1000] ImageNet-9 class of each ImageNet index, -1 for none.

    Raises:
        DataError: The map does not have 1000 entries.

    Source:
        MadryLab/backgrounds_challenge, in9_eval.py: the arg-max is over all 1000 logits.
    """
    if in9_of_class.shape != (1000,):
        raise DataError(f"Expected a map of 1000 ImageNet classes to IN-9, found shape {in9_of_class.shape}.")
    return in9_of_class[top1]


def nine_class_answers(top1: Ints) -> Ints:
    """Returns the answers of a model with nine outputs unchanged, after checking them.

    Raises:
        DataError: An answer is above 8, so the model has other classes.

    Source:
        MadryLab/backgrounds_challenge, in9_eval.py: models trained on ImageNet-9 itself need no map.
    """
    if top1.max(initial=0) > 8:
        raise DataError(
            f"ImageNet-9: expected answers 0 to 8 of a model with nine outputs, found {int(top1.max())}. "
            "For a model with 1000 classes, use the benchmark in9, which maps them."
        )
    return top1


def bg_gap(accuracies: dict[str, float]) -> float:
    """BG-Gap: accuracy on mixed_same minus accuracy on mixed_rand; lower is better, may be negative.

    Raises:
        DataError: One of the two variants is missing.
    """
    missing = [name for name in ("mixed_same", "mixed_rand") if name not in accuracies]
    if missing:
        raise DataError(
            f"BG-Gap: needs the variants mixed_same and mixed_rand, {' and '.join(missing)} missing; found "
            f"{', '.join(sorted(accuracies)) or 'none'}. Unpack the missing variants and predict again."
        )
    return accuracies["mixed_same"] - accuracies["mixed_rand"]


def challenge_accuracy(vulnerable: Bools) -> float:
    """Share of foregrounds whose answer is correct on every background; higher is better.

    Args:
        vulnerable: [n] whether any background made the answer wrong.

    Raises:
        DataError: There are no foregrounds.

    Source:
        MadryLab/backgrounds_challenge, challenge_eval.py.
    """
    return Count(int(np.count_nonzero(~np.asarray(vulnerable, dtype=bool))), len(vulnerable)).fraction
