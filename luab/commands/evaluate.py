"""`luab evaluate`: scores any timm checkpoint on benchmarks of the study, or on a folder of images."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from huggingface_hub import hf_hub_download
from rich import box
from rich.table import Table

from luab.benchmarks.catalogue import find_benchmark, test_sets_of
from luab.benchmarks.score import score
from luab.commands.sanity import Expected, has_data, manifests_of, read_expected, view_of
from luab.data.manifests.folder_images import image_id, own_images
from luab.data.manifests.labels import wnids
from luab.data.manifests.manifest import SCHEMA
from luab.data.manifests.testsets import TEST_SETS
from luab.data.manifests.tree import Tree
from luab.errors import ConfigError, DataError, did_you_mean, listed
from luab.files import file_sha256, read_json, replacing, write_json
from luab.model import LuabModel, build_model
from luab.predict import Predictor
from luab.progress import wide_console
from luab.study.config import Recipe, Study, own_folder, parse_study
from luab.study.paths import card
from luab.study.roots import source_root
from luab.training.checkpoint import read_card
from luab.training.pretrained import classifier_prefixes, download, is_of_luab, put_into, read_backbone

_HUB = "hf-hub:"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
FOLDER = "folder_val"
"""The benchmark of a folder of images."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights to evaluate: a safetensors file, its timm model, and what config.json next to it says ({} without)."""

    file: Path
    backbone: str
    described: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Names the folder of its results: the backbone and the beginning of the file's SHA-256."""
        return f"{self.backbone.replace('/', '_')}-{file_sha256(self.file)[:8]}"


class Number(NamedTuple):
    """One number, as a fraction, with n images; published and its tolerance are in percent, None without."""

    benchmark: str
    metric: str
    value: float
    n: int
    published: Expected | None


def find_checkpoint(name: str, backbone: str | None) -> Checkpoint:
    """Finds a safetensors file, or downloads weights of timm (resnet50.tv_in1k) or of the hub (hf-hub:owner/name).

    Args:
        name: Path, name in timm with tag, or name on the hub.
        backbone: timm model; None where the name, a card of luab in the file or config.json next to it has it.

    Raises:
        ConfigError: Nothing says which model the weights are of, or timm does not know it.
        DataError: There is no such file, or it is a pickle, which is never loaded.
    """
    file = Path(name)
    if name.startswith(_HUB):
        file = _from_hub(name.removeprefix(_HUB))
    elif not file.is_file():
        if file.suffix == ".safetensors" or file.suffix in _PICKLES or len(file.parts) > 1:
            raise DataError(f"{file}: expected a checkpoint, found no such file. Correct the path.")
        return Checkpoint(download(name), backbone or name, {})
    if file.suffix in _PICKLES:
        raise DataError(
            f"{file}: expected a safetensors file; luab unpickles no weights, since a pickle can run any program. "
            "Convert weights that you trust once: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            '"model.safetensors").'
        )
    config = file.with_name("config.json")
    described = read_json(config) if config.is_file() else {}
    described = described if "pretrained_cfg" in described else {}
    known = read_card(file).get("run", {}).get("backbone") if is_of_luab(file) else described.get("architecture")
    if not (backbone or known):
        raise ConfigError(
            f"{file}: nothing says which model these weights are of. Pass --backbone with timm's name, for example "
            "--backbone resnet50.tv_in1k; the tag chooses the preprocessing."
        )
    return Checkpoint(file, backbone or str(known), described)


def _from_hub(name: str) -> Path:
    for part in ("config.json", "model.safetensors"):
        try:
            file = Path(hf_hub_download(name, part))
        except Exception as error:  # the errors of the hub's HTTP library depend on its version
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise DataError(
                f"{_HUB}{name}: could not fetch {part} ({reason}). Check the name and the network."
            ) from error
    return file


