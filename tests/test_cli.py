"""The command line: help, names of runs, configuration, and errors."""

import os
import pty
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luab import cli
from luab.errors import ConfigError, JobError
from luab.progress import wide_console
from luab.study.config import load_study
from luab.study.paths import Run

COMMANDS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)  # type: ignore[union-attr]
STAGES = {"fetch", "verify", "unpack", "index", "manifest", "targets", "pack", "train", "predict", "score", "collect"}


def luab(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[1])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LUAB_")}
    return subprocess.run(
        [sys.executable, "-m", "luab", *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": root} | env,
        capture_output=True,
        text=True,
        timeout=60,
        encoding="utf-8",
        errors="replace",
    )


def test_every_stage_has_a_command() -> None:
    assert set(COMMANDS) >= STAGES | {"status", "doctor", "plan", "headline", "docs", "demo-world"}


@pytest.mark.parametrize(
    "words", [[], *([name] for name in COMMANDS), ["render"], ["render", "table"], ["render", "figure"]]
)
def test_every_command_has_help(words: list[str]) -> None:
    shown = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output
    listed = [name for name in [*COMMANDS, "render"] if not words and f" {name} " not in shown.output]
    assert listed == []


def test_every_help_text_is_a_sentence() -> None:
    for command in [*cli.app.registered_commands, *cli.render_app.registered_commands]:
        assert (command.callback.__doc__ or "").strip().endswith(".")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["imagenet/resnet50/click-0.1/seed2", "imagenet/resnet50/click-0.1/seed2/"])
def test_a_run_is_named_by_its_folder(name: str) -> None:
    assert cli.run_of(name) == Run("imagenet", "resnet50", "click", 0.1, 2)
    assert cli.run_of(name).folder == name.rstrip("/")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resnet50",
        "imagenet/resnet50/click/seed0",
        "imagenet/resnet50/click-1/0",
        "imagenet/r/click-x/seed0",
        "imagenet/r/click-1/seedx",
    ],
)
def test_an_invalid_run_name_raises_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match=r"imagenet/resnet50/click-1/seed0"):
        cli.run_of(name)


@pytest.mark.parametrize("end", ["", "/", "/run.json", "/predictions/accuracy.json"])
def test_a_run_is_named_by_its_path_as_a_shell_completes_it(repository: Path, end: str) -> None:
    study, run = load_study(["config/config.yaml"], repository), Run("imagenet", "resnet50", "click", 1, 0)
    for start in ("results/runs", "./results/runs", str(Path("results/runs").absolute())):
        assert cli.run_of(f"{start}/{run.folder}{end}", study) == run
    with pytest.raises(ConfigError, match="not below results, the results of this configuration"):
        cli.run_of(f"results/demo/runs/{run.folder}{end}", study)


def test_luab_of_a_copied_environment_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    script = tmp_path / ".venv" / "bin" / "luab"
    cli._check_checkout(script)  # somebody else's project that has luab installed
    cli._check_checkout(repository / ".venv" / "bin" / "luab")
    (tmp_path / "luab").mkdir()
    (tmp_path / "luab" / "cli.py").touch()
    with pytest.raises(JobError, match=r"runs the code of .* was copied from there\. Run `make setup` in"):
        cli._check_checkout(script)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    cli._check_checkout(script)


def test_tables_in_a_pipe_are_not_cut(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    wide_console().print("x" * 300)
    assert capsys.readouterr().out == "x" * 300 + "\n"


def test_configurations_override_the_default(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.delenv("LUAB_CONFIG", raising=False)
    assert cli.study_of(None) == load_study(["config/config.yaml"])
    demo = load_study(["config/config.yaml", "config/demo.yaml"])
    assert cli.study_of([Path("config/demo.yaml")]) == demo
    assert cli.study_of([Path("config/config.yaml"), Path("config/demo.yaml")]) == demo


def test_jobs_use_the_configuration_of_their_workflow(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    kept = tmp_path / "kept.yaml"
    demo = load_study(["config/config.yaml", "config/demo.yaml"])
    kept.write_text(demo.dump(), encoding="utf-8")
    monkeypatch.setenv("LUAB_CONFIG", str(kept))
    assert cli.study_of(None) == demo
    assert cli.study_of([Path("config/config.yaml")]).demo is None  # --config overrides LUAB_CONFIG


def test_on_a_terminal_an_error_is_one_paragraph(repository: Path) -> None:
    master, terminal = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "luab", "train", "nonsense"], cwd=repository, stderr=terminal, stdout=terminal
    )
    os.close(terminal)
    said = b""
    try:
        while part := os.read(master, 4096):
            said += part
    except OSError:  # Linux raises this when the other end closes
        pass
    assert done.wait(60) == 1
    os.close(master)
    text = said.decode().replace("\r\n", "\n").strip()
    assert text.startswith("ConfigError: ") and "Traceback" not in text and "\n\n" not in text


def test_in_a_log_an_error_has_its_origin_and_ends_with_the_reason(repository: Path) -> None:
    done = luab("train", "nonsense", cwd=repository)
    assert done.returncode == 1 and done.stdout == ""
    where, _, reason = done.stderr.rstrip().splitlines()
    assert where.startswith("raised by cli.py:") and where.endswith(" main")
    assert reason.startswith("ConfigError: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fetch", "imagenet_abc"], ["no archive is called 'imagenet_abc'", "imagenet_ab"]),
        (["unpack", "imagenet_abc"], ["imagenet_abc", "config/archives.yaml"]),
        (["demo-world"], ["no `demo` section", "--config config/demo.yaml"]),
        (["demo-world", "--tags", "--config", "config/demo.yaml"], ["`paths.tags` is null", "leave out --tags"]),
        (["status", "--config", "config/nothing.yaml"], ["config/nothing.yaml", "No such file"]),
        (["manifest", "imagenet_train"], ["paths.imagenet is not set", "image-net.org"]),
        (["index"], ["imagenet_ab.json", "Run the step that writes it"]),
        (["collect"], ["missing: imagenet/", "and"]),
    ],
)
def test_failing_commands_explain_the_reason(
    repository: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    for name in ("config", "luab"):
        (tmp_path / name).symlink_to(repository / name)
    done = luab(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    last = done.stderr.strip().split("\n\n")[-1]
    assert [word for word in words if word not in last] == [], last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "luab"]


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("luab.cli", {"torch", "timm", "pandas", "matplotlib", "pyarrow", "snakemake", "requests", "lxml", "scipy"}),
        (
            "luab.training.train, luab.predict",
            {"snakemake", "dvc", "submitit", "matplotlib", "seaborn", "typer"},
        ),
        ("luab.benchmarks.score, luab.benchmarks.collect", {"torch", "timm", "matplotlib", "snakemake"}),
        ("luab.render.tables", {"torch", "timm", "snakemake"}),
    ],
)
def test_a_stage_imports_only_what_it_needs(repository: Path, modules: str, unwanted: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    )
    assert unwanted & set(done.stdout.split()) == set()


