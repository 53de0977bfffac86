"""Scoring at full size: the whole suite of one run from stored predictions, and the boxes of localisation side by side.

    python speed/scoring.py --out results/benchmarks

The predictions are made up, deterministic by seed, and as many as the real ones: 50,000 validation images, 75 sets of
50,000 for ImageNet-C, and so on. Boxes: luab against the reference's way re-created, one threshold after the other,
in steps of .001 (clovaai/wsolevaluation:evaluation.py), on the same maps; their counts must be identical. All ways run
in turn, several times; medians are shown. Rates per core count processor time, so that other work matters little.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from luab.benchmarks.catalogue import BENCHMARKS, test_sets_of
from luab.benchmarks.score import score
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests.labels import CORRUPTIONS, IN9_VARIANTS
from luab.files import write_json
from luab.metrics.contours import eight_bits
from luab.metrics.localization import LocalizationInput, box_accuracy, iou, scaled_boxes
from luab.provenance.code import _processor
from luab.render.style import COLOURS, finish, new_figure, save, styled

RUN = {"dataset": "imagenet", "backbone": "made_up", "supervision": "click", "lambda": 1.0, "seed": 0}
COCO = [name for name in BENCHMARKS if name.startswith("coco_")]
STANDARD = [
    name
    for name, benchmark in BENCHMARKS.items()
    if not benchmark.instead_of and name != "wsol_val" and name not in COCO
]
COCO_IMAGES, COCO_OBJECTS, COCO_CLASSES_SHOWN = 40_504, 7.2, 3.2
"""Of the validation set, and of one of its images: objects (291,875 in all) and classes, drawn with repetition."""
SIDE_PX, STEP = 224, 0.001
LIMITS = {"ratio": 10.0, "suite_s": 120.0, "memory_gib": 4.0}
IMAGES = {
    "imagenet_val": 50_000, "imagenet_v2": 10_000, "imagenet_a": 7_500, "imagenet_r": 30_000, "imagenet_o": 12_000,
    "imagenet_sketch": 50_889, "imagenet_c": 50_000, "imagenet_cocc": 50_000, "objectnet": 18_574,
    "siscore_size": 92_884, "siscore_location": 541_548, "siscore_rotation": 39_540,
    "in9": 4_050, "in9_challenge": 4_050, "wsol_test": 50_000,
}  # fmt: skip
"""Rows of each test set; per set for imagenet_c and per variant for in9."""


# ---- predictions of full size ----------------------------------------------------------------------------------


def write_predictions(root: Path, scale: float, cells: int) -> None:
    """predictions/<test set>.parquet and manifests/imagenet_real.parquet below `root`."""
    (root / "predictions").mkdir(parents=True)
    (root / "manifests").mkdir()
    for number, name in enumerate(test_sets_of(STANDARD)):
        rng = np.random.default_rng(number)
        writer: pq.ParquetWriter | None = None
        for group in groups_of(name):
            table = rows(name, group, max(20, round(IMAGES[name] * scale)), rng, cells)
            writer = writer or pq.ParquetWriter(
                root / "predictions" / f"{name}.parquet", table.schema, compression="zstd"
            )
            writer.write_table(table)
        assert writer is not None
        writer.close()
    n = max(20, round(IMAGES["imagenet_val"] * scale))
    labels = [[k % 1000] if k % 16 else [] for k in range(n)]
    real = pa.table({"image_id": ids("imagenet_val", "", n), "labels": pa.array(labels, pa.list_(pa.int16()))})
    pq.write_table(real, root / "manifests" / "imagenet_real.parquet")


def groups_of(name: str) -> list[str]:
    if name == "imagenet_c":
        return [f"{corruption}/{severity}" for corruption in CORRUPTIONS for severity in range(1, 6)]
    return list(IN9_VARIANTS) if name == "in9" else [""]


def ids(name: str, group: str, n: int) -> list[str]:
    below = f"{group}/" if group else ""
    return [f"{below}n{10_000_000 + k % 1000}/ILSVRC2012_val_{k:08d}" for k in range(n)]


def rows(name: str, group: str, n: int, rng: np.random.Generator, cells: int) -> pa.Table:
    """One group of a test set: about 70 % right, the columns that luab.predict writes."""
    place = np.arange(n)
    labels = place % (9 if name.startswith("in9") else 1000)
    values = {"siscore_size": 20, "siscore_location": 400, "siscore_rotation": 18}
    in_group = [group] * n
    if name in values:
        in_group = [f"{k % values[name] / 100:g}" for k in range(n)]
    elif name == "imagenet_o":
        in_group = ["out" if k % 6 == 0 else "in" for k in range(n)]
    columns: dict[str, Any] = {
        "image_id": ids(name, group, n),
        "group": in_group,
        "labels": pa.array(labels[:, None].tolist(), pa.list_(pa.int16())),
    }
    if name == "in9_challenge":
        return pa.table(columns | {"vulnerable": rng.random(n) < 0.8, "backgrounds_tried": rng.integers(1, 4051, n)})
    top5 = (labels[:, None] + np.where(rng.random((n, 1)) < 0.7, 0, 7) + 13 * np.arange(5)) % 1000
    confidence = rng.random(n, dtype=np.float32)
    columns |= {
        "top5": pa.FixedSizeListArray.from_arrays(pa.array(top5.astype(np.int16).reshape(-1)), 5),
        "confidence": confidence,
        "restricted_top1": top5[:, 0].astype(np.int16),
        "restricted_confidence": confidence,
        "point_x": rng.random(n, dtype=np.float32),
        "point_y": rng.random(n, dtype=np.float32),
    }
    return pa.table(columns | (_wsol_columns(n, rng, cells) if name == "wsol_test" else {}))


def _wsol_columns(n: int, rng: np.random.Generator, cells: int) -> dict[str, Any]:
    size = rng.integers(300, 600, (n, 2))
    maps = score_maps(n, rng, cells).astype(np.float32).reshape(n, -1)
    return {
        "cam": pa.FixedSizeListArray.from_arrays(pa.array(maps.reshape(-1)), cells**2).cast(pa.list_(pa.float32())),
        "cam_h": np.full(n, cells, np.int16),
        "cam_w": np.full(n, cells, np.int16),
        "width": size[:, 0].astype(np.int32),
        "height": size[:, 1].astype(np.int32),
        "boxes": pa.array([[box] for box in boxes_in(size, rng).tolist()], pa.list_(pa.list_(pa.int32(), 4))),
    }


def score_maps(n: int, rng: np.random.Generator, cells: int) -> np.ndarray:
    """[n, cells, cells] a smooth hill somewhere, and noise: several contours per level."""
    y, x = np.mgrid[:cells, :cells] / cells
    centre, width = rng.random((n, 2, 1, 1)), 0.1 + 0.3 * rng.random((n, 1, 1))
    hill = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / (2 * width**2))
    return hill + 0.3 * rng.random((n, cells, cells))


def boxes_in(size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n, 4] boxes of a third of the side or more, x0 y0 x1 y1."""
    low = rng.random(size.shape) * 0.5
    high = low + 0.33 + rng.random(size.shape) * (0.67 - low)
    return np.concatenate([low * size, np.minimum(high, 1) * size - 1], axis=1).astype(np.int64)


