"""The command that runs inside the allocation: the nested Snakemake, its warning signals and its continuation."""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self, TextIO

from .memory import FILE, PeakMemory

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

RESTARTS = "SUBMITIT_RESTARTS"
STARTS_FILE = "{id}_starts.jsonl"
_POLL_S = 0.2
_DECISION_S = 600  # time for the cluster to decide after SIGTERM; grace times in practice are shorter
_KILL_S = 0.5  # submitit's local executor waits one second between SIGINT and SIGKILL


class JobCommand:
    """A shell command that survives time limit, preemption and requeue if it can write checkpoints.

    submitit pickles it. It holds only strings and numbers, so the job needs nothing from the main process.

    Attributes:
        command: Shell command.
        cwd: Folder to run in.
        restarts: How often this job was continued before.
        limit_s: Time limit of the allocation. A warning near its end means the time limit, an earlier one preemption.
        warning_s: Time between the warning and the end; the command saves its state in it.
        requeue_timeouts: "handled": continue after a time limit only if the command exited by itself on the
            warning; "always"; "never".
        inputs: Files that must exist, waited for on a slow shared disk. Snakemake's own wait would end with status 0.
        wait_s: How long they are waited for.
        outputs: Files that the command makes; two jobs never make them at once.
        lock_folder: Folder of the locks of outputs, shared with the nodes; empty for no locks.
        requeue: Whether the job may continue under its id. If not, a warning only reaches the command.
    """

    requeue = True  # also of jobs that an older version submitted

    def __init__(
        self,
        command: str,
        cwd: str,
        limit_s: float,
        warning_s: float = 90,
        requeue_timeouts: str = "handled",
        restarts: int = 0,
        inputs: Sequence[str] = (),
        wait_s: float = 0,
        outputs: Sequence[str] = (),
        lock_folder: str = "",
        requeue: bool = True,
    ) -> None:
        self.command = command
        self.cwd = cwd
        self.limit_s = limit_s
        self.warning_s = warning_s
        self.requeue_timeouts = requeue_timeouts
        self.restarts = restarts
        self.inputs = tuple(inputs)
        self.wait_s = wait_s
        self.outputs = tuple(outputs)
        self.lock_folder = lock_folder
        self.requeue = requeue
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._terminated = False
        self._warned = False

    def __call__(self) -> None:
        """Runs the command to its end.

        Raises:
            CalledProcessError: The command failed without having received SIGTERM.
            FileNotFoundError: An input is missing.
        """
        os.chdir(self.cwd)
        self._started = time.monotonic()
        restarts = max(self.restarts, int(os.environ.get("SLURM_RESTART_COUNT") or 0))
        _note_start(restarts)
        self._handle_sigterm()
        if not self.requeue:  # submitit would requeue the job, which Slurm refuses
            signal.signal(signal.SIGUSR2, lambda signum, frame: self._forward(signum))
        with OutputLock(self.lock_folder, self.outputs) as lock:
            if lock.made_by:
                print(f"Job {lock.made_by} made the same outputs meanwhile; nothing is left to do.", flush=True)
                return
            self._await_inputs()
            self._run(restarts)
            lock.succeeded()

    def _run(self, restarts: int) -> None:
        # USR2 reaches every process of a step and would kill bash and Snakemake, so they ignore it. Their children
        # inherit this, but those with a handler still receive it. On TERM, bash waits for its child to save and exits.
        self._process = subprocess.Popen(
            ["bash", "-c", f"trap '' USR2; trap 'exit 143' TERM; {self.command}\nexit $?"],
            env={**os.environ, RESTARTS: str(restarts)},
            start_new_session=True,
        )
        folder = os.environ.get("SUBMITIT_FOLDER")
        memory = PeakMemory(Path(folder) / FILE.format(id=_own_id()) if folder else None)
        try:
            code = self._poll(self._process, memory)
        finally:
            self._end_group()
            memory.close()
        if code and self._terminated and self.requeue and "SLURM_JOB_ID" in os.environ:
            self._await_decision()
        if code:
            raise subprocess.CalledProcessError(code, "the job's Snakemake")

    def checkpoint(self) -> "DelayedSubmission | None":
        """Lets the command save its state; submitit calls this on the warning signal.

        Returns:
            The continuation; None if the job ends at its time limit.
        """
        from submitit.helpers import DelayedSubmission

        self._warned = True
        by_limit = self._near_limit()
        self._forward(signal.SIGUSR2)
        early_s = self.limit_s - self.warning_s - (time.monotonic() - self._started)
        if by_limit and early_s > 0 and not self._ended_within(early_s):
            # In a short job the warning may come soon after the start, before the command handles the signal.
            self._signal_group(signal.SIGUSR2)
        ended = self._ended_within(max(self.warning_s - 30, self.warning_s * 0.6))
        if ended and self._process is not None and self._process.returncode == 0:
            return DelayedSubmission(self._next("true"))  # the command has finished
        self._end_group()
        if by_limit and (self.requeue_timeouts == "never" or (self.requeue_timeouts == "handled" and not ended)):
            return None
        return DelayedSubmission(self._next(self.command))

    def _next(self, command: str) -> "JobCommand":
        return JobCommand(
            command,
            self.cwd,
            self.limit_s,
            self.warning_s,
            self.requeue_timeouts,
            self.restarts + 1,
            self.inputs,
            self.wait_s,
            self.outputs,
            self.lock_folder,
            self.requeue,
        )

    def _await_inputs(self) -> None:
        deadline = time.monotonic() + self.wait_s
        while missing := [path for path in self.inputs if not os.path.exists(path)]:
            if time.monotonic() > deadline:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise FileNotFoundError(
                    f"{missing[0]}{more}: expected this input on {os.uname().nodename}, found none after "
                    f"{self.wait_s:.0f} s. Was it removed after the submission, or is its disk not mounted on this "
                    "node?"
                )
            for folder in {os.path.dirname(path) or "." for path in missing}:
                with contextlib.suppress(OSError):
                    os.listdir(folder)  # makes network file systems refresh it
            time.sleep(_POLL_S)

    def _near_limit(self) -> bool:
        # Slurm sends the warning up to a minute early.
        return time.monotonic() - self._started > self.limit_s - self.warning_s - 75

    def _handle_sigterm(self) -> None:
        previous = signal.getsignal(signal.SIGTERM)

        def on_term(signum: int, frame: FrameType | None) -> None:
            self._terminated = True
            self._forward(signal.SIGTERM)
            if callable(previous):
                previous(signum, frame)

        if os.environ.get("SUBMITIT_PREEMPT_SIGNAL") != "TERM":  # with TERM, submitit itself checkpoints on SIGTERM
            signal.signal(signal.SIGTERM, on_term)

    def _poll(self, process: "subprocess.Popen[bytes]", memory: PeakMemory) -> int:
        # Not wait(): a signal handler that waits for the same child would block until its timeout.
        missed = self._near_limit() and os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        while (code := process.poll()) is None:
            if missed and not self._warned and time.monotonic() - self._started > self.limit_s - self.warning_s:
                self._warn_late()
            memory.sample(os.getpid())
            time.sleep(_POLL_S)
        return code

    def _warn_late(self) -> None:
        """Repeats the warning: in a short job it can come before any process handles it."""
        self._warned = True
        if callable(signal.getsignal(signal.SIGUSR2)):
            self._signal_group(signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _forward(self, signum: int) -> None:
        """Forwards a signal to the command's processes if the cluster does not do so itself."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            self._signal_group(signum)

    def _signal_group(self, signum: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)

    def _end_group(self) -> None:
        """Ends all processes of the command."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._signal_group(signal.SIGTERM)
            self._ended_within(_KILL_S)
        self._signal_group(signal.SIGKILL)

    def _await_decision(self) -> None:
        """Waits after SIGTERM for the cluster to requeue or cancel this job; an error now would prevent the requeue."""
        print("Ended after SIGTERM; waiting for the cluster to requeue or cancel this job.", flush=True)
        time.sleep(_DECISION_S)


class OutputLock:
    """Keeps two jobs from making the same outputs at once: the later one waits for the end of the earlier one.

    The kernel releases the lock when a job dies, however it dies. On file systems without locks it has no effect.

    Args:
        folder: Folder of the locks; empty for no lock.
        outputs: Names of the outputs.

    Attributes:
        made_by: Id of the job that made the outputs while this one waited; empty if there was none.
    """

    def __init__(self, folder: str, outputs: Sequence[str]) -> None:
        digest = hashlib.sha256("\0".join(outputs).encode()).hexdigest()[:20]
        self._path = Path(folder) / f"{digest}.lock" if folder and outputs else None
        self._file: TextIO | None = None
        self.made_by = ""

    def __enter__(self) -> Self:
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+", encoding="utf-8")
            self._acquire(self._file)
        except OSError as error:
            print(f"{self._path}: no lock on this file system ({error.strerror}); going on without.", flush=True)
        return self

    def _acquire(self, file: TextIO) -> None:
        if not self._acquired(file):
            print(f"Waiting for job {_holder(file)[0]}, which is making the same outputs.", flush=True)
            # No blocking call: a warning signal must find this process awake.
            while not self._acquired(file):
                time.sleep(_POLL_S)
            holder, done = _holder(file)
            self.made_by = holder if done else ""
        self._write(file, "")

    def _acquired(self, file: TextIO) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def succeeded(self) -> None:
        """Notes that the outputs exist."""
        if self._file is not None:
            self._write(self._file, " done")

    def _write(self, file: TextIO, mark: str) -> None:
        if self.made_by:
            return
        with contextlib.suppress(OSError):
            file.seek(0)
            file.truncate()
            file.write(f"{_own_id()}{mark}")
            file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _holder(file: TextIO) -> tuple[str, bool]:
    """Id of the job that holds or held the lock, and whether it succeeded."""
    file.seek(0)
    holder, _, mark = file.read().partition(" ")
    return holder, mark == "done"


def _note_start(restarts: int) -> None:
    """Appends node, time and number of restarts to a file next to the log."""
    folder = os.environ.get("SUBMITIT_FOLDER")
    if not folder:
        return
    note = {"restarts": restarts, "node": os.uname().nodename, "slurm_node": os.environ.get("SLURMD_NODENAME", "")}
    with open(Path(folder) / STARTS_FILE.format(id=_own_id()), "a", encoding="utf-8") as file:
        file.write(json.dumps({**note, "time": round(time.time(), 1)}) + "\n")


def _own_id() -> str:
    """Id of the running job in submitit's form: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
