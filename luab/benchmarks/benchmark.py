"""What a benchmark is: the predictions that it needs, its protocol, and the numbers that come out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from luab.benchmarks.outcomes import Outcomes, Ranking, Rankings


class Detail(NamedTuple):
    """One number for a part of a benchmark's images."""

    group: str
    metric: str
    value: float
    n: int


class Inputs(NamedTuple):
    """What a benchmark computes from.

    Attributes:
        tables: Checked predictions by test set.
        manifests: Rows by manifest.
        input_px: Side of the crop.
        processes: How many may share the work.
        roots: Trees that manifests list, by manifest, where files in them are asked for.
    """

    tables: Mapping[str, pa.Table]
    manifests: Mapping[str, pa.Table]
    input_px: int
    processes: int = 1
    roots: Mapping[str, Path] = {}


@dataclass(frozen=True)
class Scores:
    """One benchmark's result for one run.

    Attributes:
        metrics: Name -> fraction.
        n: Images that the metrics are about.
        ids: Their image ids, in any order.
        details: Numbers for parts of them.
        extra: Anything else worth keeping; not collected.
        images: What the headline is made of, image by image; made when asked for, since few ask.
    """

    metrics: dict[str, float]
    n: int
    ids: Iterable[str]
    details: list[Detail] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    images: Callable[[], Outcomes | Ranking | Rankings] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Which predictions a benchmark needs and what it makes of them.

    Attributes:
        name: Key in BENCHMARKS and stem of the score file.
        title: For tables and figures.
        test_sets: Predictions that it reads.
        columns: Columns of each that it needs.
        protocol: One line for captions; {input_px} and {resized_px} are filled in.
        headline: The metric that stands for the benchmark.
        better: Whether a higher or a lower headline is better.
        compute: The numbers.
        manifests: Manifests that it reads besides.
        manifest_columns: Columns of each that it needs.
        roots: Manifests whose trees hold files that it reads.
        instead_of: The benchmark whose images it scores by another protocol; "" for the releasing paper's own.
    """

    name: str
    title: str
    test_sets: tuple[str, ...]
    columns: tuple[str, ...]
    protocol: str
    headline: str
    better: Literal["higher", "lower"]
    compute: Callable[[Inputs], Scores]
    manifests: tuple[str, ...] = ()
    manifest_columns: tuple[str, ...] = ("image_id", "labels")
    roots: tuple[str, ...] = ()
    instead_of: str = ""
