"""history.jsonl: one line for each job that ended, with outcome, times and nodes."""

import contextlib
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .memory import recorded, recorded_mb
from .messages import starts
from .registry import Entry
from .slurm_states import State

NAME = "history.jsonl"


def append(folder: Path, entry: Entry, outcome: str, reason: str = "") -> dict[str, Any]:
    """Appends a job that ended to the history, and returns its line.

    Args:
        folder: Folder of the plugin.
        entry: The job.
        outcome: COMPLETED, FAILED, CANCELLED, or Slurm's name of the final state.
        reason: Why it did not complete.
    """
    started = starts(entry)
    first = float(str(started[0]["time"])) if started else None
    ended = _end_time(entry)
    used = recorded(entry.memory)
    line = {
        "id": entry.id,
        "name": entry.name,
        "outputs": list(entry.outputs),
        "attempt": entry.attempt,
        "outcome": outcome,
        "reason": reason,
        "submitted": entry.submitted,
        "started": first,
        "ended": ended,
        "elapsed_s": round(max(0.0, ended - first), 1) if first else 0.0,
        "request": entry.request,
        "peak_mb": recorded_mb(entry.memory),
        "cpus": entry.cpus,
        "requested_mb": entry.requested_mb,
        "cpu_s": used.get("cpu_s"),
        "run_s": used.get("run_s"),
        "starts": started,
        "folder": entry.folder,
    }
    # Snakemake must learn how the job ended even if the disk is full.
    with contextlib.suppress(OSError), open(folder / NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line


def lines(folder: Path) -> list[dict[str, Any]]:
    """All jobs that ended, in the order of their ends; damaged lines are left out."""
    found = []
    with contextlib.suppress(OSError):
        for text in (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                found += [line] if isinstance(line, dict) else []
    return found


def failed_outcome(state: State | None) -> str:
    """Returns the outcome of a job that did not succeed: Slurm's final state, or FAILED if that says nothing."""
    return "FAILED" if state is None or state.alive or state.name in ("COMPLETED", "GONE") else state.name


def _end_time(entry: Entry) -> float:
    """When the job wrote its result; the current time if there is no result."""
    try:
        return round(entry.result.stat().st_mtime, 1)
    except OSError:
        return round(time.time(), 1)


def measured_mb(folder: Path) -> Mapping[str, int]:
    """Largest peak of the completed jobs of each kind, in MiB."""
    try:
        return _measured_mb(folder, (folder / NAME).stat().st_size)
    except OSError:
        return {}


@functools.lru_cache(maxsize=1)
def _measured_mb(folder: Path, size: int) -> Mapping[str, int]:
    peaks: dict[str, int] = {}
    for job in lines(folder):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if job["outcome"] == "COMPLETED":
                peaks[job["request"]] = max(peaks.get(job["request"], 0), int(job["peak_mb"]))
    return peaks
