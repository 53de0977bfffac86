"""Measures scoring at full size: the whole suite of one run, and the boxes of localisation against the reference.

    python speed/scoring.py

The predictions are made up from a seed and as many as the real ones: 50,000 validation images, 75 sets of 50,000 for
ImageNet-C, and so on. Boxes: luab is compared with a re-creation of the reference, which tries one threshold after the
other in steps of .001 (clovaai/wsolevaluation:evaluation.py), on the same maps; the counts must be identical. All ways
run in turn, several times; medians are reported. Rates per core count processor time, so that other work on the machine
matters little.
"""

import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from measuring import command_line, cpu_s, in_turn, machine, peak_bytes, table_of, today, write_report
from rich.console import Console

from luab.benchmarks.catalogue import BENCHMARKS, test_sets_of
from luab.benchmarks.score import score
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.data.manifests.labels import CORRUPTIONS, IN9_VARIANTS
from luab.files import write_json
from luab.metrics.contours import eight_bits
from luab.metrics.localization import LocalizationInput, box_accuracy, iou, scaled_boxes
from luab.render.style import COLOURS, finish, new_figure, styled

RUN = {"dataset": "imagenet", "backbone": "made_up", "supervision": "click", "lambda": 1.0, "seed": 0}
COCO = [name for name in BENCHMARKS if name.startswith("coco_")]
STANDARD = [
    name
    for name, benchmark in BENCHMARKS.items()
    if not benchmark.instead_of and name != "wsol_val" and name not in COCO
]
COCO_IMAGES, COCO_OBJECTS, COCO_CLASSES_SHOWN = 40_504, 7.2, 3.2
"""Images of the validation set, and per image objects (291,875 in all) and classes, drawn with repetition."""
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
    """Writes predictions/<test set>.parquet and manifests/imagenet_real.parquet into `root`."""
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
    """Returns one group of a test set with the columns of luab.predict; about 70 % are correct."""
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
    """Returns maps [n, cells, cells] of a smooth hill with noise, so that a level has several contours."""
    y, x = np.mgrid[:cells, :cells] / cells
    centre, width = rng.random((n, 2, 1, 1)), 0.1 + 0.3 * rng.random((n, 1, 1))
    hill = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / (2 * width**2))
    return hill + 0.3 * rng.random((n, cells, cells))


def boxes_in(size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns boxes [n, 4], x0 y0 x1 y1, with at least a third of the image's sides."""
    low = rng.random(size.shape) * 0.5
    high = low + 0.33 + rng.random(size.shape) * (0.67 - low)
    return np.concatenate([low * size, np.minimum(high, 1) * size - 1], axis=1).astype(np.int64)


# ---- COCO --------------------------------------------------------------------------------------------------------


def write_coco(root: Path, scale: float, cells: int) -> None:
    """Writes predictions and manifest of coco_val, its instances file with a polygon of 30 corners for each object, and
    the labels of as many training images."""
    rng, n = np.random.default_rng(2), max(200, round(COCO_IMAGES * scale))
    names = [f"COCO_val2014_{k:012d}" for k in range(n)]
    sizes = np.array([(640, 480), (480, 640)])[rng.integers(0, 2, n)]
    objects = [_objects(size, rng) for size in sizes]
    labels = [sorted({label for label, *_ in of_image}) for of_image in objects]
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
        "box_labels": pa.array([[o[0] for o in of_image] for of_image in objects], pa.list_(pa.int16())),
        "box_areas": pa.array([[o[1] for o in of_image] for of_image in objects], pa.list_(pa.float64())),
        "box_crowd": pa.array([[False] * len(of_image) for of_image in objects], pa.list_(pa.bool_())),
    }
    pq.write_table(pa.table(listed | parts), root / "manifests" / "coco_val.parquet")
    pq.write_table(pa.table(listed), root / "manifests" / "coco_train.parquet")
    annotations = [
        {"image_id": k, "category_id": COCO_CLASSES[o[0]].category_id, "iscrowd": 0, "segmentation": [o[2]]}
        for k, of_image in enumerate(objects)
        for o in of_image
    ]
    write_json(root / "coco" / "annotations" / "instances_val2014.json", {"annotations": annotations})


