"""Trainings that are warned, killed or misled: they go on bit for bit, or end with one sentence."""

import dataclasses
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import luab.train
from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256, read_json
from luab.paths import Run

pytestmark = pytest.mark.filterwarnings("default:This process:DeprecationWarning")  # fork beside threads

VIT = Run("imagenet", "test_vit", "click", 1.0, 0)
CNN = dataclasses.replace(VIT, backbone="test_resnet")
VIT_RECIPE = {"drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "clip_grad": 1.0}


def _in_a_process(study, run, hurt=None):
    """Trains in a process group of its own; returns (exit code, message)."""

    def body(pipe):
        os.setsid()
        if hurt is not None:
            hurt()
        try:
            luab.train.train(study, run)
            pipe.send("")
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=body, args=(sender,))
    process.start()
    sender.close()
    process.join(60)
    try:
        message = receiver.recv()
    except EOFError:  # killed before it could say anything
        message = ""
    assert process.exitcode is not None
    return process.exitcode, message


def _signal_at(step, number):
    """Before a step, sends a signal to the whole process group, loader processes included."""

    def hurt():
        whole = luab.train._step

        def stepping(trainer, *rest):
            if rest[-1] == step:
                os.killpg(os.getpgrp(), number)
            whole(trainer, *rest)

        luab.train._step = stepping

    return hurt


def _products(study, run):
    folder = study.layout.run(run)
    return file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_text()


@pytest.fixture(scope="module")
def unbroken():
    """Products of unbroken trainings, by backbone."""
    return {}


@pytest.mark.parametrize(
    ("run", "step", "workers", "number"),
    [
        (VIT, 0, 0, signal.SIGTERM),
        (VIT, 4, 2, signal.SIGTERM),
        (CNN, 2, 0, signal.SIGUSR2),  # the last batch of the first epoch
        (CNN, 3, 2, signal.SIGTERM),
        (CNN, 5, 0, signal.SIGTERM),  # the last batch of all
    ],
)
def test_a_warned_training_goes_on_bit_for_bit(toy_study, unbroken, run, step, workers, number, tmp_path):
    recipe = VIT_RECIPE if run is VIT else {}
    if run not in unbroken:
        whole = toy_study(run.backbone, recipe=recipe, paths={"results": str(tmp_path / "whole")})
        assert _in_a_process(whole, run) == (0, "")
        unbroken[run] = _products(whole, run)
    study = toy_study(run.backbone, recipe=recipe, compute={"workers": workers})
    folder = study.layout.run(run)
    code, message = _in_a_process(study, run, _signal_at(step, number))
    assert (code, message.startswith("JobError:")) == (0, True), message
    assert signal.Signals(number).name in message and "goes on from there" in message
    assert [path.name for path in folder.iterdir()] == ["state.pt"]
    assert _in_a_process(study, run) == (0, "")
    assert _products(study, run) == unbroken[run]
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "model.safetensors", "run.json"]


def test_a_killed_training_goes_on_from_its_last_state(toy_study, tmp_path):
    whole = toy_study(paths={"results": str(tmp_path / "whole")})
    assert _in_a_process(whole, CNN) == (0, "")
    study = toy_study()
    folder = study.layout.run(CNN)

    def killed_while_saving():
        luab.train._SECONDS_BETWEEN_STATES = -1.0
        saved, replace = [], os.replace

        def replacing(source, target):
            saved.append(target)
            if len(saved) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = replacing

    assert _in_a_process(study, CNN, killed_while_saving)[0] == -signal.SIGKILL
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == 2 and left[0].startswith(".state-") and left[1] == "state.pt"
    assert _in_a_process(study, CNN) == (0, "")
    assert _products(study, CNN) == _products(whole, CNN)
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "model.safetensors", "run.json"]


def test_a_state_of_another_recipe_is_not_taken_up(toy_study):
    study = toy_study()
    _in_a_process(study, CNN, _signal_at(1, signal.SIGTERM))
    other = toy_study(recipe={"lr": 0.001})
    assert _in_a_process(other, CNN) == (0, "")
    assert read_json(other.layout.run_json(CNN))["recipe"]["lr"] == 0.001
    assert len((other.layout.run(CNN) / "log.csv").read_text().splitlines()) == 3


def test_a_damaged_state_is_named(toy_study):
    study = toy_study()
    state = study.layout.run(CNN) / "state.pt"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match=r"state\.pt: .*Remove it; the training then starts anew"):
        luab.train.train(study, CNN)