# ---- COCO --------------------------------------------------------------------------------------------------------


def write_coco(root: Path, scale: float, cells: int) -> None:
    """Predictions and manifest of coco_val, its instances file with a polygon of 30 corners for each object, and
    labels of as many training images."""
    rng, n = np.random.default_rng(2), max(200, round(COCO_IMAGES * scale))
    names = [f"COCO_val2014_{k:012d}" for k in range(n)]
    sizes = np.array([(640, 480), (480, 640)])[rng.integers(0, 2, n)]
    objects = [_objects(size, rng) for size in sizes]
    labels = [sorted({label for label, *_ in found}) for found in objects]
    counts = np.array([len(row) for row in labels])
    maps = score_maps(int(counts.sum()), rng, cells).astype(np.float32).reshape(counts.sum(), -1)
    ends = np.concatenate([[0], np.cumsum(counts)])
    listed = {"image_id": names, "labels": pa.array(labels, pa.list_(pa.int16()))}
    predictions = listed | {
        "scores": pa.array(list(rng.random((n, 80), dtype=np.float32)), pa.list_(pa.float32())),
        "points": pa.array(list(rng.random((n, 160), dtype=np.float32)), pa.list_(pa.float32())),
        "cam": pa.array([maps[a:b].ravel() for a, b in itertools.pairwise(ends)], pa.list_(pa.float32())),
        "cam_h": np.full(n, cells, np.int16),
        "cam_w": np.full(n, cells, np.int16),
        "width": sizes[:, 0].astype(np.int32),
        "height": sizes[:, 1].astype(np.int32),
    }
    pq.write_table(pa.table(predictions), root / "predictions" / "coco_val.parquet", compression="zstd")
    parts = {
        "box_labels": pa.array([[o[0] for o in found] for found in objects], pa.list_(pa.int16())),
        "box_areas": pa.array([[o[1] for o in found] for found in objects], pa.list_(pa.float64())),
        "box_crowd": pa.array([[False] * len(found) for found in objects], pa.list_(pa.bool_())),
    }
    pq.write_table(pa.table(listed | parts), root / "manifests" / "coco_val.parquet")
    pq.write_table(pa.table(listed), root / "manifests" / "coco_train.parquet")
    annotations = [
        {"image_id": k, "category_id": COCO_CLASSES[o[0]].category_id, "iscrowd": 0, "segmentation": [o[2]]}
        for k, found in enumerate(objects)
        for o in found
    ]
    write_json(root / "coco" / "annotations" / "instances_val2014.json", {"annotations": annotations})


