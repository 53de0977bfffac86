"""Code that the measurements share: command line, turns, processor time, memory, tables and results."""

import argparse
import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from luab.files import write_json
from luab.provenance.code import hardware, versions

if TYPE_CHECKING:
    from rich.table import Table

OUT = Path(__file__).resolve().parent / "results"
_T = TypeVar("_T")


def command_line(description: str | None, files: str = "") -> argparse.ArgumentParser:
    """Returns a parser that prints the script's docstring as help, with `--out` if the script writes `files`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if files:
        parser.add_argument("--out", type=Path, default=OUT, help=f"folder for {files}")
    return parser


def in_turn(ways: dict[str, Callable[[int], _T]], runs: int, uncounted: int = 1) -> dict[str, list[_T]]:
    """Calls all ways in turn, `runs` times, so that other work on the machine affects them alike.

    Args:
        ways: Name -> function of the run's number.
        runs: Number of runs that count.
        uncounted: Runs before these, whose results are dropped.
    """
    results: dict[str, list[_T]] = {name: [] for name in ways}
    for run in range(uncounted + runs):
        for name, way in ways.items():
            results[name].append(way(run))
    return {name: values[uncounted:] for name, values in results.items()}


def median_ratio(values: Iterable[float], references: Iterable[float]) -> float:
    """Returns the median of the ratios of values measured in the same run."""
    return statistics.median(a / b for a, b in zip(values, references, strict=True))


def cpu_s() -> float:
    """Returns the processor time of this process and its ended children, user and system, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def tree_bytes(pid: int) -> int:
    """Returns the memory of a process and all its children; pages that they share count more than once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


def peak_bytes(pid: int, running: Callable[[], bool], every_s: float) -> int:
    """Returns the largest `tree_bytes` until `running` returns False, checked every `every_s` seconds."""
    peak = 0
    while running():
        peak = max(peak, tree_bytes(pid))
        time.sleep(every_s)
    return peak


def today() -> str:
    """Returns the date as YYYY-MM-DD."""
    return date.today().isoformat()


def circumstances() -> dict[str, Any]:
    """Returns date, versions and hardware for a report."""
    return {"date": today(), "versions": versions(), "hardware": hardware()}


def machine() -> str:
    """Returns processor and number of cores in one line."""
    return f"{hardware()['processor']}, {os.cpu_count()} cores"


def write_report(out: Path, name: str, report: dict[str, Any], figure: Any = None) -> None:
    """Writes `<name>.json` and, of a figure, `<name>.pdf` and `<name>.png`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", report)
    if figure is not None:
        from luab.render.style import save

        save(figure, out / f"{name}.pdf")


def table_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Returns a table whose first column is left-aligned and all others are right-aligned."""
    from rich.table import Table  # not at the top, to keep it out of the memory of measured processes

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Returns "lowest .. highest"."""
    return f"{min(values):,.{digits}f} .. {max(values):,.{digits}f}"
