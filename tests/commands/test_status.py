"""Output of `luab status`, `luab plan` and `luab headline` for studies with and without results."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luab.commands import status
from luab.files import read_json, write_json
from luab.planning.estimate import parts, published_speeds
from luab.provenance.code import code_digest, prediction_code, training_code
from luab.render import headline
from luab.study.config import Study, load_study
from luab.study.paths import Run

NONE = Run("imagenet", "test_resnet", "none", 0.0, 0)
CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "200")
    yield


@pytest.fixture
def study(toy_study: Callable[..., Study]) -> Study:
    """A study with two runs and no results."""
    return toy_study()


def write_results(study: Study, run: Run) -> None:
    """Writes the cards of a finished run."""
    layout = study.layout
    code = {"train": code_digest(*training_code("imagenet")), "predict": code_digest(*prediction_code("imagenet"))}
    write_json(layout.run_json(run), {"model_sha256": "aa", "code": code})
    write_json(layout.prediction_card(run, "all"), {"model_sha256": "aa", "code": code["predict"]})
    write_json(layout.score(run, "imagenet_val"), {})


def change(path: Path, **keys: object) -> None:
    """Replaces values in a card."""
    write_json(path, read_json(path) | keys)


def row(study: Study, run: Run, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Cells of a run in the table of `luab status`: training, predictions, scores."""
    status.print_status(study)
    lines = [line for line in capsys.readouterr().out.splitlines() if run.folder in line]
    assert len(lines) == 1
    return [cell.strip() for cell in lines[0].split("│")[2:-1]]


def test_without_results_everything_is_missing(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert row(study, NONE, capsys) == ["missing"] * 3
    assert row(study, CLICK, capsys) == ["missing"] * 3


def test_a_finished_run_is_done_and_the_other_missing(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(study, CLICK)
    assert row(study, CLICK, capsys) == ["done"] * 3
    assert row(study, NONE, capsys) == ["missing"] * 3


def test_older_training_code_is_shown(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(study, CLICK)
    change(study.layout.run_json(CLICK), code={"train": "0" * 12, "predict": ""})
    assert row(study, CLICK, capsys) == ["older code", "done", "done"]


def test_older_prediction_code_is_shown(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(study, CLICK)
    change(study.layout.prediction_card(CLICK, "all"), code="0" * 12)
    assert row(study, CLICK, capsys) == ["done", "older code", "done"]


def test_predictions_of_another_model_are_not_current(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(study, CLICK)
    change(study.layout.run_json(CLICK), model_sha256="bb")
    assert row(study, CLICK, capsys)[0] == "done"
    assert row(study, CLICK, capsys)[1] not in ("done", "missing")


def test_incomplete_suites_are_counted(toy_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]) -> None:
    suites = [{"name": "all", "benchmarks": ["imagenet_val"]}, {"name": "more", "benchmarks": ["imagenet_v2"]}]
    study = Study.model_validate(toy_study().model_dump(mode="json") | {"suites": suites})
    write_results(study, CLICK)
    assert row(study, CLICK, capsys) == ["done", "1 of 2", "1 of 2"]


def test_a_card_without_a_code_digest_counts_as_older_code(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """`luab.training.train.train` called from a script writes no code digest."""
    write_results(study, CLICK)
    write_json(study.layout.run_json(CLICK), {"model_sha256": "aa"})
    assert row(study, CLICK, capsys) == ["older code", "done", "done"]


def test_the_plan_lists_backbones_and_gpu_hours(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = load_study(["config/config.yaml"], repository)
    full = full.model_copy(update={"paths": full.paths.model_copy(update={"results": tmp_path})})
    status.print_plan(full)
    said = capsys.readouterr().out
    assert all(backbone.name in said for backbone in full.backbones)
    total = sum(part.gpu_hours for part in parts(full, published_speeds(full)))
    assert f"{len(full.runs())} trainings, about {total:,.0f} GPU hours with their predictions: an ESTIMATE" in said


def test_the_demo_has_no_gpu_hours(repository: Path) -> None:
    demo = load_study(["config/config.yaml", "config/demo.yaml"], repository)
    assert status.summary(demo) == f"{len(demo.runs())} trainings on the demo world, on the CPU."


def test_the_headline_names_the_result_files(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    headline.print_headline(study)
    assert "nothing yet; run `make demo`" in capsys.readouterr().out
    study.layout.scores_csv().parent.mkdir(parents=True)
    study.layout.scores_csv().write_text("", encoding="utf-8")
    headline.print_headline(study)
    said = "".join(capsys.readouterr().out.split())
    assert said.endswith(str(study.layout.scores_csv())) and "report.html" not in said
