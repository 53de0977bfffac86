"""Variables of other launchers do not make a process a rank, and only one training writes into a run's folder."""

import dataclasses
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import luab
from luab.errors import JobError
from luab.study.paths import Run
from luab.training import own_process, processes
from luab.training.distributed import Processes

pytestmark = pytest.mark.faults

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)
FOREIGN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "PET_NNODES": "2"}
SEED = int(os.environ.get("LUAB_KILLS_SEED") or (0 if os.environ.get("CI") else time.time_ns() % 100_000))
LIMIT_S = 240


@pytest.fixture
def foreign(monkeypatch):
    """The environment of a rank of somebody else's launcher."""
    for name in (own_process.NOTES, own_process.PARENT):
        monkeypatch.delenv(name, raising=False)
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def _environment(study, folder, **more):
    config = folder / "study.yaml"
    config.write_text(study.dump(), encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(Path(luab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "LUAB_CONFIG": str(config), "PYTHONPATH": path, **more}


def _command(run):
    return [sys.executable, "-m", "luab", "train", run.folder]


def test_ranks_of_other_launchers_do_not_count(foreign, capsys):
    assert not own_process.launched() and Processes.here() == Processes() and processes.first()
    processes.follow_launcher()
    assert own_process.torchrun_variables() == {}
    said = capsys.readouterr().err
    assert said.startswith("RANK=1, LOCAL_RANK=1, WORLD_SIZE=2: set by another launcher and ignored"), said


def test_a_rank_needs_the_notes_and_the_right_parent(foreign, tmp_path):
    foreign.setenv(own_process.NOTES, str(tmp_path))
    assert not own_process.launched() and not processes.note(JobError("x"), "")
    foreign.setenv(own_process.PARENT, str(os.getppid() + 1))
    assert not own_process.launched() and Processes.here() == Processes()
    with pytest.raises(JobError, match=r"Expected process \d+, .* found process \d+: the training was ended"):
        processes.follow_launcher()
    foreign.setenv(own_process.PARENT, str(os.getppid()))
    assert own_process.launched() and Processes.here() == Processes(1, 1, 2) and not processes.first()


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}])
def test_a_training_with_a_foreign_rank_writes_its_results(toy_study, tmp_path, variables):
    study = toy_study(recipe={"epochs": 1, "warmup_epochs": 0})
    environment = _environment(study, tmp_path, **variables)
    done = subprocess.run(
        _command(RUN),
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0 and "RANK=1" in done.stderr, done.stderr
    names = {path.name for path in study.layout.run(RUN).iterdir()}
    assert names == {"attempts.jsonl", "log.csv", "model.safetensors", "progress.json", "run.json"}


def test_ranks_that_write_nothing_are_an_error(toy_study, monkeypatch):
    study = toy_study(compute={"gpus": 2})
    monkeypatch.setattr(processes, "_command", lambda compute: [sys.executable, "-c", "pass"])
    with pytest.raises(JobError, match=r"run\.json: expected a new file from this training, found none"):
        processes.launch(study, study.layout.run(RUN), ["train", RUN.folder])
    card = study.layout.run_json(RUN)
    card.write_text("{}", encoding="utf-8")
    with pytest.raises(JobError, match=r"run\.json: expected a new file from this training, found the old one"):
        processes.launch(study, study.layout.run(RUN), ["train", RUN.folder])


HOLDER = """
import sys
from pathlib import Path
from luab.training.processes import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(toy_study, tmp_path):
    """A process that holds the lock of a run's folder."""
    folder = toy_study().layout.run(RUN)
    environment = _environment(toy_study(), tmp_path, SLURM_JOB_ID="77")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], env=environment, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process, folder
        process.kill()


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_second_training_of_a_run_steps_back_and_names_the_first(toy_study, tmp_path, holder, gpus):
    process, folder = holder
    (folder / "state.pt").write_bytes(b"a state")
    (folder / ".notes-abcdefgh").mkdir()
    before = {path.name: path.lstat().st_mtime_ns for path in folder.iterdir()}
    study = toy_study(compute={"gpus": gpus})
    environment = _environment(study, tmp_path)
    second = subprocess.run(
        _command(RUN),
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        encoding="utf-8",
        errors="replace",
    )
    last = second.stderr.rstrip().splitlines()[-1]
    assert second.returncode == 1 and last.startswith(f"JobError: {folder}: expected no other training"), second.stderr
    assert f"process {process.pid} on {os.uname().nodename}, Slurm job 77, since 20" in last
    assert {path.name: path.lstat().st_mtime_ns for path in folder.iterdir()} == before
    process.communicate("")
    assert sorted(path.name for path in folder.iterdir()) == [".notes-abcdefgh", "state.pt"]


