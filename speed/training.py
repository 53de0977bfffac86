"""Compares training steps: a plain timm loop, luab's baseline, and luab with the byproduct head and loss.

    python speed/training.py --recipe config/recipes/resnet.yaml --backbone resnet50 --batch-size 256
    python speed/training.py --recipe config/recipes/coco_resnet.yaml --dataset coco --batch-size 128
    python speed/training.py --tiny                               # shows on a CPU that it works

All three train the same backbone with the same optimiser, precision, mixing and normalisation on one uint8 batch in
memory, so that data loading does not count; they run in turn, and medians are reported. The plain loop follows timm's
own train script: normalisation and mixing on the device, and no waiting for the loss within a step. luab's step is that
of `luab train`, which checks and logs the loss terms of every step. On COCO, for which timm has no script, luab's point
heads are compared with the same multi-label model without them. GPU figures are not measured yet.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from measuring import circumstances, command_line, in_turn, median_ratio, spread, table_of, write_report
from rich.console import Console
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.model import IMAGENET_CLASSES
from luab.shapes import Batch
from luab.study.config import Recipe, Split
from luab.study.paths import Run
from luab.tasks import Outputs
from luab.training import compiled
from luab.training.distributed import Processes
from luab.training.trainer import Flags, Trainer

TIMM, BASELINE, LUAB = "timm, plain loop", "luab, baseline", "luab, click"
ON_CPU = "On a CPU this only shows that the loops run; GPU figures are not measured yet."
_WITH_POINT = 0.7  # approximate share of images whose click is recorded and survives the crop
_LABELS = 2.9  # approximate number of labels of a COCO image
# One training step on a batch of luab's loader, or on images and labels; without an argument, on the batch in memory.
Step = Callable[..., None]


class Parts:
    """What the three loops share: one batch in host memory, the optimiser, the precision."""

    def __init__(self, recipe: Recipe, batch_size: int, device: torch.device, dataset: str = "imagenet") -> None:
        torch.manual_seed(0)
        self.dataset = dataset
        self.recipe, self.device, self.on_gpu = recipe, device, device.type == "cuda"
        images = torch.randint(0, 256, (batch_size, 3, recipe.input_px, recipe.input_px), dtype=torch.uint8)
        self.images = images.pin_memory() if self.on_gpu else images
        self.labels = torch.randint(0, IMAGENET_CLASSES, (batch_size,))
        points, weights = torch.rand(batch_size, 2), (torch.rand(batch_size) < _WITH_POINT).float()
        if dataset == "coco":
            classes = len(COCO_CLASSES)
            labels = torch.rand(batch_size, classes) < _LABELS / classes
            self.labels, points = labels.float(), torch.rand(batch_size, classes, 2)
            weights = (labels & (torch.rand(labels.shape) < _WITH_POINT)).float()
        self.batch = {"images": self.images, "labels": self.labels, "points": points, "weights": weights}
        self.precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.amp)

    def prepared(
        self, model: nn.Module, average: bool = True
    ) -> tuple[Any, torch.optim.Optimizer, Any, ModelEmaV3 | None]:
        """Returns the model on the device, its optimiser, gradient scaler and, if `average`, moving average."""
        recipe = self.recipe
        model = model.to(self.device).train()
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = create_optimizer_v2(
            model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "float16" and self.on_gpu)
        averages = average and recipe.ema_decay is not None
        return model, optimizer, scaler, ModelEmaV3(model, decay=recipe.ema_decay) if averages else None

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


def plain_timm(parts: Parts, backbone: str, backend: str | None = None) -> Step:
    """Returns a training step like that of timm's train script, which does not wait for its loss.

    Args:
        parts: What the loops share.
        backbone: timm name.
        backend: Of torch.compile; None trains without it.
    """
    recipe, device = parts.recipe, parts.device
    arguments = dict(recipe.model_kwargs) | ({"drop_path_rate": recipe.drop_path} if recipe.drop_path else {})
    model, *rest = parts.prepared(
        timm.create_model(backbone, pretrained=False, num_classes=IMAGENET_CLASSES, **arguments)
    )
    forward = torch.compile(model, backend=backend) if backend else model
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) * 255
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    mixes = bool(recipe.mixup or recipe.cutmix)
    mixup: Any = Mixup(
        recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=IMAGENET_CLASSES
    )
    criterion = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def step(batch: Batch | Sequence[torch.Tensor] = parts.batch) -> None:
        both = (batch["images"], batch["labels"]) if isinstance(batch, dict) else batch[:2]  # luab's or timm's loader
        images, labels = (part.to(device, non_blocking=True) for part in both)
        if images.dtype == torch.uint8:  # timm's loader has normalised its images already
            images = images.float().sub_(mean).div_(std)
        if mixes:
            images, labels = mixup(images, labels)
        with parts.autocast():
            loss = criterion(forward(parts.laid_out(images)).float(), labels)
        parts.update(loss, model, *rest)

    return step


def _outputs(dataset: str, weight: float) -> Outputs:
    classes, points = (IMAGENET_CLASSES, 2) if dataset == "imagenet" else (len(COCO_CLASSES), 2 * len(COCO_CLASSES))
    return Outputs(classes, points if weight else 0, dataset == "coco")


def luab_loop(parts: Parts, backbone: str, weight: float, backend: str | None = None) -> Step:
    """Returns luab's own training step, as in `luab train`; see `plain_timm` for the arguments."""
    size = len(parts.labels)
    recipe = parts.recipe.model_copy(update={"batch_size": size})
    run = Run(parts.dataset, backbone, "click" if weight else "none", weight, 0)
    trainer = Trainer.build(
        run, recipe, _outputs(parts.dataset, weight), Split(1, size, 1), 1000, parts.device, Processes()
    )

    if backend:
        compiled.BACKEND = backend
        if (outcome := compiled.compile_backbone(trainer)).startswith("not"):
            raise SystemExit(f"{backbone}: {outcome}.")

    def step(batch: Batch = parts.batch) -> None:
        trainer.step(batch, Flags)

    return step


