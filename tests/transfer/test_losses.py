"""What counts in the losses of detection and segmentation, worked out by hand."""

import math

import pytest
import torch
from torch import nn

from luab.transfer.losses import DetectionLoss, SegmentationLoss


class Recorder(nn.Module):
    """Keeps the targets of a detector."""

    def forward(self, images, targets):
        self.targets = targets
        return {"loss_classifier": torch.tensor(1.0), "loss_box_reg": torch.tensor(2.0)}


def test_crowds_difficult_objects_and_empty_boxes_do_not_count():
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 3, 7]])
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1, 2, 3, 4]),
        "iscrowd": torch.tensor([False, True, False, False]),
        "difficult": torch.tensor([False, False, True, False]),
    }
    recorder = Recorder()
    parts = DetectionLoss()(recorder, [torch.zeros(3, 8, 8)], [target])
    assert parts["loss"] == 3
    assert recorder.targets[0]["boxes"].tolist() == [[0, 0, 4, 4]] and recorder.targets[0]["labels"].tolist() == [1]


class Heads(nn.Module):
    """Returns logits of two pixels from both heads."""

    def forward(self, images):
        out = torch.tensor([[[0.5, 0.1]], [[0.5, 0.9]]]).log()[None]
        return {"out": out, "aux": out.flip(1)}


def test_ignored_pixels_do_not_count_and_the_second_head_has_its_weight():
    parts = SegmentationLoss(0.5)(Heads(), [torch.zeros(3, 1, 2)], [{"mask": torch.tensor([[255, 1]])}])
    assert parts["out"].item() == pytest.approx(-math.log(0.9)) and parts["aux"].item() == pytest.approx(-math.log(0.1))
    assert parts["loss"].item() == pytest.approx(-math.log(0.9) - 0.5 * math.log(0.1))
    ignored = SegmentationLoss(0.0)(Heads(), [torch.zeros(3, 1, 2)], [{"mask": torch.tensor([[255, 255]])}])
    assert ignored["out"].item() == 0
