"""Training of one run or a cohort, from the checked inputs to model.safetensors, log.csv and run.json."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from luab.data.images.loader import EpochBatches, ahead, plain_errors, training_loader
from luab.data.images.shared_views import SharedViews
from luab.data.images.training_images import TrainingImages
from luab.data.manifests.manifest import read_manifest
from luab.errors import ConfigError, DataError, JobError, LuabError
from luab.files import file_sha256, read_json
from luab.progress import progress
from luab.shapes import Batch
from luab.study.config import Study
from luab.study.paths import Run, card
from luab.study.recipes import Preprocessing
from luab.study.roots import source_root
from luab.tasks import task_of
from luab.training.checkpoint import (
    Stopped,
    last_line,
    preprocessing_in,
    read_card,
    remove_states,
    resume,
    save_progress,
    write_results,
)
from luab.training.compiled import compile_backbone
from luab.training.device import choose_device
from luab.training.distributed import Processes, joined
from luab.training.heartbeat import Heartbeat
from luab.training.own_process import caught_warnings
from luab.training.pretrained import first_weights, put_into, read_backbone
from luab.training.trainer import Flags, Trainer, random_state, restore_random_state, seed_everything

_SECONDS_BETWEEN_STATES = 600.0


@dataclass
class Member:
    """A training of a cohort, with random generators of its own.

    Attributes:
        key: Configuration of the training, by which its saved state is recognised.
        identity: The part of run.json that the configuration and the inputs determine.
        others: Number of trainings that share its images.
        execution: Kind of the optimiser, and whether the backbone is compiled.
        random: State of its generators while another member uses those of the process.
        error: Why it ended alone.
    """

    trainer: Trainer
    dataset: TrainingImages
    folder: Path
    key: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    heart: Heartbeat
    others: int
    execution: dict[str, str] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    error: LuabError | None = None

    @contextlib.contextmanager
    def generators(self) -> Iterator[None]:
        """Context in which the process's random generators continue those of this training."""
        if not self.others:
            yield
            return
        device = self.trainer.device
        if self.random:
            restore_random_state(self.random, device)
        yield
        self.random = random_state(device)

    def end(self, outcome: Literal["finished", "stopped", "failed"]) -> None:
        """Records the outcome of this attempt."""
        trainer = self.trainer
        self.heart.end(outcome, trainer.epoch, trainer.done, trainer.mean_loss)

    def save(self, needed: bool) -> None:
        """Saves the state."""
        with self.generators():
            save_progress(self.trainer, self.folder, self.key, needed, _SECONDS_BETWEEN_STATES, _log)


