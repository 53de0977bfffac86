"""What the uses that compare maps share: the map of a point, and the mean over points."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from luab.objective import Term
from luab.shapes import Batch, Outputs


class MapTerm(Term):
    """A term that compares a map of the model with the map of each point.

    Points are those of the crop, after all geometric augmentations, so their maps need no transformation of their own.
    After mixup and CutMix an image has the points of both images, each with its weight and its class.

    Args:
        weight: lambda.
        map: `map` of the supervision.
    """

    counted = "points"

    def __init__(self, weight: float, map: Mapping[str, Any]) -> None:
        super().__init__(weight)
        self.sigma = float(map["sigma"])

    def count(self, batch: Batch) -> torch.Tensor:
        """Returns the sum of the points' weights."""
        return batch["weights"].sum()

    @abstractmethod
    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; [batch, k] for points [batch, k, 2]."""

    def __call__(self, outputs: Outputs, batch: Batch, denominator: torch.Tensor | None) -> torch.Tensor:
        n, count = len(batch["points"]), self.count(batch) if denominator is None else denominator
        losses, weights = self.losses(outputs, batch, batch["points"].view(n, -1, 2)), batch["weights"].view(n, -1)
        # Absent points are (-1, -1); where() keeps them out of the gradient too.
        return torch.where(weights > 0, weights * losses, 0).sum() / count.clamp(min=torch.finfo(torch.float32).tiny)

    def log_maps(self, points: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Returns the logarithm of a Gaussian with maximum 1 around each point, at the centres of all positions.

        Args:
            points: [batch, k, 2] in fractions of the crop.
            rows: Height of the map.
            columns: Width of the map.

        Returns:
            [batch, k, rows, columns].
        """
        x = (torch.arange(columns, device=points.device) + 0.5) / columns - points[
            ..., None, :1
        ]  # [batch, k, 1, columns]
        y = (torch.arange(rows, device=points.device)[:, None] + 0.5) / rows - points[..., 1:, None]
        return -(x.square() + y.square()) / (2 * self.sigma**2)


def cross_entropy(maps: torch.Tensor, log_targets: torch.Tensor) -> torch.Tensor:
    """Computes the cross-entropy over positions of scores and a target that is scaled to sum 1.

    Args:
        maps: Scores [batch, k, rows, columns].
        log_targets: Logarithm of the target up to a constant, of the same shape.

    Returns:
        [batch, k].
    """
    targets = log_targets.flatten(2).softmax(dim=2)
    return -(targets * maps.flatten(2).log_softmax(dim=2)).sum(dim=2)