def study_of_folder() -> Study:
    """A study that has only what evaluating a folder of images needs, for use outside a checkout."""
    section = json.loads(own_folder({"images": ".", "byproducts": "."}, "resnet18").model_dump_json())
    recipe = {"epochs": 9, "batch_size": 1, "input_px": 224, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0}
    nothing: dict[str, Any] = {"backbones": [], "supervisions": ["none"], "suites": [], "seeds": [0]}
    cores = os.cpu_count() or 1
    compute = {"workers": min(8, cores // 2), "threads": cores}
    return parse_study(nothing | {"folder": section, "recipes": {"own_scratch": recipe}, "compute": compute})


def evaluate(
    study: Study,
    checkpoint: Checkpoint,
    only: Sequence[str] = (),
    images: Path | None = None,
    expected: Path | None = None,
    out: Path | None = None,
) -> tuple[list[Number], list[str], Path]:
    """Predicts and scores like a run of the study, without its byproduct head.

    Args:
        study: Its data paths and compute are used, and by default its benchmarks.
        checkpoint: From `find_checkpoint`.
        only: Names of benchmarks; empty for all of the study that fit the model's classes and have a manifest.
        images: A folder <class>/*.jpg (or train/ and val/, of which val/ is used) instead of benchmarks.
        expected: Table of published numbers, with those of any models; None for none.
        out: Folder for predictions and scores; by default results/evaluated/<model and digest of its weights>.

    Returns:
        The numbers, headlines first; benchmarks of the study that were left out; the folder of the results.

    Raises:
        ConfigError: A benchmark is unknown or does not fit the model, or the model needs a preprocessing that luab does
            not have.
        DataError: Weights, images or manifests are missing or damaged.
    """
    if images is not None and only:
        raise ConfigError("--images and --benchmark exclude each other: a folder has one benchmark.")
    published = read_expected(expected) if expected else []
    tensors = read_backbone(checkpoint.file)
    recipe, preprocessing = view_of(study, checkpoint.backbone, checkpoint.file, checkpoint.described)
    classes = _classes(checkpoint, recipe, tensors)
    out = out or study.paths.results / "evaluated" / checkpoint.name
    if images is not None:
        study = _with_folder(study, checkpoint, images, classes, out)
    benchmarks, left_out = ([FOLDER], []) if images is not None else _chosen(study, only, classes)

    def load(recipe: Recipe) -> LuabModel:
        model = build_model(checkpoint.backbone, recipe, outputs=0, classes=classes)
        put_into(model.backbone, tensors, f"{checkpoint.file}: expected the weights of {checkpoint.backbone}")
        return model

    predictor = Predictor(study, recipe, load, preprocessing)
    predictor.write(out / "predictions", test_sets_of(benchmarks))
    identity = {
        "dataset": TEST_SETS[test_sets_of(benchmarks)[0]].dataset, "backbone": checkpoint.backbone,
        "supervision": "checkpoint", "lambda": 0.0, "seed": 0,
    }  # fmt: skip
    roots = {root: source_root(study, root) for name in benchmarks for root in find_benchmark(name).roots}
    files = score(
        benchmarks, out / "predictions", study.layout.manifest_folder(), identity, out / "scores",
        recipe.input_px, recipe.crop_pct, study.compute.threads, roots,
        study.layout.target_folder(),
    )  # fmt: skip
    scores = {name: read_json(file) for name, file in zip(benchmarks, files, strict=True)}
    write_json(out / "checkpoint.json", {
        "file": checkpoint.file.name, "sha256": file_sha256(checkpoint.file), "backbone": checkpoint.backbone,
        "classes": classes, "input_px": recipe.input_px, "crop_pct": recipe.crop_pct,
        "preprocessing": preprocessing.model_dump(mode="json"),
    })  # fmt: skip
    return list(_numbers(scores, checkpoint.backbone, published)), left_out, out


def _numbers(scores: Mapping[str, dict[str, Any]], backbone: str, published: Iterable[Expected]) -> Iterable[Number]:
    known = {(row.benchmark, row.metric): row for row in published if row.model == backbone}
    for name, content in scores.items():
        headline = find_benchmark(name).headline
        for metric in sorted(content["metrics"], key=lambda metric: metric != headline):
            yield Number(name, metric, content["metrics"][metric], content["n"], known.get((name, metric)))


def _classes(checkpoint: Checkpoint, recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> int:
    """Number of classes of the weights, by the shape of their classifier."""
    model = build_model(checkpoint.backbone, recipe, outputs=0)
    for prefix in classifier_prefixes(model.backbone):
        for name, tensor in tensors.items():
            if name.startswith(prefix) and name.endswith("weight") and tensor.ndim > 1:
                return int(tensor.shape[0])
    return int(recipe.model_kwargs.get("num_classes", 1000))  # loading says what is wrong


def _chosen(study: Study, only: Sequence[str], classes: int) -> tuple[list[str], list[str]]:
    """The benchmarks to score, and those that fit the model but have no data."""
    if only:
        names = [find_benchmark(name).name for name in only]
        if missing := [name for name in names if not has_data(study, name)]:
            raise DataError(
                f"{study.layout.manifest_folder()}: no manifests for {', '.join(missing)}. Make them with "
                f"{_make_manifests(study, missing)}; ImageNet's need `paths.imagenet`."
            )
        return names, []
    fitting = [name for part in study.parts.values() for name in part.benchmarks if _fits(name, classes)]
    ready = [name for name in fitting if has_data(study, name)]
    if not ready:
        raise DataError(
            f"{study.layout.manifest_folder()}: no manifest for a benchmark of a model with {classes:,} classes. Make "
            f"those of the study with {_make_manifests(study, fitting) or '`snakemake prepared`'}, or pass --images "
            "with a folder of images by class."
        )
    return ready, [name for name in fitting if name not in ready]


def _fits(benchmark: str, classes: int) -> bool:
    if find_benchmark(benchmark).targets:
        return False  # others may have trained on the images that this study holds out
    return all(TEST_SETS[name].outputs == classes for name in find_benchmark(benchmark).test_sets)


def _make_manifests(study: Study, benchmarks: Iterable[str]) -> str:
    wanted = [name for benchmark in benchmarks for name in manifests_of(benchmark)]
    missing = [name for name in dict.fromkeys(wanted) if not study.layout.manifest(name).is_file()]
    cards = " ".join(str(card(study.layout.manifest(name))) for name in missing)
    return f"`snakemake --cores 4 {cards}`" if cards else ""


def _names(checkpoint: Checkpoint, classes: int, found: Sequence[str], images: Path) -> Sequence[str]:
    """The classes of the model in the order of its outputs, by the names of the folders.

    Raises:
        DataError: Folders do not have these names, or nothing says which folder is which output.
    """
    described = checkpoint.described.get("label_names")
    names = described if isinstance(described, list) else list(wnids()) if classes == len(wnids()) else None
    if names is None:
        if len(found) == classes:
            return found  # in the order of their names, as torchvision and timm number folders
        raise DataError(
            f"{images}: the model has {classes:,} classes and the folder {len(found):,}, so nothing says which folder "
            "is which output. Add empty folders for missing classes, or put config.json with `label_names` next to the "
            "checkpoint."
        )
    if wrong := [f"{name}: {did_you_mean(name, names)}" for name in found if name not in names]:
        where = "config.json next to the checkpoint" if described else "ImageNet's wnids, such as n01440764"
        raise DataError(f"{images}: expected folders named by the classes of {where}; found others:\n{listed(wrong)}")
    return names


def _with_folder(study: Study, checkpoint: Checkpoint, images: Path, classes: int, out: Path) -> Study:
    """Lists the images of a folder in a manifest of its own, and returns a study that reads it."""
    tree = Tree(FOLDER, images)
    with tree.reading():
        found = [image for image in own_images(tree) if image.split != "train"]
        folders = sorted({image.label for image in found} | set(_class_folders(tree)))
    number = {name: place for place, name in enumerate(_names(checkpoint, classes, folders, images))}
    rows = [
        {"image_id": image_id(image.path), "path": image.path, "labels": [number[image.label]], "group": image.label}
        for image in found
    ]
    study = study.model_copy(
        update={
            "paths": study.paths.model_copy(update={"data": out}),
            "folder": own_folder({"images": images, "byproducts": images}, checkpoint.backbone),
        }
    )
    with replacing(study.layout.manifest(FOLDER)) as aside:
        pq.write_table(pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["image_id"])), SCHEMA), aside)
    return study


