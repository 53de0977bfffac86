"""Samples that took annotators more time, or less, count more in the classification.

The weight depends on the rank of an image's time among all images, so single long absences do not matter.
"""

from typing import Literal

import torch

from luab.objective import Term
from luab.shapes import Batch, Outputs


class Weighting(Term):
    """Adds to the classification what turns its mean over images into a weighted mean.

    The weight of an image is w = (1 + lambda) r^lambda with the rank r of its time on 0..1 (1 - r for "easy"): its mean
    over ranks is 1 for each lambda, it is never negative, and lambda 0 gives equal weights. The term is the mean of
    (w - 1) x classification / lambda, so classification + lambda x term = mean of w x classification. An image without
    a time has the weight 1. The weight multiplies the loss of the image; a constant added to its logits would change
    nothing.

    ASSUME: after mixup and CutMix, the weight of an image is the mean of both weights by their shares in the label.

    Args:
        weight: lambda.
        first: Which images have the larger weights: "hard" (more time) or "easy".
    """

    name = "weighting"

    def __init__(self, weight: float, first: Literal["hard", "easy"]) -> None:
        super().__init__(weight)
        self.first = first

    def sample_weights(self, batch: Batch) -> torch.Tensor:
        """Returns the weights of images, [batch]."""
        ranks = batch["ranks"].view(len(batch["ranks"]), -1)
        known = ranks if self.first == "hard" else 1 - ranks
        weights = (1 + self.weight) * known.clamp(min=0).pow(self.weight)
        weights = torch.where(ranks >= 0, weights, 1)
        shares = batch.get("shares", torch.ones_like(ranks))
        return (weights * shares).sum(dim=1)

    def __call__(self, outputs: Outputs, batch: Batch, denominator: torch.Tensor | None) -> torch.Tensor:
        losses = self.classification.of_each(outputs, batch)
        return ((self.sample_weights(batch) - 1) * losses).mean() / self.weight


TERM = Weighting
