"""Memory and CPU time of jobs: each measures its own, the history keeps them, later jobs of the kind use the peak."""

import contextlib
import json
import os
import resource
import time
from pathlib import Path

FILE = "{id}_memory.json"
_FIRST_S, _SLOWEST_S, _GROWTH = 0.5, 20.0, 1.5
_NEWS = 1.02
_STEP_MB = 100


class PeakMemory:
    """Samples the memory of a process and its descendants, and keeps the largest sum in a file.

    Memory that processes share counts once (proportional set size), as in Slurm's control groups. Shorter peaks than
    20 s may be missed.

    Args:
        path: The file; its value of an earlier start of the job counts too. None to not measure.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._used = recorded(path) if path else {}
        self._started, self._cpu_s = time.monotonic(), _cpu_s()
        self._wait_s, self._next = _FIRST_S, time.monotonic()

    def sample(self, pid: int) -> None:
        """Measures if it is time."""
        if self._path is None or time.monotonic() < self._next:
            return
        self._wait_s = min(self._wait_s * _GROWTH, _SLOWEST_S)
        self._next = time.monotonic() + self._wait_s
        now_mb = in_use_mb(pid)
        if now_mb > self._used.get("peak_mb", 0) * _NEWS:
            self._used["peak_mb"] = round(now_mb)
            self._write(self._path)

    def close(self) -> None:
        """Adds the run time of this start, and the CPU time of its processes that have ended."""
        if self._path is None:
            return
        for name, seconds in (("run_s", time.monotonic() - self._started), ("cpu_s", _cpu_s() - self._cpu_s)):
            self._used[name] = round(self._used.get(name, 0) + seconds, 1)
        self._write(self._path)

    def _write(self, path: Path) -> None:
        aside = path.with_suffix(".part")
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps(self._used), encoding="utf-8")
            os.replace(aside, path)


def _cpu_s() -> float:
    """CPU time of all descendants that ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_use_mb(pid: int) -> float:
    """Memory of a process and its descendants on this machine, in MiB; 0 if it cannot be read."""
    import psutil  # Snakemake's dependency

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = one.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return total / 2**20


def recorded(path: Path) -> dict[str, float]:
    """What a job measured: peak_mb, cpu_s and run_s; those that it did not measure are missing."""
    try:
        content = json.loads(path.read_bytes())
        return {
            name: content[name] for name in ("peak_mb", "cpu_s", "run_s") if isinstance(content.get(name), int | float)
        }
    except (OSError, ValueError, AttributeError):
        return {}


def recorded_mb(path: Path) -> int | None:
    """Peak of a job in MiB; None if it was not measured."""
    peak = recorded(path).get("peak_mb")
    return None if peak is None else int(peak)


def request_of(rules: str, threads: int, mem_mb: object) -> str:
    """Describes a kind of job: what it runs and what it asks for. Peaks of other kinds say nothing about it."""
    return f"{rules}, {threads} threads, {mem_mb} MB"


def requested_mb(declared_mb: int, overhead_mb: int, peak_mb: int | None, factor: float) -> int:
    """Memory to request with mem_mb, in MB: a multiple of the measured peak, at most what is declared.

    Args:
        declared_mb: The job's mem_mb.
        overhead_mb: Is added to the result later; the measured peak includes it.
        peak_mb: Largest peak of earlier jobs of this kind; None if there are none.
        factor: The multiple; 0 to request what is declared.
    """
    if not peak_mb or not factor:
        return declared_mb
    rounded = -(-int(peak_mb * factor) // _STEP_MB) * _STEP_MB
    return min(declared_mb, max(1, rounded - overhead_mb))  # 0 would request the cluster's default
