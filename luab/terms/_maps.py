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
        self.kind, self.sigma = map["kind"], float(map["sigma"])

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

    def log_maps(self, batch: Batch, points: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Returns the logarithm of the map M of each point at the centres of all positions.

        A Gaussian has the maximum 1 at the point. A density is the sum of Gaussians around the moments of the trace
        that are in the crop, divided by its largest value.

        Args:
            batch: moments [batch, n, 2] or [batch, k, n, 2] for densities, (-1, -1) for those outside.
            points: [batch, k, 2] in fractions of the crop.
            rows: Height of the map.
            columns: Width of the map.

        Returns:
            [batch, k, rows, columns].
        """
        if self.kind == "density":
            return self._log_densities(batch["moments"].reshape(*points.shape[:2], -1, 2), rows, columns)
        x = (torch.arange(columns, device=points.device) + 0.5) / columns - points[
            ..., None, :1
        ]  # [batch, k, 1, columns]
        y = (torch.arange(rows, device=points.device)[:, None] + 0.5) / rows - points[..., 1:, None]
        return -(x.square() + y.square()) / (2 * self.sigma**2)

    def _log_densities(self, moments: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        x, y = (
            ((torch.arange(n, device=moments.device) + 0.5) / n - moments[..., axis, None]).square()
            for axis, n in ((0, columns), (1, rows))
        )  # [batch, k, n, columns], [batch, k, n, rows]
        x, y = (torch.exp(-part / (2 * self.sigma**2)) for part in (x, y))
        density = torch.einsum("bknr,bknc,bkn->bkrc", y, x, (moments[..., 0] >= 0).to(x.dtype))
        least = torch.finfo(density.dtype).tiny
        return (density / density.amax(dim=(2, 3), keepdim=True).clamp(min=least)).clamp(min=least).log()


def input_gradient(outputs: Outputs, score: torch.Tensor) -> torch.Tensor:
    """Returns the differentiable gradient of a score at the normalised pixels, at least float32 [batch, 3, h, w].

    Args:
        outputs: "images", see `LuabModel.forward`.
        score: A sum over images.
    """
    (gradient,) = torch.autograd.grad(score, outputs["images"], create_graph=True)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))


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