def test_a_loss_that_is_not_finite_names_quantity_and_step(toy_study):
    study = toy_study(recipe={"lr": 1e18, "optimizer": "sgd", "warmup_epochs": 0, "epochs": 4})
    with pytest.raises(JobError, match=r"(classification|byproduct) became (nan|inf) in step \d+ \(epoch \d"):
        luab.train.train(study, CNN)
    assert not study.layout.run(CNN).exists()


def test_weights_that_are_not_finite_are_never_written(toy_study, monkeypatch):
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    whole = luab.train._step

    def stepping(trainer, *rest):
        whole(trainer, *rest)
        trainer.model.byproduct.bias.data[0] = float("nan")  # what an infinite last gradient leaves

    monkeypatch.setattr(luab.train, "_step", lambda *a: stepping(*a) if a[-1] == 2 else whole(*a))
    with pytest.raises(JobError, match=r"byproduct\.bias holds NaN"):
        luab.train.train(study, CNN)
    assert not study.layout.run(CNN).exists()


@pytest.fixture
def broken_world(toy_world: Path, tmp_path: Path) -> Path:
    """A copy of the toy world to break."""
    return Path(shutil.copytree(toy_world, tmp_path / "broken"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_jpeg_is_named_with_its_row(toy_study, broken_world, workers):
    file = broken_world / "imagenet/train/n01443537/n01443537_3.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    study = toy_study(world=broken_world, compute={"workers": workers})
    with pytest.raises(DataError) as caught:
        luab.train.train(study, CNN)
    text = str(caught.value)
    assert text.startswith(f"{file} (row 13 of the training manifest): expected an image")
    assert "Traceback" not in text and len(text.splitlines()) == 1
    assert not study.layout.run(CNN).exists()


def test_missing_inputs_are_one_clear_error_each(toy_study, broken_world):
    study = toy_study(world=broken_world)
    (broken_world / "imagenet/train/n01440764/n01440764_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"1 of the 30 images looked at are missing, first train/n01440764"):
        luab.train.train(study, CNN)
    shutil.rmtree(broken_world / "imagenet")
    with pytest.raises(DataError, match="30 of the 30 images looked at are missing"):
        luab.train.train(study, CNN)
    study.layout.manifest("imagenet_train").unlink()
    with pytest.raises(DataError, match=r"imagenet_train\.parquet"):
        luab.train.train(study, CNN)


def test_missing_targets_are_named(toy_study, broken_world):
    study = toy_study(world=broken_world)
    study.layout.target("click").unlink()
    with pytest.raises(DataError, match=r"click\.parquet.*luab targets"):
        luab.train.train(study, CNN)
    luab.train.train(study, Run("imagenet", "test_resnet", "none", 0.0, 0))  # the baseline needs none


def test_settings_that_cannot_work_are_refused_before_the_first_step(toy_study):
    with pytest.raises(DataError, match=r"paths\.imagenet is not set.*image-net\.org"):
        luab.train.train(toy_study(paths={"imagenet": None}), CNN)
    with pytest.raises(ConfigError, match="a batch of 64 is larger than the training set of 30 images"):
        luab.train.train(toy_study(recipe={"batch_size": 64}), CNN)
    with pytest.raises(ConfigError, match="optimizer 'adamx'"):
        luab.train.train(toy_study(recipe={"optimizer": "adamx"}), CNN)
    with pytest.raises(ConfigError, match=r"does not take images of 40 x 40 pixels.*img_size"):
        luab.train.train(toy_study("test_vit", recipe={"input_px": 40}), VIT)
    with pytest.raises(ConfigError, match="timm refused model_kwargs"):
        luab.train.train(toy_study(recipe={"model_kwargs": {"depht": 3}}), CNN)


def test_a_gpu_that_is_not_there_is_a_job_error(toy_study, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(JobError, match="torch sees no GPU"):
        luab.train.train(toy_study(compute={"device": "cuda"}), CNN)


def test_a_full_disk_is_a_job_error_and_leaves_nothing(toy_study, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    with pytest.raises(JobError, match=r"model\.safetensors: could not be written \(No space left"):
        luab.train.train(study, CNN)
    assert list(study.layout.run(CNN).iterdir()) == []


def test_random_states_survive_the_round_trip():
    before = np.random.get_state()[1].copy()
    state = luab.train._random_state(luab.train.torch.device("cpu"))
    expected = np.random.rand(3), luab.train.torch.rand(3), luab.train.random.random()
    luab.train._restore_random_state(state, luab.train.torch.device("cpu"))
    assert np.array_equal(np.random.get_state()[1], before)
    again = np.random.rand(3), luab.train.torch.rand(3), luab.train.random.random()
    assert np.array_equal(again[0], expected[0]) and again[2] == expected[2]
    assert luab.train.torch.equal(again[1], expected[1])
