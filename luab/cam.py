"""Class activation maps: the evidence for one class at each position, before any resizing or scaling."""

import contextlib
import copy
import math
from typing import Any

import torch
from timm.layers import RelPosBias, RelPosMlp

from luab.errors import ConfigError
from luab.model import LuabModel, classifiers_of
from luab.shapes import Images

_TINY = 1e-4  # first values of gains that close a block
_CHUNK = 32  # images whose attention of all blocks is in memory at the same time


def class_maps(model: LuabModel, images: Images, classes: torch.Tensor) -> torch.Tensor:
    """Computes the score map of one class per image.

    For a model that ends in a feature map, this is the class activation map: the gradient of the class logit, averaged
    over positions, times the features, summed over channels. With global average pooling and a linear classifier it
    equals the classifier weights times the features up to a constant factor, which later scaling to [0, 1] removes.

    A model that ends in patch tokens without a class token and is no ViT (MLP-Mixer, LeViT, Hiera) is treated alike.

    For a ViT, the same formula is applied to the patch tokens that enter its last block, and negative values are set
    to zero.
    DEVIATES: a ViT gets a gradient-weighted map of the patch tokens; its classifier reads the class token only, so the
    plain class activation map does not exist.

    Args:
        model: In evaluation mode.
        images: Normalised, [batch, 3, h, w].
        classes: int64 [batch], class index.

    Returns:
        float32 [batch, rows, columns], not scaled.

    Raises:
        ConfigError: The backbone has neither a feature map nor one square of patch tokens (CrossViT, PiT, TNT).
    """
    backbone = model.backbone
    with torch.enable_grad():
        if hasattr(backbone, "blocks") and hasattr(backbone, "num_prefix_tokens"):
            return _token_maps(model, images, classes, backbone.num_prefix_tokens)
        features = backbone.forward_features(images)
        if not isinstance(features, torch.Tensor) or features.ndim not in (3, 4) or features.shape[1] == 1:
            raise _undefined(backbone, f"features of shape {_shape(features)}")
        features = features.detach().requires_grad_()
        (gradient,) = _gradients(model.heads(features)["logits"], classes, [features])
        if features.ndim == 3 and not gradient[:, 1:].any() and hasattr(backbone, "blocks"):
            return _token_maps(model, images, classes, 0)  # the classifier reads the class token alone (XCiT)
        # Channels last in Swin and similar models, [batch, h, w, channels], and in tokens, [batch, h * w, channels].
        channels_last = features.ndim == 3 or features.shape[1] != backbone.num_features
        channels, places = (-1, tuple(range(1, features.ndim - 1))) if channels_last else (1, (2, 3))
        weights = gradient.mean(dim=places, keepdim=True)
        maps = (weights * features).sum(dim=channels).detach().float()
    return maps if maps.ndim == 3 else _square(maps, backbone)


