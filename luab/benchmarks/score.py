"""From the predictions of one run to one JSON file per benchmark: numbers, protocol, n and a digest of the images."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luab.benchmarks.benchmark import RUN_KEYS, Benchmark
from luab.benchmarks.catalogue import find_benchmark
from luab.benchmarks.coco import FORMULAS as COCO_FORMULAS
from luab.benchmarks.formula import Formula, Inputs, Scores
from luab.benchmarks.imagenet import FORMULAS as IMAGENET_FORMULAS
from luab.errors import ConfigError, DataError
from luab.files import lines_sha256, write_json
from luab.predictions import read_listed, read_predictions

FORMULAS: dict[str, Formula] = {**IMAGENET_FORMULAS, **COCO_FORMULAS}
"""Every formula by the key that a benchmark names."""


def score(
    benchmark_names: Iterable[str],
    predictions_folder: Path | str,
    manifests_folder: Path | str,
    run: Mapping[str, Any],
    scores_folder: Path | str,
    input_px: int = 224,
    crop_pct: float = 0.875,
    processes: int = 1,
    roots: Mapping[str, Path] | None = None,
) -> list[Path]:
    """Writes <scores_folder>/<benchmark>.json for each benchmark.

    Args:
        benchmark_names: Keys of BENCHMARKS.
        predictions_folder: Contains <test set>.parquet; see docs/data-formats.md.
        manifests_folder: Contains <dataset>.parquet.
        run: dataset, backbone, supervision, lambda and seed; copied into the file.
        scores_folder: Created if needed; files are written atomically.
        input_px: Side of the network's input in pixels; score maps are resized to it.
        crop_pct: Side of the centre crop divided by the shorter side of the resized image; only printed in the
            protocol.
        processes: Number of processes for localisation, the one slow part; the numbers do not depend on it.
        roots: Image tree of each manifest in which a benchmark reads files (for COCO's masks).

    Returns:
        The files, in the order of the names.

    Raises:
        ConfigError: A benchmark is unknown, a root is missing, or the run's identity is incomplete.
        DataError: Predictions or manifests are missing, lack columns, list an image twice or contain numbers that are
            not finite.
    """
    benchmarks, roots = [find_benchmark(name) for name in benchmark_names], roots or {}
    if missing_roots := sorted({name for benchmark in benchmarks for name in benchmark.roots} - set(roots)):
        raise ConfigError(f"score: the image trees of {', '.join(missing_roots)} are missing. Pass them as `roots`.")
    if missing := [key for key in RUN_KEYS if key not in run]:
        raise ConfigError(f"score: the run {dict(run)} lacks {', '.join(missing)}. Pass all of {', '.join(RUN_KEYS)}.")
    paths = []
    for benchmark in benchmarks:
        inputs = read_inputs(
            benchmark, Path(predictions_folder), Path(manifests_folder), input_px, processes, roots=roots
        )
        content = _content(benchmark, benchmark.protocol_line(input_px, crop_pct), run, compute(benchmark, inputs))
        path = Path(scores_folder) / f"{benchmark.name}.json"
        write_json(path, content)
        paths.append(path)
    return paths


def compute(benchmark: Benchmark, inputs: Inputs) -> Scores:
    """Computes the scores of one benchmark.

    Raises:
        DataError: The predictions do not fit the benchmark.
    """
    return FORMULAS[benchmark.formula](inputs)


def read_inputs(
    benchmark: Benchmark,
    predictions_folder: Path,
    manifests_folder: Path,
    input_px: int,
    processes: int,
    roots: Mapping[str, Path],
) -> Inputs:
    """Reads the predictions and manifests of one benchmark; arguments as for `score`.

    Raises:
        DataError: A file is missing or damaged; see `read_predictions` and `read_listed`.
    """
    return Inputs(
        {name: read_predictions(predictions_folder, name, benchmark.columns) for name in benchmark.test_sets},
        {name: read_listed(manifests_folder, name, benchmark.manifest_columns) for name in benchmark.manifests},
        input_px,
        processes,
        {name: roots[name] for name in benchmark.roots},
    )


def _content(benchmark: Benchmark, protocol: str, run: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    values = list(scores.metrics.items()) + [(f"{d.metric} of {d.group}", d.value) for d in scores.details]
    if bad := [name for name, value in values if not math.isfinite(value)]:
        raise DataError(
            f"{benchmark.name}: the numbers for {', '.join(bad)} are not finite (NaN or infinite). Predict again."
        )
    content = {
        "benchmark": benchmark.name,
        "protocol": protocol,
        "run": {key: run[key] for key in RUN_KEYS},
        "n": scores.n,
        "ids_sha256": lines_sha256(sorted(scores.ids)),
        "metrics": scores.metrics,
        "details": [detail._asdict() for detail in sorted(scores.details)],
    }
    return content | ({"extra": scores.extra} if scores.extra else {})
