"""Class activation maps: where the evidence for one class lies, before any resizing or scaling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from luab.errors import ConfigError
from luab.model import LuabModel
from luab.shapes import Images

_AT_ONCE = 32  # images whose attention of all blocks is kept at the same time


def class_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    """Score maps of one class per image.

    A model that ends in a feature map gets the class activation map: the gradient of the class logit,
    averaged over positions, times the features, summed over channels. For global average pooling and a
    linear classifier this equals the classifier weights times the features, up to one constant factor,
    which the later scaling to [0, 1] removes.

    A model that ends in tokens (ViT) gets the same formula on the patch tokens that enter its last
    block, negative values cut to zero.
    DEVIATES: a ViT gets a gradient-weighted map of the patch tokens; its classifier reads the class token alone,
    so the plain class activation map does not exist.

    Args:
        model: In evaluation mode.
        images: Normalised, [batch, 3, h, w].
        classes: int64 [batch], ImageNet index.

    Returns:
        float32 [batch, rows, columns], raw.

    Raises:
        ConfigError: The backbone has neither a feature map nor blocks of tokens.
    """
    with torch.enable_grad():
        backbone = model.backbone
        if hasattr(backbone, "blocks") and hasattr(backbone, "num_prefix_tokens"):
            return _token_maps(model, images, classes)
        features = backbone.forward_features(images).detach().requires_grad_()
        if features.ndim != 4:
            raise ConfigError(
                f"{type(backbone).__name__}: no score map is defined for features of shape "
                f"{tuple(features.shape)}. Leave wsol_val and wsol_test out of `suites` for this backbone."
            )
        gradient = _gradient(model.heads(features)[0], classes, features)
        # Swin and its kin put channels last: [batch, h, w, channels].
        last = features.shape[1] != backbone.num_features
        channels, places = (3, (1, 2)) if last else (1, (2, 3))
        weights = gradient.mean(dim=places, keepdim=True)
        return (weights * features).sum(dim=channels).detach().float()


def attention_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    """Relevance of each patch for one class per image, through the attention of all blocks of a ViT.

    A block's attention counts where raising it raises the class logit: A = mean over heads of the positive part of
    gradient x attention. Relevance starts as the identity and grows by A times itself from block to block,
    which follows the residual stream; the map is the class token's row (the patches' mean row for a model
    that averages its tokens).

    Why this one: plain attention rollout is the same for every class, while the protocol asks for the map of
    the true one, and the gradient-weighted tokens of `class_maps` see the last block alone.

    Args:
        model: In evaluation mode; one without such attention gets its `class_maps`.
        images: Normalised, [batch, 3, h, w].
        classes: int64 [batch], ImageNet index.

    Returns:
        float32 [batch, rows, columns], not negative.

    Source:
        Chefer, Gur, Wolf: Generic Attention-model Explainability, ICCV 2021, equations 5 and 6;
        hila-chefer/Transformer-MM-Explainability.
    """
    backbone = model.backbone
    attentions = [getattr(block, "attn", None) for block in getattr(backbone, "blocks", [])]
    known = [hasattr(a, "attn_drop") and hasattr(a, "fused_attn") for a in attentions]
    if not (known and all(known) and hasattr(backbone, "num_prefix_tokens")):
        return class_maps(model, images, classes)
    parts = zip(images.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True)
    return torch.cat([_relevance(model, part, chosen, attentions) for part, chosen in parts])


def _relevance(model: LuabModel, images: Images, classes: torch.Tensor, attentions: list[Any]) -> torch.Tensor:
    with torch.enable_grad(), _written_out(attentions) as caught:
        logits, _ = model(images.detach().requires_grad_())  # so that attention has a gradient, whatever is frozen
        chosen = logits.gather(1, classes.view(-1, 1)).sum()
        gradients = torch.autograd.grad(chosen, caught)
    relevance = torch.eye(caught[0].shape[-1], device=images.device).expand(len(images), -1, -1)
    for attention, gradient in zip(caught, gradients, strict=True):
        positive = (gradient * attention.detach()).clamp(min=0).mean(dim=1)  # [batch, heads, t, t] -> [batch, t, t]
        relevance = relevance + positive @ relevance
    prefix = model.backbone.num_prefix_tokens
    has_class_token = getattr(model.backbone, "cls_token", None) is not None
    row = relevance[:, 0] if has_class_token else relevance[:, prefix:].mean(dim=1)
    side = round((row.shape[1] - prefix) ** 0.5)
    return row[:, prefix:].reshape(len(row), side, side).float()


@contextmanager
def _written_out(attentions: list[Any]) -> Iterator[list[torch.Tensor]]:
    """Makes attention layers compute their weights instead of a fused product, and yields those of the next pass."""
    caught: list[torch.Tensor] = []
    fused = [attention.fused_attn for attention in attentions]
    handles = [a.attn_drop.register_forward_hook(lambda _, inputs, output: caught.append(output)) for a in attentions]
    try:
        for attention in attentions:
            attention.fused_attn = False
        yield caught
    finally:
        for attention, was, handle in zip(attentions, fused, handles, strict=True):
            attention.fused_attn = was
            handle.remove()


def _token_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    with _input_of(model.backbone.blocks[-1]) as caught:
        logits, _ = model(images)
    tokens = caught[0]
    gradient = _gradient(logits, classes, tokens)
    prefix = model.backbone.num_prefix_tokens
    tokens, gradient = tokens[:, prefix:], gradient[:, prefix:]
    maps = (gradient.mean(dim=1, keepdim=True) * tokens).sum(dim=2)  # [batch, tokens]
    side = round(maps.shape[1] ** 0.5)
    return maps.reshape(len(maps), side, side).clamp(min=0).detach().float()


def _gradient(logits: torch.Tensor, classes: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    chosen = logits.gather(1, classes.view(-1, 1)).sum()
    return torch.autograd.grad(chosen, features)[0]


@contextmanager
def _input_of(block: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    caught: list[torch.Tensor] = []

    def catch(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = inputs[0].detach().requires_grad_()
        caught.append(tokens)
        return (tokens, *inputs[1:])

    handle = block.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()
