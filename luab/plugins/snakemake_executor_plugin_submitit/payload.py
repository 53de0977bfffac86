"""What runs inside the allocation: the nested Snakemake call, its warning signals and its continuation."""

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
_VERDICT_S = 600  # after SIGTERM the cluster decides; no grace time seen in practice is longer
_KILL_S = 0.5  # submitit's local executor allows one second between SIGINT and SIGKILL


class JobCommand:
    """A shell command that survives time limit, preemption and requeue, if what it runs can checkpoint.

    Pickled by submitit. It holds strings and numbers alone, so that the job needs nothing of the main process.

    Attributes:
        command: Shell command.
        cwd: Folder to run in.
        restarts: How often this job was continued before.
        limit_s: Time limit of the allocation; a warning in its last part is a time limit, else a preemption.
        warning_s: How long before the end the warning comes; what is left of it is time to save.
        requeue_timeouts: "handled": continue after a time limit only where the command ended by itself on the
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
        self._told_to_end = False
        self._warned = False

    def __call__(self) -> None:
        """Runs the command to its end.

        Raises:
            CalledProcessError: The command failed and nobody had told it to end.
        """
        os.chdir(self.cwd)
        self._started = time.monotonic()
        restarts = max(self.restarts, int(os.environ.get("SLURM_RESTART_COUNT") or 0))
        _note_start(restarts)
        self._listen_for_end()
        # USR2 reaches every process of a step, and bash and Snakemake would die from it. "Ignored" is inherited:
        # who has a handler of its own still gets it. On TERM bash waits until its child has saved, then ends.
        self._process = subprocess.Popen(
            ["bash", "-c", f"trap '' USR2; trap 'exit 143' TERM; {self.command}\nexit $?"],
            env={**os.environ, RESTARTS: str(restarts)},
            start_new_session=True,
        )
        try:
            code = self._poll(self._process)
        finally:
            self._end_group()
        if code and self._told_to_end and "SLURM_JOB_ID" in os.environ:
            self._await_verdict()
        if code:
            raise subprocess.CalledProcessError(code, "the job's Snakemake")

    def checkpoint(self) -> "DelayedSubmission | None":
        """Called by submitit when the warning comes: lets the command save, then says how to go on.

        Returns:
            The continuation; None where a time limit shall end the job.
        """
        from submitit.helpers import DelayedSubmission

        self._warned = True
        by_limit = self._near_limit()
        self._forward(signal.SIGUSR2)
        early_s = self.limit_s - self.warning_s - (time.monotonic() - self._started)
        if by_limit and early_s > 0 and not self._ended_within(early_s):
            # It may have come before the command listened: in a short job that is soon after its start.
            self._signal_group(signal.SIGUSR2)
        ended = self._ended_within(max(self.warning_s - 30, self.warning_s * 0.6))
        if ended and self._process is not None and self._process.returncode == 0:
            return DelayedSubmission(self._next("true"))  # it was finished anyway
        self._end_group()
        if by_limit and (self.requeue_timeouts == "never" or (self.requeue_timeouts == "handled" and not ended)):
            return None
        return DelayedSubmission(self._next(self.command))

    def _next(self, command: str) -> "JobCommand":
        return JobCommand(
            command, self.cwd, self.limit_s, self.warning_s, self.requeue_timeouts, restarts=self.restarts + 1
        )

    def _near_limit(self) -> bool:
        # Slurm sends the warning up to a minute early.
        return time.monotonic() - self._started > self.limit_s - self.warning_s - 75

    def _listen_for_end(self) -> None:
        earlier = signal.getsignal(signal.SIGTERM)

        def on_term(signum: int, frame: FrameType | None) -> None:
            self._told_to_end = True
            self._forward(signal.SIGTERM)
            if callable(earlier):
                earlier(signum, frame)

        if os.environ.get("SUBMITIT_PREEMPT_SIGNAL") != "TERM":  # else submitit checkpoints on SIGTERM
            signal.signal(signal.SIGTERM, on_term)

    def _poll(self, process: "subprocess.Popen[bytes]") -> int:
        # Not wait(): a handler that waits for the same child would block until its time is over.
        missed = self._near_limit() and os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        while (code := process.poll()) is None:
            if missed and not self._warned and time.monotonic() - self._started > self.limit_s - self.warning_s:
                self._warn_late()
            time.sleep(_POLL_S)
        return code

    def _warn_late(self) -> None:
        """Does what the warning does: that of a short job can come before anybody listens."""
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
        """Hands a signal to the command's processes where the cluster does not do so itself."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            self._signal_group(signum)

    def _signal_group(self, signum: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)

    def _end_group(self) -> None:
        """Leaves no process of the command behind, whatever ended it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._signal_group(signal.SIGTERM)
            self._ended_within(_KILL_S)
        self._signal_group(signal.SIGKILL)

    def _await_verdict(self) -> None:
        """After SIGTERM a failure is nobody's fault: the cluster requeues this job or calls it cancelled.

        Reporting an error now would win the race against the requeue.
        """
        print("Ended after SIGTERM; waiting for the cluster to requeue or cancel this job.", flush=True)
        time.sleep(_VERDICT_S)


def _note_start(restarts: int) -> None:
    """Appends node, process and number of restarts to a file beside the log."""
    folder = os.environ.get("SUBMITIT_FOLDER")
    if not folder:
        return
    note = {"restarts": restarts, "node": os.uname().nodename, "slurm_node": os.environ.get("SLURMD_NODENAME", "")}
    with open(Path(folder) / STARTS_FILE.format(id=own_id()), "a") as file:
        file.write(json.dumps({**note, "time": round(time.time(), 1)}) + "\n")


def own_id() -> str:
    """Id of the running job as submitit writes it: 12, or 12_3 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
