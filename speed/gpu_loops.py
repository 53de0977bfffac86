"""Compares images per second of training loops on a GPU: timm's train script, a plain loop, and luab's.

    python speed/gpu_loops.py --backbone resnet50
    python speed/gpu_loops.py --backbone vit_base_patch16_224 --recipe config/recipes/vit.yaml
    python speed/gpu_loops.py --device cpu --tiny       # shows on a CPU that it runs

Four loops with and without torch.compile, in turns, with bfloat16, channels_last and one batch in host memory: timm's
train script, a plain PyTorch loop, luab's baseline, and luab with the byproduct head and loss. The table has their
medians, the ratio to timm's script, and the share of the peak of the matrix units, if that is known for the GPU.

timm's package does not have its train script. The loop here calls the same functions of timm in the same order:
PrefetchLoader, ClassificationTask, create_optimizer_v2, update_ema, CosineLRScheduler; it reads the loss of every step.
SOURCE: huggingface/pytorch-image-models:train.py (commit aa4b585), train_one_epoch.
Mixing is the work of timm's loader, so its loop has a mixed batch; the others mix in the step.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import timm
import torch
from measuring import in_turn, median_ratio, spread, table_of, write_report
from rich.console import Console
from timm.data.loader import PrefetchLoader
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.scheduler import CosineLRScheduler
from timm.task import ClassificationTask
from timm.utils import AverageMeter, dispatch_clip_grad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training import ON_CPU, Parts, luab_loop, parts_of, plain_timm, report_of, training_options

from luab.data.images.loader import ahead
from luab.model import IMAGENET_CLASSES

SCRIPT, PLAIN, BASELINE, LUAB = "timm's train script", "plain loop", "luab, baseline", "luab, click"
COMPILED = ", compiled"
TINY = {"resnet50": "test_resnet", "vit_base_patch16_224": "test_vit"}
# Dense bfloat16, TFLOP/s. SOURCE: NVIDIA's data sheets of H200, H100 SXM and A100.
PEAKS = {"NVIDIA H200": 989.0, "NVIDIA H100 80GB HBM3": 989.0, "NVIDIA A100": 312.0}
_WARM_STEPS = 5
_LATEST_COMPILATION = 0.65  # of the time: none is started later
_STARTED = time.monotonic()
Loop = Callable[[int], None]  # of a number of steps


def timms_loop(parts: Parts, backbone: str, backend: str | None) -> Loop:
    """Returns timm's loop, see the top of this file."""
    recipe, labels = parts.recipe, parts.labels
    arguments = dict(recipe.model_kwargs) | ({"drop_path_rate": recipe.drop_path} if recipe.drop_path else {})
    model = timm.create_model(backbone, pretrained=False, num_classes=IMAGENET_CLASSES, **arguments)
    model, optimizer, _, _ = parts.prepared(model, average=False)
    mixes = bool(recipe.mixup or recipe.cutmix)
    if mixes:
        labels = mixup_target(labels, IMAGENET_CLASSES, 0.7, recipe.label_smoothing)
    criterion = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(recipe.label_smoothing)
    task: Any = ClassificationTask(model, criterion, device=parts.device, verbose=False)
    scheduler: Any = CosineLRScheduler(optimizer, t_initial=1000, t_in_epochs=False)
    if recipe.ema_decay:
        task.setup_ema(decay=recipe.ema_decay)
    if backend:
        task.compile(backend=backend)
    losses, updates = AverageMeter(), 0

    def loop(steps: int) -> None:
        nonlocal updates
        batches: Any = list(repeat((parts.images, labels), steps))
        optimizer.zero_grad()
        for images, target in PrefetchLoader(batches, device=parts.device):
            if recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with parts.autocast():
                loss = task(images, target)["loss"]
            loss.backward()
            if recipe.clip_grad is not None:
                dispatch_clip_grad(task.get_clip_parameters(), value=recipe.clip_grad, mode="norm")
            optimizer.step()
            losses.update(loss.item(), len(images))
            updates += 1
            optimizer.zero_grad()
            task.update_ema(step=updates)
            scheduler.step_update(num_updates=updates, metric=losses.avg)

    return loop


def plain_loop(parts: Parts, backbone: str, backend: str | None) -> Loop:
    """Returns a plain PyTorch loop with timm's optimiser, which does not wait for the loss."""
    step = plain_timm(parts, backbone, backend)

    def loop(steps: int) -> None:
        for _ in range(steps):
            step()

    return loop


def luabs_loop(parts: Parts, backbone: str, backend: str | None, weight: float) -> Loop:
    """Returns the loop of `luab train`."""
    step = luab_loop(parts, backbone, weight, backend)

    def loop(steps: int) -> None:
        for batch in ahead(repeat(parts.batch, steps), parts.device):
            step(batch)

    return loop


BUILD: dict[str, Callable[[Parts, str, str | None], Loop]] = {
    SCRIPT: timms_loop,
    PLAIN: plain_loop,
    BASELINE: partial(luabs_loop, weight=0.0),
    LUAB: partial(luabs_loop, weight=1.0),
}


