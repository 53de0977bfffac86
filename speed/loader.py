"""Compares ways to read training images: the official transform, luab exact and fast, from files and from packs.

    python speed/loader.py --images <ImageNet>/train

All run in one process with one thread, in turn, several times; rates count processor time (user and system), so that
other work on the machine matters less. Without --images, drawn JPEGs of typical size are used; if a folder has fewer
than --n images, each is read several times per run. Memory is measured with the file list of the whole training set,
1,281,167 rows.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch
from measuring import circumstances, command_line, in_turn, median_ratio, spread, table_of, write_report
from PIL import Image
from rich.console import Console
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, RandomHorizontalFlip

from luab.data.images.build_pack import build_pack
from luab.data.images.decoding import decode_rows, plain_frame
from luab.data.images.imagenet import ImageNetAB
from luab.data.images.loader import EpochBatches, training_loader
from luab.data.images.pack import Pack
from luab.data.manifests.manifest import SCHEMA
from luab.render.style import COLUMN_IN, finish, new_figure, styled
from luab.study.config import Packing

TARGET = 2.0
MEMORY_TARGET_MIB = 300
ALL_ROWS = 1_281_167
OFFICIAL = "official transform"
SHOWN = {
    OFFICIAL: "official",
    "luab exact": "exact",
    "luab fast": "fast",
    "luab fast, packed": "fast, original bytes packed",
    "luab fast, packed at 256 px": "fast, packed at 256 px",
}
_BATCH = 32


# ---- the images


def image_folder(images: Path | None, scratch: Path, n: int) -> Path:
    """Returns the given folder; without one, a new folder in `scratch` with up to 96 drawn images."""
    if images is None:
        draw_photos(scratch / "drawn", min(n, 96))
    return images or scratch / "drawn"


def draw_photos(folder: Path, n: int) -> None:
    """Draws JPEGs of 500 x 375 pixels and about 110 kB: soft shapes with grain."""
    rng = np.random.default_rng(0)
    for k in range(n):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((500, 375), 3)
        grain = rng.normal(0, 9, (375, 500, 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        file = folder / "n01440764" / f"n01440764_{k}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, quality=94, subsampling=0)


def list_images(root: Path, n: int) -> pd.DataFrame:
    """Returns `n` rows with JPEGs evenly spread over the folder, repeated if it has fewer."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    files = files[:: max(1, len(files) // n)][:n]
    if len(files) < _BATCH:
        raise SystemExit(f"{root}: expected at least {_BATCH} JPEGs, found {len(files)}.")
    paths = [str(files[k % len(files)].relative_to(root)) for k in range(n)]
    ids = [str(k).zfill(8) for k in range(n)]
    return pd.DataFrame({"image_id": ids, "path": paths, "labels": [[0]] * n})


def write_manifest(rows: pd.DataFrame, parquet: Path) -> None:
    empty: dict[str, list[None]] = {name: [None] * len(rows) for name in ("width", "height", "boxes")}
    columns = {name: rows[name].tolist() for name in ("image_id", "path", "labels")}
    pq.write_table(pa.table({**columns, "group": [""] * len(rows), **empty}, schema=SCHEMA), parquet)


