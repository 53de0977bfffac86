"""Measures what a job costs on Slurm: through the executor plugin, and as an element of a plain array of sbatch.

    python speed/executor.py

The script starts the throwaway cluster of the tests and runs --jobs jobs that sleep for a second, --runs times in turn.
It prints the seconds from the start to the end, the processor time of a job and of the submitting process, and the
calls of Slurm's programs. The official plugin is not measured: it hides SLURM_CONF from its jobs, so it works only on
the cluster that the machine itself belongs to.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import circumstances, command_line, cpu_s, in_turn, spread, table_of, write_report
from rich.console import Console

from snakemake_executor_plugin_submitit.slurm_states import seconds

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "plugins" / "slurm"))
CALLS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
SNAKEFILE = """
rule all:
    input: expand("{i}.txt", i=range(config["jobs"]))
rule one:
    output: "{i}.txt"
    resources: runtime=5, mem_mb=200
    shell: "sleep 1; touch {output}"
"""
PLAIN, PLUGIN = "sbatch alone", "executor plugin"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__, "executor.json")
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    from cluster import Cluster

    plugin = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", str(options.jobs)]
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        ways = {
            PLAIN: lambda run: measured(cluster, Path(folder), options.jobs, None),
            PLUGIN: lambda run: measured(cluster, Path(folder), options.jobs, plugin),
        }
        results = in_turn(ways, options.runs, uncounted=0)
    report = circumstances() | {"jobs": options.jobs, "runs": results}
    write_report(options.out, "executor", report)
    show(options.jobs, results)


def measured(cluster: Any, folder: Path, jobs: int, command: list[str] | None) -> dict[str, float]:
    """Runs the jobs once; returns wall_s, job_cpu_s (per job), own_cpu_s and the number of calls of each program."""
    place = Path(tempfile.mkdtemp(dir=folder))
    before = {row["JobID"] for row in cluster.sacct(fields="JobID")}
    environment = logged_calls(cluster, place)
    start, used = time.monotonic(), cpu_s()
    if command:
        (place / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
        arguments = [*command, "--quiet", "all", "--config", f"jobs={jobs}"]
    else:
        arguments = ["sbatch", f"--array=0-{jobs - 1}", "--mem=200", "--time=5", "--wait", "--wrap", "sleep 1"]
    subprocess.run(arguments, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall_s, own_s = time.monotonic() - start, cpu_s() - used
    cluster.ended(fields="JobID")
    # Steps have the processor time; a plain `sleep` has too little of it to be counted.
    rows = [row for row in cluster.sacct(fields="JobID,TotalCPU") if row["JobID"] not in before and "." in row["JobID"]]
    calls = Counter((place / "calls").read_text(encoding="utf-8").split())
    times = {"wall_s": wall_s, "own_cpu_s": own_s, "job_cpu_s": sum(seconds(row["TotalCPU"]) for row in rows) / jobs}
    return times | {name: calls[name] for name in CALLS}


def logged_calls(cluster: Any, place: Path) -> dict[str, str]:
    """Returns an environment in which each call of Slurm's programs adds a line to the file `calls`."""
    environment = cluster.env()
    (place / "bin").mkdir()
    (place / "calls").touch()
    for name in CALLS:
        real = subprocess.run(
            ["which", name], env=environment, capture_output=True, text=True, check=True, encoding="utf-8"
        ).stdout.strip()
        script = f'#!/bin/sh\necho {name} >> {place}/calls\nexec {real} "$@"\n'
        (place / "bin" / name).write_text(script, encoding="utf-8")
        (place / "bin" / name).chmod(0o755)
    return {**environment, "PATH": f"{place}/bin:{environment['PATH']}"}


def show(jobs: int, results: dict[str, list[dict[str, float]]]) -> None:
    rows = []
    for name, runs in results.items():
        values = {key: [run[key] for run in runs] for key in runs[0]}
        middle = {key: statistics.median(column) for key, column in values.items()}
        calls = ", ".join(f"{middle[call]:.0f} {call}" for call in CALLS if middle[call])
        cost = [f"{middle[key]:.1f} ({spread(values[key])})" for key in ("wall_s", "job_cpu_s", "own_cpu_s")]
        rows.append([name, *cost, calls])
    title = f"{jobs} jobs of one second, medians of {len(runs)} runs (lowest .. highest)"
    columns = ("", "wall s", "processor s per job", "processor s of Snakemake", "calls")
    Console().print(table_of(title, columns, rows))


if __name__ == "__main__":
    main()
