"""What each image contributes to a benchmark's headline; intervals and paired tests are computed from it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from luab.metrics.accuracy import Bools

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Outcomes(NamedTuple):
    """A headline that is a sum over images: offset + values.sum().

    Images are resampled within their stratum, so that every resample has the group sizes by which values were divided.

    Attributes:
        ids: Image ids in ascending text order; all versions of one image (ImageNet-C) are one image.
        strata: [images] stratum of each image, 0, 1, ...
        values: [images] contribution of each image.
        offset: Constant part of the headline.
    """

    ids: list[str]
    strata: Indices
    values: Floats
    offset: float = 0.0

    @property
    def headline(self) -> float:
        """The benchmark's headline, up to rounding."""
        return self.offset + float(self.values.sum())

    @property
    def is_share(self) -> bool:
        """Whether the headline is a plain share of correct images: each image contributes 0 or 1/n."""
        right = np.isclose(self.values * len(self.ids), 1.0)
        return bool(self.offset == 0 and not self.strata.any() and (right | (self.values == 0)).all())


class Rankings(NamedTuple):
    """Images that are ranked for each class; the headline is the mean over classes of the average precision.

    Attributes:
        ids: Image ids in ascending text order.
        strata: [images] stratum of each image, see `Outcomes`.
        positive: [images, classes].
        scores: [images, classes].
        counted: [images, classes] which images count for a class.
    """

    ids: list[str]
    strata: Indices
    positive: Bools
    scores: Floats
    counted: Bools


def rankings(ids: pa.ChunkedArray, positive: Bools, scores: npt.NDArray[np.float32], counted: Bools) -> Rankings:
    """Sorts the images by id and leaves out classes without a positive that counts; see `Rankings`."""
    order, present = pc.sort_indices(ids).to_numpy(), (positive & counted).any(axis=0)
    parts = (np.asarray(part)[order][:, present] for part in (positive, scores.astype(np.float64), counted))
    return Rankings(_texts(ids.take(order)), np.zeros(len(order), dtype=np.int64), *parts)


def ranking(ids: pa.ChunkedArray, is_out: Bools, confidence: npt.NDArray[np.float32]) -> Rankings:
    """ImageNet-O: one class, the unknown images, ranked by low confidence; both kinds of images keep their numbers."""
    images = rankings(ids, is_out[:, None], -confidence[:, None], np.ones((len(is_out), 1), dtype=bool))
    return images._replace(strata=images.positive[:, 0].astype(np.int64))


def share(ids: pa.ChunkedArray, right: Bools | Floats) -> Outcomes:
    """The mean of a value per image; a share of correct images if all values are 0 or 1."""
    return total(ids, np.asarray(right, dtype=np.float64) / len(ids))


def total(ids: pa.ChunkedArray, values: Floats) -> Outcomes:
    """The sum of a value per image."""
    order = pc.sort_indices(ids).to_numpy()
    return Outcomes(_texts(ids.take(order)), np.zeros(len(order), dtype=np.int64), values[order])


def grouped(table: pa.Table, right: Bools, weights: Mapping[str, float], offset: float = 0.0) -> Outcomes:
    """offset + the sum over groups of a weight times the group's share of correct images.

    Rows whose ids agree after "<group>/" are versions of one image and are resampled together: the 75 versions of an
    ImageNet-C image, or the variants of an ImageNet-9 image with equal file names. Images that occur in the same groups
    form a stratum. Rows of groups without a weight are ignored.
    """
    parts = [_of_group(table, right, name, weight) for name, weight in weights.items()]
    encoded = pa.chunked_array([part for part, _ in parts]).dictionary_encode().combine_chunks()
    image = encoded.indices.to_numpy().astype(np.int64)
    values = np.bincount(image, weights=np.concatenate([value for _, value in parts]))
    group = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    strata = _strata(image, group, len(parts))[order]
    return Outcomes(
        _texts(encoded.dictionary.take(order)), np.unique(strata, return_inverse=True)[1], values[order], offset
    )


def _of_group(table: pa.Table, right: Bools, group: str, weight: float) -> tuple[pa.Array, Floats]:
    in_group = pc.equal(table["group"], group)
    names = table["image_id"].filter(in_group).combine_chunks()
    prefix = f"{group}/"
    if pc.all(pc.starts_with(names, prefix)).as_py():
        names = pc.utf8_slice_codeunits(names, start=len(prefix))
    values = right[in_group.to_numpy()] * (weight / len(names)) if len(names) else np.zeros(0)
    return names, np.asarray(values, dtype=np.float64)


def _strata(image: Indices, group: Indices, groups: int) -> Indices:
    """[images] a number that is equal for images that occur in the same groups."""
    times = np.bincount(image)
    if times.max() == 1:  # each image is in one group (SI-Score)
        return np.asarray(group[np.argsort(image)])
    strata = np.zeros(len(times), dtype=np.int64)
    if times.min() == groups:  # all images are in all groups
        return strata
    for k in range(groups):
        inside = np.bincount(image[group == k], minlength=len(times))
        strata = np.unique(2 * strata + inside, return_inverse=True)[1]
    return strata


def _texts(ids: pa.Array | pa.ChunkedArray) -> list[str]:
    return [str(image_id) for image_id in ids.to_pylist()]
