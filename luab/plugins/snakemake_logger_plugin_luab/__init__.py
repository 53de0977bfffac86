"""Snakemake logger plugin: a bar with the jobs that run, one line where no terminal is, and the reason where one fails.

    snakemake --logger luab

Warnings, errors and what the Snakefile itself prints are shown as they are. A dry-run prints Snakemake's own list of
jobs.
"""

import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

__all__ = ["LogHandler"]

_SHOWN_RUNNING = 2
_LOG_LINES = 20


class LogHandler(LogHandlerBase):
    """Shows the progress of a workflow on stderr."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._titles: dict[int, str] = {}
        self._running: dict[int, str] = {}
        self._done = self._total = 0
        columns = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._bar = self._progress.add_task("", total=None)

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one record of Snakemake's log."""
        if self.common_settings.dryrun:
            self._print(self.format(record))
            return
        fields: dict[str, Any] = vars(record)
        match fields.get("event"):
            case LogEvent.RUN_INFO:
                self._total = fields["stats"]["total"]
            case LogEvent.JOB_INFO:
                self._titles[fields["jobid"]] = " ".join([fields["rule_name"], *dict(fields["wildcards"]).values()])
                self._running[fields["jobid"]] = self._titles[fields["jobid"]]
            case LogEvent.JOB_FINISHED:
                self._running.pop(fields["job_id"], None)
                self._finished(self._titles.get(fields["job_id"], ""))
            case LogEvent.PROGRESS:
                self._done, self._total = fields["done"], fields["total"]
            case LogEvent.JOB_ERROR:
                self._running.pop(fields["jobid"], None)
                self._failed(fields)
            case None if record.levelno >= logging.WARNING or record.pathname.endswith((".smk", "Snakefile")):
                self._print(self.format(record))
        self._update()

    def close(self) -> None:
        """Removes the bar."""
        self._progress.stop()
        super().close()

    def _finished(self, title: str) -> None:
        if title and not self._console.is_terminal:
            self._print(f"done {self._done + 1} of {self._total or '?'}: {title}")

    def _failed(self, fields: dict[str, Any]) -> None:
        title = self._titles.get(fields["jobid"], fields["rule_name"])
        self._print(f"{title} failed. {fields.get('rule_msg') or ''}".strip())
        for path in map(Path, fields.get("log") or []):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            except OSError:
                lines = ["(no log: the job failed before it began)"]
            self._print("\n".join([f"The end of {path}:", *(f"    {line}" for line in lines)]))

    def _update(self) -> None:
        if not self._console.is_terminal or not (self._total or self._running):
            return
        names = list(self._running.values())
        more = f" and {len(names) - _SHOWN_RUNNING} more" if len(names) > _SHOWN_RUNNING else ""
        self._progress.start()
        description = ", ".join(names[:_SHOWN_RUNNING]) + more
        self._progress.update(self._bar, completed=self._done, total=self._total or None, description=description)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)
