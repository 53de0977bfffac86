"""The losses of the dense tasks: from a network and a batch to named, weighted parts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from luab.data.dense.dense_set import IGNORED
from luab.study.transfer_recipes import TransferRecipe
from luab.transfer.points import Clues, point_loss

Target = Mapping[str, Any]
DenseTask = Literal["detection", "segmentation", "points"]


class DenseLoss(ABC):
    """The loss of a task; `parts` names its values, of which "loss" is the weighted sum.

    Attributes:
        parts: Names of the values, "loss" first.
        used: Parts of a target that the loss reads; those that an item does not have are left out.
    """

    parts: tuple[str, ...]
    used: tuple[str, ...]

    @abstractmethod
    def __call__(
        self, network: nn.Module, images: Sequence[torch.Tensor], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """Computes the parts for images [3, h, w], float in 0..1, and targets as `luab.data.dense` returns them."""


class DetectionLoss(DenseLoss):
    """torchvision's losses of Faster R-CNN, with equal weights. Crowds and difficult objects do not count."""

    parts = ("loss", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    used = ("boxes", "labels", "iscrowd", "difficult")

    def __call__(
        self, network: nn.Module, images: Sequence[torch.Tensor], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """Computes the four parts and their sum."""
        parts = network(list(images), [_counted(target) for target in targets])
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


class SegmentationLoss(DenseLoss):
    """Mean cross-entropy over the labelled pixels of a batch; that of the second head with the recipe's weight."""

    used: tuple[str, ...] = ("mask",)

    def __init__(self, auxiliary: float) -> None:
        self.auxiliary = auxiliary
        self.parts = ("loss", "out", *(["aux"] if auxiliary else []))

    def __call__(
        self, network: nn.Module, images: Sequence[torch.Tensor], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """Computes the part of each head and their weighted sum."""
        masks = torch.stack([target["mask"] for target in targets])
        logits = network(torch.stack(list(images)))
        parts = {name: _cross_entropy(one, masks) for name, one in logits.items()}
        return {"loss": parts["out"] + self.auxiliary * parts.get("aux", 0.0), **parts}


class PointsLoss(DenseLoss):
    """The loss from points and image labels, see `luab.transfer.points`; likewise on the second head, if any."""

    used = ("points", "point_labels", "image_labels")

    def __init__(self, auxiliary: float) -> None:
        self.auxiliary = auxiliary
        self.parts = ("loss", "point", "image", *(["aux"] if auxiliary else []))

    def __call__(
        self, network: nn.Module, images: Sequence[torch.Tensor], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """Computes both parts of the main head, the sum of the second head's, and the weighted sum."""
        clues = [Clues(target["points"], target["point_labels"], target["image_labels"]) for target in targets]
        logits = network(torch.stack(list(images)))
        parts = point_loss(logits["out"], clues)
        loss = parts["point"] + parts["image"]
        if "aux" in logits:
            parts["aux"] = torch.stack(list(point_loss(logits["aux"], clues).values())).sum()
            loss = loss + self.auxiliary * parts["aux"]
        return {"loss": loss, **parts}


def loss_of(task: DenseTask, recipe: TransferRecipe) -> DenseLoss:
    """Returns the loss of a task."""
    if task == "detection":
        return DetectionLoss()
    return SegmentationLoss(recipe.auxiliary) if task == "segmentation" else PointsLoss(recipe.auxiliary)


def _cross_entropy(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    total = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def _counted(target: Target) -> dict[str, torch.Tensor]:
    boxes, labels = target["boxes"].as_subclass(torch.Tensor), target["labels"]
    counted = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    for name in ("iscrowd", "difficult"):
        if name in target:
            counted &= ~target[name]
    return {"boxes": boxes[counted], "labels": labels[counted]}
