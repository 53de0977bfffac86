"""Images with boxes, masks or points: the part that all data sets for dense tasks share.

An item is a pair (image, target). The image is a `tv_tensors.Image`, uint8 [3, height, width]; the target is a dict:

============  ============================================================================================
task          content of the target
============  ============================================================================================
detection     boxes: `tv_tensors.BoundingBoxes`, float32 [n, 4], x0 y0 x1 y1 in pixels, the end excluded;
              labels: int64 [n], from 1; iscrowd, difficult: bool [n]; area: float32 [n], of the object's
              mask or box in square pixels of the original image
segmentation  mask: `tv_tensors.Mask`, int64 [height, width], 0 = background, 255 = ignored
points        points: `tv_tensors.KeyPoints`, float32 [k, 2], x y in pixels, strictly inside the image, so
              that rounding down gives the pixel; point_labels: int64 [k], from 1; image_labels: int64 [m],
              the classes of the whole image, ascending
============  ============================================================================================

and image_id, a text, for all tasks. After a crop, only the classes in point_labels are surely visible, while a class
that is not in image_labels is surely absent.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from luab.data.images.image_files import open_image
from luab.errors import DataError

Target = dict[str, Any]
Item = tuple[tv_tensors.Image, Target]
Size = tuple[int, int]
"""Width and height in pixels."""
Transforms = Callable[[tv_tensors.Image, Target], Item]

IGNORED = 255
"""Value of pixels in a mask that count neither in training nor in scores."""

OBJECT = np.dtype(
    [("xyxy", np.float64, 4), ("label", np.int16), ("crowd", np.bool_), ("difficult", np.bool_), ("area", np.float64)]
)
"""An annotated object: box in pixels with the end excluded; class from 1; whether it is a crowd (COCO) or difficult
(VOC); area of its mask (COCO) or box (VOC) in square pixels."""

_EDGE_PX = 1e-3


class Images(NamedTuple):
    """The images of a data set in the order of their ids: folder, ids and paths below the folder."""

    root: Path
    image_ids: list[str]
    paths: list[str]


class DenseSet(Dataset[Item]):
    """Images of a data set with the targets of a task, which subclasses add in `target`.

    Args:
        images: The images.
        transforms: Called with image and target of each item; None for originals.
        seed: The random numbers that the transforms of image i in epoch e get depend on (seed, e, i) alone, not on the
            number of workers, the batch size or earlier reads.
    """

    def __init__(self, images: Images, transforms: Transforms | None = None, seed: int = 0) -> None:
        self.root, self.image_ids, self.paths = images
        self.transforms = transforms
        self.seed = seed
        self._epoch = torch.tensor(0)
        with contextlib.suppress(RuntimeError, OSError):  # without shared memory loader processes cannot work anyway
            self._epoch.share_memory_()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, i: int) -> Item:
        """Returns image and target, transformed.

        Raises:
            DataError: A file of the image is missing or damaged, or has another size than its annotation says.
        """
        picture = self.picture(i)
        target = self.target(i, picture.size)
        for name, part in target.items():
            size_hw = part.shape if name == "mask" else getattr(part, "canvas_size", None)
            if size_hw is not None and tuple(size_hw) != (picture.height, picture.width):
                raise DataError(
                    f"{self.root / self.paths[i]}: expected {size_hw[1]} x {size_hw[0]} pixels, as its annotation says,"
                    f" found {picture.width} x {picture.height}. Unpack images and annotations again."
                )
        image = tv_tensors.Image(functional.pil_to_tensor(picture))
        if self.transforms is None:
            return image, target
        with _seeded((self.seed, self.epoch, i)):
            return self.transforms(image, target)

    def picture(self, i: int) -> Image.Image:
        """Decodes the original of image i to RGB; DataError if it is missing or damaged."""
        return open_image(self.root / self.paths[i], f"image {self.image_ids[i]}")

    def target(self, i: int, size_wh: Size | None = None) -> Target:
        """Returns the target of image i before any transform; `size_wh` is that of the image file if it is known."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """Number of the epoch, 0 at first; set it before each epoch. Running loader processes see it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        """Sets the number, in running loader processes too."""
        self._epoch.fill_(epoch)


