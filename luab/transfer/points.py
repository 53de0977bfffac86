"""The loss of segmentation from points and image labels, without masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Clues(NamedTuple):
    """What is known of one image.

    Attributes:
        points: [k, 2] x and y in pixels of the image, float; a pixel with index i covers i to i + 1.
        point_labels: [k] class of each point, from 1; 0 is a point on the background.
        image_labels: [n] classes of the whole image, from 1. A class that is not in it is nowhere in the image.
    """

    points: torch.Tensor
    point_labels: torch.Tensor
    image_labels: torch.Tensor


def point_loss(logits: torch.Tensor, clues: Sequence[Clues]) -> dict[str, torch.Tensor]:
    """Computes the two parts of the loss, each as a mean over images.

    "point" is the mean cross-entropy over an image's points; 0 for an image without points. "image" takes the
    pixel of the highest probability of each class: it should be high for present classes and low for absent ones,
    with a mean over the classes of each kind. Background counts as present in every image.

    Args:
        logits: [images, classes + 1, h, w]; class 0 is background.
        clues: What is known of each image.

    Returns:
        "point" and "image", scalars.

    Source:
        Bearman et al., What's the Point: Semantic Segmentation with Point Supervision, ECCV 2016, section 3, without
        their objectness prior, which needs another model. ASSUME: alpha_i is 1 / number of the image's points; the
        background is present in every image; a class of the image of which no point is in the crop counts neither as
        present nor as absent, because the crop may have cut it off.
    """
    parts = [(_at_points(one, clue), _at_peaks(one, clue)) for one, clue in zip(logits, clues, strict=True)]
    return {
        name: torch.stack(values).mean()
        for name, values in zip(("point", "image"), zip(*parts, strict=True), strict=True)
    }


def _at_points(logits: torch.Tensor, clue: Clues) -> torch.Tensor:
    if not len(clue.points):
        return logits.sum() * 0
    height, width = logits.shape[-2:]
    x, y = clue.points.long().unbind(-1)
    here = logits[:, y.clamp(0, height - 1), x.clamp(0, width - 1)]  # [classes + 1, k]
    return torch.nn.functional.cross_entropy(here.T, clue.point_labels)


def _at_peaks(logits: torch.Tensor, clue: Clues) -> torch.Tensor:
    classes = torch.arange(len(logits), device=logits.device)
    present = torch.isin(classes, clue.point_labels) | (classes == 0)
    absent = ~present & ~torch.isin(classes, clue.image_labels)
    flat = logits.flatten(1)  # [classes + 1, pixels]
    peaks = flat.detach().log_softmax(dim=0).argmax(dim=1)
    at_peaks = flat[:, peaks].T  # [classes + 1 peaks, classes + 1]
    total = at_peaks.logsumexp(dim=1)
    own = torch.eye(len(classes), dtype=torch.bool, device=logits.device)
    others = at_peaks.masked_fill(own, -torch.inf).logsumexp(dim=1)  # log(1 - p) without cancellation
    loss = -(at_peaks.diagonal() - total)[present].mean()
    return loss - (others - total)[absent].mean() if absent.any() else loss
