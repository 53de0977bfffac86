"""A stopped fine-tuning ends like an unbroken one, four pictures are learnt by heart, and two processes share one."""

import csv
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file

import luab
from luab.data.dense.augmentations import augmentation
from luab.data.images.loader import EpochBatches
from luab.errors import ConfigError, DataError, JobError
from luab.files import read_json
from luab.training.checkpoint import STATES, Stopped
from luab.training.trainer import seed_everything
from luab.transfer import predict
from luab.transfer.fit import fit_setup
from luab.transfer.losses import loss_of
from luab.transfer.predict import predict_setup
from luab.transfer.tuner import scheduler_of

FILES = ("model.safetensors", "log.csv")


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("detection", {}),
        ("detection", {"vit": True, "drop_path": 0.2, "layer_decay": 0.7, "clip_grad": 1.0}),
        ("segmentation", {"auxiliary": 0.5, "network": "deeplabv3", "schedule": "poly"}),
        ("points", {"schedule": "steps", "decay_epochs": (1.0,), "warmup_steps": 3, "optimizer": "sgd"}),
    ],
)
def test_a_stopped_fine_tuning_ends_with_the_same_bytes(toy_study, setup, drawn, task, keys):
    study, size = toy_study(), 2
    transforms = augmentation(64, 80, (0.8, 1.2), 0.5, 64)
    whole = setup(task, "whole", batch_size=size, **keys)
    fit_setup(study, whole, drawn(task, 2, transforms), {})
    broken = setup(task, "broken", batch_size=size, **keys)
    with pytest.raises(Stopped, match=r"drawn/seed0: stopped by SIGTERM at epoch 0, batch [23]\. The state is saved"):
        fit_setup(study, broken, drawn(task, 2, transforms, stop_at=3), {})
    assert {path.name for path in broken.folder.iterdir()} >= {STATES[0]} and not (broken.folder / "run.json").exists()
    result = fit_setup(study, broken, drawn(task, 2, transforms), {})
    assert result["attempts"]["starts"] == 2
    for name in FILES:
        assert (whole.folder / name).read_bytes() == (broken.folder / name).read_bytes(), name
    assert {path.name for path in broken.folder.iterdir()} == {*FILES, "run.json", "progress.json", "attempts.jsonl"}
    with open(broken.folder / "log.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["0", "1"] and set(lines[0]) > set(loss_of(task, whole.recipe).parts)


def test_the_state_of_another_recipe_is_not_resumed(toy_study, setup, drawn, capsys):
    with pytest.raises(Stopped):
        fit_setup(toy_study(), setup("segmentation"), drawn("segmentation", 2, stop_at=2), {})
    result = fit_setup(toy_study(), setup("segmentation", lr=0.001), drawn("segmentation", 2), {})
    assert "belongs to another recipe" in capsys.readouterr().err and result["final"]["epoch"] == 1


def test_loader_processes_change_nothing(toy_study, setup, drawn):
    transforms = augmentation(64, 80, (0.8, 1.2), 0.5, 64)
    for name, workers in (("none", 0), ("two", 2)):
        study = toy_study(compute={"workers": workers})
        fit_setup(study, setup("points", name), drawn("points", 2, transforms), {})
    folders = [setup("points", name).folder for name in ("none", "two")]
    assert folders[0].joinpath(FILES[0]).read_bytes() == folders[1].joinpath(FILES[0]).read_bytes()


def _truth(images):
    coco = COCO()
    boxes = [
        {"image_id": i, "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        for i in range(len(images))
        for label, (x0, y0, x1, y1) in images.objects(i)
    ]
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": label} for label in (1, 2, 3)],
        "annotations": [box | {"id": k + 1, "iscrowd": 0} for k, box in enumerate(boxes)],
    }
    coco.createIndex()
    return coco


def test_a_detector_learns_four_pictures_by_heart(toy_study, setup, drawn, capsys):
    tuned, images = setup("detection", epochs=160, lr=0.005, warmup_steps=10), drawn("detection")
    fit_setup(toy_study(), tuned, drawn("detection"), {})
    predict_setup(toy_study(), tuned, images)
    rows = pq.read_table(tuned.folder / "predictions.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == images.image_ids and {row["width"] for row in rows} == {64}
    found = [
        {
            "image_id": i,
            "category_id": label,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for i, row in enumerate(rows)
        for box, label, score in zip(row["boxes"], row["labels"], row["scores"], strict=True)
    ]
    coco = _truth(images)
    evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0.9


def test_a_segmenter_learns_four_pictures_by_heart(toy_study, setup, drawn, monkeypatch):
    monkeypatch.setattr(predict, "_ROWS_PER_GROUP", 3)  # no image may get lost between groups of rows
    tuned, images = setup("segmentation", epochs=10, lr=0.01, warmup_steps=10), drawn("segmentation")
    fit_setup(toy_study(), tuned, drawn("segmentation", 10), {})
    predict_setup(toy_study(), tuned, images)
    confusion = np.zeros((4, 4))
    for row in pq.read_table(tuned.folder / "predictions.parquet").to_pylist():
        true, predicted, pixels = np.array(row["confusion"]).reshape(-1, 3).T
        confusion[true, predicted] += pixels
    hits = confusion.diagonal()
    assert confusion.sum() == 4 * 64 * 64
    assert (hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean() > 0.9


def test_points_alone_find_more_of_the_objects_than_chance(toy_study, setup, drawn):
    tuned, images = setup("points", epochs=5, lr=0.01, warmup_steps=10), drawn("segmentation")
    fit_setup(toy_study(), tuned, drawn("points", 10), {})
    predict_setup(toy_study(), tuned, images)
    hits, all_pixels = 0, 0
    for row in pq.read_table(tuned.folder / "predictions.parquet").to_pylist():
        for true, predicted, pixels in np.array(row["confusion"]).reshape(-1, 3):
            hits, all_pixels = hits + (pixels if true == predicted > 0 else 0), all_pixels + (pixels if true else 0)
    assert hits / all_pixels > 0.5


PAIRS = """
import importlib.util, os, pickle, socket, sys
from pathlib import Path
from luab.study.config import load_study
from luab.training.checkpoint import Stopped
from luab.transfer.fit import fit_setup
spec = importlib.util.spec_from_file_location("pictures", sys.argv[1])
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)
folder, codes = Path(sys.argv[2]), []
study, trainings = load_study([folder / "study.yaml"]), pickle.loads((folder / "trainings.pickle").read_bytes())
for setup, stop_at in trainings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    os.environ |= {"LUAB_NOTES": str(folder), "LUAB_PARENT": str(os.getpid())}
    for rank in (0, 1):
        if not os.fork():
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = 1
            try:
                fit_setup(study, setup, pictures.Drawn(setup.task, 2, stop_at=stop_at if rank else None), {})
                code = 0
            except Stopped:
                code = 3
            finally:
                os._exit(code)
    codes.append(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in (0, 1)))
print(codes)
"""
"""Trains in two processes, one training after another, and prints the exit codes; torch is imported once for all."""


def test_two_processes_average_gradients_stop_together_and_resume(toy_study, setup, drawn, tmp_path):
    step = {"epochs": 1, "batch_size": 8, "optimizer": "momentum", "lr": 0.1, "momentum": 0.0}
    shared, whole, broken = setup("detection", "one", **step), setup("points", "whole"), setup("points", "broken")
    study = toy_study(compute={"gpus": 2})
    (tmp_path / "study.yaml").write_text(study.dump(), encoding="utf-8")
    (tmp_path / "trainings.pickle").write_bytes(
        pickle.dumps([(shared, None), (whole, None), (broken, 2), (broken, None)])
    )
    path = os.pathsep.join(filter(None, [str(Path(luab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", PAIRS, str(Path(__file__).with_name("conftest.py")), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.stdout.splitlines()[-1] == "[[0, 0], [0, 0], [3, 3], [0, 0]]", done.stderr
    for name in FILES:
        assert (whole.folder / name).read_bytes() == (broken.folder / name).read_bytes(), name
    assert read_json(shared.folder / "run.json")["processes"] == 2
    gradients = [_gradients(shared, drawn("detection", 2), rank) for rank in (0, 1)]
    before = dict(_first(shared).named_parameters())
    tuned = load_file(shared.folder / "model.safetensors")
    for name, weight in before.items():
        expected = weight - 0.1 * (gradients[0][name] + gradients[1][name]) / 2
        assert torch.allclose(tuned[name], expected, rtol=1e-4, atol=1e-6), name


def _first(setup):
    seed_everything(0, torch.device("cpu"), 1)
    return setup.new_network().train()


def _gradients(setup, images, rank):
    """Gradients of the loss of one process's share of the first step."""
    network = _first(setup)
    torch.manual_seed(rank)
    (share,) = EpochBatches(8, 8, 0, 0, share=(rank, 2))
    items = [images[i] for i in share]
    pixels = [image.as_subclass(torch.Tensor).float() / 255 for image, _ in items]
    loss_of("detection", setup.recipe)(network, pixels, [target for _, target in items])["loss"].backward()
    return {name: weight.grad for name, weight in network.named_parameters()}


def test_learning_rates_of_the_schedules(recipe):
    def rates(steps, **keys):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([{"params": [weight], "lr_scale": 0.5}], lr=1.0)
        scheduler = scheduler_of(optimizer, recipe(lr=1.0, epochs=4, **keys), 5)
        return [(scheduler.step_update(step), optimizer.param_groups[0]["lr"] / 0.5)[1] for step in steps]

    steps = {"schedule": "steps", "decay_epochs": (2.0, 3.0), "warmup_steps": 2, "warmup_factor": 0.1}
    assert rates([0, 1, 2, 9, 10, 14, 15], **steps) == pytest.approx([0.1, 0.55, 1, 1, 0.1, 0.1, 0.01])
    assert rates([0, 10, 19], schedule="poly", power=0.9) == pytest.approx([1, 0.5**0.9, 0.05**0.9])
    assert rates([0, 10], schedule="cosine") == pytest.approx([1, 0.5])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"batch_size": 5}, "a batch of 5 is larger than the training set of 4 images"),
        ({"crop_px": None}, "segmentation trains on crops of one size"),
    ],
)
def test_what_cannot_be_trained_is_refused_first(toy_study, setup, drawn, keys, text):
    with pytest.raises(ConfigError, match=text):
        fit_setup(toy_study(), setup("segmentation", **keys), drawn("segmentation"), {})


def test_a_loss_that_is_not_finite_stops(toy_study, setup, drawn):
    with pytest.raises(JobError, match=r"(out|loss) became (nan|inf) in epoch \d, batch \d"):
        fit_setup(toy_study(), setup("segmentation", lr=1e30, optimizer="sgd", epochs=4), drawn("segmentation"), {})


def test_weights_of_another_fine_tuning_are_not_predicted_with(toy_study, setup, drawn):
    tuned = setup("segmentation", epochs=1)
    fit_setup(toy_study(), tuned, drawn("segmentation"), {})
    with pytest.raises(DataError, match="expected the weights of"):
        predict_setup(toy_study(), replace(tuned, identity={"transfer": "other", "seed": 0}), drawn("segmentation"))
