"""Images with labels and points, for training and for evaluation."""

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset, get_worker_info

from luab.data.images.crops import CropFlip, Point, colour_augmentation, evaluation_view, scaled_crop, to_uint8
from luab.data.images.decoding import cut_pixels, decode_rows, plain_frame
from luab.data.images.pack import Pack
from luab.data.manifests.manifest import read_manifest
from luab.data.manifests.testsets import TestSet
from luab.data.supervisions.imagenet import read_targets
from luab.errors import DataError
from luab.study.config import Decoding, Recipe

Sample = tuple[torch.Tensor, int, torch.Tensor, float]


class ImageNetAB(Dataset[Sample]):
    """ImageNet training images with the points of one supervision.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/imagenet_train.parquet, or its rows.
        targets: data/targets/imagenet/<supervision>.parquet; None for no points.
        recipe: Crop, interpolation and colour augmentation; None for the official loader's.
        seed: Augmentation of image i in epoch e depends on (seed, e, i) alone: not on the number of
            workers, the batch size or what was drawn before.
        decoding: "exact" reads with Pillow, as the official loader does; "fast" gives the same crop, flip and point,
            and pixels that seldom differ by more than 1 of 255 (`luab.data.images.decoding`).
        pack: Where the images lie packed, in the manifest's order; None for single files. Crops are drawn for the
            images' own sizes, so that a pack changes neither crop nor flip nor point.

    An item is (uint8 [3, side, side], label 0..999, point float32 [2] in crop fractions x, y, weight):
    weight is 1 where the point survived the crop, else 0 with the point at (-1, -1), as in the
    official loader (naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb).

    Raises:
        DataError: An image is missing or damaged; it is named with its row in the manifest.
    """

    def __init__(
        self,
        root: Path | str,
        manifest: Path | str | pd.DataFrame,
        targets: Path | str | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        decoding: Decoding = "exact",
        pack: Pack | None = None,
    ) -> None:
        rows = manifest if isinstance(manifest, pd.DataFrame) else read_manifest(Path(manifest))
        self.root = Path(root)
        # One buffer of bytes: every Python string that a loader process looks at would cost it a page of memory.
        self.paths = pa.array(rows["path"], pa.large_string())
        self.labels = np.array([labels[0] for labels in rows["labels"]], dtype=np.int64)
        self.points = points_of(rows["image_id"].to_numpy(), None if targets is None else Path(targets))
        self.seed = seed
        self.epoch = 0
        self.decoding = decoding
        self.pack = pack
        if recipe is None:
            self.crop, self.colour = CropFlip(), None
        else:
            self.crop = CropFlip(recipe.input_px, recipe.crop_scale, recipe.interpolation)
            self.colour = colour_augmentation(recipe.input_px, recipe.auto_augment, recipe.color_jitter)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def taught_points(self) -> int:
        """Images that have a point."""
        return int(np.isfinite(self.points[:, 0]).sum())

    def __getitem__(self, i: int) -> Sample:
        known = not np.isnan(self.points[i, 0])
        point = (float(self.points[i, 0]), float(self.points[i, 1])) if known else None
        view = self._fast_view(i, point) if self.decoding == "fast" else None
        pixels, moved = self._exact_view(i, point) if view is None else view
        target = torch.tensor(moved if moved is not None else (-1.0, -1.0), dtype=torch.float32)
        return pixels, int(self.labels[i]), target, float(moved is not None)

    def _exact_view(self, i: int, point: Point | None) -> tuple[torch.Tensor, Point | None]:
        file, where = self._named(i)
        image = open_image(file, where, None if self.pack is None else self.pack.read(i))
        with own_randomness(self.seed, self.epoch, i, self.colour is not None):
            drawn_wh = self._drawn_wh(i, image.size)
            crop, flip, moved = self.crop.draw(drawn_wh, point)
            image = self.crop.cut(image, scaled_crop(crop, drawn_wh, image.size), flip)
            if self.colour is not None:
                image = self.colour(image)
        return to_uint8(image), moved

    def _fast_view(self, i: int, point: Point | None) -> tuple[torch.Tensor, Point | None] | None:
        data = self._bytes(i) if self.pack is None else self.pack.read(i)
        if (frame := plain_frame(data)) is None:
            return None
        with own_randomness(self.seed, self.epoch, i, self.colour is not None):
            drawn_wh = self._drawn_wh(i, frame.size_wh)
            drawn, flip, moved = self.crop.draw(drawn_wh, point)
            crop = scaled_crop(drawn, drawn_wh, frame.size_wh)
            pixels = decode_rows(data, frame, crop[0] + crop[2])
            if pixels is None:
                return None
            view = cut_pixels(pixels, crop, self.crop.input_px, self.crop.interpolation, flip)
            if self.colour is not None:
                view = np.asarray(self.colour(Image.fromarray(view)))
        return to_uint8(view), moved

    def _bytes(self, i: int) -> bytes:
        try:  # names and paths for a message are made where there is one: 15 us
            with open(os.path.join(self.root, self.paths[i].as_py()), "rb", buffering=0) as file:
                return file.readall()
        except OSError:
            with readable(*self._named(i)):
                raise

    def _named(self, i: int) -> tuple[Path, str]:
        return self.root / self.paths[i].as_py(), f"row {i} of the training manifest"

    def _drawn_wh(self, i: int, size_wh: tuple[int, int]) -> tuple[int, int]:
        return size_wh if self.pack is None else self.pack.size_wh(i)


