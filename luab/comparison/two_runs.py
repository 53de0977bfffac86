"""`luab compare`: two runs on the same images, benchmark by benchmark."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from luab.benchmarks.benchmark import Benchmark
from luab.benchmarks.catalogue import BENCHMARKS
from luab.benchmarks.formula import Scores
from luab.benchmarks.score import compute, read_inputs
from luab.comparison.over_images import RESAMPLES, SEED, Interval, Paired, interval, paired
from luab.comparison.over_seeds import holm
from luab.errors import DataError
from luab.files import lines_sha256, write_csv
from luab.progress import progress, wide_console
from luab.study.config import Study
from luab.study.paths import Run
from luab.study.roots import source_root

COLUMNS = (
    "benchmark", "metric", "better", "n",
    "first", "first_low", "first_high", "first_interval", "second", "second_low", "second_high", "second_interval",
    "difference", "low", "high", "p", "p_holm", "test", "resamples", "seed", "protocol",
)  # fmt: skip


class Row(NamedTuple):
    """One benchmark: headline and interval of both runs, their difference, and p corrected over all rows."""

    benchmark: Benchmark
    protocol: str
    n: int
    first: Interval
    second: Interval
    paired: Paired
    p_holm: float


def compare_runs(
    study: Study, first: Run, second: Run, benchmarks: Iterable[str] = (), resamples: int = RESAMPLES, seed: int = SEED
) -> list[Row]:
    """Compares two runs by their stored predictions: headlines, intervals over images and paired tests.

    Args:
        study: The study that contains both runs.
        first: The reference, for example the baseline.
        second: The run that is compared with it.
        benchmarks: Names of benchmarks; by default all benchmarks of the study.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        One row per benchmark, in order; p_holm is corrected over these rows.

    Raises:
        DataError: Predictions are missing or damaged, or the runs were scored on different images; the message lists
            all such benchmarks.
    """
    names = list(benchmarks) or study.part(first.dataset).benchmarks
    rows, problems = [], []
    with progress("compare", len(names), "benchmarks") as advance:
        for name in names:
            benchmark = BENCHMARKS[name]
            scores = [_scores(study, run, benchmark) for run in (first, second)]
            digests = [lines_sha256(sorted(s.ids)) for s in scores]
            if digests[0] != digests[1]:
                sides = [f"{s.n} images, digest {digest[:12]}" for s, digest in zip(scores, digests, strict=True)]
                problems.append(f"{name}: {' against '.join(sides)}")
            else:
                rows.append(_row(study, (first, second), benchmark, scores, resamples, seed))
            advance(1)
    if problems:
        raise DataError(
            f"{first.folder} and {second.folder} must have predictions of the same images, but they differ:\n  "
            + "\n  ".join(problems)
            + "\nPredict both runs with the same manifests, or name only other benchmarks with --benchmark."
        )
    corrected = holm(np.array([row.paired.p for row in rows]))
    return [row._replace(p_holm=float(p)) for row, p in zip(rows, corrected, strict=True)]


def _scores(study: Study, run: Run, benchmark: Benchmark) -> Scores:
    layout, input_px = study.layout, study.predicted_with(run).input_px
    roots = {name: source_root(study, name) for name in benchmark.roots}
    folders = layout.prediction_folder(run), layout.manifest_folder()
    targets = layout.target_folder()
    return compute(benchmark, read_inputs(benchmark, *folders, input_px, os.cpu_count() or 1, roots, targets))


def _row(
    study: Study, runs: tuple[Run, Run], benchmark: Benchmark, scores: list[Scores], resamples: int, seed: int
) -> Row:
    if any(s.images is None for s in scores):
        raise DataError(
            f"{benchmark.name}: its formula {benchmark.formula} returns no contributions of single images. Set "
            "Scores.images in the formula, or name only other benchmarks with --benchmark."
        )
    values = [s.metrics[benchmark.headline] for s in scores]
    first, second = (s.images() for s in scores if s.images is not None)
    # Sums over images differ from the score files by rounding; show the numbers of the score files.
    test = paired(first, second, resamples, seed)._replace(difference=values[1] - values[0])
    one = interval(first, resamples, seed)._replace(value=values[0])
    other = interval(second, resamples, seed)._replace(value=values[1])
    # Two backbones may have different input sizes; then the row has both protocols.
    recipes = [study.predicted_with(run) for run in runs]
    protocols = dict.fromkeys(benchmark.protocol_line(recipe.input_px, recipe.crop_pct) for recipe in recipes)
    return Row(benchmark, "; second run: ".join(protocols), scores[0].n, one, other, test, np.nan)


def print_comparison(study: Study, first: Run, second: Run, rows: list[Row], resamples: int = RESAMPLES) -> None:
    """Prints a table that fits into 80 columns."""
    table = Table(
        title=f"{study.label or 'Two runs'} on the same images, headline metrics (%)",
        box=box.HORIZONTALS, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False,
    )  # fmt: skip
    table.add_column("benchmark\n[dim]metric, n[/]", no_wrap=True)
    for heading in ("first", "second", "second - first", "p", "p Holm"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        arrow = "↑" if row.benchmark.better == "higher" else "↓"
        name = f"{row.benchmark.name} {arrow}\n[dim]{row.benchmark.headline}, {row.n:,}[/]"
        p_values = map(p_text, (row.paired.p, row.p_holm))
        table.add_row(name, percent_text(row.first), percent_text(row.second), _change(row), *p_values)
    console = wide_console()
    console.print(f"first:  {first.folder}\nsecond: {second.folder}", highlight=False)
    console.print(table)
    console.print(
        "Small: 95 % intervals over images (Wilson for plain shares, otherwise bootstrap within the test set's "
        "groups). p: exact McNemar test for plain shares, otherwise paired bootstrap; Holm: corrected for "
        f"{len(rows)} benchmarks; green and red: p Holm below .05. {resamples:,} resamples. This compares single "
        "trainings; the tables of the study show the spread over seeds.",
        style="dim",
    )


def percent_text(headline: Interval) -> str:
    """A value in percent with its interval below, for rich."""
    return f"{100 * headline.value:.2f}\n[dim]{100 * headline.low:.1f}-{100 * headline.high:.1f}[/]"


def change_text(change: Paired, gain: float, p_holm: float) -> str:
    """A difference in percentage points with its interval below, for rich; coloured by the sign of a sure gain."""
    colour = ("green" if gain > 0 else "red") if p_holm < 0.05 else "default"
    return f"[{colour}]{100 * change.difference:+.2f}[/]\n[dim]{100 * change.low:+.1f} {100 * change.high:+.1f}[/]"


def p_text(p: float) -> str:
    """A p value with three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "<.001"


def _change(row: Row) -> str:
    gain = row.paired.difference if row.benchmark.better == "higher" else -row.paired.difference
    return change_text(row.paired, gain, row.p_holm)


def write_comparison(path: Path, rows: list[Row], resamples: int = RESAMPLES, seed: int = SEED) -> None:
    """Writes the rows as CSV with COLUMNS; fractions, not rounded."""
    cells = []
    for row in rows:
        benchmark, (difference, low, high, p, method) = row.benchmark, row.paired
        head = (benchmark.name, benchmark.headline, benchmark.better, row.n, *row.first, *row.second)
        cells.append((*head, difference, low, high, p, row.p_holm, method, resamples, seed, row.protocol))
    write_csv(path, COLUMNS, cells)
