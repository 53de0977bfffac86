"""A tiny workflow that runs through the plugin on a throwaway cluster."""

import json
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import Cluster

PLUGINS = Path(__file__).parents[3] / "plugins" / "snakemake-executor-plugin-submitit" / "src"
QUICK = ["--submitit-poll-seconds", "0.5", "--submitit-queue-seconds", "1", "--submitit-queue-seconds-max", "3"]
QUICK += ["--submitit-result-grace", "6", "--submitit-retry-seconds", "2", "--latency-wait", "5"]
# On an idle machine nothing takes that long.
PATIENCE_S = 240

# A small training: counts at least to STEPS, twice a second, until the file `go` exists; saves every fifth step and on
# a signal.
TRAINER = """
    import os, signal, sys, time
    from pathlib import Path
    state, output, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    received = []
    signal.signal(signal.SIGUSR2, lambda *_: received.append("USR2"))
    signal.signal(signal.SIGTERM, lambda *_: received.append("TERM"))
    done = int(state.read_text()) if state.exists() else 0
    with open("starts.txt", "a") as file:
        print(output, done, os.environ["SUBMITIT_RESTARTS"], os.environ["SLURMD_NODENAME"], file=file)
    while done < steps or not Path("go").exists():
        time.sleep(0.5)
        done += 1
        if received or done % 5 == 0:
            state.with_suffix(".part").write_text(str(done))
            state.with_suffix(".part").rename(state)
        if received:
            sys.exit(75)
    output.write_text(str(done))
"""

# Three jobs that end when the file `go` exists.
SLEEPER = """
    rule all:
        input: expand("out/{i}.txt", i=range(3))
    rule work:
        output: "out/{i}.txt"
        resources: runtime=5, mem_mb=100
        shell: "echo {wildcards.i} >> starts.txt; while [ ! -e go ]; do sleep 0.2; done; echo {wildcards.i} > {output}"
"""


class Project:
    """A folder with a Snakefile, and the Snakemake that runs it.

    Args:
        folder: An empty folder.
        cluster: Cluster that its jobs run on.
        over: Set when the session ends.
    """

    def __init__(self, folder: Path, cluster: Cluster, over: threading.Event | None = None) -> None:
        self.folder = folder
        self.cluster = cluster
        self._over = over or threading.Event()
        self.environment: dict[str, str] = {**cluster.env(), "PYTHONPATH": str(PLUGINS)}
        # Without a cache, compiling Snakemake for each job would take twice as long as running it.
        self.environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "pycache")
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.put("trainer.py", TRAINER)

    def put(self, name: str, text: str) -> None:
        """Writes a file; PYTHON stands for this interpreter."""
        (self.folder / name).write_text(textwrap.dedent(text).replace("PYTHON", sys.executable), encoding="utf-8")

    def write(self, snakefile: str) -> None:
        """Writes the Snakefile."""
        self.put("Snakefile", snakefile)

    def train(self, steps: int, resources: str = "", count: int = 1) -> None:
        """Writes a sweep of trainings with half a second per step; they end only after `go`."""
        self.write(f"""
            rule all:
                input: expand("out/{{i}}.txt", i=range({count}))
            rule train:
                output: "out/{{i}}.txt"
                resources: mem_mb=100, {resources}
                shell: "PYTHON trainer.py state.{{wildcards.i}} {{output}} {steps}"
        """)

    def command(self, *arguments: str) -> list[str]:
        """Returns Snakemake's command line."""
        start = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "20", "--rerun-incomplete"]
        return [*start, *QUICK, *arguments]

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Runs Snakemake in the background; it is killed at the end if it is still running."""
        with open(self.folder / "screen.txt", "a", encoding="utf-8") as screen:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, *arguments: str, timeout_s: float = PATIENCE_S) -> int:
        """Runs Snakemake until it ends; returns its status."""
        with self.running(*arguments) as process:
            return self.wait(process, timeout_s)

    def wait(self, process: "subprocess.Popen[str]", timeout_s: float = PATIENCE_S) -> int:
        """Waits for Snakemake's end; returns its status."""
        self.until(lambda: process.poll() is not None, "the end of Snakemake", timeout_s)
        return process.wait()

    def go(self) -> None:
        """Lets the waiting jobs end."""
        (self.folder / "go").touch()

    def preempt(self, option: str) -> None:
        """Runs an urgent job that needs the whole node n1 for some seconds."""
        urgent = self.cluster.submit("sleep 3", option, "--nodelist=n1", "--exclusive", "--mem=0")
        self.cluster.wait_for(urgent, "COMPLETED")

    def unlock(self) -> None:
        """Unlocks the folder after a kill, as a user would: the same command with --unlock."""
        assert self.run("--unlock") == 0, self.screen

    @property
    def screen(self) -> str:
        """Everything that Snakemake printed."""
        return (self.folder / "screen.txt").read_text(encoding="utf-8")

    @property
    def starts(self) -> list[list[str]]:
        """Words of the lines that the jobs' commands wrote when they started."""
        path = self.folder / "starts.txt"
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    @property
    def live(self) -> list[dict[str, Any]]:
        """The plugin's records of live jobs."""
        files = sorted((self.folder / ".snakemake/submitit/live").glob("*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    @property
    def history(self) -> dict[str, dict[str, Any]]:
        """The plugin's records of ended jobs by output; an output must not occur twice."""
        lines = (self.folder / ".snakemake/submitit/history.jsonl").read_text(encoding="utf-8").splitlines()
        records = [(name, record) for record in map(json.loads, lines) for name in record["outputs"]]
        assert len(dict(records)) == len(records), records
        return dict(records)

    @property
    def job_ids(self) -> list[str]:
        """Ids of the submissions on Snakemake's screen; for an array that of the whole array."""
        return re.findall(r"Submitted (?:job|array) (\d+)", self.screen)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Waits for a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self._over.is_set(), "the session is ending"
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.screen[-3000:]}"
            time.sleep(0.1)

    def wrap(self, name: str, script: str) -> None:
        """Puts a shell script before Slurm's program of the same name, which it can call as REAL."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        real = subprocess.run(
            ["which", name], capture_output=True, text=True, check=True, encoding="utf-8", errors="replace"
        ).stdout.strip()
        (folder / name).write_text("#!/bin/sh\n" + textwrap.dedent(script).replace("REAL", real), encoding="utf-8")
        (folder / name).chmod(0o755)
        self.environment = {**self.environment, "PATH": f"{folder}:{self.cluster.env()['PATH']}"}
