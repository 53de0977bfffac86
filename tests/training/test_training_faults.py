"""Interrupted trainings resume bit for bit; bad input and settings end a training with one clear error."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import luab.training.checkpoint
import luab.training.train
import luab.training.trainer
from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256
from luab.study.paths import Run
from luab.training.heartbeat import ATTEMPTS, PROGRESS

pytestmark = pytest.mark.faults

VIT = Run("imagenet", "test_vit", "click", 1.0, 0)
CNN = dataclasses.replace(VIT, backbone="test_resnet")
VIT_RECIPE = {
    "drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "clip_grad": 1.0,
    "auto_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5, "repeated_augmentation": 3,
}  # fmt: skip


def _to_all(number, step):
    """A signal to the process and its data loaders, before a step."""
    return ({"signal": number, "rank": None, "at_step": step},)


def _products(study, run):
    folder = study.layout.run(run)
    return file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_text(encoding="utf-8")


def _names(folder):
    """Names of the files in a run's folder, without those about its progress."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (PROGRESS, ATTEMPTS))


@pytest.fixture(scope="module")
def uninterrupted():
    """Products of uninterrupted trainings, by run."""
    return {}


@pytest.mark.parametrize(
    ("run", "step", "workers", "number"),
    [
        (VIT, 0, 0, signal.SIGTERM),
        (VIT, 4, 2, signal.SIGTERM),
        (CNN, 2, 0, signal.SIGUSR2),  # the last step of the first epoch
        (CNN, 3, 2, signal.SIGTERM),
        (CNN, 5, 0, signal.SIGTERM),  # the last step of the training
    ],
)
def test_a_warned_training_resumes_bit_for_bit(
    toy_study, trainings, uninterrupted, run, step, workers, number, tmp_path
):
    recipe = VIT_RECIPE if run is VIT else {}
    if run not in uninterrupted:
        whole = toy_study(run.backbone, recipe=recipe, paths={"results": str(tmp_path / "whole")})
        assert trainings(whole, run).fine
        uninterrupted[run] = _products(whole, run)
    study = toy_study(run.backbone, recipe=recipe, compute={"workers": workers})
    folder = study.layout.run(run)
    warned = trainings(study, run, _to_all(number, step))
    assert warned.codes == [1] and warned.messages[0].startswith("Stopped:"), warned
    assert signal.Signals(number).name in warned.messages[0] and "resumes from there" in warned.messages[0]
    assert _names(folder) == ["state.pt"]
    assert trainings(study, run).fine
    assert _products(study, run) == uninterrupted[run]
    assert _names(folder) == ["log.csv", "model.safetensors", "run.json"]


@pytest.mark.parametrize("replaced", [1, 2, 3, 6, 7])
def test_a_killed_training_resumes_from_its_last_state(toy_study, trainings, uninterrupted, tmp_path, replaced):
    """Also if it is killed between the two renames of saving a state."""
    if CNN not in uninterrupted:
        whole = toy_study(paths={"results": str(tmp_path / "whole")})
        assert trainings(whole, CNN).fine
        uninterrupted[CNN] = _products(whole, CNN)
    study = toy_study()
    folder = study.layout.run(CNN)
    interruption = {"signal": signal.SIGKILL, "rank": 0, "at_replace": replaced}
    assert trainings(study, CNN, (interruption,), states_s=-1.0).codes == [-signal.SIGKILL]
    names = _names(folder)
    assert names[0].startswith(".state-") and set(names[1:]) <= {"state.pt", "state-previous.pt"}
    assert len(names) == min(replaced, 3) - (replaced > 2 and replaced % 2 == 1)
    assert trainings(study, CNN).fine
    assert _products(study, CNN) == uninterrupted[CNN]
    assert _names(folder) == ["log.csv", "model.safetensors", "run.json"]


