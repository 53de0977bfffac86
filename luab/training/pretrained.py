"""Initial weights of a backbone, from timm's collection or from another run; safetensors files only."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.data import resolve_data_config
from timm.models import PretrainedCfg
from torch import nn

from luab.errors import ConfigError, DataError
from luab.files import read_json
from luab.model import classifiers_of
from luab.study.recipes import BeginsWith, Preprocessing
from luab.training.checkpoint import preprocessing_in, read_card, tensor_difference

_HEADS = ("backbone.", "byproduct.", "pool.")


def download(backbone: str) -> Path:
    """Downloads a model of timm's collection from the Hugging Face hub, or finds it in the hub's cache.

    Returns:
        Path of model.safetensors.

    Raises:
        ConfigError: timm has no such model or tag.
        DataError: timm has no weights for this model, or the download failed.
    """
    name = config_of(backbone).hf_hub_id
    reason, cause = "timm has no weights for it", None
    if name:
        try:
            return Path(hf_hub_download(name, "model.safetensors"))
        except Exception as error:  # the errors of the hub's HTTP library depend on its version
            reason, cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", error
    raise DataError(
        f"{backbone}: its weights are not in the hub's cache and could not be fetched ({reason}). Copy "
        f"model.safetensors of {name or 'the model'} here and pass it with --weights."
    ) from cause


def config_of(backbone: str) -> PretrainedCfg:
    """Returns timm's description of pretrained weights; of the default tag if the name has none.

    Raises:
        ConfigError: timm has no such model or tag.
    """
    try:
        config = timm.get_pretrained_cfg(backbone)
    except RuntimeError:  # unknown tag
        config = None
    if config is None:
        raise ConfigError(
            f"{backbone!r}: timm {timm.__version__} has no such weights. `timm.list_pretrained()` lists their names, "
            "for example resnet50.tv_in1k."
        )
    return config


def preprocessing_of(backbone: str) -> Preprocessing:
    """Returns mean, standard deviation, interpolation and size of the images that timm's weights of a model need.

    Raises:
        ConfigError: timm has no such weights, or they need a preprocessing that luab does not have.
    """
    config = config_of(backbone)
    needed = resolve_data_config(pretrained_cfg=config.to_dict())
    return preprocessing_from(needed, f"{config.architecture}.{config.tag}".rstrip("."), backbone)


def preprocessing_from(needed: Mapping[str, Any], weights: str, what: str) -> Preprocessing:
    """Returns the preprocessing in a dict as `timm.data.resolve_data_config` returns it.

    Args:
        needed: With mean, std, interpolation, crop_pct and input_size.
        weights: Name of the weights, which the preprocessing keeps.
        what: Whose preprocessing it is, for the error message.

    Raises:
        ConfigError: luab does not have this preprocessing.
    """
    kept = {name: needed[name] for name in ("mean", "std", "interpolation", "crop_pct")}
    try:
        return Preprocessing(**kept, weights=weights, input_px=needed["input_size"][-1])
    except ValidationError as error:
        raise ConfigError(
            f"{what}: its weights need {kept}; luab supports bilinear and bicubic interpolation and three colours. "
            "Choose other weights."
        ) from error


def name_of(weights: str, backbone: str) -> str:
    """timm's name of pretrained weights, from `begins_with.timm`: a name, a tag of the backbone, or "backbone"."""
    if weights == "backbone":
        return backbone
    return weights if timm.is_model(weights.partition(".")[0]) else f"{backbone.partition('.')[0]}.{weights}"


def first_weights(begins: BeginsWith, backbone: str, default: Preprocessing) -> tuple[Path, str, Preprocessing]:
    """Finds or downloads the weights of timm or of a file that a training begins with.

    A file's preprocessing is that of luab's card in it, of `timm` if given, of a config.json in timm's format next to
    it, or else `default`.

    Returns:
        The file, what it is for error messages, and the preprocessing of the images that its weights need.

    Raises:
        ConfigError: timm has no such weights, or they need a preprocessing that luab does not have.
        DataError: The file is missing, timm has no weights for this model, or the download failed.
    """
    name = name_of(begins.timm, backbone) if begins.timm else ""
    if begins.file is None:
        return download(name), f"timm's weights of {name}", preprocessing_of(name)
    file, what = begins.file, f"the weights of {name or backbone}"
    if not file.is_file():
        raise DataError(f"{file}: expected {what}, as `begins_with` in the recipe says, found no file.")
    if is_of_luab(file):
        return file, what, preprocessing_in(read_card(file), file)
    if name:
        return file, what, preprocessing_of(name)
    config = file.with_name("config.json")
    described = read_json(config).get("pretrained_cfg") if config.is_file() else None
    if described:
        return file, what, preprocessing_from(resolve_data_config(pretrained_cfg=described), file.name, str(config))
    print(
        f"{file}: nothing says which images these weights were trained on; ImageNet's mean and deviation are used. "
        "`timm` in `begins_with` next to `file` names weights of timm with the same preprocessing.",
        file=sys.stderr,
    )
    return file, what, default


def is_of_luab(file: Path) -> bool:
    """Whether a file contains weights that luab trained, with a card."""
    try:
        with safe_open(file, framework="pt") as opened:
            return "luab" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_backbone(file: Path) -> dict[str, torch.Tensor]:
    """Reads a backbone's tensors by their timm names, from a file of timm or of a run (without luab's heads).

    Raises:
        DataError: The file is damaged or not a safetensors file.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: expected a safetensors file, could not read it ({error}).") from error
    if all(name.startswith(_HEADS) for name in tensors):
        return {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
    return tensors


def put_into(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], what: str, new_classifier: bool = False) -> None:
    """Loads tensors into a backbone that must have exactly these names and shapes.

    Args:
        backbone: A timm classifier.
        tensors: From `read_backbone`; floating-point numbers of any width.
        what: File and expected model, for the error message: "<file>: expected the weights of <model>".
        new_classifier: Whether the backbone keeps its own classifier, whatever its size.

    Raises:
        DataError: The tensors belong to another model.
    """
    skipped = classifier_prefixes(backbone) if new_classifier else ()
    expected = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith(skipped)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(skipped)}
    if difference := tensor_difference(expected, weights, loaded_from_elsewhere=True):
        raise DataError(f"{what}, found another model's: {difference}.")
    with torch.no_grad():
        backbone.load_state_dict(weights, strict=False)


def classifier_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of all tensors whose shape depends on the number of classes, as timm lists them."""
    listed = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    names = {listed} if isinstance(listed, str) else set(listed)
    if not names:
        classifiers = classifiers_of(backbone)
        names = {name for name, module in backbone.named_modules() if any(module is one for one in classifiers)}
    return tuple(f"{name}." for name in sorted(names))
