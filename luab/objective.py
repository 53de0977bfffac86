"""The LUAB objective (classification plus lambda times byproduct regression), and mixup and CutMix with points."""

from typing import Any

import torch
from timm.data import Mixup
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from torch import nn
from torch.nn import functional

from luab.model import IMAGENET_CLASSES
from luab.shapes import Images, Logits, Points, Targets
from luab.study.config import Recipe


class LuabLoss(nn.Module):
    """loss = classification + weight x smooth-L1 of the points that survived the crop.

    Classification is cross-entropy, or for multi-label data the binary cross-entropy of each class.

    Args:
        weight: lambda; 0 gives plain classification.
        label_smoothing: Applied to hard labels only; soft targets must already be smoothed.
        multilabel: Whether an image can have several labels.

    ASSUME: the byproduct loss is smooth-L1 with beta 1, averaged over x and y and then over the batch's surviving
    points.
    ASSUME: for multi-label data, classification is the mean of the binary cross-entropy over images and classes, and
    the points of all classes have equal weight.
    """

    def __init__(self, weight: float, label_smoothing: float = 0.0, multilabel: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.multilabel = multilabel

    def forward(
        self,
        logits: Logits,
        predicted: Points | None,
        labels: torch.Tensor,
        points: torch.Tensor,
        point_weights: torch.Tensor,
        denominator: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Computes the named parts of the loss; optimise "loss".

        Args:
            logits: [batch, classes].
            predicted: [batch, 2] or [batch, 2 k], fractions of the crop; None for a model without a byproduct head.
            labels: int64 [batch], class distributions [batch, classes], or multi-label 0 and 1 [batch, classes].
            points: [batch, 2] or [batch, k, 2]; ignored where the weight is 0.
            point_weights: [batch] or [batch, k]; 0 where no point survived, otherwise 1 or the mixing weight.
            denominator: [], divides the sum over points; None means the sum of their weights. For one part of a
                larger batch, pass the larger batch's weight sum divided by the number of parts: the mean over the
                parts then equals the larger batch's loss, however its points are distributed over the parts.

        Returns:
            "loss", "classification" and "byproduct"; byproduct is 0 if no point survived.
        """
        if self.multilabel:
            classification = functional.binary_cross_entropy_with_logits(logits, labels)
        else:
            smoothing = self.label_smoothing if labels.ndim == 1 else 0.0
            classification = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        byproduct = logits.new_zeros(())
        if predicted is not None:
            byproduct = point_loss(predicted, points, point_weights, denominator)
        return {
            "loss": classification + self.weight * byproduct,
            "classification": classification,
            "byproduct": byproduct,
        }


def point_loss(
    predicted: Points, points: torch.Tensor, weights: torch.Tensor, denominator: torch.Tensor | None = None
) -> torch.Tensor:
    """Computes the weighted mean of the smooth-L1 distance over surviving points; 0 if there are none.

    Args:
        predicted: [batch, 2 k], one prediction per point, or [batch, 2], compared with all k points of an image.
        points: [batch, 2] or [batch, k, 2] in the same frame.
        weights: [batch] or [batch, k].
        denominator: [], used instead of the sum of the weights.
    """
    if points.ndim == 2:
        points, weights = points.unsqueeze(1), weights.unsqueeze(1)
    distance = functional.smooth_l1_loss(
        predicted.float().view(len(points), -1, 2).expand_as(points), points, reduction="none"
    ).mean(dim=-1)  # [batch, k, 2] -> [batch, k]
    # Absent points are (-1, -1); where() keeps them out of the gradient too.
    total = torch.where(weights > 0, weights * distance, 0).sum()
    count = weights.sum() if denominator is None else denominator
    return total / count.clamp(min=torch.finfo(torch.float32).tiny)


class PointMixup:
    """timm's batch mixup and CutMix, extended to the points of both images.

    ASSUME: in mixup, each image's point counts with the image's mixing weight; in CutMix, a point counts as absent if
    the pasted patch covers it or does not contain it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.mixup: Any = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
            num_classes=IMAGENET_CLASSES,
        )

    def __call__(
        self, images: Images, labels: torch.Tensor, points: Points, weights: torch.Tensor
    ) -> tuple[Images, Targets, torch.Tensor, torch.Tensor]:
        """Mixes image i with image n-1-i; returns both images' points [batch, 2, 2] and their weights [batch, 2]."""
        own, other = weights.clone(), weights.flip(0).clone()
        share, use_cutmix = self.mixup._params_per_batch()
        if share < 1 and use_cutmix:
            (top, bottom, left, right), share = cutmix_bbox_and_lam(images.shape, share)
            images[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
            box = (left, top, right, bottom)
            own = own * ~_inside(points, box, images.shape)
            other = other * _inside(points.flip(0), box, images.shape)
        elif share < 1:
            images = images * share + images.flip(0) * (1 - share)
        both = torch.stack([points, points.flip(0)], dim=1)
        return (
            images,
            mixup_target(labels, IMAGENET_CLASSES, share, self.mixup.label_smoothing),
            both,
            torch.stack([own * share, other * (1 - share)], dim=1),
        )


def _inside(points: Points, box: tuple[int, int, int, int], shape: torch.Size) -> torch.Tensor:
    left, top, right, bottom = box
    # In pixels; a point on the right or lower border belongs to the last pixel.
    x = (points[:, 0] * shape[3]).floor().clamp(max=shape[3] - 1)
    y = (points[:, 1] * shape[2]).floor().clamp(max=shape[2] - 1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)
