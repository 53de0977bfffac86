"""`luab train` with two processes through torchrun: signals, a killed process, and the error in one paragraph."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256, write_json
from luab.study.paths import Run
from luab.training import processes
from luab.training.heartbeat import read_attempts, read_progress

pytestmark = pytest.mark.faults

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)
LIMIT_S = 240


class Launched:
    """One `luab train` in its own session."""

    def __init__(self, study, folder):
        config = folder / "study.yaml"
        config.write_text(study.dump(), encoding="utf-8")
        self.notes, self.log = study.layout.run(RUN), folder / "log.txt"
        path = os.pathsep.join(
            filter(None, [str(Path(processes.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        )
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "luab", "train", RUN.folder],
                env={**os.environ, "LUAB_CONFIG": str(config), "PYTHONPATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pids: set[int] = set()

    def pid(self, rank):
        """Waits until a rank is training and returns its process id."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end and self.process.poll() is None:
            self.pids |= set(self._pids().values())
            progress = read_progress(self.notes)
            if rank in self._pids() and progress is not None and progress.state == "training":
                return self._pids()[rank]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def _pids(self):
        for notes in self.notes.glob(".notes-*"):
            with contextlib.suppress(OSError, ValueError):
                return processes._pids(notes)
        return {}

    def end(self):
        """Waits for the end, checks that no process is left, and returns exit status and log."""
        code = self.process.wait(LIMIT_S)
        running = [pid for pid in self.pids if processes._alive(pid)]
        assert running == [], (running, self.log.read_text(encoding="utf-8"))
        return code, self.log.read_text(encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in {self.process.pid, *self.pids, *self._pids().values()}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.process.wait(LIMIT_S)


def test_two_processes_warned_and_killed_finish_with_the_same_bytes(toy_study, trainings, tmp_path):
    settings = {"compute": {"gpus": 2, "workers": 2}, "recipe": {"epochs": 24, "ema_decay": 0.9}}
    study = toy_study(**settings)
    folder = study.layout.run(RUN)
    with Launched(study, tmp_path) as warned:
        assert warned.pid(0) and warned.pid(1)
        warned.process.send_signal(signal.SIGUSR2)
        code, log = warned.end()
    assert code == 1 and "Traceback" not in log and "torch.distributed" not in log, log
    assert "batch 8 = 2 processes x 4 images x 1 step" in log
    last = log.rstrip().splitlines()[-1]
    assert last.startswith(f"JobError: {RUN.folder}: stopped by SIGUSR2 at epoch") and "resumes from there" in last
    with Launched(study, tmp_path) as killed:
        os.kill(killed.pid(1), signal.SIGKILL)
        code, log = killed.end()
    assert code == 1 and "Traceback" not in log, log
    last = log.rstrip().splitlines()[-1]
    assert last.startswith("JobError: Process 2 of 2 of this training was ended by SIGKILL"), log
    with Launched(study, tmp_path) as resumed:
        code, log = resumed.end()
    assert code == 0, log
    names = {path.name for path in folder.iterdir()}
    assert names == {"attempts.jsonl", "log.csv", "model.safetensors", "progress.json", "run.json"}
    outcomes = [line["outcome"] for line in read_attempts(folder) if line["event"] == "end"]
    assert outcomes[0] == "stopped" and outcomes[1] in ("failed", "lost") and outcomes[2] == "finished"
    unbroken = toy_study(**settings, paths={"results": str(tmp_path / "unbroken")})
    assert trainings(unbroken, RUN).fine
    for name in ("model.safetensors", "log.csv"):
        assert file_sha256(folder / name) == file_sha256(unbroken.layout.run(RUN) / name)


def test_the_same_error_in_all_processes_is_reported_once(toy_study, tmp_path):
    study = toy_study(compute={"gpus": 2}, paths={"imagenet": str(tmp_path / "nothing")})
    with Launched(study, tmp_path) as failing:
        code, log = failing.end()
    assert code == 1 and "Traceback" not in log and "torch.distributed" not in log, log
    last = log.rstrip().splitlines()[-1]
    assert last.startswith("DataError: ") and "30 of the 30 images checked are missing" in last
    assert log.count("images checked are missing") == 1


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder for notes, in a process that is the first of two ranks."""
    for name, value in {
        "LUAB_NOTES": str(tmp_path),
        "LUAB_PARENT": str(os.getppid()),
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def _note(notes, name, **content):
    write_json(notes / f"{name}.json", {"time": 0.0} | content)


def test_the_reported_error_comes_from_the_process_that_knows_the_cause(notes, monkeypatch, capsys):
    _note(notes, "error-0", kind="JobError", lost=True, text="lost contact", time=1.0)
    assert "lost contact" in str(processes._reason(notes, 1, [], 2))
    _note(notes, "failure-1", rank=1, status=-9, time=2.0)
    assert "Process 2 of 2 of this training was ended by SIGKILL; probably out of memory" in str(
        processes._reason(notes, 1, [], 2)
    )
    monkeypatch.setenv("RANK", "1")
    assert processes.note(DataError("a.jpg is gone"), "dataset.py:1 open")
    reason = processes._reason(notes, 1, [], 2)
    assert isinstance(reason, DataError) and str(reason) == "a.jpg is gone"
    assert "process 2: raised by dataset.py:1 open" in capsys.readouterr().err


def test_a_crash_and_an_early_signal_give_different_errors(notes):
    assert "could not be started" in str(processes._reason(notes, 3, [], 2))
    assert "Stopped by SIGTERM before the training began" in str(processes._reason(notes, 1, [signal.SIGTERM], 2))
    _note(notes, "failure-0", rank=0, status=1)
    assert "exited with status 1; its output is above" in str(processes._reason(notes, 1, [], 2))


def test_without_a_launcher_no_note_is_written(monkeypatch):
    monkeypatch.delenv("LUAB_NOTES", raising=False)
    assert not processes.note(JobError("x"), "")


def test_several_nodes_need_a_slurm_job_with_as_many_nodes(toy_study, monkeypatch, tmp_path):
    compute = toy_study(compute={"nodes": 2}).compute
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_PER_TASK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"does not run in a Slurm job.*salloc --nodes=2"):
        processes._command(compute)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    with pytest.raises(ConfigError, match="Slurm job 41, which has 1"):
        processes._command(compute)


def test_srun_starts_one_agent_per_node(toy_study, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SLURM_NODEID", "0")
    command = processes._command(toy_study(compute={"nodes": 2, "gpus": 2}).compute)
    assert command[:7] == [
        "srun",
        "--overlap",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        "--cpus-per-task=6",
    ]
    options = dict(zip(command[10::2], command[11::2], strict=True))
    assert options["--nnodes"] == "2" and options["--nproc-per-node"] == "2" and options["--max-restarts"] == "0"
    assert 20041 <= int(options["--master-port"]) < 20141
