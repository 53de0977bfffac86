"""What `luab doctor` finds, and the remedy that it names."""

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


def line(said: str, what: str) -> str:
    """The line of the report on one thing."""
    lines = [text for text in said.splitlines() if f" {what} " in text]
    assert len(lines) == 1, said
    return lines[0]


def script(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_a_fresh_clone_lacks_imagenet_alone(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine(full) is False
    said = capsys.readouterr().out
    assert line(said, "ImageNet").split()[0] == "missing"
    assert "set paths.imagenet to a folder with train/<wnid>/ and val/" in said
    assert [text for text in said.splitlines() if text.startswith("missing")] == [line(said, "ImageNet")]
    assert "paths.copies.objectnet" in line(said, "objectnet")
    for name in ("Python", "torch", "timm", "snakemake", "disk for data", "Slurm", "GPU"):
        assert f" {name} " in said
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine(load_study(["config/config.yaml", "config/demo.yaml"], repository)) is True
    assert "the demo world is drawn" in capsys.readouterr().out


def test_an_imagenet_of_some_classes_is_not_enough(
    full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("n01440764", "n01443537"):
        (tmp_path / "train" / name).mkdir(parents=True)
    assert doctor.examine(with_paths(full, imagenet=tmp_path)) is False
    assert "2 of 1000 class folders in train/" in line(capsys.readouterr().out, "ImageNet")
    assert doctor.examine(with_paths(full, imagenet=tmp_path / "nowhere")) is False
    assert "nowhere/train is not there" in line(capsys.readouterr().out, "ImageNet")


def test_the_toy_world_is_named_missing_as_well(
    toy_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(toy_study())
    assert "3 of 1000 class folders" in line(capsys.readouterr().out, "ImageNet")


def test_a_whole_imagenet_passes(full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(1000):
        (tmp_path / "train" / f"n{k:08d}").mkdir(parents=True)
    study = with_paths(full, imagenet=tmp_path, copies={"objectnet": tmp_path, "imagenet_sketch": tmp_path / "gone"})
    assert doctor.examine(study) is False
    said = capsys.readouterr().out
    assert line(said, "ImageNet").startswith("ok") and line(said, "objectnet").startswith("ok")
    assert line(said, "imagenet_sketch").startswith("missing")
    study = with_paths(full, imagenet=tmp_path, copies={"objectnet": tmp_path})
    assert doctor.examine(study) is True


def test_a_driver_without_a_fitting_torch_gets_the_command(
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
        (("sbatch", "squeue"), "note", "sacct is not"),
        (("sbatch", "squeue", "sacct"), "ok", "sbatch, squeue, sacct"),
    ],
)
def test_slurm_is_looked_for(
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


def test_a_study_that_asks_for_a_gpu_misses_it(
    full: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_driver_cuda", lambda: None)
    doctor.examine(full.model_copy(update={"compute": full.compute.model_copy(update={"device": "cuda"})}))
    assert line(capsys.readouterr().out, "GPU").startswith("missing")


def test_the_command_ends_with_1(repository: Path) -> None:
    import sys

    done = subprocess.run([sys.executable, "-m", "luab", "doctor"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_coco_is_downloaded_or_both_its_copies_are_named(
    full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(full)
    assert "is downloaded" in line(capsys.readouterr().out, "COCO")
    for copies, told in (
        ({"coco_train": tmp_path}, "paths.copies.coco_val is missing"),
        ({"coco_train": tmp_path, "coco_val": tmp_path / "away"}, "is no folder"),
    ):
        assert not doctor.examine(with_paths(full, copies=copies))
        found = line(capsys.readouterr().out, "COCO")
        assert told in found and "missing" in found
    doctor.examine(with_paths(full, copies={"coco_train": tmp_path, "coco_val": tmp_path}))
    assert line(capsys.readouterr().out, "COCO").startswith("ok")
