"""The LUAB objective, classification plus lambda times byproduct regression, and mixup that knows points."""

from typing import Any

import torch
from timm.data import Mixup
from timm.data.mixup import cutmix_bbox_and_lam
from torch import nn
from torch.nn import functional

from luab.model import CLASSES
from luab.shapes import Images, Logits, Points, Targets
from luab.study.config import Recipe


class LuabLoss(nn.Module):
    """loss = classification + weight x smooth-L1 of the points that survived the crop.

    Classification is the cross-entropy, or for images with several labels the binary cross-entropy of each class.

    Args:
        weight: lambda. 0 leaves plain classification.
        label_smoothing: Of hard labels; soft targets come smoothed.
        multilabel: Whether images have several labels.

    ASSUME: the byproduct loss is smooth-L1 with beta 1, mean over x and y, then over the batch's surviving points.
    ASSUME: with several labels, classification is the mean of the binary cross-entropy over images and classes, and
    the points of all classes count alike.
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
        """Named parts of the loss; optimise "loss".

        Args:
            logits: [batch, classes].
            predicted: [batch, 2] or [batch, 2 k] crop fractions, or None for a model without a byproduct head.
            labels: int64 [batch], or class distributions [batch, classes]; of several labels 0 or 1 [batch, classes].
            points: [batch, 2] or [batch, k, 2]; ignored where the weight is 0.
            point_weights: [batch] or [batch, k]; 0 where no point survived, else 1 or the mixing weight.
            denominator: [] what the sum over points is divided by; None: the sum of their weights. A part of a
                larger batch passes its equal share of the larger batch's weights: then the mean over the parts is
                the larger batch's loss, however unevenly its points are spread.

        Returns:
            "loss", "classification" and "byproduct"; byproduct is 0 when no point survived.
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
    """Weighted mean of the smooth-L1 distance over surviving points; 0 when there is none.

    Args:
        predicted: [batch, 2], one point that all k points of an image are held against, or [batch, 2 k], one each.
        points: [batch, 2] or [batch, k, 2] in the same frame.
        weights: [batch] or [batch, k].
        denominator: [] in place of the sum of the weights.
    """
    if points.ndim == 2:
        points, weights = points.unsqueeze(1), weights.unsqueeze(1)
    distance = functional.smooth_l1_loss(
        predicted.float().view(len(points), -1, 2).expand_as(points), points, reduction="none"
    ).mean(dim=-1)  # [batch, k, 2] -> [batch, k]
    # Absent points stand at (-1, -1): where() keeps them out also of the gradient.
    total = torch.where(weights > 0, weights * distance, 0).sum()
    count = weights.sum() if denominator is None else denominator
    return total / count.clamp(min=torch.finfo(torch.float32).tiny)


class PointMixup:
    """timm's batch mixup and CutMix, with the points of both images.

    ASSUME: under mixup each image's point counts with its image's mixing weight; in CutMix a point that was pasted
    over, or that the pasted patch did not bring along, counts as absent.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.mixup: Any = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
            num_classes=CLASSES,
        )

    def __call__(
        self, images: Images, labels: torch.Tensor, points: Points, weights: torch.Tensor
    ) -> tuple[Images, Targets, torch.Tensor, torch.Tensor]:
        """Mixes image i with image n-1-i.

        Returns:
            Images, class distributions [batch, classes], points [batch, 2, 2] (own, partner's) and their
            weights [batch, 2].
        """
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
            _mixed_labels(labels, share, self.mixup.label_smoothing),
            both,
            torch.stack([own * share, other * (1 - share)], dim=1),
        )


def _inside(points: Points, box: tuple[int, int, int, int], shape: torch.Size) -> torch.Tensor:
    left, top, right, bottom = box
    # In pixels; a point on the right or lower border belongs to the last one.
    x = (points[:, 0] * shape[3]).floor().clamp(max=shape[3] - 1)
    y = (points[:, 1] * shape[2]).floor().clamp(max=shape[2] - 1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _mixed_labels(labels: torch.Tensor, share: float, smoothing: float) -> Targets:
    hard = functional.one_hot(labels, CLASSES).float()
    soft = hard * (1 - smoothing) + smoothing / CLASSES
    return soft * share + soft.flip(0) * (1 - share)
