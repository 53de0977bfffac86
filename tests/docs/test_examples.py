"""Examples in the documentation work: commands parse, configuration is valid, Python runs."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from luab.cli import app
from luab.planning.plan import Plan
from luab.study.config import Study, load_study
from luab.study.paths import Run

from .pages import PAGES, PLUGIN_PAGES, ROOT, blocks, prose

WITH_COMMANDS = [page for page in PAGES if blocks(page, "sh")]
# Configurations that are not a study's: tests/annotate has those of the collection tool.
OTHER_YAML = {*PLUGIN_PAGES, "docs/annotate.md"}
WITH_YAML = [page for page in PAGES if page not in OTHER_YAML and blocks(page, "yaml")]


def commands(script: str) -> Iterator[list[str]]:
    """The commands of a shell example, in words; <placeholders> become one word."""
    for line in script.splitlines():
        line = re.sub(r"<[\w ]+>", "PLACEHOLDER", line)
        for command in shlex.split(line, comments=True) and line.split(" && "):
            yield shlex.split(command, comments=True)


def luab_command(words: list[str]) -> Any:
    """Parses arguments of `luab` as the command line does; exits with a message where they are wrong."""
    import typer

    command, name = typer.main.get_command(app), "luab"
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"luab has no command {name}"
        command = command.commands[name]
    return command.make_context(name, list(words))


def check_snakemake(words: list[str], study: Study) -> None:
    """Parses the arguments and checks that the study has the targets."""
    from snakemake.cli import parse_args

    with contextlib.redirect_stderr(io.StringIO()) as messages:
        try:
            _, arguments = parse_args(words)
        except SystemExit:
            pytest.fail(f"snakemake {' '.join(words)}: {messages.getvalue()}")
    plan = Plan.of(study)
    known = {f"results/tables/{name}" for name in plan.tables} | {f"results/figures/{name}" for name in plan.figures}
    for target in arguments.targets:
        assert target == "results/report.html" or os.path.splitext(target)[0] in known, target


def check_make(words: list[str]) -> None:
    """Checks the target and the variables against the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"make (test |test-slow )?{name}=" if is_variable else rf"^{name}: "
        assert re.search(pattern, makefile, re.MULTILINE), word


@pytest.fixture(scope="module")
def study() -> Study:
    """The full study."""
    return load_study(["config/config.yaml"], ROOT)


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_parse(page: str, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    seen = 0
    for program, *words in (command for block in blocks(page, "sh") for command in commands(block)):
        seen += 1
        if program == "luab":
            luab_command(words)
        elif program == "snakemake":
            check_snakemake(words, study)
        elif program == "make":
            check_make(words)
        elif program == "dvc":
            from dvc.cli import parse_args

            parse_args(words)
        else:
            assert program in {"git", "cd", "."}, program
    assert seen


@pytest.mark.parametrize("page", [page for page in PAGES if "`luab " in prose(page)])
def test_commands_in_the_text_exist(page: str) -> None:
    import typer

    for words in re.findall(r"`luab ([^`]+)`", prose(page)):
        command = typer.main.get_command(app)
        name, *rest = words.split()
        if name == "--help":
            continue
        assert name in command.commands, f"{page}: luab {words}"  # type: ignore[attr-defined]
        options = {option for p in command.commands[name].params for option in p.opts}  # type: ignore[attr-defined]
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options, f"{page}: luab {words}"


def test_named_results_are_results_of_the_study(study: Study) -> None:
    names = re.compile(r"results/runs/(\w+/\w+/[\w-]+/seed\d+)(?:/predictions/(\w+)\.json)?")
    found = [match for page in WITH_COMMANDS for block in blocks(page, "sh") for match in names.findall(block)]
    assert found
    for run, suite in found:
        assert Run.parse(run) in study.runs(), run
        assert suite in {"", *(suite.name for suite in study.suites)}, suite


@pytest.mark.parametrize("page", WITH_YAML)
def test_configuration_is_valid(page: str, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        part = yaml.safe_load(block)
        if page == "docs/extending.md" and "backbones" in part:  # "add a line to backbones"
            default = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
            part["backbones"] = default["backbones"] + part["backbones"]
        file = tmp_path / "part.yaml"
        file.write_text(yaml.safe_dump(part), encoding="utf-8")
        Plan.of(load_study(["config/config.yaml", file], ROOT))


def run_python(code: str, folder: Path, replacements: dict[str, str]) -> None:
    """Runs an example in its own process, with a smaller model or fewer epochs."""
    for printed, small in replacements.items():
        assert code.count(printed) == 1, printed
        code = code.replace(printed, small)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr


def test_the_training_loop_of_the_readme_runs(toy_world: Path) -> None:
    (code,) = blocks("README.md", "python")
    assert blocks("docs/api/index.md", "python") == [code]
    check = "\nassert parts['loss'].isfinite() and parts['byproduct'] > 0 and epoch == 1\n"
    small = {
        '"resnet50"': '"test_resnet"',
        "range(90)": "range(2)",
        "shuffle=True, num_workers=8": "shuffle=True, num_workers=1",
        "256, num_workers=8": "256, num_workers=0",
        "imagenet/val": "imagenet/train",
    }
    check += "assert len(held_out) == 30 and 0 <= right <= 30 and not model.training\n"
    run_python(code + check, toy_world, small)


def test_the_training_loop_on_your_own_images_runs(toy_world: Path, tmp_path: Path) -> None:
    rows = []
    for k, file in enumerate(sorted((toy_world / "imagenet" / "train").glob("*/*.JPEG"))):
        copy = tmp_path / "photos" / file.parent.name / f"{file.stem}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        if k % 2:
            rows.append((str(copy.relative_to(tmp_path / "photos")), 0.5, k / 100))
    pd.DataFrame(rows[::-1], columns=["image", "x", "y"]).to_csv(tmp_path / "clicks.csv", index=False)
    (code,) = blocks("docs/own-data.md", "python")
    check = "\nassert outputs['logits'].shape[1] == len(classes) == 3 and data.taught_points == len(clicks) == 15\n"
    small = {
        '"resnet18", pretrained=True': '"test_resnet", pretrained=False',
        "range(20)": "range(2)",
        "num_workers=8": "num_workers=1",
    }
    run_python(code + check, tmp_path, small)


def test_metrics_run() -> None:
    (code,) = blocks("docs/api/metrics.md", "python")
    exec(code, {})


def test_an_exported_model_loads_as_shown(toy_study: Callable[..., Study], tmp_path: Path) -> None:
    from luab.commands.export import export
    from luab.training.train import train

    study, run = toy_study(recipe={"epochs": 1, "warmup_epochs": 0}), Run("imagenet", "test_resnet", "click", 1.0, 0)
    train(study, run)
    export(study, run, tmp_path / "resnet50-luab")
    (code,) = blocks("docs/export.md", "python")
    check = "\nimport torch; assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000) and transform is not None\n"
    run_python(code + check, tmp_path, {})
