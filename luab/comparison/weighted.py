"""Images whose headline is neither a sum over images nor a ranking of them, such as AP of boxes or mIoU."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Weighted(NamedTuple):
    """Images that are resampled by weights.

    Attributes:
        ids: Image ids in ascending text order.
        strata: [images] stratum of each image, see `luab.benchmarks.outcomes.Outcomes`.
        measure: Computes [resamples] headlines from [resamples, images], how often each image counts.
        truth: Digest of the ground truth; two runs can be compared if theirs are equal.
    """

    ids: list[str]
    strata: npt.NDArray[np.int64]
    measure: Callable[[Floats], Floats]
    truth: str