def check_maps(model: LuabModel, backbone: str, input_px: int, method: str) -> None:
    """Checks on two random images, with a random classifier, that a model has score maps that are not constant.

    Args:
        model: On the CPU.
        backbone: timm name, for the error message.
        input_px: Side of the images.
        method: "attention", or another one for `class_maps`.

    Raises:
        ConfigError: The maps are constant or not defined.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, input_px, input_px, generator=generator)
    maps_of = attention_maps if method == "attention" else class_maps
    maps = maps_of(without_zeros(model, generator), images, torch.tensor([0, 1]))
    flat = maps.flatten(1)
    constant = flat.shape[1] > 1 and (flat.amax(1) - flat.amin(1) <= 1e-6 * flat.abs().amax(1)).all()
    if constant or not flat.isfinite().all():
        raise ConfigError(
            f"backbone {backbone}: its score maps by the method {method!r} are constant. Remove the localisation "
            "benchmarks of this method from `suites` for this backbone."
        )


@torch.no_grad()
def without_zeros(model: LuabModel, generator: torch.Generator) -> LuabModel:
    """Returns a copy for checks, in evaluation mode, whose classifiers and weights of zeros are random.

    Blocks that begin as zeros (LeViT, layer scale) would make score maps constant that are not so after training.
    """
    training = model.training
    copied = copy.deepcopy(model.train()).eval()  # training mode empties caches, which cannot be copied (LeViT)
    model.train(training)
    classifiers = {id(one) for part in classifiers_of(copied.backbone) for one in part.parameters()}
    for name, parameter in copied.backbone.named_parameters():
        if id(parameter) in classifiers or (not name.endswith("bias") and parameter.abs().max() <= _TINY):
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values / max(1, parameter[:1].numel()) ** 0.5)
    return copied


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
    backbone, attentions = model.backbone, _attentions(model.backbone)
    if any(isinstance(module, (RelPosBias, RelPosMlp)) for module in backbone.modules()) and attentions:
        raise ConfigError(
            f"{type(backbone).__name__}: cam_method 'attention' gives a constant map for attention with relative "
            "positions. Remove the benchmarks whose names end in _attention from `suites` for this backbone; those "
            "without it use gradient-weighted tokens."
        )
    if not has_attention_maps(model):
        return class_maps(model, images, classes)
    chunks = zip(images.split(_CHUNK), classes.split(_CHUNK), strict=True)
    return torch.cat([_relevance(model, *chunk, attentions) for chunk in chunks])


def has_attention_maps(model: LuabModel) -> bool:
    """Whether `attention_maps` is more than `class_maps`: all blocks have an attention whose weights can be read."""
    attentions = _attentions(model.backbone)
    readable = [
        hasattr(one, "attn_drop") and hasattr(one, "fused_attn") and type(one).__name__ != "XCA"  # XCA: of channels
        for one in attentions
    ]
    return bool(readable) and all(readable) and hasattr(model.backbone, "num_prefix_tokens")


def _attentions(backbone: Any) -> list[Any]:
    return [getattr(block, "attn", None) for block in getattr(backbone, "blocks", [])]


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
    return _square(row[:, prefix:], model.backbone).float()


def _token_maps(model: LuabModel, images: Images, classes: torch.Tensor, prefix: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def as_leaf(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(inputs[0].detach().requires_grad_())
        return (seen[0], *inputs[1:])

    with model.backbone.blocks[-1].register_forward_pre_hook(as_leaf):
        logits = model(images)["logits"]
    (tokens,) = seen
    if len(tokens) != len(images) or tokens.ndim not in (3, 4):
        raise _undefined(model.backbone, f"blocks that get tokens of shape {_shape(tokens)} for {len(images)} images")
    (gradient,) = _gradients(logits, classes, seen)
    if tokens.ndim == 4:  # one square, [batch, h, w, channels] (SAM)
        tokens, gradient, prefix = tokens.flatten(1, 2), gradient.flatten(1, 2), 0
    if math.isqrt(tokens.shape[1]) ** 2 == tokens.shape[1]:
        prefix = 0  # the class token joins later (CaiT)
    tokens, gradient = tokens[:, prefix:], gradient[:, prefix:]
    maps = (gradient.mean(dim=1, keepdim=True) * tokens).sum(dim=2)  # [batch, tokens]
    return _square(maps, model.backbone).clamp(min=0).detach().float()


def _square(patches: torch.Tensor, backbone: torch.nn.Module) -> torch.Tensor:
    """[batch, side * side] -> [batch, side, side]; images are square, and so is the grid of their patches."""
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise _undefined(backbone, f"{patches.shape[1]} patch tokens, which are not one square")
    return patches.reshape(len(patches), side, side)


def _shape(features: Any) -> str:
    if isinstance(features, torch.Tensor):
        return str(tuple(features.shape))
    return f"[{', '.join(map(_shape, features))}]" if isinstance(features, (list, tuple)) else type(features).__name__


def _undefined(backbone: torch.nn.Module, found: str) -> ConfigError:
    return ConfigError(
        f"{type(backbone).__name__}: no score map is defined for {found}. Remove the localisation benchmarks from "
        "`suites` for this backbone."
    )


def _gradients(logits: torch.Tensor, classes: torch.Tensor, of: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of each image's class logit with respect to some tensors."""
    return torch.autograd.grad(logits.gather(1, classes.view(-1, 1)).sum(), of)
