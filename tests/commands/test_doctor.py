"""`luab doctor`: its checks and the fixes that it suggests."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from luab.commands import doctor
from luab.data.manifests.known_counts import DATA_SETS
from luab.data.manifests.labels import objectnet_folders, wnids
from luab.files import write_json
from luab.study.config import Study, load_study


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "3000")
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
    (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
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


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 training and 1000 validation images, links to one JPEG, in class folders; tests must not change it."""
    root = tmp_path_factory.mktemp("imagenet")
    Image.new("RGB", (1, 1)).save(root / "one.jpg")
    for k, wnid in enumerate(wnids()):
        for name in (f"train/{wnid}/{wnid}_1.JPEG", f"val/{wnid}/ILSVRC2012_val_{k + 1:08d}.JPEG"):
            (root / name).parent.mkdir(parents=True)
            (root / name).hardlink_to(root / "one.jpg")
    return root


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 1000 images the published number of ImageNet."""
    for name in ("imagenet_train", "imagenet_val"):
        monkeypatch.setitem(DATA_SETS[name], "n", 1000)


def copy_of(imagenet: Path, to: Path) -> Path:
    return Path(shutil.copytree(imagenet, to, copy_function=os.link))


def imagenet_line(study: Study, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    doctor.examine(study)
    return capsys.readouterr().out.partition(" ImageNet ")[2].partition(" imagenet_sketch ")[0].replace("\n", " ")


@pytest.mark.usefixtures("released")
def test_a_complete_imagenet_is_ok(full: Study, imagenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine(with_paths(full, imagenet=imagenet)) is True
    found = line(capsys.readouterr().out, "ImageNet")
    assert found.startswith("ok") and "1,000 images of imagenet_train" in found


def test_missing_images_are_counted(full: Study, imagenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = with_paths(full, imagenet=imagenet)
    assert doctor.examine(study) is False
    found = imagenet_line(study, capsys)
    assert "the 1,281,167 images of imagenet_train, found 1,000" in found
    assert "the 50,000 images of imagenet_val, found 1,000; missing: ILSVRC2012_val_00001001" in found
    doctor.examine(with_paths(full, imagenet=imagenet, partial=True))
    assert line(capsys.readouterr().out, "ImageNet").startswith("note")


def _remove(path: Path) -> None:
    shutil.rmtree(path)


def _flatten(val: Path) -> None:
    for image in list(val.glob("*/*")):
        image.rename(val / image.name)
        image.parent.rmdir()


def _damage(folder: Path) -> None:
    for image in list(folder.glob("*/*"))[:500]:
        image.unlink()
        image.write_bytes(b"<html>")


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (_remove, "train", "found 'one.jpg', 'val'"),
        (_remove, "val", "found 'one.jpg', 'train'"),
        (_remove, "train/n01440764", "1 of the 1000 class folders in train: n01440764"),
        (lambda folder: folder.rename(folder.with_name("x1")), "train/n01440764", "found 'x1'"),
        (lambda folder: next(folder.iterdir()).unlink(), "train/n01440764", "no images for 1 of the 1000"),
        (_flatten, "val", "found 1,000 images without class folders and no meta.mat"),
        (_damage, "train", "expected an image, found a damaged file"),
        (_damage, "val", "expected an image, found a damaged file"),
    ],
)
def test_an_imagenet_that_the_stages_would_refuse_is_missing(
    full: Study,
    imagenet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    place: str,
    words: str,
) -> None:
    root = copy_of(imagenet, tmp_path / "copy")
    change(root / place)
    study = with_paths(full, imagenet=root)
    assert doctor.examine(study) is False
    assert words in imagenet_line(study, capsys)


def test_the_toy_imagenet_lacks_validation_images(
    toy_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(toy_study())
    assert "val/<wnid>/ILSVRC2012_val_" in line(capsys.readouterr().out, "ImageNet")


def test_own_copies_are_listed_and_opened(full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[objectnet]" / "images"
    for name in objectnet_folders():
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "1.png")
    copies = {"objectnet": folder.parent, "imagenet_sketch": tmp_path / "gone"}
    copies |= {"imagenet_a": folder.parent}
    doctor.examine(with_paths(full, copies=copies))
    report = capsys.readouterr().out
    assert line(report, "objectnet").startswith("ok") and "[objectnet]: 113 images" in line(report, "objectnet")
    assert line(report, "imagenet_a").startswith("missing") and "found no such images" in line(report, "imagenet_a")
    assert line(report, "imagenet_sketch").startswith("missing")
    for image in folder.glob("*/1.png"):
        image.write_bytes(b"")
    doctor.examine(with_paths(full, copies=copies))
    assert "damaged file" in line(capsys.readouterr().out, "objectnet")


def gpu_line(study: Study, capsys: pytest.CaptureFixture[str]) -> str:
    doctor.examine(study)
    return capsys.readouterr().out.partition(" GPU ")[2].partition(" disk for ")[0].replace("\n", " ")


@pytest.mark.parametrize(
    ("shown", "built", "words"),
    [
        ("Driver Version: 535.1   CUDA Version: 12.2  |", "13.2", "CUDA 12.2. Reinstall .* make TORCH_BACKEND=cu126"),
        ("Driver Version: 470.1   CUDA Version: 11.4  |", "13.2", "make TORCH_BACKEND=cu118"),
        ("Driver Version: 390.1   CUDA Version: 9.1  |", "13.2", "CUDA 9.1. Update the driver"),
        ("KMD Version: 610.10     CUDA UMD Version: 13.3  |", None, "CUDA 13.3. .* make TORCH_BACKEND=cu130"),
        ("KMD Version: 710.10     CUDA UMD Version: 14.0  |", None, "CUDA 14.0. .* make TORCH_BACKEND=cu130"),
        ("KMD Version: 610.10     CUDA UMD Version: 13.3  |", "13.2", "driver .CUDA 13.3. supports this torch"),
        ("Driver Version: 535.10   CUDA Version: N/A  |", "13.2", "shows no CUDA version"),
        ("Driver Version: 535.10   CUDA Version: ERR!  |", "13.2", "shows no CUDA version"),
        ("", "13.2", "shows no CUDA version"),
    ],
)
def test_the_command_for_a_driver_is_printed_only_if_it_helps(
    full: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shown: str,
    built: str | None,
    words: str,
) -> None:
    script(tmp_path / "bin", "nvidia-smi", f'echo "| NVIDIA-SMI 535.1   {shown}"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", built)
    found = gpu_line(full, capsys)
    assert re.search(words, found) and ("make TORCH_BACKEND" in words) == ("TORCH_BACKEND" in found)
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU" in gpu_line(full, capsys)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo NVIDIA-SMI has failed; exit 9", "nvidia-smi fails: NVIDIA-SMI has failed"),
        ("exit 9", "nvidia-smi fails: exit code 9"),
        ("exec sleep 60", "no answer within 1 s"),
        (None, "no nvidia-smi"),
    ],
)
def test_an_nvidia_smi_that_does_not_answer(
    full: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: str | None,
    words: str,
) -> None:
    (tmp_path / "bin").mkdir()
    if body is not None:
        script(tmp_path / "bin", "nvidia-smi", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}" + (":/usr/bin:/bin" if body else ""))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_NVIDIA_SMI_S", 1)
    doctor.examine(full)
    found = line(capsys.readouterr().out, "GPU")
    assert found.startswith("note") and words in found and "TORCH_BACKEND" not in found
    doctor.examine(full.model_copy(update={"compute": full.compute.model_copy(update={"device": "cuda"})}))
    assert line(capsys.readouterr().out, "GPU").startswith("missing")


def test_a_gpu_on_which_torch_fails_is_missing(
    full: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.ones", fails)
    assert doctor.examine(full) is False
    assert "cannot compute on it: CUDA error: no kernel image" in line(capsys.readouterr().out, "GPU 0")


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


def test_the_command_exits_with_1(repository: Path) -> None:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "luab", "doctor"],
        cwd=repository,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_coco_is_downloaded_or_needs_both_copies(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.examine(full)
    assert "will be downloaded" in line(capsys.readouterr().out, "COCO")
    for copies, text in (
        ({"coco_train": tmp_path}, "set paths.copies.coco_val too"),
        ({"coco_train": tmp_path, "coco_val": tmp_path / "away"}, "away: expected val2014/COCO"),
    ):
        assert not doctor.examine(with_paths(full, copies=copies))
        found = capsys.readouterr().out
        assert text in found and line(found, "COCO").startswith("missing")
    copies = {"coco_train": tmp_path, "coco_val": tmp_path}
    for half in ("train2014", "val2014"):
        (tmp_path / half).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / half / f"COCO_{half}_000000000009.jpg")
    assert "instances_train2014.json: expected the boxes" in _coco_report(full, copies, capsys)
    (tmp_path / "annotations").mkdir()
    for half in ("train2014", "val2014"):
        (tmp_path / "annotations" / f"instances_{half}.json").touch()
    assert "expected the 82,783 images of coco_train, found 1" in _coco_report(full, copies, capsys)
    for name in copies:
        monkeypatch.setitem(DATA_SETS[name], "n", 1)
    doctor.examine(with_paths(full, copies=copies))
    assert line(capsys.readouterr().out, "COCO").startswith("ok")


def _coco_report(full: Study, copies: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> str:
    doctor.examine(with_paths(full, copies=copies))
    report = capsys.readouterr().out
    assert line(report, "COCO").startswith("missing")
    return report


def test_downloads_that_were_deleted_are_named(full: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = with_paths(full, data=tmp_path)
    archives, raw = study.layout.archive_folder(), study.layout.raw_folder("imagenet_r")
    write_json(archives / "imagenet_r.json", {"file": "r.tar", "sha256": "0" * 64})
    write_json(study.layout.raw_card("imagenet_r"), {})
    (archives / "r.tar").write_bytes(b"x")
    raw.mkdir()
    doctor.examine(study)
    assert line(capsys.readouterr().out, "archives").startswith("ok")
    (archives / "r.tar").unlink()
    doctor.examine(study)
    found = line(capsys.readouterr().out, "archives")
    assert found.startswith("note") and f"remove {archives / 'imagenet_r.json'}" in found
    raw.rmdir()
    doctor.examine(study)
    found = line(capsys.readouterr().out, "archives")
    assert found.startswith("missing") and f"2 cards without their file or folder: remove {raw}.json" in found
