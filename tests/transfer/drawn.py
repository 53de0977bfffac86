"""Pictures with rectangles of three colours on noise, as detection, segmentation and points; for the tests here."""

from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

SIDE = 64
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))
BOXES = {
    "p0": [(1, (6, 8, 30, 28)), (2, (36, 34, 60, 58))],
    "p1": [(3, (10, 12, 54, 40))],
    "p2": [(2, (4, 20, 24, 60)), (3, (32, 4, 60, 32))],
    "p3": [(1, (20, 16, 44, 56))],
}
"""Class and x0, y0, x1, y1 in pixels of each object of each picture."""


class Drawn(Dataset[Any]):
    """The pictures, several times over if a training needs more; `shift_px` moves each by a number from its epoch."""

    def __init__(self, task: str, times: int = 1, shift_px: int = 0) -> None:
        self.task, self.shift_px, self.epoch = task, shift_px, 0
        self.image_ids = list(BOXES) * times

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        generator = torch.Generator().manual_seed(i % len(BOXES))
        image = torch.randint(90, 130, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        mask = torch.zeros(SIDE, SIDE, dtype=torch.int64)
        objects = BOXES[self.image_ids[i]]
        for label, (x0, y0, x1, y1) in objects:
            image[:, y0:y1, x0:x1] = torch.tensor(COLOURS[label - 1], dtype=torch.uint8)[:, None, None]
            mask[y0:y1, x0:x1] = label
        boxes = torch.tensor([box for _, box in objects], dtype=torch.float32)
        labels = torch.tensor([label for label, _ in objects])
        if self.shift_px:  # stands for an augmentation that depends on the epoch and the item
            image = image.roll((self.epoch * 7 + i) % self.shift_px, dims=0)
        nothing = torch.zeros(len(labels), dtype=torch.bool)
        targets: dict[str, dict[str, Any]] = {
            "detection": {
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE)),  # type: ignore[call-overload]
                "labels": labels,
                "iscrowd": nothing,
                "difficult": nothing,
            },
            "segmentation": {"mask": tv_tensors.Mask(mask)},
            "points": {
                "points": (boxes[:, :2] + boxes[:, 2:]) / 2,
                "point_labels": labels,
                "image_labels": labels.unique(),
            },
        }
        return tv_tensors.Image(image), targets[self.task] | {"image_id": self.image_ids[i]}
