"""Training steps, side by side: a plain timm loop, luab's baseline and luab with the byproduct head and loss.

    python speed/training.py --recipe config/recipes/resnet.yaml --backbone resnet50 --batch-size 256
    python speed/training.py --recipe config/recipes/coco_resnet.yaml --dataset coco --batch-size 128
    python speed/training.py --tiny                               # shows on a CPU that it works

All three train the same backbone with the same optimiser, precision, mixing and normalisation on the same uint8 batch
from memory, so that no loader is in the way; they take turns, and medians are shown. The plain loop keeps the
conventions of timm's own train script: normalisation and mixing on the device, no waiting for the loss in a step. The
step of luab is that of `luab train`, which checks and logs every step's loss parts. On COCO, where timm has no script,
luab's point heads stand beside the same multi-label model without them. GPU figures are not measured yet.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from rich.console import Console
from rich.table import Table
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.files import write_json
from luab.model import IMAGENET_CLASSES
from luab.provenance.code import hardware, versions
from luab.study.config import Recipe, Split
from luab.study.paths import Run
from luab.training.distributed import Processes
from luab.training.trainer import Flags, Trainer

OUT = Path(__file__).resolve().parent / "results"
TIMM, BASELINE, LUAB = "timm, plain loop", "luab, baseline", "luab, click"
_WITH_POINT = 0.7  # share of images whose click is known and survives the crop, about
_LABELS = 2.9  # of an image of COCO, about
# One step on a batch, as luab's loader gives it, or images and labels; without one, on the batch in memory.
Step = Callable[..., None]


class Parts:
    """What the three loops share: one batch on the host, the optimiser, the precision."""

    def __init__(self, recipe: Recipe, batch_size: int, device: torch.device, dataset: str = "imagenet") -> None:
        torch.manual_seed(0)
        self.dataset = dataset
        self.recipe, self.device, self.on_gpu = recipe, device, device.type == "cuda"
        images = torch.randint(0, 256, (batch_size, 3, recipe.input_px, recipe.input_px), dtype=torch.uint8)
        self.images = images.pin_memory() if self.on_gpu else images
        self.labels = torch.randint(0, IMAGENET_CLASSES, (batch_size,))
        points, weights = torch.rand(batch_size, 2), (torch.rand(batch_size) < _WITH_POINT).float()
        if dataset == "coco":
            shown = torch.rand(batch_size, len(COCO_CLASSES)) < _LABELS / len(COCO_CLASSES)
            self.labels, points = shown.float(), torch.rand(batch_size, len(COCO_CLASSES), 2)
            weights = (shown & (torch.rand(shown.shape) < _WITH_POINT)).float()
        self.batch = [self.images, self.labels, points, weights]
        self.precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.amp)

    def prepared(self, model: nn.Module) -> tuple[Any, torch.optim.Optimizer, Any, ModelEmaV3 | None]:
        """The model on the device, its optimiser, gradient scaler and average."""
        recipe = self.recipe
        model = model.to(self.device).train()
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = create_optimizer_v2(
            model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "float16" and self.on_gpu)
        return model, optimizer, scaler, ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None and self.on_gpu)

    def laid_out(self, images: torch.Tensor) -> torch.Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else images

    def update(self, loss: torch.Tensor, model: Any, optimizer: Any, scaler: Any, ema: ModelEmaV3 | None) -> None:
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if self.recipe.clip_grad is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), self.recipe.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        if ema is not None:
            ema.update(model)


def plain_timm(parts: Parts, backbone: str) -> Step:
    recipe, device = parts.recipe, parts.device
    arguments = dict(recipe.model_kwargs) | ({"drop_path_rate": recipe.drop_path} if recipe.drop_path else {})
    model, *rest = parts.prepared(
        timm.create_model(backbone, pretrained=False, num_classes=IMAGENET_CLASSES, **arguments)
    )
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) * 255
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    mixes = bool(recipe.mixup or recipe.cutmix)
    mixup: Any = Mixup(
        recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=IMAGENET_CLASSES
    )
    criterion = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def step(batch: Sequence[torch.Tensor] = parts.batch) -> None:
        images, labels = (part.to(device, non_blocking=True) for part in batch[:2])
        if images.dtype == torch.uint8:  # else timm's loader has done it
            images = images.float().sub_(mean).div_(std)
        if mixes:
            images, labels = mixup(images, labels)
        with parts.autocast():
            loss = criterion(model(parts.laid_out(images)).float(), labels)
        parts.update(loss, model, *rest)

    return step


def luab_loop(parts: Parts, backbone: str, weight: float) -> Step:
    """luab's own training step, as `luab train` runs it."""
    size = len(parts.labels)
    recipe = parts.recipe.model_copy(update={"batch_size": size})
    run = Run(parts.dataset, backbone, "click" if weight else "none", weight, 0)
    trainer = Trainer.build(run, recipe, Split(1, size, 1), 1000, parts.device, Processes())

    def step(batch: list[torch.Tensor] = parts.batch) -> None:
        trainer.step(batch, Flags)

    return step


