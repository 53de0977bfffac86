"""Training fed from files, side by side: timm's own train script, timm's loader, and luab's, from disk and from memory.

    python speed/feeding.py --images <ImageNet>/train --timm-script <pytorch-image-models>/train.py
    python speed/feeding.py --tiny                                # shows on a CPU that it works

All train the same backbone by the same recipe on the same files with the same number of loader processes, in turn;
images per second by the clock, the first steps of each run left out. From disk: what the system has kept of the files
is dropped before each run. From memory: the files lie in /dev/shm. One batch in memory, which no loader can pass, goes
along. timm's script is not in its package: give the train.py of the tag that is installed; without it, it is left out.
Needs Linux.
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
from datetime import date
from itertools import repeat
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.table import Table
from timm.data import create_dataset, create_loader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loader import draw_photos, list_images
from training import OUT, Parts, Step, luab_loop, plain_timm

from luab.data.images.imagenet import ImageNetAB
from luab.data.images.loader import EpochBatches, training_loader
from luab.data.supervisions.point_files import IMAGE_POINTS, write_points
from luab.files import write_json
from luab.model import IMAGENET_CLASSES
from luab.provenance.code import hardware, versions
from luab.study.config import Decoding, Recipe

DISK, MEMORY = "disk", "memory"
SCRIPT, ITS_LOADER, EXACT, FAST = "timm's train script", "timm's loader, plain loop", "luab, exact", "luab, fast"
ONE_BATCH = "luab, one batch in memory"
_MEMORY_FILES = Path("/dev/shm")
_WARM_STEPS = 5  # compiling kernels, filling the queues; at least
# "Train: 0 [   3/12 ( 31%)]  Loss: 6.95 (6.93)  Time: 0.051s,  156.21/s  (0.065s,  122.52/s)  LR: ..."
_UPDATE = re.compile(r"Train: 0 \[ *\d+/\d+ .*?Time: [\d.]+s, +([\d.]+)/s")


# ---- the files


def laid_out(root: Path, rows: pd.DataFrame, folder: Path, in_memory: bool) -> pd.DataFrame:
    """A folder of links, one per image of an epoch, to the files or to copies of them in it; rows with its paths."""
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


def drop_kept(files: Iterable[Path]) -> None:
    """Asks the system to forget what it holds of files, so that the next read goes to the disk."""
    for file in files:
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fits_into_memory(files: Iterable[Path]) -> bool:
    """Whether the memory file system is there and holds the files; says so where not."""
    needed = sum(file.stat().st_size for file in files)
    room = shutil.disk_usage(_MEMORY_FILES).free if _MEMORY_FILES.is_dir() else 0
    if needed >= room:
        print(
            f"{_MEMORY_FILES}: room for {room / 1e9:.1f} GB, the files take {needed / 1e9:.1f}: 'from memory' is left "
            "out. Fewer --steps need fewer files.",
            file=sys.stderr,
        )
    return needed < room


# ---- what is timed; each gives back the images per second of one epoch


def clocked(batches: Iterable[Any], step: Step, size: int, device: torch.device, warm: int) -> float:
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
    """As timm's train script builds it."""
    build: Any = create_loader  # its annotations know no None
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
    """timm's own train script on the same recipe, one epoch, without evaluation, telling of each step."""
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
    command = [
        sys.executable,
        str(script),
        "--val-split",
        "",
        *[f"--{name}={value}" for name, value in options.items()],
    ]
    command += ["--scale", *map(str, recipe.crop_scale)]
    command += ["--pin-mem"] * torch.cuda.is_available() + ["--channels-last"] * recipe.channels_last
    if recipe.model_kwargs:
        command += ["--model-kwargs", *[f"{name}={value}" for name, value in recipe.model_kwargs.items()]]
    if recipe.amp in ("bfloat16", "float16") and torch.cuda.is_available():
        command += ["--amp", f"--amp-dtype={recipe.amp}"]
    return command + ["--model-ema"] * bool(recipe.ema_decay)


def rate_of_log(log: str, warm: int) -> float:
    """Images per second that timm's script told of, over the steps after the first ones.

    It tells each step's own rate, and waits for each step's loss, so that the mean over time is the harmonic one.
    """
    rates = [float(rate) for rate in _UPDATE.findall(log)]
    if len(rates) <= warm:
        raise SystemExit(f"timm's train script told of {len(rates)} steps, expected more than {warm}:\n{log[-2000:]}")
    return statistics.harmonic_mean(rates[warm:])


def run_script(command: list[str], warm: int) -> float:
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, cwd=tempfile.gettempdir())
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


# ---- all of it


