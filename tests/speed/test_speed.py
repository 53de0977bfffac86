"""The measurements in speed/ run and write their reports; the speed itself is not tested."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from luab.study.config import Recipe

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
TINY_RECIPE = {"epochs": 1, "batch_size": 2, "input_px": 224, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0}
TINY_RECIPE |= {"warmup_epochs": 0}


@pytest.fixture
def script(monkeypatch):
    """Imports a script of speed/ by name."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(REPOSITORY / "speed")
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


SCRIPTS = ["archives", "coco_index", "executor", "feeding", "gpu", "gpu_loops", "index", "loader", "scoring"]
SCRIPTS += ["tracking", "training"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name):
    done = subprocess.run(
        [sys.executable, f"speed/{name}.py", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    )
    assert f"python speed/{name}.py" in done.stdout and "--help" in done.stdout


def test_no_script_is_missing_above():
    assert sorted(path.stem for path in (REPOSITORY / "speed").glob("*.py") if path.stem != "measuring") == SCRIPTS


def test_loader_runs_on_drawn_images(script, tmp_path, capsys):
    script("loader").main(["--n", "32", "--runs", "1", "--no-memory", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "loader.json").read_text(encoding="utf-8"))
    assert report["images"] == "32 drawn JPEGs, 32 read per run" and len(report["images_per_s_per_core"]) == 9
    assert report["ratio_to_official"]["official transform"] == 1
    assert report["pixels"]["mean"] < 0.2 and report["pixels"]["values"] == 3 * 32 * 3 * 224 * 224
    assert (tmp_path / "loader.png").stat().st_size > 5000
    assert "x official transform" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("recipe", ["resnet", "beyond"])
def test_training_runs_in_tiny_form(script, tmp_path, capsys, recipe):
    script("training").main(
        ["--tiny", "--runs", "1", "--recipe", f"config/recipes/{recipe}.yaml", "--out", str(tmp_path)]
    )
    report = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert list(report["overhead"]) == sorted(["timm, plain loop", "luab, baseline", "luab, click"])
    assert report["overhead"]["timm, plain loop"] == 0
    if report["device"] == "cpu":
        assert "GPU figures are not measured yet" in " ".join(capsys.readouterr().out.split())


def test_training_runs_on_coco(script, tmp_path):
    recipe = ["--recipe", "config/recipes/coco_resnet.yaml", "--dataset", "coco"]
    script("training").main(["--tiny", "--runs", "1", *recipe, "--out", str(tmp_path)])
    report = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert report["dataset"] == "coco" and list(report["overhead"]) == ["luab, baseline", "luab, click"]
    assert report["overhead"]["luab, baseline"] == 0


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="files can be dropped from the cache only on Linux")
def test_every_part_for_a_gpu_runs_in_tiny_form(tmp_path):
    done = subprocess.run(
        ["sh", "speed/gpu.sh", "--device", "cpu", "--tiny", "--seconds", "3000", "--out", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"COLUMNS": "200", "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("resnet50", "vit_base_patch16_224", "feeding", "tests"):
        assert f"{part}: finished" in done.stdout
    loops = ["luab, baseline", "luab, click", "plain loop", "timm's train script"]
    for backbone in ("resnet50", "vit_base_patch16_224"):
        report = json.loads((tmp_path / f"gpu-{backbone}.json").read_text(encoding="utf-8"))
        assert sorted(report["images_per_s"]) == sorted([*loops, *(f"{name}, compiled" for name in loops)])
        assert report["summary"]["timm's train script, compiled"]["ratio_to_timm"] == 1
        assert report["peak_tflops"] is None and report["flops_per_image"] > 1e6
    assert "peak not known" in done.stdout


@pytest.mark.slurm
def test_executor_runs_in_tiny_form(script, tmp_path, capsys):
    executor = script("executor")
    from cluster import missing_programs

    if missing := missing_programs(accounting=True):
        pytest.skip(missing)
    executor.main(["--jobs", "2", "--runs", "1", "--out", str(tmp_path)])
    runs = json.loads((tmp_path / "executor.json").read_text(encoding="utf-8"))["runs"]
    [plain], [plugin] = runs["sbatch alone"], runs["executor plugin"]
    assert (plain["sbatch"], plain["squeue"], plugin["sbatch"]) == (1, 0, 1) and plugin["squeue"] > 0
    assert plugin["job_cpu_s"] > plain["job_cpu_s"] and plugin["own_cpu_s"] > 0.5
    assert "2 jobs of one second" in capsys.readouterr().out


def test_a_part_that_takes_too_long_is_ended(script, tmp_path, monkeypatch):
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "_TO_END_S", 0.1)
    monkeypatch.setattr(gpu, "SHARES", {"slow": 0.5, "bad": 0.3, "good": 0.2})
    programs = {"slow": "import time; time.sleep(60)", "bad": "raise SystemExit(3)", "good": "pass"}
    monkeypatch.setattr(gpu, "commands", lambda _: {name: ["-c", text] for name, text in programs.items()})
    options = argparse.Namespace(seconds=8.0)
    assert gpu.run_parts(options) == {"slow": "out of time", "bad": "status 3", "good": "finished"}


def test_the_share_of_the_peak_by_hand(script):
    loops = script("gpu_loops")
    rates = {loops.SCRIPT: [100.0, 90.0, 110.0], loops.LUAB: [120.0, 90.0, 110.0]}
    report = {"images_per_s": rates, "peak_tflops": 1.0, "flops_per_image": 2e9}
    assert loops.summary(report)[loops.LUAB] == {"median": 110.0, "ratio_to_timm": 1.0, "share_of_peak": 0.22}
    assert loops.peak_tflops("NVIDIA A100-SXM4-40GB") == 312 and loops.peak_tflops("NVIDIA H100 PCIe") is None
    parts = loops.Parts(Recipe.model_validate(TINY_RECIPE), 2, torch.device("cpu"))
    assert loops.flops_per_image(parts, "resnet18") == pytest.approx(3 * 2 * 1.814e9, rel=0.03)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="files can be dropped from the cache only on Linux")
