"""Class activation maps: the evidence for one class at each position, before any resizing or scaling."""

import contextlib
import math
from typing import Any

import torch
from timm.layers import RelPosBias, RelPosMlp

from luab.errors import ConfigError
from luab.model import LuabModel
from luab.shapes import Images

_CHUNK = 32  # images whose attention of all blocks is in memory at the same time


def class_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    """Computes the score map of one class per image.

    For a model that ends in a feature map, this is the class activation map: the gradient of the class logit, averaged
    over positions, times the features, summed over channels. With global average pooling and a linear classifier it
    equals the classifier weights times the features up to a constant factor, which later scaling to [0, 1] removes.

    For a model that ends in tokens (ViT), the same formula is applied to the patch tokens that enter its last block,
    and negative values are set to zero.
    DEVIATES: a ViT gets a gradient-weighted map of the patch tokens; its classifier reads the class token only, so the
    plain class activation map does not exist.

    Args:
        model: In evaluation mode.
        images: Normalised, [batch, 3, h, w].
        classes: int64 [batch], class index.

    Returns:
        float32 [batch, rows, columns], not scaled.

    Raises:
        ConfigError: The backbone has neither a feature map nor blocks of one square of patch tokens (TNT).
    """
    with torch.enable_grad():
        backbone = model.backbone
        if hasattr(backbone, "blocks") and hasattr(backbone, "num_prefix_tokens"):
            return _token_maps(model, images, classes)
        features = backbone.forward_features(images).detach().requires_grad_()
        if features.ndim != 4:
            raise ConfigError(
                f"{type(backbone).__name__}: no score map is defined for features of shape "
                f"{tuple(features.shape)}. Remove wsol_val and wsol_test from `suites` for this backbone."
            )
        (gradient,) = _gradients(model.heads(features)["logits"], classes, [features])
        # Swin and similar models have channels last: [batch, h, w, channels].
        channels_last = features.shape[1] != backbone.num_features
        channels, places = (3, (1, 2)) if channels_last else (1, (2, 3))
        weights = gradient.mean(dim=places, keepdim=True)
        return (weights * features).sum(dim=channels).detach().float()


def attention_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    """Computes the relevance of each patch for one class per image, through the attention of all blocks of a ViT.

    The attention of a block counts where increasing it increases the class logit: A is the mean over heads of the
    positive part of gradient x attention. Relevance starts as the identity, and each block adds A times the relevance
    so far, which follows the residual stream. The map is the row of the class token (for a model that averages its
    tokens, the mean row of the patches).

    Reason for this method: plain attention rollout is the same for every class, but the protocol needs the map of the
    true class; and the gradient-weighted tokens of `class_maps` reflect the last block only.

    Args:
        model: In evaluation mode; `class_maps` is used if it has no such attention.
        images: Normalised, [batch, 3, h, w].
        classes: int64 [batch], class index.

    Returns:
        float32 [batch, rows, columns], at least 0.

    Raises:
        ConfigError: Attention with relative positions, whose map is constant; or see `class_maps`.

    Source:
        Chefer, Gur, Wolf: Generic Attention-model Explainability, ICCV 2021, equations 5 and 6;
        hila-chefer/Transformer-MM-Explainability.
    """
    backbone = model.backbone
    attentions = [getattr(block, "attn", None) for block in getattr(backbone, "blocks", [])]
    supported = [hasattr(a, "attn_drop") and hasattr(a, "fused_attn") for a in attentions]
    if any(isinstance(module, (RelPosBias, RelPosMlp)) for module in backbone.modules()) and attentions:
        raise ConfigError(
            f"{type(backbone).__name__}: cam_method 'attention' gives a constant map for attention with relative "
            "positions. Remove the benchmarks whose names end in _attention from `suites` for this backbone; those "
            "without it use gradient-weighted tokens."
        )
    if not (supported and all(supported) and hasattr(backbone, "num_prefix_tokens")):
        return class_maps(model, images, classes)
    chunks = zip(images.split(_CHUNK), classes.split(_CHUNK), strict=True)
    return torch.cat([_relevance(model, *chunk, attentions) for chunk in chunks])


def _relevance(model: LuabModel, images: Images, classes: torch.Tensor, attentions: list[Any]) -> torch.Tensor:
    weights: list[torch.Tensor] = []
    with torch.enable_grad(), contextlib.ExitStack() as stack:
        for attention in attentions:  # the fused kernel does not compute the weights
            stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
            attention.fused_attn = False
            hook = attention.attn_drop.register_forward_hook(lambda _, inputs, output: weights.append(output))
            stack.enter_context(hook)
        # Images require a gradient so that attention has one even if all weights are frozen.
        logits = model(images.detach().requires_grad_())["logits"]
        gradients = _gradients(logits, classes, weights)
    relevance = torch.eye(weights[0].shape[-1], device=images.device).expand(len(images), -1, -1)
    for attention, gradient in zip(weights, gradients, strict=True):
        positive = (gradient * attention.detach()).clamp(min=0).mean(dim=1)  # [batch, heads, t, t] -> [batch, t, t]
        relevance = relevance + positive @ relevance
    prefix = model.backbone.num_prefix_tokens
    has_class_token = getattr(model.backbone, "cls_token", None) is not None
    row = relevance[:, 0] if has_class_token else relevance[:, prefix:].mean(dim=1)
    return _square(row[:, prefix:]).float()


def _token_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def as_leaf(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(inputs[0].detach().requires_grad_())
        return (seen[0], *inputs[1:])

    with model.backbone.blocks[-1].register_forward_pre_hook(as_leaf):
        logits = model(images)["logits"]
    (tokens,) = seen
    prefix = model.backbone.num_prefix_tokens
    if (
        tokens.ndim != 3
        or len(tokens) != len(images)
        or math.isqrt(tokens.shape[1] - prefix) ** 2 != (tokens.shape[1] - prefix)
    ):
        raise ConfigError(
            f"{type(model.backbone).__name__}: no score map is defined for blocks that get tokens of shape "
            f"{tuple(tokens.shape)} for {len(images)} images, {prefix} of them no patch; expected one square of patch "
            "tokens per image. Remove the localisation benchmarks from `suites` for this backbone."
        )
    (gradient,) = _gradients(logits, classes, seen)
    tokens, gradient = tokens[:, prefix:], gradient[:, prefix:]
    maps = (gradient.mean(dim=1, keepdim=True) * tokens).sum(dim=2)  # [batch, tokens]
    return _square(maps).clamp(min=0).detach().float()


def _square(patches: torch.Tensor) -> torch.Tensor:
    """[batch, side * side] -> [batch, side, side]."""
    side = round(patches.shape[1] ** 0.5)
    return patches.reshape(len(patches), side, side)


def _gradients(logits: torch.Tensor, classes: torch.Tensor, of: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of each image's class logit with respect to some tensors."""
    return torch.autograd.grad(logits.gather(1, classes.view(-1, 1)).sum(), of)
