"""What DVC is told of a study's results: names of models, headline numbers, data of plots.

DVC reads all of it from results/dvc.yaml, which lies beside what it describes: so it always speaks of the study that
made these results, whatever the configuration says by then. The stages, which say how to make them anew, are in the
dvc.yaml above.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from luab.errors import DataError
from luab.files import replacing, write_json
from luab.study.paths import Run

if TYPE_CHECKING:
    import pandas as pd

CURVE_COLUMNS = ("dataset", "backbone", "supervision", "epoch", "classification", "byproduct", "seeds")
_LOSSES = ("classification", "byproduct")
_DESCRIPTIONS = {
    "none": "baseline, trained on labels alone",
    "random": "control, regresses one random point per image",
    "click": "LUAB, regresses the annotators' clicks",
}
_HEAD = """\
# Written by the workflow: what DVC shows of the results in this folder. `dvc metrics show`, `dvc plots show`; of a
# tagged version (git tag -a results=<name>@v1.0.0) `dvc artifacts get <address of this repository> results:<name>`.
"""


def write_metrics(scores: "pd.DataFrame", files: Mapping[Path, Sequence[Run]]) -> None:
    """Writes one small JSON per data set, backbone and supervision: headline numbers, mean over its seeds.

    Args:
        scores: As luab.benchmarks.collect.read_scores gives them.
        files: Each file, and the runs, alike but for the seed, that it is over.

    Raises:
        DataError: A run has no headline numbers.
    """
    from luab.comparison.over_seeds import mean_std
    from luab.render.quantities import TRACKED

    means = mean_std(scores).set_index(["dataset", "backbone", "supervision", "lambda", "benchmark", "metric", "group"])
    for file, runs in files.items():
        first, shown = runs[0], TRACKED[runs[0].dataset]
        benchmarks = [quantity.benchmark for quantity in shown]
        content: dict[str, Any] = {"seeds": len(runs)}
        for quantity in shown:
            key = (first.dataset, first.backbone, first.supervision, first.weight, *quantity.key)
            if key in means.index and means.loc[key, "n"] == len(runs):
                alone = benchmarks.count(quantity.benchmark) == 1  # short names, for a table that fits a terminal
                name = quantity.benchmark if alone else f"{quantity.benchmark}.{quantity.metric}"
                content[name] = float(means.loc[key, "mean"])
        if len(content) == 1:
            raise DataError(f"{file}: expected scores of {first.folder}, found none. Collect the scores again.")
        write_json(file, content)


def write_curves(output: Path, logs: Mapping[Sequence[Run], Sequence[Path]]) -> None:
    """Writes the losses of each epoch, mean over the seeds, as `CURVE_COLUMNS`; empty where a run has none.

    Args:
        output: A CSV file.
        logs: Runs that are alike but for the seed, and the log.csv of each.

    Raises:
        DataError: A log is missing or is not one.
    """
    from luab.render.report.curves import read_log

    with replacing(output) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CURVE_COLUMNS)
        for runs, files in logs.items():
            first, read = runs[0], [read_log(path, ("epoch", *_LOSSES)) for path in files]
            losses = _LOSSES if first.points else _LOSSES[:1]
            for rows in zip(*read, strict=False):  # seeds differ in length where one was trained with another recipe
                means = [f"{math.fsum(float(row[loss]) for row in rows) / len(rows):.6g}" for loss in losses]
                means += [""] * (len(_LOSSES) - len(losses))
                writer.writerow([first.dataset, first.backbone, first.supervision, rows[0]["epoch"], *means, len(rows)])


def artifact_name(run: Run) -> str:
    """The name that DVC knows a model by: lower-case letters, digits and hyphens.

    Example: "imagenet-resnet50-click-seed0".
    """
    return re.sub(r"[^a-z0-9]+", "-", f"{run.dataset}-{run.backbone}-{run.supervision}-seed{run.seed}".lower())


def write_dvc_file(
    output: Path, models: Mapping[Run, Path], metrics: Iterable[Path], sweep: Path | None, curves: Path, label: str
) -> None:
    """Writes results/dvc.yaml: artifacts, metrics and plots, with paths relative to its folder.

    Args:
        output: The file.
        models: Runs of the headline, and their weights.
        metrics: Files of `write_metrics`.
        sweep: CSV of the table lambda_sweep; None if the study has no sweep.
        curves: File of `write_curves`.
        label: E.g. "demo world"; stands in each description.

    Raises:
        DataError: Two backbones' names are one to DVC.
    """
    folder = output.parent
    artifacts = {artifact_name(run): _artifact(run, path.relative_to(folder), label) for run, path in models.items()}
    if len(artifacts) < len(models):
        raise DataError(
            f"{output}: names of backbones that differ in other signs than letters and digits are one to DVC: "
            f"{', '.join(sorted({run.backbone for run in models}))}. Publish these backbones apart."
        )
    curves_y = str(curves.relative_to(folder))
    plots: list[dict[str, Any]] = []
    if sweep is not None:
        plot = {
            "template": "luab_sweep",
            "x": "lambda",
            "y": {str(sweep.relative_to(folder)): "mean"},
            "title": _titled("By the weight of the byproduct loss", label),
            "y_label": "mean over seeds",
        }
        plots.append({"lambda": plot})
    plots += [
        {
            loss: {
                "template": "luab_curves",
                "x": "epoch",
                "y": {curves_y: loss},
                "title": _titled(f"Training: {loss} loss", label),
                "y_label": "mean over seeds",
            }
        }
        for loss in _LOSSES
    ]
    content = {
        "artifacts": artifacts,
        "metrics": [str(path.relative_to(folder)) for path in metrics],
        "plots": plots,
    }
    with replacing(output) as aside:
        aside.write_text(_HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def _artifact(run: Run, path: Path, label: str) -> dict[str, Any]:
    supervision = run.supervision.removesuffix("_shared")
    told = _DESCRIPTIONS.get(supervision, f"regresses the points of {supervision}")
    return {
        "path": path.as_posix(),
        "type": "model",
        "desc": _titled(f"{run.backbone} on {run.dataset}: {told}; lambda {run.weight:g}, seed {run.seed}", label),
        "labels": list(filter(None, [run.dataset, run.supervision, f"lambda-{run.weight:g}", label.replace(" ", "-")])),
    }


def _titled(text: str, label: str) -> str:
    return f"{text} ({label})" if label else text