def _class_folders(tree: Tree) -> list[str]:
    """Names of the folders, empty ones too."""
    folders = tree.folders("")
    return tree.folders("val") if {"train", "val"} <= set(folders) else folders


def print_numbers(
    numbers: Sequence[Number], left_out: Sequence[str], out: Path, checkpoint: Checkpoint, label: str = ""
) -> None:
    """Prints the numbers as a table, and below it the protocol of each benchmark and what was left out."""
    title = f"{checkpoint.backbone}, {checkpoint.file.name}{f' ({label})' if label else ''}"
    table = Table(title=title, box=box.HORIZONTALS, collapse_padding=True, pad_edge=False, show_edge=False)
    compared = any(number.published for number in numbers)
    headings = ["benchmark", "metric", "%", "n", *(["published", "differs by"] if compared else [])]
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("benchmark", "metric") else "right")
    for benchmark, metric, value, n, known in numbers:
        beside = [f"{known.value:.2f}", f"{100 * value - known.value:+.2f}"] if known else ["–", "–"]
        table.add_row(benchmark, metric, f"{100 * value:.2f}", f"{n:,}", *(beside if compared else []))
    console = wide_console()
    console.print(table)
    for name in dict.fromkeys(number.benchmark for number in numbers):
        console.print(f"{name}: {read_json(out / 'scores' / f'{name}.json')['protocol']}", style="dim", markup=False)
    if compared:
        sources = dict.fromkeys(number.published.source for number in numbers if number.published)
        console.print(f"Published, of {checkpoint.backbone}: {'; '.join(sources)}", style="dim", markup=False)
    if left_out:
        console.print(f"No data for {', '.join(left_out)}.", markup=False)
    console.print(f"Predictions and scores: {out}", markup=False)