def _objects(size: np.ndarray, rng: np.random.Generator) -> list[tuple[int, float, list[float]]]:
    """Class, area and polygon of each object: ellipses of all sizes, of about three classes, some much commoner."""
    found = []
    turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    classes = [min(int(80 ** rng.random()) - 1, 79) for _ in range(1 + rng.poisson(COCO_CLASSES_SHOWN - 1))]
    for k in range(max(len(classes), rng.poisson(COCO_OBJECTS))):
        label = classes[k] if k < len(classes) else classes[rng.integers(len(classes))]
        radius = 4 + rng.random(2) ** 2 * size * 0.4
        centre = rng.random(2) * size
        corners = np.stack([np.cos(turn), np.sin(turn)], 1) * radius + centre
        found.append((label, float(np.pi * radius.prod()), corners.clip(0, size).round(2).ravel().tolist()))
    return found


# ---- boxes side by side ----------------------------------------------------------------------------------------


def reference_counts(images: list[LocalizationInput]) -> np.ndarray:
    """[2, 3, thresholds]: largest contour and all contours, as the reference does it, threshold by threshold."""
    thresholds = np.arange(0, 1, STEP)
    counts = np.zeros((2, 3, len(thresholds)), dtype=np.int64)
    for score_map, boxes, size_wh in images:
        drawn = scaled_boxes(boxes, size_wh, (SIDE_PX, SIDE_PX))
        map8 = eight_bits(score_map, SIDE_PX)
        for t, threshold in enumerate(thresholds):
            _, mask = cv2.threshold(map8, int(threshold * np.max(map8)), 255, cv2.THRESH_BINARY)
            contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            largest = [max(contours, key=cv2.contourArea)] if len(contours) else []
            for way, chosen in enumerate((largest, contours)):
                best = iou(_boxes(chosen), drawn).max()
                counts[way, :, t] += best >= np.array([0.3, 0.5, 0.7])
    return counts