def test_the_kernel_releases_the_lock_of_a_killed_training(holder):
    process, folder = holder
    with pytest.raises(JobError, match=f"process {process.pid} on"), processes.only_writer(folder):
        pass
    process.kill()
    process.wait()
    assert (folder / processes.LOCK).exists()
    with processes.only_writer(folder):
        assert json.loads((folder / processes.LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert list(folder.iterdir()) == []


def test_a_restarted_job_waits_until_the_server_releases_the_lock(holder, monkeypatch):
    process, folder = holder
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(processes.time, "sleep", lambda _: process.communicate(""))
    with processes.only_writer(folder):
        pass


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with processes.only_writer(tmp_path / "seed0"):
        pass
    assert "this file system has no locks (No locks available). The training continues" in capsys.readouterr().err
    assert list((tmp_path / "seed0").iterdir()) == []


def test_an_unwritable_folder_is_a_job_error(tmp_path):
    (tmp_path / "file").touch()
    lock = processes.only_writer(tmp_path / "file" / "seed0")
    with pytest.raises(JobError, match=r"expected a folder in which this training can write"), lock:
        pass


def test_git_and_dvc_do_not_see_the_lock(repository):
    assert {processes.LOCK, ".notes-*"} <= set((repository / ".dvcignore").read_text(encoding="utf-8").split())
    assert "/results/?*" in (repository / ".gitignore").read_text(encoding="utf-8").split()


def _of_training(mark):
    """Processes of a training, by the configuration in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("LUAB_TEST_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_nothing_trains_on_after_the_launcher_was_killed(toy_study, tmp_path):
    """Six launchers at a time are killed at random moments, some before their agent has its first line done."""
    dice = random.Random(SEED)
    print(f"LUAB_KILLS_SEED={SEED}")
    waits = [dice.uniform(0.0, 0.1) for _ in range(8)] + [dice.uniform(0.1, 6.0) for _ in range(16)]
    study = toy_study(compute={"gpus": 2, "workers": 2}, recipe={"epochs": 4000})
    mark = f"{os.getpid()}-{SEED}"
    environment = _environment(study, tmp_path, LUAB_TEST_MARK=mark)
    try:
        for start in range(0, len(waits), 6):
            running = []
            for number, wait_s in enumerate(waits[start : start + 6]):
                run = dataclasses.replace(RUN, seed=start + number)
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
                launcher = subprocess.Popen(_command(run), env=environment, **quiet)
                running.append((launcher, study.layout.run(run), wait_s))
            # Each wait counts from the moment at which the launcher is about to start its agent.
            due, end = {}, time.monotonic() + LIMIT_S
            while running and time.monotonic() < end:
                for launcher, folder, wait_s in list(running):
                    if launcher.pid not in due and list(folder.glob(".notes-*/study.yaml")):
                        due[launcher.pid] = time.monotonic() + wait_s
                    if time.monotonic() >= due.get(launcher.pid, end):
                        launcher.kill()
                        launcher.wait()
                        running.remove((launcher, folder, wait_s))
                time.sleep(0.002)
            assert not running
        end = time.monotonic() + 30  # each of the processes needs seconds for its imports on a busy machine
        while (left := _of_training(mark)) and time.monotonic() < end:
            time.sleep(0.2)
        assert left == [], [process.cmdline() for process in left]
    finally:
        for process in _of_training(mark):
            process.kill()


def test_an_agent_whose_launcher_is_gone_ends_at_once(tmp_path, monkeypatch):
    ended = []
    processes._when_orphaned(os.getppid() + 1, lambda: ended.append(1))
    assert ended
    agent = [sys.executable, "-m", "luab.training.processes", "--nproc-per-node", "1", "-c", "print('trained')"]
    environment = {**os.environ, "LUAB_PARENT": "1", "LUAB_NOTES": str(tmp_path)}
    done = subprocess.run(
        agent, env=environment, capture_output=True, text=True, timeout=LIMIT_S, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 1 and done.stdout == "", done