def measure(parts: Parts, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the rates without compilation, and then those of all loops, as far as there is time."""
    ways: dict[str, Callable[[int], float]] = {}
    seconds: dict[str, float] = {}
    for backend, until in ((None, 0.3), (options.backend, 0.9)):
        for name, build in BUILD.items():
            if backend and _time_used(options) > _LATEST_COMPILATION:
                print(f"{options.backbone}: no time left to compile {name!r}", file=sys.stderr)
                continue
            start = _now(parts)
            loop = build(parts, options.backbone, backend)
            loop(_WARM_STEPS)
            name += COMPILED * (backend is not None)
            ways[name], seconds[name] = partial(_rate, parts, loop, options.steps), round(_now(parts) - start, 1)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(options.runs):
            if run and _time_used(options) > until:
                break
            for name, values in in_turn(ways, 1, uncounted=0).items():
                rates[name] += values
        yield {"images_per_s": rates, "seconds_to_prepare": seconds}


def _rate(parts: Parts, loop: Loop, steps: int, _: int) -> float:
    start = _now(parts)
    loop(steps)
    return steps * len(parts.labels) / (_now(parts) - start)


def _now(parts: Parts) -> float:
    if parts.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def _time_used(options: argparse.Namespace) -> float:
    return (time.monotonic() - _STARTED) / options.seconds


def flops_per_image(parts: Parts, backbone: str) -> float:
    """Returns the floating-point operations of a training step per image, in matrix products and convolutions.

    Attention is counted as plain matrix products: what a fused kernel computes twice counts once.
    """
    images, side = 2, parts.recipe.input_px
    model = timm.create_model(backbone, pretrained=False, **parts.recipe.model_kwargs).to(parts.device)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(images, 3, side, side, device=parts.device)).sum().backward()
    return float(counter.get_total_flops()) / images


def peak_tflops(device: str) -> float | None:
    """Returns the peak of a GPU by its name; None if it is not in the table."""
    return next((peak for name, peak in PEAKS.items() if device.startswith(name)), None)


def summary(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns for each loop the median, the ratio to timm's script of the same kind, and the share of the peak."""
    rates, peak, found = report["images_per_s"], report["peak_tflops"], {}
    for name, values in rates.items():
        found[name] = {"median": statistics.median(values)}
        if (script := SCRIPT + COMPILED * name.endswith(COMPILED)) in rates:
            found[name]["ratio_to_timm"] = median_ratio(values, rates[script])
        if peak is not None:
            found[name]["share_of_peak"] = found[name]["median"] * report["flops_per_image"] / (peak * 1e12)
    return found


def show(report: dict[str, Any]) -> None:
    rows = []
    for name, values in report["images_per_s"].items():
        found = report["summary"][name]
        share = f"{found['share_of_peak']:.1%}" if "share_of_peak" in found else ""
        step_ms = 1e3 * report["batch_size"] / found["median"]
        numbers = (f"{found['median']:,.1f}", spread(values), f"{step_ms:.1f}", f"{found.get('ratio_to_timm', 0):.3f}")
        rows.append((name, *numbers, share, f"{report['seconds_to_prepare'][name]:.0f}"))
    title = f"{report['backbone']}, {report['input_px']} px, batches of {report['batch_size']}, {report['device_name']}"
    columns = ("loop", "images/s", "lowest .. highest", "ms per step", "x timm's script", "of the peak", "s to prepare")
    console = Console()
    console.print(table_of(title, columns, rows))
    console.print(
        f"{report['flops_per_image'] / 1e9:.2f} GFLOP per image, forwards and backwards; "
        + (f"peak {report['peak_tflops']:.0f} TFLOP/s." if report["peak_tflops"] else "peak not known.")
    )
    if report["device"] == "cpu":
        console.print(ON_CPU)


def main(arguments: list[str] | None = None) -> None:
    parser = training_options(__doc__, "gpu-<backbone>.json", 20, "small model, 8 images of 32 px, 2 steps")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=180.0, help="for everything")
    parser.add_argument("--backend", help="of torch.compile; default: inductor, with --tiny eager")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here. `--device cpu --tiny` shows that the script runs.")
    backbone = options.backbone
    options.backend = options.backend or ("eager" if options.tiny else "inductor")
    parts = parts_of(options, 2)
    if options.tiny:
        options.backbone, options.runs = TINY.get(backbone, "test_resnet"), 2
    changes = {"amp": "bfloat16", "channels_last": True}
    if options.tiny and "vit" in options.backbone:
        changes["model_kwargs"] = {"img_size": parts.recipe.input_px}
    parts = Parts(parts.recipe.model_copy(update=changes), options.batch_size, torch.device(options.device))
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True  # as in timm's script, for all loops
    name = torch.cuda.get_device_name() if parts.on_gpu else "cpu"
    fixed = {"device_name": name, "peak_tflops": peak_tflops(name), "backend": options.backend}
    fixed["flops_per_image"] = flops_per_image(parts, options.backbone)
    for found in measure(parts, options):
        report = report_of(parts, options, found.pop("images_per_s")) | found | fixed
        report["summary"] = summary(report)
        write_report(options.out, f"gpu-{backbone}", report)
        show(report)


if __name__ == "__main__":
    main()