def test_feeding_runs_in_tiny_form(script, tmp_path, capsys):
    feeding = script("feeding")
    feeding.main(["--tiny", "--runs", "1", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "feeding.json").read_text(encoding="utf-8"))
    names = {"timm's loader, plain loop", "luab, exact", "luab, fast"}
    names |= {"luab's loader alone, fast"}
    from_disk = {f"{name}, from disk" for name in names}
    from_memory = {f"{name}, from memory" for name in names if Path("/dev/shm").is_dir()}
    assert set(report["images_per_s"]) == {"luab, one batch in memory"} | from_disk | from_memory
    assert all(rate > 0 for rates in report["images_per_s"].values() for rate in rates)
    assert "of one batch's rate" in " ".join(capsys.readouterr().out.split())


def test_the_rate_of_timms_script_is_parsed_from_its_log(script):
    feeding = script("feeding")
    line = (
        "Train: 0 [{:>4d}/4 ( 25%)]  Loss: 6.95 (6.93)  Time: 0.200s, {:>7.2f}/s  (0.200s,   40.00/s)  "
        "LR: 1.000e-01  Data: 0.010 (0.010)"
    )
    log = "\n".join(line.format(k, rate) for k, rate in enumerate([1.0, 40.0, 60.0, 1234.5]))
    # Steps of 8 images at 40/s and 60/s take 8 / 40 + 8 / 60 = 1 / 3 s: 16 images in 1 / 3 s.
    assert feeding.rate_of_log("\n".join(log.splitlines()[:3]), 1) == pytest.approx(48)
    assert feeding.rate_of_log(log, 3) == 1234.5
    with pytest.raises(SystemExit, match="logged 4 steps, expected more than 4"):
        feeding.rate_of_log(log, 4)


def test_every_image_of_an_epoch_is_a_link_to_its_file_or_to_one_copy(script, tmp_path):
    feeding, root = script("feeding"), tmp_path / "root"
    (root / "n01").mkdir(parents=True)
    (root / "n01" / "a.JPEG").write_bytes(b"jpeg")
    rows = pd.DataFrame({"image_id": ["0", "1"], "path": ["n01/a.JPEG"] * 2, "labels": [[0]] * 2})
    for name, in_memory in {"disk": False, "memory": True}.items():
        links = feeding.laid_out(root, rows, tmp_path / name, in_memory)
        assert links["path"].tolist() == ["n01/0.JPEG", "n01/1.JPEG"]
        targets = {(tmp_path / name / "train" / path).resolve() for path in links["path"]}
        copy = tmp_path / "memory" / "copies" / "n01" / "a.JPEG" if in_memory else root / "n01" / "a.JPEG"
        assert targets == {copy.resolve()} and copy.read_bytes() == b"jpeg"


def test_files_that_do_not_fit_into_memory_are_left_out_with_a_message(script, tmp_path, capsys, monkeypatch):
    feeding = script("feeding")
    (tmp_path / "a").write_bytes(b"1234")
    monkeypatch.setattr(feeding, "_MEMORY_FILES", tmp_path / "absent")
    assert not feeding.fits_into_memory([tmp_path / "a"])
    assert "'from memory' is left out" in capsys.readouterr().err
    monkeypatch.setattr(feeding, "_MEMORY_FILES", tmp_path)
    assert feeding.fits_into_memory([tmp_path / "a"])
