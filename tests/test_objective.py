"""Loss, mixup and CutMix, compared with values worked by hand and with timm."""

import math

import numpy as np
import pytest
import torch
from timm.data import Mixup

from luab.objective import LuabLoss, PointMixup, point_loss
from luab.study.config import Recipe

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
LABELS = torch.tensor([0, 1])
POINTS = torch.tensor([[0.5, 0.5], [-1.0, -1.0]])
CROSS_ENTROPY = (math.log(1 + math.exp(-2)) + math.log(2)) / 2


def test_two_points_one_absent_by_hand():
    predicted = torch.tensor([[0.7, 0.1], [9.0, 9.0]], requires_grad=True)
    parts = LuabLoss(3.0)(LOGITS, predicted, LABELS, POINTS, torch.tensor([1.0, 0.0]))
    # smooth-L1 with beta 1: (0.2^2 + 0.4^2) / 2, mean over x and y
    assert parts["byproduct"].item() == pytest.approx((0.04 + 0.16) / 2 / 2)
    assert parts["classification"].item() == pytest.approx(CROSS_ENTROPY)
    assert parts["loss"].item() == pytest.approx(CROSS_ENTROPY + 3 * 0.05)
    parts["loss"].backward()
    assert predicted.grad[0].tolist() == pytest.approx([3 * 0.2 / 2, -3 * 0.4 / 2])
    assert predicted.grad[1].tolist() == [0.0, 0.0]


def test_a_far_point_counts_linearly():
    assert point_loss(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), torch.ones(1)).item() == pytest.approx(1.25)


def test_multi_label_loss_with_one_point_per_class_by_hand():
    logits, labels = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    points, weights = torch.tensor([[[0.5, 0.5], [0.1, 0.2]]]), torch.tensor([[1.0, 1.0]])
    predicted = torch.tensor([[0.7, 0.1, 0.1, 0.2]])  # the second point is exact
    parts = LuabLoss(2.0, multilabel=True)(logits, predicted, labels, points, weights)
    cross_entropy = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert parts["classification"].item() == pytest.approx(cross_entropy)
    assert parts["byproduct"].item() == pytest.approx((0.05 + 0) / 2)
    assert parts["loss"].item() == pytest.approx(cross_entropy + 2 * 0.025)
    shared = LuabLoss(2.0, multilabel=True)(logits, predicted[:, :2], labels, points, weights)
    # one point compared with both: (0.2^2 + 0.4^2) / 4 and (0.6^2 + 0.1^2) / 4
    assert shared["byproduct"].item() == pytest.approx((0.05 + 0.0925) / 2)
    exact_only = LuabLoss(2.0, multilabel=True)(logits, predicted, labels, points, torch.tensor([[0.0, 1.0]]))
    assert exact_only["byproduct"].item() == 0


def test_without_points_loss_and_gradient_are_zero():
    predicted = torch.full((2, 2), 5.0, requires_grad=True)
    parts = LuabLoss(1.0)(LOGITS, predicted, LABELS, -torch.ones(2, 2), torch.zeros(2))
    parts["loss"].backward()
    assert parts["byproduct"].item() == 0 and torch.equal(predicted.grad, torch.zeros(2, 2))


def test_lambda_zero_and_no_head_give_plain_classification():
    for predicted in (None, torch.ones(2, 2)):
        parts = LuabLoss(0.0)(LOGITS, predicted, LABELS, POINTS, torch.ones(2))
        assert parts["loss"].item() == pytest.approx(CROSS_ENTROPY)


def test_label_smoothing_applies_to_hard_labels_only():
    hard = LuabLoss(0.0, 0.1)(LOGITS, None, LABELS, POINTS, torch.ones(2))["loss"]
    smooth = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    soft = LuabLoss(0.0, 0.1)(LOGITS, None, smooth, POINTS, torch.ones(2))["loss"]
    assert hard.item() == pytest.approx(soft.item())


def test_mixed_points_have_their_mixing_weights():
    points = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    loss = point_loss(torch.zeros(1, 2), points, torch.tensor([[0.75, 0.25]]))
    assert loss.item() == pytest.approx(0.25 * 0.5)


def _recipe(**changes):
    return Recipe(
        epochs=1, batch_size=2, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0, label_smoothing=0.1, **changes
    )


@pytest.mark.parametrize("alphas", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_images_and_labels_equal_timms(alphas):
    ours = PointMixup(_recipe(**alphas))
    theirs = Mixup(alphas.get("mixup", 0), alphas.get("cutmix", 0), label_smoothing=0.1, num_classes=1000)
    labels = torch.tensor([1, 2, 3, 4])
    for seed in range(8):
        images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        np.random.seed(seed)
        mixed, soft, _, _ = ours(images.clone(), labels, torch.rand(4, 2), torch.ones(4))
        np.random.seed(seed)
        expected, targets = theirs(images.clone(), labels)
        assert torch.equal(mixed, expected) and torch.equal(soft, targets)


def test_mixup_keeps_both_points_with_the_mixing_weight():
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [-1, -1], [0.7, 0.8]])
    np.random.seed(0)
    share = PointMixup(_recipe(mixup=0.8)).mixup._params_per_batch()[0]
    np.random.seed(0)
    _, soft, both, weights = PointMixup(_recipe(mixup=0.8))(
        torch.rand(4, 3, 8, 8), torch.arange(4), points, torch.tensor([1.0, 1, 0, 1])
    )
    assert torch.equal(both[:, 0], points) and torch.equal(both[:, 1], points.flip(0))
    expected = [[share, 1 - share], [share, 0], [0, 1 - share], [share, 1 - share]]
    assert weights.flatten().tolist() == pytest.approx(np.ravel(expected).tolist())
    assert torch.allclose(soft.sum(dim=1), torch.ones(4))


def test_a_covered_point_is_absent():
    mixup = PointMixup(_recipe(cutmix=1.0))
    seen = set()
    for seed in range(30):
        # Image 0 is black and image 1 white, so the pixels show the position of the patch.
        images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
        points = torch.tensor([[0.3, 0.6], [1.0, 1.0]])
        np.random.seed(seed)
        mixed, _, _, weights = mixup(images, torch.tensor([0, 1]), points, torch.ones(2))
        pasted = mixed[0, 0] > 0.5
        share = 1 - pasted.float().mean().item()
        first, corner = pasted[4, 2].item(), pasted[7, 7].item()
        expected = [[share * (not first), (1 - share) * corner], [share * (not corner), (1 - share) * first]]
        assert weights.flatten().tolist() == pytest.approx(np.ravel(expected).tolist(), abs=1e-6)
        seen |= {("first", first), ("corner", corner)}
    assert len(seen) == 4
