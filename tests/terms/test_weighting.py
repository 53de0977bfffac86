"""Weights of samples from annotation times: values by hand, the loss they give, and where the times come from."""

import math

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy

from luab.data.images.imagenet import ImageNetAB
from luab.errors import DataError
from luab.objective import Classification, Objective, PointMixup
from luab.study.config import Recipe
from luab.terms.weighting import Weighting

LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])  # losses ln 2 and ln 4 for class 0
BATCH = {"labels": torch.tensor([0, 0]), "ranks": torch.tensor([0.25, 0.75])}


@pytest.mark.parametrize(
    ("weight", "first", "weights"),
    [
        (1.0, "hard", (0.5, 1.5)),
        (1.0, "easy", (1.5, 0.5)),
        (2.0, "hard", (3 / 16, 27 / 16)),
    ],
)
def test_the_loss_is_the_weighted_mean(weight, first, weights):
    term = Weighting(weight, first)
    assert term.sample_weights(BATCH).tolist() == pytest.approx(weights)
    parts = Objective([Classification(), term])({"logits": LOGITS}, BATCH)
    expected = (weights[0] * math.log(2) + weights[1] * math.log(4)) / 2
    assert parts["loss"].item() == pytest.approx(expected)
    assert parts["classification"].item() == pytest.approx((math.log(2) + math.log(4)) / 2)


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0])
def test_the_mean_weight_is_1_and_images_without_a_time_have_1(weight):
    ranks = (torch.arange(1000) + 0.5) / 1000
    weights = Weighting(weight, "hard").sample_weights({"ranks": ranks})
    assert weights.mean().item() == pytest.approx(1, abs=1e-3) and (weights >= 0).all()
    assert Weighting(weight, "easy").sample_weights({"ranks": torch.tensor([-1.0])}).tolist() == [1.0]


def test_the_gradient_of_each_image_is_scaled_by_its_weight():
    logits = LOGITS.clone().requires_grad_()
    Objective([Classification(), Weighting(1.0, "hard")])({"logits": logits}, BATCH)["loss"].backward()
    chances = LOGITS.softmax(dim=1) - torch.tensor([1.0, 0.0])
    assert torch.allclose(logits.grad, chances * torch.tensor([[0.5], [1.5]]) / 2)


@pytest.mark.parametrize(
    "classification",
    [Classification(0.1), Classification(bce=BinaryCrossEntropy(0.1, 0.2))],
)
@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.tensor([[0.3, 0.7], [1.0, 0.0]])])
def test_the_losses_of_images_have_the_mean_of_the_term(classification, labels):
    outputs, batch = {"logits": LOGITS}, {"labels": labels}
    each = classification.of_each(outputs, batch)
    assert each.shape == (2,) and torch.allclose(each.mean(), classification(outputs, batch, None))


def test_a_mixed_image_has_the_mean_weight_of_both():
    batch = {"ranks": torch.tensor([[0.25, 0.75]]), "shares": torch.tensor([[0.9, 0.1]])}
    assert Weighting(1.0, "hard").sample_weights(batch).tolist() == pytest.approx([0.9 * 0.5 + 0.1 * 1.5])
    recipe = Recipe(
        epochs=1, batch_size=2, input_px=16, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0, mixup=1.0
    )
    np.random.seed(0)
    given = {"images": torch.zeros(2, 3, 8, 8), "points": torch.zeros(2, 2), "weights": torch.ones(2), **BATCH}
    mixed = PointMixup(recipe, 2)(given)
    assert mixed["ranks"].tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert torch.allclose(mixed["shares"], mixed["weights"]) and torch.allclose(mixed["shares"].sum(1), torch.ones(2))


def test_ranks_of_a_training_set_are_scaled_and_ties_share_them(toy_world):
    def ranks(column="time_ms", name="click_time_ms"):
        data = toy_world / "data"
        targets = data / "targets" / "imagenet" / f"{name}.parquet"
        manifest = data / "manifests" / "imagenet_train.parquet"
        return ImageNetAB(toy_world / "imagenet", manifest, targets, column=column).ranks

    found = ranks()
    assert sorted(found[found >= 0].tolist()) == pytest.approx([(k + 0.5) / 18 for k in range(18)])
    assert (found == -1).sum() == 12
    with pytest.raises(DataError, match="expected the column time_ms, found image_id, class, x, y"):
        ranks(name="click")
