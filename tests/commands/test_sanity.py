"""`luab sanity`: the same numbers as from `luab predict` and `luab score`, and clear errors."""

import csv

import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from luab import cli
from luab.benchmarks.catalogue import BENCHMARKS
from luab.benchmarks.score import score
from luab.commands.sanity import COLUMNS, Verdict, print_verdicts, read_expected, sanity, view_of
from luab.errors import ConfigError, DataError
from luab.files import read_json
from luab.model import build_model
from luab.predict import predict
from luab.study.paths import Run
from luab.study.recipes import Preprocessing
from luab.training.checkpoint import save_model

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)


@pytest.fixture
def study(validated_study):
    """One run with untrained weights."""
    study = validated_study
    torch.manual_seed(1)
    model = build_model(RUN.backbone, study.recipe(RUN.backbone), 2)
    with torch.no_grad():  # random weights rarely predict 0, 1 or 2, the classes of the images
        model.backbone.get_classifier().bias[:3] += 1
    save_model(study.layout.run(RUN) / "model.safetensors", model, {"run": RUN.identity()})
    return study


METRICS = {
    "imagenet_c": ("mce",),
    "imagenet_c_resize256": ("mce", "mean_accuracy"),
    "in9": ("original", "mixed_same", "mixed_rand", "bg_gap"),
    "in9_challenge": ("challenge_accuracy",),
}
"""Metrics in config/expected.csv of benchmarks that have no accuracy."""


def expected(path, *rows, model="test_resnet"):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([model, *row, "somewhere"] for row in rows)
    return path


def test_the_numbers_equal_those_of_predict_and_score(study, tmp_path):
    predict(study, RUN, "all", ("imagenet_val",))
    folder = study.layout.prediction_folder(RUN)
    (stored,) = score(["imagenet_val"], folder, study.layout.manifest_folder(), RUN.identity(), tmp_path / "s", 32)
    metrics = read_json(stored)["metrics"]
    assert 0 < metrics["top1"] < 1, "otherwise any scale would agree"
    rows = [("imagenet_val", name, 100 * value, 0) for name, value in metrics.items()]
    table = expected(tmp_path / "e.csv", *rows, ("imagenet_a", "accuracy", 1, 1))
    weights = study.layout.run(RUN) / "model.safetensors"
    found = sanity(study, "test_resnet", weights, table)
    assert [(v.expected.metric, v.agrees) for v in found] == [("top1", True), ("top5", True), ("accuracy", None)]
    kept = pq.read_table(study.paths.results / "sanity/test_resnet/predictions/imagenet_val.parquet")
    assert kept["top5"].equals(pq.read_table(folder / "imagenet_val.parquet")["top5"])
    assert kept["point_x"].null_count == 30  # the byproduct head is left out


def test_the_command_exits_with_1_if_a_number_differs(study, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "study_of", lambda config: study)
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "timm.safetensors")  # like timm's own files
    arguments = ["sanity", "--backbone", "test_resnet", "--weights", str(tmp_path / "timm.safetensors"), "--expected"]
    good = expected(tmp_path / "good.csv", ("imagenet_val", "top1", 50, 50))
    done = CliRunner().invoke(cli.app, [*arguments, str(good)], env={"COLUMNS": "80"})
    assert done.exit_code == 0 and "agrees" in done.output and "somewhere" in done.output
    bad = expected(tmp_path / "bad.csv", ("imagenet_val", "top1", 76.156, 0.15))
    done = CliRunner().invoke(cli.app, [*arguments, str(bad)], env={"COLUMNS": "80"})
    assert done.exit_code == 1 and "DIFFERS" in done.output and "76.16 ± 0.15" in done.output


def test_weights_of_another_model_and_a_pickle_raise(study, tmp_path):
    table = expected(tmp_path / "e.csv", ("imagenet_val", "top1", 1, 1))
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="found another model's"):
        sanity(study, "test_resnet", tmp_path / "other.safetensors", table)
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K*.")
    with pytest.raises(DataError, match="could not read it"):
        sanity(study, "test_resnet", tmp_path / "pickle.safetensors", table)


