"""Fine-tuning of a finished run's backbone on a dense data set, to model.safetensors, log.csv and run.json."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm

from luab.data.dense.augmentations import augmentation
from luab.data.dense.dense_sets import dense_set
from luab.data.images.loader import EpochBatches, plain_errors
from luab.errors import ConfigError, JobError
from luab.files import lines_sha256, read_json
from luab.progress import progress
from luab.study.config import Study
from luab.study.paths import card
from luab.study.transfers import POINTS, POINTS_OF, FineTuning
from luab.training.checkpoint import Stopped, last_line, remove_states, resume, save_progress, write_results
from luab.training.device import choose_device
from luab.training.distributed import Processes, joined
from luab.training.heartbeat import Heartbeat
from luab.training.own_process import caught_warnings
from luab.training.trainer import Flags, seed_everything
from luab.transfer.batches import DenseImages, training_batches
from luab.transfer.losses import loss_of
from luab.transfer.setup import Setup, setup_of
from luab.transfer.tuner import Tuner

_SECONDS_BETWEEN_STATES = 600.0


def fit(
    study: Study,
    fine_tuning: FineTuning,
    provenance: dict[str, Any] | None = None,
    ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Fine-tunes the backbone of a finished run, and writes model.safetensors, log.csv and, last, run.json.

    An unfinished fine-tuning of the same configuration is resumed; on the CPU it ends with the same bytes as without
    the interruption. A warning signal (SIGTERM, SIGUSR2) makes it finish one more step, save its state and stop. If
    the config asks for several processes, `luab transfer train` starts them and each of them calls this function.

    Args:
        study: The configuration.
        fine_tuning: Any fine-tuning of its `transfer`.
        provenance: Versions, commit and hardware, added to run.json.
        ready: Called once, when warning signals are handled.

    Returns:
        The content of run.json; empty in all processes but the first.

    Raises:
        ConfigError: timm has no feature maps of the backbone, or the batch does not fit the processes or the data.
        DataError: The run is not finished, or images or annotations are missing or damaged.
        JobError: A loss was not finite, a warning signal was received, a process was lost, or there are too few GPUs.
    """
    setup, transfer = setup_of(study, fine_tuning), study.transfer[fine_tuning.transfer]
    recipe = setup.recipe
    transforms = augmentation(recipe.shorter_px, recipe.longest_px, recipe.scale_jitter, recipe.flip, recipe.crop_px)
    images = dense_set(study, transfer.data, "train", transfer.mode, transforms, setup.seed)
    inputs = {f"{transfer.data}_train": lines_sha256(images.image_ids)}
    if transfer.mode == "points":
        targets = study.layout.target(POINTS, POINTS_OF[transfer.data])
        inputs[f"targets_{POINTS}"] = read_json(card(targets))["sha256"]
    return fit_setup(study, setup, images, inputs, provenance, ready)


