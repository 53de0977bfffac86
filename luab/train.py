"""Training of one run: the loop, readable in one sitting."""

import contextlib
import csv
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from luab.checkpoint import load_state, save_model, save_state
from luab.config import Recipe, Study
from luab.data.dataset import ImageNetAB, check_images
from luab.data.loader import EpochBatches, plain_errors, to_device, training_loader
from luab.data.manifest import read_manifest
from luab.data.pack import Pack
from luab.errors import ConfigError, JobError
from luab.files import file_sha256, read_json, remove_leftovers, replacing, write_json
from luab.model import LuabModel, Normalise, build_model
from luab.objective import LuabLoss, PointMixup
from luab.paths import Run, card
from luab.progress import progress
from luab.sources import source_root

PARTS = ("loss", "classification", "byproduct")
COLUMNS = ("epoch", "lr", *PARTS, "points")
_SECONDS_BETWEEN_STATES = 600.0


@dataclass
class Trainer:
    """Everything that changes while a run is trained; `state` and `restore` make it resumable."""

    model: LuabModel
    optimizer: torch.optim.Optimizer
    scheduler: CosineLRScheduler
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    device: torch.device
    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PARTS, "points"), 0.0))
    log: list[list[float]] = field(default_factory=list)

    def state(self, key: str) -> dict[str, Any]:
        """What a later process needs to go on from the next batch."""
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
            "random": _random_state(self.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums, self.log = dict(state["sums"]), [list(row) for row in state["log"]]
        _restore_random_state(state["random"], self.device)


def train(study: Study, run: Run, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """Trains one run and writes model.safetensors, log.csv and, last, run.json.

    An unfinished training of the same configuration is taken up where it stopped; a warning signal
    (SIGTERM, SIGUSR2) writes that state at the next step.

    Args:
        study: The configuration.
        run: One of `study.runs()`, or any other combination.
        provenance: Versions, commit and hardware, added to run.json.

    Returns:
        The content of run.json.

    Raises:
        ConfigError: Unknown backbone, or batches larger than the training set.
        DataError: Missing or damaged images, manifest or targets.
        JobError: A loss that is not finite, or a warning signal.
    """
    recipe, folder = study.recipe(run.backbone), study.layout.run(run)
    device = choose_device(study)
    _seed_everything(run.seed, device, study.compute.threads)
    dataset, inputs = training_set(study, run)
    steps = len(dataset) // recipe.batch_size
    if steps == 0:
        raise ConfigError(
            f"{run.folder}: a batch of {recipe.batch_size} is larger than the training set of "
            f"{len(dataset)} images. Lower batch_size in the recipe."
        )
    trainer = _build(run, recipe, device, steps)
    # Again, since the byproduct head drew numbers: baseline and LUAB go on with equal ones.
    _seed_everything(run.seed, device, study.compute.threads)
    remove_leftovers(folder)
    key = _key(run, recipe, inputs)
    state_file = folder / "state.pt"
    if (kept := load_state(state_file, key)) is not None:
        trainer.restore(kept)
        print(f"{run.folder}: going on at epoch {trainer.epoch}, batch {trainer.batch}", file=sys.stderr)
    started = time.monotonic()
    identity = {"run": run.identity(), "recipe": recipe.model_dump(mode="json"), "inputs": inputs}
    with _warned() as warning:
        _fit(trainer, dataset, recipe, run, study, warning, lambda: save_state(state_file, trainer.state(key)))
        # A warning from here on is let pass: the last writes are sooner done than a restart.
        result = {
            **identity,
            "images": len(dataset),
            "points": int(np.isfinite(dataset.points[:, 0]).sum()),
            "seconds": round(time.monotonic() - started, 1),
            "device": str(device),
            "final": dict(zip(COLUMNS, trainer.log[-1], strict=True)),
            **(provenance or {}),
        }
        _write(folder, trainer, identity, result)
        state_file.unlink(missing_ok=True)
    return result


def choose_device(study: Study) -> torch.device:
    """The device that the config asks for.

    Raises:
        JobError: "cuda" is asked for and there is none.
    """
    wanted, there = study.compute.device, torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise JobError(
            "compute.device is 'cuda', but torch sees no GPU here. Submit this job to a GPU node, or see "
            "`luab doctor` for a driver that is too old for this build of torch."
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def training_set(study: Study, run: Run) -> tuple[ImageNetAB, dict[str, str]]:
    """The images and points of a run, checked before the first step, and digests of what made them.

    Raises:
        DataError: Manifest, targets or images are missing.
    """
    root = source_root(study, "imagenet_train")
    manifest = study.layout.manifest("imagenet_train")
    rows = read_manifest(manifest)
    targets = None if run.supervision == "none" else study.layout.target(run.supervision)
    pack = None
    if study.packing is not None:
        pack = Pack(study.layout.pack("imagenet_train"), study.packing, pa.array(rows["image_id"]))
    else:
        check_images(root, rows["path"].to_numpy())
    dataset = ImageNetAB(root, rows, targets, study.recipe(run.backbone), run.seed, study.decoding, pack)
    inputs = {"imagenet_train": read_json(card(manifest))["ids_sha256"]}
    # What is not the rule is named: files read exactly leave no mark in a model's card.
    if pack is not None:
        inputs["pack"] = pack.card["sha256"]
    if study.decoding != "exact":
        inputs["decoding"] = study.decoding
    if targets is not None:
        inputs[f"targets_{run.supervision}"] = read_json(card(targets))["sha256"]
    return dataset, inputs


def _build(run: Run, recipe: Recipe, device: torch.device, steps: int) -> Trainer:
    model = build_model(run.backbone, recipe, byproducts=run.supervision != "none").to(device)
    if recipe.channels_last and device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"optimizer {recipe.optimizer!r}: timm refused it ({error}). Correct the recipe.") from error
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        lr_min=recipe.min_lr,
        warmup_t=round(recipe.warmup_epochs * steps),
        warmup_lr_init=recipe.lr / 100 if recipe.warmup_epochs else recipe.lr,
        t_in_epochs=False,
    )
    ema = None if recipe.ema_decay is None else ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16" and device.type == "cuda")
    return Trainer(model, optimizer, scheduler, scaler, ema, device)


def _fit(
    trainer: Trainer,
    dataset: ImageNetAB,
    recipe: Recipe,
    run: Run,
    study: Study,
    warning: list[str],
    keep: Callable[[], None],
) -> None:
    loss = LuabLoss(run.weight, recipe.label_smoothing)
    mixup = PointMixup(recipe) if recipe.mixup or recipe.cutmix else None
    normalise = Normalise().to(trainer.device)
    steps, saved = len(dataset) // recipe.batch_size, time.monotonic()
    with plain_errors(), progress(run.folder, recipe.epochs * steps, "steps") as advance:
        advance(trainer.epoch * steps + trainer.batch)
        while trainer.epoch < recipe.epochs:
            dataset.epoch = trainer.epoch
            batches = EpochBatches(len(dataset), recipe.batch_size, run.seed, trainer.epoch, trainer.batch)
            workers, pinned = study.compute.workers, trainer.device.type == "cuda"
            for batch in training_loader(dataset, batches, workers, pinned):
                _step(trainer, batch, recipe, loss, mixup, normalise, trainer.epoch * steps + trainer.batch)
                trainer.batch += 1
                advance(1)
                if warning or time.monotonic() - saved > _SECONDS_BETWEEN_STATES:
                    keep()
                    saved = time.monotonic()
                if warning:
                    raise JobError(
                        f"{run.folder}: stopped by {warning[0]} at epoch {trainer.epoch}, batch "
                        f"{trainer.batch}. The state is kept; the same command goes on from there."
                    )
            _end_epoch(trainer, steps, run)


def _step(
    trainer: Trainer,
    batch: list[torch.Tensor],
    recipe: Recipe,
    loss: LuabLoss,
    mixup: PointMixup | None,
    normalise: nn.Module,
    step: int,
) -> None:
    device = trainer.device
    images, labels, points, weights = (to_device(part, device) for part in batch)
    images, weights = normalise(images), weights.float()
    survived = weights.sum()
    if recipe.channels_last and device.type == "cuda":
        images = images.to(memory_format=torch.channels_last)
    if mixup is not None:
        images, labels, points, weights = mixup(images, labels, points, weights)
    trainer.scheduler.step_update(step)
    precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.amp)
    trainer.model.train()
    with torch.autocast(device.type, precision, enabled=precision is not None and device.type == "cuda"):
        logits, predicted = trainer.model(images)
    parts = loss(logits.float(), predicted, labels, points, weights)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.scaler.scale(parts["loss"]).backward()
    if recipe.clip_grad is not None:
        trainer.scaler.unscale_(trainer.optimizer)
        nn.utils.clip_grad_norm_(trainer.model.parameters(), recipe.clip_grad)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    if trainer.ema is not None:
        trainer.ema.update(trainer.model, step=step)
    values = {name: float(part.detach()) for name, part in parts.items()} | {"points": float(survived) / len(images)}
    for name in ("classification", "byproduct", "loss"):  # the cause before the sum
        value = values[name]
        if not math.isfinite(value):
            raise JobError(
                f"{name} became {value} in step {step} (epoch {trainer.epoch}, batch {trainer.batch}). "
                "Lower the learning rate, lengthen the warm-up, or clip gradients in the recipe; nothing "
                "was written."
            )
    for name, value in values.items():
        trainer.sums[name] += value


