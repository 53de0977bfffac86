"""Several processes train like one: the same loss and gradients, however the points are distributed."""

import csv
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from luab.errors import ConfigError, JobError
from luab.files import read_json
from luab.objective import LuabLoss
from luab.study.config import Split, parse_study
from luab.study.paths import Run
from luab.training.device import choose_device
from luab.training.distributed import Processes
from luab.training.train import train

VIT = Run("imagenet", "test_vit", "click", 1.0, 0)
PLAIN = {"optimizer": "sgd", "lr": 0.05, "clip_grad": 1.0}


def _study(toy_study, name, gpus=1, images=None, backbone="test_vit", **recipe):
    compute = {"gpus": gpus, "images_per_process": images}
    study = toy_study(backbone, recipe=PLAIN | recipe, compute=compute)
    paths = study.paths.model_copy(update={"results": study.paths.results / name})
    return study.model_copy(update={"paths": paths})


def _products(study, run):
    folder = study.layout.run(run)
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return load_file(folder / "model.safetensors"), list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (VIT, {"batch_size": 4}),  # a third of the images have no point, so some shares have none
        (VIT, {"batch_size": 8, "label_smoothing": 0.1}),
        (dataclasses.replace(VIT, supervision="none", weight=0.0), {"batch_size": 8}),
        (dataclasses.replace(VIT, weight=0.0), {"batch_size": 8}),  # a head whose gradients are zero
    ],
)
def test_two_processes_and_two_steps_train_as_one(toy_study, trainings, run, settings):
    whole = _study(toy_study, "whole", **settings)
    assert trainings(whole, run).fine
    weights, log = _products(whole, run)
    share = settings["batch_size"] // 2
    for name, gpus, images in (("processes", 2, None), ("steps", 1, share), ("both", 2, share // 2)):
        split = _study(toy_study, name, gpus, images, **settings)
        assert trainings(split, run).fine
        others, lines = _products(split, run)
        for key, tensor in weights.items():
            assert torch.allclose(tensor, others[key], rtol=1e-4, atol=1e-5), (name, key)
        for line, expected in zip(lines, log, strict=True):
            assert {k: float(v) for k, v in line.items()} == pytest.approx(
                {k: float(v) for k, v in expected.items()}, rel=1e-4
            ), name
        card = read_json(split.layout.run_json(run))
        assert (card["processes"], card["attempts"]["starts"]) == (gpus, 1)


def test_some_shares_of_these_batches_have_no_point(toy_study):
    """Without such batches the test above would prove little."""
    from luab.data.images.loader import EpochBatches
    from luab.training.train import training_set

    study = _study(toy_study, "points")
    dataset, _ = training_set(study, VIT)
    empty = 0
    for rank in (0, 1):
        for batch in EpochBatches(len(dataset), 4, 0, 0, share=(rank, 2)):
            empty += not any(dataset[i]["weights"] for i in batch)
    assert empty > 0


def test_the_shares_of_all_ranks_make_up_the_batch():
    from luab.data.images.loader import EpochBatches

    whole = list(EpochBatches(23, 6, 0, 1, start=1))
    parts = [list(EpochBatches(23, 6, 0, 1, start=1, share=(r, 3))) for r in range(3)]
    assert [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)] == whole


def test_the_mean_over_parts_is_the_loss_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits, predicted = torch.randn(6, 10, generator=generator), torch.randn(6, 2, generator=generator)
    points, labels = torch.rand(6, 2, generator=generator), torch.arange(6)
    weights = torch.tensor([1.0, 1, 0, 1, 0, 0])  # the last part has no points
    loss = LuabLoss(2.0)
    outputs, batch = {"logits": logits, "points": predicted}, {"labels": labels, "points": points, "weights": weights}

    def part(rows):
        return ({name: tensor[rows] for name, tensor in of.items()} for of in (outputs, batch))

    whole = loss(outputs, batch)
    parts = [loss(*part(k), loss.counts(batch) / 3) for k in (slice(0, 2), slice(2, 4), slice(4, 6))]
    for name, value in whole.items():
        assert torch.stack([part[name] for part in parts]).mean().item() == pytest.approx(value.item())
    without_points = loss(outputs, batch | {"weights": torch.zeros(6)}, torch.zeros(1))
    assert without_points["byproduct"].item() == 0


def test_noisy_recipes_are_repeatable_with_two_processes(toy_study, trainings):
    """Stochastic depth and mixup; the same seed gives the same weights again, bit for bit."""
    noisy = {"drop_path": 0.5, "mixup": 0.8, "cutmix": 1.0, "epochs": 1, "warmup_epochs": 0}
    digests = []
    for name in ("once", "again"):
        study = _study(toy_study, name, 2, **noisy)
        assert trainings(study, VIT).fine
        digests.append(read_json(study.layout.run_json(VIT))["model_sha256"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("compute", "recipe", "message"),
    [
        ({"gpus": 3}, {}, r"batch_size: 8 is not divisible by compute.gpus 3 x compute.nodes 1 = 3 processes"),
        ({"gpus": 2, "nodes": 2, "images_per_process": 4}, {"batch_size": 24}, r"each of 4 processes 6 images"),
        ({"gpus": 2}, {"batch_size": 6, "mixup": 0.5}, r"mix pairs of images within a process.*odd number, 3"),
        ({"gpus": 2}, {"sync_batchnorm": True}, r"sync_batchnorm: torch synchronises BatchNorm only on GPUs"),
        ({"gpus": 0}, {}, r"compute.gpus: Input should be greater than or equal to 1"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(toy_study, compute, recipe, message):
    with pytest.raises(ConfigError, match=message):
        toy_study(recipe=recipe, compute=compute)


def test_all_recipes_are_checked(toy_study):
    study = toy_study()
    content = json.loads(study.model_dump_json())
    content["recipes"]["other"] = content["recipes"]["toy"]
    content["compute"]["gpus"] = 3
    with pytest.raises(ConfigError, match="2 mistakes"):
        parse_study(content)


@pytest.mark.parametrize(
    ("compute", "split", "text"),
    [
        ({}, Split(1, 8, 1), "batch 8 = 1 process x 8 images x 1 step"),
        ({"gpus": 2, "nodes": 2}, Split(4, 2, 1), "batch 8 = 4 processes x 2 images x 1 step"),
        ({"gpus": 2, "images_per_process": 1}, Split(2, 1, 4), "batch 8 = 2 processes x 1 image x 4 steps"),
        ({"images_per_process": 100}, Split(1, 8, 1), "batch 8 = 1 process x 8 images x 1 step"),
    ],
)
def test_the_derived_split_of_a_batch(toy_study, compute, split, text):
    study = toy_study(compute=compute)
    assert study.split("test_resnet") == split and str(split) == text


def test_threads_and_workers_are_divided_among_the_processes_of_a_node(toy_study):
    compute = toy_study(compute={"gpus": 4, "workers": 9, "threads": 3}).compute
    assert (compute.workers_each, compute.threads_each, compute.processes) == (2, 1, 4)
    assert toy_study(compute={"gpus": 4, "workers": 0}).compute.workers_each == 0
    assert toy_study(compute={"gpus": 4, "workers": 1}).compute.workers_each == 1


def test_one_process_trains_with_synchronised_batchnorm(toy_study):
    study = toy_study(recipe={"sync_batchnorm": True})
    assert '"sync_batchnorm":true' in study.recipe("test_resnet").model_dump_json()
    train(study, dataclasses.replace(VIT, backbone="test_resnet"))


def test_one_process_does_not_train_in_place_of_two(toy_study):
    with pytest.raises(JobError, match=r"sets 2 processes, found 1.*`luab train"):
        train(toy_study(compute={"gpus": 2}), VIT)


def test_more_gpus_than_the_node_has_is_a_job_error(toy_study, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    study = toy_study(compute={"gpus": 2, "device": "cuda"})
    with pytest.raises(JobError, match=r"compute.gpus is 2, but torch sees 1 GPUs here"):
        choose_device(study, Processes(0, 0, 2))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch synchronises BatchNorm between GPUs only")
def test_synchronised_batchnorm_trains_as_one_process(toy_study, trainings):
    run = dataclasses.replace(VIT, backbone="test_resnet")
    products = []
    for gpus in (1, 2):
        study = _study(toy_study, str(gpus), gpus, backbone="test_resnet", sync_batchnorm=True)
        study = study.model_copy(update={"compute": study.compute.model_copy(update={"device": "cuda"})})
        assert trainings(study, run).fine
        products.append(_products(study, run)[0])
    assert all(torch.allclose(tensor, products[1][name], rtol=1e-2, atol=1e-3) for name, tensor in products[0].items())