def _objects(size: np.ndarray, rng: np.random.Generator) -> list[tuple[int, float, list[float]]]:
    """Draws class, area and polygon of each object: ellipses of all sizes, about three classes, some more frequent."""
    objects = []
    turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    classes = [min(int(80 ** rng.random()) - 1, 79) for _ in range(1 + rng.poisson(COCO_CLASSES_SHOWN - 1))]
    for k in range(max(len(classes), rng.poisson(COCO_OBJECTS))):
        label = classes[k] if k < len(classes) else classes[rng.integers(len(classes))]
        radius = 4 + rng.random(2) ** 2 * size * 0.4
        centre = rng.random(2) * size
        corners = np.stack([np.cos(turn), np.sin(turn)], 1) * radius + centre
        objects.append((label, float(np.pi * radius.prod()), corners.clip(0, size).round(2).ravel().tolist()))
    return objects


# ---- comparison of boxes ----------------------------------------------------------------------------------------


def reference_counts(images: list[LocalizationInput]) -> np.ndarray:
    """Returns counts [2, 3, thresholds] for largest and all contours, one threshold after the other."""
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
    boxes = [cv2.boundingRect(contour) for contour in contours] or [(0, 0, 0, 0)]
    last = SIDE_PX - 1
    return np.array([(x, y, min(x + w, last), min(y + h, last)) for x, y, w, h in boxes])


def our_counts(images: list[LocalizationInput]) -> np.ndarray:
    """Returns the same counts from luab."""
    accuracy = box_accuracy(images, SIDE_PX, STEP)
    return np.stack([accuracy.largest, accuracy.any_contour])


def each_pixel_once(images: list[LocalizationInput]) -> None:
    """The limit for any way: makes the 8-bit map and reads each of its pixels once."""
    for image in images:
        np.bincount(eight_bits(image.score_map, SIDE_PX).ravel(), minlength=256)


def side_by_side(maps: int, repeats: int, cells: int) -> dict[str, Any]:
    """Returns rates from medians of processor time over `repeats`; exits if the counts differ."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(1)
    size = rng.integers(300, 600, (maps, 2))
    boxes = boxes_in(size, rng)
    parts = zip(score_maps(maps, rng, cells), boxes, size.tolist(), strict=True)
    images = [LocalizationInput(m, b[None], tuple(s)) for m, b, s in parts]
    ways: dict[str, Callable[[list[LocalizationInput]], Any]] = {
        "reference": reference_counts, "luab": our_counts, "each pixel once": each_pixel_once,
    }  # fmt: skip

    def timed(run: int, way: Callable[[list[LocalizationInput]], Any]) -> tuple[float, Any]:
        start = time.process_time()
        counts = way(images)
        return time.process_time() - start, counts

    results = in_turn({name: partial(timed, way=way) for name, way in ways.items()}, repeats, uncounted=0)
    for (_, expected), (_, ours) in zip(results["reference"], results["luab"], strict=True):
        if not np.array_equal(expected, ours):
            raise SystemExit("the counts differ: luab's boxes are wrong")
    seconds = {name: [took for took, _ in runs] for name, runs in results.items()}
    rates = {name: maps / statistics.median(values) for name, values in seconds.items()}
    return {
        "maps": maps, "cells": cells, "repeats": repeats, "identical_counts": True, "maps_per_s_per_core": rates,
        "seconds": seconds, "ratio": rates["luab"] / rates["reference"],
        "share_of_limit": rates["luab"] / rates["each pixel once"],
    }  # fmt: skip


# ---- the whole suite -------------------------------------------------------------------------------------------


def whole_suite(root: Path, processes: int) -> dict[str, Any]:
    """Scores all benchmarks in a separate process: seconds per benchmark, and peak memory, sampled every 50 ms."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # workers of multiprocessing.Pool cannot have children
        pid = pool.submit(os.getpid).result()
        scored = pool.submit(_score_all, root, processes)
        peak = peak_bytes(pid, lambda: not scored.done(), 0.05)
        return scored.result() | {"peak_memory_gib": peak / 2**30}


def _score_all(root: Path, processes: int) -> dict[str, Any]:
    parts = {}
    folders, roots = (root / "predictions", root / "manifests"), {"coco_val": root / "coco"}
    for name in [*STANDARD, *COCO]:
        run = RUN | {"dataset": "coco" if name in COCO else "imagenet"}
        wall, cpu = time.perf_counter(), cpu_s()
        score([name], *folders, run, root / "scores", processes=processes, roots=roots)
        parts[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}
    sums = {
        f"{prefix}{key}": sum(parts[name][key] for name in names)
        for prefix, names in (("", STANDARD), ("coco_", COCO))
        for key in ("wall_s", "cpu_s")
    }
    return {"processes": processes, "parts": parts} | sums


