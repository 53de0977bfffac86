"""Indexing ImageNet-AB, side by side: the official way, luab, and what no reader of the archive can go below.

    python speed/index.py

The official way unpacks the archive into files and parses each of them for its click alone; luab keeps the
whole record. All run in turn, several times over, each in a process of its own; medians are shown. Rates per core
count processor time (user and system, all processes), so that other work on the machine matters little.

What the official way costs hangs on the file system, so it runs on the one of temporary files and on /dev/shm, which
is the quickest disk there can be; and it reads an archive of its own, smaller than luab's, since a record costs it the
same in any archive, while the start of luab's processes is to be seen in its due share.
"""

import argparse
import contextlib
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
from typing import Any, NamedTuple

import pandas  # noqa: F401  # pyarrow does at its first list
import psutil
from isal import igzip

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for the steps, which run in children

from archives import write_archive

from luab.byproducts.imagenet_ab import index
from luab.byproducts.reading.tar import archive_blocks
from luab.byproducts.reading.workers import default_processes
from luab.files import write_json
from luab.provenance.code import _processor

OUT = Path(__file__).resolve().parent / "results"
MEMORY = Path("/dev/shm")  # Linux; elsewhere the disk alone is measured
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


def decompress_by_zlib(archive: Path, folder: Path) -> None:
    with gzip.open(archive) as stream:
        while stream.read(4 << 20):
            pass


def decompress(archive: Path, folder: Path) -> None:
    with igzip.open(archive) as stream:
        while stream.read(4 << 20):
            pass


def decompress_and_walk(archive: Path, folder: Path) -> None:
    for _ in archive_blocks(archive):
        pass


Step = Callable[[Path, Path], None]
UNPACK: dict[str, Step] = {"tarfile": unpack_by_tarfile, "tar": unpack_by_tar}
LUAB: dict[str, Step] = {
    "luab, 1 process": index_in_one_process,
    "luab, all cores": index_on_all_cores,
    "decompress (zlib)": decompress_by_zlib,
    "decompress (isa-l)": decompress,
    "decompress and walk": decompress_and_walk,
}
PARSE = "parse the clicks"
OFFICIAL = "official way"


def official_steps(place: str) -> dict[str, Step]:
    """Its parts on a file system, in their order."""
    unpack = {f"unpack ({tool}, {place})": step for tool, step in UNPACK.items()}
    return unpack | {f"{PARSE} ({place})": parse_clicks}


class Place(NamedTuple):
    """A file system to unpack on."""

    name: str
    folder: Path


STEPS = LUAB | official_steps("disk") | official_steps("memory")


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


def lookup_ratio(folder: Path, unpacked: Path) -> dict[str, float]:
    """Time of one sample's point: from luab.ImageNetAB, and from its XML by ElementTree."""
    import numpy as np
    import pandas as pd

    from luab import ImageNetAB
    from luab.byproducts.imagenet_ab import read_index
    from luab.data.supervisions.imagenet import write_targets

    targets = folder / "click.parquet"
    write_targets(folder / "index.parquet", "click", 0, targets, folder / "click.json")
    ids = read_index(folder / "index.parquet", ["image_id"])["image_id"].to_pylist()
    rows = pd.DataFrame({"image_id": ids, "path": ids, "labels": [[0]] * len(ids)})
    points = ImageNetAB(folder, rows, targets).points
    files = record_files(unpacked)
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


def measure(records: int, official_records: int, runs: int, places: list[Place]) -> dict[str, Any]:
    work = places[0].folder
    large, small = work / "large.tar.gz", work / "small.tar.gz"
    write_archive(large, records)
    write_archive(small, official_records)
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(runs):
        for place in places:
            for name in official_steps(place.name):
                results.setdefault(name, []).append(measured(name, small, place.folder))
        for name in LUAB:
            results.setdefault(name, []).append(measured(name, large, work))
        print(f"run {number + 1} of {runs} done", file=sys.stderr)
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "load": os.getloadavg(),
        "python": sys.version.split()[0],
        "records": records,
        "official_records": official_records,
        "runs": runs,
        "archive_bytes": large.stat().st_size,
        "processes": default_processes(),
        "places": [place.name for place in places],
        "steps": results,
        "lookup": lookup_ratio(work, places[-1].folder),
    }