@pytest.mark.parametrize("other", [{"recipe": {"lr": 0.001}}, {"compute": {"images_per_process": 4}}])
def test_a_state_of_another_configuration_is_not_resumed(toy_study, trainings, other, capfd):
    study = toy_study()
    assert not trainings(study, CNN, _to_all(signal.SIGTERM, 1)).fine
    result = luab.training.train.train(toy_study(**other), CNN)
    assert (
        "belongs to another recipe, data set or number of processes; this training starts from the beginning"
        in capfd.readouterr().err
    )
    assert len((study.layout.run(CNN) / "log.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert result["attempts"]["starts"] == 2


def test_the_preceding_state_replaces_a_damaged_one(toy_study, trainings, uninterrupted, tmp_path, capfd):
    if CNN not in uninterrupted:
        whole = toy_study(paths={"results": str(tmp_path / "whole")})
        assert trainings(whole, CNN).fine
        uninterrupted[CNN] = _products(whole, CNN)
    study = toy_study()
    folder = study.layout.run(CNN)
    assert not trainings(study, CNN, _to_all(signal.SIGTERM, 3), states_s=-1.0).fine
    assert _names(folder) == ["state-previous.pt", "state.pt"]
    state = folder / "state.pt"
    state.write_bytes(state.read_bytes()[:-300])
    luab.training.train.train(study, CNN)
    assert "state.pt: damaged; resuming from the preceding state, state-previous.pt" in capfd.readouterr().err
    assert _products(study, CNN) == uninterrupted[CNN]


def test_two_damaged_states_are_an_error(toy_study, trainings):
    study = toy_study()
    folder = study.layout.run(CNN)
    assert not trainings(study, CNN, _to_all(signal.SIGTERM, 3), states_s=-1.0).fine
    for name in ("state.pt", "state-previous.pt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-300])
    with pytest.raises(DataError, match=r"state\.pt: .*is damaged.*Remove it"):
        luab.training.train.train(study, CNN)


def test_a_damaged_state_is_named(toy_study):
    study = toy_study()
    state = study.layout.run(CNN) / "state.pt"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match=r"state\.pt: .*Remove it; the training then starts from the beginning"):
        luab.training.train.train(study, CNN)


def test_a_loss_that_is_not_finite_names_quantity_and_step(toy_study):
    study = toy_study(recipe={"lr": 1e18, "optimizer": "sgd", "warmup_epochs": 0, "epochs": 4})
    with pytest.raises(JobError, match=r"(classification|byproduct) became (nan|inf) in step \d+ \(epoch \d"):
        luab.training.train.train(study, CNN)
    assert _names(study.layout.run(CNN)) == []


def test_weights_with_nan_are_never_written(toy_study, monkeypatch):
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    update = luab.training.trainer.Trainer._update

    def updating(trainer):
        update(trainer)
        if trainer.done == 2:
            trainer.model.byproduct.bias.data[0] = float("nan")  # as after an infinite last gradient

    monkeypatch.setattr(luab.training.trainer.Trainer, "_update", updating)
    with pytest.raises(JobError, match=r"byproduct\.bias contains NaN"):
        luab.training.train.train(study, CNN)
    assert _names(study.layout.run(CNN)) == []


@pytest.fixture
def broken_world(toy_world: Path, tmp_path: Path) -> Path:
    """A copy of the toy world that tests may damage."""
    return Path(shutil.copytree(toy_world, tmp_path / "broken"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_jpeg_is_named_with_its_row(toy_study, broken_world, workers):
    file = broken_world / "imagenet/train/n01443537/n01443537_3.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    study = toy_study(world=broken_world, compute={"workers": workers})
    with pytest.raises(DataError) as caught:
        luab.training.train.train(study, CNN)
    message = str(caught.value)
    assert message.startswith(f"{file} (row 13 of the training manifest): expected an image")
    assert "Traceback" not in message and len(message.splitlines()) == 1
    assert _names(study.layout.run(CNN)) == []


def test_each_missing_input_is_one_clear_error(toy_study, broken_world):
    study = toy_study(world=broken_world)
    (broken_world / "imagenet/train/n01440764/n01440764_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"1 of the 30 images checked are missing, first train/n01440764"):
        luab.training.train.train(study, CNN)
    shutil.rmtree(broken_world / "imagenet")
    with pytest.raises(DataError, match="30 of the 30 images checked are missing"):
        luab.training.train.train(study, CNN)
    study.layout.manifest("imagenet_train").unlink()
    with pytest.raises(DataError, match=r"imagenet_train\.parquet"):
        luab.training.train.train(study, CNN)


def test_missing_targets_are_named(toy_study, broken_world):
    study = toy_study(world=broken_world)
    study.layout.target("click").unlink()
    with pytest.raises(DataError, match=r"click\.parquet.*luab targets"):
        luab.training.train.train(study, CNN)
    luab.training.train.train(study, Run("imagenet", "test_resnet", "none", 0.0, 0))  # the baseline needs no targets


def test_settings_that_cannot_work_are_refused_before_the_first_step(toy_study):
    with pytest.raises(DataError, match=r"paths\.imagenet is not set.*image-net\.org"):
        luab.training.train.train(toy_study(paths={"imagenet": None}), CNN)
    with pytest.raises(ConfigError, match="a batch of 64 is larger than the training set of 30 images"):
        luab.training.train.train(toy_study(recipe={"batch_size": 64}), CNN)
    with pytest.raises(ConfigError, match="optimizer 'adamx'"):
        luab.training.train.train(toy_study(recipe={"optimizer": "adamx"}), CNN)
    with pytest.raises(ConfigError, match=r"does not accept images of 40 x 40 pixels.*img_size"):
        luab.training.train.train(toy_study("test_vit", recipe={"input_px": 40}), VIT)
    with pytest.raises(ConfigError, match="timm refused model_kwargs"):
        luab.training.train.train(toy_study(recipe={"model_kwargs": {"depht": 3}}), CNN)


def test_a_missing_gpu_is_a_job_error(toy_study, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(JobError, match="torch sees no GPU"):
        luab.training.train.train(toy_study(compute={"device": "cuda"}), CNN)


def test_a_full_disk_is_a_job_error_and_leaves_no_files(toy_study, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    with pytest.raises(JobError, match=r"model\.safetensors: could not be written \(No space left"):
        luab.training.train.train(study, CNN)
    assert _names(study.layout.run(CNN)) == []


FULL_DISK = """
import subprocess, sys
from pathlib import Path
import luab.training.checkpoint as checkpoint
import luab.training.train as module
from luab.study.config import load_study
from luab.study.paths import Run
study, run = load_study([Path(sys.argv[1])]), Run(*sys.argv[2:5], float(sys.argv[5]), int(sys.argv[6]))
results = study.paths.results
results.mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", results], check=True)
folder, filler, save, saves = study.layout.run(run), results / "filler", checkpoint.save_state, 0
module._SECONDS_BETWEEN_STATES = -1.0

def counting(*arguments):
    global saves
    saves += 1
    if saves == 2:
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    if saves == 4:
        filler.unlink()
    try:
        save(*arguments)
    finally:
        print("files", saves, *sorted(path.name for path in folder.iterdir() if "state" in path.name), flush=True)

checkpoint.save_state = counting
print("model", module.train(study, run)["model_sha256"])
"""


def _own_mounts():
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not _own_mounts(), reason="needs permission to mount a small disk")
def test_a_disk_that_is_full_for_a_while_costs_states_but_not_the_training(
    toy_study, trainings, uninterrupted, tmp_path
):
    if CNN not in uninterrupted:
        whole = toy_study(paths={"results": str(tmp_path / "whole")})
        assert trainings(whole, CNN).fine
        uninterrupted[CNN] = _products(whole, CNN)
    study, config = toy_study(), tmp_path / "study.yaml"
    config.write_text(study.dump(), encoding="utf-8")
    words = [str(word) for word in dataclasses.astuple(CNN)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    command = ["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(config), *words]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "files 1 state.pt",
        "files 2 state.pt",
        "files 3 state.pt",
        "files 4 state-previous.pt state.pt",
    ]
    assert lines[-1] == f"model {uninterrupted[CNN][0]}"
    warnings = [line for line in done.stderr.splitlines() if "could not be saved" in line]
    assert len(warnings) == 2 and "state.pt: could not be saved (No space left on device); the training" in warnings[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_which_errors_of_a_periodic_state_end_the_training(toy_study, monkeypatch, capfd, number):
    def failing(folder, state):
        error = OSError(number, os.strerror(number))
        raise JobError(f"{folder}: could not be written") from error

    monkeypatch.setattr(luab.training.checkpoint, "save_state", failing)
    monkeypatch.setattr(luab.training.train, "_SECONDS_BETWEEN_STATES", -1.0)
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    if number == errno.EROFS:
        with pytest.raises(JobError, match="could not be written"):
            luab.training.train.train(study, CNN)
        return
    luab.training.train.train(study, CNN)
    said = capfd.readouterr().err
    assert f"state.pt: could not be saved ({os.strerror(number)}); the training continues" in said


def test_a_full_disk_at_a_warning_signal_is_an_error(toy_study, monkeypatch):
    def failing(folder, state):
        raise JobError("could not be written") from OSError(errno.ENOSPC, "No space left on device")

    step = luab.training.trainer.Trainer.step

    def warned(trainer, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return step(trainer, *arguments)

    monkeypatch.setattr(luab.training.checkpoint, "save_state", failing)
    monkeypatch.setattr(luab.training.trainer.Trainer, "step", warned)
    with pytest.raises(JobError, match="could not be written"):
        luab.training.train.train(toy_study(), CNN)


def test_points_of_other_images_are_refused(toy_study, broken_world):
    """Otherwise a run of LUAB would train without a single point, and succeed."""
    study = toy_study(world=broken_world)
    file = study.layout.target("click")
    rows = pq.read_table(file)
    others = pa.array([f"other_{k}" for k in range(len(rows))])
    pq.write_table(rows.set_column(0, rows.schema.field(0), others), file)
    with pytest.raises(DataError, match=r"click\.parquet: .*"):
        luab.training.train.train(study, CNN)


def test_a_loader_that_ends_early_is_an_error(toy_study, monkeypatch):
    loader = luab.training.train.training_loader
    monkeypatch.setattr(luab.training.train, "training_loader", lambda *words: list(loader(*words))[:-1])
    study = toy_study()
    with pytest.raises(JobError, match="expected 3 batches in epoch 0, the loader returned 2"):
        luab.training.train.train(study, CNN)
    assert _names(study.layout.run(CNN)) == []


def test_a_float16_training_whose_gradients_are_all_infinite_is_an_error(toy_study, monkeypatch):
    build = luab.training.trainer.Trainer.build

    def with_low_scale(*words):
        trainer = build(*words)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-20)
        return trainer

    monkeypatch.setattr(luab.training.trainer.Trainer, "build", with_low_scale)
    study = toy_study()
    with pytest.raises(JobError, match=r"the loss scale fell to 9\.5e-07; such steps change no weight"):
        luab.training.train.train(study, CNN)
    assert _names(study.layout.run(CNN)) == []


def test_restored_random_states_give_the_same_numbers():
    before = np.random.get_state()[1].copy()
    state = luab.training.trainer.random_state(luab.training.train.torch.device("cpu"))
    expected = np.random.rand(3), luab.training.train.torch.rand(3), luab.training.trainer.random.random()
    luab.training.trainer.restore_random_state(state, luab.training.train.torch.device("cpu"))
    assert np.array_equal(np.random.get_state()[1], before)
    again = np.random.rand(3), luab.training.train.torch.rand(3), luab.training.trainer.random.random()
    assert np.array_equal(again[0], expected[0]) and again[2] == expected[2]
    assert luab.training.train.torch.equal(again[1], expected[1])
