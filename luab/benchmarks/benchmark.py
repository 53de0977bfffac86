"""What a benchmark is: the predictions that it needs, its protocol and its headline metric; no computation."""

from dataclasses import dataclass
from typing import Literal

RUN_KEYS = ("dataset", "backbone", "supervision", "lambda", "seed")
"""What identifies the run that a score belongs to."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, without the code that computes it.

    Attributes:
        name: Key in BENCHMARKS and stem of the score file.
        title: Title in tables and figures.
        test_sets: Test sets whose predictions it reads, of which it reads `columns`.
        protocol: One line for captions, with the placeholders {input_px} and {resized_px}.
        headline: The metric that stands for the benchmark; whether higher or lower is better says `better`.
        formula: Key in luab.benchmarks.score.FORMULAS.
        manifests: Manifests that it reads in addition to the predictions, of which it reads `manifest_columns`.
        targets: Files of data/targets/imagenet that it reads, of which it reads image_id and moments.
        roots: Manifests whose image trees contain files that it reads.
        instead_of: For an alternative protocol, the benchmark that scores the same images by the protocol of the
            releasing paper; otherwise "".
    """

    name: str
    title: str
    test_sets: tuple[str, ...]
    columns: tuple[str, ...]
    protocol: str
    headline: str
    formula: str
    better: Literal["higher", "lower"] = "higher"
    manifests: tuple[str, ...] = ()
    manifest_columns: tuple[str, ...] = ("image_id", "labels")
    targets: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    instead_of: str = ""

    def protocol_line(self, input_px: int, crop_pct: float) -> str:
        """The protocol for one recipe; see `luab.benchmarks.score.score`."""
        return self.protocol.format(input_px=input_px, resized_px=int(input_px / crop_pct))
