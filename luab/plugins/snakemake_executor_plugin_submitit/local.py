"""Jobs of `cluster: local`: processes on this machine, known by number and folder."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from .registry import Entry
from .slurm_states import State

_PATIENCE_S = 5.0


def states(entries: Iterable[Entry]) -> dict[str, State]:
    """RUNNING for each entry whose process lives; the others are absent."""
    return {entry.id: State("RUNNING", node=os.uname().nodename) for entry in entries if _alive(entry)}


def cancel(entries: Iterable[Entry]) -> None:
    """Interrupts the processes that watch over the jobs; they end the jobs. Waits some seconds for it."""
    living = [entry for entry in entries if _alive(entry)]
    for entry in living:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(entry.id), signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_S
    while any(_alive(entry) for entry in living) and time.monotonic() < deadline:
        time.sleep(0.1)


def _alive(entry: Entry) -> bool:
    """Whether the number still belongs to the job's process: numbers come again, folders do not."""
    if not entry.id:
        return False
    return entry.folder in _command_line(entry.id)


def _command_line(pid: str) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-o", "command=", "-p", pid], capture_output=True, text=True, check=False).stdout
