"""States of jobs in Slurm, with one call for any number of jobs."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

# fmt: off
ALIVE = frozenset((
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING",
    "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "EXPEDITING", "POWER_UP_NODE",
))
# fmt: on
_TIMEOUT_S = 120
# Set by users or sites, they change what the commands print: another partition, another format, another cluster.
_FOREIGN = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_UNIX_TIME")
_NO_ACCOUNTING = re.compile(r"storage is disabled|not running a supported accounting_storage", re.I)
_UNKNOWN = re.compile(r"Invalid job id|^Job \S+ not found", re.I | re.M)
_SQUEUE = "%i|%T|%r|%N|%M"
_SACCT = "JobID,State,ExitCode,NodeList,Elapsed"
_USAGE = "JobID,ElapsedRaw,TotalCPU,AllocCPUS,NNodes,ReqMem,MaxRSS"
_MB = {"": 1 / 2**20, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


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


@dataclass(frozen=True)
class Usage:
    """What the accounting knows about the last run of a job.

    Attributes:
        elapsed_s: Run time.
        cpu_s: CPU time of all processes.
        cpus: Number of CPUs on all nodes.
        requested_mb: Memory requested on each node; 0 if unknown.
        peak_mb: Largest resident set of a task; 0 if unknown.
    """

    elapsed_s: float
    cpu_s: float
    cpus: int
    requested_mb: int = 0
    peak_mb: int = 0


@dataclass
class Slurm:
    """Runs Slurm's commands, each once for many jobs.

    Attributes:
        calls: Number of calls of each command.
    """

    calls: dict[str, int] = field(default_factory=dict)
    _accounting: bool = True
    _running: "set[subprocess.Popen[str]]" = field(default_factory=set)

    def queue(self, ids: Iterable[str]) -> dict[str, State]:
        """Returns the states in the controller, including those of jobs that ended a few minutes ago.

        A job that squeue does not list is looked up with scontrol too: an empty answer is no proof that a job is gone.

        Args:
            ids: Job ids, 12 or 12_3.

        Returns:
            Id -> state, for the jobs that the controller still has.

        Raises:
            SlurmUnreachable: squeue or scontrol failed for a reason other than an unknown job.
        """
        ids = set(ids)
        if not ids:
            return {}
        done = self._run(["squeue", "--noheader", "--array", "--states=all", f"--format={_SQUEUE}", _jobs_option(ids)])
        if done.returncode and not _UNKNOWN.search(done.stderr):
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        states = {job_id: state for job_id, state in parse_squeue(done.stdout).items() if job_id in ids}
        return states | self._confirmed(ids - states.keys())

    def _confirmed(self, absent: Iterable[str]) -> dict[str, State]:
        """States in scontrol of jobs that squeue does not list."""
        states: dict[str, State] = {}
        for job_id in sorted(absent):
            if state := self.details(job_id):
                states[job_id] = state
        return states

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
        return {folder: base(ids[0]) for folder, ids in self.own_jobs().items() if folder in folders}

    def own_jobs(self) -> dict[str, list[str]]:
        """Finds this user's waiting and running jobs.

        Returns:
            Folder of the batch script -> ids of its jobs, each element of an array by itself.

        Raises:
            SlurmUnreachable: squeue failed.
        """
        done = self._run(["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%o"])
        if done.returncode:
            raise SlurmUnreachable(_last_line(done.stderr) or f"squeue ended with status {done.returncode}")
        jobs: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            job_id, _, script = line.strip().partition("|")
            jobs.setdefault(os.path.dirname(script), []).append(job_id)
        return jobs

    def accounts(self, ids: Iterable[str]) -> dict[str, State]:
        """Returns the states in the accounting, which keeps ended jobs for longer; empty without accounting."""
        ids = set(ids)
        if not ids or not self._accounting:
            return {}
        done = self._run(
            ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={_SACCT}", _jobs_option(ids)]
        )
        if done.returncode:
            self._accounting = not _NO_ACCOUNTING.search(done.stderr)
            return {}
        return {job_id: state for job_id, state in parse_sacct(done.stdout).items() if job_id in ids}

    def usage(self, ids: Iterable[str]) -> dict[str, Usage]:
        """Returns what jobs used, by id, from one call of sacct; empty without accounting."""
        ids = set(ids)
        if not ids or not self._accounting:
            return {}
        done = self._run(["sacct", "--noheader", "--parsable2", f"--format={_USAGE}", _jobs_option(ids)])
        return {} if done.returncode else {k: used for k, used in parse_usage(done.stdout).items() if k in ids}

    def details(self, job_id: str) -> State | None:
        """Returns the state of one job in scontrol, the last source on clusters without accounting; None if unknown.

        Raises:
            SlurmUnreachable: scontrol failed for a reason other than an unknown job.
        """
        done = self._run(["scontrol", "--oneliner", "show", "job", job_id])
        if done.returncode and not _UNKNOWN.search(done.stdout + done.stderr):
            raise SlurmUnreachable(_last_line(done.stderr) or f"scontrol ended with status {done.returncode}")
        return parse_scontrol(done.stdout)

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

    def stop(self) -> None:
        """Ends the commands that run now, so that a hanging squeue does not delay the end of Snakemake."""
        for process in list(self._running):
            _kill(process)

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=_environment(),
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return subprocess.CompletedProcess(command, 255, "", str(error))
        self._running.add(process)
        try:
            out, err = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            process.communicate()
            return subprocess.CompletedProcess(command, 255, "", str(error))
        finally:
            self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kills a command with its children: sites wrap Slurm's commands in scripts."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**own, "SLURM_BITSTR_LEN": "0"}  # lists of array elements are not cut


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
    """Parses lines such as `12_3|CANCELLED by 1000|0:15|n1|00:01:02`; the last line of an id counts.

    Elements that never ran share a line: `12_[4-6,9]|CANCELLED by 1000|...`.
    """
    states: dict[str, State] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 5 and "." not in parts[0]:
            name, _, by = parts[1].partition(" by ")
            state = State(name, "", "" if parts[3].startswith("None") else parts[3], parts[2], parts[4], by)
            states |= dict.fromkeys(_elements(parts[0]), state)
    return states


def parse_usage(text: str) -> dict[str, Usage]:
    """Parses sacct's lines of jobs and their steps; memory is that of the step that used most.

    12|91|00:24.041|2|1|32000M|
    12.batch|91|00:03.292|2|1||71180K
    12.0|70|00:20.749|2|1||183612K

    Before Slurm 21.08, ReqMem ended with n (of each node) or c (of each CPU).
    """
    jobs: dict[str, Usage] = {}
    peaks: dict[str, float] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 7:
            continue
        job_id, _, step = parts[0].partition(".")
        peaks[job_id] = max(peaks.get(job_id, 0), _megabytes(parts[6]))
        if not step and parts[1].isdigit():
            cpus, nodes = int(parts[3] or 0), int(parts[4] or 1)
            jobs[job_id] = Usage(int(parts[1]), seconds(parts[2]), cpus, _requested_mb(parts[5], cpus, nodes))
    return {job_id: replace(used, peak_mb=round(peaks[job_id])) for job_id, used in jobs.items()}


def seconds(text: str) -> float:
    """Parses [days-][hours:]minutes:seconds[.fraction]; 0 if it is something else."""
    days, _, rest = text.rpartition("-")
    try:
        numbers = [float(part) for part in rest.split(":")]
        return 86_400 * int(days or 0) + sum(60**place * number for place, number in enumerate(reversed(numbers)))
    except ValueError:
        return 0.0


def _megabytes(text: str) -> float:
    """Parses memory such as 183612K, 1.50G or 32000M; 0 if there is none."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * _MB[match[2]] if match else 0.0


def _requested_mb(text: str, cpus: int, nodes: int) -> int:
    """Memory of each node: 4000Mn and 2000Mc before Slurm 21.08, later 8000M for the whole job."""
    mb = _megabytes(text.rstrip("nc"))
    if text.endswith("n"):
        return round(mb)
    return round(mb * (cpus if text.endswith("c") else 1) / max(1, nodes))


def _elements(job_id: str) -> list[str]:
    """Ids of the elements of `12_[4-6,9%2]`; other ids stand for themselves."""
    array, bracket, listed = job_id.partition("_[")
    if not bracket:
        return [job_id]
    ids = []
    for part in listed.rstrip("]").partition("%")[0].split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if numbers:
            first, last, step = (int(number) if number else None for number in numbers.groups())
            ids += [f"{array}_{index}" for index in range(first or 0, (last or first or 0) + 1, step or 1)]
    return ids


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
