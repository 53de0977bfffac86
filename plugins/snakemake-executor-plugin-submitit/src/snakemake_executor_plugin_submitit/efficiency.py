"""CPU time and memory that jobs used of what they requested: a CSV file of jobs and a table of rules."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .slurm_states import Usage

_HEADER = ("rule", "jobs", "hours", "CPUs", "CPU used", "requested", "largest peak", "memory used")


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes:
        id: Its id.
        rule: Rule, or rules of a group.
        name: Rule and wildcards.
        attempt: Snakemake's attempt number.
        outcome: COMPLETED, FAILED, CANCELLED, or Slurm's final state.
        elapsed_s: Run time, without pauses.
        cpus: Number of CPUs requested on all nodes; None if unknown, like the others below.
        cpu_s: CPU time of all processes.
        cpu_used: CPU time as a fraction of run time x CPUs.
        requested_mb: Memory requested on each node.
        peak_mb: Largest memory in use at a time.
        memory_used: Peak as a fraction of the requested memory.
    """

    id: str
    rule: str
    name: str
    attempt: int
    outcome: str
    elapsed_s: float
    cpus: int | None
    cpu_s: float | None
    cpu_used: float | None
    requested_mb: int | None
    peak_mb: int | None
    memory_used: float | None


def rows(lines: Iterable[Mapping[str, Any]], usage: Mapping[str, Usage]) -> list[Row]:
    """Combines what jobs measured themselves with the accounting; of both, the larger value counts.

    A job that was killed measured no CPU time; the accounting of some clusters misses child processes or short peaks.

    Args:
        lines: Lines of the history.
        usage: What the accounting knows, by job id; empty without accounting.
    """
    return [_row(line, usage.get(str(line.get("id", "")))) for line in lines]


def _row(line: Mapping[str, Any], account: Usage | None) -> Row:
    cpus = line.get("cpus") or (account.cpus if account else 0)
    requested_mb = line.get("requested_mb") or (account.requested_mb if account else 0)
    times = [(line.get("cpu_s"), line.get("run_s")), (account.cpu_s, account.elapsed_s) if account else (None, None)]
    known = [(cpu_s, elapsed_s) for cpu_s, elapsed_s in times if cpu_s is not None and elapsed_s]
    cpu_s, elapsed_s = max(known, key=lambda pair: pair[0] / pair[1], default=(None, line.get("elapsed_s") or 0.0))
    peak_mb = max(line.get("peak_mb") or 0, account.peak_mb if account else 0)
    name = str(line.get("name", ""))
    return Row(
        str(line.get("id", "")),
        str(line.get("request") or name).partition(",")[0],
        name,
        int(line.get("attempt") or 1),
        str(line.get("outcome", "")),
        elapsed_s,
        cpus or None,
        cpu_s,
        cpu_s / (elapsed_s * cpus) if cpu_s is not None and elapsed_s and cpus else None,
        requested_mb or None,
        peak_mb or None,
        peak_mb / requested_mb if peak_mb and requested_mb else None,
    )


def write_csv(jobs: Sequence[Row], path: Path) -> None:
    """Writes one line for each job; unknown values are empty, fractions are rounded to three digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for job in jobs:
            writer.writerow({k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(job).items()})
    os.replace(aside, path)


def table(jobs: Sequence[Row]) -> str:
    """Returns a table with one line for each rule.

    CPUs and memory requested are the largest of its jobs; the used fraction of CPU time is that of all jobs together,
    the used fraction of memory that of the job that needed most of its own.
    """
    return text_table(_HEADER, [_line(rule, [job for job in jobs if job.rule == rule]) for rule in _rules(jobs)])


def _rules(jobs: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(job.rule for job in jobs))


def _line(rule: str, jobs: Sequence[Row]) -> tuple[str, ...]:
    measured = [job for job in jobs if job.cpu_used is not None]
    cpu_s = sum(job.cpu_s or 0 for job in measured)
    offered_s = sum(job.elapsed_s * (job.cpus or 0) for job in measured)
    memory = [job.memory_used for job in jobs if job.memory_used is not None]
    return (
        rule,
        str(len(jobs)),
        f"{sum(job.elapsed_s for job in jobs) / 3600:.1f}",
        _largest([job.cpus for job in jobs]),
        f"{cpu_s / offered_s:.0%}" if offered_s else "-",
        _largest([job.requested_mb for job in jobs], " MB"),
        _largest([job.peak_mb for job in jobs], " MB"),
        f"{max(memory):.0%}" if memory else "-",
    )


def _largest(values: Iterable[int | None], unit: str = "") -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):,}{unit}" if known else "-"


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns columns for a terminal: the first one flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    texts = []
    for line in (header, *lines):
        first, *others = [
            (word.rjust if place else word.ljust)(width)
            for place, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join([first, *others]).rstrip())
    return "\n".join(texts)
