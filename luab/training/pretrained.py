"""Weights that others trained, or that another run of the study did, put into a backbone: safetensors alone."""

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from luab.errors import DataError
from luab.training.checkpoint import kinds

_HEADS = ("backbone.", "byproduct.")


def download(backbone: str) -> Path:
    """The safetensors file of timm's collection, from the hub's cache where it is there.

    Raises:
        DataError: It cannot be had.
    """
    config = timm.get_pretrained_cfg(backbone)
    name = config.hf_hub_id if config is not None else None
    reason, cause = "timm names no weights for it", None
    if name:
        try:
            return Path(hf_hub_download(name, "model.safetensors"))
        except Exception as error:  # the hub's client lets those of its HTTP library through, another one by version
            reason, cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", error
    raise DataError(
        f"{backbone}: its weights are not in the hub's cache and could not be fetched ({reason}). Copy "
        f"model.safetensors of {name or 'the model'} here and pass it by --weights."
    ) from cause


def read_backbone(file: Path) -> dict[str, torch.Tensor]:
    """A backbone's tensors by timm's names, from a file of timm or of a run, whose byproduct head is left out.

    Raises:
        DataError: It is no safetensors file, or damaged.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: expected a safetensors file, could not read it ({error}).") from error
    if all(name.startswith(_HEADS) for name in tensors):
        return {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
    return tensors


def put_into(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], what: str, new_classifier: bool = False) -> None:
    """Loads tensors into a backbone that must have exactly these, in name and shape.

    Args:
        backbone: A timm classifier.
        tensors: From `read_backbone`; floating point of any width.
        what: Names the file and the model that it should be of, for the message: "<file>: ... of <model>".
        new_classifier: Whether the backbone keeps its own classifier, of whatever size.

    Raises:
        DataError: The tensors are another model's.
    """
    new = _classifier_prefix(backbone) if new_classifier else None
    wanted = {name: tensor for name, tensor in backbone.state_dict().items() if new is None or not name.startswith(new)}
    given = {name: tensor for name, tensor in tensors.items() if new is None or not name.startswith(new)}
    expected, found = kinds(wanted, any_float=True), kinds(given, any_float=True)
    # Counters of batches seen; files of old checkpoints lack them and evaluation never reads them.
    wrong = sorted(
        name for name in expected.keys() | found.keys()
        if expected.get(name) != found.get(name) and not name.endswith("num_batches_tracked")
    )  # fmt: skip
    if wrong:
        raise DataError(
            f"{what}, found another model's: {len(wrong)} tensors differ, first "
            f"{wrong[0]!r} (expected {expected.get(wrong[0], 'none')}, found {found.get(wrong[0], 'none')})."
        )
    with torch.no_grad():
        backbone.load_state_dict(given, strict=False)


def _classifier_prefix(backbone: nn.Module) -> str:
    classifier = backbone.get_classifier()  # type: ignore[operator]
    return next(f"{name}." for name, module in backbone.named_modules() if module is classifier)
