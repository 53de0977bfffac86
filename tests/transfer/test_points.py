"""The loss from points and image labels, worked out by hand, and what it must not read."""

import math

import pytest
import torch

from luab.transfer.points import Clues, point_loss


def _clues(points, labels, image_labels):
    return Clues(torch.tensor(points).view(-1, 2), torch.tensor(labels, dtype=torch.int64), torch.tensor(image_labels))


def test_two_pixels_and_three_classes():
    # Probabilities: left pixel 1/2, 1/4, 1/4; right pixel 1/10, 8/10, 1/10 for background, class 1 and class 2.
    logits = torch.tensor([[[0.5, 0.1]], [[0.25, 0.8]], [[0.25, 0.1]]]).log()[None]
    parts = point_loss(logits, [_clues([[1.5, 0.5]], [1], [1])])
    assert parts["point"].item() == pytest.approx(-math.log(0.8))
    # Present: background, best at the left pixel, and class 1, best at the right one. Absent: class 2, at the left.
    expected = -(math.log(0.5) + math.log(0.8)) / 2 - math.log(1 - 0.25)
    assert parts["image"].item() == pytest.approx(expected)


def test_a_present_class_without_a_point_counts_neither_as_present_nor_as_absent():
    logits = torch.tensor([[[0.5, 0.1]], [[0.25, 0.8]], [[0.25, 0.1]]]).log()[None]
    parts = point_loss(logits, [_clues([[1.5, 0.5]], [1], [1, 2])])
    assert parts["image"].item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)


def test_the_mean_is_over_images_and_an_image_without_points_has_none():
    logits = torch.tensor([[[0.5, 0.1]], [[0.5, 0.9]]]).log()[None].expand(2, -1, -1, -1)
    parts = point_loss(logits, [_clues([[0.0, 0.0], [1.0, 0.0]], [1, 1], [1]), _clues([], [], [])])
    assert parts["point"].item() == pytest.approx(-(math.log(0.5) + math.log(0.9)) / 2 / 2)
    first, second = -(math.log(0.5) + math.log(0.9)) / 2, -math.log(0.5) - math.log(1 - 0.9)
    assert parts["image"].item() == pytest.approx((first + second) / 2)


def test_a_certain_pixel_of_an_absent_class_has_a_finite_gradient():
    logits = torch.zeros(1, 2, 1, 1)
    logits[0, 1] = 200.0  # the probability is 1 in float32
    logits.requires_grad_()
    parts = point_loss(logits, [_clues([], [], [])])
    parts["image"].backward()
    assert parts["image"].item() == pytest.approx(400.0)
    assert logits.grad.flatten().tolist() == pytest.approx([-2.0, 2.0])
