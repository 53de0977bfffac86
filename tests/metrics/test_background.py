"""ImageNet-9, worked by hand with the real map of classes."""

import numpy as np
import pytest

from luab.data.manifests.labels import in9_of_class
from luab.errors import DataError
from luab.metrics.accuracy import count_by_group, is_correct
from luab.metrics.background import bg_gap, challenge_accuracy, in9_answers

DOG, BIRD, GOLDFISH, TOASTER = 151, 7, 1, 859  # ImageNet indices; a toaster belongs to none of the nine


def accuracies(top1, labels, variants) -> dict[str, float]:
    counts = count_by_group(is_correct(in9_answers(top1, in9_of_class()), labels), variants)
    return {variant: count.fraction for variant, count in counts.items()}


def test_the_map_sends_370_classes_to_nine():
    counts = np.bincount(in9_of_class() + 1)
    assert counts.tolist() == [630, 116, 52, 42, 36, 35, 27, 26, 20, 16]


def test_answers_go_through_the_map():
    assert in9_answers(np.array([DOG, BIRD, GOLDFISH, TOASTER]), in9_of_class()).tolist() == [0, 1, 8, -1]


def test_always_dog_is_one_ninth_on_balanced_data():
    labels = np.repeat(np.arange(9), 450)
    variants = np.full(len(labels), "original")
    top1 = np.full(len(labels), DOG)
    assert accuracies(top1, labels, variants) == {"original": 1 / 9}


def test_an_unmapped_answer_is_always_wrong():
    top1, labels = np.full(9, TOASTER), np.arange(9)
    assert accuracies(top1, labels, ["no_fg"] * 9) == {"no_fg": 0.0}


def test_gap_is_mixed_same_minus_mixed_rand():
    top1 = np.array([DOG, DOG, BIRD, DOG, BIRD, BIRD, TOASTER, DOG])
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 0])
    variants = ["mixed_same"] * 4 + ["mixed_rand"] * 4
    by_variant = accuracies(top1, labels, variants)
    assert by_variant == {"mixed_same": 3 / 4, "mixed_rand": 2 / 4}  # wrong: dog for bird; bird for dog, toaster
    assert bg_gap(by_variant) == 0.25


def test_published_gap():
    # ResNet-50: 86.2 - 78.9 = 7.3; SOURCE: MadryLab/backgrounds_challenge, README.md.
    assert bg_gap({"mixed_same": 0.862, "mixed_rand": 0.789}) == pytest.approx(0.073)


def test_gap_without_a_variant():
    with pytest.raises(DataError, match="mixed_rand missing"):
        bg_gap({"mixed_same": 0.5})


def test_challenge_is_the_share_never_fooled():
    assert challenge_accuracy(np.array([True, False, True, True])) == 1 / 4
    with pytest.raises(DataError, match="zero images"):
        challenge_accuracy(np.array([], dtype=bool))


def test_a_map_of_another_length():
    with pytest.raises(DataError, match="1000 ImageNet classes"):
        in9_answers(np.array([1]), np.zeros(9, dtype=np.int8))