class Official(Dataset[tuple[torch.Tensor, int]]):
    """The transform of naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb, re-created, without its points."""

    def __init__(self, root: Path, rows: pd.DataFrame) -> None:
        self.files = [root / path for path in rows["path"]]
        crop = RandomResizedCropAndInterpolation(224, scale=(0.08, 1.0), interpolation="bicubic")
        build: Any = create_transform
        _, second, last = build(
            224,
            is_training=True,
            hflip=0,
            color_jitter=None,
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            separate=True,
        )
        self.transform = Compose([crop, RandomHorizontalFlip(0.5), second, last])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with open(self.files[i], "rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image), 0


# ---- what is timed; each reads all images once and returns their number


def candidates(root: Path, rows: pd.DataFrame, scratch: Path) -> dict[str, Callable[[int], int]]:
    manifest = scratch / "manifest.parquet"
    write_manifest(rows, manifest)
    packs = {}
    for name, packing in {"packed": Packing(), "packed at 256 px": Packing(shorter_side_px=256)}.items():
        index = scratch / f"{name.replace(' ', '-')}.parquet"
        build_pack(root, manifest, packing, index, 0)
        packs[name] = Pack(index, packing, pa.array(rows["image_id"]))
    official = DataLoader(Official(root, rows), _BATCH, shuffle=True, drop_last=True)
    ours = {
        "luab exact": ImageNetAB(root, rows),
        "luab fast": ImageNetAB(root, rows, decoding="fast"),
        **{f"luab fast, {name}": ImageNetAB(root, rows, decoding="fast", pack=pack) for name, pack in packs.items()},
    }
    return {
        OFFICIAL: lambda epoch: sum(len(images) for images, _ in official),
        **{name: (lambda epoch, dataset=dataset: _read(dataset, epoch)) for name, dataset in ours.items()},
        **decoders(root, rows),
    }


def _read(dataset: ImageNetAB, epoch: int) -> int:
    dataset.epoch = epoch
    batches = EpochBatches(len(dataset), _BATCH, 0, epoch)
    return sum(len(batch["images"]) for batch in training_loader(dataset, batches, 0, pinned=False))


def decoders(root: Path, rows: pd.DataFrame) -> dict[str, Callable[[int], int]]:
    """Decoding alone, from memory: the limit for any loader."""
    files = [(root / path).read_bytes() for path in rows["path"]]
    crops = ImageNetAB(root, rows).crop

    def every(decode: Callable[[bytes], Any]) -> Callable[[int], int]:
        return lambda epoch: sum(decode(data) is not None for data in files)

    def needed_rows(data: bytes) -> Any:
        if (frame := plain_frame(data)) is None:
            return pillow(data)
        (top, _, height, _), _ = crops.draw(frame.size_wh)
        return decode_rows(data, frame, top + height)

    def pillow(data: bytes) -> Any:
        return Image.open(io.BytesIO(data)).convert("RGB")

    def opencv(data: bytes) -> Any:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)

    return {
        "decode: Pillow": every(pillow),
        "decode: OpenCV": every(opencv),
        "decode: simplejpeg": every(lambda data: simplejpeg.decode_jpeg(data, "RGB", strict=False)),
        "decode: simplejpeg, the crop's rows": every(needed_rows),
    }


def timed(readers: dict[str, Callable[[int], int]], runs: int) -> dict[str, list[float]]:
    """Returns images per second and core of each reader and run."""

    def rate(run: int, read: Callable[[int], int]) -> float:
        start = time.process_time()
        images = read(run)
        return images / (time.process_time() - start)

    return in_turn({name: partial(rate, read=read) for name, read in readers.items()}, runs)


def pixel_difference(root: Path, rows: pd.DataFrame, epochs: int) -> dict[str, float]:
    """Compares fast with exact, in steps of 1/255, over all values; crops, flips and points must be equal."""
    exact, fast = (ImageNetAB(root, rows, decoding=decoding) for decoding in ("exact", "fast"))  # type: ignore[arg-type]
    counts = torch.zeros(256, dtype=torch.float64)
    for epoch in range(epochs):
        exact.epoch = fast.epoch = epoch
        for i in range(len(rows)):
            ours, theirs = fast[i], exact[i]
            assert torch.equal(ours["points"], theirs["points"]) and ours["weights"] == theirs["weights"]
            counts += torch.bincount((ours["images"].int() - theirs["images"].int()).abs().flatten(), minlength=256)
    share = counts / counts.sum()
    return {
        "values": int(counts.sum()),
        "crops": epochs * len(rows),
        "mean": float((share * torch.arange(256)).sum()),
        "p99_9": int((share.cumsum(0) < 0.999).sum()),
        "max": int(counts.nonzero().max()),
        "share_other": float(share[1:].sum()),
        "share_above_1": float(share[2:].sum()),
    }


# ---- memory; only Linux reports which pages a process shares


def proportional_mib(pids: list[Any]) -> float:
    """Returns the memory of processes in MiB, with shared pages counted once."""
    total = 0
    for pid in pids:
        fields = dict(
            line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
        )
        total += int(fields["Pss"].split()[0])
    return total / 1024


def measure_memory(root: Path, rows: pd.DataFrame, workers: int, batch_size: int) -> float:
    """Returns the peak memory of this process and the loader's processes, in MiB, while all of them read ahead."""
    chosen = np.arange(ALL_ROWS) % len(rows)
    # A separate string for each row, as in a manifest.
    paths = [f"{path[:1]}{path[1:]}" for path in rows["path"].to_numpy()[chosen]]
    many = pd.DataFrame({"image_id": [str(k) for k in range(ALL_ROWS)], "path": paths, "labels": [[0]] * ALL_ROWS})
    dataset = ImageNetAB(root, many, decoding="fast")
    del many, paths
    loader = training_loader(dataset, EpochBatches(ALL_ROWS, batch_size, 0, 0), workers, pinned=False)
    peak, batches = 0.0, iter(loader)
    for _ in range(3 * workers):
        next(batches)
        processes: Any = batches
        peak = max(peak, proportional_mib(["self", *(worker.pid for worker in processes._workers)]))
    return peak


