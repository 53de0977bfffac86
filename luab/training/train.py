"""Training of one run, from the checked inputs to model.safetensors, log.csv and run.json."""

import contextlib
import csv
import errno
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luab.data.images.loader import EpochBatches, plain_errors, training_loader
from luab.data.images.training_images import TrainingImages
from luab.data.manifests.manifest import read_manifest
from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256, read_json, remove_leftovers, replacing, write_json
from luab.progress import progress
from luab.study.config import Recipe, Study
from luab.study.paths import Run, card
from luab.study.recipes import Preprocessing
from luab.study.roots import source_root
from luab.tasks import task_of
from luab.training.checkpoint import (
    STATES,
    load_newest_state,
    preprocessing_in,
    read_card,
    remove_states,
    save_model,
    save_state,
)
from luab.training.device import choose_device
from luab.training.distributed import Processes, joined
from luab.training.heartbeat import Heartbeat
from luab.training.own_process import caught_warnings
from luab.training.pretrained import download, preprocessing_of, put_into, read_backbone
from luab.training.trainer import Flags, Trainer, seed_everything

_SECONDS_BETWEEN_STATES = 600.0


class Stopped(JobError):
    """A warning signal was received; the state is saved."""


def train(
    study: Study, run: Run, provenance: dict[str, Any] | None = None, ready: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Trains one run and writes model.safetensors, log.csv and, last, run.json.

    An unfinished training of the same configuration is resumed. A warning signal (SIGTERM, SIGUSR2) makes it finish
    one more step, save its state and stop. If the config asks for several processes, `luab train` starts them, each
    of them calls this function, and only the first one writes files. RANK and WORLD_SIZE of other launchers are
    ignored.

    Args:
        study: The configuration.
        run: One of `study.runs()`, or any other combination.
        provenance: Versions, commit and hardware, added to run.json.
        ready: Called once, when warning signals are handled.

    Returns:
        The content of run.json; empty in all processes but the first.

    Raises:
        ConfigError: Unknown backbone, or a batch larger than the training set.
        DataError: Images, manifest or targets are missing or damaged.
        JobError: A loss was not finite, a warning signal was received, a process was lost, or there are too few GPUs.
    """
    processes = Processes.here()
    if processes.count != study.compute.processes:
        raise JobError(
            f"{run.folder}: compute.gpus x compute.nodes sets {study.compute.processes} processes, found "
            f"{processes.count}. Start this training with `luab train {run.folder}`, which starts all of them."
        )
    device = choose_device(study, processes)
    with joined(processes, device), caught_warnings() as warnings:
        if ready is not None:
            ready()
        return _train(study, run, provenance or {}, device, processes, warnings)


def _train(
    study: Study,
    run: Run,
    provenance: dict[str, Any],
    device: torch.device,
    processes: Processes,
    warnings: list[signal.Signals],
) -> dict[str, Any]:
    recipe, split = study.recipe(run.backbone, run.dataset), study.split(run.backbone, run.dataset)
    folder = study.layout.run(run)
    seed_everything(run.seed, device, study.compute.threads_each)
    task = task_of(run.dataset)
    dataset, inputs = training_set(study, run)
    steps = len(dataset) // recipe.batch_size
    if steps == 0:
        raise ConfigError(
            f"{run.folder}: a batch of {recipe.batch_size} is larger than the training set of "
            f"{len(dataset)} images. Lower batch_size in the recipe."
        )
    initialise, preprocessing = _initial_weights(study, run, recipe, inputs)
    if preprocessing.weights is not None:
        dataset.prepare_for(recipe, preprocessing)
    outputs = task.outputs(study, run)
    trainer = Trainer.build(
        run, recipe, outputs, split, steps, device, processes, initialise, preprocessing, study.supervision(run).use
    )  # fmt: skip
    # Seed again: creating the byproduct head drew numbers, and baseline and LUAB must continue with equal ones. Each
    # process has its own seed, for stochastic depth and mixup.
    seed_everything(run.seed + processes.rank, device, study.compute.threads_each)
    settings = task.settings(study)
    key = f"{run.folder} {recipe.model_dump_json()} {split} {sorted(inputs.items())} {settings}"
    key += f" {trainer.columns}"
    if preprocessing.weights is not None:
        key += f" {preprocessing}"
        if processes.first:
            _log(f"{run.folder}: images of {recipe.input_px} px as these weights need them: {preprocessing}")
    _resume(trainer, folder, key)
    heart = Heartbeat(folder, run.folder, recipe.epochs, steps, recipe.batch_size, processes.count, processes.first)
    started = time.monotonic()
    result: dict[str, Any] = {}
    with _attempt(heart, trainer):
        _fit(trainer, dataset, study, warnings, heart, lambda needed: _save_state(trainer, folder, key, needed))
        # Ignore signals from here on: finishing the writes is faster than restarting.
        if processes.first:
            identity = {"run": run.identity(), "recipe": recipe.model_dump(mode="json"), "inputs": inputs}
            identity["preprocessing"] = preprocessing.model_dump(mode="json")
            result = {
                **identity,
                "settings": settings,
                "images": len(dataset),
                "points": dataset.taught_points,
                "seconds": round(time.monotonic() - started, 1),
                "images_per_s": round(heart.images_per_s(trainer.done), 1),
                "attempts": heart.attempts(),
                "device": str(device),
                "processes": processes.count,
                "final": _final(trainer),
                **provenance,
            }
            _write_results(folder, trainer, identity, result)
            remove_states(folder)
        processes.wait()
    return result


def training_set(study: Study, run: Run) -> tuple[TrainingImages[Any], dict[str, str]]:
    """Builds the training set of a run and checks that its images exist.

    Returns:
        The data set, and the digests of its inputs by name.

    Raises:
        DataError: Manifest, targets or images are missing.
    """
    task = task_of(run.dataset)
    root, manifest = source_root(study, task.train), study.layout.manifest(task.train)
    rows = read_manifest(manifest)
    target = study.supervision(run).target
    targets = None if target is None else study.layout.target(target, run.dataset)
    inputs = {task.train: read_json(card(manifest))["ids_sha256"]}
    dataset = task.training_set(study, run, root, rows, targets, inputs)
    if targets is not None:
        if not dataset.taught_points:
            raise DataError(
                f"{targets}: expected points for images of {manifest}, found none for any of them; the byproduct head "
                f"would learn nothing. Run `luab targets {target} --dataset {run.dataset}` again."
            )
        inputs[f"targets_{target}"] = read_json(card(targets))["sha256"]
    return dataset, inputs


def _initial_weights(
    study: Study, run: Run, recipe: Recipe, inputs: dict[str, str]
) -> tuple[Callable[[nn.Module], None], Preprocessing]:
    """Prepares the recipe's initial weights and adds their digest to `inputs`.

    Returns:
        A function that loads them into a backbone, and the preprocessing of the images that they were trained on.

    Raises:
        ConfigError: timm has no such weights, or they need a preprocessing that luab does not have.
        DataError: The weights are missing or damaged, belong to another model, or differ from the recipe's digest.
    """
    if recipe.initial == "random":
        return lambda backbone: None, Preprocessing(interpolation=recipe.eval_interpolation)
    if recipe.initial == "imagenet":
        baseline = run.imagenet_baseline
        file, what = study.layout.model(baseline), f"the weights of {baseline.folder}"
        stored = read_card(file)
        if stored.get("run") != baseline.identity():
            raise DataError(f"{file}: expected {what}, found another run's. Remove it and train that run again.")
        preprocessing = preprocessing_in(stored, file)
    else:
        preprocessing = preprocessing_of(run.backbone)
        file, what = download(run.backbone), f"timm's weights of {run.backbone}"
    inputs["initial"] = file_sha256(file)
    if recipe.initial_sha256 not in (None, inputs["initial"]):
        raise DataError(
            f"{file}: expected {what} with SHA-256 {recipe.initial_sha256} as in the recipe, found "
            f"{inputs['initial']}. The weights changed upstream or the file is damaged; change "
            "`initial_sha256` only if you want these weights."
        )
    tensors = read_backbone(file)
    return lambda backbone: put_into(backbone, tensors, f"{file}: expected {what}", new_classifier=True), preprocessing


def _resume(trainer: Trainer, folder: Path, key: str) -> None:
    """Restores the state of an unfinished training, if there is one, and checks that all processes agree."""
    first = trainer.processes.first
    if first:
        remove_leftovers(folder)
    state = load_newest_state(folder, key, _log if first else lambda _: None)
    if state is not None:
        trainer.restore(state)
    places = trainer.processes.gather([trainer.epoch, trainer.batch])
    if any(place != places[0] for place in places):
        raise DataError(
            f"{folder}: the processes of this training read different states (epoch, batch: {places}); probably a "
            "shared disk shows new files late. Run the same command again."
        )
    if first:
        _log(f"{trainer.run.folder}: {trainer.split}")
        if state is not None:
            _log(f"{trainer.run.folder}: resuming at epoch {trainer.epoch}, batch {trainer.batch}")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fit(
    trainer: Trainer,
    dataset: TrainingImages[Any],
    study: Study,
    warnings: list[signal.Signals],
    heart: Heartbeat,
    save: Callable[[bool], None],
) -> None:
    recipe, compute, processes = trainer.recipe, study.compute, trainer.processes
    saved = time.monotonic()

    def own_flags() -> Flags:
        due = processes.first and time.monotonic() - saved > _SECONDS_BETWEEN_STATES
        return Flags(stop=bool(warnings), save=due)

    def obey(flags: Flags) -> None:
        nonlocal saved
        if flags.stop or flags.save:
            save(flags.stop)
            saved = time.monotonic()
        if flags.stop:
            names = [warning.name for received in processes.gather(warnings) for warning in received]
            raise Stopped(
                f"{trainer.run.folder}: stopped by {names[0]} at epoch {trainer.epoch}, batch {trainer.batch}. "
                "The state is saved; the same command resumes from there."
            )

    obey(Flags(stop=any(processes.gather(bool(warnings)))))  # received while images and model were prepared
    with plain_errors(), _progress_bar(trainer) as advance:
        advance(trainer.done)
        while trainer.epoch < recipe.epochs:
            dataset.epoch = trainer.epoch
            share = (processes.rank, processes.count)
            batches = EpochBatches(
                len(dataset),
                recipe.batch_size,
                trainer.run.seed,
                trainer.epoch,
                trainer.batch,
                share,
                recipe.repeated_augmentation,
            )
            for batch in training_loader(dataset, batches, compute.workers_each, trainer.device.type == "cuda"):
                obey(trainer.step(batch, own_flags))
                advance(1)
                heart.beat(trainer.epoch, trainer.done, trainer.mean_loss)
            obey(trainer.read())
            if trainer.batch != trainer.steps:
                raise JobError(
                    f"{trainer.run.folder}: expected {trainer.steps} batches in epoch {trainer.epoch}, the loader "
                    f"returned {trainer.batch}. This is a bug of luab; please report it. Nothing was written."
                )
            line = trainer.end_epoch()
            heart.beat(trainer.epoch, trainer.done, trainer.mean_loss, now=True)
            if processes.first:
                text = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(trainer.columns[2:], line[2:], strict=True))
                _log(f"{trainer.run.folder}: epoch {line[0]}: {text}")


@contextlib.contextmanager
def _attempt(heart: Heartbeat, trainer: Trainer) -> Iterator[None]:
    """Records the start and the outcome of this attempt."""
    heart.start(trainer.epoch, trainer.done)
    try:
        yield
    except BaseException as error:
        heart.end("stopped" if isinstance(error, Stopped) else "failed", trainer.epoch, trainer.done, trainer.mean_loss)
        raise
    heart.end("finished", trainer.epoch, trainer.done, trainer.mean_loss)


def _progress_bar(trainer: Trainer) -> contextlib.AbstractContextManager[Callable[[float], None]]:
    if trainer.processes.first:
        return progress(trainer.run.folder, trainer.recipe.epochs * trainer.steps, "steps")
    return contextlib.nullcontext(lambda _: None)


def _save_state(trainer: Trainer, folder: Path, key: str, needed: bool) -> None:
    """Saves the state; on a full disk, one that is not needed yet is left out with a warning.

    Args:
        trainer: The training.
        folder: Folder of the run.
        key: Configuration of the training.
        needed: Whether the training ends after this state.
    """
    state = trainer.state(key)
    if trainer.processes.first:
        try:
            save_state(folder, state)
        except JobError as error:
            cause = error.__cause__
            if needed or not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log(
                f"{folder / STATES[0]}: could not be saved ({cause.strerror}); the training continues, and an older "
                f"state, if there is one, stays usable. Free some space: the next attempt is in "
                f"{_SECONDS_BETWEEN_STATES / 60:.0f} minutes."
            )
    trainer.processes.wait()  # a process that ends while the first one is still writing would count as lost


def _write_results(folder: Path, trainer: Trainer, identity: dict[str, Any], result: dict[str, Any]) -> None:
    trained = trainer.ema.module if trainer.ema is not None else trainer.model
    # The last step may have had a finite loss and an infinite gradient.
    for name, tensor in trained.state_dict().items():
        if not tensor.isfinite().all():
            raise JobError(
                f"{name} contains NaN or infinite weights after the last step. Lower the learning rate or clip "
                "gradients in the recipe. Nothing was written."
            )
    save_model(folder / "model.safetensors", trained, identity)
    with replacing(folder / "log.csv") as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(trainer.columns)
        writer.writerows([[int(row[0]), *map(_cell, row[1:])] for row in trainer.log])
    result["model_sha256"] = file_sha256(folder / "model.safetensors")
    write_json(folder / "run.json", result)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"  # only a gradient ratio can be NaN


def _final(trainer: Trainer) -> dict[str, float | None]:
    """Returns the last line of the log by name; None for NaN, which JSON does not have."""
    values = zip(trainer.columns, trainer.log[-1], strict=True)
    return {name: None if math.isnan(value) else value for name, value in values}
