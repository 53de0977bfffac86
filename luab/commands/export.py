"""`luab export`: writes a trained model as a folder that timm loads without luab, in the Hugging Face Hub layout."""

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import ModelCardData
from pydantic import ValidationError
from safetensors.torch import save
from timm.models._hub import save_config_for_hf
from torch import nn

from luab.commands.templates import fill_in
from luab.data.manifests.known_counts import KNOWN_COUNTS
from luab.errors import ConfigError, DataError
from luab.files import file_sha256, read_json, replacing_folder, write_json
from luab.model import LuabModel, build_model
from luab.study.config import Recipe, Study
from luab.study.paths import Run
from luab.study.recipes import BeginsWith, Preprocessing
from luab.tasks import Outputs, Task, task_of
from luab.training.checkpoint import check_weights, load_model, preprocessing_in
from luab.training.pretrained import name_of

MODEL, HEAD, CONFIG, CARD, README = (
    "model.safetensors", "byproduct_head.safetensors", "config.json", "luab.json", "README.md",
)  # fmt: skip

_FROM_RUN_JSON = (
    "run", "recipe", "inputs", "images", "points", "final", "seconds", "images_per_s", "attempts", "device",
    "preprocessing", "processes", "code", "commit", "versions", "hardware", "model_sha256",
)  # fmt: skip
"""Keys of run.json that are exported; others are not, because they may contain paths or secrets."""

# Parts of timm's configuration that hold for any weights. Tag, licence, papers and url describe timm's own weights.
_OF_ARCHITECTURE = ("architecture", "classifier", "first_conv", "fixed_input_size", "min_input_size")


def export(study: Study, run: Run, out: Path) -> Path:
    """Writes model.safetensors, config.json, README.md, luab.json and, if there is one, the byproduct head.

    Args:
        study: The study with the run's results; for runs of older versions, whose run.json does not have them, also
            its `label`, which marks all numbers, and the outputs of the model.
        run: A finished run; exported with the recipe that it was trained with.
        out: Output folder, new or empty; written all or nothing.

    Returns:
        The output folder.

    Raises:
        ConfigError: The output folder is not empty.
        DataError: The training is not finished, or its files are damaged or belong to another run.
        JobError: The disk is full, or the folder is not writable.
    """
    out = Path(os.path.abspath(out))
    _check_free(out)
    source = study.layout.run(run)
    result = finished(source, run)
    recipe = _recipe(source, result)
    task = task_of(run.dataset)
    outputs = Outputs(**result["outputs"]) if "outputs" in result else task.outputs(study, run)
    names = {"label_names": result["label_names"]} if "label_names" in result else task.names(study)
    if outputs.use.startswith("pooling"):
        raise ConfigError(
            f"{run.folder}: expected a model with timm's own pooling, found `use: pooling`, which timm cannot load. "
            "Export a run with another use."
        )
    model = build_model(run.backbone, recipe, outputs.points, outputs.classes, outputs.use)
    load_model(source / MODEL, model, run.identity())
    model.eval()
    scores = scores_of(source, run, result["model_sha256"])
    with replacing_folder(out) as aside:
        _write_tensors(aside / MODEL, model.backbone)
        if model.byproduct is not None:
            _write_tensors(aside / HEAD, model.byproduct)
        preprocessing = preprocessing_in(result, source / "run.json")
        write_config(aside / CONFIG, model.backbone, names, run, recipe, preprocessing)
        card = {key: result[key] for key in _FROM_RUN_JSON if key in result}
        card |= {
            "label": result.get("label", study.label),
            "luab": importlib.metadata.version("luab"),
            "scores": scores,
        }
        card["files"] = {path.name: file_sha256(path) for path in sorted(aside.glob("*.safetensors"))}
        write_json(aside / CARD, card)
        (aside / README).write_text(readme(run, recipe, model, card), encoding="utf-8")
    return out


def finished(folder: Path, run: Run) -> dict[str, Any]:
    """Content of run.json of a finished run.

    Raises:
        DataError: run.json is missing, incomplete or of another run, or the weights do not match it.
    """
    card, weights = folder / "run.json", folder / MODEL
    if not card.is_file() or not weights.is_file():
        raise DataError(
            f"{folder}: the training is not finished; expected run.json and {MODEL}, found {_listing(folder)}. "
            f"Resume it with `luab train {run.folder}`."
        )
    result = read_json(card)
    identity = result.get("run") if isinstance(result, dict) else result
    if identity != run.identity():
        raise DataError(f"{card}: expected the run {run.identity()}, found {identity}. Train this run again.")
    if missing := [key for key in ("recipe", "images", "points", "model_sha256") if key not in result]:
        raise DataError(f"{card}: {', '.join(missing)} is missing. Train this run again.")
    check_weights(weights, result["model_sha256"])
    return dict(result)


