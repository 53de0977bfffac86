"""Training on an easy toy set: the loss falls, and run.json and log.csv record the training."""

import csv
import dataclasses
import random

import numpy as np
import pytest
import torch

from luab.files import file_sha256, read_json
from luab.study.paths import Run
from luab.training.checkpoint import read_card
from luab.training.train import train

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)
NONE = dataclasses.replace(CLICK, supervision="none", weight=0.0)


def _log(study, run):
    with open(study.layout.run(run) / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_loss_falls_and_is_recorded_in_both_files(toy_study):
    study = toy_study(recipe={"epochs": 10})
    result = train(study, CLICK, {"commit": "abc"})
    log = _log(study, CLICK)
    columns = ["epoch", "lr", "loss", "classification", "byproduct", "points", "byproduct_gradient_ratio"]
    assert list(log[0]) == columns and [int(row["epoch"]) for row in log] == list(range(10))
    assert float(log[-1]["classification"]) < 0.5 * float(log[0]["classification"])
    assert float(log[-1]["byproduct"]) < float(log[0]["byproduct"])
    for row in log:
        assert float(row["loss"]) == pytest.approx(float(row["classification"]) + float(row["byproduct"]), rel=1e-6)
        assert 0 < float(row["points"]) <= 18 / 24 and float(row["byproduct_gradient_ratio"]) > 0
    stored = read_json(study.layout.run_json(CLICK))
    assert stored == result and stored["run"] == CLICK.identity() and stored["commit"] == "abc"
    assert (stored["images"], stored["points"], stored["device"]) == (30, 18, "cpu")
    assert [len(stored["inputs"][name]) for name in ("targets_click", "imagenet_train")] == [64, 64]
    model = study.layout.run(CLICK) / "model.safetensors"
    assert stored["model_sha256"] == file_sha256(model)
    assert read_card(model) == {key: stored[key] for key in ("run", "recipe", "inputs", "preprocessing")}
    assert stored["final"]["loss"] == pytest.approx(float(log[-1]["loss"]))


def test_the_learning_rate_warms_up_and_falls(toy_study):
    study = toy_study(recipe={"epochs": 4, "warmup_epochs": 1, "lr": 0.002})
    train(study, NONE)
    rates = [float(row["lr"]) for row in _log(study, NONE)]
    assert max(rates) <= 0.002 and rates[1] > rates[2] > rates[3] > 0


def test_equal_seeds_give_equal_weights_and_other_seeds_others(toy_study, tmp_path):
    digests = []
    for k, seed in enumerate((0, 0, 1)):
        study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0}, paths={"results": str(tmp_path / str(k))})
        random.seed(k), np.random.seed(k), torch.manual_seed(k)  # numbers drawn earlier must not matter
        digests.append(train(study, dataclasses.replace(CLICK, seed=seed))["model_sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_the_baseline_has_no_head_and_uses_no_points(toy_study):
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    result = train(study, NONE)
    assert result["points"] == 0 and set(result["final"]) == {"epoch", "lr", "loss", "classification"}
    assert set(result["inputs"]) == {"imagenet_train"} and result["settings"] == {"decoding": "exact"}


def test_with_lambda_zero_luab_is_the_baseline_bit_for_bit(toy_study):
    """Same pixels, same weights, same dropped paths; LUAB only has the weights of its head in addition."""
    from safetensors.torch import load_file

    recipe = {"epochs": 1, "warmup_epochs": 0, "drop_path": 0.3, "mixup": 0.5}
    weights = []
    for run in (NONE, dataclasses.replace(CLICK, weight=0.0)):
        study = toy_study("test_vit", recipe=recipe)
        run = dataclasses.replace(run, backbone="test_vit")
        train(study, run)
        weights.append(load_file(study.layout.run(run) / "model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert set(weights[1]) - set(weights[0]) == {"byproduct.weight", "byproduct.bias"}
