"""Measures DVC and Snakemake on the layout of the full study: times and sizes.

    python speed/tracking.py

The script makes up all files of config/config.yaml in a clone of this checkout, each with different content: models of
--model-kb and tables of --table-kb (real ones are larger, so the times are those of many files, not of many bytes).
Snakemake accepts them with --touch. Then it measures publish, status, a clone that fetches everything and plans, and a
second study that shares the data and half of the trainings, whose size is compared with that of a copy.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from measuring import command_line, table_of, write_report
from rich.console import Console

from luab.files import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
FIRST, SECOND = [0, 1], [1, 2]
"""Seeds of the two studies, which share half of their trainings."""
KEEP = ("results", "data")


def main() -> None:
    parser = command_line(__doc__, "tracking.json")
    parser.add_argument("--model-kb", type=int, default=500)
    parser.add_argument("--table-kb", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5, help="repeats of status and plans")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), options.model_kb * 1000, options.table_kb * 1000, options.repeats)
    write_report(options.out, "tracking", report)
    show(report)


def measure(folder: Path, model_bytes: int, table_bytes: int, repeats: int) -> dict[str, float]:
    study, clone, remote = folder / "study", folder / "clone", folder / "remote"
    run(folder, "git", "clone", "--quiet", str(REPOSITORY), "study")
    sizes = {".safetensors": model_bytes, ".parquet": table_bytes}
    plan_of(study, FIRST)
    files = make_up(study, sizes, version=0)
    report: dict[str, float] = {"files": files, "trainings": len(list(study.glob("results/runs/**/model.safetensors")))}
    run(study, *python("dvc", "remote", "add", "--quiet", "--default", "storage", str(remote)))
    run(study, "git", "commit", "--quiet", "-am", "Study")
    report["publish_s"] = timed(lambda: publish(study))
    report["status_s"] = repeated(repeats, lambda: expect(study, "up to date", *python("dvc", "status")))
    report["plan_s"] = repeated(repeats, lambda: nothing_to_do(study))
    report["publish_again_s"] = timed(lambda: publish(study))
    report["results_mb"] = megabytes(*(study / name for name in KEEP))
    report["remote_mb"] = megabytes(remote)

    run(folder, "git", "clone", "--quiet", str(study), "clone")
    report["plan_of_scores_alone_s"] = timed(
        lambda: expect(clone, "figure_lambda_sweep", *snakemake("--dry-run", "results/figures/lambda_sweep.pdf"))
    )
    report["pull_s"] = timed(lambda: run(clone, *python("luab", "pull")))
    report["first_status_after_pull_s"] = timed(lambda: expect(clone, "up to date", *python("dvc", "status")))
    report["plan_after_pull_s"] = repeated(repeats, lambda: nothing_to_do(clone))

    before = {path for path in study.rglob("*") if path.is_file()}
    plan_of(study, SECOND)
    make_up(study, sizes, version=1)
    report["second_publish_s"] = timed(lambda: publish(study))
    report["second_growth_mb"] = megabytes(remote) - report["remote_mb"]
    new = [path for path in (study / "results" / "runs").rglob("*") if path.is_file() and path not in before]
    report["second_new_runs_mb"] = sum(path.stat().st_size for path in new) / 1e6
    return report


def plan_of(study: Path, seeds: list[int]) -> None:
    """Sets the seeds of the configuration and removes the runs of other seeds."""
    config = study / "config" / "config.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump(content | {"seeds": seeds}, sort_keys=False), encoding="utf-8")
    for path in (study / "results").glob("runs/*/*/*/seed*"):
        if int(path.name.removeprefix("seed")) not in seeds:
            shutil.rmtree(path)


def make_up(study: Path, sizes: dict[str, int], version: int) -> int:
    """Writes missing files of the plan and all products, makes Snakemake accept them, and returns their number."""
    listed = run(study, *snakemake("--summary", "all")).splitlines()
    names = [line.split("\t")[0] for line in listed if "\t" in line and not line.startswith("output_file")]
    for name in names:
        path = study / name
        is_product = path.parts[len(study.parts)] == "results" and "runs" not in path.parts
        if path.exists() and not is_product:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([zlib.crc32(name.encode()), version])
        if path.name == "dvc.yaml":
            path.write_text("metrics: []\n", encoding="utf-8")
        elif path.suffix == ".json":
            write_json(path, {"made_up": rng.random(16).tolist()})
        else:
            path.write_bytes(rng.bytes(sizes.get(path.suffix, 2000)))
    for archive in ("imagenet_ab_v1_0.tar.gz", "coco_ab_v1_0.json"):
        if not (study / "data" / "archives" / archive).exists():
            (study / "data" / "archives" / archive).write_bytes(np.random.default_rng(0).bytes(sizes[".parquet"]))
    run(study, *snakemake("--touch", "--quiet", "all", "--", "all"))
    return len(names)


def publish(study: Path) -> None:
    run(study, *python("luab", "publish"))


def nothing_to_do(study: Path) -> None:
    expect(study, "Nothing to be done", *snakemake("--dry-run", "all"))


def expect(folder: Path, words: str, *command: str) -> None:
    output = run(folder, *command)
    if words not in output:
        raise SystemExit(f"{' '.join(command)}: expected {words!r}, found\n{output[-3000:]}")


def python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def snakemake(*arguments: str) -> tuple[str, ...]:
    return python("snakemake", "--cores", "2", *arguments)


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {f"GIT_{who}_{what}": "speed" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | author | {"PYTHONPATH": str(folder), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def repeated(times: int, action: Callable[[], object]) -> float:
    return statistics.median(timed(action) for _ in range(times))


def megabytes(*folders: Path) -> float:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) / 1e6


def show(report: dict[str, float]) -> None:
    times = {name.removesuffix("_s"): value for name, value in report.items() if name.endswith("_s")}
    rows = [(name.replace("_", " "), f"{value:.1f}") for name, value in times.items()]
    title = f"{report['files']:,.0f} files, {report['trainings']:.0f} trainings"
    console = Console()
    console.print(table_of(title, ("what", "seconds"), rows))
    growth, new, copy = report["second_growth_mb"], report["second_new_runs_mb"], report["results_mb"]
    console.print(
        f"First study: {copy:.1f} MB of files, {report['remote_mb']:.1f} MB in the remote. Second study, half of its "
        f"trainings shared: its new runs are {new:.1f} MB, the remote grew by {growth:.1f} MB ({growth / new:.2f} "
        f"times), a copy would take {copy:.1f} MB ({copy / growth:.1f} times that)."
    )


if __name__ == "__main__":
    main()
