"""A training that is killed or warned repeatedly at random moments ends with the same bytes as an uninterrupted one.

LUAB_KILLS=500 sets more interruptions than the default; LUAB_KILLS_SEED repeats those of an earlier run.
"""

import dataclasses
import os
import random
import signal
import time

import pytest

from luab.files import file_sha256
from luab.study.paths import Run
from luab.training.heartbeat import read_attempts, read_progress

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("LUAB_KILLS", "18"))
SEED = int(os.environ.get("LUAB_KILLS_SEED") or (0 if os.environ.get("CI") else time.time_ns() % 100_000))
MOST_PER_TRAINING = 4  # interruptions of one training before it may finish
MOST_S = 15.0  # per case, unless LUAB_KILLS is set

VIT = Run("imagenet", "test_vit", "click", 1.0, 0)
CNN = dataclasses.replace(VIT, backbone="test_resnet")
NOISY = {"drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "clip_grad": 1.0}
CLOSE = {"ema_decay": 0.9, "channels_last": True}


def _products(study, run):
    folder = study.layout.run(run)
    return file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_bytes()


def _interruption(dice, processes, seconds):
    number = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
    rank = None if number != signal.SIGKILL and dice.random() < 0.3 else dice.randrange(processes)
    return {"signal": number, "rank": rank, "after_s": dice.uniform(0, seconds)}


@pytest.mark.parametrize(
    ("run", "compute", "recipe"),
    [
        pytest.param(VIT, {"workers": 2}, NOISY, id="one process, EMA, mixup, loaders"),
        pytest.param(VIT, {"workers": 2, "gpus": 2}, NOISY, id="two processes, EMA, mixup, loaders"),
        pytest.param(CNN, {"gpus": 2, "images_per_process": 2}, CLOSE, id="two processes, two steps each"),
    ],
)
def test_interrupted_trainings_end_with_the_same_bytes(toy_study, trainings, tmp_path, run, compute, recipe):
    dice = random.Random(f"{SEED} {compute}")
    print(f"LUAB_KILLS_SEED={SEED}")
    recipe = recipe | {"epochs": 4}
    unbroken = toy_study(run.backbone, recipe=recipe, compute=compute, paths={"results": str(tmp_path / "whole")})
    # States are saved often, so that some kills happen during a write.
    whole = trainings(unbroken, run, states_s=0.1)
    assert whole.fine, whole
    expected, seconds = _products(unbroken, run), whole.seconds
    kills, trial, end = 0, 0, time.monotonic() + (MOST_S if "LUAB_KILLS" not in os.environ else 1e9)
    while kills < KILLS // 3 and (kills == 0 or time.monotonic() < end):  # one at least, on a slow machine too
        study = toy_study(run.backbone, recipe=recipe, compute=compute, paths={"results": str(tmp_path / str(trial))})
        interruptions, starts = [], 0
        for _ in range(dice.randint(1, MOST_PER_TRAINING)):
            interruptions.append(_interruption(dice, compute.get("gpus", 1), seconds))
            ended = trainings(study, run, (interruptions[-1],), states_s=0.1)
            starts += 1
            if ended.fine:
                break
            kills += 1
            messages = " ".join(ended.messages)
            lost = "LostProcess" in messages or -signal.SIGKILL in ended.codes
            # With status 0 all results were written, and another process was killed at its end.
            warned = "Stopped: " in messages or ended.codes[0] == 0
            assert lost if interruptions[-1]["signal"] == signal.SIGKILL else warned, (interruptions[-1], ended)
            if time.monotonic() > end:
                break
        last = trainings(study, run, states_s=0.1) if not ended.fine else ended
        assert last.fine, (SEED, interruptions, last)
        assert _products(study, run) == expected, (SEED, interruptions)
        folder = study.layout.run(run)
        names = {path.name for path in folder.iterdir()}
        assert names == {"attempts.jsonl", "log.csv", "model.safetensors", "progress.json", "run.json"}
        _check_progress_files(folder, starts)
        trial += 1
    print(f"{kills} interruptions in {trial} trainings")
    assert kills > 0


def _check_progress_files(folder, starts):
    """Checks that progress.json and attempts.jsonl agree with the starts of the training."""
    progress = read_progress(folder)
    assert progress is not None
    assert (progress.state, progress.done, progress.total) == ("finished", progress.total, progress.epochs * 3)
    lines = read_attempts(folder)
    assert len(lines) % 2 == 0
    assert [line["event"] for line in lines] == ["start", "end"] * (len(lines) // 2)
    assert 1 <= len(lines) // 2 <= starts + 1 and lines[-1]["outcome"] == "finished"
    for before, after in zip(lines[1::2], lines[2::2], strict=False):
        assert before["time"] <= after["time"] and after["step"] <= progress.total
