"""One step of a fine-tuning, and the state that changes from step to step."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from luab.data.images.loader import to_device
from luab.errors import JobError
from luab.study.transfer_recipes import TransferRecipe
from luab.training.distributed import Processes
from luab.training.trainer import (
    Flags,
    check_scale,
    gradient_scaler,
    mixed_precision,
    optimizer_of,
    random_state,
    restore_optimizer,
    restore_random_state,
)
from luab.transfer.losses import DenseLoss, Target
from luab.transfer.networks import body_of

_STEPS_BETWEEN_READS = 50  # on a GPU, whose host waits at each read


class Pending(NamedTuple):
    """The values of one step, which are still on the device."""

    values: torch.Tensor
    epoch: int
    batch: int


@dataclass
class Tuner:
    """A fine-tuning as seen by one of its processes; `state` and `restore` make it resumable.

    `epoch` and `batch` are the place of the next step. With several processes, each has its share of the images of a
    step, and the gradient is the mean of the gradients of the shares' losses.

    Attributes:
        network: From `luab.transfer.networks.build`, on `device`.
        loss: Of the task.
        recipe: Of the fine-tuning.
        steps: Per epoch.
        device: Of this process.
        processes: This process and the number of all.
    """

    network: nn.Module
    loss: DenseLoss
    recipe: TransferRecipe
    steps: int
    device: torch.device
    processes: Processes
    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    log: list[list[float]] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared = self.processes.share(self.network, self.device)
        self.optimizer = optimizer_of(_groups(self.network, self.recipe), self.recipe, self.device)
        self.scheduler = scheduler_of(self.optimizer, self.recipe, self.steps)
        self.scaler = gradient_scaler(self.recipe.amp, self.device)
        self.read_every = _STEPS_BETWEEN_READS if self.device.type == "cuda" else 1
        self._sums_of_flags: Callable[[], list[int]] = lambda: [0, 0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values of a line of the log."""
        return ("epoch", "lr", *self.loss.parts)

    @property
    def done(self) -> int:
        """Number of steps done, over all epochs."""
        return self.epoch * self.steps + self.batch

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the current epoch's steps that have been read; of the last epoch right after its end."""
        count = self.batch - len(self.pending)
        if count > 0 and self.sums:
            return self.sums[0] / count
        return self.log[-1][2] if self.log else None

    def step(self, images: Sequence[torch.Tensor], targets: Sequence[Target], own_flags: Callable[[], Flags]) -> Flags:
        """Trains on this process's share of one batch.

        Args:
            images: uint8 [3, h, w] each.
            targets: One for each image, with the parts that the loss uses.
            own_flags: Returns the flags of this process; called while the step is running.

        Returns:
            The flags of all processes in the preceding step, identical in all processes.

        Raises:
            JobError: The loss of a preceding step was not finite.
        """
        images = [to_device(image, self.device).float() / 255 for image in images]
        targets = [{name: to_device(part, self.device) for name, part in target.items()} for target in targets]
        self.scheduler.step_update(self.done)
        self.shared.train()
        self.optimizer.zero_grad(set_to_none=True)
        with mixed_precision(self.recipe.amp, self.device):
            parts = self.loss(self.shared, images, targets)
        self.scaler.scale(parts["loss"]).backward()
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        preceding_flags = self.flags()
        if len(self.pending) >= self.read_every:
            self.read()
        values = torch.stack([parts[name].detach().float() for name in self.loss.parts]) / self.processes.count
        self.pending.append(Pending(values, self.epoch, self.batch))
        self._sums_of_flags = self.processes.sum_later([int(flag) for flag in own_flags()])
        self.batch += 1
        return preceding_flags

    def flags(self) -> Flags:
        """Returns the flags of all processes in the last step."""
        return Flags(*(count > 0 for count in self._sums_of_flags()))

    def read(self) -> None:
        """Adds the values of the steps since the last read to the sums.

        Raises:
            JobError: A value is not finite; the message names the value and the first such step.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        numbers = iter(self.processes.add(torch.cat([one.values for one in pending])).tolist())
        for one in pending:
            values = list(itertools.islice(numbers, len(one.values)))
            for name, value in reversed(list(zip(self.loss.parts, values, strict=True))):  # the cause, then the sum
                if not math.isfinite(value):
                    raise JobError(
                        f"{name} became {value} in epoch {one.epoch}, batch {one.batch}. Lower the learning rate, "
                        "lengthen the warm-up, or clip gradients in the recipe. Nothing was written."
                    )
            sums = self.sums or [0.0] * len(values)
            self.sums = [total + value for total, value in zip(sums, values, strict=True)]

    def end_epoch(self) -> list[float]:
        """Ends the epoch; returns its line of the log: epoch, learning rate, mean of each part of the loss.

        Raises:
            JobError: With float16, so many steps had infinite gradients that hardly any changed the weights.
        """
        check_scale(self.scaler, self.epoch)
        rate = max(group["lr"] for group in self.optimizer.param_groups)  # of the heads
        self.log.append([self.epoch, rate, *(total / self.steps for total in self.sums)])
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, []
        return self.log[-1]

    def state(self, key: str) -> dict[str, Any]:
        """Returns everything needed to resume at the next batch; all processes must call it, the first one saves it."""
        self.read()
        self.flags()  # no exchange may be open when a process ends
        return {
            "key": key,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": list(self.sums),
            "log": [list(row) for row in self.log],
            "random": self.processes.gather(random_state(self.device)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned, in each process."""
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums, self.log = list(state["sums"]), [list(row) for row in state["log"]]
        restore_random_state(state["random"][self.processes.rank], self.device)


def scheduler_of(optimizer: torch.optim.Optimizer, recipe: TransferRecipe, steps: int) -> Scheduler:
    """Returns timm's scheduler of a recipe's learning rate; `steps` is the number of steps per epoch."""
    options: dict[str, Any] = {
        "warmup_t": recipe.warmup_steps,
        "warmup_lr_init": recipe.lr * recipe.warmup_factor,
        "warmup_prefix": False,
        "t_in_epochs": False,
    }
    total = recipe.epochs * steps
    if recipe.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=total, **options)
    if recipe.schedule == "poly":
        return PolyLRScheduler(optimizer, t_initial=total, power=recipe.power, **options)
    milestones = [round(epoch * steps) + 1 for epoch in recipe.decay_epochs]  # timm's fall one step early
    return MultiStepLRScheduler(optimizer, decay_t=milestones, decay_rate=0.1, **options)


def _groups(network: nn.Module, recipe: TransferRecipe) -> nn.Module | list[dict[str, Any]]:
    """The network, or groups of its weights with learning rates that fall towards the backbone's first layer."""
    if recipe.layer_decay == 1:
        return network
    backbone = body_of(network).model
    none = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    groups = param_groups_layer_decay(backbone, recipe.weight_decay, none, layer_decay=recipe.layer_decay)
    inside = set(backbone.parameters())
    rest = [p for p in network.parameters() if p not in inside and p.requires_grad]
    for is_vector, decay in ((False, recipe.weight_decay), (True, 0.0)):
        groups.append(
            {"params": [p for p in rest if (p.ndim <= 1) == is_vector], "weight_decay": decay, "lr_scale": 1.0}
        )
    return groups
