"""The workflow's start stays light: it imports nothing that takes a second to load."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "pandas", "matplotlib", "scipy", "sklearn", "requests", "lxml"}


@pytest.mark.parametrize("module", ["luab.planning.plan", "luab.cli"])
def test_starting_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded and not HEAVY & set(loaded)
