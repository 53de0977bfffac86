"""A timm backbone with a byproduct head beside its classifier."""

from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from luab.errors import ConfigError, did_you_mean
from luab.shapes import Images, Logits, Points
from luab.study.config import Recipe
from luab.study.paths import Run

CLASSES = 1000
COCO_CLASSES = 80


def outputs_of(run: Run) -> tuple[int, int]:
    """Classes of a run's classifier, and numbers that its byproduct head gives.

    One point (x, y) per image of ImageNet, one per class of COCO; a shared head gives one for all classes.
    """
    if run.dataset == "imagenet":
        return CLASSES, 0 if run.points is None else 2
    points = 0 if run.points is None else 1 if run.supervision.endswith("_shared") else COCO_CLASSES
    return COCO_CLASSES, 2 * points


class LuabModel(nn.Module):
    """Classifier and, where asked for, a linear point regression on the same pooled feature.

    Args:
        backbone: Any timm classifier.
        outputs: Numbers that the byproduct head gives: 2 for one point per image (x, y), 160 for one per class
            of COCO, 0 for no head. ASSUME: the head is linear on the penultimate feature, without a sigmoid.
    """

    def __init__(self, backbone: nn.Module, outputs: int = 2) -> None:
        super().__init__()
        self.backbone: Any = backbone
        # Made after the backbone, so that with equal seeds baseline and LUAB start from equal weights.
        width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
        self.byproduct = nn.Linear(int(width), outputs) if outputs else None  # type: ignore[arg-type]

    def forward(self, images: Images) -> tuple[Logits, Points | None]:
        """Normalised images -> logits [batch, classes] and points [batch, outputs] in crop fractions."""
        return self.heads(self.backbone.forward_features(images))

    def heads(self, features: torch.Tensor) -> tuple[Logits, Points | None]:
        """Unpooled features -> logits and points."""
        pooled = self.backbone.forward_head(features, pre_logits=True)
        logits = self.backbone.get_classifier()(pooled)
        return logits, None if self.byproduct is None else self.byproduct(pooled)


def with_byproduct_head(backbone: nn.Module, outputs: int = 2) -> LuabModel:
    """Adds the byproduct head to a timm model; `model(images)` then gives (logits, points)."""
    return LuabModel(backbone, outputs)


def build_model(backbone: str, recipe: Recipe, outputs: int, classes: int = CLASSES) -> LuabModel:
    """A randomly initialised model.

    Args:
        backbone: timm name.
        recipe: Its size of images and arguments.
        outputs: See `LuabModel`.
        classes: Of the classifier, unless the recipe's model_kwargs say otherwise.

    Raises:
        ConfigError: timm does not know the backbone (near names are listed) or refuses its arguments.
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
    model = LuabModel(network, outputs)
    _try(model, backbone, recipe.input_px)
    return model


@torch.no_grad()
def _try(model: LuabModel, backbone: str, input_px: int) -> None:
    try:
        model.eval()(torch.zeros(1, 3, input_px, input_px))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"{backbone}: does not take images of {input_px} x {input_px} pixels ({error}). Correct the "
            f"recipe's input_px, or its model_kwargs, for example {{img_size: {input_px}}}."
        ) from error
    model.train()


class Normalise(nn.Module):
    """uint8 images to the network's input on the device: /255, minus mean, over standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1) * 255)

    def forward(self, images: Images) -> Images:
        """[batch, 3, h, w] uint8 or float in 0..255 -> float32."""
        return (images.float() - self.mean) / self.std
