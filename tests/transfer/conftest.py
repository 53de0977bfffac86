"""Four drawn pictures as a dense data set, and fine-tunings of small networks on them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from luab.data.dense.dense_set import DenseSet, Images, Target, Transforms
from luab.study.recipes import Preprocessing
from luab.study.transfer_recipes import TransferRecipe
from luab.transfer.setup import Setup

SIDE = 64
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))
OBJECTS = {
    "p0": [(1, (8, 8, 32, 24)), (2, (32, 32, 64, 56))],
    "p1": [(3, (8, 16, 56, 40))],
    "p2": [(2, (0, 16, 24, 64)), (3, (32, 8, 64, 32))],
    "p3": [(1, (16, 16, 48, 56))],
}
"""Class and x0, y0, x1, y1 in pixels of each object of each picture."""


class Drawn(DenseSet):
    """Rectangles of three colours on noise.

    Args:
        task: "detection", "segmentation" or "points".
        times: How often each picture is in the set.
        stop_at: Number of an item, in the order of reading, before which this process receives SIGTERM.
    """

    def __init__(
        self, task: str, times: int = 1, transforms: Transforms | None = None, stop_at: int | None = None
    ) -> None:
        ids = [f"{name}{'' if times == 1 else f'_{k}'}" for k in range(times) for name in OBJECTS]
        super().__init__(Images(Path(), ids, ids), transforms)
        self.task, self.stop_at, self.read = task, stop_at, 0

    def picture(self, i: int) -> Image.Image:
        """Draws picture i."""
        if self.read == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.read += 1
        pixels = np.random.default_rng(i % len(OBJECTS)).integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
        for label, (x0, y0, x1, y1) in self.objects(i):
            pixels[y0:y1, x0:x1] = COLOURS[label - 1]
        return Image.fromarray(pixels)

    def objects(self, i: int) -> list[tuple[int, tuple[int, int, int, int]]]:
        """Returns class and box of each object of picture i."""
        return OBJECTS[self.image_ids[i].partition("_")[0]]

    def target(self, i: int, size_wh: tuple[int, int] | None = None) -> Target:
        """Returns the target of picture i."""
        labels = torch.tensor([label for label, _ in self.objects(i)])
        boxes = torch.tensor([box for _, box in self.objects(i)], dtype=torch.float32)
        if self.task == "segmentation":
            mask = torch.zeros(SIDE, SIDE, dtype=torch.int64)
            for label, (x0, y0, x1, y1) in self.objects(i):
                mask[y0:y1, x0:x1] = label
            return {"mask": tv_tensors.Mask(mask), "image_id": self.image_ids[i]}
        if self.task == "points":
            points = tv_tensors.KeyPoints((boxes[:, :2] + boxes[:, 2:]) / 2, canvas_size=(SIDE, SIDE))
            more = {"points": points, "point_labels": labels, "image_labels": labels.unique()}
            return more | {"image_id": self.image_ids[i]}
        none = torch.zeros(len(labels), dtype=torch.bool)
        around = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE))  # type: ignore[call-overload]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        more = {"boxes": around, "labels": labels, "area": area, "iscrowd": none, "difficult": none}
        return more | {"image_id": self.image_ids[i]}


CNN: tuple[str, dict[str, Any]] = ("test_resnet", {"channels": [16, 24, 32, 48]})
VIT: tuple[str, dict[str, Any]] = ("test_vit", {"img_size": SIDE, "patch_size": 8, "depth": 2})


@pytest.fixture
def recipe() -> Callable[..., TransferRecipe]:
    """Builds a recipe of seconds; arguments replace its keys."""
    keys: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 4,
        "shorter_px": SIDE,
        "longest_px": SIDE,
        "flip": 0.0,
        "optimizer": "adamw",
        "lr": 0.003,
        "weight_decay": 0.0,
        "head_channels": 16,
        "box_head_channels": 64,
        "anchors_px": (16, 32, 64),
        "rpn_proposals": 50,
        "rpn_samples": 64,
        "box_samples": 64,
        "output_stride": 8,
    }
    return lambda **given: TransferRecipe(**keys | given)


@pytest.fixture
def setup(tmp_path: Path, recipe: Callable[..., TransferRecipe]) -> Callable[..., Setup]:
    """Builds a fine-tuning of a random backbone, a CNN or a ViT; results go to a folder of the given name."""

    def build(task: Any, name: str = "tuned", vit: bool = False, network: Any = "fcn", **keys: Any) -> Setup:
        backbone, arguments = VIT if vit else CNN
        return Setup(
            name="drawn/seed0",
            folder=tmp_path / name,
            identity={"transfer": "drawn", "seed": 0},
            task=task,
            network="faster_rcnn" if task == "detection" else network,
            backbone=backbone,
            arguments=arguments,
            preprocessing=Preprocessing(),
            classes=3,
            recipe=recipe(**({} if task == "detection" else {"crop_px": SIDE}) | keys),
            seed=0,
        )

    return build


@pytest.fixture
def drawn() -> type[Drawn]:
    """The data set."""
    return Drawn
