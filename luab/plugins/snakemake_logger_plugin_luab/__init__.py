"""Snakemake logger plugin: a bar for each stage with its count and time left, and the reason where a job fails.

    snakemake --logger luab

A stage is all jobs whose rules' names begin with the same word, such as train_imagenet and train_coco. Without a
terminal, each stage is a line when its last job has ended. Warnings, errors and what the Snakefile itself prints are
shown as they are. A dry-run prints Snakemake's own list of jobs.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

__all__ = ["LogHandler"]

_LOG_LINES = 20
_GATHERING = "all"  # the rule that only gathers files


@dataclass
class _Stage:
    """The jobs of one stage."""

    total: int = 0
    done: int = 0
    begun: float | None = None  # time.monotonic() of the first job
    running: dict[int, str] = field(default_factory=dict)  # number of the job -> its title


class LogHandler(LogHandlerBase):
    """Shows the progress of a workflow on stderr."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._stages: dict[str, _Stage] = {}
        self._rules: dict[int, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            MofNCompleteColumn(),
            BarColumn(20),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[running]}"),
            console=self._console,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one record of Snakemake's log."""
        if self.common_settings.dryrun:
            self._print(self.format(record))
            return
        fields: dict[str, Any] = vars(record)
        match fields.get("event"):
            case LogEvent.RUN_INFO:
                self._plan(fields["stats"])
            case LogEvent.JOB_INFO:
                self._began(fields["jobid"], fields["rule_name"], dict(fields["wildcards"]).values())
            case LogEvent.JOB_FINISHED:
                self._finished(fields["job_id"])
            case LogEvent.JOB_ERROR:
                self._failed(fields)
            case event if record.levelno >= logging.WARNING or (event is None and _from_snakefile(record)):
                self._print(self.format(record))

    def close(self) -> None:
        """Ends the bars, which stay on the terminal."""
        self._progress.stop()
        super().close()

    def _plan(self, stats: dict[str, int]) -> None:
        """Counts the jobs of each stage; called again when Snakemake's plan grows."""
        totals = Counter[str]()
        for rule, count in stats.items():
            if rule not in ("total", _GATHERING):
                totals[_stage_of(rule)] += count
        for name, total in totals.items():
            stage = self._stages.setdefault(name, _Stage())
            stage.total = max(total, stage.done + len(stage.running))

    def _began(self, job: int, rule: str, wildcards: Iterable[str]) -> None:
        if rule == _GATHERING:
            return
        name = _stage_of(rule)
        stage = self._stages.setdefault(name, _Stage(total=1))
        self._rules[job] = rule
        stage.running[job] = " ".join([rule, *wildcards])
        stage.begun = stage.begun or time.monotonic()
        self._update(name)

    def _finished(self, job: int) -> None:
        name = _stage_of(self._rules.get(job, ""))
        stage = self._stages.get(name)
        if stage is None:
            return
        stage.running.pop(job, None)
        stage.done += 1
        self._update(name)
        if stage.done == stage.total and not self._console.is_terminal:
            seconds = time.monotonic() - (stage.begun or 0)
            self._print(f"{name}: {stage.done} of {stage.total} after {seconds:.0f} s")

    def _failed(self, fields: dict[str, Any]) -> None:
        name = _stage_of(fields["rule_name"])
        title = fields["rule_name"]
        if name in self._stages:
            title = self._stages[name].running.pop(fields["jobid"], title)
            self._update(name)
        self._print(f"{title} failed. {fields.get('rule_msg') or ''}".strip())
        for path in map(Path, fields.get("log") or []):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            except OSError:
                lines = ["(no log: the job failed before it began)"]
            self._print("\n".join([f"The end of {path}:", *(f"    {line}" for line in lines)]))

    def _update(self, name: str) -> None:
        stage = self._stages[name]
        if not self._console.is_terminal:
            return
        self._progress.start()
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, running="")
        first, *others = [*stage.running.values()] or [""]
        running = first + (f" and {len(others)} more" if others else "")
        self._progress.update(self._bars[name], completed=stage.done, total=stage.total, running=running)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def _from_snakefile(record: logging.LogRecord) -> bool:
    return record.pathname.endswith((".smk", "Snakefile"))


def _stage_of(rule: str) -> str:
    return rule.partition("_")[0]
