"""What a study plans, what of it exists, and its headline: tables for a terminal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from luab.config import Study
from luab.files import read_json
from luab.paths import Run
from luab.provenance import PREDICTION, TRAINING, code_digest

_TO_LOOK_AT = ("report.html", "tables", "figures", "scores.csv")


def print_plan(study: Study) -> None:
    """One line per backbone: trainings and estimated GPU hours, with the sum and its meaning."""
    table = Table("backbone", "recipe", "epochs", "trainings", "GPU hours each", "GPU hours", title="Planned trainings")
    total = 0.0
    for backbone in study.backbones:
        runs = [run for run in study.runs() if run.backbone == backbone.name]
        each = study.gpu_hours(runs[0])
        total += each * len(runs)
        epochs = study.recipe(backbone.name).epochs
        table.add_row(
            backbone.name, backbone.recipe, str(epochs), str(len(runs)), f"{each:.1f}", f"{each * len(runs):.0f}"
        )
    console = Console()
    console.print(table)
    console.print(summary(study, total))


def summary(study: Study, total: float | None = None) -> str:
    """One sentence with the number of trainings and the GPU-hour estimate."""
    runs = study.runs()
    if total is None:
        total = sum(study.gpu_hours(run) for run in runs)
    if study.demo:
        return f"{len(runs)} trainings on the demo world, on the CPU."
    return (
        f"{len(runs)} trainings, about {total:,.0f} GPU hours: an ESTIMATE from the images per second in the config, "
        "for GPUs of the A100 class; predictions add a few per cent."
    )


def print_status(study: Study) -> None:
    """One line per run: done, missing, or made by older code."""
    table = Table("run", "training", "predictions", "scores", title="Results of the study")
    for run in study.runs():
        table.add_row(run.folder, *(cell(study, run) for cell in (_training, _predictions, _scores)))
    console = Console()
    console.print(table)
    console.print(
        "older code: made before luab's training or prediction code changed; kept until you ask for them anew "
        "(snakemake --forcerun train)."
    )


def print_headline(study: Study) -> None:
    """The main table, as far as it exists, and where everything lies."""
    console = Console()
    path = study.layout.table("imagenet_main", "md")
    if path.is_file():
        from rich.markdown import Markdown

        console.print(Markdown(path.read_text()))
    where = [str(study.paths.results / name) for name in _TO_LOOK_AT if (study.paths.results / name).exists()]
    console.print("\nLook at: " + ("  ".join(where) if where else "nothing yet; run `make demo`"))


def _training(study: Study, run: Run) -> str:
    return _state([study.layout.run_json(run)], lambda card: card["code"]["train"] == code_digest(*TRAINING))


def _predictions(study: Study, run: Run) -> str:
    cards = [study.layout.prediction_card(run, suite.name) for suite in study.suites]
    made_now = read_json(study.layout.run_json(run)) if study.layout.run_json(run).is_file() else {}
    return _state(
        cards,
        lambda card: card["model_sha256"] == made_now.get("model_sha256") and card["code"] == code_digest(*PREDICTION),
    )


def _scores(study: Study, run: Run) -> str:
    return _state([study.layout.score(run, name) for name in study.benchmarks], lambda card: True)


def _state(cards: list[Path], current: Callable[[dict[str, Any]], bool]) -> str:
    there = [card for card in cards if card.is_file()]
    if not there:
        return "[dim]missing[/]"
    if len(there) < len(cards):
        return f"[yellow]{len(there)} of {len(cards)}[/]"
    return "[green]done[/]" if all(current(read_json(card)) for card in there) else "[yellow]older code[/]"
