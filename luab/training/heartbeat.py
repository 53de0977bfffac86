"""How far a training is, in a small file that is replaced now and then, and a list of all its attempts."""

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
    """What progress.json says of one training.

    Attributes:
        run: Folder name of the run, "imagenet/resnet50/click-1/seed0".
        state: "training", "stopped" (it can go on, or it failed) or "finished". A training that was killed still
            says "training": then `updated` is old.
        epoch: Current one, from 0; equal to `epochs` when all are done.
        epochs: Of the whole training.
        done: Steps done, over all epochs and attempts.
        total: Steps of the whole training.
        loss: Mean over the steps of the current epoch, or of the last one at its end; None before the first.
        images_per_s: Since this start; 0 before the first step.
        seconds_left: At that rate; None before the first step.
        started: Of this attempt, seconds since 1970.
        updated: When the file was written, seconds since 1970.
        attempt: 1, and one more for each time the scheduler started the job again.
        job: Slurm's id, "12" or "12_3" in an array; None elsewhere.
        node: Where the first process runs.
        processes: That train together.
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
    """What the training in a run's folder last said of itself; None where there is nothing readable.

    Args:
        folder: `study.layout.run(run)`.
    """
    try:
        content = json.loads((folder / PROGRESS).read_text())
        return Progress(**{field.name: content[field.name] for field in dataclasses.fields(Progress)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl, oldest first, without those that a killed process or a full disk cut short."""
    try:
        lines = (folder / ATTEMPTS).read_text().splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and {"event", "time"} <= entry.keys():
            found.append(entry)
    return found


class Heartbeat:
    """Writes both files of one attempt. None of it may end a training: what cannot be written is said once.

    Args:
        folder: Of the run.
        run: Its folder name.
        epochs: Of the whole training.
        steps: Of one epoch.
        images: Of one step, over all processes.
        processes: That train together.
        writes: Whether this process is the one that writes.
    """

    def __init__(
        self, folder: Path, run: str, epochs: int, steps: int, images: int, processes: int, writes: bool = True
    ) -> None:
        self.folder, self.images, self.writes = folder, images, writes
        self.total = epochs * steps
        self.restarts = int(os.environ.get("SUBMITIT_RESTARTS") or os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.fixed: dict[str, Any] = {
            "run": run,
            "epochs": epochs,
            "total": self.total,
            "attempt": 1 + self.restarts,
            "job": _job(),
            "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
            "processes": processes,
        }
        self.started = time.time()
        self._clock = self._written = time.monotonic()
        self._first: int | None = None
        self._complained = False

    def start(self, epoch: int, done: int) -> None:
        """Notes the start of this attempt, and the end of one before that could not do so itself."""
        self._first = done
        self._close_lost()
        self._note({"event": "start", "restarts": self.restarts, "step": done})
        self._replace("training", epoch, done, None)

    def beat(self, epoch: int, done: int, loss: float | None, now: bool = False) -> None:
        """Writes how far the training is, if the last time is long ago or `now` is asked for."""
        if self.writes and (now or time.monotonic() - self._written > _EVERY_S):
            self._replace("training", epoch, done, loss)

    def end(self, outcome: Literal["finished", "stopped", "failed"], epoch: int, done: int, loss: float | None) -> None:
        """Notes the end of this attempt."""
        self._note({"event": "end", "outcome": outcome, "step": done})
        self._replace("finished" if outcome == "finished" else "stopped", epoch, done, loss)

    def images_per_s(self, done: int) -> float:
        """Images per second since this start, over all processes, when `done` steps are done; 0 before the first."""
        elapsed, fresh = time.monotonic() - self._clock, done - (self._first or 0)
        return fresh * self.images / elapsed if fresh and elapsed else 0.0

    def attempts(self) -> dict[str, float]:
        """Starts of this training and seconds over all of them, the running one included; for run.json."""
        starts, seconds, since = 0, 0.0, None
        for entry in read_attempts(self.folder):
            if entry["event"] == "start":
                starts, since = starts + 1, entry["time"]
            elif since is not None:
                seconds, since = seconds + entry["time"] - since, None
            if entry.get("outcome") == "finished":  # what follows is another training of the same run
                starts, seconds = 0, 0.0
        running = time.time() - since if since is not None else 0.0
        return {"starts": max(1, starts), "seconds": round(seconds + running, 1)}

    def _close_lost(self) -> None:
        last = next(iter(read_attempts(self.folder)[::-1]), None)
        if last is None or last["event"] != "start":
            return
        seen = read_progress(self.folder)
        alive = seen is not None and seen.updated >= last["time"]
        lost = {"event": "end", "outcome": "lost", "step": seen.done if seen and alive else last.get("step", 0)}
        self._note(lost | {"time": seen.updated if seen and alive else last["time"]}, last)

    def _note(self, entry: dict[str, Any], of: dict[str, Any] | None = None) -> None:
        if not self.writes:
            return
        names = ("attempt", "job", "node", "processes")
        line = {"time": time.time(), **{name: (of or self.fixed).get(name) for name in names}, **entry}
        line["time"] = round(line["time"], 3)
        with self._harmless():
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / ATTEMPTS, "a") as file:
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
        with self._harmless():
            write_json(self.folder / PROGRESS, content)

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except (OSError, LuabError) as error:
            if not self._complained:
                print(f"Progress cannot be shown; the training goes on. {error}", file=sys.stderr, flush=True)
            self._complained = True


def _job() -> str | None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}" if array else os.environ.get("SLURM_JOB_ID")
