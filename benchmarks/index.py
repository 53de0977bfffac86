"""Indexing ImageNet-AB, side by side: the official way, luab, and what no reader of the archive can go below.

    python benchmarks/index.py --records 40000

The official way unpacks the archive into files and parses each of them for its click alone; luab keeps the
whole record. All run in turn, several times over, each in a process of its own; medians are shown. Rates per core
count processor time (user and system, all processes), so that other work on the machine matters little.
"""

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  # pyarrow does at its first list
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for the steps, which run in children

from archives import write_archive

from luab.byproducts.imagenet_ab import index
from luab.byproducts.members import archive_blocks
from luab.byproducts.workers import default_processes
from luab.files import write_json
from luab.provenance import _processor

OUT = Path(__file__).resolve().parent / "results"
TARGET = 5.0
LOOKUP_TARGET = 50.0
_LOOKUPS = 200_000


# ---- steps; each gets the archive and a folder that later steps share


def unpack_by_tarfile(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")


def unpack_by_tar(archive: Path, folder: Path) -> None:
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", folder / "unpacked"], check=True)


def parse_clicks(archive: Path, folder: Path) -> None:
    for path in record_files(folder):
        click_of(path)


def click_of(path: Path) -> tuple[float, float] | None:
    """As the official loader reads it: the first click of each selected annotation, then the mean."""
    points = []
    for metadata in ElementTree.parse(path).getroot().findall("metadata"):
        if metadata.findtext("selected") == "True" and (click := metadata.find("selectedRecord")) is not None:
            points.append((float(click.findtext("x") or ""), float(click.findtext("y") or "")))
    if not points:
        return None
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def record_files(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "unpacked").rglob("*.xml")) if not path.name.startswith("._")]


def index_in_one_process(archive: Path, folder: Path) -> None:
    index(archive, folder / "index.parquet", folder / "index.json", processes=1)


def index_on_all_cores(archive: Path, folder: Path) -> None:
    index(archive, folder / "index.parquet", folder / "index.json")


def decompress(archive: Path, folder: Path) -> None:
    with gzip.open(archive) as stream:
        while stream.read(4 << 20):
            pass


def decompress_and_walk(archive: Path, folder: Path) -> None:
    for _ in archive_blocks(archive):
        pass


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "unpack (tarfile)": unpack_by_tarfile,
    "unpack (tar)": unpack_by_tar,
    "parse the clicks": parse_clicks,
    "luab, 1 process": index_in_one_process,
    "luab, all cores": index_on_all_cores,
    "decompress": decompress,
    "decompress and walk": decompress_and_walk,
}
OFFICIAL = "official way"


def run_step(name: str, archive: Path, folder: Path) -> None:
    """In a child: runs one step and prints what it took, imports left out but for those of luab's own processes."""
    start, cpu = time.perf_counter(), _cpu_s()
    STEPS[name](archive, folder)
    print(json.dumps({"cpu_s": _cpu_s() - cpu, "wall_s": time.perf_counter() - start}))


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(name: str, archive: Path, folder: Path) -> dict[str, float]:
    """Runs a step in a child; adds the largest memory of it and its children together, as seen every 20 ms."""
    if name.startswith("unpack"):
        subprocess.run(["rm", "-rf", folder / "unpacked"], check=True)
    command = [sys.executable, __file__, "--step", name, str(archive), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, _memory(child.pid))
            time.sleep(0.02)
        assert child.stdout
        if child.returncode:
            raise SystemExit(f"{name}: ended with status {child.returncode}")
        return json.load(child.stdout) | {"peak_mb": peak / 1e6}


