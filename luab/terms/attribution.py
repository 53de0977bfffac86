"""The map of the evidence for the true class is pushed towards the map of the point.

Sources: class activation maps, Zhou et al., CVPR 2016; energy, Rao et al., Studying How to Efficiently and Effectively
Guide Models with Explanations, ICCV 2023; l1, Gao et al., GRADIA, 2022; docs/uses.md.
"""

from collections.abc import Mapping
from typing import Any

import torch

from luab.shapes import Batch, Outputs
from luab.terms._maps import MapTerm, cross_entropy

_LEAST = 1e-8


class Attribution(MapTerm):
    """Compares the map of each point's class with the map M of the point.

    The map is A = sum over channels of (gradient of the class logit, summed over positions) x features. With global
    average pooling and a linear classifier, its mean over positions is the class logit without the bias. A ViT has the
    same map of the patch tokens that enter its last block. Only what follows these features is differentiated twice.

    Losses, with A+ the positive part of A:
    point_ce: cross-entropy over positions of softmax(A) and M scaled to sum 1;
    energy: 1 - sum(A+ M) / sum(A+);
    l1: mean over positions of the absolute difference of A+ / max A+ and M.
    An image whose map has no positive value gives energy and l1 no gradient.

    DEVIATES: energy has a Gaussian in place of a box, because a click has no size.
    ASSUME: l1 scales the map by its maximum.

    Args:
        weight: lambda.
        loss: "point_ce", "energy" or "l1".
        map: `map` of the supervision.
    """

    name, shared = "attribution", "grid"

    def __init__(self, weight: float, loss: str, map: Mapping[str, Any]) -> None:
        super().__init__(weight, map)
        self.loss = loss

    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; see `MapTerm`."""
        labels = batch.get("point_labels", batch["labels"]).view(len(points), -1)
        maps = torch.stack([evidence(outputs, labels[:, k]) for k in range(labels.shape[1])], dim=1)
        log_targets = self.log_maps(batch, points, *maps.shape[2:])
        if self.loss == "point_ce":
            return cross_entropy(maps, log_targets)
        targets, positive = log_targets.exp(), maps.clamp(min=0)
        if self.loss == "energy":
            return 1 - (positive * targets).sum(dim=(2, 3)) / positive.sum(dim=(2, 3)).clamp(min=_LEAST)
        scaled = positive / positive.amax(dim=(2, 3), keepdim=True).clamp(min=_LEAST)
        return (scaled - targets).abs().mean(dim=(2, 3))


def evidence(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """Returns the differentiable map of one class per image, at least float32 [batch, rows, columns].

    Args:
        outputs: "logits" and "grid", see `LuabModel.forward`.
        labels: int64 [batch].
    """
    grid, scores = outputs["grid"], outputs["logits"].gather(1, labels.view(-1, 1)).sum()
    (gradient,) = torch.autograd.grad(scores, grid, create_graph=True)
    grid, gradient = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in (grid, gradient))
    return (gradient.sum(dim=(1, 2), keepdim=True) * grid).sum(dim=3)


TERM = Attribution
