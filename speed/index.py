"""Compares ways to index ImageNet-AB: the official way, luab, and the limit for any reader of the archive.

    python speed/index.py

The official way unpacks the archive into files and parses each of them only for its click; luab keeps the whole record.
All run in turn, several times, each in a separate process; medians are reported. Rates per core count processor time
(user and system, all processes), so that other work on the machine matters little.

The cost of the official way depends on the file system, so it runs on that of temporary files and on /dev/shm, the
fastest possible disk. It reads a smaller archive than luab, because its cost per record does not depend on the size of
the archive, while luab's processes have a start-up cost that must count with its realistic share.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas  # noqa: F401  # pyarrow imports it at its first list
from archives import write_archive
from isal import igzip
from measuring import command_line, cpu_s, machine, peak_bytes, table_of, today, write_report

from luab.byproducts.imagenet_ab import index
from luab.byproducts.reading.tar import archive_blocks
from luab.byproducts.reading.workers import default_processes

MEMORY = Path("/dev/shm")  # Linux; elsewhere only the disk is measured
TARGET = 5.0
LOOKUP_TARGET = 50.0
_LOOKUPS = 200_000


# ---- steps; each gets the archive and a folder shared with later steps


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
    """Reads a click like the official loader: the mean of the first clicks of all selected annotations."""
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
    """Returns the parts of the official way on a file system, in their order."""
    unpack = {f"unpack ({tool}, {place})": step for tool, step in UNPACK.items()}
    return unpack | {f"{PARSE} ({place})": parse_clicks}


class Place(NamedTuple):
    """A file system to unpack on."""

    name: str
    folder: Path


STEPS = LUAB | official_steps("disk") | official_steps("memory")


def run_step(name: str, archive: Path, folder: Path) -> None:
    """Runs one step in a child and prints its times, without imports except those of luab's worker processes."""
    start, cpu = time.perf_counter(), cpu_s()
    STEPS[name](archive, folder)
    print(json.dumps({"cpu_s": cpu_s() - cpu, "wall_s": time.perf_counter() - start}))


