"""Predictions of one run in, one JSON per benchmark out: numbers, protocol, n and a digest of the images."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luab.benchmarks.benchmark import Benchmark, Inputs, Scores
from luab.benchmarks.imagenet import find_benchmark
from luab.errors import ConfigError, DataError
from luab.files import lines_sha256, write_json
from luab.predictions import read_listed, read_predictions

RUN_KEYS = ("dataset", "backbone", "supervision", "lambda", "seed")


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
        predictions_folder: Holds <test set>.parquet; see docs/data-formats.md.
        manifests_folder: Holds <dataset>.parquet.
        run: dataset, backbone, supervision, lambda and seed; stored as it is.
        scores_folder: Made if need be; a file is written whole or not at all.
        input_px: Side of the crop that the network saw; score maps are resized to it too.
        crop_pct: Side of the centre crop over the resized shorter side; only told in the protocol.
        processes: How many share the boxes of localisation, the one slow part; no number depends on it.
        roots: Tree of each manifest in whose files a benchmark looks (COCO's masks).

    Returns:
        The files, in the order of the names.

    Raises:
        ConfigError: A benchmark is unknown or the run's identity is incomplete.
        DataError: Predictions or manifests are missing, lack columns, repeat an image or hold numbers that
            are not finite.
    """
    benchmarks, roots = [find_benchmark(name) for name in benchmark_names], roots or {}
    if unknown := sorted({name for benchmark in benchmarks for name in benchmark.roots} - set(roots)):
        raise ConfigError(f"score: expected the trees of {', '.join(unknown)}, found none. Pass them as `roots`.")
    if missing := [key for key in RUN_KEYS if key not in run]:
        raise ConfigError(f"A run is named by {', '.join(RUN_KEYS)}; {', '.join(missing)} missing in {dict(run)}.")
    written = []
    for benchmark in benchmarks:
        inputs = Inputs(
            {name: read_predictions(Path(predictions_folder), name, benchmark.columns) for name in benchmark.test_sets},
            {n: read_listed(Path(manifests_folder), n, benchmark.manifest_columns) for n in benchmark.manifests},
            input_px,
            processes,
            {name: roots[name] for name in benchmark.roots},
        )
        path = Path(scores_folder) / f"{benchmark.name}.json"
        scores = benchmark.compute(inputs)
        protocol = benchmark.protocol.format(input_px=input_px, resized_px=int(input_px / crop_pct))
        write_json(path, _content(benchmark, protocol, run, scores))
        written.append(path)
    return written


def _content(benchmark: Benchmark, protocol: str, run: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    values = list(scores.metrics.items()) + [(f"{d.metric} of {d.group}", d.value) for d in scores.details]
    if bad := [name for name, value in values if not math.isfinite(value)]:
        raise DataError(f"{benchmark.name}: expected finite numbers, found none for {', '.join(bad)}. Predict again.")
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
