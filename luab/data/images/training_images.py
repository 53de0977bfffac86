"""Reading, cropping, flipping and augmenting training images: the part that all training sets share."""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from luab.data.images.augmentations import Changes, Moves, changes_of
from luab.data.images.crops import Crop, CropFlip, Point, point_in_crop, scaled_crop, to_uint8
from luab.data.images.decoding import cut_pixels, decode_rows, plain_frame
from luab.data.images.image_files import open_image, readable
from luab.data.images.pack import Pack
from luab.data.manifests.manifest import read_manifest
from luab.study.config import Decoding, Recipe
from luab.study.recipes import Preprocessing

Augmentation = tuple[CropFlip, Changes | None]
Index = int | tuple[int, int]
"""An image, or with repeated augmentation (image, number of the view)."""


class View(NamedTuple):
    """An augmented image.

    pixels: uint8 [3, side, side]. moves: what happened to the crop after it was cut and flipped. size_wh: size in
    pixels of the image that the crop was drawn for. crop: top, left, height, width in pixels of that image. flip:
    whether the crop is mirrored left to right.
    """

    pixels: torch.Tensor
    moves: Moves
    size_wh: tuple[int, int]
    crop: Crop
    flip: bool

    def place(self, point_xy: Point) -> Point | None:
        """Moves a point, fractions of the whole image, to the view; None if it is outside or erased."""
        point = point_in_crop(point_xy, self.size_wh, self.crop, self.flip)
        if point is None or self.moves == Moves(self.moves.side):
            return point
        moved, inside = self.moves.points(np.array([point]))
        x, y = moved[0].tolist()
        return (x, y) if inside[0] and not self.moves.covered(moved)[0] else None

    def places(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Moves points [n, 2] like `place`; (-1, -1) for those outside, erased or NaN."""
        top, left, height, width = self.crop
        xy = (np.round(points_xy.astype(np.float64) * self.size_wh, 3) - (left, top)) / (width, height)
        inside: NDArray[np.bool_] = np.asarray(((xy >= 0) & (xy <= 1)).all(axis=1))
        xy = np.where(inside[:, None], xy, 0)
        if self.flip:
            xy[:, 0] = 1 - xy[:, 0]
        xy, stayed = self.moves.points(xy)
        inside &= stayed & ~self.moves.covered(xy)
        return np.where(inside[:, None], xy, -1).astype(np.float32)


class TrainingImages(Dataset[dict[str, Any]]):
    """Random views of the images in a manifest; subclasses add labels and points, in `targets` and `taught_points`.

    An item is a dict: the pixels of a view as `images`, and the targets.

    Args:
        root: Folder that the manifest's paths start from.
        rows: Rows of the manifest.
        augmentation: Crop, and changes of the crop.
        seed: The view of image i in epoch e depends on (seed, e, i) alone, not on the number of workers, the batch size
            or earlier draws, once `epoch` is set; with repeated augmentation also on the view's number.
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
        self.crop, self.changes = augmentation
        self.seed = seed
        self._epoch = torch.tensor(-1)
        with contextlib.suppress(RuntimeError, OSError):  # without shared memory loader processes cannot work anyway
            self._epoch.share_memory_()
        self._reads = np.zeros(len(rows), np.int32)  # of each image in this process, without an epoch
        self.decoding = decoding
        self.pack = pack

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index) -> dict[str, Any]:
        view = self.view(index)
        return {"images": view.pixels, **self.targets(index[0] if isinstance(index, tuple) else index, view)}

    def targets(self, i: int, view: View) -> dict[str, Any]:
        """Labels, points and weights of a view of image i, by name."""
        raise NotImplementedError

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

    def prepare_for(self, recipe: Recipe, preprocessing: Preprocessing) -> None:
        """Resizes, fills empty corners and erases as certain weights need it."""
        self.crop.interpolation = preprocessing.interpolation
        recipe = recipe.model_copy(update={"interpolation": preprocessing.interpolation})
        self.changes = changes_of(recipe, preprocessing)

    def view(self, index: Index) -> View:
        """Returns the view of an image in the current epoch, or a fresh one.

        Raises:
            DataError: The image is missing or damaged; the message names the file and its row in the manifest.
        """
        i, number = index if isinstance(index, tuple) else (index, 0)
        draw = self._draw_number(i), i, *([number] if number else [])
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

    def _exact_view(self, i: int, draw: tuple[int, ...]) -> View:
        image = open_image(*self._file_and_row(i), None if self.pack is None else self.pack.read(i))
        with self._seeded(draw):
            size_wh, crop, flip = self._draw(i, image.size)
            cut = self.crop.cut(image, scaled_crop(crop, size_wh, image.size), flip)
            return View(*self._changed(cut), size_wh, crop, flip)

    def _fast_view(self, i: int, draw: tuple[int, ...]) -> View | None:
        """Returns None if the fast decoder cannot read the file."""
        data = self._content(i) if self.pack is None else self.pack.read(i)
        if (frame := plain_frame(data)) is None:
            return None
        with self._seeded(draw):
            size_wh, crop, flip = self._draw(i, frame.size_wh)
            scaled = scaled_crop(crop, size_wh, frame.size_wh)
            pixels = decode_rows(data, frame, scaled[0] + scaled[2])
            if pixels is None:
                return None
            cut = cut_pixels(pixels, scaled, self.crop.input_px, self.crop.interpolation, flip)
            return View(*self._changed(cut), size_wh, crop, flip)

    def _changed(self, cut: Image.Image | NDArray[np.uint8]) -> tuple[torch.Tensor, Moves]:
        """Applies the changes to a crop, and converts it to a tensor."""
        if self.changes is None:
            return to_uint8(cut), Moves(self.crop.input_px)
        changed, moves = self.changes(cut if isinstance(cut, Image.Image) else Image.fromarray(cut))
        pixels = to_uint8(changed)
        return pixels, self.changes.erase(pixels, moves)

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
    def _seeded(self, draw: tuple[int, ...]) -> Iterator[None]:
        """Makes random numbers depend on the seed and the draw alone inside the block.

        Crop and flip use Python's `random`; changes may also use the generators of NumPy and torch.

        Args:
            draw: Epoch if there is one, image, number of the view if it is not the first.
        """
        changes = self.changes is not None
        # In the training process the same generators feed dropout and mixup, so restore them afterwards.
        in_training_process = get_worker_info() is None
        python_state = random.getstate() if in_training_process else None
        other_states = (np.random.get_state(), torch.get_rng_state()) if in_training_process and changes else None
        words = np.random.SeedSequence((self.seed, *draw)).generate_state(3)
        random.seed(int(words[0]))
        if changes:
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
    """Returns the crop and the changes of a recipe, or those of the official loader if there is no recipe."""
    if recipe is None:
        return official
    crop = CropFlip(recipe.training_px, recipe.crop_scale, recipe.interpolation)
    return crop, changes_of(recipe)
