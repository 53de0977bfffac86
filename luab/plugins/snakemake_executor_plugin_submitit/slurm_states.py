"""States of jobs in Slurm, with one call for any number of jobs."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# fmt: off
ALIVE = frozenset((
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING",
    "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
))
# fmt: on
_TIMEOUT_S = 120
_SQUEUE = "%i|%T|%r|%N|%M"
_SACCT = "JobID,State,ExitCode,NodeList,Elapsed"


class SlurmUnreachable(RuntimeError):
    """Slurm did not answer, so the states of all jobs are unknown."""


@dataclass(frozen=True)
class State:
    """State of one job.

    Attributes:
        name: Slurm's name of the state, such as PENDING or TIMEOUT.
        reason: Why it waits or ended; empty if Slurm gives no reason.
        node: Nodes it runs or ran on.
        exit_code: Exit status and signal in Slurm's form, "1:0".
        elapsed: Run time in Slurm's form.
        by: Id of the user who cancelled it.
    """

    name: str
    reason: str = ""
    node: str = ""
    exit_code: str = ""
    elapsed: str = ""
    by: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job runs or can still run."""
        return self.name in ALIVE


@dataclass
class Slurm:
    """Runs Slurm's commands, each once for many jobs.

    Attributes:
        calls: Number of calls of each command.
    """

    calls: dict[str, int] = field(default_factory=dict)
    _accounting: bool = True

    def queue(self, ids: Iterable[str]) -> dict[str, State]:
        """Returns the states in squeue, including those of jobs that ended a few minutes ago.

        Args:
            ids: Job ids, 12 or 12_3.

        Returns:
            Id -> state, for the jobs that the controller still has.

        Raises:
            SlurmUnreachable: squeue failed for a reason other than an unknown job.
        """
        ids = set(ids)
        if not ids:
            return {}
        done = self._run(["squeue", "--noheader", "--array", "--states=all", f"--format={_SQUEUE}", _jobs_option(ids)])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        return {job_id: state for job_id, state in parse_squeue(done.stdout).items() if job_id in ids}

    def strays(self, folders: Iterable[str]) -> dict[str, str]:
        """Finds our waiting or running jobs whose batch script is in one of the folders.

        This finds submissions whose answer was lost because the scheduler timed out or Snakemake was killed.

        Returns:
            Folder -> job id; for an array the id of the whole array.

        Raises:
            SlurmUnreachable: squeue failed.
        """
        folders = set(folders)
        if not folders:
            return {}
        done = self._run(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%o"])
        if done.returncode:
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        lines = (line.strip().partition("|") for line in done.stdout.splitlines())
        all_jobs = {os.path.dirname(script): job_id for job_id, _, script in lines}
        return {folder: job_id for folder, job_id in all_jobs.items() if folder in folders}

    def accounts(self, ids: Iterable[str]) -> dict[str, State]:
        """Returns the states in the accounting, which keeps ended jobs for longer; empty without accounting."""
        ids = set(ids)
        if not ids or not self._accounting:
            return {}
        done = self._run(
            ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={_SACCT}", _jobs_option(ids)]
        )
        if done.returncode:
            self._accounting = "disabled" not in done.stderr
            return {}
        return {job_id: state for job_id, state in parse_sacct(done.stdout).items() if job_id in ids}

    def details(self, job_id: str) -> State | None:
        """Returns the state of one job in scontrol, the last source on clusters without accounting."""
        done = self._run(["scontrol", "--oneliner", "show", "job", job_id])
        return None if done.returncode else parse_scontrol(done.stdout)

    def cancel(self, ids: Iterable[str]) -> str:
        """Cancels all jobs in one call.

        Returns:
            Error message of scancel; empty on success.
        """
        command = ["scancel", *sorted(set(ids))]
        if len(command) == 1:
            return ""
        done = self._run(command)
        return _last_line(done.stderr) if done.returncode else ""

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 255, "", str(error))


def base(job_id: str) -> str:
    """Returns the id of the whole array: 12 for 12_3."""
    return job_id.partition("_")[0]


def _jobs_option(ids: Iterable[str]) -> str:
    return f"--jobs={','.join(sorted({base(job_id) for job_id in ids}))}"


def parse_squeue(text: str) -> dict[str, State]:
    """Parses lines such as `12_3|RUNNING|None|n1|1:02`."""
    states = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 5:
            job_id, name, reason, node, elapsed = parts
            states[job_id] = State(name, "" if reason == "None" else reason, node, "", elapsed)
    return states


def parse_sacct(text: str) -> dict[str, State]:
    """Parses lines such as `12_3|CANCELLED by 1000|0:15|n1|00:01:02`; the last line of an id counts."""
    states = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 5 and "." not in parts[0]:
            name, _, by = parts[1].partition(" by ")
            states[parts[0]] = State(name, "", "" if parts[3].startswith("None") else parts[3], parts[2], parts[4], by)
    return states


def parse_scontrol(text: str) -> State | None:
    """Parses the `Key=value` line of `scontrol --oneliner show job`."""
    fields: Mapping[str, str] = dict(re.findall(r"(\w+)=(\S*)", text))
    if "JobState" not in fields:
        return None
    reason = fields.get("Reason", "None")
    node = fields.get("NodeList", "").replace("(null)", "")
    exit_code, elapsed = fields.get("ExitCode", ""), fields.get("RunTime", "")
    return State(fields["JobState"], "" if reason == "None" else reason, node, exit_code, elapsed)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
