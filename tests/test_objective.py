"""Loss, mixup and CutMix, compared with values worked by hand and with timm."""

import math

import numpy as np
import pytest
import torch
from timm.data import Mixup

from luab.errors import ConfigError, DataError
from luab.objective import (
    Classification,
    LuabLoss,
    Objective,
    PointMixup,
    PointRegression,
    gradient_ratios,
    objective_of,
    point_loss,
    term_named,
)
from luab.study.config import Recipe

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
LABELS = torch.tensor([0, 1])
POINTS = torch.tensor([[0.5, 0.5], [-1.0, -1.0]])
CROSS_ENTROPY = (math.log(1 + math.exp(-2)) + math.log(2)) / 2


def _parts(loss, logits, predicted, labels, points, weights, denominators=None):
    outputs = {"logits": logits} if predicted is None else {"logits": logits, "points": predicted}
    return loss(outputs, {"labels": labels, "points": points, "weights": weights}, denominators)


def test_two_points_one_absent_by_hand():
    predicted = torch.tensor([[0.7, 0.1], [9.0, 9.0]], requires_grad=True)
    parts = _parts(LuabLoss(3.0), LOGITS, predicted, LABELS, POINTS, torch.tensor([1.0, 0.0]))
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
    parts = _parts(LuabLoss(2.0, multilabel=True), logits, predicted, labels, points, weights)
    cross_entropy = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert parts["classification"].item() == pytest.approx(cross_entropy)
    assert parts["byproduct"].item() == pytest.approx((0.05 + 0) / 2)
    assert parts["loss"].item() == pytest.approx(cross_entropy + 2 * 0.025)
    shared = _parts(LuabLoss(2.0, multilabel=True), logits, predicted[:, :2], labels, points, weights)
    # one point compared with both: (0.2^2 + 0.4^2) / 4 and (0.6^2 + 0.1^2) / 4
    assert shared["byproduct"].item() == pytest.approx((0.05 + 0.0925) / 2)
    exact_only = _parts(LuabLoss(2.0, multilabel=True), logits, predicted, labels, points, torch.tensor([[0.0, 1.0]]))
    assert exact_only["byproduct"].item() == 0


def test_without_points_loss_and_gradient_are_zero():
    predicted = torch.full((2, 2), 5.0, requires_grad=True)
    parts = _parts(LuabLoss(1.0), LOGITS, predicted, LABELS, -torch.ones(2, 2), torch.zeros(2))
    parts["loss"].backward()
    assert parts["byproduct"].item() == 0 and torch.equal(predicted.grad, torch.zeros(2, 2))


def test_lambda_zero_and_no_head_give_plain_classification():
    for predicted in (None, torch.ones(2, 2)):
        parts = _parts(LuabLoss(0.0), LOGITS, predicted, LABELS, POINTS, torch.ones(2))
        assert parts["loss"].item() == pytest.approx(CROSS_ENTROPY)


def test_label_smoothing_applies_to_hard_labels_only():
    hard = _parts(LuabLoss(0.0, 0.1), LOGITS, None, LABELS, POINTS, torch.ones(2))["loss"]
    smooth = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    soft = _parts(LuabLoss(0.0, 0.1), LOGITS, None, smooth, POINTS, torch.ones(2))["loss"]
    assert hard.item() == pytest.approx(soft.item())


