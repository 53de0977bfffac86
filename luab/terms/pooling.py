"""The attention that pools the features is held against the map of the point.

Our own proposal; the poolings are those of `luab.pooling`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from luab.shapes import Batch, Outputs
from luab.terms._maps import MapTerm, cross_entropy


class Pooling(MapTerm):
    """Kullback-Leibler divergence of the attention a over positions from the map M, which is scaled to sum 1.

    KL(M || a) = sum of M (log M - log a). Each image has one attention, so on COCO it is compared with the points of
    all classes, and after mixup and CutMix with those of both images.

    Args:
        weight: lambda.
        map: `map` of the supervision.
        pool: `pool` of the supervision, which `LuabModel` reads.
    """

    name, shared = "pooling", "features"

    def __init__(self, weight: float, map: Mapping[str, Any], pool: str) -> None:
        super().__init__(weight, map)
        self.pool = pool

    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; see `MapTerm`."""
        attention = outputs["attention"]
        log_targets = self.log_maps(batch, points, *attention.shape[1:])
        logs = attention.clamp(min=torch.finfo(attention.dtype).tiny).log()[:, None].expand_as(log_targets)
        log_targets = log_targets.flatten(2).log_softmax(dim=2).view_as(log_targets)
        targets = log_targets.exp()
        return cross_entropy(logs, log_targets) + (targets * log_targets).sum(dim=(2, 3))


TERM = Pooling
