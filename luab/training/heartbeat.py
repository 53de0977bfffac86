"""The progress of a training in a small file that is updated regularly, and a list of all its attempts."""

import contextlib
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luab.errors import LuabError
from luab.files import write_json

PROGRESS = "progress.json"
ATTEMPTS = "attempts.jsonl"
_EVERY_S = 10.0


@dataclass(frozen=True)
class Progress:
    """Content of progress.json.

    Attributes:
        run: Folder name of the run, "imagenet/resnet50/click-1/seed0".
        state: "training", "stopped" (the training failed or can be resumed) or "finished". After a kill the state is
            still "training", but `updated` is old.
        epoch: Current epoch of `epochs`, from 0; equal to `epochs` at the end.
        done: Steps done of `total`, over all epochs and attempts.
        loss: Mean over the steps of the current epoch, or of the last epoch at its end; None before the first step.
        images_per_s: Throughput since this start; 0 before the first step.
        seconds_left: Estimated from the throughput; None before the first step.
        started: Start of this attempt, seconds since 1970; `updated` is the time of writing.
        attempt: 1, plus the number of times that the scheduler restarted the job.
        job: Slurm's job id, "12" or "12_3" in an array; None outside Slurm.
        node: Host name of the first process.
    """

    run: str
    state: Literal["training", "stopped", "finished"]
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    images_per_s: float
    seconds_left: float | None
    started: float
    updated: float
    attempt: int
    job: str | None
    node: str
    processes: int


def read_progress(folder: Path) -> Progress | None:
    """Reads the progress of the training in a run's folder (`study.layout.run(run)`); None if it is not readable."""
    try:
        content = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return Progress(**{field.name: content[field.name] for field in dataclasses.fields(Progress)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """Reads attempts.jsonl, oldest line first, without lines that a killed process or a full disk cut short."""
    try:
        lines = (folder / ATTEMPTS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entries.append(json.loads(line))
    return [entry for entry in entries if isinstance(entry, dict) and {"event", "time"} <= entry.keys()]


class Heartbeat:
    """Writes progress.json and attempts.jsonl during one attempt; an error in writing never ends the training.

    Args:
        folder: Folder of the run.
        run: Name of the run's folder below runs/.
        epochs: Number of epochs.
        steps: Steps per epoch.
        images: Images per step, over all processes.
        processes: Number of processes.
        writes: Whether this process writes.
    """

    def __init__(
        self, folder: Path, run: str, epochs: int, steps: int, images: int, processes: int, writes: bool = True
    ) -> None:
        self.folder, self.images, self.writes = folder, images, writes
        self.total = epochs * steps
        self.restarts = restarts()
        self.fixed: dict[str, Any] = {
            "run": run,
            "epochs": epochs,
            "total": self.total,
            "attempt": 1 + self.restarts,
            "job": job_id(),
            "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
            "processes": processes,
        }
        self.started = time.time()
        self._clock = self._written = time.monotonic()
        self._first: int | None = None
        self._warned = False

    def start(self, epoch: int, done: int) -> None:
        """Records the start of this attempt, and the end of a preceding one that was killed."""
        self._first = done
        self._close_lost()
        self._append({"event": "start", "restarts": self.restarts, "step": done})
        self._replace("training", epoch, done, None)

    def beat(self, epoch: int, done: int, loss: float | None, now: bool = False) -> None:
        """Updates progress.json if the last update was some seconds ago, or if `now` is True."""
        if now or time.monotonic() - self._written > _EVERY_S:
            self._replace("training", epoch, done, loss)

    def end(self, outcome: Literal["finished", "stopped", "failed"], epoch: int, done: int, loss: float | None) -> None:
        """Records the end of this attempt."""
        self._append({"event": "end", "outcome": outcome, "step": done})
        self._replace("finished" if outcome == "finished" else "stopped", epoch, done, loss)

    def images_per_s(self, done: int) -> float:
        """Returns the throughput of this attempt over all processes after step `done`; 0 before its first step."""
        elapsed, new_steps = time.monotonic() - self._clock, done - (self._first or 0)
        return new_steps * self.images / elapsed if new_steps and elapsed else 0.0

    def attempts(self) -> dict[str, float]:
        """Returns the number of starts and their total seconds, including the current one; for run.json."""
        starts, seconds, since = 0, 0.0, None
        for entry in read_attempts(self.folder):
            if entry["event"] == "start":
                starts, since = starts + 1, entry["time"]
            elif since is not None:
                seconds, since = seconds + entry["time"] - since, None
            if entry.get("outcome") == "finished":  # later entries belong to another training of the same run
                starts, seconds = 0, 0.0
        running = time.time() - since if since is not None else 0.0
        return {"starts": max(1, starts), "seconds": round(seconds + running, 1)}

    def _close_lost(self) -> None:
        last = next(iter(read_attempts(self.folder)[::-1]), None)
        if last is None or last["event"] != "start":
            return
        step, ended = last.get("step", 0), last["time"]
        progress = read_progress(self.folder)
        if progress is not None and progress.updated >= last["time"]:
            step, ended = progress.done, progress.updated
        self._append({"event": "end", "outcome": "lost", "step": step, "time": ended}, last)

    def _append(self, entry: dict[str, Any], attempt: dict[str, Any] | None = None) -> None:
        if not self.writes:
            return
        names = ("attempt", "job", "node", "processes")
        line = {"time": time.time(), **{name: (attempt or self.fixed).get(name) for name in names}, **entry}
        line["time"] = round(line["time"], 3)
        with self._errors_printed():
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / ATTEMPTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")

    def _replace(self, state: str, epoch: int, done: int, loss: float | None) -> None:
        if not self.writes:
            return
        rate = self.images_per_s(done)
        content = {
            **self.fixed,
            "state": state,
            "epoch": epoch,
            "done": done,
            "loss": loss,
            "images_per_s": round(rate, 3),
            "seconds_left": round((self.total - done) * self.images / rate, 1) if rate else None,
            "started": round(self.started, 3),
            "updated": round(time.time(), 3),
        }
        self._written = time.monotonic()
        with self._errors_printed():
            write_json(self.folder / PROGRESS, content)

    @contextlib.contextmanager
    def _errors_printed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, LuabError) as error:
            if not self._warned:
                print(f"Could not write the progress; the training continues. {error}", file=sys.stderr, flush=True)
            self._warned = True


def restarts() -> int:
    """Returns how often the scheduler restarted this job."""
    return int(os.environ.get("SUBMITIT_RESTARTS") or os.environ.get("SLURM_RESTART_COUNT") or 0)


def job_id() -> str | None:
    """Returns Slurm's job id, "12" or "12_3" in an array; None outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}" if array else os.environ.get("SLURM_JOB_ID")