def measure(parts: Parts, backbone: str, steps: int, runs: int) -> dict[str, list[float]]:
    """Images per second by loop and run; on a CPU of processor time. One run more goes first and is not counted."""
    plain = {TIMM: plain_timm(parts, backbone)} if parts.dataset == "imagenet" else {}
    loops = plain | {BASELINE: luab_loop(parts, backbone, 0.0), LUAB: luab_loop(parts, backbone, 1.0)}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs + 1):
        for name, step in loops.items():
            start = _now(parts)
            for _ in range(steps):
                step()
            rates[name].append(steps * len(parts.labels) / (_now(parts) - start))
    return {name: values[1:] for name, values in rates.items()}


def _now(parts: Parts) -> float:
    if not parts.on_gpu:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def overheads(rates: dict[str, list[float]]) -> dict[str, float]:
    """By how much longer than the first loop's a step takes, as a fraction: medians of the runs' ratios."""
    first = next(iter(rates.values()))
    return {
        name: statistics.median(a / b for a, b in zip(first, values, strict=True)) - 1 for name, values in rates.items()
    }


def show(report: dict[str, Any]) -> None:
    what = f"{report['dataset']}, {report['backbone']}"
    title = f"{what}, {report['input_px']} px, batches of {report['batch_size']}, {report['device']}"
    table = Table("loop", "images/s", "lowest .. highest", "overhead", title=title)
    for name, values in report["images_per_s"].items():
        spread = f"{min(values):,.1f} .. {max(values):,.1f}"
        table.add_row(name, f"{statistics.median(values):,.1f}", spread, f"{report['overhead'][name]:+.1%}")
    console = Console()
    console.print(table)
    if report["device"] == "cpu":
        console.print("On a CPU this only shows that the loops run; GPU figures are not measured yet.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("config/recipes/resnet.yaml"))
    parser.add_argument("--dataset", choices=["imagenet", "coco"], default="imagenet")
    parser.add_argument("--backbone", default="resnet50", help="timm name")
    parser.add_argument("--batch-size", type=int, default=256, help="images per step on this device")
    parser.add_argument("--steps", type=int, default=50, help="per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="test_resnet, 8 images of 32 px, 3 steps")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for training.json")
    options = parser.parse_args(arguments)
    recipe = Recipe.model_validate(yaml.safe_load(options.recipe.read_text()))
    if options.tiny:
        options.backbone, options.batch_size, options.steps = "test_resnet", 8, 3
        recipe = recipe.model_copy(update={"input_px": 32})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    parts = Parts(recipe, options.batch_size, device, options.dataset)
    rates = measure(parts, options.backbone, options.steps, options.runs)
    report = {
        "date": date.today().isoformat(),
        "dataset": options.dataset,
        "backbone": options.backbone,
        "input_px": recipe.input_px,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "runs": options.runs,
        "device": str(device),
        "images_per_s": rates,
        "overhead": overheads(rates),
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(options.out / "training.json", report)
    show(report)


if __name__ == "__main__":
    main()
