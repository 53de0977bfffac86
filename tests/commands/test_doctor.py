"""`luab doctor`: its checks and the fixes that it suggests."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luab.commands import doctor
from luab.study.config import Study, load_study


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "250")
    yield


@pytest.fixture
def full(repository: Path) -> Study:
    return load_study(["config/config.yaml"], repository)


def with_paths(study: Study, **paths: object) -> Study:
    return study.model_copy(update={"paths": study.paths.model_copy(update=paths)})


def line(report: str, what: str) -> str:
    """The line of the report about one check."""
    lines = [text for text in report.splitlines() if f" {what} " in text]
    assert len(lines) == 1, report
    return lines[0]


def script(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_in_a_fresh_clone_only_imagenet_is_missing(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine(full) is False
    report = capsys.readouterr().out
    assert line(report, "ImageNet").split()[0] == "missing"
    assert "set paths.imagenet to a folder with train/<wnid>/ and val/" in report
    assert [text for text in report.splitlines() if text.startswith("missing")] == [line(report, "ImageNet")]
    assert "paths.copies.objectnet" in line(report, "objectnet")
    for name in ("Python", "torch", "timm", "snakemake", "disk for data", "Slurm", "GPU"):
        assert f" {name} " in report
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine(load_study(["config/config.yaml", "config/demo.yaml"], repository)) is True
    assert "the demo world is drawn" in capsys.readouterr().out


def test_an_incomplete_imagenet_is_missing(full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("n01440764", "n01443537"):
        (tmp_path / "train" / name).mkdir(parents=True)
    assert doctor.examine(with_paths(full, imagenet=tmp_path)) is False
    assert "2 of 1000 class folders in train/" in line(capsys.readouterr().out, "ImageNet")
    assert doctor.examine(with_paths(full, imagenet=tmp_path / "nowhere")) is False
    assert "nowhere/train not found" in line(capsys.readouterr().out, "ImageNet")


def test_the_toy_imagenet_is_missing_too(toy_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]) -> None:
    doctor.examine(toy_study())
    assert "3 of 1000 class folders" in line(capsys.readouterr().out, "ImageNet")


def test_a_complete_imagenet_is_ok(full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(1000):
        (tmp_path / "train" / f"n{k:08d}").mkdir(parents=True)
    study = with_paths(full, imagenet=tmp_path, copies={"objectnet": tmp_path, "imagenet_sketch": tmp_path / "gone"})
    assert doctor.examine(study) is False
    report = capsys.readouterr().out
    assert line(report, "ImageNet").startswith("ok") and line(report, "objectnet").startswith("ok")
    assert line(report, "imagenet_sketch").startswith("missing")
    study = with_paths(full, imagenet=tmp_path, copies={"objectnet": tmp_path})
    assert doctor.examine(study) is True


def test_a_driver_that_torch_does_not_support_gets_the_command(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(
        tmp_path / "bin", "nvidia-smi", 'echo "| NVIDIA-SMI 535.1   Driver Version: 535.1   CUDA Version: 12.2     |"'
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert doctor.examine(full) is False
    assert "make TORCH_BACKEND=cu126" in line(capsys.readouterr().out, "GPU")
    script(tmp_path / "bin", "nvidia-smi", "exit 9")
    doctor.examine(full)
    assert line(capsys.readouterr().out, "GPU").startswith("note")


@pytest.mark.parametrize(
    ("commands", "verdict", "words"),
    [
        ((), "note", "snakemake --cores N"),
        (("sbatch", "squeue"), "note", "no sacct"),
        (("sbatch", "squeue", "sacct"), "ok", "sbatch, squeue, sacct"),
    ],
)
def test_slurm_commands_are_checked(
    full: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    commands: tuple[str, ...],
    verdict: str,
    words: str,
) -> None:
    (tmp_path / "bin").mkdir()
    for name in commands:
        script(tmp_path / "bin", name, "true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    doctor.examine(full)
    found = line(capsys.readouterr().out, "Slurm")
    assert found.startswith(verdict) and words in found


def test_a_gpu_is_missing_if_the_study_needs_one(
    full: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_driver_cuda", lambda: None)
    doctor.examine(full.model_copy(update={"compute": full.compute.model_copy(update={"device": "cuda"})}))
    assert line(capsys.readouterr().out, "GPU").startswith("missing")


def test_the_command_exits_with_1(repository: Path) -> None:
    import sys

    done = subprocess.run([sys.executable, "-m", "luab", "doctor"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_coco_is_downloaded_or_needs_both_copies(
    full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(full)
    assert "will be downloaded" in line(capsys.readouterr().out, "COCO")
    for copies, text in (
        ({"coco_train": tmp_path}, "set paths.copies.coco_val too"),
        ({"coco_train": tmp_path, "coco_val": tmp_path / "away"}, "is not a folder"),
    ):
        assert not doctor.examine(with_paths(full, copies=copies))
        found = line(capsys.readouterr().out, "COCO")
        assert text in found and found.startswith("missing")
    doctor.examine(with_paths(full, copies={"coco_train": tmp_path, "coco_val": tmp_path}))
    assert line(capsys.readouterr().out, "COCO").startswith("ok")
