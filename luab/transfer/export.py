"""Export of a fine-tuned network as a state dict, for torchvision's own network where it has the same one."""

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model

from luab.data.dense.dense_sets import classes_of
from luab.errors import ConfigError
from luab.files import file_sha256, read_fields, replacing_folder, write_json
from luab.study.config import Study
from luab.study.transfer_recipes import TransferRecipe
from luab.study.transfers import FineTuning
from luab.transfer.setup import Setup, setup_of

MODEL, CARD, README = "model.pth", "luab.json", "README.md"
_FROM_RUN_JSON = (
    "fine_tuning", "task", "network", "model_kwargs", "preprocessing", "recipe", "backbone_sha256", "inputs", "images",
    "final", "commit", "versions", "hardware", "model_sha256",
)  # fmt: skip
"""Keys of run.json that are exported; others are not, because they may contain paths or secrets."""

_OF_TORCHVISION = {
    ("faster_rcnn", "resnet50"): "fasterrcnn_resnet50_fpn",
    ("fcn", "resnet50"): "fcn_resnet50",
    ("fcn", "resnet101"): "fcn_resnet101",
    ("deeplabv3", "resnet50"): "deeplabv3_resnet50",
    ("deeplabv3", "resnet101"): "deeplabv3_resnet101",
}
"""torchvision's networks, by head and timm's name of the backbone."""
_UNSEEN = ("anchors_px", "aspect_ratios", "rpn_proposals")
"""Keys of a detector's recipe that change its boxes, but not the shapes of its weights."""

_PAGE = """# {setup.name}

{setup.network} on {setup.backbone}, fine-tuned with luab. {what}

```python
{imports}
network = {network}
network.load_state_dict(torch.load("model.pth", weights_only=True))
network.eval()
```

The network takes {images}. `luab.json` lists its classes; class 0 is the background.
"""
_IMPORTS = """import json

import torch

from luab.study.recipes import Preprocessing
from luab.study.transfer_recipes import TransferRecipe
from luab.transfer.networks import build

with open("luab.json", encoding="utf-8") as file:
    card = json.load(file)
"""
_LUAB = """build(
    "{task}",
    "{setup.network}",
    "{setup.backbone}",
    {setup.classes},
    TransferRecipe(**card["recipe"]),
    card["model_kwargs"],
    Preprocessing(**card["preprocessing"]),
)"""


def export(study: Study, fine_tuning: FineTuning, out: Path) -> Path:
    """Writes model.pth, a state dict that `torch.load(..., weights_only=True)` reads, luab.json and README.md.

    Where torchvision has the same network, it loads the state dict without luab and timm. README.md shows how.

    Args:
        study: The study with the results.
        fine_tuning: A finished one.
        out: Output folder, new or empty; written all or nothing.

    Returns:
        The output folder.

    Raises:
        ConfigError: The output folder is not empty.
        DataError: The fine-tuning is not finished, or its files are damaged or of another one.
        JobError: The disk is full, or the folder is not writable.
    """
    out = Path(os.path.abspath(out))
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(
            f"--out {out}: this path exists and is not an empty folder. Choose another one or remove it; nothing was "
            "changed."
        )
    setup = setup_of(study, fine_tuning)
    result = read_fields(setup.folder / "run.json", ["model_sha256", "fine_tuning"])
    name, weights = exported(setup, setup.trained_network())
    content: dict[str, Any] = {key: result[key] for key in _FROM_RUN_JSON if key in result}
    content |= {
        "label": study.label,
        "luab": importlib.metadata.version("luab"),
        "classes": ["background", *classes_of(study.transfer[fine_tuning.transfer].data)],
        "torchvision": name,
    }
    with replacing_folder(out) as aside:
        torch.save(weights, aside / MODEL)
        write_json(aside / CARD, content | {"files": {MODEL: file_sha256(aside / MODEL)}})
        (aside / README).write_text(_readme(setup, name), encoding="utf-8")
    return out


def exported(setup: Setup, network: nn.Module) -> tuple[str | None, dict[str, torch.Tensor]]:
    """Returns the state dict to export.

    Args:
        setup: The fine-tuning.
        network: Its network.

    Returns:
        torchvision's name of the same network and the weights under its names; or None and the weights under the names
        of luab's own network.
    """
    own = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    name = _OF_TORCHVISION.get((setup.network, setup.backbone.partition(".")[0]))
    if name is None:
        return None, own
    body = "backbone.body." if setup.task == "detection" else "backbone."
    weights = {body + key.removeprefix("backbone.body.model.") if ".model." in key else key: own[key] for key in own}
    theirs = get_model(name, **_arguments(setup)).state_dict()
    counters = [key for key in theirs if key.endswith("num_batches_tracked")]  # a frozen BatchNorm has none
    weights = {key: torch.tensor(0) for key in counters} | weights
    same = _shapes(weights) == _shapes(theirs) and _is_set_as_torchvision(setup)
    return (name, weights) if same else (None, own)


def _is_set_as_torchvision(setup: Setup) -> bool:
    """Whether the settings that no weight shows are those of torchvision's networks."""
    if setup.task != "detection":
        return setup.recipe.output_stride == 8
    fields = TransferRecipe.model_fields  # their defaults are torchvision's
    return all(getattr(setup.recipe, name) == fields[name].default for name in _UNSEEN)


def _arguments(setup: Setup) -> dict[str, Any]:
    """Arguments of torchvision's constructor."""
    arguments: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": setup.classes + 1}
    if setup.task == "detection":
        mean, std = list(setup.preprocessing.mean), list(setup.preprocessing.std)
        sizes = {"min_size": setup.recipe.shorter_px, "max_size": setup.recipe.longest_px}
        return arguments | sizes | {"image_mean": mean, "image_std": std}
    return arguments | {"aux_loss": bool(setup.recipe.auxiliary)}


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _readme(setup: Setup, name: str | None) -> str:
    if name is None:
        imports, network = _IMPORTS, _LUAB.format(setup=setup, task=_task(setup))
        what = "torchvision has no network with this backbone and these settings; luab builds it:"
    else:
        arguments = ", ".join(f"{key}={value!r}" for key, value in _arguments(setup).items())
        imports, network = "import torch\nimport torchvision\n", f'torchvision.models.get_model("{name}", {arguments})'
        what = "torchvision's own network loads it:"
    images = "images [batch, 3, h, w] with values from 0 to 1, which it normalises itself"
    if setup.task == "detection":
        images = "a list of images [3, h, w] with values from 0 to 1, which it normalises and resizes itself"
        if name is not None:  # luab averages pixels when it makes an image smaller
            images += "; boxes of images that it makes smaller differ a little from those that luab scored"
    elif name is not None:
        mean, std = setup.preprocessing.mean, setup.preprocessing.std
        images = f"images [batch, 3, h, w] from 0 to 1, minus their mean {mean}, divided by {std}"
    if setup.task != "detection":
        shorter, longest = setup.recipe.shorter_px, setup.recipe.longest_px
        images += f". Resize them as luab does: shorter side {shorter} px, longer side at most {longest} px"
    return _PAGE.format(setup=setup, what=what, imports=imports, network=network, images=images)


def _task(setup: Setup) -> str:
    return "detection" if setup.task == "detection" else "segmentation"