def train(
    study: Study, run: Run, provenance: dict[str, Any] | None = None, ready: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Trains one run; returns the content of run.json, which is empty in all processes but the first.

    See `train_cohort` for the arguments and errors.
    """
    return train_cohort(study, [run], [provenance or {}], ready)[0]


def train_cohort(
    study: Study,
    runs: Sequence[Run],
    provenance: Sequence[dict[str, Any]] = (),
    ready: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains runs that see the same images, and writes model.safetensors, log.csv and, last, run.json of each.

    Each image is read and augmented once for all of them. On the CPU each has the same bytes as when it is trained
    alone. One that fails ends alone; the others go on, and the error is raised at the end.

    An unfinished training of the same configuration is resumed. A warning signal (SIGTERM, SIGUSR2) makes it finish
    one more step, save its state and stop. If the config asks for several processes, `luab train` starts them, each
    of them calls this function, and only the first one writes files. RANK and WORLD_SIZE of other launchers are
    ignored.

    Args:
        study: The configuration.
        runs: Some of `study.runs()`, or any other combinations, of one data set, backbone and seed.
        provenance: Versions, commit and hardware, added to run.json; for each run, or none.
        ready: Called once, when warning signals are handled.

    Returns:
        The content of each run.json; empty in all processes but the first.

    Raises:
        ConfigError: Unknown backbone, a batch larger than the training set, or runs that do not see the same images.
        DataError: Images, manifest or targets are missing or damaged.
        JobError: A loss was not finite, a warning signal was received, a process was lost, or there are too few GPUs.
    """
    names = ", ".join(run.folder for run in runs)
    if len({(run.dataset, run.backbone, run.seed) for run in runs}) != 1 or len(set(runs)) != len(runs):
        raise ConfigError(
            f"Expected different runs of one data set, backbone and seed, which see the same images, found {names}. "
            "Train the others with a command of their own."
        )
    processes = Processes.here()
    if processes.count != study.compute.processes:
        raise JobError(
            f"{names}: compute.gpus x compute.nodes sets {study.compute.processes} processes, found "
            f"{processes.count}. Start this training with `luab train {runs[0].folder}`, which starts all of them."
        )
    if len(runs) > 1 and processes.count > 1:
        raise ConfigError(
            f"{names}: expected one process (compute.gpus and compute.nodes) to train several runs together, found "
            f"{processes.count}. Train them one by one, with compute.cohort 1."
        )
    device = choose_device(study, processes)
    with joined(processes, device), caught_warnings() as warnings:
        if ready is not None:
            ready()
        members = [_member(study, run, device, processes, len(runs) - 1) for run in runs]
        started = time.monotonic()
        with _attempts(members):
            _fit(members, study, warnings)
            # Ignore signals from here on: finishing the writes is faster than restarting.
            results = _written(members, started, provenance or [{}] * len(runs))
            processes.wait()
    if failed := [member for member in members if member.error]:
        raise _failure(failed, len(members))
    return results


def _member(study: Study, run: Run, device: torch.device, processes: Processes, others: int) -> Member:
    initialise, preprocessing, begun = _beginning(study, run)
    study = _seen_with(study, run, preprocessing)
    recipe, split = study.recipe(run.backbone, run.dataset), study.split(run.backbone, run.dataset)
    folder = study.layout.run(run)
    seed_everything(run.seed, device, study.compute.threads_each)
    task = task_of(run.dataset)
    dataset, inputs = training_set(study, run)
    inputs |= begun
    steps = len(dataset) // recipe.batch_size
    if steps == 0:
        raise ConfigError(
            f"{run.folder}: a batch of {recipe.batch_size} is larger than the training set of "
            f"{len(dataset)} images. Lower batch_size in the recipe."
        )
    if preprocessing.weights is not None:
        dataset.prepare_for(recipe, preprocessing)
    outputs, supervision = task.outputs(study, run), study.supervision(run)
    use = "regress" if supervision.target is None else supervision.use  # attention pooling without points has no term
    trainer = Trainer.build(
        run,
        recipe,
        outputs,
        split,
        steps,
        device,
        processes,
        initialise,
        preprocessing,
        use,
        supervision.settings,
        supervision.scale,
    )
    # Seed again: creating the byproduct head drew numbers, and baseline and LUAB must continue with equal ones. Each
    # process has its own seed, for stochastic depth and mixup.
    seed_everything(run.seed + processes.rank, device, study.compute.threads_each)
    settings = task.settings(study)
    key = f"{run.folder} {recipe.model_dump_json()} {split} {sorted(inputs.items())} {settings}"
    key += f" {trainer.columns}"
    if supervision.settings:
        key += f" {supervision.settings}"
    if supervision.scale != 1:
        key += f" scale {supervision.scale:g}"
    if preprocessing.weights is not None:
        key += f" {preprocessing}"
        if processes.first:
            _log(f"{run.folder}: images of {recipe.input_px} px as these weights need them: {preprocessing}")
    heart = Heartbeat(folder, run.folder, recipe.epochs, steps, recipe.batch_size, processes.count, processes.first)
    identity = {"run": run.identity(), "recipe": recipe.model_dump(mode="json"), "inputs": inputs}
    identity["preprocessing"] = preprocessing.model_dump(mode="json")
    member = Member(trainer, dataset, folder, key, identity, settings, heart, others)
    member.execution = {"optimizer": trainer.optimizer_name, "backbone": "not compiled"}
    if recipe.compile:
        member.execution["backbone"] = compile_backbone(trainer)
        if processes.first:
            _log(f"{run.folder}: backbone {run.backbone} {member.execution['backbone']}")
    with member.generators():
        resumed = resume(trainer, folder, key, _log)
    if processes.first:
        _log(f"{run.folder}: {split}")
        if resumed:
            _log(f"{run.folder}: resuming at epoch {trainer.epoch}, batch {trainer.batch}")
    return member


def _written(members: Sequence[Member], started: float, provenance: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes the results of the members that did not fail."""
    results: list[dict[str, Any]] = [{} for _ in members]
    if not members[0].trainer.processes.first:
        return results
    for member, versions, result in zip(members, provenance, results, strict=True):
        if member.error:
            continue
        trainer, heart = member.trainer, member.heart
        result |= {
            **member.identity,
            "settings": member.settings,
            "execution": member.execution,
            "images": len(member.dataset),
            "points": member.dataset.taught_points,
            "seconds": round(time.monotonic() - started, 1),
            "images_per_s": round(heart.images_per_s(trainer.done), 1),
            "cohort": len(members),
            "attempts": heart.attempts(),
            "device": str(trainer.device),
            "processes": trainer.processes.count,
            "final": last_line(trainer.columns, trainer.log),
            **versions,
        }
        with _alone(member):
            _write_results(member.folder, trainer, member.identity, result)
    for member in _running(members):
        # Snakemake removes all outputs of a job that failed; with its last state, a member need not train again.
        if any(other.error for other in members):
            member.save(False)
        else:
            remove_states(member.folder)
    return results


def _failure(failed: Sequence[Member], count: int) -> JobError:
    reasons = "\n".join(f"{member.trainer.run.folder}: {member.error}" for member in failed)
    return JobError(
        f"{len(failed)} of {count} trainings failed; the others are finished, and the same command does not train them "
        f"again.\n{reasons}"
    )


@contextlib.contextmanager
def _alone(member: Member) -> Iterator[None]:
    """Keeps an error of one member of a cohort from the others."""
    try:
        yield
    except JobError as error:
        if not member.others:
            raise
        member.error = error
        member.end("failed")
        _log(f"{member.trainer.run.folder}: {error}")


def training_set(study: Study, run: Run) -> tuple[TrainingImages, dict[str, str]]:
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


def _seen_with(study: Study, run: Run, preprocessing: Preprocessing) -> Study:
    """The study with the input size and crop of a run's first weights, where its recipe leaves them out."""
    name = study.part(run.dataset).backbone(run.backbone).recipe
    recipe = study.recipes[name].seen_with(preprocessing)
    return study.model_copy(update={"recipes": {**study.recipes, name: recipe}})


def _beginning(study: Study, run: Run) -> tuple[Callable[[nn.Module], None], Preprocessing, dict[str, str]]:
    """Prepares the weights that a run begins with.

    Returns:
        A function that loads them into a backbone, the preprocessing of the images that they were trained on, and
        their digest as an input of the training.

    Raises:
        ConfigError: timm has no such weights, or they need a preprocessing that luab does not have.
        DataError: The weights are missing or damaged, belong to another model, or differ from the recipe's digest.
    """
    recipe = study.recipe(run.backbone, run.dataset)
    begins, default = recipe.begins_with, Preprocessing(interpolation=recipe.eval_interpolation)
    if begins.is_random:
        return lambda backbone: None, default, {}
    if first := study.first_run(run):
        file, what = study.layout.model(first), f"the weights of {first.folder}"
        stored = read_card(file)
        if stored.get("run") != first.identity():
            raise DataError(f"{file}: expected {what}, found another run's. Remove it and train that run again.")
        preprocessing = preprocessing_in(stored, file)
    else:
        file, what, preprocessing = first_weights(begins, run.backbone, default)
    digest = file_sha256(file)
    if begins.sha256 not in (None, digest):
        raise DataError(
            f"{file}: expected {what} with SHA-256 {begins.sha256} as in the recipe, found {digest}. The weights "
            "changed upstream or the file is damaged; change `sha256` of `begins_with` only if you want these weights."
        )
    tensors = read_backbone(file)

    def load(backbone: nn.Module) -> None:
        put_into(backbone, tensors, f"{file}: expected {what}", new_classifier=True)

    return load, preprocessing, {"begins_with": digest}


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fit(members: Sequence[Member], study: Study, warnings: list[signal.Signals]) -> None:
    one = members[0].trainer
    recipe, compute, processes, run = one.recipe, study.compute, one.processes, one.run
    views = SharedViews([member.dataset for member in members])
    saved = time.monotonic()

    def own_flags() -> Flags:
        due = processes.first and time.monotonic() - saved > _SECONDS_BETWEEN_STATES
        return Flags(stop=bool(warnings), save=due)

    def obey(flags: Flags) -> None:
        nonlocal saved
        if flags.stop or flags.save:
            for member in _running(members):
                member.save(flags.stop)
            saved = time.monotonic()
        if flags.stop:
            names = [warning.name for received in processes.gather(warnings) for warning in received]
            epoch, batch = _place(members)
            raise Stopped(
                f"{_name(members)}: stopped by {names[0]} at epoch {epoch}, batch {batch}. "
                "The state is saved; the same command resumes from there."
            )

    obey(Flags(stop=any(processes.gather(bool(warnings)))))  # received while images and model were prepared
    epoch, first = _place(members)
    batches = EpochBatches(
        len(members[0].dataset), recipe.batch_size, run.seed, epoch, first, (processes.rank, processes.count),
        recipe.repeated_augmentation,
    )  # fmt: skip
    with plain_errors(), _progress_bar(members) as advance:
        advance(epoch * one.steps + first)
        for epoch, number, batch in _batches(views, batches, recipe.epochs, compute.workers_each, one.device):
            if batch is not None:
                flags = _step(members, views, (epoch, number), batch, own_flags)
                advance(1)
            else:
                flags = _read(members, epoch)
            if not _running(members):
                return
            obey(flags)
            if batch is None:
                for member in _running(members):
                    if member.trainer.epoch == epoch:
                        with _alone(member):
                            _end_epoch(member)


def _batches(
    views: SharedViews, batches: EpochBatches, epochs: int, workers: int, device: torch.device
) -> Iterator[tuple[int, int, Batch | None]]:
    """Yields (epoch, number in the epoch, batch) from the place of `batches` on, and None after each epoch.

    The loader's processes serve all epochs. They end with this generator.
    """
    loader = training_loader(views.source, batches, workers, device.type == "cuda")
    for epoch in range(batches.epoch, epochs):
        views.set_epoch(epoch)
        batches.epoch, number = epoch, batches.start
        for batch in ahead(loader, device):
            yield epoch, number, batch
            number += 1
        yield epoch, number, None
        batches.start = 0


def _step(
    members: Sequence[Member],
    views: SharedViews,
    place: tuple[int, int],
    batch: Batch,
    own_flags: Callable[[], Flags],
) -> Flags:
    """One step of each member; after a kill, members may continue at different places: those that are ahead wait."""
    flags = Flags()
    for k, member in enumerate(members):
        trainer = member.trainer
        if member.error or (trainer.epoch, trainer.batch) != place:
            continue
        with _alone(member):
            with member.generators():
                own = trainer.step(views.part(batch, k), own_flags)
            flags = Flags(flags.stop or own.stop, flags.save or own.save)
            member.heart.beat(trainer.epoch, trainer.done, trainer.mean_loss)
    return flags


def _read(members: Sequence[Member], epoch: int) -> Flags:
    """Reads the last steps of an epoch."""
    flags = Flags()
    for member in _running(members):
        if member.trainer.epoch == epoch:
            with _alone(member):
                member.trainer.read()
                own = member.trainer.flags()
                flags = Flags(flags.stop or own.stop, flags.save or own.save)
    return flags


def _end_epoch(member: Member) -> None:
    trainer = member.trainer
    if trainer.batch != trainer.steps:
        raise JobError(
            f"{trainer.run.folder}: expected {trainer.steps} batches in epoch {trainer.epoch}, the loader returned "
            f"{trainer.batch}. This is a bug of luab; please report it. Nothing was written."
        )
    line = trainer.end_epoch()
    member.heart.beat(trainer.epoch, trainer.done, trainer.mean_loss, now=True)
    if trainer.processes.first:
        text = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(trainer.columns[2:], line[2:], strict=True))
        _log(f"{trainer.run.folder}: epoch {line[0]}: {text}")


def _running(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if not member.error]


def _place(members: Sequence[Member]) -> tuple[int, int]:
    """Epoch and batch of the next step of the members that are furthest behind."""
    return min((member.trainer.epoch, member.trainer.batch) for member in _running(members))


def _name(members: Sequence[Member]) -> str:
    others = len(members) - 1
    return members[0].trainer.run.folder + (f" and {others} more" if others else "")


@contextlib.contextmanager
def _attempts(members: Sequence[Member]) -> Iterator[None]:
    """Records the start and the outcome of this attempt of each member."""
    for member in members:
        member.heart.start(member.trainer.epoch, member.trainer.done)
    try:
        yield
    except BaseException as error:
        for member in _running(members):
            member.end("stopped" if isinstance(error, Stopped) else "failed")
        raise
    for member in _running(members):
        member.end("finished")


def _progress_bar(members: Sequence[Member]) -> contextlib.AbstractContextManager[Callable[[float], None]]:
    trainer = members[0].trainer
    if trainer.processes.first:
        return progress(_name(members), trainer.recipe.epochs * trainer.steps, "steps")
    return contextlib.nullcontext(lambda _: None)


def _write_results(folder: Path, trainer: Trainer, identity: dict[str, Any], result: dict[str, Any]) -> None:
    trained = trainer.ema.module if trainer.ema is not None else trainer.model
    write_results(folder, trained, identity, trainer.columns, trainer.log, result)
