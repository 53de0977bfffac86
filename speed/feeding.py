"""Compares trainings that read files, from disk and from memory: timm's train script, timm's loader, luab's loader.

    python speed/feeding.py --images <ImageNet>/train --timm-script <pytorch-image-models>/train.py
    python speed/feeding.py --tiny                                # shows on a CPU that it works

All train the same backbone with the same recipe on the same files with the same number of loader processes, in turn.
Rates are images per second by the clock, without the first steps of each run. From disk: the system's cached copies
of the files are dropped before each run. From memory: the files are in /dev/shm. Training on a single batch in memory
gives the limit for all loaders. timm's script is not in its package; pass the train.py of the installed version,
otherwise the script is left out. Needs Linux.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from loader import image_folder, list_images
from measuring import in_turn, spread, table_of, write_report
from rich.console import Console
from timm.data import create_dataset, create_loader
from training import ON_CPU, Parts, Step, luab_loop, parts_of, plain_timm, report_of, training_options

from luab.data.images.imagenet import ImageNetAB
from luab.data.images.loader import EpochBatches, ahead, training_loader
from luab.data.supervisions.point_files import write_points
from luab.model import IMAGENET_CLASSES
from luab.study.config import Decoding, Recipe
from luab.study.noises import Point

DISK, MEMORY = "disk", "memory"
SCRIPT, ITS_LOADER, EXACT, FAST = "timm's train script", "timm's loader, plain loop", "luab, exact", "luab, fast"
ONE_BATCH, ALONE = "luab, one batch in memory", "luab's loader alone, fast"
_MEMORY_FILES = Path("/dev/shm")
_WARM_STEPS = 5  # at least; these compile kernels and fill the queues
# "Train: 0 [   3/12 ( 31%)]  Loss: 6.95 (6.93)  Time: 0.051s,  156.21/s  (0.065s,  122.52/s)  LR: ..."
_UPDATE = re.compile(r"Train: 0 \[ *\d+/\d+ .*?Time: [\d.]+s, +([\d.]+)/s")


# ---- the files


def laid_out(root: Path, rows: pd.DataFrame, folder: Path, in_memory: bool) -> pd.DataFrame:
    """Makes a folder of links, one per image of an epoch, to the files or their copies; returns rows with its paths."""
    paths = []
    for k, path in enumerate(rows["path"]):
        source = (root / path).resolve()
        if in_memory:
            copy = folder / "copies" / path
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
            source = copy
        link = folder / "train" / Path(path).parent.name / f"{k}.JPEG"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
        paths.append(str(link.relative_to(folder / "train")))
    return rows.assign(path=paths)


def drop_cached(files: Iterable[Path]) -> None:
    """Drops files from the system's cache, so that the next read goes to the disk."""
    for file in files:
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fits_into_memory(files: Iterable[Path]) -> bool:
    """Whether the files fit into /dev/shm; prints a message if not."""
    needed = sum(file.stat().st_size for file in files)
    room = shutil.disk_usage(_MEMORY_FILES).free if _MEMORY_FILES.is_dir() else 0
    if needed >= room:
        print(
            f"{_MEMORY_FILES}: {room / 1e9:.1f} GB free, the files need {needed / 1e9:.1f} GB: 'from memory' is left "
            "out. Fewer --steps need fewer files.",
            file=sys.stderr,
        )
    return needed < room


# ---- what is timed; each returns the images per second of one epoch


def clocked(batches: Iterable[Any], step: Step, size: int, device: torch.device, warm: int) -> float:
    """Returns the images per second of all steps after the first `warm` ones."""
    start, count = 0.0, 0
    for number, batch in enumerate(batches):
        if number == warm:
            _wait_for(device)
            start = time.perf_counter()
        step(batch)
        count += number >= warm
    _wait_for(device)
    return count * size / (time.perf_counter() - start)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timm_loader(folder: Path, recipe: Recipe, batch_size: int, workers: int, device: torch.device) -> Any:
    """Builds timm's loader as in timm's train script."""
    build: Any = create_loader  # its annotations do not allow None
    return build(
        create_dataset("", root=str(folder)),
        input_size=(3, recipe.input_px, recipe.input_px),
        batch_size=batch_size,
        is_training=True,
        scale=recipe.crop_scale,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        interpolation=recipe.interpolation,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
        device=device,
    )