def measured(name: str, archive: Path, folder: Path) -> dict[str, float]:
    """Runs a step in a child; adds the peak memory of the child with its children, sampled every 20 ms."""
    if name.startswith("unpack"):
        subprocess.run(["rm", "-rf", folder / "unpacked"], check=True)
    command = [sys.executable, __file__, "--step", name, str(archive), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        peak = peak_bytes(child.pid, lambda: child.poll() is None, 0.02)
        assert child.stdout
        if child.returncode:
            raise SystemExit(f"{name} ended with status {child.returncode}")
        return json.load(child.stdout) | {"peak_mb": peak / 1e6}


# ---- the point of a single sample


def lookup_ratio(folder: Path, unpacked: Path) -> dict[str, float]:
    """Measures the look-up of a sample's point in luab.ImageNetAB and, by ElementTree, in its XML."""
    import numpy as np
    import pandas as pd

    from luab import ImageNetAB
    from luab.byproducts.imagenet_ab import read_index
    from luab.data.supervisions.imagenet import BYPRODUCTS
    from luab.data.supervisions.makers import Sources, write_targets
    from luab.study.supervisions import Supervision

    targets = folder / "click.parquet"
    sources = Sources(folder / "index.parquet", folder / "no manifest")
    write_targets(BYPRODUCTS, sources, Supervision(points="click"), targets, folder / "click.json")
    ids = read_index(folder / "index.parquet", ["image_id"])["image_id"].to_pylist()
    rows = pd.DataFrame({"image_id": ids, "path": ids, "labels": [[0]] * len(ids)})
    points = ImageNetAB(folder, rows, targets).points
    files = record_files(unpacked)
    chosen = random.Random(0).choices(range(len(ids)), k=_LOOKUPS)

    start = time.process_time()
    for i in chosen:
        # As in ImageNetAB.__getitem__.
        _ = (float(points[i, 0]), float(points[i, 1])) if not np.isnan(points[i, 0]) else None
    ours_us = (time.process_time() - start) / _LOOKUPS * 1e6
    sample = random.Random(0).sample(files, min(2000, len(files)))
    start = time.process_time()
    for path in sample:
        click_of(path)
    return {"luab_us": ours_us, "elementtree_us": (time.process_time() - start) / len(sample) * 1e6}


# ---- everything together


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
        "date": today(),
        "machine": machine(),
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


def summary(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns medians of each step per record, after those of the official ways, which are sums of their parts."""
    rows = {}
    for name, runs in report["steps"].items():
        records = report["records" if name in LUAB else "official_records"]
        cpu_us = [run["cpu_s"] / records * 1e6 for run in runs]
        rows[name] = {
            "cpu_us": statistics.median(cpu_us),
            "wall_us": statistics.median(run["wall_s"] for run in runs) / records * 1e6,
            "peak_mb": statistics.median(run["peak_mb"] for run in runs),
            "spread": [min(cpu_us), max(cpu_us)],
        }
    official = {}
    for place in report["places"]:
        for tool in UNPACK:
            parts = [rows[f"unpack ({tool}, {place})"], rows[f"{PARSE} ({place})"]]
            official[f"{OFFICIAL} ({tool}, {place})"] = {
                "cpu_us": sum(part["cpu_us"] for part in parts),
                "wall_us": sum(part["wall_us"] for part in parts),
                "peak_mb": max(part["peak_mb"] for part in parts),
                "spread": [sum(part["spread"][end] for part in parts) for end in (0, 1)],
            }
    return official | rows


def official_of(place: str) -> str:
    """Returns the name of the official way that luab is compared with: Python's tarfile on a file system."""
    return f"{OFFICIAL} (tarfile, {place})"


def show(report: dict[str, Any]) -> None:
    from rich.console import Console

    title = (
        f"{report['records']:,} records, {report['official_records']:,} for the official way; medians of "
        f"{report['runs']} runs; {report['machine']}; {report['date']}; load {report['load'][0]:.1f}"
    )
    against = [f"× official ({place})" for place in report["places"]]
    columns = ("", "records/s/core", "µs of processor", "µs by the clock", *against, "peak MB")
    rows, lines = summary(report), []
    for name, row in rows.items():
        ratios = [rows[official_of(place)]["cpu_us"] / row["cpu_us"] for place in report["places"]]
        rate, times = f"{1e6 / row['cpu_us']:,.0f}", (f"{row['cpu_us']:.1f}", f"{row['wall_us']:.1f}")
        lines.append((name, rate, *times, *(f"{ratio:.2f}" for ratio in ratios), f"{row['peak_mb']:,.0f}"))
    console = Console(width=110)
    console.print(table_of(title, columns, lines))
    ours, lookup = rows["luab, 1 process"]["cpu_us"], report["lookup"]
    console.print(
        "Decompressing the archive and walking over its headers is the limit: in one process, luab reaches "
        f"{rows['decompress and walk']['cpu_us'] / ours:.0%} of that rate."
    )
    for name, row in rows.items():
        if name.startswith(OFFICIAL):
            low = row["spread"][0] / ours
            ratio = f"{row['cpu_us'] / ours:.1f} × the {name}, {low:.1f} × its fastest run"
            console.print(f"luab, 1 process: {ratio} (target {TARGET:g} ×).")
    console.print(
        f"Point of a sample: {lookup['luab_us']:.2f} µs in luab.ImageNetAB, {lookup['elementtree_us']:.0f} µs in "
        f"its XML: {lookup['elementtree_us'] / lookup['luab_us']:.0f} × (target {LOOKUP_TARGET:g} ×)."
    )


def draw(report: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from luab.render import style

    @style.styled
    def bars() -> Figure:
        rows = dict(reversed(summary(report).items()))
        rates = [1e6 / row["cpu_us"] for row in rows.values()]
        errors = [
            [rate - 1e6 / row["spread"][1] for rate, row in zip(rates, rows.values(), strict=True)],
            [1e6 / row["spread"][0] - rate for rate, row in zip(rates, rows.values(), strict=True)],
        ]
        colours = [style.COLOURS["click" if name.startswith("luab") else "none"] for name in rows]
        figure = style.new_figure(style.COLUMN_IN, 3.2)
        axes = figure.subplots()
        axes.barh(list(rows), rates, xerr=errors, color=colours, error_kw={"lw": 0.7})
        for place in report["places"]:
            official_us = rows[official_of(place)]["cpu_us"]
            axes.axvline(TARGET * 1e6 / official_us, color=style.INK, lw=0.7, ls=(0, (4, 3)))
        axes.set(xlabel="Records per second and core", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
        axes.grid(axis="y", visible=False)
        note = (
            f"{report['records']:,} generated records, {report['official_records']:,} for the official way. Bars: "
            f"medians of {report['runs']} runs, whiskers: minimum and maximum. Dashed: {TARGET:g} times the official "
            f"way with tarfile ({', '.join(report['places'])}). {report['machine']}."
        )
        return style.finish(figure, note)

    return bars()


def main() -> None:
    parser = command_line(__doc__, "index.json, index.pdf and index.png")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--official-records", type=int, default=6_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step[0], Path(options.step[1]), Path(options.step[2]))
        return
    with contextlib.ExitStack() as stack:
        places = [Place("disk", Path(stack.enter_context(tempfile.TemporaryDirectory())))]
        if MEMORY.is_dir():
            places.append(Place("memory", Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))))
        report = measure(options.records, options.official_records, options.runs, places)
    write_report(options.out, "index", report, draw(report))
    show(report)


if __name__ == "__main__":
    main()