def measure(parts: Parts, backbone: str, steps: int, runs: int) -> dict[str, list[float]]:
    """Returns images per second of each loop and run: by the clock on a GPU, of processor time on a CPU."""
    plain = {TIMM: plain_timm(parts, backbone)} if parts.dataset == "imagenet" else {}
    loops = plain | {BASELINE: luab_loop(parts, backbone, 0.0), LUAB: luab_loop(parts, backbone, 1.0)}

    def rate(step: Step) -> float:
        start = _now(parts)
        for _ in range(steps):
            step()
        return steps * len(parts.labels) / (_now(parts) - start)

    return in_turn({name: (lambda run, step=step: rate(step)) for name, step in loops.items()}, runs)


def _now(parts: Parts) -> float:
    if not parts.on_gpu:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def overheads(rates: dict[str, list[float]]) -> dict[str, float]:
    """Returns how much longer a step takes than in the first loop, as a fraction: medians of the runs' ratios."""
    first = next(iter(rates.values()))
    return {name: median_ratio(first, values) - 1 for name, values in rates.items()}


def show(report: dict[str, Any]) -> None:
    title = (
        f"{report['dataset']}, {report['backbone']}, {report['input_px']} px, batches of {report['batch_size']}, "
        f"{report['device']}"
    )
    rows = [
        (name, f"{statistics.median(values):,.1f}", spread(values), f"{report['overhead'][name]:+.1%}")
        for name, values in report["images_per_s"].items()
    ]
    console = Console()
    console.print(table_of(title, ("loop", "images/s", "lowest .. highest", "overhead"), rows))
    if report["device"] == "cpu":
        console.print(ON_CPU)


def training_options(description: str | None, files: str, steps: int, tiny: str) -> argparse.ArgumentParser:
    """Returns a command line with the options of a training; `tiny` is what `--tiny` sets."""
    parser = command_line(description, files)
    parser.add_argument("--recipe", type=Path, default=Path("config/recipes/resnet.yaml"))
    parser.add_argument("--backbone", default="resnet50", help="timm name")
    parser.add_argument("--batch-size", type=int, default=256, help="images per step on this device")
    parser.add_argument("--steps", type=int, default=steps, help="per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help=tiny)
    return parser


def parts_of(options: argparse.Namespace, tiny_steps: int, dataset: str = "imagenet") -> Parts:
    """Builds what the loops share, and sets backbone, batch size and steps for `--tiny`."""
    recipe = Recipe.model_validate(yaml.safe_load(options.recipe.read_text(encoding="utf-8")))
    if options.tiny:
        options.backbone, options.batch_size, options.steps = "test_resnet", 8, tiny_steps
        recipe = recipe.model_copy(update={"input_px": 32})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    return Parts(recipe, options.batch_size, device, dataset)


def report_of(parts: Parts, options: argparse.Namespace, rates: dict[str, list[float]]) -> dict[str, Any]:
    """Returns what the reports of trainings have in common."""
    return circumstances() | {
        "backbone": options.backbone,
        "input_px": parts.recipe.input_px,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "runs": options.runs,
        "device": str(parts.device),
        "images_per_s": rates,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = training_options(__doc__, "training.json", 50, "test_resnet, 8 images of 32 px, 3 steps")
    parser.add_argument("--dataset", choices=["imagenet", "coco"], default="imagenet")
    options = parser.parse_args(arguments)
    parts = parts_of(options, 3, options.dataset)
    rates = measure(parts, options.backbone, options.steps, options.runs)
    report = report_of(parts, options, rates) | {"dataset": options.dataset, "overhead": overheads(rates)}
    write_report(options.out, "training", report)
    show(report)


if __name__ == "__main__":
    main()
