"""Right for the right reasons: gradients at pixels where the point is not are punished.

Source: Ross, Hughes, Doshi-Velez, Right for the Right Reasons, IJCAI 2017; as in ml-research/A-Typology-for-Exploring-
the-Mitigation-of-Shortcut-Behavior:xil_methods/xil_loss.py.
"""

import torch

from luab.shapes import Batch, Outputs
from luab.terms._maps import MapTerm, input_gradient


class RightReasons(MapTerm):
    """Sum over pixels and channels of (E x gradient of the sum of log-probabilities)^2, with E = 1 - M.

    E is 1 where the model must not look. DEVIATES: it is not binary, because a click has no border.
    """

    name, shared = "rrr", "classifier"

    def losses(self, outputs: Outputs, batch: Batch, points: torch.Tensor) -> torch.Tensor:
        """Computes the loss of each point; see `MapTerm`."""
        logits = outputs["logits"]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        gradient = input_gradient(outputs, logits.log_softmax(dim=1).sum())
        power = gradient.square().sum(dim=1)[:, None]  # [batch, 1, rows, columns]
        elsewhere = 1 - self.log_maps(batch, points, *power.shape[2:]).exp()
        return (elsewhere.square() * power).sum(dim=(2, 3))


TERM = RightReasons
