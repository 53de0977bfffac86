"""Reading, cropping, flipping and colouring training images: the part that all training sets share."""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from luab.data.images.crops import ColourChange, Crop, CropFlip, colour_augmentation, scaled_crop, to_uint8
from luab.data.images.decoding import cut_pixels, decode_rows, plain_frame
from luab.data.images.image_files import open_image, readable
from luab.data.images.pack import Pack
from luab.data.manifests.manifest import read_manifest
from luab.study.config import Decoding, Recipe

T_co = TypeVar("T_co", covariant=True)
Augmentation = tuple[CropFlip, ColourChange | None]


class View(NamedTuple):
    """An augmented image.

    pixels: uint8 [3, side, side]. size_wh: size in pixels of the image that the crop was drawn for. crop: top, left,
    height, width in pixels of that image. flip: whether the crop is mirrored left to right.
    """

    pixels: torch.Tensor
    size_wh: tuple[int, int]
    crop: Crop
    flip: bool


class TrainingImages(Dataset[T_co]):
    """Random views of the images in a manifest; subclasses add labels and points, in `__getitem__` and `taught_points`.

    Args:
        root: Folder that the manifest's paths start from.
        rows: Rows of the manifest.
        augmentation: Crop and colour change.
        seed: The view of image i in epoch e depends on (seed, e, i) alone, not on the number of workers, the batch size
            or earlier draws, once `epoch` is set.
        decoding: "exact" decodes with Pillow, like the official loader; "fast" returns the same crop and flip, and
            pixels that seldom differ by more than 1 of 255 (`luab.data.images.decoding`).
        pack: The packed images, in the order of the manifest; None to read single files. Crops are drawn for the
            original sizes, so a pack changes neither crop nor flip.

    Attributes:
        epoch: Set a number before each epoch for views that depend on (seed, epoch, i) alone; loader processes that are
            running see it too (`persistent_workers`). By default it is None, and every read of an image has a fresh
            view: in loader processes it is drawn from torch's generator, which torch seeds in each of them, and in
            this process the n-th read is the view of epoch n - 1.
    """

    def __init__(
        self,
        root: Path | str,
        rows: pd.DataFrame,
        augmentation: Augmentation,
        seed: int,
        decoding: Decoding = "exact",
        pack: Pack | None = None,
    ) -> None:
        self.root = Path(root)
        # One Arrow buffer: with Python strings, every string that a loader process reads copies a page of memory.
        self.paths = pa.array(rows["path"], pa.large_string())
        self.crop, self.colour = augmentation
        self.seed = seed
        self._epoch = torch.tensor(-1)
        with contextlib.suppress(RuntimeError, OSError):  # without shared memory loader processes cannot work anyway
            self._epoch.share_memory_()
        self._reads = np.zeros(len(rows), np.int32)  # of each image in this process, without an epoch
        self.decoding = decoding
        self.pack = pack

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def taught_points(self) -> int:
        """Number of points of all images."""
        raise NotImplementedError

    @property
    def epoch(self) -> int | None:
        """Number of the epoch, 0 or more; None for a fresh view at every read."""
        epoch = int(self._epoch)
        return None if epoch < 0 else epoch

    @epoch.setter
    def epoch(self, epoch: int | None) -> None:
        """Sets the number, in running loader processes too."""
        self._epoch.fill_(-1 if epoch is None else epoch)

    def view(self, i: int) -> View:
        """Returns the view of image i in the current epoch, or a fresh one.

        Raises:
            DataError: The image is missing or damaged; the message names the file and its row in the manifest.
        """
        draw = self._draw_number(i)
        view = self._fast_view(i, draw) if self.decoding == "fast" else None
        return self._exact_view(i, draw) if view is None else view

    def _draw_number(self, i: int) -> int:
        """Returns the epoch or, without one, the number that stands for it in this read."""
        if (epoch := self.epoch) is not None:
            return epoch
        if get_worker_info() is not None:
            return int(torch.randint(2**63 - 1, ()))
        self._reads[i] += 1
        return int(self._reads[i]) - 1

    def _exact_view(self, i: int, draw: int) -> View:
        image = open_image(*self._file_and_row(i), None if self.pack is None else self.pack.read(i))
        with self._seeded(i, draw):
            size_wh, crop, flip = self._draw(i, image.size)
            cut = self.crop.cut(image, scaled_crop(crop, size_wh, image.size), flip)
            if self.colour is not None:
                cut = self.colour(cut)
        return View(to_uint8(cut), size_wh, crop, flip)

    def _fast_view(self, i: int, draw: int) -> View | None:
        """Returns None if the fast decoder cannot read the file."""
        data = self._content(i) if self.pack is None else self.pack.read(i)
        if (frame := plain_frame(data)) is None:
            return None
        with self._seeded(i, draw):
            size_wh, crop, flip = self._draw(i, frame.size_wh)
            scaled = scaled_crop(crop, size_wh, frame.size_wh)
            pixels = decode_rows(data, frame, scaled[0] + scaled[2])
            if pixels is None:
                return None
            cut = cut_pixels(pixels, scaled, self.crop.input_px, self.crop.interpolation, flip)
            if self.colour is not None:
                cut = np.asarray(self.colour(Image.fromarray(cut)))
        return View(to_uint8(cut), size_wh, crop, flip)

    def _draw(self, i: int, stored_wh: tuple[int, int]) -> tuple[tuple[int, int], Crop, bool]:
        size_wh = stored_wh if self.pack is None else self.pack.size_wh(i)
        return size_wh, *self.crop.draw(size_wh)

    def _content(self, i: int) -> bytes:
        try:  # build the path and row text for the error message only when needed: saves 15 us
            with open(os.path.join(self.root, self.paths[i].as_py()), "rb", buffering=0) as file:
                return file.readall()
        except OSError:
            with readable(*self._file_and_row(i)):
                raise

    def _file_and_row(self, i: int) -> tuple[Path, str]:
        return self.root / self.paths[i].as_py(), f"row {i} of the training manifest"

    @contextlib.contextmanager
    def _seeded(self, i: int, draw: int) -> Iterator[None]:
        """Makes random numbers depend on (seed, draw, i) alone inside the block; draw is the epoch if there is one.

        Crop and flip use Python's `random`; colour changes may also use the generators of NumPy and torch.
        """
        colours = self.colour is not None
        # In the training process the same generators feed dropout and mixup, so restore them afterwards.
        in_training_process = get_worker_info() is None
        python_state = random.getstate() if in_training_process else None
        other_states = (np.random.get_state(), torch.get_rng_state()) if in_training_process and colours else None
        words = np.random.SeedSequence((self.seed, draw, i)).generate_state(3)
        random.seed(int(words[0]))
        if colours:
            np.random.seed(int(words[1]))
            # Not torch.manual_seed: it would also reseed the GPU's generator, which is not restored.
            torch.default_generator.manual_seed(int(words[2]))
        try:
            yield
        finally:
            if python_state is not None:
                random.setstate(python_state)
            if other_states is not None:
                np.random.set_state(other_states[0])
                torch.set_rng_state(other_states[1])


def manifest_rows(manifest: Path | str | pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of a manifest, given as a file or as the rows themselves."""
    return manifest if isinstance(manifest, pd.DataFrame) else read_manifest(manifest)


def augmentation_of(recipe: Recipe | None, official: Augmentation) -> Augmentation:
    """Returns the crop and colour change of a recipe, or those of the official loader if there is no recipe."""
    if recipe is None:
        return official
    crop = CropFlip(recipe.input_px, recipe.crop_scale, recipe.interpolation)
    return crop, colour_augmentation(recipe.input_px, recipe.auto_augment, recipe.color_jitter)
