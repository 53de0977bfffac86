"""Progress of long-running work: a live bar on a terminal, a line every 30 seconds in a log."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_LOG_EVERY_S = 30.0


def wide_console() -> "Console":
    """A console for standard output that does not cut tables to 80 columns in a pipe or log."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000)


@contextmanager
def progress(what: str, total: float | None, unit: str = "it") -> Iterator[Callable[[float], None]]:
    """Shows rate and remaining time while the block runs; yields `advance(n)`.

    Args:
        what: Label, for example "imagenet-a.tar".
        total: Number of units; None if unknown.
        unit: Name of the unit; "B" is shown as bytes with decimal prefixes.
    """
    if sys.stderr.isatty():
        yield from _bar(what, total, unit)
    else:
        yield from _lines(what, total, unit)


def _bar(what: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
    from rich import progress as columns
    from rich.console import Console

    size: list[columns.ProgressColumn] = (
        [columns.DownloadColumn(), columns.TransferSpeedColumn()]
        if unit == "B"
        else [columns.MofNCompleteColumn(), columns.TextColumn(unit)]
    )
    with columns.Progress(
        columns.TextColumn("{task.description}"),
        columns.BarColumn(),
        *size,
        columns.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def _lines(what: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
    start = last_line = time.monotonic()
    done = 0.0

    def advance(n: float) -> None:
        nonlocal done, last_line
        done += n
        now = time.monotonic()
        if now - last_line >= _LOG_EVERY_S:
            last_line = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            of = f" of {total:,.0f}" if total else ""
            print(f"{what}: {done:,.0f}{of} {unit}, {rate:,.0f} {unit}/s{left}", file=sys.stderr, flush=True)

    yield advance