def timm_command(script: Path, folder: Path, recipe: Recipe, backbone: str, size: int, workers: int) -> list[str]:
    """Returns the command of timm's script: one epoch of the same recipe, no evaluation, all steps logged."""
    options: dict[str, Any] = {
        "data-dir": folder,
        "model": backbone,
        "num-classes": IMAGENET_CLASSES,
        "img-size": recipe.input_px,
        "batch-size": size,
        "workers": workers,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "opt": recipe.optimizer,
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight-decay": recipe.weight_decay,
        "smoothing": recipe.label_smoothing,
        "interpolation": recipe.interpolation,
        "color-jitter": recipe.color_jitter or 0.0,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        "epochs": 1,
        "warmup-epochs": 0,
        "cooldown-epochs": 0,
        "log-interval": 1,
        "output": folder.parent / "timm",
    }
    if recipe.auto_augment:
        options["aa"] = recipe.auto_augment
    if recipe.drop_path:
        options["drop-path"] = recipe.drop_path
    if recipe.clip_grad is not None:
        options["clip-grad"] = recipe.clip_grad
    if recipe.ema_decay:
        options["model-ema-decay"] = recipe.ema_decay
    command = [sys.executable, str(script), "--val-split", "", "--scale", *map(str, recipe.crop_scale)]
    command += [f"--{name}={value}" for name, value in options.items()]
    command += ["--pin-mem"] * torch.cuda.is_available() + ["--channels-last"] * recipe.channels_last
    if recipe.model_kwargs:
        command += ["--model-kwargs", *[f"{name}={value}" for name, value in recipe.model_kwargs.items()]]
    if recipe.amp in ("bfloat16", "float16") and torch.cuda.is_available():
        command += ["--amp", f"--amp-dtype={recipe.amp}"]
    return command + ["--model-ema"] * bool(recipe.ema_decay)


def rate_of_log(log: str, warm: int) -> float:
    """Returns the images per second in the log of timm's script, without the first `warm` steps.

    The script logs the rate of each step after waiting for its loss, so the mean over time is the harmonic mean.
    """
    rates = [float(rate) for rate in _UPDATE.findall(log)]
    if len(rates) <= warm:
        raise SystemExit(f"timm's train script logged {len(rates)} steps, expected more than {warm}:\n{log[-2000:]}")
    return statistics.harmonic_mean(rates[warm:])


def run_script(command: list[str], warm: int) -> float:
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | threads,
        cwd=tempfile.gettempdir(),
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return rate_of_log(done.stderr + done.stdout, warm)


def luab_batches(
    folder: Path, rows: pd.DataFrame, targets: Path, parts: Parts, decoding: Decoding, workers: int, epoch: int
) -> Iterator[Any]:
    size = len(parts.labels)
    dataset = ImageNetAB(folder, rows, targets, parts.recipe, decoding=decoding)
    dataset.epoch = epoch
    return iter(training_loader(dataset, EpochBatches(len(dataset), size, 0, epoch), workers, parts.on_gpu))


# ---- everything together


def candidates(
    parts: Parts, backbone: str, trees: dict[str, tuple[Path, pd.DataFrame]], targets: Path, options: argparse.Namespace
) -> dict[str, Callable[[int], float]]:
    size, workers, warm, device = options.batch_size, options.workers, options.warm, parts.device
    plain, ours = plain_timm(parts, backbone), luab_loop(parts, backbone, 1.0)
    ways: dict[str, Callable[[int], float]] = {
        ONE_BATCH: lambda run: clocked(ahead(repeat(parts.batch, options.steps), device), ours, size, device, warm)
    }
    for place, (folder, rows) in trees.items():
        if options.timm_script is not None:
            command = timm_command(options.timm_script.resolve(), folder, parts.recipe, backbone, size, workers)
            ways[f"{SCRIPT}, from {place}"] = lambda run, command=command: run_script(command, warm)
        ways[f"{ITS_LOADER}, from {place}"] = lambda run, folder=folder: clocked(
            timm_loader(folder, parts.recipe, size, workers, device), plain, size, device, warm
        )
        decodings: dict[str, Decoding] = {EXACT: "exact", FAST: "fast"}
        for name, decoding in decodings.items():
            ways[f"{name}, from {place}"] = lambda run, folder=folder, rows=rows, decoding=decoding: clocked(
                ahead(luab_batches(folder, rows, targets, parts, decoding, workers, run), device),
                ours, size, device, warm,
            )  # fmt: skip
        ways[f"{ALONE}, from {place}"] = lambda run, folder=folder, rows=rows: clocked(
            luab_batches(folder, rows, targets, parts, "fast", workers, run), lambda _: None, size, device, warm
        )
    return ways


