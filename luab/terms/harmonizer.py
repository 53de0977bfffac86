"""Harmonizer: the gradient of the true class's logit at the pixels is pushed towards the map of the point.

Source: Fel et al., Harmonizing the object recognition strategies of deep neural networks with humans, NeurIPS 2022;
serre-lab/Harmonization:harmonization/training/{loss,pyramid}.py.
"""

import torch
from torch.nn import functional

from luab.shapes import Batch, Outputs
from luab.terms._maps import MapTerm, input_gradient

LEVELS = 5
_LEAST = 1e-6


class Harmonizer(MapTerm):
    """Mean squared difference of two maps, averaged over the levels of a pyramid.

    S is the gradient of the logit at the pixels, averaged over channels. S and M are standardised per image, negative
    values are set to zero, and M is scaled to the maximum of S, which counts as constant. Each of five levels is half
    as large as the one before, after smoothing with the kernel [1 4 6 4 1].

    DEVIATES: the recipe, not this term, sets weight decay and label smoothing, which the source has as 1e-5 and 0.1,
    and the maps are those of points, not of ClickMe.
    """

    name, shared = "harmonizer", "classifier"

    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; see `MapTerm`."""
        labels = batch.get("point_labels", batch["labels"]).view(len(points), -1)
        scores = (outputs["logits"].gather(1, labels[:, k : k + 1]).sum() for k in range(labels.shape[1]))
        maps = torch.stack([input_gradient(outputs, one).mean(dim=1) for one in scores], dim=1)
        targets = self.log_maps(batch, points, *maps.shape[2:]).exp()
        maps, targets = _standardised(maps), _standardised(targets)
        targets = targets / (targets.amax(dim=(2, 3), keepdim=True) + _LEAST) * _largest(maps)
        levels = []
        for level in range(LEVELS):
            if level:
                maps, targets = _halved(maps), _halved(targets)
            levels.append((maps - targets).square().mean(dim=(2, 3)))
        return torch.stack(levels).mean(dim=0)


def _standardised(maps: torch.Tensor) -> torch.Tensor:
    """Maps [batch, k, rows, columns] with mean 0 and deviation 1 per map, and zero in place of negative values."""
    centred = maps - maps.mean(dim=(2, 3), keepdim=True)
    # A constant map has no deviation, and its root would have no gradient.
    deviation = (centred.square().mean(dim=(2, 3), keepdim=True) + torch.finfo(maps.dtype).tiny).sqrt()
    return (centred / (deviation + _LEAST)).clamp(min=0)


def _largest(maps: torch.Tensor) -> torch.Tensor:
    return maps.amax(dim=(2, 3), keepdim=True).detach() + _LEAST


def _halved(maps: torch.Tensor) -> torch.Tensor:
    """Smooths maps [batch, k, rows, columns] and takes every second row and column; beyond the borders they are 0."""
    for _ in range(2):
        n, padded = maps.shape[3], functional.pad(maps, (2, 2))
        taps = [weight / 16 * padded[..., i : i + n : 2] for i, weight in enumerate((1, 4, 6, 4, 1))]
        maps = torch.stack(taps).sum(dim=0).transpose(2, 3)
    return maps


TERM = Harmonizer
