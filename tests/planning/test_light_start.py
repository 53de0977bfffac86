"""Starting the workflow or the command line must not import anything that takes long to load."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "cv2", "matplotlib", "scipy", "sklearn", "PIL",
    "requests", "lxml", "snakemake",
}  # fmt: skip


@pytest.mark.parametrize("module", ["luab.planning.plan", "luab.provenance.code", "luab.cli"])
def test_start_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8", errors="replace"
    ).stdout.split()
    assert module in loaded and not FORBIDDEN & set(loaded)
