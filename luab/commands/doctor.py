"""`luab doctor`: checks whether this machine is ready for the study, and how to fix what is missing."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from luab.study.config import Study
from luab.study.roots import FROM_COCO

Verdict = Literal["ok", "note", "missing"]
_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
_FULL_STUDY_GB = 450
_DEMO_GB = 2


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, the verdict, and details or the fix."""

    what: str
    verdict: Verdict
    text: str


def examine(study: Study) -> bool:
    """Prints a table of findings; returns False if something that the study needs is missing."""
    findings = [*_python(), *_torch(study), *_disk(study), *_slurm(study), *_data(study)]
    table = Table("", "check", "result", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(_MARKS[finding.verdict], finding.what, finding.text)
    Console().print(table)
    return all(finding.verdict != "missing" for finding in findings)


def _python() -> Iterator[Finding]:
    right = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "Python",
        "ok" if right else "missing",
        platform.python_version() + ("" if right else ": needs 3.11 to 3.13; run `make clean`, then PYTHON=… make"),
    )
    for name in ("snakemake", "timm", "dvc", "submitit"):
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "not installed; run `make` in the checkout")


def _torch(study: Study) -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "missing", f"{error}; run `make` in the checkout")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, built for CUDA {torch.version.cuda or 'none (CPU only)'}")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 1e9
            yield Finding(f"GPU {i}", "ok", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GB")
        return
    if (driver := _driver_cuda()) is not None:
        major = driver.partition(".")[
            0
        ]  # builds for any minor version of CUDA run on drivers of the same major version
        build = {"11": "cu118", "12": "cu126"}.get(major, f"cu{major}0")
        yield Finding(
            "GPU",
            "missing",
            f"torch is built for CUDA {torch.version.cuda}, which the driver (CUDA {driver}) does not support. "
            f"Reinstall torch for this driver: make TORCH_BACKEND={build}",
        )
        return
    if study.compute.device == "cuda":
        yield Finding("GPU", "missing", "none, but compute.device is cuda")
    else:
        yield Finding("GPU", "note", "none; run train and predict jobs on GPU nodes")


def _driver_cuda() -> str | None:
    """CUDA version that the NVIDIA driver supports, for example "12.4"; None without a driver."""
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    _, _, after = done.stdout.partition("CUDA Version:")
    return after.split()[0] if after.split() else None


def _disk(study: Study) -> Iterator[Finding]:
    for name, path in (("data", study.paths.data), ("results", study.paths.results)):
        existing = next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
        free = shutil.disk_usage(existing).free / 1e9
        needed = _DEMO_GB if study.demo else _FULL_STUDY_GB
        warning = "" if free >= needed else f"; the whole study needs about {needed} GB"
        text = f"{free:.0f} GB free at paths.{name} ({path}){warning}"
        yield Finding(f"disk for {name}", "note" if warning else "ok", text)
        if not os.access(existing, os.W_OK):
            yield Finding(f"disk for {name}", "missing", f"{existing} is not writable; set paths.{name}")


def _slurm(study: Study) -> Iterator[Finding]:
    commands = [command for command in ("sbatch", "squeue", "sacct") if shutil.which(command)]
    if not commands:
        yield Finding("Slurm", "note", "no sbatch; `snakemake --cores N` runs everything on this machine")
    elif "sacct" not in commands:
        yield Finding("Slurm", "note", "no sacct: finished jobs are recognised only by their results")
    else:
        yield Finding("Slurm", "ok", ", ".join(commands))


def _data(study: Study) -> Iterator[Finding]:
    paths = study.paths
    if study.demo:
        yield Finding("ImageNet", "ok", "not needed: the demo world is drawn")
        return
    yield _imagenet(paths.imagenet)
    for name in ("imagenet_sketch", "objectnet"):
        folder = paths.copies.get(name)
        if folder is None:
            yield Finding(name, "note", f"needs your own copy: set paths.copies.{name} (see {paths.archives})")
        else:
            yield Finding(name, "ok" if folder.is_dir() else "missing", f"{folder}")
    if "coco" in study.parts:
        yield _coco({name: paths.copies.get(name) for name in FROM_COCO})
    archives = study.layout.archive_folder()
    count = len(list(archives.glob("*.json")))
    yield Finding("archives", "ok" if count else "note", f"{count} downloaded and verified in {archives}")


def _imagenet(folder: Path | None) -> Finding:
    if folder is None:
        return Finding("ImageNet", "missing", "set paths.imagenet to a folder with train/<wnid>/ and val/")
    if not (folder / "train").is_dir():
        return Finding("ImageNet", "missing", f"{folder}/train not found; it must contain 1000 folders named by wnid")
    classes = sum(entry.is_dir() for entry in os.scandir(folder / "train"))
    enough = classes == 1000
    return Finding("ImageNet", "ok" if enough else "missing", f"{folder}: {classes} of 1000 class folders in train/")


def _coco(copies: dict[str, Path | None]) -> Finding:
    named = {name: folder for name, folder in copies.items() if folder is not None}
    if not named:
        return Finding("COCO", "ok", "will be downloaded (21 GB), or set paths.copies; see docs/full-study.md")
    mistakes = [f"paths.copies.{name}: {path} is not a folder" for name, path in named.items() if not path.is_dir()]
    mistakes += [f"set paths.copies.{name} too" for name in copies if name not in named]
    return Finding("COCO", "missing" if mistakes else "ok", "; ".join(mistakes) or ", ".join(map(str, named.values())))
