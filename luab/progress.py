"""Progress of long work: a live bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG_EVERY_S = 30.0


@contextmanager
def progress(what: str, total: float | None, unit: str = "it") -> Iterator[Callable[[float], None]]:
    """Yields `advance(n)`; shows rate and time left while the block runs.

    Args:
        what: What is being done, e.g. "imagenet-a.tar".
        total: How many units in all; None when unknown.
        unit: Name of the unit; "B" is shown as bytes with decimal prefixes.
    """
    if sys.stderr.isatty():
        yield from _bar(what, total, unit)
    else:
        yield from _lines(what, total, unit)


def _bar(what: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    of = [DownloadColumn(), TransferSpeedColumn()] if unit == "B" else [MofNCompleteColumn(), TextColumn(unit)]
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *of,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def _lines(what: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
    start = shown = time.monotonic()
    done = 0.0

    def advance(n: float) -> None:
        nonlocal done, shown
        done += n
        now = time.monotonic()
        if now - shown >= _LOG_EVERY_S:
            shown = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            of = f" of {total:,.0f}" if total else ""
            print(f"{what}: {done:,.0f}{of} {unit}, {rate:,.0f} {unit}/s{left}", file=sys.stderr, flush=True)

    yield advance