def _boxes(contours: Any) -> np.ndarray:
    found = [cv2.boundingRect(contour) for contour in contours] or [(0, 0, 0, 0)]
    last = SIDE_PX - 1
    return np.array([(x, y, min(x + w, last), min(y + h, last)) for x, y, w, h in found])


def our_counts(images: list[LocalizationInput]) -> np.ndarray:
    """The same by luab."""
    found = box_accuracy(images, SIDE_PX, STEP)
    return np.stack([found.largest, found.any_contour])


def each_pixel_once(images: list[LocalizationInput]) -> None:
    """A limit for any way: make the 8-bit map and look at each of its pixels once."""
    for image in images:
        np.bincount(eight_bits(image.score_map, SIDE_PX).ravel(), minlength=256)


def side_by_side(maps: int, repeats: int, cells: int) -> dict[str, Any]:
    """Medians over `repeats` of processor time, the ways in turn; refuses counts that differ."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(1)
    size = rng.integers(300, 600, (maps, 2))
    boxes = boxes_in(size, rng)
    parts = zip(score_maps(maps, rng, cells), boxes, size.tolist(), strict=True)
    images = [LocalizationInput(m, b[None], tuple(s)) for m, b, s in parts]
    ways: dict[str, Callable[[list[LocalizationInput]], Any]] = {
        "reference": reference_counts, "luab": our_counts, "each pixel once": each_pixel_once,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        counts = {}
        for name, way in ways.items():
            start = time.process_time()
            counts[name] = way(images)
            seconds[name].append(time.process_time() - start)
        if not np.array_equal(counts["reference"], counts["luab"]):
            raise SystemExit("counts differ: luab's boxes are wrong")
    rates = {name: maps / statistics.median(values) for name, values in seconds.items()}
    return {
        "maps": maps, "cells": cells, "repeats": repeats, "identical_counts": True, "maps_per_s_per_core": rates,
        "seconds": seconds, "ratio": rates["luab"] / rates["reference"],
        "share_of_limit": rates["luab"] / rates["each pixel once"],
    }  # fmt: skip


# ---- the whole suite -------------------------------------------------------------------------------------------


def whole_suite(root: Path, processes: int) -> dict[str, Any]:
    """Scores every benchmark in a process of its own: seconds by benchmark, and peak memory of all its processes.

    Memory is what all of them hold together, seen every 50 ms; pages that they share count more than once.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # not multiprocessing's: its workers may have no children
        scoring = psutil.Process(pool.submit(os.getpid).result())
        found, peak = pool.submit(_score_all, root, processes), 0
        while not found.done():
            peak = max(peak, _held(scoring))
            time.sleep(0.05)
        return found.result() | {"peak_memory_gib": peak / 2**30}


def _held(process: psutil.Process) -> int:
    """Bytes that a process and its helpers hold."""
    held = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += one.memory_info().rss
    return held


