"""`luab status --watch`: queue, node, epoch, loss and time left of every training, from any terminal of the checkout.

Trainings say how far they are in a file beside their results, and the executor plugin keeps a file for each live job.
While a Snakemake runs these files hold, and nobody asks Slurm; otherwise one squeue asks for all jobs together.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from luab.study.config import Study
from luab.study.paths import Run
from luab.training.heartbeat import Progress, read_progress

if TYPE_CHECKING:
    from snakemake_executor_plugin_submitit.slurm_states import State

JOBS = Path(".snakemake") / "submitit" / "live"
"""The executor plugin's folder of live jobs, below the checkout."""
CURRENT_S = 120.0
"""So long after the last answer of squeue the plugin's records hold; it asks once a minute at least."""
SILENT_S = 300.0
"""After so long without a word a training that should run is called silent."""
_STYLES = {"done": "green", "running": "cyan", "pending": "blue", "silent": "yellow", "stopped": "yellow"}


@dataclass(frozen=True)
class Job:
    """A live job of the cluster.

    Attributes:
        id: Slurm's id, 12 or 12_3.
        state: Slurm's word in small letters: pending, running, ...
        reason: Why it waits.
        node: Where it runs.
        attempt: Snakemake's count of tries.
        rule: What it runs, for people.
    """

    id: str
    state: str
    reason: str
    node: str
    attempt: int
    rule: str


@dataclass(frozen=True)
class Row:
    """One training as the table shows it.

    Attributes:
        run: Which.
        state: done, running, pending, silent, stopped, or "not started".
        where: Node, or the reason for waiting.
        progress: How far it is; None before its first step.
        attempt: How often it was started.
    """

    run: Run
    state: str
    where: str
    progress: Progress | None
    attempt: int


def watch(study: Study, interval_s: float) -> None:
    """Draws the table anew until every training is done, or until Ctrl-C.

    Args:
        study: Whose runs are shown.
        interval_s: Seconds between two looks, each with one squeue at most.
    """
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, screen=False, transient=False) as live:
            while True:
                rows, others = look(study)
                live.update(_picture(rows, others, console.height if console.is_terminal else None), refresh=True)
                if all(row.state == "done" for row in rows):
                    return
                time.sleep(interval_s)
    except KeyboardInterrupt:
        return


def look(study: Study) -> tuple[list[Row], list[Job]]:
    """Where every training of the study is, and the live jobs that train nothing."""
    jobs = live_jobs(JOBS)
    training = {str(study.layout.run_json(run)): run for run in study.runs()}
    by_run = {training[output]: job for output, job in jobs.items() if output in training}
    rows = [_row(study, run, by_run.get(run)) for run in study.runs()]
    others = {job.id: job for output, job in jobs.items() if output not in training and job not in by_run.values()}
    return rows, list(others.values())


def live_jobs(folder: Path) -> dict[str, Job]:
    """Live jobs by each of their outputs."""
    from snakemake_executor_plugin_submitit.registry import CHECKED, Registry

    entries = [entry for entry in Registry(folder) if entry.id]
    checked = folder / CHECKED
    known = checked.is_file() and time.time() - checked.stat().st_mtime < CURRENT_S
    states = {} if known else _asked([entry.id for entry in entries if entry.cluster == "slurm"])
    found = {}
    for entry in entries:
        now = states.get(entry.id)
        if now is not None and not now.alive:
            continue
        state, reason, node = (now.name, now.reason, now.node) if now else (entry.state, entry.reason, entry.node)
        job = Job(entry.id, state.lower(), reason, node, entry.attempt, entry.name.partition(" ")[0])
        found.update(dict.fromkeys(entry.outputs, job))
    return found


def _asked(ids: list[str]) -> "dict[str, State]":
    """What one squeue says; nothing where there is no Slurm that answers."""
    from snakemake_executor_plugin_submitit.slurm_states import Slurm, SlurmUnreachable

    try:
        return Slurm().queue(ids)
    except SlurmUnreachable:
        return {}


def _row(study: Study, run: Run, job: Job | None) -> Row:
    progress = read_progress(study.layout.run(run))
    if study.layout.run_json(run).is_file():
        return Row(run, "done", "", progress, 0)
    attempt = progress.attempt if progress else 0
    age = time.time() - progress.updated if progress else 0.0
    if job and job.state == "pending":
        return Row(run, "pending", _waiting(job), progress, attempt)
    if job:
        silent = progress is not None and age > SILENT_S
        return Row(run, "silent" if silent else job.state or "submitted", job.node, progress, attempt)
    if progress is None:
        return Row(run, "not started", "", None, 0)
    alive = progress.state == "training" and age <= SILENT_S
    return Row(run, "running" if alive else "stopped", progress.node, progress, attempt)


def _waiting(job: Job) -> str:
    return job.reason if job.reason not in ("", "None") else "queued"


def _picture(rows: list[Row], others: list[Job], height: int | None) -> RenderableType:
    """Counts in one line, the trainings that are under way, and the rest of the jobs in one line."""
    counts = Counter(row.state for row in rows)
    order = ["done", "running", "silent", "pending", "stopped"]
    order += sorted(set(counts) - set(order))
    head = Text(f"{len(rows)} trainings: ")
    head.append(", ".join(f"{counts[state]} {state}" for state in order if counts[state]))
    moving = sorted((row for row in rows if row.state not in ("done", "not started")), key=_urgency)
    room = len(moving) if height is None else max(1, (height - 8) // 2)
    parts: list[RenderableType] = [head]
    if moving:
        parts.append(_table(moving[:room]))
    if len(moving) > room:
        parts.append(Text(f"... and {len(moving) - room} more; a taller window shows them"))
    if others:
        parts.append(Text("other jobs: " + ", ".join(_counted(others))))
    return Group(*parts)


def _urgency(row: Row) -> tuple[int, str]:
    order = ["silent", "stopped", "running", "pending"]
    return (order.index(row.state) if row.state in order else 2, row.run.folder)


def _counted(jobs: list[Job]) -> Iterator[str]:
    kinds: Mapping[tuple[str, str], int] = Counter((job.rule, job.state) for job in jobs)
    for (rule, state), count in sorted(kinds.items()):
        yield f"{count} x {rule} {state}"


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("run", min_width=21, overflow="fold")  # as wide as the longest common names
    table.add_column("state", no_wrap=True)
    table.add_column("node", no_wrap=True, max_width=14)
    for name in ("try", "epoch", "loss", "img/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        state = Text(row.state, style=_STYLES.get(row.state, ""))
        _, *words = row.run.folder.split("/")
        table.add_row(" ".join(words), state, row.where, str(row.attempt or ""), *_numbers(row.progress))
    return table


def _numbers(progress: Progress | None) -> tuple[str, str, str, str]:
    if progress is None:
        return "", "", "", ""
    epoch = f"{min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
    loss = "" if progress.loss is None else f"{progress.loss:.3f}"
    rate = "" if progress.images_per_s is None else f"{progress.images_per_s:,.0f}"
    return epoch, loss, rate, _duration(progress.seconds_left)


def _duration(seconds: float | None) -> str:
    """In two units at most: 2 d 3 h, 4 h 05 m, 12 m, 30 s."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes >= 24 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    return f"{minutes} m" if seconds >= 60 else f"{seconds:.0f} s"
