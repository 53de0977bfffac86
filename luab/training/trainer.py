"""One training step, and the state that changes from step to step."""

import contextlib
import inspect
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from luab.data.images.loader import to_device
from luab.errors import ConfigError, JobError
from luab.model import LuabModel, Normalise, build_model, random_classifier
from luab.objective import PointMixup, gradient_ratios, objective_of
from luab.shapes import Batch
from luab.study.config import Recipe, Split
from luab.study.paths import Run
from luab.study.recipes import Preprocessing
from luab.study.transfer_recipes import TransferRecipe
from luab.tasks import Outputs
from luab.training.distributed import Processes

_LOGIT_TOLERANCE = 1e-4  # relative to the largest logit; float32 in another order gives about 1e-6
_STEPS_BETWEEN_READS = 50  # on a GPU, whose host waits at each read
_LOWEST_SCALE = 2.0**-16  # starts at 2**16 and halves with each step of infinite gradients
_MODEL_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, NotImplementedError)


class Flags(NamedTuple):
    """Stop and save flags of this process, or their OR over all processes.

    Attributes:
        stop: A warning signal was received: save the state and stop.
        save: The last saved state is old.
    """

    stop: bool = False
    save: bool = False


class PendingValues(NamedTuple):
    """The values of one step, which are still on the device.

    Attributes:
        values: This process's parts of the loss and counts, and in the first step of an epoch the squared norms of
            gradients.
        step: Number of the step over all epochs.
    """

    values: torch.Tensor
    step: int
    epoch: int
    batch: int