def test_missing_numbers_data_and_table_raise(study, tmp_path):
    table = expected(tmp_path / "e.csv", ("imagenet_a", "accuracy", 1, 1))
    with pytest.raises(ConfigError, match="Did you mean test_resnet"):
        sanity(study, "test_resnett", None, table)
    with pytest.raises(DataError, match="no manifests for imagenet_a"):
        sanity(study, "test_resnet", None, table)
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot read the table"):
        sanity(study, "test_resnet", None, tmp_path / "nowhere.csv")
    table.write_text("model,value\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns"):
        read_expected(table)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("m;imagenet_val;top1;0,761;0,1;s", r"line 2: expected top1 in percent, .* Then write 76\.1"),
        ("m;imagenet_vla;top1;76,1;0,1;s", "line 2: there is no benchmark 'imagenet_vla'. Did you mean imagenet_v"),
        ("m;imagenet_val;top1;76,1;;s", "line 2: expected a number such as 76.1, found ''"),
        ("m;imagenet_val;top1;76,1;1;s\nm;imagenet_val;top1;76;1;s", "line 3: m, imagenet_val, top1 is already in"),
    ],
)
def test_a_wrong_row_of_the_table_raises(tmp_path, row, sentence):
    table = tmp_path / "e.csv"
    table.write_text(f"model;benchmark;metric;value;tolerance;source\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_expected(table)


def test_a_model_with_other_preprocessing_raises(study):
    seen, preprocessing = view_of(study, "resnet50.tv_in1k")
    assert (seen.input_px, seen.crop_pct) == (224, 0.875)
    assert preprocessing == Preprocessing(weights="resnet50.tv_in1k", input_px=224, crop_pct=0.875)
    seen, _ = view_of(study, "resnet50.tv2_in1k")  # trained at 176 px
    assert (seen.input_px, seen.crop_pct) == (224, 0.965)
    assert view_of(study, "deit_tiny_patch16_224.fb_in1k")[1].interpolation == "bicubic"
    with pytest.raises(ConfigError, match="crop mode 'squash'"):
        view_of(study, "convnext_base.fb_in22k_ft_in1k_384")
    with pytest.raises(ConfigError, match="no such weights"):
        view_of(study, "resnet50.nonsense")


def test_a_backbone_of_the_study_gets_what_its_weights_need_too(study):
    """timm's weights of test_resnet need mean 0.5 and 160 px; weights of luab those of their card and recipe."""
    seen, preprocessing = view_of(study, "test_resnet")
    assert (seen.input_px, preprocessing.mean, preprocessing.weights) == (160, (0.5,) * 3, "test_resnet.r160_in1k")
    ours = study.layout.run(RUN) / "model.safetensors"
    seen, preprocessing = view_of(study, "test_resnet", ours)
    assert (seen.input_px, preprocessing) == (32, Preprocessing())
    card = {"run": RUN.identity(), "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}}
    save_model(ours, build_model(RUN.backbone, study.recipe(RUN.backbone), 2), card)
    assert view_of(study, "test_resnet", ours)[1].interpolation == "bicubic"
    with pytest.raises(ConfigError, match="luab trained these weights, but test_vit is not in `backbones`"):
        view_of(study, "test_vit", ours)


def test_config_expected_csv_is_valid(repository, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = read_expected(repository / "config" / "expected.csv")
    assert len(rows) == len({row[:3] for row in rows}) > 40
    for row in rows:
        assert row.metric in METRICS.get(row.benchmark, ("top1", "top5", "accuracy")) and ":" in row.source
        assert 0 <= row.value <= 100 and 0 < row.tolerance <= 0.5
        assert row.benchmark in BENCHMARKS and timm.get_pretrained_cfg(row.model) is not None
    by_key = {row[:3]: row.value for row in rows}
    assert by_key["resnet50.tv_in1k", "imagenet_val", "top1"] == 76.156
    assert by_key["resnet50.tv_in1k", "imagenet_a", "accuracy"] == 0.0
    assert by_key["resnet50.tv_in1k", "imagenet_c", "mce"] == 76.7
    assert (
        by_key["resnet152.tv_in1k", "imagenet_a", "accuracy"] == 6.053
    )  # a second check of ImageNet-A, because 0.0 is easy to match
    for model in (
        "resnet50",
        "resnet152",
        "vgg16_bn",
    ):  # the published gap is the difference of the published accuracies
        same, rand, gap = (by_key[f"{model}.tv_in1k", "in9", m] for m in ("mixed_same", "mixed_rand", "bg_gap"))
        assert gap == pytest.approx(same - rand)
    exact, off = Verdict(rows[0], rows[0].value + rows[0].tolerance), Verdict(rows[0], rows[0].value + 1)
    assert exact.agrees is True and off.agrees is False
    for sign in (1, -1):
        assert Verdict(rows[0], rows[0].value + sign * (rows[0].tolerance + 1e-6)).agrees is False
    assert Verdict(rows[0], float("nan")).agrees is False and Verdict(rows[0], None).agrees is None
    assert print_verdicts([exact, off]) is False
    text = capsys.readouterr().out
    assert "DIFFERS" in text and max(map(len, text.splitlines())) <= 80
