"""The side-by-side measurements run and write what they measured; how fast is not tested."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark_of(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("COLUMNS", "200")
    threads = torch.get_num_threads()

    def load(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", REPOSITORY / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    torch.set_num_threads(threads)


def test_the_loaders_benchmark_runs_on_drawn_images(benchmark_of, tmp_path, capsys):
    benchmark_of("loader").main(["--n", "32", "--runs", "1", "--no-memory", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "loader.json").read_text())
    assert report["images"] == "32 drawn JPEGs, 32 read per run" and len(report["images_per_s_per_core"]) == 9
    assert report["ratio_to_official"]["official transform"] == 1
    assert report["pixels"]["mean"] < 0.2 and report["pixels"]["values"] == 3 * 32 * 3 * 224 * 224
    assert (tmp_path / "loader.png").stat().st_size > 5000
    assert "x official transform" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("recipe", ["resnet", "beyond"])
def test_the_trainings_benchmark_runs_in_tiny_form(benchmark_of, tmp_path, capsys, recipe):
    benchmark_of("training").main(
        ["--tiny", "--runs", "1", "--recipe", f"config/recipes/{recipe}.yaml", "--out", str(tmp_path)]
    )
    report = json.loads((tmp_path / "training.json").read_text())
    assert list(report["overhead"]) == sorted(["timm, plain loop", "luab, baseline", "luab, click"])
    assert report["overhead"]["timm, plain loop"] == 0
    if report["device"] == "cpu":
        assert "GPU figures are not measured yet" in " ".join(capsys.readouterr().out.split())


def test_the_trainings_benchmark_runs_on_coco(benchmark_of, tmp_path):
    recipe = ["--recipe", "config/recipes/coco_resnet.yaml", "--dataset", "coco"]
    benchmark_of("training").main(["--tiny", "--runs", "1", *recipe, "--out", str(tmp_path)])
    report = json.loads((tmp_path / "training.json").read_text())
    assert report["dataset"] == "coco" and list(report["overhead"]) == ["luab, baseline", "luab, click"]
    assert report["overhead"]["luab, baseline"] == 0