def fit_setup(
    study: Study,
    setup: Setup,
    images: DenseImages,
    inputs: dict[str, str],
    provenance: dict[str, Any] | None = None,
    ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Like `fit`, for any images with targets.

    Args:
        study: Gives the resources: device, processes, loader processes.
        setup: What is fine-tuned.
        images: Images and targets of the training.
        inputs: Digests of the data by name, for run.json.
        provenance: As for `fit`.
        ready: As for `fit`.
    """
    processes = Processes.here()
    if processes.count != study.compute.processes:
        raise JobError(
            f"{setup.name}: compute.gpus x compute.nodes sets {study.compute.processes} processes, found "
            f"{processes.count}. Use `luab transfer train {setup.name}`, which starts all of them."
        )
    _check_batch(setup, len(images), processes.count)
    device = choose_device(study, processes)
    with joined(processes, device), caught_warnings() as warnings:
        if ready is not None:
            ready()
        tuner = _tuner(study, setup, len(images) // setup.recipe.batch_size, device, processes)
        key = json.dumps([setup.name, setup.card(), inputs, processes.count, tuner.columns], sort_keys=True)
        resumed = resume(tuner, setup.folder, key, _log)
        if processes.first and resumed:
            _log(f"{setup.name}: resuming at epoch {tuner.epoch}, batch {tuner.batch}")
        recipe, started = setup.recipe, time.monotonic()
        heart = Heartbeat(
            setup.folder, setup.name, recipe.epochs, tuner.steps, recipe.batch_size, processes.count, processes.first
        )
        with _attempt(tuner, heart):
            _train(tuner, setup, images, study, warnings, key, heart)
            result: dict[str, Any] = {}
            if processes.first:
                result |= {
                    **setup.card(),
                    "inputs": inputs,
                    "images": len(images),
                    "seconds": round(time.monotonic() - started, 1),
                    "images_per_s": round(heart.images_per_s(tuner.done), 1),
                    "attempts": heart.attempts(),
                    "device": str(device),
                    "processes": processes.count,
                    "final": last_line(tuner.columns, tuner.log),
                    **(provenance or {}),
                }
                write_results(setup.folder, tuner.network, setup.card(), tuner.columns, tuner.log, result)
                remove_states(setup.folder)
            processes.wait()
    return result


def _check_batch(setup: Setup, images: int, processes: int) -> None:
    size = setup.recipe.batch_size
    if size % processes:
        raise ConfigError(
            f"{setup.name}: batch_size {size} of the recipe is not divisible by {processes} processes (compute.gpus x "
            "compute.nodes). Change one of them."
        )
    if size > images:
        raise ConfigError(
            f"{setup.name}: a batch of {size} is larger than the training set of {images} images. Lower batch_size in "
            "the recipe."
        )
    if setup.task != "detection" and setup.recipe.crop_px is None:
        raise ConfigError(
            f"{setup.name}: segmentation trains on crops of one size. Set crop_px in the recipe, for example to "
            f"{setup.recipe.shorter_px}."
        )


def _tuner(study: Study, setup: Setup, steps: int, device: torch.device, processes: Processes) -> Tuner:
    seed_everything(setup.seed, device, study.compute.threads_each)
    if device.type == "cuda" and setup.task == "detection":
        torch.backends.cudnn.benchmark = False  # batches differ in size, and each size would be measured anew
    network = setup.new_network().to(device)
    if processes.count > 1 and device.type == "cuda":  # torch has no such layer for CPUs
        # SOURCE: torchvision's references/segmentation/train.py; statistics of the batch, not of a GPU's few images.
        network = convert_sync_batchnorm(network)
    # Seed again: fine-tunings of all backbones continue with equal numbers, and each process has its own.
    torch.manual_seed(setup.seed + processes.rank)
    return Tuner(network, loss_of(setup.task, setup.recipe), setup.recipe, steps, device, processes)


def _train(
    tuner: Tuner,
    setup: Setup,
    images: DenseImages,
    study: Study,
    warnings: list[signal.Signals],
    key: str,
    heart: Heartbeat,
) -> None:
    recipe, processes = setup.recipe, tuner.processes
    saved = time.monotonic()

    def own_flags() -> Flags:
        due = processes.first and time.monotonic() - saved > _SECONDS_BETWEEN_STATES
        return Flags(stop=bool(warnings), save=due)

    def obey(flags: Flags) -> None:
        nonlocal saved
        if flags.stop or flags.save:
            save_progress(tuner, setup.folder, key, flags.stop, _SECONDS_BETWEEN_STATES, _log)
            saved = time.monotonic()
        if flags.stop:
            names = [warning.name for received in processes.gather(warnings) for warning in received]
            raise Stopped(
                f"{setup.name}: stopped by {names[0]} at epoch {tuner.epoch}, batch {tuner.batch}. The state is saved; "
                "the same command resumes from there."
            )

    obey(Flags(stop=any(processes.gather(bool(warnings)))))  # received while images and network were prepared
    share = (processes.rank, processes.count)
    batches = EpochBatches(len(images), recipe.batch_size, setup.seed, tuner.epoch, tuner.batch, share)
    pinned = tuner.device.type == "cuda"
    items = training_batches(images, batches, recipe.epochs, study.compute.workers_each, pinned, tuner.loss.used)
    with plain_errors(), _progress_bar(tuner, setup) as advance:
        advance(tuner.done)
        for epoch, batch, targets in items:
            if batch is None or targets is None:
                tuner.read()
                obey(tuner.flags())
                _end_epoch(tuner, setup, heart)
            else:
                flags = tuner.step(batch, targets, own_flags)
                heart.beat(epoch, tuner.done, tuner.mean_loss)
                advance(1)
                obey(flags)


def _end_epoch(tuner: Tuner, setup: Setup, heart: Heartbeat) -> None:
    line = tuner.end_epoch()
    heart.beat(tuner.epoch, tuner.done, tuner.mean_loss, now=True)
    if tuner.processes.first:
        text = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(tuner.columns[2:], line[2:], strict=True))
        _log(f"{setup.name}: epoch {line[0]}: {text}")


@contextlib.contextmanager
def _attempt(tuner: Tuner, heart: Heartbeat) -> Iterator[None]:
    """Records the start and the outcome of this attempt."""
    heart.start(tuner.epoch, tuner.done)
    try:
        yield
    except BaseException as error:
        outcome = "stopped" if isinstance(error, Stopped) else "failed"
        heart.end(outcome, tuner.epoch, tuner.done, tuner.mean_loss)  # type: ignore[arg-type]
        raise
    heart.end("finished", tuner.epoch, tuner.done, tuner.mean_loss)


def _progress_bar(tuner: Tuner, setup: Setup) -> contextlib.AbstractContextManager[Callable[[float], None]]:
    if tuner.processes.first:
        return progress(setup.name, tuner.recipe.epochs * tuner.steps, "steps")
    return contextlib.nullcontext(lambda _: None)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