class EvaluationSet(Dataset[tuple[torch.Tensor, int]]):
    """The images of one test set as the network sees them, with their row number."""

    def __init__(self, root_of: dict[str, Path], rows: pd.DataFrame, test_set: TestSet, recipe: Recipe) -> None:
        self.files = [root_of[m] / path for m, path in zip(rows["manifest"], rows["path"], strict=True)]
        self.test_set = test_set
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = open_image(self.files[i], f"row {i} of the test set {self.test_set.name}")
        view = evaluation_view(
            image, self.recipe.input_px, self.recipe.crop_pct, self.test_set.resize, self.test_set.border_px
        )
        return to_uint8(view), i


def points_of(image_ids: np.ndarray, targets: Path | None) -> np.ndarray:
    """float32 [n, 2] points in the order of the ids; NaN where an image has none."""
    points = np.full((len(image_ids), 2), np.nan, dtype=np.float32)
    if targets is not None:
        ids, xy = read_targets(targets)
        position = pd.Index(ids).get_indexer(pd.Index(image_ids))
        points[position >= 0] = xy[position[position >= 0]]
    return points


def open_image(file: Path, where: str, data: bytes | None = None) -> Image.Image:
    """Decodes an image to RGB; EXIF orientation is left alone, as torchvision's loaders do.

    Args:
        file: The image.
        where: Which row of which list names it, for the message.
        data: The file's bytes where they have been read already.

    Raises:
        DataError: The file is missing, empty or damaged.
    """
    with readable(file, where), Image.open(file if data is None else io.BytesIO(data)) as image:
        return image.convert("RGB")


@contextlib.contextmanager
def readable(file: Path, where: str) -> Iterator[None]:
    """Around reading an image: what goes wrong becomes a DataError that names the file and its row."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{file} ({where}): expected an image, found no file. Put it back, or remake "
            "the manifest from what is there."
        ) from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} ({where}): expected an image, found a damaged file ({error}). Fetch "
            "or copy this file again; every other image is untouched."
        ) from error


def check_images(root: Path, paths: np.ndarray, most: int = 20_000) -> None:
    """Fails before the first step when images are missing: looks at all, or at `most` evenly spread.

    Raises:
        DataError: Says how many of how many are missing and names the first.
    """
    step = max(1, len(paths) // most)
    looked = paths[::step]
    missing = [path for path in looked if not (root / path).is_file()]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of the {len(looked)} images looked at are missing, first {missing[0]}. "
            "The manifest was made from another tree: correct `paths` in the config, or remake the "
            "manifest."
        )


@contextlib.contextmanager
def own_randomness(seed: int, epoch: int, i: int, colours: bool) -> Iterator[None]:
    """Random numbers that depend on (seed, epoch, i) alone while the block runs.

    Crop and flip draw from Python's `random` alone; with `colours` also numpy's and torch's generators are set, since
    what colour augmentations draw from is their affair.
    """
    # In the training process itself the generators also feed dropout and mixup: give them back as they were.
    own_process = get_worker_info() is None
    kept = random.getstate() if own_process else None
    kept_too = (np.random.get_state(), torch.get_rng_state()) if own_process and colours else None
    words = np.random.SeedSequence((seed, epoch, i)).generate_state(3)
    random.seed(int(words[0]))
    if colours:
        np.random.seed(int(words[1]))
        # Not torch.manual_seed: it would reseed the GPU's generator too, which nobody restores.
        torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        if kept is not None:
            random.setstate(kept)
        if kept_too is not None:
            np.random.set_state(kept_too[0])
            torch.set_rng_state(kept_too[1])
