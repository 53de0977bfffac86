"""Training of one run: the loop, readable in one sitting."""

import contextlib
import csv
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import nn

from luab.data.images.coco import CocoAB
from luab.data.images.imagenet import ImageNetAB, check_images
from luab.data.images.loader import EpochBatches, plain_errors, training_loader
from luab.data.images.pack import Pack
from luab.data.manifests.manifest import read_manifest
from luab.errors import ConfigError, DataError, JobError
from luab.files import file_sha256, read_json, remove_leftovers, replacing, write_json
from luab.progress import progress
from luab.study.config import LABELLING, Coco, Recipe, Split, Study
from luab.study.paths import DATASET, Run, card
from luab.study.roots import source_root
from luab.training.checkpoint import load_newest_state, read_card, remove_states, save_model, save_state
from luab.training.device import choose_device
from luab.training.distributed import Processes, joined
from luab.training.heartbeat import Heartbeat
from luab.training.pretrained import download, put_into, read_backbone
from luab.training.trainer import SUMS, Asked, Trainer, seed_everything

COLUMNS = ("epoch", "lr", *SUMS)
_SECONDS_BETWEEN_STATES = 600.0


def train(
    study: Study, run: Run, provenance: dict[str, Any] | None = None, ready: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Trains one run and writes model.safetensors, log.csv and, last, run.json.

    An unfinished training of the same configuration is taken up where it stopped; a warning signal
    (SIGTERM, SIGUSR2) writes that state after one more step. Where the configuration asks for several processes, each
    of them calls this in torchrun's environment (`luab train` starts them); the first one alone writes.

    Args:
        study: The configuration.
        run: One of `study.runs()`, or any other combination.
        provenance: Versions, commit and hardware, added to run.json.
        ready: Called once, when a warning signal is listened for.

    Returns:
        The content of run.json; empty in other processes than the first.

    Raises:
        ConfigError: Unknown backbone, or batches larger than the training set.
        DataError: Missing or damaged images, manifest or targets.
        JobError: A loss that is not finite, a warning signal, a lost process, or too few GPUs.
    """
    processes = Processes.here()
    if processes.count != study.compute.processes:
        raise JobError(
            f"{run.folder}: compute.gpus x compute.nodes asks for {study.compute.processes} processes, found "
            f"{processes.count}. `luab train {run.folder}` starts as many as are asked for."
        )
    device = choose_device(study, processes)
    with joined(processes, device), _warned() as warning:
        if ready is not None:
            ready()
        return _train(study, run, provenance or {}, device, processes, warning)


def _train(
    study: Study, run: Run, provenance: dict[str, Any], device: torch.device, processes: Processes, warning: list[str]
) -> dict[str, Any]:
    recipe, split = study.recipe(run.backbone, run.dataset), study.split(run.backbone, run.dataset)
    folder = study.layout.run(run)
    seed_everything(run.seed, device, study.compute.threads_each)
    dataset, inputs = training_set(study, run)
    steps = len(dataset) // recipe.batch_size
    if steps == 0:
        raise ConfigError(
            f"{run.folder}: a batch of {recipe.batch_size} is larger than the training set of "
            f"{len(dataset)} images. Lower batch_size in the recipe."
        )
    begin = _beginning(study, run, recipe, inputs)
    trainer = Trainer.build(run, recipe, split, steps, device, processes, begin)
    # Again, since the byproduct head drew numbers: baseline and LUAB go on with equal ones. Each process drops other
    # paths and mixes other pairs.
    seed_everything(run.seed + processes.rank, device, study.compute.threads_each)
    key = _key(run, recipe, split, inputs)
    _go_on(trainer, folder, key)
    heart = Heartbeat(folder, run.folder, recipe.epochs, steps, recipe.batch_size, processes.count, processes.first)
    started = time.monotonic()
    result: dict[str, Any] = {}
    with _attempt(heart, trainer):
        _fit(trainer, dataset, study, warning, heart, lambda: _keep(trainer, folder, key))
        # A warning from here on is let pass: the last writes are sooner done than a restart.
        if processes.first:
            identity = {"run": run.identity(), "recipe": recipe.model_dump(mode="json"), "inputs": inputs}
            result = {
                **identity,
                "images": len(dataset),
                "points": dataset.taught_points,
                "seconds": round(time.monotonic() - started, 1),
                "images_per_s": round(heart.images_per_s(trainer.done), 1),
                "attempts": heart.attempts(),
                "device": str(device),
                "processes": processes.count,
                "final": dict(zip(COLUMNS, trainer.log[-1], strict=True)),
                **provenance,
            }
            _write(folder, trainer, identity, result)
            remove_states(folder)
        processes.wait()
    return result


def training_set(study: Study, run: Run) -> tuple[ImageNetAB | CocoAB, dict[str, str]]:
    """The images and points of a run, checked before the first step, and digests of what made them.

    Raises:
        DataError: Manifest, targets or images are missing.
    """
    name = f"{run.dataset}_train"
    root, manifest = source_root(study, name), study.layout.manifest(name)
    rows = read_manifest(manifest)
    targets = None if run.points is None else study.layout.target(run.points, run.dataset)
    inputs = {name: read_json(card(manifest))["ids_sha256"]}
    make = _imagenet_set if run.dataset == DATASET else _coco_set
    dataset = make(study, run, root, rows, targets, inputs)
    if targets is not None:
        inputs[f"targets_{run.points}"] = read_json(card(targets))["sha256"]
    return dataset, inputs


def _imagenet_set(
    study: Study, run: Run, root: Path, rows: pd.DataFrame, targets: Path | None, inputs: dict[str, str]
) -> ImageNetAB:
    pack = None
    if study.packing is not None:
        pack = Pack(study.layout.pack("imagenet_train"), study.packing, pa.array(rows["image_id"]))
    else:
        check_images(root, rows["path"].to_numpy())
    # What is not the rule is named: files read exactly leave no mark in a model's card.
    if pack is not None:
        inputs["pack"] = pack.card["sha256"]
    if study.decoding != "exact":
        inputs["decoding"] = study.decoding
    return ImageNetAB(root, rows, targets, study.recipe(run.backbone), run.seed, study.decoding, pack)


def _coco_set(
    study: Study, run: Run, root: Path, rows: pd.DataFrame, targets: Path | None, inputs: dict[str, str]
) -> CocoAB:
    """ASSUME: which labels a crop of COCO keeps is decided by the clicks for every run, so that baseline, control and
    LUAB see the same labels and differ in the regressed points alone; the official loader knows one kind of points.
    """
    check_images(root, rows["path"].to_numpy())
    recipe, part = study.recipe(run.backbone, run.dataset), study.part(run.dataset)
    labelling = None
    if isinstance(part, Coco) and part.keep_labels:
        inputs["labels"] = "as annotated"
    else:
        labelling = study.layout.target(LABELLING, run.dataset)
        inputs[f"labels_{LABELLING}"] = read_json(card(labelling))["sha256"]
    return CocoAB(root, rows, targets, recipe, run.seed, keep_labels=labelling is None, labelling=labelling)


def _beginning(study: Study, run: Run, recipe: Recipe, inputs: dict[str, str]) -> Callable[[nn.Module], None]:
    """Gives a backbone the weights that the recipe begins with; their digest goes to `inputs`.

    Raises:
        DataError: They are missing, damaged, another model's, or not those that the recipe names.
    """
    if recipe.initial == "random":
        return lambda backbone: None
    if recipe.initial == "imagenet":
        baseline = run.imagenet_baseline
        file, what = study.layout.model(baseline), f"the weights of {baseline.folder}"
        if read_card(file).get("run") != baseline.identity():
            raise DataError(f"{file}: expected {what}, found another run's. Remove it and train that run again.")
    else:
        file, what = download(run.backbone), f"timm's weights of {run.backbone}"
    inputs["initial"] = file_sha256(file)
    if recipe.initial_sha256 not in (None, inputs["initial"]):
        raise DataError(
            f"{file}: expected {what} with the SHA-256 {recipe.initial_sha256} of the recipe, found "
            f"{inputs['initial']}. They changed upstream or the file is damaged; correct "
            "`initial_sha256` only if you mean these weights."
        )
    tensors = read_backbone(file)
    return lambda backbone: put_into(backbone, tensors, f"{file}: expected {what}", new_classifier=True)


def _go_on(trainer: Trainer, folder: Path, key: str) -> None:
    """Takes up an unfinished training, in all processes from the same place."""
    first = trainer.processes.first
    if first:
        remove_leftovers(folder)
    kept = load_newest_state(folder, key, _say if first else lambda _: None)
    if kept is not None:
        trainer.restore(kept)
    places = trainer.processes.gather([trainer.epoch, trainer.batch])
    if any(place != places[0] for place in places):
        raise DataError(
            f"{folder}: the processes of this training found different states (epoch, batch: {places}); mostly a "
            "shared disk that is behind. Give the same command again."
        )
    if first:
        _say(f"{trainer.run.folder}: {trainer.split}")
        if kept is not None:
            _say(f"{trainer.run.folder}: going on at epoch {trainer.epoch}, batch {trainer.batch}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fit(
    trainer: Trainer,
    dataset: ImageNetAB | CocoAB,
    study: Study,
    warning: list[str],
    heart: Heartbeat,
    keep: Callable[[], None],
) -> None:
    recipe, compute, processes = trainer.recipe, study.compute, trainer.processes
    saved = time.monotonic()

    def wish() -> Asked:
        due = processes.first and time.monotonic() - saved > _SECONDS_BETWEEN_STATES
        return Asked(stop=bool(warning), save=due)

    def answer(asked: Asked) -> None:
        nonlocal saved
        if asked.stop or asked.save:
            keep()
            saved = time.monotonic()
        if asked.stop:
            names = [name for heard in processes.gather(warning) for name in heard]
            raise Stopped(
                f"{trainer.run.folder}: stopped by {names[0]} at epoch {trainer.epoch}, batch {trainer.batch}. "
                "The state is kept; the same command goes on from there."
            )

    answer(Asked(stop=any(processes.gather(bool(warning)))))  # came while images and model were prepared
    with plain_errors(), _shown(trainer) as advance:
        advance(trainer.done)
        while trainer.epoch < recipe.epochs:
            dataset.epoch = trainer.epoch
            share = (processes.rank, processes.count)
            batches = EpochBatches(
                len(dataset), recipe.batch_size, trainer.run.seed, trainer.epoch, trainer.batch, share
            )
            for batch in training_loader(dataset, batches, compute.workers_each, trainer.device.type == "cuda"):
                answer(trainer.step(batch, wish))
                advance(1)
                heart.beat(trainer.epoch, trainer.done, trainer.mean_loss)
            answer(trainer.read())
            line = trainer.end_epoch()
            heart.beat(trainer.epoch, trainer.done, trainer.mean_loss, now=True)
            if processes.first:
                text = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(SUMS, line[2:], strict=True))
                _say(f"{trainer.run.folder}: epoch {line[0]}: {text}")


class Stopped(JobError):
    """A warning signal came and the state is kept."""


@contextlib.contextmanager
def _attempt(heart: Heartbeat, trainer: Trainer) -> Iterator[None]:
    """Notes how this start began and ended."""
    heart.start(trainer.epoch, trainer.done)
    try:
        yield
    except BaseException as error:
        heart.end("stopped" if isinstance(error, Stopped) else "failed", trainer.epoch, trainer.done, trainer.mean_loss)
        raise
    heart.end("finished", trainer.epoch, trainer.done, trainer.mean_loss)


def _shown(trainer: Trainer) -> contextlib.AbstractContextManager[Callable[[float], None]]:
    if trainer.processes.first:
        return progress(trainer.run.folder, trainer.recipe.epochs * trainer.steps, "steps")
    return contextlib.nullcontext(lambda _: None)


def _keep(trainer: Trainer, folder: Path, key: str) -> None:
    state = trainer.state(key)
    if trainer.processes.first:
        save_state(folder, state)
    trainer.processes.wait()  # who ends earlier would be taken for dead while the first still writes


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


def _key(run: Run, recipe: Recipe, split: Split, inputs: dict[str, str]) -> str:
    return f"{run.folder} {recipe.model_dump_json()} {split} {sorted(inputs.items())}"


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
