"""The first program inside an allocation on Slurm: runs the submitted command with submitit, and ends as it did.

python -m snakemake_executor_plugin_submitit.start FOLDER
"""

import os
import subprocess
import sys
import time
from typing import Any

from submitit.core.job_environment import JobEnvironment
from submitit.core.submission import process_job
from submitit.slurm.slurm import SlurmJobEnvironment

from .messages import read_result

_DECISION_S = 600  # Slurm's grace times in practice are shorter


def requeue(environment: Any, countdown: int) -> None:
    """Requeues the job of this process; replaces submitit's method.

    A preempted job whose grace time is over has been requeued by Slurm itself, which then refuses. submitit would write
    down a failure, and the job would run twice: under its own id, and again for Snakemake. So wait for the end instead.

    Raises:
        RuntimeError: Slurm refused, and did not end this job either.
    """
    job_id = environment.job_id
    done = subprocess.run(
        ["scontrol", "requeue", job_id],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        print(f"Requeued job {job_id} ({countdown} remaining timeouts)", flush=True)
        return
    refusal = done.stderr.strip() or f"status {done.returncode}"
    print(f"Slurm does not requeue job {job_id} ({refusal}); waiting for its own decision.", flush=True)
    time.sleep(_DECISION_S)
    raise RuntimeError(f"expected Slurm to requeue or end job {job_id} within {_DECISION_S} s, found it running")


def main(folder: str) -> None:
    """Runs the job whose command submitit stored in a folder.

    Raises:
        Exception: Whatever ended the command; the job then fails in Slurm, too.
    """
    SlurmJobEnvironment._requeue = requeue  # type: ignore[assignment]
    os.environ["SUBMITIT_FOLDER"] = folder
    result = read_result(JobEnvironment().paths.result_pickle)
    if result is not None and result[0]:
        print("This job has succeeded already; Slurm started it once more.", flush=True)
        return
    process_job(folder)


if __name__ == "__main__":
    main(sys.argv[1])