def scores_of(folder: Path, run: Run, model_sha256: str) -> dict[str, dict[str, Any]]:
    """Metrics (fractions), protocol and n of each scored benchmark; empty if nothing was scored.

    Raises:
        DataError: A file is damaged, or scores or predictions belong to another model.
    """
    for path in sorted((folder / "predictions").glob("*.json")):
        if read_json(path).get("model_sha256") != model_sha256:
            raise DataError(
                f"{path}: these predictions were made with other weights than {folder / MODEL}, and so were the "
                f"scores. Predict and score again: `luab predict {run.folder} {path.stem}`."
            )
    scores = {}
    for path in sorted((folder / "scores").glob("*.json")):
        content = read_json(path)
        if content.get("run") != run.identity():
            raise DataError(f"{path}: expected scores of {run.identity()}, found another run. Score this run again.")
        scores[path.stem] = {key: content[key] for key in ("metrics", "protocol", "n")}
    return scores


def write_config(
    path: Path,
    backbone: nn.Module,
    names: Mapping[str, Any],
    run: Run,
    recipe: Recipe,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Writes config.json in timm's format for the hub: architecture, arguments, classes and luab's preprocessing.

    Args:
        path: Output file.
        backbone: The timm model, built with the recipe.
        names: Names of the classes, from `Task.names`.
        run: The run; its dataset decides classes and preprocessing.
        recipe: Recipe with input_px, crop_pct and model_kwargs.
        preprocessing: Of the run; None for ImageNet's.
    """
    preprocessing = preprocessing or Preprocessing()
    kept: dict[str, Any] = {key: value for key, value in backbone.pretrained_cfg.items() if key in _OF_ARCHITECTURE}  # type: ignore[union-attr,operator]
    backbone.pretrained_cfg = kept | {  # type: ignore[assignment]
        "num_classes": backbone.num_classes,
        "input_size": (3, recipe.input_px, recipe.input_px),
        "pool_size": None,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
    } | _view(run, recipe)  # fmt: skip
    save_config_for_hf(
        backbone,
        str(path),
        model_config=_classes(backbone, task_of(run.dataset), names),
        model_args=dict(recipe.model_kwargs),
    )


def _view(run: Run, recipe: Recipe) -> dict[str, Any]:
    view = task_of(run.dataset).view
    return {"crop_pct": recipe.crop_pct if view == "center" else 1.0, "crop_mode": view}


def _classes(backbone: nn.Module, task: Task, names: Mapping[str, Any]) -> dict[str, Any]:
    """Names of the outputs, in order; none if the recipe changes the number of classes."""
    named = names if backbone.num_classes == len(names["label_names"]) else {}
    return ({"problem_type": "multi_label_classification"} if task.multi_label else {}) | dict(named)


def _check_free(out: Path) -> None:
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(
            f"--out {out}: this path exists and is not an empty folder. Choose another one or remove it; nothing was "
            "changed."
        )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names) or "nothing"


def _recipe(folder: Path, result: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(result.get("recipe"))
    except ValidationError as error:
        raise DataError(
            f"{folder / 'run.json'}: this version of luab cannot read the recipe ({error.errors()[0]['msg']}). Export "
            f"with the version that trained the model, {result.get('commit')}."
        ) from error


def _write_tensors(path: Path, module: nn.Module) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={"format": "pt"}))  # required by timm and transformers


def readme(run: Run, recipe: Recipe, model: LuabModel, card: Mapping[str, Any]) -> str:
    """Text of the model card: front matter of the hub, and what a user of the weights must know.

    Args:
        run: The run that was trained.
        recipe: Its recipe.
        model: The model, for its shapes.
        card: Content of luab.json.
    """
    arguments = {"num_classes": model.backbone.num_classes} | recipe.model_kwargs
    return fill_in(
        "export.md.jinja",
        front_matter=_front_matter(run, card),
        run=run,
        recipe=recipe,
        head=model.byproduct,
        dense=model.dense,
        card={"commit": None, **card},
        task=task_of(run.dataset),
        complete=KNOWN_COUNTS.get(f"{run.dataset}_train", {}).get("n"),
        arguments=", ".join(f"{name}={value!r}" for name, value in arguments.items()),
        initial_weights=_first_weights(run, recipe.begins_with),
        files={"MODEL": MODEL, "HEAD": HEAD, "CONFIG": CONFIG, "CARD": CARD},
        torch=torch,
        timm=timm,
    )


def _first_weights(run: Run, begins: BeginsWith) -> str:
    if first := begins.first_run(run):
        return f"the weights of {first.folder}"
    if begins.timm:
        return f"timm's pretrained weights of {name_of(begins.timm, run.backbone)}"
    return f"the weights of {begins.file.name}" if begins.file else "random weights"


def _front_matter(run: Run, card: Mapping[str, Any]) -> str:
    # Without a licence: luab cannot decide the licence of weights trained on these images.
    tags = ["image-classification", "timm", "annotation-byproducts"]
    task = task_of(run.dataset)
    tags += ["multi-label-image-classification"] if task.multi_label else []
    datasets = [task.hub_name] if task.hub_name and not card["label"] else None
    data = ModelCardData(library_name="timm", pipeline_tag="image-classification", tags=tags, datasets=datasets)
    return str(data.to_yaml())
