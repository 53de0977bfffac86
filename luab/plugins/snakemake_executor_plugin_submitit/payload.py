"""The command that runs inside the allocation: the nested Snakemake, its warning signals and its continuation."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

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
    """

    def __init__(
        self,
        command: str,
        cwd: str,
        limit_s: float,
        warning_s: float = 90,
        requeue_timeouts: str = "handled",
        restarts: int = 0,
    ) -> None:
        self.command = command
        self.cwd = cwd
        self.limit_s = limit_s
        self.warning_s = warning_s
        self.requeue_timeouts = requeue_timeouts
        self.restarts = restarts
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._terminated = False
        self._warned = False

    def __call__(self) -> None:
        """Runs the command to its end.

        Raises:
            CalledProcessError: The command failed without having received SIGTERM.
        """
        os.chdir(self.cwd)
        self._started = time.monotonic()
        restarts = max(self.restarts, int(os.environ.get("SLURM_RESTART_COUNT") or 0))
        _note_start(restarts)
        self._handle_sigterm()
        # USR2 reaches every process of a step and would kill bash and Snakemake, so they ignore it. Their children
        # inherit this, but those with a handler still receive it. On TERM, bash waits for its child to save and exits.
        self._process = subprocess.Popen(
            ["bash", "-c", f"trap '' USR2; trap 'exit 143' TERM; {self.command}\nexit $?"],
            env={**os.environ, RESTARTS: str(restarts)},
            start_new_session=True,
        )
        try:
            code = self._poll(self._process)
        finally:
            self._end_group()
        if code and self._terminated and "SLURM_JOB_ID" in os.environ:
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
        return JobCommand(command, self.cwd, self.limit_s, self.warning_s, self.requeue_timeouts, self.restarts + 1)

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

    def _poll(self, process: "subprocess.Popen[bytes]") -> int:
        # Not wait(): a signal handler that waits for the same child would block until its timeout.
        missed = self._near_limit() and os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        while (code := process.poll()) is None:
            if missed and not self._warned and time.monotonic() - self._started > self.limit_s - self.warning_s:
                self._warn_late()
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


def _note_start(restarts: int) -> None:
    """Appends node, time and number of restarts to a file next to the log."""
    folder = os.environ.get("SUBMITIT_FOLDER")
    if not folder:
        return
    note = {"restarts": restarts, "node": os.uname().nodename, "slurm_node": os.environ.get("SLURMD_NODENAME", "")}
    with open(Path(folder) / STARTS_FILE.format(id=_own_id()), "a") as file:
        file.write(json.dumps({**note, "time": round(time.time(), 1)}) + "\n")


def _own_id() -> str:
    """Id of the running job in submitit's form: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
