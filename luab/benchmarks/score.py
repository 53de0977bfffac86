"""From the predictions of one run to one JSON file per benchmark: numbers, protocol, n and a digest of the images."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luab.benchmarks.benchmark import RUN_KEYS, Benchmark
from luab.benchmarks.catalogue import find_benchmark
from luab.benchmarks.coco import FORMULAS as COCO_FORMULAS
from luab.benchmarks.folder import FORMULAS as FOLDER_FORMULAS
from luab.benchmarks.formula import Formula, Inputs, Scores
from luab.benchmarks.imagenet import FORMULAS as IMAGENET_FORMULAS
from luab.errors import ConfigError, DataError
from luab.files import content_sha256, lines_sha256, write_json
from luab.predictions import read_listed, read_predictions

FORMULAS: dict[str, Formula] = {**IMAGENET_FORMULAS, **COCO_FORMULAS, **FOLDER_FORMULAS}
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
    targets_folder: Path = Path("data/targets/imagenet"),
) -> list[Path]:
    """Writes <scores_folder>/<benchmark>.json for each benchmark, and returns the paths in this order.

    Args:
        run: dataset, backbone, supervision, lambda and seed; copied into the file.
        input_px: Side of the network's input; score maps are resized to it.
        crop_pct: Side of the centre crop divided by the shorter side of the resized image; only printed.
        processes: Number of processes for localisation, the one slow part; the numbers do not depend on it.
        roots: Image tree of each manifest in which a benchmark reads files (for COCO's masks).
        targets_folder: Folder of the held-out traces, for benchmarks that read them.

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
    folders = Path(predictions_folder), Path(manifests_folder)
    paths = [Path(scores_folder) / f"{benchmark.name}.json" for benchmark in benchmarks]
    for benchmark, path in zip(benchmarks, paths, strict=True):
        scores = compute(benchmark, read_inputs(benchmark, *folders, input_px, processes, roots, targets_folder))
        write_json(path, _content(benchmark, benchmark.protocol_line(input_px, crop_pct), run, scores))
    return paths


def compute(benchmark: Benchmark, inputs: Inputs) -> Scores:
    """The scores of one benchmark; predictions that do not fit it are a DataError."""
    return FORMULAS[benchmark.formula](inputs)


def read_inputs(
    benchmark: Benchmark,
    predictions_folder: Path,
    manifests_folder: Path,
    input_px: int,
    processes: int,
    roots: Mapping[str, Path],
    targets_folder: Path,
) -> Inputs:
    """Reads and checks the predictions, manifests and targets of one benchmark; see `score`."""
    return Inputs(
        {name: read_predictions(predictions_folder, name, benchmark.columns) for name in benchmark.test_sets},
        {name: read_listed(manifests_folder, name, benchmark.manifest_columns) for name in benchmark.manifests},
        input_px,
        processes,
        {name: roots[name] for name in benchmark.roots},
        {name: read_listed(targets_folder, name, ("image_id", "moments"), "targets") for name in benchmark.targets},
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
    content |= {"extra": scores.extra} if scores.extra else {}
    return content | {"sha256": content_sha256(content)}