def test_binary_cross_entropy_of_one_label_by_hand():
    recipe = Recipe(epochs=10, batch_size=2, optimizer="lamb", lr=1, weight_decay=0, classification="bce")
    outputs = {"logits": torch.tensor([[-math.log(3), math.log(3)]])}  # probabilities 1/4 and 3/4
    low, high = -math.log(1 / 4), -math.log(3 / 4)
    for labels, threshold, smoothing, expected in [
        (torch.tensor([1]), None, 0.0, high),
        (torch.tensor([0]), None, 0.0, low),
        (torch.tensor([1]), None, 0.2, 0.9 * high + 0.1 * low),
        (torch.tensor([[0.7, 0.3]]), 0.2, 0.0, (low + high) / 2),  # both labels count as 1
        (torch.tensor([[0.15, 0.85]]), 0.2, 0.0, high),
        (torch.tensor([[0.25, 0.75]]), None, 0.0, 0.75 * high + 0.25 * low),
    ]:
        settings = {"bce_threshold": threshold, "label_smoothing": smoothing}
        objective = objective_of(None, recipe.model_copy(update=settings), multilabel=False)
        parts = objective(outputs, {"labels": labels})
        assert parts["classification"].item() == parts["loss"].item() == pytest.approx(expected)


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
        batch = {"images": images.clone(), "labels": labels, "points": torch.rand(4, 2), "weights": torch.ones(4)}
        mixed = ours(batch)
        np.random.seed(seed)
        expected, targets = theirs(images.clone(), labels)
        assert torch.equal(mixed["images"], expected) and torch.equal(mixed["labels"], targets)


def test_mixup_keeps_both_points_with_the_mixing_weight():
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [-1, -1], [0.7, 0.8]])
    np.random.seed(0)
    share = PointMixup(_recipe(mixup=0.8)).mixup._params_per_batch()[0]
    np.random.seed(0)
    weights = torch.tensor([1.0, 1, 0, 1])
    batch = {"images": torch.rand(4, 3, 8, 8), "labels": torch.arange(4), "points": points, "weights": weights}
    mixed = PointMixup(_recipe(mixup=0.8))(batch)
    both = mixed["points"]
    assert torch.equal(both[:, 0], points) and torch.equal(both[:, 1], points.flip(0))
    expected = [[share, 1 - share], [share, 0], [0, 1 - share], [share, 1 - share]]
    assert mixed["weights"].flatten().tolist() == pytest.approx(np.ravel(expected).tolist())
    assert torch.allclose(mixed["labels"].sum(dim=1), torch.ones(4))


def test_a_covered_point_is_absent():
    mixup = PointMixup(_recipe(cutmix=1.0))
    seen = set()
    for seed in range(30):
        # Image 0 is black and image 1 white, so the pixels show the position of the patch.
        images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
        points = torch.tensor([[0.3, 0.6], [1.0, 1.0]])
        np.random.seed(seed)
        mixed = mixup({"images": images, "labels": torch.tensor([0, 1]), "points": points, "weights": torch.ones(2)})
        pasted, weights = mixed["images"][0, 0] > 0.5, mixed["weights"]
        share = 1 - pasted.float().mean().item()
        first, corner = pasted[4, 2].item(), pasted[7, 7].item()
        expected = [[share * (not first), (1 - share) * corner], [share * (not corner), (1 - share) * first]]
        assert weights.flatten().tolist() == pytest.approx(np.ravel(expected).tolist(), abs=1e-6)
        seen |= {("first", first), ("corner", corner)}
    assert len(seen) == 4


def test_mixup_refuses_parts_that_it_cannot_mix():
    batch = dict.fromkeys(("images", "labels", "points", "weights", "maps"), torch.zeros(2))
    with pytest.raises(DataError, match=r"no rule for mixing maps\. Set mixup and cutmix to 0"):
        PointMixup(_recipe(mixup=0.8))(batch)


class _Width(PointRegression):
    """A second counted term, which reads items of its own."""

    name, counted = "width", "widths"

    def count(self, batch):
        return batch["with_width"].sum()

    def __call__(self, outputs, batch, denominator):
        count = self.count(batch) if denominator is None else denominator
        return (batch["with_width"] * (outputs["pooled"][:, 0] - batch["width"])).sum() / count


