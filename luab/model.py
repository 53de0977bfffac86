"""A timm backbone with a classifier and a byproduct head."""

from typing import Any

import timm
import torch
from torch import nn

from luab.errors import ConfigError, did_you_mean
from luab.shapes import Images, Outputs
from luab.study.config import Recipe
from luab.study.recipes import Preprocessing

IMAGENET_CLASSES = 1000


class LuabModel(nn.Module):
    """A classifier with an optional linear head that regresses points from the same pooled feature.

    Args:
        backbone: Any timm classifier.
        outputs: Outputs of the byproduct head: 2 for one point (x, y) per image, 160 for one per class of COCO,
            0 for no head. ASSUME: the head is linear on the penultimate feature, without a sigmoid.
    """

    def __init__(self, backbone: nn.Module, outputs: int = 2) -> None:
        super().__init__()
        self.backbone: Any = backbone
        # Create the head after the backbone, so that baseline and LUAB start from equal weights with equal seeds.
        width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
        self.byproduct = nn.Linear(int(width), outputs) if outputs else None  # type: ignore[arg-type]

    def forward(self, images: Images) -> Outputs:
        """Maps normalised images to named outputs.

        Returns:
            "logits" [batch, classes]; "points" [batch, outputs] in fractions of the crop, if there is a byproduct head;
            "pooled" [batch, width], the feature that both heads read; "features", the same before pooling.
        """
        return self.heads(self.backbone.forward_features(images))

    def heads(self, features: torch.Tensor) -> Outputs:
        """Maps unpooled features to the outputs of `forward`."""
        pooled = self.backbone.forward_head(features, pre_logits=True)
        outputs = {"logits": self.backbone.get_classifier()(pooled), "pooled": pooled, "features": features}
        return outputs if self.byproduct is None else outputs | {"points": self.byproduct(pooled)}


def with_byproduct_head(backbone: nn.Module, outputs: int = 2) -> LuabModel:
    """Adds a byproduct head to a timm model; `model(images)` then returns a dict with "logits" and "points"."""
    return LuabModel(backbone, outputs)


def build_model(backbone: str, recipe: Recipe, outputs: int, classes: int = IMAGENET_CLASSES) -> LuabModel:
    """Builds a randomly initialised model.

    Args:
        backbone: timm model name.
        recipe: Gives input size, stochastic depth and model_kwargs.
        outputs: Outputs of the byproduct head; see `LuabModel`.
        classes: Number of classes, unless the recipe's model_kwargs set num_classes.

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
    model = LuabModel(network, outputs)
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
