"""`luab plan` and `luab status`: tables of the planned trainings and of existing results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from luab.commands.watch import unfollowed_jobs
from luab.files import read_json
from luab.planning.estimate import DenseSpeeds, by_backbone, by_transfer, known_dense_speeds, known_speeds, parts
from luab.planning.plan import summary
from luab.progress import wide_console
from luab.provenance.code import (
    DENSE_PREDICTION_CODE,
    FINE_TUNING_CODE,
    code_digest,
    prediction_code,
    training_code,
)
from luab.study.config import Study
from luab.study.paths import Run
from luab.study.paths import card as card_of
from luab.study.transfers import FineTuning


def print_plan(study: Study) -> None:
    """Prints the number of trainings and, except for the demo, the estimated GPU hours by backbone and part."""
    console = wide_console()
    if not study.demo:
        speeds = known_speeds(study)
        table = Table(
            "", "backbone", "epochs", "trainings", "images/s", "from", "hours each", title="Planned trainings"
        )
        for dataset, backbone, speed, epochs, trainings, hours in by_backbone(study, speeds):
            numbers = (str(epochs), str(trainings), f"{speed.images_per_s:,.0f}", speed.source, f"{hours:.1f}")
            table.add_row(dataset, backbone, *numbers)
        console.print(table)
        dense = known_dense_speeds(study)
        if study.transfer:
            console.print(_fine_tunings(study, dense))
        table = Table("part", "trainings", "GPU hours", title="GPU hours by part (ESTIMATE)")
        for part in parts(study, speeds, dense):
            table.add_row(part.name, str(part.trainings or ""), f"{part.gpu_hours:,.0f}")
        console.print(table)
    console.print(summary(study))


def _fine_tunings(study: Study, speeds: DenseSpeeds) -> Table:
    table = Table("transfer", "epochs", "fine-tunings", "images/s", "from", "hours each", title="Planned fine-tunings")
    for name, speed, epochs, number, hours in by_transfer(study, speeds):
        table.add_row(name, str(epochs), str(number), f"{speed.images_per_s:,.1f}", speed.source, f"{hours:.1f}")
    return table


def print_status(study: Study) -> None:
    """Prints one line per run: training, predictions and scores are done, missing, or from older code."""
    table = Table("run", "training", "predictions", "scores", title="Results of the study")
    for run in study.runs():
        table.add_row(run.folder, *(cell(study, run) for cell in (_training, _predictions, _scores)))
    for one in study.fine_tunings():
        table.add_row(f"transfer/{one.folder}", *_dense_states(study, one))
    console = wide_console()
    console.print(table)
    console.print(
        "older code: made before luab's training or prediction code changed. These results are kept; to make them "
        "again, run snakemake --forcerun train."
    )
    if unfollowed := unfollowed_jobs():
        console.print(unfollowed, style="yellow", markup=False, highlight=False)


def _training(study: Study, run: Run) -> str:
    # A run trained through luab.training.train.train directly has no digest, so its code is unknown.
    current = code_digest(*training_code(run.dataset, study.supervision(run).use))
    return _state([study.layout.run_json(run)], lambda card: card.get("code", {}).get("train") == current)


def _predictions(study: Study, run: Run) -> str:
    cards = [study.layout.prediction_card(run, suite.name) for suite in study.part(run.dataset).suites]
    run_json = study.layout.run_json(run)
    model = read_json(run_json).get("model_sha256") if run_json.is_file() else None
    code = code_digest(*prediction_code(run.dataset))
    return _state(cards, lambda card: card["model_sha256"] == model and card["code"] == code)


def _scores(study: Study, run: Run) -> str:
    return _state([study.layout.score(run, name) for name in study.part(run.dataset).benchmarks], lambda card: True)


def _dense_states(study: Study, one: FineTuning) -> list[str]:
    """State of a fine-tuning, of its predictions and of its scores; the last two are empty if nothing can score it."""
    layout, made, predicts = study.layout, code_digest(*FINE_TUNING_CODE), code_digest(*DENSE_PREDICTION_CODE)
    run_json = layout.fine_tuning_json(one)
    training = _state([run_json], lambda card: card.get("code", {}).get("train") == made)
    if not study.transfer[one.transfer].scored:
        return [training, "", ""]
    model = read_json(run_json).get("model_sha256") if run_json.is_file() else None
    predictions = _state(
        [card_of(layout.fine_tuning_predictions(one))],
        lambda card: card["model_sha256"] == model and card["code"] == predicts,
    )
    scores = "[green]done[/]" if layout.fine_tuning_scores(one).is_file() else "[dim]missing[/]"
    return [training, predictions, scores]


def _state(cards: list[Path], current: Callable[[dict[str, Any]], bool]) -> str:
    existing = [card for card in cards if card.is_file()]
    if not existing:
        return "[dim]missing[/]"
    if len(existing) < len(cards):
        return f"[yellow]{len(existing)} of {len(cards)}[/]"
    return "[green]done[/]" if all(current(read_json(card)) for card in existing) else "[yellow]older code[/]"