def _memory(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


# ---- a single sample's point


def lookup_ratio(archive: Path, folder: Path) -> dict[str, float]:
    """Time of one sample's point: from luab.ImageNetAB, and from its XML by ElementTree."""
    import numpy as np
    import pandas as pd

    from luab import ImageNetAB
    from luab.byproducts.imagenet_ab import read_index
    from luab.data.targets import write_targets

    targets = folder / "click.parquet"
    write_targets(folder / "index.parquet", "click", 0, targets, folder / "click.json")
    ids = read_index(folder / "index.parquet", ["image_id"])["image_id"].to_pylist()
    rows = pd.DataFrame({"image_id": ids, "path": ids, "labels": [[0]] * len(ids)})
    points = ImageNetAB(folder, rows, targets).points
    files = record_files(folder)
    chosen = random.Random(0).choices(range(len(ids)), k=_LOOKUPS)

    start = time.process_time()
    for i in chosen:
        # As ImageNetAB.__getitem__ does it.
        _ = (float(points[i, 0]), float(points[i, 1])) if not np.isnan(points[i, 0]) else None
    ours_us = (time.process_time() - start) / _LOOKUPS * 1e6
    some = random.Random(0).sample(files, min(2000, len(files)))
    start = time.process_time()
    for path in some:
        click_of(path)
    return {"luab_us": ours_us, "elementtree_us": (time.process_time() - start) / len(some) * 1e6}


# ---- all of it


def measure(records: int, runs: int, work: Path) -> dict[str, Any]:
    archive = work / "imagenet_ab.tar.gz"
    write_archive(archive, records)
    folder = work / "work"
    folder.mkdir()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in STEPS}
    for number in range(runs):
        for name in STEPS:
            results[name].append(measured(name, archive, folder))
            print(
                f"run {number + 1} of {runs}: {name}: {results[name][-1]['cpu_s']:.2f} s of processor", file=sys.stderr
            )
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "python": sys.version.split()[0],
        "records": records,
        "runs": runs,
        "archive_bytes": archive.stat().st_size,
        "processes": default_processes(),
        "steps": results,
        "lookup": lookup_ratio(archive, folder),
    }


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians of each step, the official way as the sum of its two, and every one's ratio to that."""
    rows = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("cpu_s", "wall_s", "peak_mb")}
        | {"spread": [min(run["cpu_s"] for run in runs), max(run["cpu_s"] for run in runs)]}
        for name, runs in found["steps"].items()
    }
    for how in ("tarfile", "tar"):
        parts = [rows[f"unpack ({how})"], rows["parse the clicks"]]
        whole = {key: sum(part[key] for part in parts) for key in ("cpu_s", "wall_s")}
        spread = [sum(part["spread"][end] for part in parts) for end in (0, 1)]
        rows[f"{OFFICIAL} ({how})"] = whole | {"peak_mb": max(part["peak_mb"] for part in parts), "spread": spread}
    official = rows[f"{OFFICIAL} (tarfile)"]["cpu_s"]
    order = [f"{OFFICIAL} (tarfile)", f"{OFFICIAL} (tar)", *found["steps"]]
    return [{"name": name, **rows[name], "ratio": official / rows[name]["cpu_s"]} for name in order]


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{found['records']:,} records, medians of {found['runs']} runs; {found['machine']}; {found['date']}"
    table = Table(title=title)
    for column in ("", "records/s per core", "µs of processor each", "records/s by the clock", "× official", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    n = found["records"]
    rows = summary(found)
    for row in rows:
        cells = (n / row["cpu_s"], row["cpu_s"] / n * 1e6, n / row["wall_s"], row["ratio"], row["peak_mb"])
        texts = [f"{cells[0]:,.0f}", f"{cells[1]:.1f}", f"{cells[2]:,.0f}", f"{cells[3]:.2f}", f"{cells[4]:,.0f}"]
        table.add_row(row["name"], *texts)
    console = Console()
    console.print(table)
    cpu = {row["name"]: row["cpu_s"] for row in rows}
    ours, lookup = cpu["luab, 1 process"], found["lookup"]
    console.print(
        f"Decompressing and walking the archive is the limit: luab reaches {cpu['decompress and walk'] / ours:.0%} of "
        "its rate in one process.\n"
        f"luab, 1 process: {cpu[f'{OFFICIAL} (tarfile)'] / ours:.1f} × the official way (target {TARGET:g} ×).\n"
        f"A sample's point: {lookup['luab_us']:.2f} µs from luab.ImageNetAB, {lookup['elementtree_us']:.0f} µs from "
        f"its XML: {lookup['elementtree_us'] / lookup['luab_us']:.0f} × (target {LOOKUP_TARGET:g} ×)."
    )


def draw(found: dict[str, Any], pdf: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from luab.render import style

    @style.styled
    def bars() -> Figure:
        rows = summary(found)[::-1]
        rates = [found["records"] / row["cpu_s"] for row in rows]
        spread = [[found["records"] / row["spread"][end] for row in rows] for end in (1, 0)]
        errors = [
            [rate - low for rate, low in zip(rates, spread[0], strict=True)],
            [high - rate for rate, high in zip(rates, spread[1], strict=True)],
        ]
        colours = [style.COLOURS["click" if row["name"].startswith("luab") else "none"] for row in rows]
        figure = style.new_figure(style.COLUMN_IN, 2.2)
        axes = figure.subplots()
        axes.barh([row["name"] for row in rows], rates, xerr=errors, color=colours, error_kw={"lw": 0.7})
        axes.axvline(TARGET * rates[-1], color=style.INK, lw=0.7, ls=(0, (4, 3)))
        axes.set(xlabel="Records per second and core", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
        axes.grid(axis="y", visible=False)
        note = (
            f"{found['records']:,} generated records. Bars: medians of {found['runs']} runs, whiskers: least and most. "
            f"Dashed: {TARGET:g} times the official way. {found['machine']}."
        )
        return style.finish(figure, note)

    style.save(bars(), pdf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of index.json, index.pdf and index.png")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step[0], Path(given.step[1]), Path(given.step[2]))
        return
    with tempfile.TemporaryDirectory() as work:
        found = measure(given.records, given.runs, Path(work))
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "index.json", found)
    draw(found, given.out / "index.pdf")
    show(found)


if __name__ == "__main__":
    main()
