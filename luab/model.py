"""A timm backbone with a classifier and a byproduct head."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers import ClassifierHead
from torch import nn

from luab.errors import ConfigError, did_you_mean
from luab.pooling import attention_pool
from luab.shapes import Images, Outputs
from luab.study.config import Recipe
from luab.study.recipes import Preprocessing

IMAGENET_CLASSES = 1000


class LuabModel(nn.Module):
    """A classifier with an optional linear head that regresses points from the same pooled feature.

    The pooled feature is what the backbone's classifier reads. For two classifiers (distilled DeiT) it is the mean of
    what they read, as the logits are the mean of theirs; for classifiers of different widths (CrossViT), their inputs
    one after the other.

    Args:
        backbone: Any timm classifier.
        outputs: Outputs of the byproduct head: 2 for one point (x, y) per image, 160 for one per class of COCO,
            0 for no head. ASSUME: the head is linear on the penultimate feature, without a sigmoid.
        use: With "heatmap", the head gives one map per point instead, linear on the features of each position. With
            "attribution", `forward` returns "grid" too, and the attention of a ViT's last block is computed without the
            fused kernel, which has no second derivative. With "harmonizer" and "rrr", this holds for all blocks, and
            `forward` returns "images" and "classifier". With "pooling simpool" and "pooling latent", attention replaces
            the average or the class token (`luab.pooling`), and `forward` returns "attention".

    Raises:
        ConfigError: The backbone has no classifier.
    """

    def __init__(self, backbone: nn.Module, outputs: int = 2, use: str = "regress") -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.dense = use == "heatmap"
        self.attributed = use == "attribution"
        self.seen_through = use in ("harmonizer", "rrr")
        twice: Any = backbone if self.seen_through else self._last_block if self.attributed else None
        for module in () if twice is None else twice.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        # Create the head after the backbone, so that baseline and LUAB start from equal weights with equal seeds.
        widths = [_width(classifier) for classifier in classifiers_of(backbone)]
        width = widths[0] if _have_one_width(widths) else sum(widths)
        if self.dense:
            width, outputs = int(backbone.num_features), outputs // 2  # type: ignore[arg-type]
        self.byproduct = nn.Linear(width, outputs) if outputs else None
        kind, _, pool = use.partition(" ")
        self.pool = None
        if kind == "pooling":
            self.pool = attention_pool(pool, int(backbone.num_features), self._last_block is not None)  # type: ignore[arg-type]

    def forward(self, images: Images) -> Outputs:
        """Maps normalised images to named outputs.

        Returns:
            "logits" [batch, classes]; "points" [batch, outputs] in fractions of the crop, if there is a byproduct head;
            "pooled" [batch, width], the feature that both heads read; "features", the same before pooling; for some
            uses "maps" [batch, points, rows, columns], or "grid" [batch, rows, columns, width], from which the logits
            are computed: the features of a CNN, the patch tokens that enter the last block of a ViT; "attention"
            [batch, rows, columns], of sum 1; "images", which have a gradient, and "classifier", its weights.
        """
        if self.seen_through and torch.is_grad_enabled():
            images = images.detach().requires_grad_()
            weights = next(classifiers_of(self.backbone)[0].parameters())
            return self.heads(self.backbone.forward_features(images)) | {"images": images, "classifier": weights}
        if not self.attributed:
            return self.heads(self.backbone.forward_features(images))
        if self._last_block is None:
            features = self.backbone.forward_features(images)
            grid = by_position(self.backbone, features)
            # The logits must depend on the arranged features, or their gradient would be undefined.
            return self.heads(grid if grid is features else grid.permute(0, 3, 1, 2)) | {"grid": grid}
        seen: list[torch.Tensor] = []

        def arrange(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            tokens = inputs[0]
            seen.append(by_position(self.backbone, tokens))
            prefix = tokens[:, : self.backbone.num_prefix_tokens]
            return (torch.cat([prefix, seen[0].flatten(1, 2)], dim=1), *inputs[1:])

        with self._last_block.register_forward_pre_hook(arrange):
            features = self.backbone.forward_features(images)
        return self.heads(features) | {"grid": seen[0]}

    @property
    def _last_block(self) -> Any:
        """The last block of a ViT; None for other models."""
        blocks = getattr(self.backbone, "blocks", None)
        return blocks[-1] if blocks is not None and hasattr(self.backbone, "num_prefix_tokens") else None

    def heads(self, features: torch.Tensor) -> Outputs:
        """Maps unpooled features to the outputs of `forward`."""
        read, attended = features, {}
        if self.pool is not None:
            grid = by_position(self.backbone, features)
            pooled, attention = self.pool(grid.flatten(1, 2))
            read, attended = self._in_place_of(features, pooled), {"attention": attention.view(grid.shape[:3])}
        logits, pooled = self._classified(read)
        outputs = {"logits": logits, "pooled": pooled, "features": features, **attended}
        if self.byproduct is None:
            return outputs
        if self.dense:
            return outputs | {"maps": self.byproduct(by_position(self.backbone, features)).permute(0, 3, 1, 2)}
        return outputs | {"points": self.byproduct(pooled)}

    def _in_place_of(self, features: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Features of a single position, so that timm's own head pools them to `pooled` [batch, width]."""
        if features.ndim == 4:
            return pooled[:, :, None, None] if features.shape[1] == pooled.shape[1] else pooled[:, None, None]
        return pooled[:, None].expand(-1, getattr(self.backbone, "num_prefix_tokens", 0) + 1, -1)

    def _classified(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns timm's own logits and the pooled feature, which is recorded when it enters the classifier."""
        entered: list[torch.Tensor] = []

        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
            read = inputs[0]
            if read.shape[2:] == (1, 1):  # of a classifier that is a convolution; it must read what is recorded
                entered.append(read.flatten(1))
                return (entered[-1][:, :, None, None],)
            if read.ndim != 2:
                raise ValueError(f"{type(self.backbone).__name__}: its classifier reads {tuple(read.shape)}")
            entered.append(read)
            return None

        with contextlib.ExitStack() as stack:
            for classifier in classifiers_of(self.backbone):
                stack.enter_context(classifier.register_forward_pre_hook(record))
            logits = self.backbone.forward_head(features)
        if not entered:
            raise ValueError(f"{type(self.backbone).__name__}.forward_head does not call its classifier")
        if all(one is entered[0] for one in entered):  # one classifier, or several that read the same (LeViT)
            return logits, entered[0]
        is_mean = _have_one_width([one.shape[1] for one in entered])
        return logits, torch.stack(entered).mean(dim=0) if is_mean else torch.cat(entered, dim=1)


def by_position(backbone: Any, features: torch.Tensor) -> torch.Tensor:
    """Arranges unpooled features by position: [batch, rows, columns, width]; class tokens are left out.

    Args:
        backbone: timm model.
        features: [batch, width, rows, columns], [batch, rows, columns, width] (Swin) or [batch, tokens, width].

    Raises:
        ConfigError: The tokens do not form a square.
    """
    if features.ndim == 4:
        return features if features.shape[1] != backbone.num_features else features.permute(0, 2, 3, 1)
    patches = features[:, getattr(backbone, "num_prefix_tokens", 0) :]
    side = math.isqrt(patches.shape[1])
    if features.ndim != 3 or side**2 != patches.shape[1]:
        raise ConfigError(
            f"{type(backbone).__name__}: expected a feature map or one square of patch tokens per image, found "
            f"features of shape {tuple(features.shape)}. Set `use: regress`, or choose another backbone."
        )
    return patches.unflatten(1, (side, side))


def classifiers_of(backbone: nn.Module) -> list[nn.Module]:
    """Returns the classifiers of a timm model: one, or several that are averaged (distilled DeiT, LeViT, CrossViT)."""
    found: Any = backbone.get_classifier()  # type: ignore[operator]
    several = found if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    return [one.fc if isinstance(one, ClassifierHead) else one for one in several]  # it also pools (Sequencer, SAM)


@contextlib.contextmanager
def random_classifier(backbone: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Replaces the classifier's weights for a while: a classifier of zeros would hide differences and score maps."""
    parameters = [parameter for one in classifiers_of(backbone) for parameter in one.parameters()]
    original = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                shape = parameter.shape
                parameter.copy_(torch.randn(shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, original, strict=True):
                parameter.copy_(values)


def _have_one_width(widths: list[int]) -> bool:
    return len(set(widths)) == 1


def _width(classifier: nn.Module) -> int:
    for module in classifier.modules():
        for name in ("in_features", "in_channels"):
            if isinstance(width := getattr(module, name, None), int):
                return width
    raise ConfigError(
        f"Expected a backbone with a classifier, found {type(classifier).__name__} in its place. Build it with "
        "num_classes of 1 or more."
    )


def with_byproduct_head(backbone: nn.Module, outputs: int = 2) -> LuabModel:
    """Adds a byproduct head to a timm model; `model(images)` then returns a dict with "logits" and "points"."""
    return LuabModel(backbone, outputs)


def build_model(
    backbone: str, recipe: Recipe, outputs: int, classes: int = IMAGENET_CLASSES, use: str = "regress"
) -> LuabModel:
    """Builds a randomly initialised model.

    Args:
        backbone: timm model name.
        recipe: Gives input size, stochastic depth and model_kwargs.
        outputs: Outputs of the byproduct head; see `LuabModel`.
        classes: Number of classes, unless the recipe's model_kwargs set num_classes.
        use: See `LuabModel`.

    Raises:
        ConfigError: timm has no such model (the message lists similar names) or refuses its arguments.
    """
    name = backbone.partition(".")[0]
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise ConfigError(f"backbones: timm {timm.__version__} has no model {name!r}. {hint}")
    arguments = dict(recipe.model_kwargs)
    if recipe.drop_path:
        arguments["drop_path_rate"] = recipe.drop_path
    try:
        network = timm.create_model(backbone, pretrained=False, **{"num_classes": classes, **arguments})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"{backbone}: timm refused model_kwargs {arguments} ({error}). Correct the recipe's model_kwargs."
        ) from error
    model = LuabModel(network, outputs, use)
    for side in {recipe.input_px, recipe.training_px}:
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, side, side))
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{backbone}: does not accept images of {side} x {side} pixels ({error}). Correct the recipe's "
                f"input_px or train_px, or its model_kwargs, for example {{img_size: {side}}}."
            ) from error
    return model.train()


class Normalise(nn.Module):
    """Normalises images on the device: divides by 255, subtracts the mean and divides by the standard deviation.

    Args:
        preprocessing: Gives mean and standard deviation; by default those of ImageNet. Pretrained weights may need
            others, see `luab.training.pretrained.preprocessing_of`.
    """

    def __init__(self, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        preprocessing = preprocessing or Preprocessing()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Images) -> Images:
        """Maps [batch, 3, h, w], uint8 or float in 0..255, to float32."""
        return (images.float() - self.mean) / self.std
