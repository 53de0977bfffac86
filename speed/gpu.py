"""Runs everything that needs a GPU, on one of them, in at most nine minutes.

    sh speed/gpu.sh                                     # on a GPU
    python speed/gpu.py --device cpu --tiny             # shows on a CPU that every part runs

Parts, each in a process of its own that is ended when its time is up:
resnet50, vit_base_patch16_224: `gpu_loops.py`, images per second of training loops with and without torch.compile.
feeding: `feeding.py`, training from disk and from memory, and the loader alone.
tests: `pytest -m gpu`.

Time that a part does not need goes to the parts after it. Each part prints its table and writes its report at once.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from measuring import command_line

SPEED = Path(__file__).resolve().parent
SHARES = {"resnet50": 0.34, "vit_base_patch16_224": 0.34, "feeding": 0.14, "tests": 0.18}  # of the time
TESTS = ("tests/training/test_no_waiting.py", "tests/training/test_processes.py", "tests/training/test_compiled.py")
_TO_END_S = 5.0


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the command of each part."""
    tiny, out = ["--tiny"] * options.tiny, ["--out", str(options.out)]
    found = {}
    for backbone, recipe in {"resnet50": "resnet", "vit_base_patch16_224": "vit"}.items():
        loops = ["speed/gpu_loops.py", "--backbone", backbone, "--recipe", f"config/recipes/{recipe}.yaml"]
        found[backbone] = [*loops, "--device", options.device, *tiny, *out]
    found["feeding"] = ["speed/feeding.py", "--steps", "24", "--runs", "1", *tiny, *out]
    found["tests"] = ["-m", "pytest", "-n", "0", "-q", "-m", "gpu", *TESTS, *["--collect-only"] * options.tiny]
    return found


def run_parts(options: argparse.Namespace) -> dict[str, str]:
    """Runs the parts; returns how each one ended: "finished", "status <n>", "out of time" or "no time left"."""
    end, rest, outcomes = time.monotonic() + options.seconds, 1.0, {}
    for name, command in commands(options).items():
        left = end - time.monotonic()
        seconds, rest = left * SHARES[name] / rest, rest - SHARES[name]
        print(f"== {name}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
        if "gpu_loops" in command[0]:
            command = [*command, "--seconds", f"{seconds - _TO_END_S:.0f}"]
        if seconds < 2 * _TO_END_S:
            outcomes[name] = "no time left"
            continue
        try:
            done = subprocess.run([sys.executable, *command], cwd=SPEED.parent, timeout=seconds, check=False)
            outcomes[name] = f"status {done.returncode}" if done.returncode else "finished"
        except subprocess.TimeoutExpired:
            outcomes[name] = "out of time"
    return outcomes


def main(arguments: list[str] | None = None) -> None:
    parser = command_line(__doc__, "gpu-<backbone>.json and feeding.json")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=530.0, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="test_resnet and test_vit, 8 images of 32 px, few steps")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    outcomes = run_parts(options)
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    print(f"{time.monotonic() - start:.0f} s of {options.seconds:.0f}")
    if set(outcomes.values()) != {"finished"}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