def memory_per_worker(images: list[str], batch_size: int, workers: int = 3) -> float:
    """Returns the memory that each further loader process adds, in MiB."""
    mib = []
    for number in (1, workers):
        command = [sys.executable, __file__, "--memory-of", str(number), "--batch-size", str(batch_size), *images]
        mib.append(
            float(
                subprocess.run(
                    command, check=True, capture_output=True, text=True, encoding="utf-8", errors="replace"
                ).stdout
            )
        )
    return (mib[1] - mib[0]) / (workers - 1)


# ---- output


def show(report: dict[str, Any]) -> None:
    console, rates = Console(), report["images_per_s_per_core"]
    ratios = {name: f"{ratio:.2f}" for name, ratio in report["ratio_to_official"].items()}
    rows = [
        (name, f"{statistics.median(values):,.0f}", spread(values, 0), ratios.get(name, ""))
        for name, values in rates.items()
    ]
    columns = ("reading", "images/s/core", "lowest .. highest", f"x {OFFICIAL}")
    console.print(table_of("Training images, 224 px", columns, rows))
    pixels = report["pixels"]
    console.print(
        f"fast - exact, of 255: mean {pixels['mean']:.3f}, 99.9 % {pixels['p99_9']}, max {pixels['max']} "
        f"({pixels['values']:,} values); crops, flips and points are equal."
    )
    console.print(
        f"luab fast reaches {report['share_of_limit']:.0%} of the rate of decoding the crop's rows alone; "
        f"target: {TARGET:g} x the {OFFICIAL}."
    )
    for batch_size, mib in report["mib_per_further_worker"].items():
        console.print(f"Each further loader process, batches of {batch_size}: {mib:.0f} MiB (<= {MEMORY_TARGET_MIB}).")


@styled
def draw(report: dict[str, Any]) -> Any:
    figure = new_figure(COLUMN_IN, 2.0)
    axes = figure.subplots()
    for place, (name, label) in enumerate(SHOWN.items()):
        values = report["images_per_s_per_core"][name]
        middle = statistics.median(values)
        axes.barh(place, middle, color="#888888" if name == OFFICIAL else "#0072b2")
        axes.plot([min(values), max(values)], [place, place], color="black", linewidth=1)
        axes.text(middle / 2, place, label, ha="center", va="center", color="white", fontsize=6)
    limit = statistics.median(report["images_per_s_per_core"]["decode: simplejpeg, the crop's rows"])
    axes.axvline(limit, color="black", linestyle=":", linewidth=1)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel("training images per second and core")
    note = (
        f"{report['images']}; medians of n = {report['runs']} runs, lines from lowest to highest; dotted: decoding "
        "only the crop's rows of the original images."
    )
    return finish(figure, note)


def main(arguments: list[str] | None = None) -> None:
    parser = command_line(__doc__, "loader.json, loader.pdf and loader.png")
    parser.add_argument("--images", type=Path, help="folder with JPEGs at any depth; default: drawn images")
    parser.add_argument("--n", type=int, default=216, help="images, evenly spread over the folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=256, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = image_folder(options.images, scratch, options.n)
        rows = list_images(root, options.n)
        if options.memory_of:
            print(measure_memory(root, rows, options.memory_of, options.batch_size))
            return
        report = measure(root, rows, options.runs, scratch)
        kind = "drawn JPEGs" if options.images is None else "JPEGs of a given folder"
        report["images"] = f"{report['distinct_images']} {kind}, {len(rows)} read per run"
        if Path("/proc/self/smaps_rollup").exists() and not options.no_memory:
            images = ["--images", str(root), "--n", str(options.n)]
            report["mib_per_further_worker"] = {size: memory_per_worker(images, size) for size in (256, 1024)}
    write_report(options.out, "loader", report, draw(report))
    show(report)


def measure(root: Path, rows: pd.DataFrame, runs: int, scratch: Path) -> dict[str, Any]:
    rates = timed(candidates(root, rows, scratch), runs)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: median_ratio(values, rates[OFFICIAL]) for name, values in rates.items() if not name.startswith("decode")
    }
    report = circumstances()
    report["versions"] |= {"simplejpeg": simplejpeg.__version__, "opencv": cv2.__version__}
    return report | {
        "runs": runs,
        "images_per_s_per_core": rates,
        "ratio_to_official": ratios,
        "target_ratio": TARGET,
        "share_of_limit": middle["luab fast"] / middle["decode: simplejpeg, the crop's rows"],
        "distinct_images": rows["path"].nunique(),
        "mean_kb": statistics.mean((root / path).stat().st_size for path in rows["path"]) / 1000,
        "pixels": pixel_difference(root, rows.drop_duplicates("path"), 3),
        "mib_per_further_worker": {},
    }


if __name__ == "__main__":
    main()