def candidates(
    parts: Parts, backbone: str, trees: dict[str, tuple[Path, pd.DataFrame]], targets: Path, options: argparse.Namespace
) -> dict[str, Callable[[int], float]]:
    size, workers, warm, device = options.batch_size, options.workers, options.warm, parts.device
    plain, ours = plain_timm(parts, backbone), luab_loop(parts, backbone, 1.0)
    found: dict[str, Callable[[int], float]] = {
        ONE_BATCH: lambda run: clocked(repeat(parts.batch, options.steps), ours, size, device, warm)
    }
    for place, (folder, rows) in trees.items():
        if options.timm_script is not None:
            command = timm_command(options.timm_script.resolve(), folder, parts.recipe, backbone, size, workers)
            found[f"{SCRIPT}, from {place}"] = lambda run, command=command: run_script(command, warm)
        found[f"{ITS_LOADER}, from {place}"] = lambda run, folder=folder: clocked(
            timm_loader(folder, parts.recipe, size, workers, device), plain, size, device, warm
        )
        decodings: dict[str, Decoding] = {EXACT: "exact", FAST: "fast"}
        for name, decoding in decodings.items():
            found[f"{name}, from {place}"] = lambda run, folder=folder, rows=rows, decoding=decoding: clocked(
                luab_batches(folder, rows, targets, parts, decoding, workers, run), ours, size, device, warm
            )
    return found


def write_targets(rows: pd.DataFrame, folder: Path) -> Path:
    """A click in the middle of each image: where it is does not change what it costs."""
    import pyarrow as pa

    middle = [0.5] * len(rows)
    write_points(
        pa.table({"image_id": rows["image_id"], "x": middle, "y": middle}, schema=IMAGE_POINTS),
        folder / "click.parquet",
        folder / "click.json",
        {},
    )
    return folder / "click.parquet"


def measure(parts: Parts, options: argparse.Namespace, root: Path, scratch: Path) -> dict[str, list[float]]:
    """Images per second by the clock, by candidate and run."""
    rows = list_images(root, options.steps * options.batch_size)
    targets = write_targets(rows, scratch)
    trees = {DISK: (scratch / "train", laid_out(root, rows, scratch, in_memory=False))}
    files = [(root / path).resolve() for path in rows["path"].unique()]
    in_memory = fits_into_memory(files)
    with tempfile.TemporaryDirectory(dir=_MEMORY_FILES if in_memory else None) as memory:
        if in_memory:
            trees[MEMORY] = (Path(memory) / "train", laid_out(root, rows, Path(memory), in_memory=True))
        readers = candidates(parts, options.backbone, trees, targets, options)
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for run in range(options.runs):
            for name, read in readers.items():
                if name.endswith(DISK):
                    drop_kept(files)
                rates[name].append(read(run))
                print(f"run {run + 1} of {options.runs}: {name}: {rates[name][-1]:,.1f} images/s", file=sys.stderr)
    return rates


def show(report: dict[str, Any]) -> None:
    title = (
        f"{report['backbone']}, {report['input_px']} px, batches of {report['batch_size']}, "
        f"{report['workers']} loader processes, {report['device']}"
    )
    table = Table("trained on", "images/s", "lowest .. highest", "of one batch's rate", title=title)
    limit = statistics.median(report["images_per_s"][ONE_BATCH])
    for name, values in report["images_per_s"].items():
        middle = statistics.median(values)
        table.add_row(name, f"{middle:,.1f}", f"{min(values):,.1f} .. {max(values):,.1f}", f"{middle / limit:.0%}")
    console = Console()
    console.print(table)
    if report["device"] == "cpu":
        console.print("On a CPU this only shows that the loops run; GPU figures are not measured yet.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of class folders with JPEGs; drawn ones without it")
    parser.add_argument("--timm-script", type=Path, help="train.py of the timm that is installed")
    parser.add_argument("--recipe", type=Path, default=Path("config/recipes/resnet.yaml"))
    parser.add_argument("--backbone", default="resnet50", help="timm name")
    parser.add_argument("--batch-size", type=int, default=256, help="images per step on this device")
    parser.add_argument("--steps", type=int, default=300, help="per run; several times what loaders read ahead")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="loader processes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="test_resnet, 8 images of 32 px, 8 steps, 1 loader process")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for feeding.json")
    options = parser.parse_args(arguments)
    recipe = Recipe.model_validate(yaml.safe_load(options.recipe.read_text()))
    if options.tiny:
        options.backbone, options.batch_size, options.steps, options.workers = "test_resnet", 8, 8, 1
        recipe = recipe.model_copy(update={"input_px": 32})
    options.warm = max(_WARM_STEPS, options.steps // 6)
    if options.steps <= options.warm:
        raise SystemExit(f"--steps: expected more than the {options.warm} that are left out, found {options.steps}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = options.images or scratch / "drawn"
        if options.images is None:
            draw_photos(root, min(options.steps * options.batch_size, 96))
        rates = measure(Parts(recipe, options.batch_size, device), options, root, scratch)
    report = {
        "date": date.today().isoformat(),
        "backbone": options.backbone,
        "input_px": recipe.input_px,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "warm_steps": options.warm,
        "workers": options.workers,
        "runs": options.runs,
        "images": "drawn JPEGs" if options.images is None else "JPEGs of a given folder",
        "device": str(device),
        "images_per_s": rates,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(options.out / "feeding.json", report)
    show(report)


if __name__ == "__main__":
    main()
