"""Tests the built wheel in fresh environments: `python tests/matrix.py`, for one pair of versions `--quick`.

Needs uv and hatchling in the environment of this interpreter, and a package index. Each environment holds the wheel,
one version of Snakemake and one of submitit, and nothing from this folder. The default is the installed version of
Snakemake with its two minor predecessors, and submitit in its oldest supported and its installed version.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
OLDEST_SUBMITIT = "1.5.3"
UNNAMED = "setuptools<82"  # submitit 1.5.3 imports pkg_resources without requiring it
TESTS = ("test_parts.py", "test_requests.py", "test_efficiency.py", "test_slurm_versions.py", "test_workflows.py")
SNAKEFILE = """
rule all:
    input: "all.txt"
rule part:
    output: "part/{i}.txt"
    resources: runtime=5
    shell: "echo {wildcards.i} > {output}"
rule join:
    input: expand("part/{i}.txt", i=range(3))
    output: "all.txt"
    shell: "cat {input} > {output}"
"""
QUICK = ("--submitit-cluster", "local", "--submitit-poll-seconds", "0.5", "--submitit-efficiency-report", "used.csv")


def main() -> int:
    """Runs all pairs; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one environment, and a tiny workflow instead of the tests"
    )
    parser.add_argument("--constraints", type=Path, help="file with versions of all other packages")
    parser.add_argument("--snakemake", nargs="+", default=_minor_versions(version("snakemake")), metavar="MINOR")
    parser.add_argument("--submitit", nargs="+", default=list(dict.fromkeys([OLDEST_SUBMITIT, version("submitit")])))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = _build(Path(folder))
        if options.quick:
            _install(Path(folder) / "env", [str(wheel), "snakemake"], options.constraints)
            return _run_workflow(Path(folder) / "env", Path(folder))
        pairs = [(snakemake, submitit) for snakemake in options.snakemake for submitit in options.submitit]
        results = {pair: _test(wheel, *pair, Path(folder) / "-".join(pair), options.constraints) for pair in pairs}
    for (snakemake, submitit), passed in results.items():
        print(f"Snakemake {snakemake}, submitit {submitit}: {'passed' if passed else 'FAILED'}")
    return 0 if all(results.values()) else 1


def _minor_versions(newest: str) -> list[str]:
    """A minor version and its two predecessors: 9.25, 9.26, 9.27."""
    major, minor = map(int, newest.split(".")[:2])
    return [f"{major}.{number}" for number in range(minor - 2, minor + 1)]


def _build(folder: Path) -> Path:
    _call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")], PACKAGE)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


def _install(environment: Path, packages: Sequence[str], constraints: Path | None) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    _call([uv, "venv", "--quiet", "--python", sys.executable, str(environment)])
    limits = ["--constraint", str(constraints)] if constraints else []
    _call([uv, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), *limits, *packages])


def _run_workflow(environment: Path, folder: Path) -> int:
    """Runs a workflow of four jobs, and the plugin's command; returns 1 if something is wrong."""
    study = folder / "study"
    study.mkdir()
    (study / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    command = [str(environment / "bin" / "snakemake"), "--executor", "submitit", "--jobs", "4", *QUICK]
    _call(command, study)
    status = _call([str(environment / "bin" / "snakemake-submitit"), "status"], study)
    jobs = (study / "used.csv").read_text(encoding="utf-8").count(",COMPLETED,")
    joined = (study / "all.txt").read_text(encoding="utf-8")
    if (joined, jobs, status.strip()) == ("0\n1\n2\n", 4, "No live jobs."):
        print("The wheel alone runs a workflow.")
        return 0
    print(
        f"expected three lines, four completed jobs, none alive; found {joined!r}, {jobs}, {status!r}", file=sys.stderr
    )
    return 1


def _test(wheel: Path, snakemake: str, submitit: str, environment: Path, constraints: Path | None) -> bool:
    packages = [str(wheel), f"snakemake=={snakemake}.*", f"submitit=={submitit}", "pytest"]
    if submitit == OLDEST_SUBMITIT:
        packages.append(UNNAMED)
    tests = [str(PACKAGE / "tests" / name) for name in TESTS]
    pytest = [
        "-m",
        "pytest",
        "--rootdir",
        str(PACKAGE),
        "-c",
        str(PACKAGE / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
    ]
    try:
        _install(environment, packages, constraints)
        print(_call([str(environment / "bin" / "python"), *pytest, *tests], PACKAGE, SUBMITIT_TESTS_INSTALLED="1"))
    except subprocess.CalledProcessError:
        return False
    return True


def _call(command: Sequence[str], folder: Path | None = None, **more: str) -> str:
    """Runs a command without this environment's settings for Python; prints all its output if it fails."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"PYTHON(PATH|HOME)|VIRTUAL_ENV", name)}
    done = subprocess.run(
        command, cwd=folder, env=kept | more, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