def test_doctor_exits_with_1_if_something_is_missing(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr("luab.commands.doctor.examine", lambda study, backbones: False)
    assert CliRunner().invoke(cli.app, ["doctor"]).exit_code == 1
    monkeypatch.setattr("luab.commands.doctor.examine", lambda study, backbones: True)
    assert CliRunner().invoke(cli.app, ["doctor"]).exit_code == 0


def test_plan_prints_trainings_and_an_estimate(repository: Path) -> None:
    done = luab("plan", cwd=repository, COLUMNS="160")
    assert done.returncode == 0
    trainings = len(load_study(["config/config.yaml"], repository).runs())
    assert f"{trainings} trainings" in done.stdout and "ESTIMATE" in done.stdout


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = luab("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"luab {version('luab')}\n"), done.stderr


WITHOUT_WORKFLOW = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"dvc", "submitit"} or name.startswith("snakemake"):
            if not name.startswith("snakemake_executor_plugin"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import luab
for name in luab.__all__ if "--help" in sys.argv else ():  # torch takes seconds to load
    getattr(luab, name)
from luab.cli import main
sys.argv = ["luab", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "evaluate"),
        (["plan"], 0, "trainings"),
        (["status"], 0, "Results of the study"),
        (["status", "--watch"], 1, "pip install 'luab[workflow]'"),
        (["publish"], 1, "pip install 'luab[workflow]'"),
        (["pull"], 1, "needs the package dvc"),
    ],
)
def test_library_and_commands_work_without_the_workflow_s_packages(
    words: list[str], code: int, said: str, repository: Path
) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LUAB_")}
    plugin = repository / "plugins" / "snakemake-executor-plugin-submitit" / "src"
    path = os.pathsep.join(map(str, [repository, repository / "luab" / "plugins", plugin]))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WORKFLOW, *words],
        cwd=repository,
        env=kept | {"PYTHONPATH": path, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=400,
        encoding="utf-8",
        errors="replace",
    )
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code and said in text, text
    assert "Traceback" not in text


def test_status_shows_the_demo_if_only_the_demo_was_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LUAB_CONFIG", raising=False)
    shutil.copytree(repository / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    run = "imagenet/test_resnet/click-1/seed0"
    shown = CliRunner().invoke(cli.app, ["status"], env={"COLUMNS": "100"})
    assert "resnet50" in shown.output and "test_resnet" not in shown.output
    (tmp_path / "results/demo/runs" / run).mkdir(parents=True)
    shown = CliRunner().invoke(cli.app, ["status"], env={"COLUMNS": "100"})
    assert shown.exit_code == 0 and run in shown.output and "this is the demo, config/demo.yaml" in shown.output
    (tmp_path / "results/runs/imagenet/resnet50/click-1/seed0").mkdir(parents=True)
    shown = CliRunner().invoke(cli.app, ["status"], env={"COLUMNS": "100"})
    assert run not in shown.output and "demo" not in shown.output


def test_index_takes_an_archive_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from luab.byproducts.imagenet_ab import read_index

    text = "<annotation><size><width>9</width><height>8</height></size></annotation>"
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "n01440764_1.xml").write_text(text, encoding="utf-8")
    subprocess.run(["tar", "-czf", "ab.tar.gz", "n01440764"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["index", "ab.tar.gz"], catch_exceptions=False)
    assert done.exit_code == 0 and "1 records" in done.output and done.output.endswith("ab.parquet\n")
    assert read_index(tmp_path / "ab.parquet", ["image_id"])["image_id"].to_pylist() == ["n01440764_1"]
    assert (tmp_path / "ab.json").is_file()
    with pytest.raises(ConfigError, match=r"ends in \.parquet"):
        CliRunner().invoke(cli.app, ["index", "ab.tar.gz", "--out", "ab.csv"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="belong to an archive"):
        CliRunner().invoke(cli.app, ["index", "imagenet_ab", "--out", "a.parquet"], catch_exceptions=False)