class DetectionSet(DenseSet):
    """Images with boxes.

    Args:
        images, transforms, seed: As for `DenseSet`.
        sizes: [N, 2] width and height in pixels.
        objects: `OBJECT` of each image.
    """

    def __init__(
        self,
        images: Images,
        sizes: NDArray[np.int64],
        objects: Sequence[NDArray[np.void]],
        transforms: Transforms | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(images, transforms, seed)
        self.sizes = sizes
        self._ends = np.cumsum([len(one) for one in objects])
        # One array: each of 100,000 small ones would cost a page of memory in every loader process that reads it.
        self._objects = np.concatenate([np.empty(0, OBJECT), *objects])

    def objects(self, i: int) -> NDArray[np.void]:
        """Returns the `OBJECT` [n] of image i, as annotated."""
        return self._objects[self._ends[i - 1] if i else 0 : self._ends[i]]

    def target(self, i: int, size_wh: Size | None = None) -> Target:
        """Boxes of image i and what belongs to each."""
        objects = self.objects(i)
        width, height = self.sizes[i].tolist()
        boxes = torch.from_numpy(objects["xyxy"].astype(np.float32))
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": torch.from_numpy(objects["label"].astype(np.int64)),
            "iscrowd": torch.from_numpy(objects["crowd"].copy()),
            "difficult": torch.from_numpy(objects["difficult"].copy()),
            "area": torch.from_numpy(objects["area"].astype(np.float32)),
            "image_id": self.image_ids[i],
        }


class SegmentationSet(DenseSet):
    """Images with a class for each pixel.

    Args:
        images, transforms, seed: As for `DenseSet`.
        mask_of: Returns the mask of an image by its place in the set: uint8 [height, width].
    """

    def __init__(
        self,
        images: Images,
        mask_of: Callable[[int], NDArray[np.uint8]],
        transforms: Transforms | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(images, transforms, seed)
        self.mask_of = mask_of

    def target(self, i: int, size_wh: Size | None = None) -> Target:
        """The mask of image i."""
        mask = torch.from_numpy(self.mask_of(i).astype(np.int64))
        return {"mask": tv_tensors.Mask(mask), "image_id": self.image_ids[i]}


class Pointed(NamedTuple):
    """Supervision of an image by points.

    labels: int [k] class of each point, from 1. xy: float64 [k, 2] fractions of the image. image_labels: int [m]
    classes of the image, from 1.
    """

    labels: NDArray[np.int64]
    xy: NDArray[np.float64]
    image_labels: NDArray[np.int64]


class PointSet(DenseSet):
    """Images with a point for some of their classes, and the classes of the whole image.

    Args:
        images, transforms, seed: As for `DenseSet`.
        pointed: Points of each image.
    """

    def __init__(
        self, images: Images, pointed: Sequence[Pointed], transforms: Transforms | None = None, seed: int = 0
    ) -> None:
        super().__init__(images, transforms, seed)
        self.pointed = pointed

    def target(self, i: int, size_wh: Size | None = None) -> Target:
        """The points of image i in pixels."""
        size_wh = size_wh or self.picture(i).size
        labels, xy, image_labels = self.pointed[i]
        pixels = np.clip(xy * size_wh, _EDGE_PX, np.subtract(size_wh, _EDGE_PX)).astype(np.float32)
        points = tv_tensors.KeyPoints(torch.from_numpy(pixels.reshape(-1, 2)), canvas_size=size_wh[::-1])
        return {
            "points": points,
            "point_labels": torch.from_numpy(labels.astype(np.int64)),
            "image_labels": torch.from_numpy(image_labels.astype(np.int64)),
            "image_id": self.image_ids[i],
        }


@contextlib.contextmanager
def _seeded(draw: tuple[int, ...]) -> Iterator[None]:
    """Makes torch's random numbers depend on `draw` alone inside the block, and restores them afterwards."""
    before = torch.get_rng_state()
    # Not torch.manual_seed: it would also reseed the GPU's generator, which is not restored.
    torch.default_generator.manual_seed(int(np.random.SeedSequence(draw).generate_state(1)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(before)
