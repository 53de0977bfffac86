"""Trainings of a cohort: equal to those alone, bit for bit; a failure ends one; kills resume all."""

import dataclasses
import json
import math

import pytest

from luab.errors import ConfigError, JobError
from luab.files import file_sha256
from luab.study.paths import Run
from luab.training import checkpoint
from luab.training import train as module
from luab.training.heartbeat import read_attempts, read_progress
from luab.training.train import train, train_cohort
from luab.training.trainer import Trainer

CLICK = Run("imagenet", "test_vit", "click", 1.0, 0)
NONE = dataclasses.replace(CLICK, supervision="none", weight=0.0)
RUNS = [NONE, CLICK, dataclasses.replace(CLICK, weight=10.0)]
# Every source of chance in a step: stochastic depth, mixup; and in a view: augmentation by three generators.
NOISY = {"drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "color_jitter": 0.4}


@pytest.fixture
def study(toy_study, tmp_path):
    def build(folder, **overrides):
        paths = {"results": str(tmp_path / folder)}
        return toy_study("test_vit", **{"recipe": NOISY, "paths": paths} | overrides)

    return build


def _products(study, run):
    folder = study.layout.run(run)
    return file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_bytes()


@pytest.fixture
def alone(study):
    whole = study("alone")
    for run in RUNS:
        train(whole, run)
    return [_products(whole, run) for run in RUNS]


@pytest.mark.parametrize("workers", [0, 2])
def test_members_equal_their_trainings_alone(study, alone, workers):
    together = study("together", compute={"workers": workers})
    results = train_cohort(together, RUNS)
    assert [_products(together, run) for run in RUNS] == alone
    assert len(set(alone)) == 3 and [result["cohort"] for result in results] == [3, 3, 3]
    for run in RUNS:
        folder = together.layout.run(run)
        assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"] == run.identity()
        assert read_progress(folder).state == "finished" and not list(folder.glob("*state*"))


@pytest.mark.parametrize("killed_at", range(1, 11))
def test_killed_cohort_resumes_to_the_same_bytes(study, alone, killed_at, monkeypatch):
    # States are saved after every step; the kill falls between those of two members, so they continue at
    # different steps.
    save, count = checkpoint.save_state, 0

    def killed(folder, state):
        nonlocal count
        count += 1
        if count == killed_at:
            raise KeyboardInterrupt
        save(folder, state)

    together = study("together")
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_STATES", -1.0)
    monkeypatch.setattr(checkpoint, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train_cohort(together, RUNS)
    train_cohort(together, RUNS)
    assert [_products(together, run) for run in RUNS] == alone


def test_one_that_diverges_ends_alone(study, alone, monkeypatch):
    read = Trainer.read

    def diverging(self):
        if self.run == CLICK and self.pending and self.done == 2:
            self.pending[-1].values.fill_(math.nan)
        return read(self)

    together = study("together")
    monkeypatch.setattr(Trainer, "read", diverging)
    with pytest.raises(JobError, match=r"1 of 3 trainings failed(.|\n)*click-1/seed0: .*became nan in step 1"):
        train_cohort(together, RUNS)
    assert [_products(together, run) for run in (RUNS[0], RUNS[2])] == [alone[0], alone[2]]
    assert not together.layout.run_json(CLICK).exists()
    outcomes = [read_attempts(together.layout.run(run))[-1]["outcome"] for run in RUNS]
    assert outcomes == ["finished", "failed", "finished"]
    # As Snakemake does: the outputs of a failed job are removed. The others' last states spare their training.
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    for run in (RUNS[0], RUNS[2]):
        for name in ("run.json", "model.safetensors", "log.csv"):
            (together.layout.run(run) / name).unlink()
    train_cohort(together, [RUNS[0], RUNS[2]])
    assert [_products(together, run) for run in (RUNS[0], RUNS[2])] == [alone[0], alone[2]]
    assert not list(together.layout.run(NONE).glob("*state*"))


def test_runs_that_see_other_images_are_refused(study):
    other = dataclasses.replace(CLICK, seed=1)
    with pytest.raises(ConfigError, match=r"one data set, backbone and seed(.|\n)*seed1"):
        train_cohort(study("together"), [NONE, other])
    with pytest.raises(ConfigError, match="different runs"):
        train_cohort(study("together"), [NONE, NONE])
