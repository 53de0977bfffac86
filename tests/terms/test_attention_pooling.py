"""Attention pooling: values by hand, timm's own weights, all kinds of backbones, and the divergence from the map."""

import math

import pytest
import timm
import torch

from luab.cam import class_maps
from luab.model import LuabModel
from luab.pooling import LatentPool, SimPool
from luab.terms.pooling import Pooling

SHARP, WIDE = {"kind": "gaussian", "sigma": 0.01}, {"kind": "gaussian", "sigma": 0.25}
BATCH = {"points": torch.tensor([[0.75, 0.5], [-1.0, -1.0]]), "weights": torch.tensor([1.0, 0.0])}
ATTENTION = torch.tensor([[[0.25, 0.75]], [[0.5, 0.5]]])  # [2, 1, 2]


@pytest.mark.parametrize("shape", [SHARP, WIDE])
def test_the_divergence_by_hand(shape):
    far = math.exp(-(0.5**2) / (2 * shape["sigma"] ** 2))
    m = [far / (1 + far), 1 / (1 + far)]
    expected = sum(p * math.log(p / a) for p, a in zip(m, (0.25, 0.75), strict=True) if p > 0)
    value = Pooling(1.0, shape, "simpool")({"attention": ATTENTION}, BATCH, None)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_the_divergence_is_zero_for_the_map_itself_and_has_the_right_gradient():
    term = Pooling(1.0, WIDE, "simpool")
    scores = torch.zeros(2, 1, 2, dtype=torch.float64, requires_grad=True)
    itself = term.log_maps(BATCH, BATCH["points"].view(2, 1, 2), 1, 2)[:, 0].flatten(1).softmax(1).view(2, 1, 2)
    assert term({"attention": itself}, BATCH, None).item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(
        lambda scores: term({"attention": scores.flatten(1).softmax(1).view(2, 1, 2)}, BATCH, None), scores
    )


def test_simpool_with_equal_attention_is_a_power_mean():
    pool = SimPool(2, 2.0)
    torch.nn.init.zeros_(pool.query.weight)
    # Layer norm of (3, 1) is (1, -1), of (1, 3) is (-1, 1); with the minimum subtracted, (2, 0) and (0, 2).
    pooled, attention = pool(torch.tensor([[[3.0, 1.0], [1.0, 3.0]]]))
    assert attention.tolist() == [[0.5, 0.5]]
    assert pooled.flatten().tolist() == pytest.approx([math.sqrt(2)] * 2, abs=1e-4)


def test_an_image_does_not_change_the_feature_of_another():
    torch.manual_seed(0)
    pool, tokens = SimPool(8, 2.0), torch.randn(3, 5, 8)
    assert torch.allclose(pool(tokens)[0][:1], pool(tokens[:1])[0], atol=1e-6)


def test_the_attention_of_the_latent_pool_is_timms():
    torch.manual_seed(0)
    pool, tokens, seen = LatentPool(128), torch.randn(2, 9, 128), []
    pool.pool.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _, attention = pool(tokens)
    assert pool.pool.num_heads == 2 and torch.allclose(attention.sum(1), torch.ones(2))
    values = pool.pool.kv(tokens).unflatten(2, (2, 2, 64))[:, :, 1]  # [2, 9, heads, 64]
    keys = pool.pool.kv(tokens).unflatten(2, (2, 2, 64))[:, :, 0]
    query = pool.pool.q(pool.pool.latent).view(2, 64)
    weights = (torch.einsum("bnhw,hw->bnh", keys, query) / 8).softmax(1)
    assert torch.allclose(attention, weights.mean(2), atol=1e-6)
    assert torch.allclose(seen[0][:, 0], torch.einsum("bnh,bnhw->bhw", weights, values).flatten(1), atol=1e-5)


@pytest.mark.parametrize("pool", ["simpool", "latent"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": 64}),
        ("test_vit", {"img_size": 64, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 1}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
        ("mobilenetv3_small_050", {}),
    ],
)
def test_every_backbone_classifies_what_attention_pooled(name, arguments, pool):
    torch.manual_seed(0)
    model = LuabModel(timm.create_model(name, num_classes=10, **arguments), 0, f"pooling {pool}").eval()
    images = torch.rand(2, 3, 64, 64)
    outputs = model(images)
    assert outputs["logits"].shape == (2, 10) and torch.allclose(outputs["attention"].sum((1, 2)), torch.ones(2))
    # The classifier reads this feature and no other: another attention gives other logits.
    width = model.backbone.num_features
    model.pool.forward = lambda tokens: (torch.zeros(2, width), torch.full(tokens.shape[:2], 1 / tokens.shape[1]))
    constant = model(images)["logits"]
    assert torch.allclose(constant[0], constant[1], atol=1e-6) and not torch.allclose(constant, outputs["logits"])
    del model.pool.forward
    assert class_maps(model, images, torch.tensor([0, 1])).isfinite().all()
    model.train()(images)["logits"].square().sum().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not unused  # DistributedDataParallel waits for the gradient of every parameter
