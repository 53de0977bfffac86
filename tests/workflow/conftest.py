"""Copies of the checkout in which tests plan and run the workflow."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CONFIGS = ("config/demo.yaml", "tests/workflow/tiny/study.yaml")
TINY = ("--profile", "profiles/demo", "--configfile", *CONFIGS)
_JOB = re.compile(r"^(?:local)?rule (\w+):", re.MULTILINE)
_COUNT = re.compile(r"^(\w+) +(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Checkout:
    """A folder with the files that git knows or would take up, and what is run in it."""

    folder: Path

    def python(self, *arguments: str, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs `python ...` in the folder, with luab and its plugins from there."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=_environment(self.folder) | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            encoding="utf-8",
            errors="replace",
        )

    def snakemake(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs `snakemake ...` in the folder."""
        return self.python("-m", "snakemake", *arguments, timeout_s=timeout_s)

    def plan(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run plans, by rule; empty when there is nothing to do."""
        done = self.snakemake(*arguments, "--dry-run", "--quiet", "rules", "host")
        assert done.returncode == 0, done.stdout + done.stderr
        return planned(done.stdout + done.stderr)


def planned(output: str) -> dict[str, int]:
    """The table of job counts that Snakemake prints, without its total."""
    if "Nothing to be done" in output:
        return {}
    counts = {name: int(count) for name, count in _COUNT.findall(output)}
    assert counts.pop("total") == sum(counts.values()), output
    return counts


def _environment(folder: Path) -> dict[str, str]:
    # Of this session's settings, none must steer the copy.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LUAB_", "SNAKEMAKE_", "COV_"))}
    plugin = folder / "plugins" / "snakemake-executor-plugin-submitit" / "src"
    path = os.pathsep.join(map(str, (folder, folder / "luab" / "plugins", plugin)))
    return kept | {"PYTHONPATH": path, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def copy_checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkout]:
    """Copies the checkout, links as links, to a fresh folder."""

    def copied(name: str) -> Checkout:
        folder = tmp_path_factory.mktemp(name)
        for path in _files(repository):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / path, target, follow_symlinks=False)
        return Checkout(folder)

    return copied


@pytest.fixture(scope="session")
def tiny(copy_checkout: Callable[[str], Checkout]) -> Checkout:
    """A copy in which the tiny study has been run once."""
    checkout = copy_checkout("tiny")
    done = checkout.snakemake(*TINY, timeout_s=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return checkout


@pytest.fixture(scope="session")
def clean(copy_checkout: Callable[[str], Checkout]) -> Checkout:
    """A copy in which nothing is ever run for real."""
    return copy_checkout("clean")


def _files(repository: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    )
    # A file that was deleted and not yet committed is listed too.
    # Nor does anything of a study that was run in the checkout belong to a copy.
    names = {name for name in listed.stdout.split("\0") if name and not name.startswith("results/")}
    return [name for name in names if os.path.lexists(repository / name)]
