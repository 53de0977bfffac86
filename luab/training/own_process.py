"""What this process knows about itself: its rank, if luab's launcher started it, and the warning signals it received.

A cluster sends warning signals before it ends a job; a training then saves its state and stops.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

WARNINGS = (signal.SIGTERM, signal.SIGUSR2)
NOTES = "LUAB_NOTES"  # folder of the launcher's notes
PARENT = "LUAB_PARENT"  # process id of the process that started this one: launcher of an agent, agent of a rank
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_TORCHRUN = (
    *RANKS,
    "GROUP_RANK",
    "ROLE_RANK",
    "ROLE_NAME",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_TORCHRUN_PREFIXES = ("TORCHELASTIC_", "PET_")  # PET_*: defaults of torchrun's options


def launched() -> bool:
    """Whether luab's launcher started this process as a rank.

    MPI, Slurm scripts and training operators set RANK and WORLD_SIZE too, so these variables alone mean nothing.
    """
    return NOTES in os.environ and os.environ.get(PARENT) == str(os.getppid()) and set(RANKS) <= os.environ.keys()


def rank_variables() -> tuple[int, int, int]:
    """Returns rank, rank on this node, and number of ranks: 0, 0, 1 unless luab's launcher set them."""
    if not launched():
        return 0, 0, 1
    rank, local, count = (int(os.environ[name]) for name in RANKS)
    return rank, local, count


def torchrun_variables() -> dict[str, str]:
    """Returns the environment variables that torchrun and torch.distributed would obey."""
    return {
        name: value for name, value in os.environ.items() if name in _TORCHRUN or name.startswith(_TORCHRUN_PREFIXES)
    }


@contextlib.contextmanager
def caught_warnings() -> Iterator[list[signal.Signals]]:
    """Catches warning signals; yields the list of those received, which stays empty outside the main thread."""
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(signal.Signals(number))) for number in WARNINGS
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
