"""Images of a test set, resized and cropped for the network."""

from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset

from luab.data.images.crops import RESAMPLING, to_uint8
from luab.data.images.image_files import open_image
from luab.data.manifests.testsets import TestSet
from luab.study.config import Recipe


class EvaluationSet(Dataset[tuple[torch.Tensor, int]]):
    """The images of a test set; an item is (uint8 [3, input_px, input_px], row number)."""

    def __init__(
        self,
        root_of: dict[str, Path],
        rows: pd.DataFrame,
        test_set: TestSet,
        recipe: Recipe,
        interpolation: str = "bilinear",
    ) -> None:
        self.files = [root_of[m] / path for m, path in zip(rows["manifest"], rows["path"], strict=True)]
        self.test_set = test_set
        self.recipe = recipe
        self.interpolation = interpolation

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = open_image(self.files[i], f"row {i} of the test set {self.test_set.name}")
        view = evaluation_view(
            image, self.recipe.input_px, self.recipe.crop_pct, self.test_set.resize, self.test_set.border_px,
            self.interpolation,
        )  # fmt: skip
        return to_uint8(view), i


def evaluation_view(
    image: Image.Image,
    input_px: int,
    crop_pct: float,
    resize: str,
    border_px: int = 0,
    interpolation: str = "bilinear",
) -> Image.Image:
    """Resizes and crops an image as the network sees it in evaluation.

    Args:
        image: RGB, any size.
        input_px: Side of the result in pixels.
        crop_pct: Side of the centre crop divided by the shorter side of the resized image.
        resize: "resize_crop" (resize the shorter side, then crop the centre), "squash" (resize both sides; the aspect
            ratio changes), or "identity" (the file is already cropped; resized only if its size differs).
        border_px: Pixels cut from every side first (the frame of ObjectNet images).
        interpolation: "bilinear", or "bicubic" for models whose weights need it.
    """
    if border_px:
        width, height = image.size
        image = image.crop((border_px, border_px, width - border_px, height - border_px))
    if resize == "identity" and image.size == (input_px, input_px):
        return image
    if resize in ("squash", "identity"):
        return image.resize((input_px, input_px), RESAMPLING[interpolation])
    width, height = image.size
    side, shorter = int(input_px / crop_pct), min(width, height)
    width, height = side * width // shorter, side * height // shorter  # rounded down, as torchvision does
    image = image.resize((width, height), RESAMPLING[interpolation])
    left, top = round((width - input_px) / 2), round((height - input_px) / 2)
    return image.crop((left, top, left + input_px, top + input_px))
