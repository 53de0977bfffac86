"""Tests import the package from here; with SUBMITIT_TESTS_INSTALLED=1, from where it is installed."""

import os
import signal
import sys
from pathlib import Path

if not os.environ.get("SUBMITIT_TESTS_INSTALLED"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# If a shell starts pytest in the background, pytest ignores Ctrl-C, and so does every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
