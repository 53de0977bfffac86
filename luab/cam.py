"""Class activation maps: where the evidence for one class lies, before any resizing or scaling."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from luab.errors import ConfigError
from luab.model import LuabModel
from luab.shapes import Images


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