def _score_all(root: Path, processes: int) -> dict[str, Any]:
    parts = {}
    folders, roots = (root / "predictions", root / "manifests"), {"coco_val": root / "coco"}
    for name in [*STANDARD, *COCO]:
        run = RUN | {"dataset": "coco" if name in COCO else "imagenet"}
        wall, cpu = time.perf_counter(), _cpu_s()
        score([name], *folders, run, root / "scores", processes=processes, roots=roots)
        parts[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}
    sums = {
        f"{prefix}{key}": sum(parts[name][key] for name in names)
        for prefix, names in (("", STANDARD), ("coco_", COCO))
        for key in ("wall_s", "cpu_s")
    }
    return {"processes": processes, "parts": parts} | sums


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# ---- what is shown ---------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    """Two small tables."""
    console, boxes, suite = Console(), found["boxes"], found["suite"]
    table = Table(title=f"Boxes at step {STEP}, {boxes['maps']} maps of 224 px, medians of {boxes['repeats']}")
    for heading in ("way", "maps/s per core", "against the reference"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, rate in boxes["maps_per_s_per_core"].items():
        table.add_row(name, f"{rate:,.1f}", f"{rate / boxes['maps_per_s_per_core']['reference']:.1f} x")
    console.print(table)
    console.print(
        f"identical counts; {100 * boxes['share_of_limit']:.0f} % of the limit; asked for: {LIMITS['ratio']:g} x"
    )
    if suite is None:
        return
    table = Table(
        title=f"Whole suite from stored predictions, scale {found['scale']:g}, {suite['processes']} processes"
    )
    for heading in ("benchmark", "wall s", "processor s"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for name, part in suite["parts"].items():
        table.add_row(name, f"{part['wall_s']:.1f}", f"{part['cpu_s']:.1f}")
    table.add_section()
    table.add_row("all of ImageNet", f"{suite['wall_s']:.1f}", f"{suite['cpu_s']:.1f}")
    table.add_row("all of COCO", f"{suite['coco_wall_s']:.1f}", f"{suite['coco_cpu_s']:.1f}")
    console.print(table)
    console.print(
        f"peak memory {suite['peak_memory_gib']:.2f} GiB; asked for: {LIMITS['suite_s']:g} s, "
        f"{LIMITS['memory_gib']:g} GiB"
    )


@styled
def figure(found: dict[str, Any]) -> Figure:
    """Bars: rates of boxes, and processor seconds of each benchmark."""
    drawn = new_figure(6.75, 2.6)
    left, right = drawn.subplots(1, 2)
    rates = found["boxes"]["maps_per_s_per_core"]
    left.barh(list(rates), list(rates.values()), color=[COLOURS["none"], COLOURS["click"], "#D9D9D9"])
    left.set(xscale="log", xlabel="maps per second and core", title="Boxes of score maps, step .001")
    for place, rate in enumerate(rates.values()):
        left.annotate(f" {rate:,.0f}", (rate, place), va="center", fontsize=6.5)
    left.margins(x=0.25)
    parts = (found["suite"] or {"parts": {}})["parts"]
    right.barh(list(parts), [part["cpu_s"] for part in parts.values()], color=COLOURS["click"])
    right.set(xlabel="processor seconds", title="Scoring one run, by benchmark")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    note = (
        f"{found['machine']}, {found['date']}. Boxes: {found['boxes']['maps']} made-up maps, medians of "
        f"n = {found['boxes']['repeats']}, identical counts. Suite: made-up predictions at {found['scale']:g} of full "
        "size, n = 1."
    )
    return finish(drawn, note)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--maps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cells", type=int, default=7, help="side of the stored maps: 7 ResNet, 14 ViT")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size; 0 leaves the suite out")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def main() -> None:
    """Measures, prints, and writes scoring.json, scoring.pdf and scoring.png."""
    asked = arguments()
    found: dict[str, Any] = {
        "machine": f"{_processor()}, {os.cpu_count()} cores", "date": date.today().isoformat(), "scale": asked.scale,
        "load_before": os.getloadavg(), "limits": LIMITS, "opencv": cv2.__version__, "suite": None,
        "boxes": side_by_side(asked.maps, asked.repeats, asked.cells),
    }  # fmt: skip
    if asked.scale:
        with tempfile.TemporaryDirectory() as folder:
            write_predictions(Path(folder) / "run", asked.scale, asked.cells)
            write_coco(Path(folder) / "run", asked.scale, asked.cells)
            found["suite"] = whole_suite(Path(folder) / "run", asked.processes)
    write_json(asked.out / "scoring.json", json.loads(json.dumps(found)))
    save(figure(found), asked.out / "scoring.pdf")
    show(found)


if __name__ == "__main__":
    sys.exit(main())
