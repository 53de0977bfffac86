"""Harmonizer and RRR: values by hand, gradients, and that descent lowers them."""

import pytest
import timm
import torch

import luab.terms.harmonizer
from luab.model import LuabModel
from luab.objective import Classification, Objective
from luab.terms.harmonizer import Harmonizer, _halved
from luab.terms.rrr import RightReasons

SHARP, WIDE = {"kind": "gaussian", "sigma": 0.01}, {"kind": "gaussian", "sigma": 0.25}
BATCH = {"points": torch.tensor([[0.75, 0.5]]), "weights": torch.ones(1), "labels": torch.tensor([0])}


def _linear(weights, images=None):
    """Outputs of a linear model of two pixels of one channel, whose second logit is 0."""
    images = torch.zeros(1, 1, 1, 2) if images is None else images
    images = images.requires_grad_()
    score = (images * torch.tensor(weights).view(1, 1, 1, 2)).sum((1, 2, 3))
    return {"images": images, "logits": torch.stack([score, torch.zeros_like(score)], dim=1)}


def test_the_harmonizer_by_hand():
    # S = (2, 0) becomes (1, -1) and then (1, 0). M = (0, 1) becomes (0, 1), times max S = 1. The difference is (1, -1).
    # Level 0 has the mean square 1. Level 1 keeps the left pixel, smoothed by the middle row of the kernel, 6/16:
    # S = 6/16 x 6/16, M = 4/16 x 6/16. Higher levels multiply both by (6/16)^2.
    each = (6 / 16) ** 2
    expected = (1 + sum((2 / 16 * 6 / 16 * each**level) ** 2 for level in range(4))) / 5
    assert Harmonizer(1.0, SHARP)(_linear([2.0, 0.0]), BATCH, None).item() == pytest.approx(expected, abs=1e-5)
    assert Harmonizer(1.0, SHARP)(_linear([0.0, 2.0]), BATCH, None).item() == pytest.approx(0, abs=1e-5)


def test_a_level_is_the_smoothed_map_at_every_second_position():
    delta = torch.zeros(1, 1, 5, 5)
    delta[0, 0, 2, 2] = 1
    row = torch.tensor([1.0, 6.0, 1.0]) / 16
    assert torch.allclose(_halved(delta)[0, 0], row[:, None] * row)


def test_a_model_without_a_gradient_at_the_pixels_gives_finite_values_and_gradients():
    weights = torch.zeros(2, requires_grad=True)
    images = torch.zeros(1, 1, 1, 2).requires_grad_()
    score = (images * weights.view(1, 1, 1, 2)).sum((1, 2, 3))
    outputs = {"images": images, "logits": torch.stack([score, 0 * score], dim=1)}
    for term in (Harmonizer(1.0, WIDE), RightReasons(1.0, WIDE)):
        value = term(outputs, BATCH, None)
        (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
        assert value.isfinite() and gradient.isfinite().all()


def test_rrr_by_hand():
    # Both classes have the chance 1/2, so d(log p0 + log p1)/dx = (1 - 2/2) w = 0; with images at x the chance p of
    # class 0 gives (1 - 2 p) w.
    assert RightReasons(1.0, SHARP)(_linear([2.0, 0.5]), BATCH, None).item() == 0
    images = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    p = torch.tensor(2.0).sigmoid().item()
    value = RightReasons(1.0, SHARP)(_linear([2.0, 0.5], images), BATCH, None)
    assert value.item() == pytest.approx(((1 - 2 * p) * 2.0) ** 2, rel=1e-5)  # the right pixel, at the point, is free


@pytest.mark.parametrize("term", [Harmonizer(1.0, WIDE), RightReasons(1.0, WIDE)])
def test_gradients_of_the_anchors_are_right(term, monkeypatch):
    """The scale of M counts as a constant."""
    monkeypatch.setattr(luab.terms.harmonizer, "_largest", lambda maps: 0.7)
    generator = torch.Generator().manual_seed(0)
    batch = {**BATCH, "points": torch.tensor([[0.3, 0.6]]).double()}

    def value(kernel):
        images = pixels.clone().requires_grad_()
        features = torch.nn.functional.conv2d(images, kernel, padding=1).tanh().mean((2, 3))
        return term({"images": images, "logits": features}, batch, None)

    pixels = torch.rand(1, 3, 6, 6, generator=generator, dtype=torch.float64)
    kernel = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, kernel)


@pytest.mark.parametrize("use", ["harmonizer", "rrr"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_descent_on_one_batch_lowers_the_term_and_the_ratio_is_measured(use, backbone):
    torch.manual_seed(0)
    arguments = {"img_size": 32} if "vit" in backbone else {}
    model = LuabModel(timm.create_model(backbone, num_classes=3, **arguments), 0, use).eval()
    term = {"harmonizer": Harmonizer, "rrr": RightReasons}[use](1.0, WIDE)
    batch = {"points": torch.rand(4, 2), "weights": torch.ones(4), "labels": torch.tensor([0, 1, 2, 0])}
    images, objective = torch.randn(4, 3, 32, 32), Objective([Classification(), term])
    optimizer, values = torch.optim.Adam(model.parameters(), 1e-3), []
    for step in range(12):
        outputs = model(images)
        parts = objective(outputs, batch)
        if not step:
            squared = objective.squared_gradients(parts, outputs)
            assert squared.shape == (2, 1) and (squared > 0).all()
        optimizer.zero_grad()
        parts[use].backward()
        optimizer.step()
        values.append(parts[use].item())
    assert values[-1] < 0.9 * values[0]