@dataclass
class Trainer:
    """A training as seen by one of its processes; `state` and `restore` make it resumable.

    `epoch` and `batch` are the position of the next step. The values of the steps stay on the device; those of
    `read_every` steps are read and checked together, one step later. `read` does so at once and must be called before
    anything is written.

    Attributes:
        network: The model wrapped for several processes; the model itself if there is one process.
        ema: Averaged weights, in the first process only, since no others are ever read.
        ratios: Gradient ratios of the first step of the current epoch, see `Objective.squared_gradients`.
        read_every: Steps between two reads, 1 on the CPU.
    """

    run: Run
    recipe: Recipe
    outputs: Outputs
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
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    use: str = "regress"
    settings: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    log: list[list[float]] = field(default_factory=list)
    pending: list[PendingValues] = field(default_factory=list)
    read_every: int = 1

    def __post_init__(self) -> None:
        baseline = not self.outputs.points and self.use == "regress"
        weight = None if baseline else self.run.weight * self.scale
        self.objective = objective_of(weight, self.recipe, self.outputs.multi_label, self.use, self.settings)
        self.mixup = PointMixup(self.recipe, self.outputs.classes) if self.recipe.mixup or self.recipe.cutmix else None
        self.normalise = Normalise(self.preprocessing).to(self.device)
        if self.device.type == "cuda":
            self.read_every = _STEPS_BETWEEN_READS
        self._sums_of_flags: Callable[[], list[int]] = lambda: [0, 0]

    @classmethod
    def build(
        cls,
        run: Run,
        recipe: Recipe,
        outputs: Outputs,
        split: Split,
        steps: int,
        device: torch.device,
        processes: Processes,
        initialise: Callable[[nn.Module], object] = lambda backbone: None,
        preprocessing: Preprocessing | None = None,
        use: str = "regress",
        settings: dict[str, Any] | None = None,
        scale: float = 1.0,
    ) -> "Trainer":
        """Builds a training before its first step, identical in all processes.

        Args:
            run: The run to train.
            recipe: Its recipe.
            outputs: Outputs of its model.
            split: Division of each batch into processes and steps.
            steps: Steps per epoch.
            device: Device of this process.
            processes: This process and the number of all.
            initialise: Loads initial weights into the backbone; by default they stay random.
            preprocessing: What the initial weights need; None for random weights.
            use: Use of byproducts, see `luab.objective.term_named`.
            settings: Further arguments of its term, see `Supervision.settings`.
            scale: Factor on lambda, see `Supervision.scale`.

        Raises:
            ConfigError: timm has no such backbone or optimiser, or refuses their settings, or luab does not support
                the backbone.
        """
        model = build_checked_model(run.backbone, recipe, outputs)
        initialise(model.backbone)
        model = model.to(device)
        if recipe.sync_batchnorm and processes.count > 1:
            model = _synchronised(model, device)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = optimizer_of(model, recipe, device)
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=recipe.epochs * steps,
            lr_min=recipe.min_lr,
            warmup_t=round(recipe.warmup_epochs * steps),
            warmup_lr_init=(recipe.warmup_lr or recipe.lr / 100) if recipe.warmup_epochs else recipe.lr,
            t_in_epochs=False,
        )
        ema = None
        if recipe.ema_decay is not None and processes.first:
            ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
        scaler = gradient_scaler(recipe.amp, device)
        network = processes.share(model, device)
        return cls(
            run, recipe, outputs, split, steps, device, processes, model, network, optimizer, scheduler, scaler, ema,
            preprocessing or Preprocessing(), use, settings or {}, scale,
        )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values of a line of the log."""
        return ("epoch", "lr", *self.objective.columns)

    @property
    def optimizer_name(self) -> str:
        """Class of the optimiser and how it goes through the weights, for run.json."""
        kinds = [kind for kind in ("fused", "foreach") if self.optimizer.defaults.get(kind)]
        return ", ".join([type(self.optimizer).__name__, *kinds])

    @property
    def done(self) -> int:
        """Number of steps done, over all epochs."""
        return self.epoch * self.steps + self.batch

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the current epoch's steps that have been read; of the last epoch right after its end."""
        count = self.batch - len(self.pending)
        if count > 0:
            return self.sums["loss"] / count
        return self.log[-1][2] if self.log else None

    def step(self, batch: Batch, own_flags: Callable[[], Flags]) -> Flags:
        """Trains on this process's share of one batch.

        Args:
            batch: uint8 images [share, 3, h, w] and further parts as the loader returns them; for multi-label data
                labels, points and weights have one row per class.
            own_flags: Returns the flags of this process; called while the step is running.

        Returns:
            The flags of all processes in the preceding step, identical in all processes.

        Raises:
            JobError: The loss of a preceding step was not finite.
        """
        batch = {name: to_device(part, self.device) for name, part in batch.items()}
        batch = {name: part.float() if part.dtype == torch.float64 else part for name, part in batch.items()}
        batch["images"] = self.normalise(self.laid_out(batch["images"]))
        counts = self.objective.counts(batch)
        if self.mixup is not None:
            batch = self.mixup(batch)
        self.scheduler.step_update(self.done)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts, squared = self._backward(batch)
        self._update()
        preceding_flags = self.flags()
        if len(self.pending) >= self.read_every:
            self.read()
        self.pending.append(PendingValues(torch.cat([parts, counts, squared]), self.done, self.epoch, self.batch))
        self._sums_of_flags = self.processes.sum_later([int(flag) for flag in own_flags()])
        self.batch += 1
        return preceding_flags

    def flags(self) -> Flags:
        """Returns the flags of all processes in the last step."""
        return Flags(*(count > 0 for count in self._sums_of_flags()))

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes gradients of the whole batch's loss.

        Returns:
            This process's share of the parts of the loss, and in the first step of an epoch of the squared norms of
            gradients (otherwise nothing); both to be summed over processes.
        """
        size, steps = self.split.images, self.split.steps
        share = 1 / (steps * self.split.processes)
        # The mean is over the surviving points of the whole batch, which may all be in a few of its parts.
        denominators = self.objective.counts(batch)
        if self.objective.counted:
            denominators = self.processes.add(denominators) * share
        shares, squared = [], []
        for k in range(steps):
            part = {name: tensor[k * size : (k + 1) * size] for name, tensor in batch.items()}
            with self.processes.averaged(self.network, last=k == steps - 1):
                with self.autocast():
                    outputs = self.network(part["images"])
                parts = self.objective(outputs, part, denominators)
                if self.batch == 0:
                    squared.append(self.objective.squared_gradients(parts, outputs, self.scaler.scale))
                self.scaler.scale(parts["loss"] / steps).backward()  # DistributedDataParallel averages over processes
            shares.append(torch.stack([parts[name].detach() for name in self.objective.parts]) * share)
        norms = torch.stack(squared).sum(dim=0).flatten() if squared else shares[0].new_zeros(0)
        return torch.stack(shares).sum(dim=0), norms

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context of a forward pass: the recipe's mixed precision on a GPU."""
        return mixed_precision(self.recipe.amp, self.device)

    def laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """Returns images in the recipe's memory format."""
        return images.to(memory_format=torch.channels_last) if self.recipe.channels_last else images

    def _update(self) -> None:
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.done)

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
            self._add(one, list(itertools.islice(numbers, len(one.values))))

    def _add(self, place: PendingValues, numbers: list[float]) -> None:
        parts, counted = self.objective.parts, self.objective.counted
        names = (*parts, *counted)
        values, squared = dict(zip(names, numbers, strict=False)), numbers[len(names) :]
        for name in (*parts[1:], parts[0]):  # the cause first, then the sum
            if not math.isfinite(values[name]):
                raise JobError(
                    f"{name} became {values[name]} in step {place.step} (epoch {place.epoch}, batch {place.batch}). "
                    "Lower the learning rate, lengthen the warm-up, or clip gradients in the recipe. Nothing "
                    "was written."
                )
        for name in parts:
            self.sums[name] = self.sums.get(name, 0.0) + values[name]
        for name in counted:
            self.sums[name] = self.sums.get(name, 0.0) + values[name] / self.recipe.batch_size
        if place.batch == 0:
            self.ratios = gradient_ratios(torch.tensor(squared).view(2, -1))

    def end_epoch(self) -> list[float]:
        """Ends the epoch; returns its line of the log: epoch, learning rate, mean of each sum, gradient ratios.

        Raises:
            JobError: With float16, so many steps had infinite gradients that hardly any changed the weights.
        """
        check_scale(self.scaler, self.epoch)
        rate = self.optimizer.param_groups[0]["lr"]
        self.log.append([self.epoch, rate, *(total / self.steps for total in self.sums.values()), *self.ratios])
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums, self.ratios = {}, []
        return self.log[-1]

    def state(self, key: str) -> dict[str, Any]:
        """Returns everything needed to resume at the next batch; all processes must call it, the first one saves it."""
        self.read()
        self.flags()  # no exchange may be open when a process ends
        return {
            "key": key,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": dict(self.sums),
            "ratios": list(self.ratios),
            "log": [list(row) for row in self.log],
            "random": self.processes.gather(random_state(self.device)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned, in each process."""
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums, self.ratios = dict(state["sums"]), list(state["ratios"])
        self.log = [list(row) for row in state["log"]]
        restore_random_state(state["random"][self.processes.rank], self.device)


def mixed_precision(amp: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Context of a forward pass with a recipe's `amp` on a GPU; without effect on a CPU."""
    precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(amp)
    return torch.autocast(device.type, precision, enabled=precision is not None and device.type == "cuda")


def gradient_scaler(amp: str, device: torch.device) -> torch.amp.GradScaler:
    """Scaler of the loss; enabled for float16 on a GPU."""
    return torch.amp.GradScaler(device.type, enabled=amp == "float16" and device.type == "cuda")


def check_scale(scaler: torch.amp.GradScaler, epoch: int) -> None:
    """Raises JobError if so many steps with float16 had infinite gradients that hardly any changed the weights."""
    if scaler.is_enabled() and scaler.get_scale() < _LOWEST_SCALE:
        raise JobError(
            f"Epoch {epoch}: expected finite gradients, found infinite ones in so many steps that the loss "
            f"scale fell to {scaler.get_scale():.2g}; such steps change no weight. Set amp to bfloat16 or "
            "none, or lower the learning rate, in the recipe. Nothing was written."
        )


def build_checked_model(backbone: str, recipe: Recipe, outputs: Outputs) -> LuabModel:
    """Builds the model of a run, and checks on one random batch that its class logits are those of timm's model.

    Raises:
        ConfigError: timm has no such backbone or refuses its arguments, or luab cannot use its classifier.
    """
    try:
        model = build_model(backbone, recipe, outputs.points, outputs.classes, outputs.use)
    except _MODEL_ERRORS as error:
        raise _not_supported(backbone, f"timm's model fails ({type(error).__name__}: {error})") from error
    check_logits(model, backbone, recipe.input_px)
    return model


@torch.no_grad()
def check_logits(model: LuabModel, backbone: str, input_px: int) -> None:
    """Checks that a model returns the same class logits as its timm backbone alone, and finite points.

    A classifier of zeros would hide a difference, so its weights are random during the check.

    Raises:
        ConfigError: They differ, or the model fails.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, input_px, input_px, generator=generator)
    training, pool = model.training, model.pool
    model.eval()
    model.pool = None  # it replaces timm's own pooling on purpose
    try:
        with random_classifier(model.backbone, generator):
            expected, outputs = model.backbone(images), model(images)
        logits, points = outputs["logits"], outputs.get("points")
    except _MODEL_ERRORS as error:
        raise _not_supported(backbone, f"timm's model fails ({type(error).__name__}: {error})") from error
    finally:
        model.pool = pool
        model.train(training)
    if not isinstance(expected, torch.Tensor) or expected.shape != logits.shape:
        found = tuple(expected.shape) if isinstance(expected, torch.Tensor) else type(expected).__name__
        raise _not_supported(backbone, f"timm's model returns {found} where luab computes {tuple(logits.shape)}")
    difference = (logits - expected).abs().max().item()
    if not difference <= _LOGIT_TOLERANCE * max(1.0, expected.abs().max().item()):
        raise _not_supported(
            backbone,
            f"its class logits are not those of its forward_head on its forward_features: they differ by up to "
            f"{difference:.2g} on a random batch",
        )
    if points is not None and points.shape[:-1] != logits.shape[:-1]:
        raise _not_supported(backbone, f"a byproduct head on its pooled feature returns {tuple(points.shape)}")


def _not_supported(backbone: str, reason: str) -> ConfigError:
    return ConfigError(
        f"backbone {backbone}: expected a classifier on a pooled feature, to which luab adds the byproduct head. It is "
        f"not supported by luab because {reason}; choose another backbone, for example resnet50, "
        "convnext_tiny, vit_small_patch16_224 or swin_tiny_patch4_window7_224."
    )


def _synchronised(model: LuabModel, device: torch.device) -> LuabModel:
    # torch implements this for GPUs only; our own CPU version would be more code to verify.
    if device.type != "cuda":
        raise ConfigError(
            "The recipe sets sync_batchnorm, which torch supports on GPUs only, and there is no GPU here. Set it to "
            "false, or train with one process."
        )
    synchronised: LuabModel = convert_sync_batchnorm(model)
    return synchronised


def optimizer_of(
    weights: nn.Module | list[dict[str, Any]], recipe: Recipe | TransferRecipe, device: torch.device
) -> torch.optim.Optimizer:
    """Builds a recipe's optimiser.

    Args:
        weights: A model, whose biases and norm layers have no weight decay, or groups of weights with their own.
        recipe: Gives optimiser, learning rate, weight decay and momentum.
        device: Decides how the optimiser goes through the weights.

    Raises:
        ConfigError: timm has no such optimiser, or refuses its settings.
    """
    options: dict[str, Any] = {}
    try:
        # Only torch's own have `fused`; theirs compute the same with `foreach` as one by one, bit for bit.
        if "fused" in inspect.signature(get_optimizer_class(recipe.optimizer, bind_defaults=False)).parameters:
            options = {"fused": True} if device.type == "cuda" else {"foreach": True}
        return create_optimizer_v2(
            weights,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **options,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"optimizer {recipe.optimizer!r}: timm refused it ({error}). Correct `optimizer` in the recipe."
        ) from error


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restores an optimiser's `state_dict`, which may be from another device."""
    # Those of the device that the state is from decide where torch puts the counters of steps.
    for group, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group |= {name: own[name] for name in ("fused", "foreach") if name in own}
    optimizer.load_state_dict(state)


def seed_everything(seed: int, device: torch.device, threads: int) -> None:
    """Seeds all random generators of a training; on a CPU also sets threads and deterministic algorithms.

    On a GPU cuDNN chooses the fastest algorithm of each convolution.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
    else:
        torch.backends.cudnn.benchmark = True  # all batches have one shape


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the state of all random generators of this process, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restores what `random_state` returned."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