def test_a_sum_of_three_terms_by_hand():
    objective = Objective([Classification(), PointRegression(3.0), _Width(0.5)])
    assert objective.columns == (
        "loss", "classification", "byproduct", "width", "points", "widths",
        "byproduct_gradient_ratio", "width_gradient_ratio",
    )  # fmt: skip
    outputs = {"logits": LOGITS, "points": torch.tensor([[0.7, 0.1], [9.0, 9.0]]), "pooled": torch.ones(2, 1)}
    batch = {"images": torch.zeros(2, 3, 4, 4), "labels": LABELS, "points": POINTS}
    batch |= {"weights": torch.tensor([1.0, 0.0]), "width": torch.tensor([0.5, 0.25]), "with_width": torch.ones(2)}
    assert objective.counts(batch).tolist() == [1.0, 2.0]
    parts = objective(outputs, batch)
    assert parts["width"].item() == (0.5 + 0.75) / 2
    assert parts["loss"].item() == pytest.approx(CROSS_ENTROPY + 3 * 0.05 + 0.5 * 0.625)
    # Each count reaches its own term.
    twice = objective(outputs, batch, torch.tensor([2.0, 4.0]))
    assert twice["byproduct"].item() == pytest.approx(0.025) and twice["width"].item() == 0.3125


def test_mistakes_in_an_objective_are_named():
    with pytest.raises(ConfigError, match="different names, found loss, classification, byproduct, byproduct"):
        Objective([Classification(), PointRegression(1.0), PointRegression(1.0)])
    with pytest.raises(
        ConfigError, match="byproduct needs 'points', found the model's outputs logits and in the batch"
    ):
        _parts(LuabLoss(1.0), LOGITS, None, LABELS, POINTS, torch.ones(2))
    with pytest.raises(ConfigError, match="expected regress or the name of a file in luab/terms, found 'regres'"):
        term_named("regres")


def test_gradient_ratio_by_hand_and_however_the_batch_is_divided():
    """Logits (p, 0) of a pooled feature p, with label 0: the gradient of cross-entropy is -1 / (1 + e^p) / images."""
    pooled = torch.tensor([[0.0, 0.3], [1.0, 0.5]], requires_grad=True)
    points, weights = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([1.0, 1.0])

    def squared(rows, denominators=None, scale=lambda loss: loss):
        part = pooled[rows] * 1.0
        logits = torch.stack([part[:, 0], torch.zeros(len(part))], dim=1)
        outputs, batch = {"logits": logits, "points": part, "pooled": part}, {"labels": torch.zeros(len(part)).long()}
        batch |= {"points": points[rows], "weights": weights[rows]}
        objective = LuabLoss(3.0)
        return objective.squared_gradients(objective(outputs, batch, denominators), outputs, scale)

    whole = squared(slice(0, 2))
    # smooth-L1 within 1: the gradient is the distance, over x and y and over two points.
    byproduct = 3 * math.sqrt(0.5**2 + 0.2**2 + 0.5**2 + 0) / 4
    classification = math.sqrt(0.5**2 + (1 / (1 + math.e)) ** 2) / 2
    assert whole.sqrt().flatten().tolist() == pytest.approx([byproduct, classification])
    assert gradient_ratios(whole) == pytest.approx([byproduct / classification])
    parts = sum(squared(slice(k, k + 1), torch.ones(1)) for k in (0, 1))
    assert gradient_ratios(parts) == pytest.approx(gradient_ratios(whole))
    assert gradient_ratios(squared(slice(0, 2), scale=lambda loss: loss * 2.0**16)) == pytest.approx(
        gradient_ratios(whole)
    )
    assert pooled.grad is None


def test_gradient_ratios_that_are_not_finite():
    ratios = gradient_ratios(torch.tensor([[1.0, math.inf, 0.0], [0.0, 1.0, 1.0]]))
    assert [math.isnan(ratio) for ratio in ratios] == [True, True, False] and ratios[2] == 0


def test_a_baseline_and_lambda_zero_have_no_ratio():
    assert LuabLoss(0.0).ratios == () and LuabLoss(0.1).ratios == ("byproduct_gradient_ratio",)
    outputs = {"logits": LOGITS}
    assert Objective([Classification()]).squared_gradients({}, outputs).shape == (2, 0)