def write_targets(rows: pd.DataFrame, folder: Path) -> Path:
    """Writes a click in the middle of each image; the position does not affect the cost."""
    points = [Point(image_id, None, 0.5, 0.5) for image_id in rows["image_id"]]
    write_points(points, folder / "click.parquet", folder / "click.json", {})
    return folder / "click.parquet"


def measure(parts: Parts, options: argparse.Namespace, root: Path, scratch: Path) -> dict[str, list[float]]:
    """Returns the images per second by the clock of each candidate and run."""
    rows = list_images(root, options.steps * options.batch_size)
    targets = write_targets(rows, scratch)
    trees = {DISK: (scratch / "train", laid_out(root, rows, scratch, in_memory=False))}
    files = [(root / path).resolve() for path in rows["path"].unique()]
    in_memory = fits_into_memory(files)
    with tempfile.TemporaryDirectory(dir=_MEMORY_FILES if in_memory else None) as memory:
        if in_memory:
            trees[MEMORY] = (Path(memory) / "train", laid_out(root, rows, Path(memory), in_memory=True))

        def measured(run: int, name: str, read: Callable[[int], float]) -> float:
            if name.endswith(DISK):
                drop_cached(files)
            rate = read(run)
            print(f"run {run + 1} of {options.runs}: {name}: {rate:,.1f} images/s", file=sys.stderr)
            return rate

        readers = candidates(parts, options.backbone, trees, targets, options)
        ways = {name: partial(measured, name=name, read=read) for name, read in readers.items()}
        return in_turn(ways, options.runs, uncounted=0)


def show(report: dict[str, Any]) -> None:
    title = (
        f"{report['backbone']}, {report['input_px']} px, batches of {report['batch_size']}, "
        f"{report['workers']} loader processes, {report['device']}"
    )
    medians = {name: statistics.median(values) for name, values in report["images_per_s"].items()}
    rows = [
        (name, f"{medians[name]:,.1f}", spread(values), f"{medians[name] / medians[ONE_BATCH]:.0%}")
        for name, values in report["images_per_s"].items()
    ]
    console = Console()
    console.print(table_of(title, ("trained on", "images/s", "lowest .. highest", "of one batch's rate"), rows))
    if report["device"] == "cpu":
        console.print(ON_CPU)


def main(arguments: list[str] | None = None) -> None:
    tiny = "test_resnet, 8 images of 32 px, 8 steps, 1 loader process"
    parser = training_options(__doc__, "feeding.json", 300, tiny)
    parser.add_argument("--images", type=Path, help="folder of class folders with JPEGs; default: drawn images")
    parser.add_argument("--timm-script", type=Path, help="train.py of the installed version of timm")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="loader processes")
    options = parser.parse_args(arguments)
    parts = parts_of(options, 8)
    options.workers = 1 if options.tiny else options.workers
    options.warm = max(_WARM_STEPS, options.steps // 6)
    if options.steps <= options.warm:
        raise SystemExit(
            f"--steps: expected more than the {options.warm} first steps, which do not count, found {options.steps}."
        )
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = image_folder(options.images, scratch, options.steps * options.batch_size)
        rates = measure(parts, options, root, scratch)
    report = report_of(parts, options, rates) | {
        "warm_steps": options.warm,
        "workers": options.workers,
        "images": "drawn JPEGs" if options.images is None else "JPEGs of a given folder",
    }
    write_report(options.out, "feeding", report)
    show(report)


if __name__ == "__main__":
    main()
