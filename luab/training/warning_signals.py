"""Warning signals, which a cluster sends before it ends a job; a training then saves its state and stops."""

import contextlib
import signal
import threading
from collections.abc import Iterator

WARNINGS = (signal.SIGTERM, signal.SIGUSR2)


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
