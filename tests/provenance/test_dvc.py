"""Files that DVC reads: metrics, curves, names of models, results/dvc.yaml."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from luab.benchmarks.collect import COLUMNS
from luab.errors import DataError
from luab.provenance.dvc import artifact_name, write_curves, write_dvc_file, write_metrics
from luab.study.paths import Run

RUNS = [Run("imagenet", "resnet50.tv_in1k", "click", 1.0, seed) for seed in (0, 1)]


def scores(*cells: tuple[Run, str, str, str, float]) -> pd.DataFrame:
    rows = [[*run.identity().values(), *cell, 10, "p"] for run, *cell in cells]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_metrics_are_means_over_seeds_of_numbers_that_every_seed_has(tmp_path: Path) -> None:
    of_run = [
        (RUNS[0], "imagenet_val", "top1", "", 0.5),
        (RUNS[1], "imagenet_val", "top1", "", 0.75),
        (RUNS[0], "in9", "bg_gap", "", 0.25),  # of one seed only: no mean
        (RUNS[0], "wsol_test", "point_in_box", "", 0.5),
        (RUNS[1], "wsol_test", "point_in_box", "", 1.0),
        (RUNS[0], "wsol_test", "point_in_box", "large", 0.1),  # a detail, not the number
        (Run("imagenet", "resnet50.tv_in1k", "random", 1.0, 0), "imagenet_val", "top1", "", 0.0),
        (Run("imagenet", "resnet50.tv_in1k", "click", 0.1, 0), "imagenet_val", "top1", "", 0.0),
    ]
    write_metrics(scores(*of_run), {tmp_path / "m.json": RUNS})
    found = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert found == {"seeds": 2, "imagenet_val": 0.625, "wsol_test.point_in_box": 0.75}


def test_metrics_of_a_run_without_scores_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"click-1/seed0.*Collect the scores again"):
        write_metrics(scores(), {tmp_path / "m.json": RUNS})


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    logs = [tmp_path / f"{run.seed}.csv" for run in RUNS]
    header = "epoch,lr,loss,classification,byproduct"
    logs[0].write_text(f"{header},byproduct_gradient_ratio\n0,1,3,2,1,4\n1,1,2,1.5,0.5,\n", encoding="utf-8")
    logs[1].write_text(f"{header},byproduct_gradient_ratio\n0,1,7,4,3,6\n1,1,3,2.5,0.5,5\n", encoding="utf-8")
    none = Run("imagenet", "resnet50.tv_in1k", "none", 0.0, 0)
    (tmp_path / "none.csv").write_text("epoch,lr,loss,classification\n0,1,2,2\n", encoding="utf-8")
    # An older version wrote zeros for a baseline.
    (tmp_path / "old.csv").write_text(f"{header}\n0,1,3,3,0\n", encoding="utf-8")
    old = Run("imagenet", "resnet18", "none", 0.0, 0)
    groups = {tuple(RUNS): logs, (none,): [tmp_path / "none.csv"], (old,): [tmp_path / "old.csv"]}
    quantities = write_curves(tmp_path / "c.csv", groups)
    assert quantities == ["loss", "classification", "byproduct", "byproduct_gradient_ratio"]
    assert (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines() == [
        "dataset,backbone,supervision,epoch,loss,classification,byproduct,byproduct_gradient_ratio,seeds",
        "imagenet,resnet50.tv_in1k,click,0,5,3,2,5,2",
        "imagenet,resnet50.tv_in1k,click,1,2.5,2,0.5,5,2",
        "imagenet,resnet50.tv_in1k,none,0,2,2,,,1",
        "imagenet,resnet18,none,0,3,3,,,1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"log.csv: cannot read this training log .*Train the run"),
        ("", r"log.csv: the training log has no rows .*Train the run again"),
        ("epoch,lr\n0,1\n", r"log.csv: the training log has no rows .*Train the run again"),
    ],
)
def test_curves_without_a_log_raise(tmp_path: Path, text: str | None, message: str) -> None:
    log = tmp_path / "log.csv"
    if text is not None:
        log.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        write_curves(tmp_path / "c.csv", {(RUNS[0],): [log]})
    assert not (tmp_path / "c.csv").exists()


def test_names_are_valid_in_dvc() -> None:
    from dvc.repo.artifacts import name_is_compatible

    odd = Run("coco", "vit_tiny.Deit_IN1k", "click_shared", 0.1, 2)
    assert artifact_name(odd) == "coco-vit-tiny-deit-in1k-click-shared-seed2"
    assert name_is_compatible(artifact_name(odd)) and not name_is_compatible("vit.tiny")


def test_dvc_can_read_the_file(tmp_path: Path) -> None:
    from dvc.schema import COMPILED_MULTI_STAGE_SCHEMA

    models = {run: tmp_path / "runs" / run.folder / "model.safetensors" for run in RUNS}
    metrics = [tmp_path / "metrics" / "a.json"]
    sweep, curves = tmp_path / "tables" / "s.csv", tmp_path / "c.csv"
    write_dvc_file(tmp_path / "dvc.yaml", models, metrics, sweep, curves, ["byproduct_gradient_ratio"], "demo world")
    text = (tmp_path / "dvc.yaml").read_text(encoding="utf-8")
    content = COMPILED_MULTI_STAGE_SCHEMA(yaml.safe_load(text))
    first = content["artifacts"]["imagenet-resnet50-tv-in1k-click-seed0"]
    assert first["path"] == "runs/imagenet/resnet50.tv_in1k/click-1/seed0/model.safetensors"
    assert first["type"] == "model" and "demo-world" in first["labels"] and "lambda 1, seed 0" in first["desc"]
    plots = [(name, plot["title"]) for item in content["plots"] for name, plot in item.items()]
    assert plots[1] == ("byproduct_gradient_ratio", "Training: byproduct gradient ratio (demo world)")
    assert content["metrics"] == ["metrics/a.json"] and str(tmp_path) not in text and "stages" not in content


def test_equal_names_in_dvc_raise(tmp_path: Path) -> None:
    pair = [Run("imagenet", name, "none", 0.0, 0) for name in ("a_b", "a.b")]
    with pytest.raises(DataError, match=r"a\.b, a_b"):
        models = {run: tmp_path / run.folder for run in pair}
        write_dvc_file(tmp_path / "dvc.yaml", models, [], tmp_path / "s", tmp_path / "c", [], "")
