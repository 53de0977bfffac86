"""`luab doctor`: checks whether this machine is ready for the study, and how to fix what is missing."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from luab.errors import DataError, LuabError
from luab.progress import wide_console
from luab.study.config import Study
from luab.study.roots import FROM_COCO, OWN, own_copy
from luab.study.transfers import VOC

Verdict = Literal["ok", "note", "missing"]
_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
_FULL_STUDY_GB = 450
_DEMO_GB = 2
_NVIDIA_SMI_S = 20
_SAMPLE = 32
"""Number of images of each data set that are opened."""
_BUILDS = {"11": "cu118", "12": "cu126", "13": "cu130"}
"""Builds of torch by the driver's major version of CUDA: they run on any minor version, and on later drivers."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, the verdict, and details or the fix."""

    what: str
    verdict: Verdict
    text: str


def examine(study: Study, backbones: bool = False) -> bool:
    """Prints a table of findings; returns False if something that the study needs is missing.

    Args:
        study: The configuration.
        backbones: Whether to build each backbone, which takes a minute or two for the full study.
    """
    findings = [*_python(), *_torch(study), *_disk(study), *_slurm(study), *_data(study)]
    findings += _backbones(study) if backbones else []
    table = Table("", "check", "result", box=None, pad_edge=False)
    for finding in findings:
        text = finding.text.encode("utf-8", "backslashreplace").decode()  # names of files may hold any bytes
        table.add_row(_MARKS[finding.verdict], finding.what, escape(text))
    wide_console().print(table)
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
    except (ImportError, OSError) as error:
        yield Finding("torch", "missing", f"{error}; run `make` in the checkout")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, built for CUDA {torch.version.cuda or 'none (CPU only)'}")
    if not torch.cuda.is_available():
        verdict, text = _no_gpu(torch.version.cuda)
        needed = {"cpu": "note", "cuda": "missing"}
        yield Finding("GPU", needed.get(study.compute.device, verdict), text)  # type: ignore[arg-type]
        return
    for i in range(torch.cuda.device_count()):
        try:
            torch.ones(1, device=f"cuda:{i}").add_(1).item()
            memory = torch.cuda.get_device_properties(i).total_memory / 1e9
            yield Finding(f"GPU {i}", "ok", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GB")
        except RuntimeError as error:
            yield Finding(f"GPU {i}", "missing", f"torch cannot compute on it: {str(error).strip().splitlines()[0]}")


def _no_gpu(built: str | None) -> tuple[Verdict, str]:
    """Why torch, built for this version of CUDA (None: CPU only), sees no GPU, and what to do."""
    answer, failure = _nvidia_smi()
    if failure:
        return "note", f"none ({failure}); run train and predict jobs on GPU nodes"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not re.match(r"\s*(\d|GPU-|MIG-)", hidden):
        return "missing", f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU from torch; unset it"
    version = re.search(r"CUDA[\w ]* Version\s*:\s*((\d+)(\.\d+)*)", answer)
    if version is None:
        return "missing", (
            "nvidia-smi runs but shows no CUDA version, so CUDA programs cannot use the driver. Update the driver; in "
            "a container, pass the GPU and libcuda on (docker run --gpus all, apptainer --nv)"
        )
    driver, major = version[1], version[2]
    if built is not None and int(built.partition(".")[0]) <= int(major):
        return "missing", (
            f"the driver (CUDA {driver}) supports this torch (CUDA {built}), but torch sees no GPU: look at "
            f"`nvidia-smi -L` and at CUDA_VISIBLE_DEVICES ({hidden!r}), and ask Slurm or the container for a GPU"
        )
    wrong = f"torch is built for CUDA {built or 'none'}, but the driver supports CUDA {driver}. "
    if int(major) < min(map(int, _BUILDS)):
        return "missing", wrong + "Update the driver; no build of torch supports it"
    build = _BUILDS.get(major, max(_BUILDS.values()))
    return "missing", f"{wrong}Reinstall torch for this driver: make TORCH_BACKEND={build}"


def _nvidia_smi() -> tuple[str, str]:
    """Output of nvidia-smi, and why there is none ("" if there is)."""
    try:
        process = subprocess.Popen(["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    except OSError:
        return "", "no nvidia-smi"
    try:
        answer, _ = process.communicate(timeout=_NVIDIA_SMI_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with process.stdout, contextlib.suppress(subprocess.TimeoutExpired):  # type: ignore[union-attr]  # is a pipe
            process.wait(timeout=1)  # a driver that hangs can even keep it from ending
        return "", f"nvidia-smi gave no answer within {_NVIDIA_SMI_S} s: the driver hangs, restart the machine"
    reason = next(iter(answer.split("\n")), "").strip()
    return answer, f"nvidia-smi fails: {reason or f'exit code {process.returncode}'}" if process.returncode else ""


def _backbones(study: Study) -> Iterator[Finding]:
    """Builds each backbone on the CPU: seconds each, and up to a minute for large ones."""
    try:
        from luab.commands.backbones import check_backbone
    except (ImportError, OSError):  # torch or timm is missing, as another finding says
        return
    last = {(run.dataset, run.backbone): run for run in study.runs()}
    for (dataset, backbone), run in last.items():
        try:
            check_backbone(study, run)
            yield Finding(f"{backbone} on {dataset}", "ok", "can be trained, and has the score maps of its suites")
        except LuabError as error:
            yield Finding(f"{backbone} on {dataset}", "missing", str(error))


def _disk(study: Study) -> Iterator[Finding]:
    for name, path in (("data", study.paths.data), ("results", study.paths.results)):
        existing = next(folder for folder in (path.resolve(), *path.resolve().parents) if os.path.exists(folder))
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
    if study.folder:
        yield Finding("own images", *_images(study, OWN[0], study.folder.images))
    if study.backbones:
        yield from _of_imagenet(study)
    for name, folder in paths.copies.items():
        if name not in (*FROM_COCO, VOC, "imagenet_train", "imagenet_val", "imagenet_real"):
            yield Finding(name, *_images(study, name, folder))
    read = {entry.data for entry in study.transfer.values()} | set(study.parts)
    for data, check in {"coco": _coco, VOC: _voc}.items():
        if data in read:
            yield check(study)
    if study.backbones or study.coco or study.transfer:
        yield _downloads(study)


def _of_imagenet(study: Study) -> Iterator[Finding]:
    yield _imagenet(study)
    for name in ("imagenet_sketch", "objectnet"):
        if name not in study.paths.copies:
            advice = f"needs your own copy: set paths.copies.{name} (see {study.paths.archives})"
            yield Finding(name, "note", advice)


def _downloads(study: Study) -> Finding:
    """Compares the cards of downloads and of unpacked trees with what is there."""
    from luab.fetch.verify import archived

    archives, raw = study.layout.archive_folder(), study.layout.raw_folder("coco").parent
    cards = sorted(archives.glob("*.json"))
    trees = [card for card in sorted(raw.glob("*.json")) if not card.with_suffix("").is_dir()]
    try:
        lost = [card for card in cards if not archived(archives, card)[0].is_file()]
    except LuabError as error:
        return Finding("archives", "missing", str(error))
    if gone := [*trees, *lost]:
        text = f"{len(gone)} cards without their file or folder: remove {', '.join(map(str, gone))} and run again"
        return Finding("archives", "missing" if trees else "note", text)
    return Finding("archives", "ok" if cards else "note", f"{len(cards)} downloaded and verified in {archives}")


def _imagenet(study: Study) -> Finding:
    folders = {name: own_copy(study, name) for name in ("imagenet_train", "imagenet_val")}
    if None in folders.values():
        return Finding("ImageNet", "missing", "set paths.imagenet to a folder with train/<wnid>/ and val/")
    return _together("ImageNet", [_images(study, name, folder) for name, folder in folders.items() if folder])


def _coco(study: Study) -> Finding:
    named = {name: folder for name in FROM_COCO if (folder := study.paths.copies.get(name)) is not None}
    if not named:
        return Finding("COCO", "ok", "will be downloaded (21 GB), or set paths.copies; see docs/full-study.md")
    results = [_images(study, name, folder) for name, folder in named.items()]
    lacking: list[tuple[Verdict, str]] = [
        ("missing", f"set paths.copies.{name} too") for name in FROM_COCO if name not in named
    ]
    return _together("COCO", results + lacking)


def _voc(study: Study) -> Finding:
    """Reads the lists, boxes and masks that the fine-tunings on VOC need; takes seconds."""
    folder = own_copy(study, VOC)
    if folder is None:
        return Finding("VOC", "ok", "will be downloaded (2.9 GB), or set paths.copies.voc")
    from luab.data.dense.dense_sets import dense_set

    tasks = sorted({entry.task for entry in study.transfer.values() if entry.data == "voc"})
    try:
        sizes = [len(dense_set(study, "voc", split, task)) for task in tasks for split in ("train", "val")]
    except LuabError as error:
        return Finding("VOC", "missing", str(error))
    texts = (f"{task} {n:,} + {m:,} images" for task, n, m in zip(tasks, sizes[::2], sizes[1::2], strict=True))
    return Finding("VOC", "ok", f"{folder}: {', '.join(texts)}")


def _together(what: str, results: list[tuple[Verdict, str]]) -> Finding:
    """One line for several data sets: those with the worst verdict."""
    worst = max((verdict for verdict, _ in results), key=list(_MARKS).index)
    return Finding(what, worst, "; ".join(dict.fromkeys(text for verdict, text in results if verdict == worst)))


def _images(study: Study, name: str, folder: Path) -> tuple[Verdict, str]:
    """Lists a data set's images as `luab manifest` does, and opens a sample; takes seconds for a million images."""
    from luab.data.images.image_files import open_image
    from luab.data.manifests.layouts import image_paths
    from luab.data.manifests.tree import Tree

    lists = study.folder.labels if study.folder and name in OWN else None
    tree = Tree(name, folder, study.paths.partial, lists=lists, thorough=False)
    try:
        with tree.reading():
            tree.require("")
            images = list(image_paths(tree))
        tree.check_readable()
        if not images:
            raise tree.nothing()
        difference = tree.difference(len(images))
        if difference and not tree.partial:
            raise DataError(difference)
        for path in images[:: -(-len(images) // _SAMPLE)]:
            open_image(folder / path, name)
    except LuabError as error:
        return "missing", str(error)
    return "note" if difference else "ok", difference or f"{folder}: {len(images):,} images of {name}"
