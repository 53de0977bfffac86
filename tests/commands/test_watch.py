"""`luab status --watch`: trainings in every state, also on narrow and low terminals."""

import dataclasses
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from luab.commands import watch
from luab.files import write_json
from luab.study.config import Study
from luab.study.paths import Run
from luab.training.heartbeat import PROGRESS, Progress

NONE = Run("imagenet", "test_resnet", "none", 0.0, 0)
CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)


@pytest.fixture
def study(toy_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study with two runs, in a checkout without jobs, on a machine without Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    return toy_study()


def write_progress(study: Study, run: Run, **other: Any) -> Progress:
    """Writes progress.json as a training does."""
    progress = Progress(
        run=run.folder, state="training", epoch=2, epochs=8, done=25, total=80, loss=1.23456, images_per_s=1234.5,
        seconds_left=7384.0, started=time.time() - 60, updated=time.time(), attempt=2, job="12_3", node="n1",
        processes=1,
    )  # fmt: skip
    progress = dataclasses.replace(progress, **other)
    write_json(study.layout.run(run) / PROGRESS, dataclasses.asdict(progress))
    return progress


def submit(study: Study, run: Run, **other: Any) -> None:
    """Writes the record of a live job, as the executor plugin does."""
    watch.JOBS.mkdir(parents=True, exist_ok=True)
    entry = {"outputs": {str(study.layout.run_json(run)): "d"}, "folder": "f", "cluster": "local", "name": "train"}
    (watch.JOBS / f"{run.supervision}.json").write_text(json.dumps(entry | {"id": "12_3"} | other), encoding="utf-8")


def state(study: Study, run: Run) -> str:
    return next(row.state for row in watch.read_rows(study)[0] if row.run == run)


def lines_of(study: Study, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(watch._view(*watch.read_rows(study), height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_no_training_has_started(study: Study) -> None:
    assert lines_of(study) == ["2 trainings: 2 not started"]


def test_a_training_without_a_job_is_running_then_stopped_then_done(study: Study) -> None:
    write_progress(study, CLICK)
    assert state(study, CLICK) == "running"
    write_progress(study, CLICK, updated=time.time() - 2 * watch.SILENT_S)  # killed without a last update
    assert state(study, CLICK) == "stopped"
    write_progress(study, CLICK, state="stopped")
    assert state(study, CLICK) == "stopped"
    write_json(study.layout.run_json(CLICK), {})
    assert state(study, CLICK) == "done"


def test_a_job_is_pending_then_running_then_silent(study: Study) -> None:
    submit(study, CLICK, state="PENDING", reason="Priority")
    (row,) = [row for row in watch.read_rows(study)[0] if row.run == CLICK]
    assert (row.state, row.where, row.progress) == ("pending", "Priority", None)
    submit(study, CLICK, state="RUNNING", node="n2")
    (row,) = [row for row in watch.read_rows(study)[0] if row.run == CLICK]
    assert (row.state, row.where) == ("running", "n2")
    write_progress(study, CLICK, updated=time.time() - 2 * watch.SILENT_S)
    assert state(study, CLICK) == "silent"


def test_a_requeued_job_is_pending_and_keeps_its_progress(study: Study) -> None:
    write_progress(study, CLICK, state="stopped")
    submit(study, CLICK, state="PENDING", reason="BeginTime")
    (row,) = [row for row in watch.read_rows(study)[0] if row.run == CLICK]
    assert row.state == "pending" and row.progress is not None and row.progress.attempt == 2 and row.progress.epoch == 2


def test_all_columns_fit_eighty_characters(study: Study) -> None:
    write_progress(study, CLICK)
    submit(study, NONE, state="PENDING", reason="Resources")
    lines = lines_of(study)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert lines[0] == "2 trainings: 1 running, 1 pending"
    assert "test_resnet click-1 seed0 running n1 2 3/8 1.235 1,234 2 h 03 m" in text
    assert "test_resnet none-0 seed0 pending Resources" in text


def test_other_jobs_are_counted(study: Study) -> None:
    watch.JOBS.mkdir(parents=True)
    for i, state in enumerate(("RUNNING", "RUNNING", "PENDING")):
        entry = {"outputs": {f"scores/{i}.json": "d"}, "folder": "f", "cluster": "local", "name": f"score run={i}"}
        (watch.JOBS / f"{i}.json").write_text(json.dumps(entry | {"id": str(i), "state": state}), encoding="utf-8")
    assert lines_of(study)[-1] == "other jobs: 1 x score pending, 2 x score running"


def test_a_low_terminal_shows_the_most_urgent_trainings(study: Study) -> None:
    write_progress(study, NONE)
    write_progress(study, CLICK, updated=0.0)
    lines = lines_of(study, height=10)
    assert any("click-1" in line for line in lines) and not any("none-0" in line for line in lines)
    assert lines[-1] == "... and 1 more; make the window taller to see them"


def test_watch_ends_when_all_trainings_are_done(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (NONE, CLICK):
        write_json(study.layout.run_json(run), {})
    watch.watch(study, interval_s=3600)
    assert "2 trainings: 2 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (12.4, "12 s"), (150, "2 m"), (7384, "2 h 03 m"), (86400 * 2 + 3 * 3600, "2 d 3 h")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert watch._duration(seconds) == text
