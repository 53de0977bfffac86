"""`luab status --watch`: state, node, epoch, loss and time left of every training, from any terminal in the checkout.

Each training writes its progress next to its results, and the executor plugin writes a file for each live job. While
Snakemake runs, these files are up to date; otherwise one squeue reads the states of all jobs from Slurm.
"""

import time
from collections import Counter
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
from luab.study.transfers import FineTuning
from luab.training.heartbeat import Progress, read_progress

if TYPE_CHECKING:
    from snakemake_executor_plugin_submitit.slurm_states import State

JOBS = Path(".snakemake") / "submitit" / "live"
"""Folder of live jobs of the executor plugin, in the checkout."""
CURRENT_S = 120.0
"""The plugin's records count as up to date this long after its last squeue, which it runs at least once a minute."""
SILENT_S = 300.0
"""A running training without progress for this long is shown as silent."""
_STYLES = {"done": "green", "running": "cyan", "pending": "blue", "silent": "yellow", "stopped": "yellow"}


@dataclass(frozen=True)
class Job:
    """A live job of the cluster: Slurm's id and state in lower case, why it is pending, its node and Snakemake rule."""

    id: str
    state: str
    reason: str
    node: str
    rule: str


@dataclass(frozen=True)
class Row:
    """One training, as a row of the table.

    Attributes:
        run: The training, or a fine-tuning.
        state: done, running, pending, silent, stopped, or "not started".
        where: Node, or why the job is pending.
        progress: Its progress; None before the first step.
    """

    run: Run | FineTuning
    state: str
    where: str
    progress: Progress | None


def watch(study: Study, interval_s: float) -> None:
    """Updates the table until every training is done, or until Ctrl-C; each update runs squeue at most once."""
    console = Console()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                rows, other_jobs = read_rows(study)
                view = _view(rows, other_jobs, console.height if console.is_terminal else None)
                unfollowed = unfollowed_jobs()
                live.update(Group(view, Text(unfollowed)) if unfollowed else view, refresh=True)
                if all(row.state == "done" for row in rows):
                    return
                time.sleep(interval_s)
    except KeyboardInterrupt:
        return


def unfollowed_jobs() -> str:
    """Says since when no Snakemake follows the live jobs of the cluster, and how to go on; empty if one does."""
    try:
        from snakemake_executor_plugin_submitit.controller import notice
    except ModuleNotFoundError:  # the library alone, without Snakemake, has no jobs on a cluster
        return ""
    return notice(JOBS.parent)


def read_rows(study: Study) -> tuple[list[Row], list[Job]]:
    """A row for each training and fine-tuning of the study, and the live jobs of other rules."""
    jobs, layout = live_jobs(JOBS), study.layout
    runs: dict[str, Run | FineTuning] = {str(layout.run_json(run)): run for run in study.runs()}
    runs |= {str(layout.fine_tuning_json(one)): one for one in study.fine_tunings()}
    job_of_run = {runs[output]: job for output, job in jobs.items() if output in runs}
    rows = [_row(Path(card), run, job_of_run.get(run)) for card, run in runs.items()]
    others = {job.id: job for output, job in jobs.items() if output not in runs and job not in job_of_run.values()}
    return rows, list(others.values())


def live_jobs(folder: Path) -> dict[str, Job]:
    """Live jobs by output; a job with several outputs is listed for each."""
    from snakemake_executor_plugin_submitit.registry import CHECKED, Registry

    entries = [entry for entry in Registry(folder).unended() if entry.id]
    checked = folder / CHECKED
    up_to_date = checked.is_file() and time.time() - checked.stat().st_mtime < CURRENT_S
    states = {} if up_to_date else _slurm_states([entry.id for entry in entries if entry.cluster == "slurm"])
    jobs = {}
    for entry in entries:
        now = states.get(entry.id)
        if now is not None and not now.alive:
            continue
        state, reason, node = (now.name, now.reason, now.node) if now else (entry.state, entry.reason, entry.node)
        job = Job(entry.id, state.lower(), reason, node, entry.name.partition(" ")[0])
        jobs.update(dict.fromkeys(entry.outputs, job))
    return jobs


def _slurm_states(ids: list[str]) -> "dict[str, State]":
    """States of jobs from one squeue; empty if Slurm does not answer."""
    from snakemake_executor_plugin_submitit.slurm_states import Slurm, SlurmUnreachable

    try:
        return Slurm().queue(ids)
    except SlurmUnreachable:
        return {}


def _row(card: Path, run: Run | FineTuning, job: Job | None) -> Row:
    progress = read_progress(card.parent)
    if card.is_file():
        return Row(run, "done", "", progress)
    silent = progress is not None and time.time() - progress.updated > SILENT_S
    if job and job.state == "pending":
        return Row(run, "pending", job.reason if job.reason not in ("", "None") else "queued", progress)
    if job:
        return Row(run, "silent" if silent else job.state or "submitted", job.node, progress)
    if progress is None:
        return Row(run, "not started", "", None)
    alive = progress.state == "training" and not silent
    return Row(run, "running" if alive else "stopped", progress.node, progress)


def _view(rows: list[Row], other_jobs: list[Job], height: int | None) -> RenderableType:
    """Counts in one line, a table of started trainings, and other jobs in one line; cut to `height` terminal lines."""
    counts = Counter(row.state for row in rows)
    order = ["done", "running", "silent", "pending", "stopped"]
    order += sorted(set(counts) - set(order))
    summary = ", ".join(f"{counts[state]} {state}" for state in order if counts[state])
    started = sorted((row for row in rows if row.state not in ("done", "not started")), key=_urgency)
    most = len(started) if height is None else max(1, (height - 8) // 2)
    parts: list[RenderableType] = [Text(f"{len(rows)} trainings: {summary}")]
    if started:
        parts.append(_table(started[:most]))
    if len(started) > most:
        parts.append(Text(f"... and {len(started) - most} more; make the window taller to see them"))
    if other_jobs:
        counted = sorted(Counter((job.rule, job.state) for job in other_jobs).items())
        parts.append(Text("other jobs: " + ", ".join(f"{count} x {rule} {state}" for (rule, state), count in counted)))
    return Group(*parts)


def _urgency(row: Row) -> tuple[int, str]:
    order = ["silent", "stopped", "running", "pending"]
    return (order.index(row.state) if row.state in order else 2, row.run.folder)


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("run", min_width=21, overflow="fold")  # fits the longest common names
    table.add_column("state", no_wrap=True)
    table.add_column("node", no_wrap=True, max_width=14)
    for name in ("try", "epoch", "loss", "img/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        state = Text(row.state, style=_STYLES.get(row.state, ""))
        first, *words = row.run.folder.split("/")
        words = [first, *words] if isinstance(row.run, FineTuning) else words
        table.add_row(" ".join(words), state, row.where, *_numbers(row.progress))
    return table


def _numbers(progress: Progress | None) -> tuple[str, ...]:
    if progress is None:
        return ()
    epoch = f"{min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
    loss = "" if progress.loss is None else f"{progress.loss:.3f}"
    attempt = str(progress.attempt or "")
    return attempt, epoch, loss, f"{progress.images_per_s:,.0f}", _duration(progress.seconds_left)


def _duration(seconds: float | None) -> str:
    """A duration in at most two units: 2 d 3 h, 4 h 05 m, 12 m, 30 s."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes >= 24 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    return f"{minutes} m" if seconds >= 60 else f"{seconds:.0f} s"
