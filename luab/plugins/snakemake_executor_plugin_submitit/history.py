"""One line for each job that ended: what became of it, when and where."""

import contextlib
import json
import time
from pathlib import Path

from .messages import starts
from .registry import Entry
from .slurm_states import State

NAME = "history.jsonl"


def append(folder: Path, entry: Entry, outcome: str, reason: str = "") -> None:
    """Adds a job that ended to the history.

    Args:
        folder: The plugin's folder.
        entry: The job.
        outcome: COMPLETED, FAILED, CANCELLED, or Slurm's word for the end.
        reason: Why it did not complete, in words.
    """
    began = starts(entry)
    first = float(str(began[0]["time"])) if began else None
    ended = _ended(entry)
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
        "starts": began,
        "folder": entry.folder,
    }
    # A full disk must not keep Snakemake from hearing how the job ended.
    with contextlib.suppress(OSError), open(folder / NAME, "a") as file:
        file.write(json.dumps(line) + "\n")


def word(state: State | None) -> str:
    """Outcome of a job that did not succeed: Slurm's word for it, FAILED where that says nothing."""
    return "FAILED" if state is None or state.alive or state.name in ("COMPLETED", "GONE") else state.name


def _ended(entry: Entry) -> float:
    """When the job wrote its result; now for a job that left none."""
    try:
        return round(entry.result.stat().st_mtime, 1)
    except OSError:
        return round(time.time(), 1)
