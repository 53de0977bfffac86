"""What the formula of a benchmark reads and what it returns."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from luab.benchmarks.outcomes import Outcomes, Rankings


class Detail(NamedTuple):
    """One number for a subset of a benchmark's images."""

    group: str
    metric: str
    value: float
    n: int


CHANCE, CENTRE, WHOLE, PERSON = "chance", "image centre", "whole image", "another person"
"""Controls, which need no model: a guess among the classes, the middle of the image, the box of the whole image, and
another person, the noise ceiling.

A control of a metric is a `Detail` whose metric is the control and whose group is the metric.
"""


def guesses(labels: np.ndarray, answers: int = 1) -> float:
    """Share of images that so many different guesses among the classes of a test set get right.

    Args:
        labels: [images, most labels] classes of each labelled image, -1 for none.
        answers: Number of guesses for each image.
    """
    there = labels >= 0
    images, classes = int(there.any(axis=1).sum()), len(np.unique(labels[there]))
    return min(1.0, answers * int(there.sum()) / (images * classes))


class Inputs(NamedTuple):
    """What a formula reads.

    tables: checked predictions by test set. manifests: rows by manifest. roots: image trees by manifest, if it reads
    files. targets: image_id and moments, by file of targets.
    """

    tables: Mapping[str, pa.Table]
    manifests: Mapping[str, pa.Table]
    input_px: int
    processes: int = 1
    roots: Mapping[str, Path] = {}
    targets: Mapping[str, pa.Table] = {}


@dataclass(frozen=True)
class Scores:
    """One benchmark's result for one run.

    Attributes:
        metrics: Metric name -> value, a fraction.
        n: Number of images that the metrics cover; `ids` are theirs, in any order.
        extra: Further facts for the score file; not collected into scores.csv.
        images: Returns what each image contributes to the headline; None if the formula does not support it.
    """

    metrics: dict[str, float]
    n: int
    ids: Iterable[str]
    details: list[Detail] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    images: Callable[[], Outcomes | Rankings] | None = None


Formula = Callable[[Inputs], Scores]
