"""Jobs of `cluster: local`: processes on this machine, identified by process id and folder."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from .registry import Entry
from .slurm_states import State

_CANCEL_TIMEOUT_S = 5.0


def states(entries: Iterable[Entry]) -> dict[str, State]:
    """Returns RUNNING for each job whose process is alive; other jobs are absent."""
    return {entry.id: State("RUNNING", node=os.uname().nodename) for entry in entries if _alive(entry)}


def cancel(entries: Iterable[Entry]) -> None:
    """Interrupts the supervising processes, which end their jobs, and waits up to 5 s until they have exited."""
    running = [entry for entry in entries if _alive(entry)]
    for entry in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(entry.id), signal.SIGINT)
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while any(_alive(entry) for entry in running) and time.monotonic() < deadline:
        time.sleep(0.1)


def _alive(entry: Entry) -> bool:
    """Whether the process id still belongs to the job: ids are reused, folders are not."""
    return bool(entry.id) and entry.folder in _command_line(entry.id)


def _command_line(pid: str) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(
        ["ps", "-o", "command=", "-p", pid],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    ).stdout
