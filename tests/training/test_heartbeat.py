"""The heartbeat of a training: the content of its files, and that an error in writing never ends the training."""

import json
import time

import pytest

from luab.files import read_json
from luab.study.paths import Run
from luab.training import heartbeat
from luab.training.heartbeat import ATTEMPTS, PROGRESS, Heartbeat, read_attempts, read_progress
from luab.training.train import train

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)


@pytest.fixture
def beating(tmp_path, monkeypatch):
    for name in ("SUBMITIT_RESTARTS", "SLURM_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)

    def build(writes=True):
        return Heartbeat(tmp_path, "imagenet/x/click-1/seed0", 4, 10, 64, 2, writes)

    return build


def test_the_content_of_progress_json_on_a_cluster(beating, tmp_path, monkeypatch):
    for name, value in (
        ("SUBMITIT_RESTARTS", "2"),
        ("SLURM_JOB_ID", "99"),
        ("SLURM_ARRAY_JOB_ID", "12"),
        ("SLURM_ARRAY_TASK_ID", "3"),
        ("SLURMD_NODENAME", "gpu7"),
    ):
        monkeypatch.setenv(name, value)
    heart = beating()
    heart.start(1, 10)
    time.sleep(0.05)
    heart.beat(1, 15, 2.5, now=True)
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.run, progress.state, progress.epoch, progress.epochs) == (
        "imagenet/x/click-1/seed0",
        "training",
        1,
        4,
    )
    assert (progress.done, progress.total, progress.loss, progress.processes) == (15, 40, 2.5, 2)
    assert (progress.attempt, progress.job, progress.node) == (3, "12_3", "gpu7")
    assert progress.started <= progress.updated <= time.time() + 1
    # 5 steps of 64 images since this start, 25 steps left
    assert progress.seconds_left == pytest.approx(25 * 64 / progress.images_per_s, abs=0.06)  # one decimal is kept


def test_progress_json_is_updated_at_intervals(beating, tmp_path, monkeypatch):
    heart = beating()
    heart.start(0, 0)
    heart.beat(0, 1, 1.0)
    assert read_progress(tmp_path).done == 0
    monkeypatch.setattr(heartbeat, "_EVERY_S", 0.0)
    heart.beat(0, 2, 1.0)
    assert read_progress(tmp_path).done == 2


def test_attempts_are_recorded_and_a_killed_one_is_closed_by_the_next(beating, tmp_path):
    first = beating()
    first.start(0, 0)
    first.beat(0, 7, 1.0, now=True)  # and killed
    second = beating()
    second.start(0, 5)
    assert second.attempts()["starts"] == 2
    second.end("stopped", 1, 12, 0.5)
    assert read_progress(tmp_path).state == "stopped"
    third = beating()
    third.start(1, 12)
    third.end("finished", 4, 40, 0.1)
    lines = read_attempts(tmp_path)
    events = [(line["event"], line.get("outcome"), line["step"]) for line in lines]
    assert events == [
        ("start", None, 0),
        ("end", "lost", 7),
        ("start", None, 5),
        ("end", "stopped", 12),
        ("start", None, 12),
        ("end", "finished", 40),
    ]
    assert {"attempt", "job", "node", "processes", "time"} <= lines[1].keys()
    again = beating()  # another training of the same run
    again.start(0, 0)
    assert again.attempts()["starts"] == 1


def test_seconds_add_up_over_all_attempts(beating, tmp_path):
    (tmp_path / ATTEMPTS).write_text(
        "".join(
            json.dumps({"event": event, "time": second, "outcome": outcome}) + "\n"
            for event, second, outcome in [
                ("start", 0.0, None),
                ("end", 500.0, "finished"),
                ("start", 1000.0, None),
                ("end", 1100.0, "lost"),
                ("start", 2000.0, None),
                ("end", 2030.5, "stopped"),
            ]
        )
        + '{"event": "sta',  # cut short by a full disk
        encoding="utf-8",
    )
    assert beating().attempts() == {"starts": 2, "seconds": 130.5}


def test_unreadable_files_give_none_or_an_empty_list(tmp_path):
    assert read_progress(tmp_path) is None and read_attempts(tmp_path) == []
    for text in ("", "[]", '{"run": 1}', "\x00"):
        (tmp_path / PROGRESS).write_text(text, encoding="utf-8")
        assert read_progress(tmp_path) is None
    (tmp_path / ATTEMPTS).write_bytes(b"\xff\n1\nnull\n")
    assert read_attempts(tmp_path) == []


def test_only_the_first_process_writes(beating, tmp_path):
    other = beating(writes=False)
    other.start(0, 0)
    other.beat(0, 1, 1.0, now=True)
    other.end("finished", 4, 40, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_end_the_training(toy_study, monkeypatch, capfd):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heartbeat, "write_json", full)
    study = toy_study()
    train(study, CLICK)
    assert capfd.readouterr().err.count("Could not write the progress; the training continues.") == 1
    assert read_json(study.layout.run_json(CLICK))["attempts"]["starts"] == 1


def test_weights_do_not_depend_on_attempts(toy_study, monkeypatch):
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    first = train(study, CLICK)
    monkeypatch.setenv("SUBMITIT_RESTARTS", "5")
    again = train(study, CLICK)
    assert first["model_sha256"] == again["model_sha256"]
    assert read_progress(study.layout.run(CLICK)).attempt == 6