# ---- output ----------------------------------------------------------------------------------------------------


def show(report: dict[str, Any]) -> None:
    """Prints two tables."""
    console, boxes, suite = Console(), report["boxes"], report["suite"]
    title = f"Boxes at step {STEP}, {boxes['maps']} maps of 224 px, medians of {boxes['repeats']}"
    rates = boxes["maps_per_s_per_core"]
    rows = [(name, f"{rate:,.1f}", f"{rate / rates['reference']:.1f} x") for name, rate in rates.items()]
    console.print(table_of(title, ("way", "maps/s per core", "relative to the reference"), rows))
    console.print(
        f"Identical counts; luab reaches {100 * boxes['share_of_limit']:.0f} % of the limit; "
        f"target: {LIMITS['ratio']:g} x"
    )
    if suite is None:
        return
    title = f"Whole suite from stored predictions, scale {report['scale']:g}, {suite['processes']} processes"
    times = {name: (part["wall_s"], part["cpu_s"]) for name, part in suite["parts"].items()}
    times["all of ImageNet"] = (suite["wall_s"], suite["cpu_s"])
    times["all of COCO"] = (suite["coco_wall_s"], suite["coco_cpu_s"])
    rows = [(name, f"{wall_s:.1f}", f"{cpu:.1f}") for name, (wall_s, cpu) in times.items()]
    console.print(table_of(title, ("benchmark", "wall s", "processor s"), rows))
    console.print(
        f"Peak memory {suite['peak_memory_gib']:.2f} GiB; "
        f"targets: {LIMITS['suite_s']:g} s, {LIMITS['memory_gib']:g} GiB"
    )


@styled
def figure(report: dict[str, Any]) -> Figure:
    """Draws rates of boxes, and processor seconds of each benchmark, as bars."""
    drawn = new_figure(6.75, 2.6)
    left, right = drawn.subplots(1, 2)
    rates = report["boxes"]["maps_per_s_per_core"]
    left.barh(list(rates), list(rates.values()), color=[COLOURS["none"], COLOURS["click"], "#D9D9D9"])
    left.set(xscale="log", xlabel="maps per second and core", title="Boxes of score maps, step .001")
    for place, rate in enumerate(rates.values()):
        left.annotate(f" {rate:,.0f}", (rate, place), va="center", fontsize=6.5)
    left.margins(x=0.25)
    parts = (report["suite"] or {"parts": {}})["parts"]
    right.barh(list(parts), [part["cpu_s"] for part in parts.values()], color=COLOURS["click"])
    right.set(xlabel="processor seconds", title="Scoring one run, by benchmark")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    note = (
        f"{report['machine']}, {report['date']}. Boxes: {report['boxes']['maps']} made-up maps, medians of "
        f"n = {report['boxes']['repeats']}, identical counts. Suite: made-up predictions at {report['scale']:g} of "
        "full size, n = 1."
    )
    return finish(drawn, note)


def main() -> None:
    """Measures, prints, and writes scoring.json, scoring.pdf and scoring.png."""
    parser = command_line(__doc__, "scoring.json, scoring.pdf and scoring.png")
    parser.add_argument("--maps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cells", type=int, default=7, help="side of the stored maps: 7 for ResNet, 14 for ViT")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size; 0 leaves the suite out")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    report: dict[str, Any] = {
        "machine": machine(),
        "date": today(),
        "scale": options.scale,
        "load_before": os.getloadavg(),
        "limits": LIMITS,
        "opencv": cv2.__version__,
        "suite": None,
        "boxes": side_by_side(options.maps, options.repeats, options.cells),
    }
    if options.scale:
        with tempfile.TemporaryDirectory() as folder:
            write_predictions(Path(folder) / "run", options.scale, options.cells)
            write_coco(Path(folder) / "run", options.scale, options.cells)
            report["suite"] = whole_suite(Path(folder) / "run", options.processes)
    write_report(options.out, "scoring", json.loads(json.dumps(report)), figure(report))
    show(report)


if __name__ == "__main__":
    main()