def _end_epoch(trainer: Trainer, steps: int, run: Run) -> None:
    rate = trainer.optimizer.param_groups[0]["lr"]
    means = [trainer.sums[name] / steps for name in (*PARTS, "points")]
    trainer.log.append([trainer.epoch, rate, *means])
    text = ", ".join(f"{name} {mean:.4f}" for name, mean in zip((*PARTS, "points"), means, strict=True))
    print(f"{run.folder}: epoch {trainer.epoch}: {text}", file=sys.stderr, flush=True)
    trainer.epoch, trainer.batch = trainer.epoch + 1, 0
    trainer.sums = dict.fromkeys(trainer.sums, 0.0)


def _write(folder: Path, trainer: Trainer, identity: dict[str, Any], result: dict[str, Any]) -> None:
    trained = trainer.ema.module if trainer.ema is not None else trainer.model
    # The last step's gradient may have been infinite under a finite loss.
    for name, tensor in trained.state_dict().items():
        if not tensor.isfinite().all():
            raise JobError(
                f"{name} holds NaN or infinite weights after the last step. Lower the learning rate or clip "
                "gradients in the recipe; nothing was written."
            )
    save_model(folder / "model.safetensors", trained, identity)
    _write_log(folder / "log.csv", trainer.log)
    result["model_sha256"] = file_sha256(folder / "model.safetensors")
    write_json(folder / "run.json", result)


def _write_log(path: Path, rows: list[list[float]]) -> None:
    with replacing(path) as aside, open(aside, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([[int(row[0]), *(f"{value:.9g}" for value in row[1:])] for row in rows])


def _key(run: Run, recipe: Recipe, inputs: dict[str, str]) -> str:
    return f"{run.folder} {recipe.model_dump_json()} {sorted(inputs.items())}"


def _seed_everything(seed: int, device: torch.device, threads: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)


def _random_state(device: torch.device) -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextlib.contextmanager
def _warned() -> Iterator[list[str]]:
    """Yields a list that a warning signal fills with its name; outside the main thread it stays empty."""
    warning: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield warning
        return
    kept = {}
    for number in (signal.SIGTERM, signal.SIGUSR2):
        kept[number] = signal.signal(number, lambda number, _: warning.append(signal.Signals(number).name))
    try:
        yield warning
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
