"""What Slurm says about jobs: one call for all of them, whatever their number."""

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
_SLOW_S = 120
_SQUEUE = "%i|%T|%r|%N|%M"
_SACCT = "JobID,State,ExitCode,NodeList,Elapsed"


class SlurmUnreachable(RuntimeError):
    """Slurm did not answer; nothing is known about any job."""


@dataclass(frozen=True)
class State:
    """State of one job.

    Attributes:
        name: Slurm's word, PENDING to TIMEOUT.
        reason: Why it waits or ended, where Slurm says so.
        node: Nodes it runs or ran on.
        exit_code: As Slurm prints it, "1:0": status and signal.
        elapsed: Run time as Slurm prints it.
        by: Number of the user who cancelled it.
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
    """Answers for many jobs in one call each, and counts the calls.

    Attributes:
        calls: How often each command was called.
    """

    calls: dict[str, int] = field(default_factory=dict)
    _accounting: bool = True

    def queue(self, ids: Iterable[str]) -> dict[str, State]:
        """States from squeue, jobs that ended some minutes ago included.

        Args:
            ids: Ids of jobs, 12 or 12_3.

        Returns:
            State of each id that the controller still knows.

        Raises:
            SlurmUnreachable: squeue failed for a reason other than an unknown job.
        """
        wanted = set(ids)
        if not wanted:
            return {}
        jobs = ",".join(sorted({base(job_id) for job_id in wanted}))
        done = self._run(["squeue", "--noheader", "--array", "--states=all", f"--format={_SQUEUE}", f"--jobs={jobs}"])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        return {k: v for k, v in parse_squeue(done.stdout).items() if k in wanted}

    def strays(self, folders: Iterable[str]) -> dict[str, str]:
        """Own jobs that wait or run and whose batch script lies in one of the folders.

        For submissions whose answer was lost: the scheduler timed out, or Snakemake was killed before it was read.

        Returns:
            Id by folder; of an array that of the whole.

        Raises:
            SlurmUnreachable: squeue failed.
        """
        wanted = set(folders)
        if not wanted:
            return {}
        done = self._run(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%o"])
        if done.returncode:
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        lines = (line.strip().partition("|") for line in done.stdout.splitlines())
        found = {os.path.dirname(script): job_id for job_id, _, script in lines}
        return {folder: job_id for folder, job_id in found.items() if folder in wanted}

    def accounts(self, ids: Iterable[str]) -> dict[str, State]:
        """States from the accounting, for jobs that the controller forgot; empty without accounting."""
        wanted = set(ids)
        if not wanted or not self._accounting:
            return {}
        jobs = ",".join(sorted({base(job_id) for job_id in wanted}))
        done = self._run(
            ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={_SACCT}", f"--jobs={jobs}"]
        )
        if done.returncode:
            self._accounting = "disabled" not in done.stderr
            return {}
        return {k: v for k, v in parse_sacct(done.stdout).items() if k in wanted}

    def details(self, job_id: str) -> State | None:
        """State of one job from scontrol: the last source where there is no accounting."""
        done = self._run(["scontrol", "--oneliner", "show", "job", job_id])
        return None if done.returncode else parse_scontrol(done.stdout)

    def cancel(self, ids: Iterable[str]) -> str:
        """Cancels all jobs in one call.

        Returns:
            scancel's complaint; empty when all went well.
        """
        command = ["scancel", *sorted(set(ids))]
        if len(command) == 1:
            return ""
        done = self._run(command)
        return _last_line(done.stderr) if done.returncode else ""

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_SLOW_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 255, "", str(error))


def base(job_id: str) -> str:
    """Id of the whole array: 12 for 12_3."""
    return job_id.partition("_")[0]


def parse_squeue(text: str) -> dict[str, State]:
    """Reads lines such as `12_3|RUNNING|None|n1|1:02`."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 5:
            job_id, name, reason, node, elapsed = parts
            found[job_id] = State(name, "" if reason == "None" else reason, node, "", elapsed)
    return found


def parse_sacct(text: str) -> dict[str, State]:
    """Reads lines such as `12_3|CANCELLED by 1000|0:15|n1|00:01:02`; the last line of an id holds."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 5 and "." not in parts[0]:
            name, _, by = parts[1].partition(" by ")
            found[parts[0]] = State(name, "", "" if parts[3].startswith("None") else parts[3], parts[2], parts[4], by)
    return found


def parse_scontrol(text: str) -> State | None:
    """Reads the `Key=value` line of `scontrol --oneliner show job`."""
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
