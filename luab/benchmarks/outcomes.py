"""What a benchmark's headline is made of, image by image: the material of intervals and paired tests."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from luab.metrics.accuracy import Bools

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Outcomes(NamedTuple):
    """A headline that is a sum over images: offset + values.sum().

    Images are drawn anew within their stratum, so that every draw keeps the numbers that a value was divided by.

    Attributes:
        ids: Images, ascending as text; one that stands in several groups of a test set (ImageNet-C) is one image.
        strata: [images] which stratum each is in, 0, 1, ...
        values: [images] what each adds.
        offset: What is there without any image.
    """

    ids: list[str]
    strata: Places
    values: Floats
    offset: float = 0.0

    @property
    def headline(self) -> float:
        """The benchmark's number, but for rounding."""
        return self.offset + float(self.values.sum())

    @property
    def is_share(self) -> bool:
        """Whether it is a plain share of right images: each adds 0 or 1/n."""
        right = np.isclose(self.values * len(self.ids), 1.0)
        return bool(self.offset == 0 and not self.strata.any() and (right | (self.values == 0)).all())


class Ranking(NamedTuple):
    """ImageNet-O: unknown images (`is_out`) to be found among known ones by their low confidence."""

    ids: list[str]
    is_out: Bools
    confidence: Floats


class Rankings(NamedTuple):
    """Images with several labels, ranked for each class: the mean over classes of the average precision.

    Attributes:
        ids: Images, ascending as text.
        positive: [images, classes].
        scores: [images, classes].
        kept: [images, classes] which images count for a class.
    """

    ids: list[str]
    positive: Bools
    scores: Floats
    kept: Bools


def rankings(ids: pa.ChunkedArray, positive: Bools, scores: npt.NDArray[np.float32], kept: Bools) -> Rankings:
    """Images in order of their ids; classes without a positive that counts are left out."""
    order, there = pc.sort_indices(ids).to_numpy(), (positive & kept).any(axis=0)
    parts = (np.asarray(part)[order][:, there] for part in (positive, scores.astype(np.float64), kept))
    return Rankings(_texts(ids.take(order)), *parts)


def share(ids: pa.ChunkedArray, right: Bools | Floats) -> Outcomes:
    """The plain mean of what each image is worth: a share of right images where that is 0 or 1."""
    order = pc.sort_indices(ids).to_numpy()
    values = np.asarray(right, dtype=np.float64)[order] / len(order)
    return Outcomes(_texts(ids.take(order)), np.zeros(len(order), dtype=np.int64), values)


def ranking(ids: pa.ChunkedArray, is_out: Bools, confidence: npt.NDArray[np.float32]) -> Ranking:
    """Images in order of their ids."""
    order = pc.sort_indices(ids).to_numpy()
    return Ranking(_texts(ids.take(order)), is_out[order], confidence[order].astype(np.float64))


def grouped(table: pa.Table, right: Bools, weights: Mapping[str, float], offset: float = 0.0) -> Outcomes:
    """offset + the sum over groups of a weight times the group's share of right images.

    An image is what its id names behind "<group>/": the 75 versions of one ImageNet-C image, and the variants of one
    ImageNet-9 image where their names agree, are drawn together, since what a model gets right in one it tends
    to get right in the others. Images that stand in the same groups make up a stratum.

    Args:
        table: image_id and group.
        right: [rows].
        weights: Group -> weight; the other groups' rows are left out.
        offset: See `Outcomes`.
    """
    parts = [_of_group(table, right, name, weight) for name, weight in weights.items()]
    encoded = pa.chunked_array([part for part, _ in parts]).dictionary_encode().combine_chunks()
    image = encoded.indices.to_numpy().astype(np.int64)
    values = np.bincount(image, weights=np.concatenate([worth for _, worth in parts]))
    group = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    strata = _strata(image, group, len(parts))[order]
    return Outcomes(
        _texts(encoded.dictionary.take(order)), np.unique(strata, return_inverse=True)[1], values[order], offset
    )


def _of_group(table: pa.Table, right: Bools, group: str, weight: float) -> tuple[pa.Array, Floats]:
    here = pc.equal(table["group"], group)
    names = table["image_id"].filter(here).combine_chunks()
    prefix = f"{group}/"
    if pc.all(pc.starts_with(names, prefix)).as_py():
        names = pc.utf8_slice_codeunits(names, start=len(prefix))
    worth = right[here.to_numpy()] * (weight / len(names)) if len(names) else np.zeros(0)
    return names, np.asarray(worth, dtype=np.float64)


def _strata(image: Places, group: Places, groups: int) -> Places:
    """A number per image that two images share when they stand in the same groups."""
    times = np.bincount(image)
    if times.max() == 1:  # each image in one group (SI-Score)
        return np.asarray(group[np.argsort(image)])
    strata = np.zeros(len(times), dtype=np.int64)
    if times.min() == groups:  # all images in all groups
        return strata
    for one in range(groups):
        inside = np.bincount(image[group == one], minlength=len(times))
        strata = np.unique(2 * strata + inside, return_inverse=True)[1]
    return strata


def _texts(ids: pa.Array | pa.ChunkedArray) -> list[str]:
    return [str(image_id) for image_id in ids.to_pylist()]
