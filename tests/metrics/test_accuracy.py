"""Accuracy by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luab.errors import DataError
from luab.metrics.accuracy import (
    Count,
    count_by_group,
    has_label,
    is_correct,
    label_matrix,
    restricted_accuracy,
    topk_accuracy,
)

TOP5 = np.array([[7, 1, 2, 3, 4], [1, 7, 2, 3, 4], [1, 2, 3, 4, 7], [1, 2, 3, 4, 5]], dtype=np.int16)


def test_topk_counts_the_label_among_the_k_best():
    labels = [7, 7, 7, 7]  # first, second, fifth, not at all
    assert topk_accuracy(TOP5, labels, k=1) == 1 / 4
    assert topk_accuracy(TOP5, labels, k=2) == 2 / 4
    assert topk_accuracy(TOP5, labels, k=5) == 3 / 4


def test_any_of_several_labels_is_right():
    assert topk_accuracy(TOP5, [[9, 7], [7, 1], [2, 3], [5]]) == 2 / 4  # 7 in {9,7}; 1 in {7,1}; no; no


def test_images_with_an_empty_label_set_are_left_out():
    labels = [[7], [], [7], []]  # scored: the first (right) and the third (wrong)
    assert topk_accuracy(TOP5, labels) == 1 / 2
    assert has_label(labels).tolist() == [True, False, True, False]


def test_no_labels_at_all_is_an_error():
    with pytest.raises(DataError, match="zero images"):
        topk_accuracy(TOP5, [[], [], [], []])


def test_restricted_accuracy():
    assert restricted_accuracy(np.array([6, 11, 13]), [6, 13, 13]) == 2 / 3


def test_an_unmapped_answer_never_matches_the_filling():
    assert not is_correct(np.array([-1]), [[]]).any()
    assert is_correct(np.array([-1, 3]), [[3, 4], [3]]).tolist() == [False, True]


def test_fractions_are_divided_once():
    answers = np.array([0] * 3 + [1] * 7)
    assert restricted_accuracy(answers, [0] * 10) == 0.3  # a float32 mean would give 0.30000001192092896


def test_label_matrix_pads_ragged_rows():
    assert label_matrix([[1], [], [2, 3]]).tolist() == [[1, -1], [-1, -1], [2, 3]]


def test_lengths_that_differ_are_an_error():
    with pytest.raises(DataError, match="4 answers and 2 label sets"):
        topk_accuracy(TOP5, [1, 2])


def test_more_classes_than_there_are():
    with pytest.raises(DataError, match="6 best classes"):
        topk_accuracy(TOP5, [1, 2, 3, 4], k=6)


def test_groups_are_counted_in_text_order():
    counts = count_by_group(np.array([True, False, True, True]), ["b", "a", "b", "a"])
    assert counts == {"a": Count(1, 2), "b": Count(2, 2)}
    assert list(counts) == ["a", "b"]


@given(st.lists(st.tuples(st.permutations(range(5)), st.sets(st.integers(0, 5))), min_size=1), st.randoms())
def test_the_order_of_images_does_not_matter(images, random):
    images = [*images, (range(5), {0})]
    shuffled = random.sample(images, len(images))
    answers = [
        topk_accuracy(np.array([list(top) for top, _ in part]), [sorted(labels) for _, labels in part], k)
        for part in (images, shuffled)
        for k in (1, 5)
    ]
    assert answers[:2] == answers[2:]
