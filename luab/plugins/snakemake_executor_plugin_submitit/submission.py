"""Handing jobs to submitit, and reading a refusal."""

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from .payload import JobCommand

# A warning that comes while Python starts would end the job: ignored until submitit listens.
_PYTHON = f'bash -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'
# The number of jobs is limited: later there is room.
_FULL = re.compile(
    r"MaxSubmit|GrpSubmit|MaxJobCount|job submit limit|temporarily unable to accept|Resource temporarily", re.I
)
# A limit that Slurm names and that no waiting changes, although its sentence also speaks of submit limits.
_FIXED = re.compile(r"(?:QOS|Assoc)\w*(?:Wall|Cpu|CPU|Mem|Node|GRES|TRES|Minutes|MinPrio)\w*", re.I)
_ARRAY_SIZE = re.compile(r"Invalid job array specification", re.I)
_BUSY = re.compile(
    r"timed out|Unable to contact|connect failure|Connection (?:refused|reset)|Zero Bytes|not responding|standby mode|"
    r"Transport endpoint|Communication connection|Unexpected message|try again|Unspecified error|"
    r"Protocol authentication|auth\w* plugin|munge",
    re.I,
)


class Refusal(RuntimeError):
    """A submission that the scheduler did not take.

    Attributes:
        kind: "full": too many jobs, later there is room; "array": more elements than one array may have;
            "busy": the scheduler did not answer as it should; "final": the request itself is wrong.
        text: What the scheduler said.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.kind = refusal_kind(text)


def refusal_kind(text: str) -> str:
    """Sorts what sbatch says into "full", "array", "busy" or "final"."""
    if _ARRAY_SIZE.search(text):
        return "array"
    if _FULL.search(text) and not (_FIXED.search(text) and not re.search("(?:Max|Grp)Submit", text)):
        return "full"
    return "busy" if _BUSY.search(text) else "final"


def submit(
    cluster: str, folder: Path, parameters: dict[str, Any], commands: Sequence[JobCommand], max_timeouts: int
) -> list[str]:
    """Submits equal jobs, several as one array.

    Args:
        cluster: "slurm" or "local".
        folder: A folder for this submission alone, shared with the nodes.
        parameters: As submitit's executor takes them.
        commands: What the jobs run.
        max_timeouts: How often a job may be continued after its time limit.

    Returns:
        Ids in the order of the commands.

    Raises:
        Refusal: The scheduler did not take them.
    """
    from submitit import LocalExecutor, SlurmExecutor

    folder.mkdir(parents=True)
    try:
        executor: SlurmExecutor | LocalExecutor
        if cluster == "slurm":
            executor = SlurmExecutor(folder, max_num_timeout=max_timeouts, python=_PYTHON)
        else:
            executor = LocalExecutor(folder, max_num_timeout=max_timeouts)
        executor.update_parameters(**parameters)
        # submitit prints a refusal as well as raising it.
        with outside_of_job(), redirect_stderr(io.StringIO()):
            jobs = executor.submit_array(commands)
    except (RuntimeError, OSError) as error:
        raise Refusal(_said(error)) from error
    return [str(job.job_id) for job in jobs]


@contextmanager
def outside_of_job() -> Iterator[None]:
    """Hides the job that Snakemake itself runs in: sbatch would hand its size on to the new jobs."""
    kept = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")) and name not in kept
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " / ".join(lines) or type(error).__name__