def summary(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Medians of each step, per record; the official ways as the sums of their parts go first."""
    rows = {}
    for name, runs in found["steps"].items():
        records = found["records" if name in LUAB else "official_records"]
        cpu_us = [run["cpu_s"] / records * 1e6 for run in runs]
        rows[name] = {
            "cpu_us": statistics.median(cpu_us),
            "wall_us": statistics.median(run["wall_s"] for run in runs) / records * 1e6,
            "peak_mb": statistics.median(run["peak_mb"] for run in runs),
            "spread": [min(cpu_us), max(cpu_us)],
        }
    official = {}
    for place in found["places"]:
        for tool in UNPACK:
            parts = [rows[f"unpack ({tool}, {place})"], rows[f"{PARSE} ({place})"]]
            official[f"{OFFICIAL} ({tool}, {place})"] = {
                "cpu_us": sum(part["cpu_us"] for part in parts),
                "wall_us": sum(part["wall_us"] for part in parts),
                "peak_mb": max(part["peak_mb"] for part in parts),
                "spread": [sum(part["spread"][end] for part in parts) for end in (0, 1)],
            }
    return official | rows


def official_of(found: dict[str, Any], place: str) -> str:
    """The official way that luab is measured against: Python's own tarfile, on one of the file systems."""
    return f"{OFFICIAL} (tarfile, {place})"


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{found['records']:,} records, {found['official_records']:,} for the official way; medians of "
        f"{found['runs']} runs; {found['machine']}; {found['date']}; load {found['load'][0]:.1f}"
    )
    table = Table(title=title)
    against = [f"× official ({place})" for place in found["places"]]
    for column in ("", "records/s/core", "µs of processor", "µs by the clock", *against, "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    rows = summary(found)
    for name, row in rows.items():
        ratios = [rows[official_of(found, place)]["cpu_us"] / row["cpu_us"] for place in found["places"]]
        table.add_row(
            name,
            f"{1e6 / row['cpu_us']:,.0f}",
            f"{row['cpu_us']:.1f}",
            f"{row['wall_us']:.1f}",
            *(f"{ratio:.2f}" for ratio in ratios),
            f"{row['peak_mb']:,.0f}",
        )
    console = Console(width=110)
    console.print(table)
    ours, lookup = rows["luab, 1 process"]["cpu_us"], found["lookup"]
    console.print(
        "Decompressing and walking the archive is the limit: luab reaches "
        f"{rows['decompress and walk']['cpu_us'] / ours:.0%} of its rate in one process."
    )
    for name, row in rows.items():
        if name.startswith(OFFICIAL):
            low = row["spread"][0] / ours
            ratio = f"{row['cpu_us'] / ours:.1f} × the {name}, {low:.1f} × its quickest run"
            console.print(f"luab, 1 process: {ratio} (target {TARGET:g} ×).")
    console.print(
        f"A sample's point: {lookup['luab_us']:.2f} µs from luab.ImageNetAB, {lookup['elementtree_us']:.0f} µs from "
        f"its XML: {lookup['elementtree_us'] / lookup['luab_us']:.0f} × (target {LOOKUP_TARGET:g} ×)."
    )


def draw(found: dict[str, Any], pdf: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from luab.render import style

    @style.styled
    def bars() -> Figure:
        rows = dict(reversed(summary(found).items()))
        rates = [1e6 / row["cpu_us"] for row in rows.values()]
        errors = [
            [rate - 1e6 / row["spread"][1] for rate, row in zip(rates, rows.values(), strict=True)],
            [1e6 / row["spread"][0] - rate for rate, row in zip(rates, rows.values(), strict=True)],
        ]
        colours = [style.COLOURS["click" if name.startswith("luab") else "none"] for name in rows]
        figure = style.new_figure(style.COLUMN_IN, 3.2)
        axes = figure.subplots()
        axes.barh(list(rows), rates, xerr=errors, color=colours, error_kw={"lw": 0.7})
        for place in found["places"]:
            official_us = rows[official_of(found, place)]["cpu_us"]
            axes.axvline(TARGET * 1e6 / official_us, color=style.INK, lw=0.7, ls=(0, (4, 3)))
        axes.set(xlabel="Records per second and core", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
        axes.grid(axis="y", visible=False)
        note = (
            f"{found['records']:,} generated records, {found['official_records']:,} for the official way. Bars: "
            f"medians of {found['runs']} runs, whiskers: least and most. Dashed: {TARGET:g} times the official way by "
            f"tarfile ({', '.join(found['places'])}). {found['machine']}."
        )
        return style.finish(figure, note)

    style.save(bars(), pdf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--official-records", type=int, default=6_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of index.json, index.pdf and index.png")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step[0], Path(given.step[1]), Path(given.step[2]))
        return
    with contextlib.ExitStack() as stack:
        places = [Place("disk", Path(stack.enter_context(tempfile.TemporaryDirectory())))]
        if MEMORY.is_dir():
            places.append(Place("memory", Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))))
        found = measure(given.records, given.official_records, given.runs, places)
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "index.json", found)
    draw(found, given.out / "index.pdf")
    show(found)


if __name__ == "__main__":
    main()
