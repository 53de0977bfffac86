"""One step of a training, and everything that changes from step to step."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from luab.data.images.loader import to_device
from luab.errors import ConfigError, JobError
from luab.model import LuabModel, Normalise, build_model, outputs_of
from luab.objective import LuabLoss, PointMixup
from luab.study.config import Recipe, Split
from luab.study.paths import Run
from luab.training.distributed import Processes

PARTS = ("loss", "classification", "byproduct")
SUMS = (*PARTS, "points")


class Asked(NamedTuple):
    """What a process wishes, or what all processes know that one of them wished.

    Attributes:
        stop: A warning signal came: save and end.
        save: The last state is old.
    """

    stop: bool = False
    save: bool = False


class Unread:
    """The values of one step on their way from the device, read without waiting for the step that runs by then.

    Args:
        values: [6] loss, classification, byproduct, surviving points, processes that ask to stop, and to save.
        place: Step over all epochs, epoch, batch in the epoch.
    """

    def __init__(self, values: torch.Tensor, place: tuple[int, int, int]) -> None:
        self.place = place
        self._host = values.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> list[float]:
        """The values; waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers


@dataclass
class Trainer:
    """A training in one of its processes; `state` and `restore` make it resumable.

    `epoch` and `batch` are the place of the next step. The values of the last step are read from the device, and
    checked, one step later; `read` does so at once and comes before everything that is written.

    Attributes:
        network: The model as the processes share it; the model itself where there is one process.
        ema: Averaged weights, in the first process alone: nobody else's are ever read.
    """

    run: Run
    recipe: Recipe
    split: Split
    steps: int
    device: torch.device
    processes: Processes
    model: LuabModel
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: CosineLRScheduler
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))
    log: list[list[float]] = field(default_factory=list)
    unread: Unread | None = None

    def __post_init__(self) -> None:
        self.loss = LuabLoss(self.run.weight, self.recipe.label_smoothing, multilabel=self.run.dataset == "coco")
        self.mixup = PointMixup(self.recipe) if self.recipe.mixup or self.recipe.cutmix else None
        self.normalise = Normalise().to(self.device)

    @classmethod
    def build(
        cls,
        run: Run,
        recipe: Recipe,
        split: Split,
        steps: int,
        device: torch.device,
        processes: Processes,
        begin: Callable[[nn.Module], object] = lambda backbone: None,
    ) -> "Trainer":
        """A training that has not begun; equal in all processes.

        Args:
            run: What is trained.
            recipe: How.
            split: Of its batches.
            steps: Of one epoch.
            device: Of this process.
            processes: That train together.
            begin: Gives the backbone other weights than random ones.

        Raises:
            ConfigError: timm knows no such backbone or optimiser, or refuses their settings.
        """
        classes, outputs = outputs_of(run)
        model: LuabModel = build_model(run.backbone, recipe, outputs, classes)
        begin(model.backbone)
        model = model.to(device)
        if recipe.sync_batchnorm and processes.count > 1:
            model = _synchronised(model, device)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = _optimizer(model, recipe)
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=recipe.epochs * steps,
            lr_min=recipe.min_lr,
            warmup_t=round(recipe.warmup_epochs * steps),
            warmup_lr_init=recipe.lr / 100 if recipe.warmup_epochs else recipe.lr,
            t_in_epochs=False,
        )
        ema = None
        if recipe.ema_decay is not None and processes.first:
            ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16" and device.type == "cuda")
        network = processes.share(model, device)
        return cls(run, recipe, split, steps, device, processes, model, network, optimizer, scheduler, scaler, ema)

    @property
    def done(self) -> int:
        """Steps done, over all epochs."""
        return self.epoch * self.steps + self.batch

    @property
    def mean_loss(self) -> float | None:
        """Of the current epoch's steps that were read; of the last epoch right after its end."""
        count = self.batch - (self.unread is not None)
        if count > 0:
            return self.sums["loss"] / count
        return self.log[-1][2] if self.log else None

    def step(self, batch: list[torch.Tensor], wish: Callable[[], Asked]) -> Asked:
        """Trains on this process's share of one batch.

        Args:
            batch: uint8 images [share, 3, h, w], labels, points and weights, as the loader gives them; labels, points
                and weights have a row per class where images have several labels.
            wish: Tells what this process wishes; asked when the step is under way.

        Returns:
            What any process wished in the step before, the same in all processes.

        Raises:
            JobError: The loss of the step before was not finite.
        """
        images, labels, points, weights = (to_device(part, self.device) for part in batch)
        images, weights = self.normalise(images), weights.float()
        survived = weights.sum()
        if self.recipe.channels_last:
            images = images.to(memory_format=torch.channels_last)
        if self.mixup is not None:
            images, labels, points, weights = self.mixup(images, labels, points, weights)
        self.scheduler.step_update(self.done)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._backward(images, labels, points, weights)
        self._update()
        values = torch.cat([parts, torch.stack([survived, *(torch.full_like(survived, flag) for flag in wish())])])
        before = self.read()
        self.unread = Unread(self.processes.add(values), (self.done, self.epoch, self.batch))
        self.batch += 1
        return before

    def _backward(
        self, images: torch.Tensor, labels: torch.Tensor, points: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Gradients of the total batch's loss; returns this process's addends to [loss, classification, byproduct]."""
        size, steps = self.split.images, self.split.steps
        share = 1 / (steps * self.split.processes)
        # The mean is over the surviving points of the total batch, which may lie in a few of its parts alone.
        denominator = self.processes.add(weights.sum()) * share if self.model.byproduct is not None else None
        precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.recipe.amp)
        addends = []
        for k in range(steps):
            part = slice(k * size, (k + 1) * size)
            with self.processes.averaged(self.network, last=k == steps - 1):
                with torch.autocast(
                    self.device.type, precision, enabled=precision is not None and self.device.type == "cuda"
                ):
                    logits, predicted = self.network(images[part])
                parts = self.loss(logits.float(), predicted, labels[part], points[part], weights[part], denominator)
                self.scaler.scale(parts["loss"] / steps).backward()  # over processes, their copies average
            addends.append(torch.stack([parts[name].detach() for name in PARTS]) * share)
        return torch.stack(addends).sum(dim=0)

    def _update(self) -> None:
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.done)

    def read(self) -> Asked:
        """Adds the values of the last step to the sums, if that has not been done.

        Raises:
            JobError: One of them is not finite; it is named with its step.
        """
        if self.unread is None:
            return Asked()
        (step, epoch, batch), values = (
            self.unread.place,
            dict(zip((*SUMS, *Asked._fields), self.unread.read(), strict=True)),
        )
        self.unread = None
        for name in ("classification", "byproduct", "loss"):  # the cause before the sum
            if not math.isfinite(values[name]):
                raise JobError(
                    f"{name} became {values[name]} in step {step} (epoch {epoch}, batch {batch}). "
                    "Lower the learning rate, lengthen the warm-up, or clip gradients in the recipe; nothing "
                    "was written."
                )
        for name in PARTS:
            self.sums[name] += values[name]
        self.sums["points"] += values["points"] / self.recipe.batch_size
        return Asked(values["stop"] > 0, values["save"] > 0)

    def end_epoch(self) -> list[float]:
        """Closes the epoch; returns its line of the log: number, learning rate, mean of each sum."""
        rate = self.optimizer.param_groups[0]["lr"]
        self.log.append([self.epoch, rate, *(self.sums[name] / self.steps for name in SUMS)])
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums = dict.fromkeys(SUMS, 0.0)
        return self.log[-1]

    def state(self, key: str) -> dict[str, Any]:
        """What later processes need to go on from the next batch; to be called by all, useful in the first."""
        self.read()
        return {
            "key": key,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": dict(self.sums),
            "log": [list(row) for row in self.log],
            "random": self.processes.gather(random_state(self.device)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, in each process."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums, self.log = dict(state["sums"]), [list(row) for row in state["log"]]
        restore_random_state(state["random"][self.processes.rank], self.device)


def _synchronised(model: LuabModel, device: torch.device) -> LuabModel:
    # torch has this for GPUs alone. An implementation of our own for the CPU would be one more thing to trust.
    if device.type != "cuda":
        raise ConfigError(
            "The recipe asks for sync_batchnorm, which torch has for GPUs only, and there is no GPU here. Set it to "
            "false, or train with one process."
        )
    synchronised: LuabModel = convert_sync_batchnorm(model)
    return synchronised


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    try:
        return create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"optimizer {recipe.optimizer!r}: timm refused it ({error}). Correct the recipe.") from error


def seed_everything(seed: int, device: torch.device, threads: int) -> None:
    """Sets every generator that a training draws from, and the CPU's threads and exactness."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator of this process, in plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
