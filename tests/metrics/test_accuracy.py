"""Accuracy, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luab.errors import DataError
from luab.metrics.accuracy import (
    Count,
    count_by_group,
    has_label,
    is_correct,
    label_matrix,
    labelled_count,
    mean_over_groups,
)


def accuracy(answers, labels) -> float:
    """Share of labelled images with a correct answer."""
    return labelled_count(is_correct(answers, labels), labels).fraction


TOP5 = np.array([[7, 1, 2, 3, 4], [1, 7, 2, 3, 4], [1, 2, 3, 4, 7], [1, 2, 3, 4, 5]], dtype=np.int16)


def test_topk_counts_the_label_among_the_k_best():
    labels = [7, 7, 7, 7]  # first, second, fifth, not at all
    assert accuracy(TOP5[:, :1], labels) == 1 / 4
    assert accuracy(TOP5[:, :2], labels) == 2 / 4
    assert accuracy(TOP5, labels) == 3 / 4


def test_any_of_several_labels_is_correct():
    assert accuracy(TOP5[:, 0], [[9, 7], [7, 1], [2, 3], [5]]) == 2 / 4  # 7 in {9,7}; 1 in {7,1}; no; no


def test_images_with_an_empty_label_set_are_left_out():
    labels = [[7], [], [7], []]  # scored: the first (correct) and the third (wrong)
    assert accuracy(TOP5[:, 0], labels) == 1 / 2
    assert has_label(labels).tolist() == [True, False, True, False]


def test_no_labels_at_all_is_an_error():
    with pytest.raises(DataError, match="zero images"):
        accuracy(TOP5[:, 0], [[], [], [], []])


def test_one_answer_per_image():
    assert accuracy(np.array([6, 11, 13]), [6, 13, 13]) == 2 / 3


def test_an_unmapped_answer_never_matches_the_padding():
    assert not is_correct(np.array([-1]), [[]]).any()
    assert is_correct(np.array([-1, 3]), [[3, 4], [3]]).tolist() == [False, True]


def test_fractions_are_rounded_once():
    answers = np.array([0] * 3 + [1] * 7)
    assert accuracy(answers, [0] * 10) == 0.3  # a float32 mean would give 0.30000001192092896


def test_label_matrix_pads_ragged_rows():
    assert label_matrix([[1], [], [2, 3]]).tolist() == [[1, -1], [-1, -1], [2, 3]]


def test_lengths_that_differ_are_an_error():
    with pytest.raises(DataError, match="4 answers and 2 label sets"):
        accuracy(TOP5[:, 0], [1, 2])


def test_groups_are_counted_and_sorted_by_name():
    counts = count_by_group(np.array([True, False, True, True]), ["b", "a", "b", "a"])
    assert counts == {"a": Count(1, 2), "b": Count(2, 2)}
    assert list(counts) == ["a", "b"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.permutations(range(5)), st.sets(st.integers(0, 5))), min_size=1), st.randoms())
def test_the_order_of_images_does_not_matter(images, random):
    images = [*images, (range(5), {0})]
    shuffled = random.sample(images, len(images))
    answers = [
        accuracy(np.array([list(top)[:k] for top, _ in part]), [sorted(labels) for _, labels in part])
        for part in (images, shuffled)
        for k in (1, 5)
    ]
    assert answers[:2] == answers[2:]


def test_each_group_has_the_same_weight():
    # (1/2 + 1/10) / 2 = .3, whereas 2 correct of 12 images would be .1667.
    assert mean_over_groups({"0.01": Count(1, 2), "0.02": Count(1, 10)}) == pytest.approx(0.3)


def test_the_mean_over_one_group_is_its_accuracy():
    assert mean_over_groups({"1": Count(3, 10)}) == 0.3


def test_no_group_and_an_empty_group_are_errors():
    with pytest.raises(DataError, match="factor value"):
        mean_over_groups({})
    with pytest.raises(DataError, match="zero images"):
        mean_over_groups({"1": Count(0, 0)})
