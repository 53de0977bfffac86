"""Runs a daemon of the throwaway cluster and cleans up after it, however the process that started it ends.

    python keeper.py keep PARENT LOCK COMMAND...   runs the command; kills it and all its descendants on SIGTERM, when
                                                   it ends, or when the process PARENT has ended
    python keeper.py sweep PARENT LOCK FOLDER      removes the folder on SIGTERM or when PARENT has ended, but not
                                                   before the last keeper with the same lock has ended

It uses only the standard library, so that it starts in a few hundredths of a second.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time

PARENT_CHECK_S = 0.3
WAKING = (signal.SIGTERM, signal.SIGCHLD)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def keep(lock: str, command: list[str], parent: int) -> int:
    """Runs the command until it ends, SIGTERM arrives or the parent ends; returns its exit status (137: killed)."""
    # Orphaned descendants (job steps, jobs) become children of this process instead of init, so that none is missed.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _hold(lock, fcntl.LOCK_SH)
    # The daemon, and through it the jobs, must not inherit the signals that the keeper blocks and Python ignores.
    child = os.posix_spawnp(
        command[0], command, os.environ, setsid=True, setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
    )
    status = None
    while status is None and not _must_end(parent):
        status = _reap().get(child)
    _kill_descendants()
    return 137 if status is None else os.waitstatus_to_exitcode(status) % 256


def sweep(lock: str, folder: str, parent: int) -> int:
    """Removes the folder after SIGTERM or the end of the parent, once all keepers have ended."""
    while not _must_end(parent):
        pass
    _hold(lock, fcntl.LOCK_EX)
    shutil.rmtree(folder)
    return 0


def _hold(lock: str, kind: int) -> None:
    # Never closed: the kernel releases it when this process ends. The command does not inherit it.
    fcntl.flock(os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), kind)


def _must_end(parent: int) -> bool:
    """Waits for a signal or the next check of the parent; returns whether to end."""
    received = signal.sigtimedwait(WAKING, PARENT_CHECK_S)
    return (received is not None and received.si_signo == signal.SIGTERM) or os.getppid() != parent


def _reap() -> dict[int, int]:
    """Returns process id -> status of the children that have ended."""
    ended = {}
    try:
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    except ChildProcessError:
        pass
    return ended


def _kill_descendants() -> None:
    while True:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # no child left, so no descendant either
            return
        time.sleep(0.01)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                # The name, in brackets, may contain anything; state and parent follow.
                parent = int(stat.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry))
    pids = [root]
    for pid in pids:
        pids += children.get(pid, [])
    return pids[1:]


def main() -> int:
    """Runs one of the two commands described above."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)
    task, parent, lock, *rest = sys.argv[1:]
    return keep(lock, rest, int(parent)) if task == "keep" else sweep(lock, rest[0], int(parent))


if __name__ == "__main__":
    sys.exit(main())
