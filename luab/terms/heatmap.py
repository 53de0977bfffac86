"""A dense head predicts at which position the point lies."""

import torch

from luab.shapes import Batch, Outputs
from luab.terms._maps import MapTerm, cross_entropy


class Heatmap(MapTerm):
    """Cross-entropy over positions of the model's map and the map of the point, which is scaled to sum 1.

    The map is linear on the last features of each position (for a ViT, on the patch tokens), one for each point, so
    COCO has one per class. After mixup and CutMix, the one map is compared with the points of both images.
    """

    name, shared = "heatmap", "features"

    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; see `MapTerm`."""
        maps = outputs["maps"].to(torch.promote_types(outputs["maps"].dtype, torch.float32))
        log_targets = self.log_maps(batch, points, *maps.shape[2:])
        return cross_entropy(maps.expand_as(log_targets), log_targets)


TERM = Heatmap
