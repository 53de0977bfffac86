"""`luab evaluate`: the numbers of predict and score for any checkpoint, folders by name, and clear errors."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from luab import cli
from luab.benchmarks.score import score
from luab.commands import evaluate as evaluation
from luab.commands.evaluate import FOLDER, evaluate, find_checkpoint
from luab.commands.sanity import COLUMNS
from luab.errors import ConfigError, DataError
from luab.files import read_json
from luab.model import build_model
from luab.predict import predict
from luab.study.paths import Run
from luab.training.checkpoint import save_model

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)
SMALL = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0, "input_size": [3, 32, 32]}


@pytest.fixture
def study(validated_study):
    return validated_study


def weights(file: Path, classes: int, favourite: int | None = None, **config) -> Path:
    """Weights of test_resnet in timm's format, with config.json; `favourite` is the answer to every image."""
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=classes)
    if favourite is not None:
        with torch.no_grad():
            model.get_classifier().bias[favourite] += 1000
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), file)
    described = {"architecture": "test_resnet", "num_classes": classes, "pretrained_cfg": SMALL} | config
    file.with_name("config.json").write_text(json.dumps(described), encoding="utf-8")
    return file


def test_the_numbers_of_a_run_equal_those_of_predict_and_score(study, tmp_path, monkeypatch):
    torch.manual_seed(1)
    recipe = study.recipe(RUN.backbone)
    model = build_model(RUN.backbone, recipe, 2)
    with torch.no_grad():  # random weights rarely predict 0, 1 or 2, the classes of the images
        model.backbone.get_classifier().bias[:3] += 1
    file = study.layout.run(RUN) / "model.safetensors"
    save_model(file, model, {"run": RUN.identity(), "recipe": recipe.model_dump(mode="json")})
    predict(study, RUN, "all", ("imagenet_val",))
    folder = study.layout.prediction_folder(RUN)
    (stored,) = score(["imagenet_val"], folder, study.layout.manifest_folder(), RUN.identity(), tmp_path / "s", 32)
    metrics = read_json(stored)["metrics"]
    assert 0 < metrics["top1"] < 1, "otherwise any scale would agree"
    table = tmp_path / "expected.csv"
    with open(table, "w", newline="", encoding="utf-8") as opened:
        rows = [["test_resnet", "imagenet_val", "top1", 50, 1, "somewhere"]]
        csv.writer(opened).writerows([COLUMNS, *rows])
    monkeypatch.setattr(cli, "study_of", lambda config: study)
    arguments = ["evaluate", str(file), "--published", str(table), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"{100 * metrics['top1']:.2f}" in done.output and f"{100 * metrics['top1'] - 50:+.2f}" in done.output
    assert "ImageNet validation set, arg-max over 1000 classes" in done.output and "somewhere" in done.output
    assert read_json(tmp_path / "out/scores/imagenet_val.json")["metrics"] == metrics
    assert read_json(tmp_path / "out/checkpoint.json")["input_px"] == 32


@pytest.fixture
def folder(toy_world):
    """30 images in three folders named by wnids, the classes 0, 1 and 2 of ImageNet."""
    return toy_world / "imagenet" / "train"


def top1(file: Path, images: Path, out: Path, backbone: str | None = None) -> dict[str, float]:
    study = evaluation.study_of_folder()
    study = study.model_copy(update={"compute": study.compute.model_copy(update={"workers": 0})})
    numbers, _, _ = evaluate(study, find_checkpoint(str(file), backbone), (), images, out=out)
    assert {number.n for number in numbers} == {30} and {number.benchmark for number in numbers} == {FOLDER}
    return {number.metric: number.value for number in numbers}


def test_folders_named_by_wnids_are_imagenets_classes(folder, tmp_path):
    found = top1(weights(tmp_path / "m/w.safetensors", 1000, favourite=1), folder, tmp_path / "out")
    assert found == {"balanced_accuracy": pytest.approx(1 / 3), "top1": pytest.approx(1 / 3)}
    found = top1(weights(tmp_path / "n/w.safetensors", 1000, favourite=999), folder, tmp_path / "out2")
    assert found["top1"] == 0


def test_label_names_decide_the_order_and_else_the_names(folder, tmp_path):
    names = sorted(path.name for path in folder.iterdir())
    named = weights(tmp_path / "a/w.safetensors", 4, favourite=3, label_names=["n00000000", *reversed(names)])
    assert top1(named, folder, tmp_path / "a/out")["top1"] == pytest.approx(1 / 3)
    nobody = weights(tmp_path / "b/w.safetensors", 4, favourite=0, label_names=["n00000000", *reversed(names)])
    assert top1(nobody, folder, tmp_path / "b/out")["top1"] == 0
    table = pq.read_table(tmp_path / "b/out/manifests/folder_val.parquet").to_pylist()
    assert {(row["group"], row["labels"][0]) for row in table} == set(zip(names, (3, 2, 1), strict=True))
    plain = weights(tmp_path / "c/w.safetensors", 3, favourite=2)
    assert top1(plain, folder, tmp_path / "c/out")["top1"] == pytest.approx(1 / 3)
    four = weights(tmp_path / "d/w.safetensors", 4)
    with pytest.raises(DataError, match="the model has 4 classes and the folder 3"):
        top1(four, folder, tmp_path / "d/out")
    wrong = weights(tmp_path / "e/w.safetensors", 3, label_names=["n01440765", *names[1:]])
    with pytest.raises(DataError, match="n01440764: Did you mean n01440765"):
        top1(wrong, folder, tmp_path / "e/out")


def test_a_folder_needs_no_checkout(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUAB_CONFIG", raising=False)
    file = weights(tmp_path / "m/w.safetensors", 3, favourite=0)
    done = CliRunner().invoke(cli.app, ["evaluate", str(file), "--images", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0 and "33.33" in done.output and "held-out images" in done.output
    (out,) = (tmp_path / "results/evaluated").iterdir()
    assert out.name.startswith("test_resnet-") and (out / "predictions/folder_val.parquet").is_file()


def test_what_is_not_a_checkpoint_raises(study, tmp_path):
    for name, message in (
        ("nothing.safetensors", "found no such file"), ("a/b", "found no such file"),
        ("resnet50.nonsense", "no such weights"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, DataError), match=message):
            find_checkpoint(name, None)
    (tmp_path / "w.pth").write_bytes(b"\x80\x04K*.")
    with pytest.raises(DataError, match="luab unpickles no weights"):
        find_checkpoint(str(tmp_path / "w.pth"), "test_resnet")
    bare = weights(tmp_path / "m/w.safetensors", 1000)
    bare.with_name("config.json").unlink()
    with pytest.raises(ConfigError, match="Pass --backbone"):
        find_checkpoint(str(bare), None)
    with pytest.raises(DataError, match="found another model's"):
        evaluate(study, find_checkpoint(str(bare), "test_vit"), ["imagenet_val"])


def test_benchmarks_without_data_or_with_other_classes_raise(study, tmp_path, folder):
    thousand = find_checkpoint(str(weights(tmp_path / "m/w.safetensors", 1000)), None)
    with pytest.raises(DataError, match=r"no manifests for imagenet_a.*snakemake --cores 4 .*imagenet_a\.json"):
        evaluate(study, thousand, ["imagenet_a"])
    with pytest.raises(ConfigError, match="Did you mean imagenet_v"):
        evaluate(study, thousand, ["imagenet_vall"])
    with pytest.raises(ConfigError, match="exclude each other"):
        evaluate(study, thousand, ["imagenet_val"], folder)
    three = find_checkpoint(str(weights(tmp_path / "n/w.safetensors", 3)), None)
    with pytest.raises(ConfigError, match="expected a model with 1000 classes, found 3"):
        evaluate(study, three, ["imagenet_val"])
    with pytest.raises(DataError, match="no manifest for a benchmark of a model with 3 classes"):
        evaluate(study, three)
    numbers, left_out, _ = evaluate(study, thousand)
    assert [number.metric for number in numbers] == ["top1", "top5"] and left_out == []
