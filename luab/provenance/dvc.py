"""Writes what DVC shows of a study: names of models, headline numbers and plot data.

DVC reads them from results/dvc.yaml. It is next to the results, so it always describes the study that made them, even
if the configuration has changed since. The stages that make the results are in dvc.yaml at the top of the repository.
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

_HEAD = """\
# Written by the workflow. To see the results in this folder: `dvc metrics show`, `dvc plots show`. To get a model of a
# tagged version (git tag -a results=<name>@v1.0.0): `dvc artifacts get <address of this repository> results:<name>`.
"""


def write_metrics(scores: "pd.DataFrame", files: Mapping[Path, Sequence[Run]]) -> None:
    """Writes one small JSON per group of runs that differ only in the seed: means of headline numbers over seeds.

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
                name = quantity.benchmark  # alone if it is enough, so that the table fits a terminal
                if benchmarks.count(name) > 1:
                    name += f".{quantity.metric}"
                content[name] = float(means.loc[key, "mean"])
        if len(content) == 1:
            raise DataError(f"{file}: no scores of {first.folder}. Collect the scores again.")
        write_json(file, content)


def write_curves(output: Path, logs: Mapping[Sequence[Run], Sequence[Path]]) -> list[str]:
    """Writes a CSV of the logged quantities of each epoch, as means over seeds; empty if a run does not have one.

    `logs` holds the log.csv files of each group of runs that differ only in the seed.

    Returns:
        Names of the quantities.

    Raises:
        DataError: A log is missing or damaged.
    """
    from luab.render.report.curves import quantities, read_log

    epochs_of = {runs: [read_log(path, ("epoch", "loss")) for path in files] for runs, files in logs.items()}
    logged = {runs: {name for rows in of_seeds for name in quantities(rows)} for runs, of_seeds in epochs_of.items()}
    ordered = dict.fromkeys(name for of_seeds in epochs_of.values() for rows in of_seeds for name in rows[0])
    shown = [name for name in ordered if any(name in names for names in logged.values())]
    with replacing(output) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dataset", "backbone", "supervision", "epoch", *shown, "seeds"])
        for runs, of_seeds in epochs_of.items():
            first = runs[0]
            for rows in zip(*of_seeds, strict=False):  # lengths differ if a seed was trained with another recipe
                means = [_mean(row.get(name) for row in rows) if name in logged[runs] else "" for name in shown]
                writer.writerow([first.dataset, first.backbone, first.supervision, rows[0]["epoch"], *means, len(rows)])
    return shown


def _mean(cells: Iterable[str | None]) -> str:
    values = [float(cell) for cell in cells if cell]
    return f"{math.fsum(values) / len(values):.6g}" if values else ""


def artifact_name(run: Run) -> str:
    """Name of a model in DVC, of lower-case letters, digits and hyphens: "imagenet-resnet50-click-seed0"."""
    return re.sub(r"[^a-z0-9]+", "-", f"{run.dataset}-{run.backbone}-{run.supervision}-seed{run.seed}".lower())


def write_dvc_file(
    output: Path,
    models: Mapping[Run, Path],
    metrics: Iterable[Path],
    sweep: Path | None,
    curves: Path,
    quantities: Iterable[str],
    label: str,
    about: Mapping[Run, str] | None = None,
) -> None:
    """Writes results/dvc.yaml: artifacts, metrics and plots, with paths relative to its folder.

    `metrics` and `curves` are the files of the functions above, `sweep` is the CSV of the table lambda_sweep, if any,
    and `quantities` are the columns of `curves` to plot. `label` is part of each description, for example "demo
    world", or empty. `about` describes the supervision of each run; by default its name.

    Raises:
        DataError: Two backbones have the same name in DVC.
    """
    from luab.render.report.curves import title

    folder, suffix = output.parent, f" ({label})" if label else ""
    artifacts = {
        artifact_name(run): _artifact(run, path.relative_to(folder), label, (about or {}).get(run))
        for run, path in models.items()
    }
    if len(artifacts) < len(models):
        raise DataError(
            f"{output}: some of these backbones have the same name in DVC, which ignores all but letters and digits: "
            f"{', '.join(sorted({run.backbone for run in models}))}. Publish them in separate studies."
        )

    def plot(template: str, x: str, file: Path, y: str, title: str) -> dict[str, Any]:
        y_of_file = {str(file.relative_to(folder)): y}
        return {"template": template, "x": x, "y": y_of_file, "title": title + suffix, "y_label": "mean over seeds"}

    titles = {name: f"Training: {title(name)}" for name in quantities}
    plots = [{name: plot("luab_curves", "epoch", curves, name, text)} for name, text in titles.items()]
    if sweep is not None:
        plots.insert(0, {"lambda": plot("luab_sweep", "lambda", sweep, "mean", "By the weight of the byproduct loss")})
    content = {"artifacts": artifacts, "metrics": [str(path.relative_to(folder)) for path in metrics], "plots": plots}
    with replacing(output) as aside:
        aside.write_text(
            _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8"
        )


def _artifact(run: Run, path: Path, label: str, about: str | None) -> dict[str, Any]:
    text = f"{run.backbone} on {run.dataset}: {about or run.supervision}; lambda {run.weight:g}, seed {run.seed}"
    return {
        "path": path.as_posix(),
        "type": "model",
        "desc": f"{text} ({label})" if label else text,
        "labels": list(filter(None, [run.dataset, run.supervision, f"lambda-{run.weight:g}", label.replace(" ", "-")])),
    }
