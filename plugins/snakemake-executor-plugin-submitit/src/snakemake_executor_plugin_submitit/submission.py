"""Submits jobs through submitit, classifies refusals, and keeps refused jobs until the next attempt."""

import io
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from .payload import JobCommand

# A warning signal during the start of Python would end the job, so it is ignored until submitit handles it. submitit
# appends its own module and, last, the folder: ours takes its place.
_START = 'trap "" USR2; exec "$0" -u -m snakemake_executor_plugin_submitit.start "${@: -1}"'
_PYTHON = f"bash -c {shlex.quote(_START)} {shlex.quote(sys.executable)}"
# Limits of the number of jobs: a later submission can succeed.
_FULL = re.compile(
    r"MaxSubmit|GrpSubmit|MaxJobCount|job submit limit|temporarily unable to accept|Resource temporarily", re.I
)
# Limits that waiting does not change, although Slurm's message also mentions submit limits.
_FIXED = re.compile(r"(?:QOS|Assoc)\w*(?:Wall|Cpu|CPU|Mem|Node|GRES|TRES|Minutes|MinPrio)\w*", re.I)
_ARRAY_SIZE = re.compile(r"Invalid job array specification", re.I)
_BUSY = re.compile(
    r"timed out|Unable to contact|connect failure|Connection (?:refused|reset)|Zero Bytes|not responding|standby mode|"
    r"Transport endpoint|Communication connection|Unexpected message|try again|Unspecified error|"
    r"Protocol authentication|auth\w* plugin|munge",
    re.I,
)


class Refusal(RuntimeError):
    """The scheduler refused a submission.

    Attributes:
        kind: "full": too many jobs, a later submission can succeed; "array": more elements than an array may have;
            "busy": the scheduler did not answer properly; "final": the request is invalid.
        text: Message of the scheduler.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.kind = refusal_kind(text)


def refusal_kind(text: str) -> str:
    """Classifies a message of sbatch as "full", "array", "busy" or "final"."""
    if _ARRAY_SIZE.search(text):
        return "array"
    if _FULL.search(text) and not (_FIXED.search(text) and not re.search("(?:Max|Grp)Submit", text)):
        return "full"
    return "busy" if _BUSY.search(text) else "final"


def submit(
    cluster: str, folder: Path, parameters: dict[str, Any], commands: Sequence[JobCommand], max_timeouts: int
) -> list[str]:
    """Submits jobs with equal parameters, several of them as one array.

    Args:
        cluster: "slurm" or "local".
        folder: Folder of this submission only, shared with the nodes.
        parameters: Parameters of submitit's executor.
        commands: What the jobs run.
        max_timeouts: How often a job may be continued after its time limit.

    Returns:
        Job ids, in the order of the commands.

    Raises:
        Refusal: The scheduler refused them.
    """
    from submitit import LocalExecutor, SlurmExecutor

    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor: SlurmExecutor | LocalExecutor
        if cluster == "slurm":
            executor = SlurmExecutor(folder, max_num_timeout=max_timeouts, python=_PYTHON)
        else:
            executor = LocalExecutor(folder, max_num_timeout=max_timeouts)
        executor.update_parameters(**parameters)
        # submitit prints a refusal in addition to raising it.
        with hidden_outer_job(), redirect_stderr(io.StringIO()):
            jobs = executor.submit_array(commands)
    except (RuntimeError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Refusal(" / ".join(lines) or type(error).__name__) from error
    return [str(job.job_id) for job in jobs]


@contextmanager
def hidden_outer_job() -> Iterator[None]:
    """Hides the variables of the job that Snakemake itself runs in, and those that overrule the options of a job.

    sbatch would apply them to the new jobs: SBATCH_TIMELIMIT, say, takes precedence over what submitit writes.
    """
    visible = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "SBATCH_", "SALLOC_")) and name not in visible
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def overruling_variables() -> list[str]:
    """Names of the variables that would overrule the options of a job, and are hidden from sbatch."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


class RefusedJobs:
    """Jobs that the scheduler refused, and the time of the next attempt.

    Args:
        first_s: First delay.
        slowest_s: Longest delay.
    """

    def __init__(self, first_s: float, slowest_s: float) -> None:
        self._first_s = first_s
        self._slowest_s = slowest_s
        self._jobs: list[Any] = []
        self._since: float | None = None
        self._next = 0.0
        self._reported = ""
        self.delay_s = first_s

    def __len__(self) -> int:
        return len(self._jobs)

    def due(self) -> bool:
        """Whether jobs wait and it is time for the next attempt."""
        return bool(self._jobs) and time.monotonic() >= self._next

    def waited(self, seconds: float) -> bool:
        """Whether the last attempt was at least so long ago."""
        return time.monotonic() >= self._next - self.delay_s + seconds

    def take(self) -> list[Any]:
        """Removes and returns all jobs."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def add(self, jobs: list[Any], own_jobs_queued: bool) -> float:
        """Adds refused jobs.

        Args:
            jobs: The jobs.
            own_jobs_queued: Whether the queue is full of our own jobs, so that waiting is right, however long.

        Returns:
            Seconds since the scheduler last accepted a job.
        """
        now = time.monotonic()
        if self._since is None or own_jobs_queued:
            self._since = now
        if not self._jobs:
            self.delay_s = min(self.delay_s * 2, self._slowest_s) if self._next else self._first_s
            self._next = now + self.delay_s
        self._jobs += jobs
        return now - self._since

    def accepted(self) -> None:
        """Resets the delays after the scheduler accepted a job."""
        self._since = None
        self.delay_s = self._first_s
        self._reported = ""
        if not self._jobs:
            self._next = 0.0

    def is_news(self, text: str) -> bool:
        """Whether the text differs from that of the previous call."""
        changed, self._reported = text != self._reported, text
        return changed
