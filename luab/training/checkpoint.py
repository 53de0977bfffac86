"""Trained weights as safetensors with a card, and the state from which an unfinished training resumes exactly."""

import csv
import errno
import hashlib
import io
import json
import math
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from luab.errors import DataError, JobError
from luab.files import file_sha256, remove_leftovers, replacing, write_json
from luab.study.recipes import Preprocessing
from luab.training.distributed import Processes

STATES = ("state.pt", "state-previous.pt")
_TRAILER = b"\nluab sha256 "  # followed by 32 bytes: the SHA-256 of everything before the trailer
_TRAILER_BYTES = len(_TRAILER) + hashlib.sha256().digest_size


class Stopped(JobError):
    """A warning signal was received; the state is saved."""


class Resumable(Protocol):
    """A training as seen by one of its processes; `epoch` and `batch` are the place of its next step."""

    epoch: int
    batch: int
    processes: Processes

    def state(self, key: str) -> dict[str, Any]:
        """Returns everything needed to resume at the next batch; all processes must call it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned, in each process."""


def resume(training: Resumable, folder: Path, key: str, log: Callable[[str], object]) -> bool:
    """Restores the state of an unfinished training, if there is one.

    Args:
        training: Before its first step.
        folder: Folder of the run.
        key: Configuration of the training, which the state must have.
        log: Receives one sentence if the newest state cannot be used.

    Returns:
        Whether there was a state.

    Raises:
        DataError: The states are damaged, or the processes read different ones.
    """
    first = training.processes.first
    if first:
        remove_leftovers(folder)
    state = load_newest_state(folder, key, log if first else lambda _: None)
    if state is not None:
        training.restore(state)
    places = training.processes.gather([training.epoch, training.batch])
    if any(place != places[0] for place in places):
        raise DataError(
            f"{folder}: the processes of this training read different states (epoch, batch: {places}); probably a "
            "shared disk shows new files late. Run the same command again."
        )
    return state is not None


def save_progress(
    training: Resumable, folder: Path, key: str, needed: bool, seconds: float, log: Callable[[str], object]
) -> None:
    """Saves the state of a training; on a full disk, one that is not needed yet is left out with a warning.

    Args:
        training: The training; all its processes must call this function.
        folder: Folder of the run.
        key: Configuration of the training.
        needed: Whether the training ends after this state.
        seconds: Until the next state, for the warning.
        log: Receives the warning.

    Raises:
        JobError: The state could not be written and is needed, or the folder is not writable.
    """
    state = training.state(key)
    if training.processes.first:
        try:
            save_state(folder, state)
        except JobError as error:
            cause = error.__cause__
            if needed or not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log(
                f"{folder / STATES[0]}: could not be saved ({cause.strerror}); the training continues, and an older "
                f"state, if there is one, stays usable. Free some space: the next attempt is in "
                f"{seconds / 60:.0f} minutes."
            )
    training.processes.wait()  # a process that ends while the first one is still writing would count as lost


def write_results(
    folder: Path,
    model: nn.Module,
    card: dict[str, Any],
    columns: Sequence[str],
    log: Sequence[Sequence[float]],
    result: dict[str, Any],
) -> None:
    """Writes model.safetensors, log.csv and, last, run.json of a finished training.

    Args:
        folder: Folder of the run.
        model: The trained model.
        card: Card of the weights, see `save_model`.
        columns: Names of the values of a line of the log, of which the first is the number of the epoch.
        log: The lines.
        result: Content of run.json; the digest of the weights is added to it.

    Raises:
        JobError: A weight is not finite, or the disk is full.
    """
    # The last step may have had a finite loss and an infinite gradient.
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise JobError(
                f"{name} contains NaN or infinite weights after the last step. Lower the learning rate or clip "
                "gradients in the recipe. Nothing was written."
            )
    save_model(folder / "model.safetensors", model, card)
    with replacing(folder / "log.csv") as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[int(row[0]), *map(_cell, row[1:])] for row in log])
    result["model_sha256"] = file_sha256(folder / "model.safetensors")
    write_json(folder / "run.json", result)


def last_line(columns: Sequence[str], log: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Returns the last line of a log by name; None for NaN, which JSON does not have."""
    return {name: None if math.isnan(value) else value for name, value in zip(columns, log[-1], strict=True)}


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"  # only a gradient ratio can be NaN


def save_model(path: Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Writes a model's weights atomically, with the card in the file's metadata.

    Args:
        path: model.safetensors.
        model: Any model; its state_dict is written.
        card: Run, recipe and data of the weights, as JSON values.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as aside:
        # Serialise to bytes first: safetensors (like torch below) turns a full disk into an error of its own.
        aside.write_bytes(save(weights, metadata={"luab": json.dumps(card, sort_keys=True)}))


def read_card(path: Path) -> dict[str, Any]:
    """Reads the card of a model file.

    Raises:
        DataError: The file is missing, is not safetensors, or has no luab card.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["luab"])
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected trained weights, found no file. Train this run first.") from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected a safetensors file with a luab card, found none ({error}). "
            "Remove the file and train again."
        ) from error
    if not isinstance(card, dict):
        raise DataError(
            f"{path}: expected an object as luab card, found a {type(card).__name__}. Remove the file and train again."
        )
    return card


def preprocessing_in(card: Mapping[str, Any], path: Path) -> Preprocessing:
    """Returns the preprocessing of a run's weights; ImageNet's if the card has none, as in older runs.

    Args:
        card: From `read_card` or run.json.
        path: The file of the card, for the error message.

    Raises:
        DataError: The card contains something else.
    """
    try:
        return Preprocessing.model_validate(card.get("preprocessing", {}))
    except ValidationError as error:
        raise DataError(
            f"{path}: expected mean, std, interpolation and weights in `preprocessing`, found "
            f"{card['preprocessing']}. Train this run again."
        ) from error


def load_model(path: Path, model: nn.Module, run: dict[str, Any], key: str = "run") -> None:
    """Loads the weights of a run into a model.

    Args:
        path: model.safetensors.
        model: Has the architecture of the run.
        run: The identity that the card must contain.
        key: Under this key.

    Raises:
        DataError: The weights belong to another run, differ in shape or number type, or are damaged.
    """
    identity = read_card(path).get(key)
    if identity != run:
        raise DataError(
            f"{path}: expected the weights of {run}, found those of {identity}. Remove the file and train this run "
            "again."
        )
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: the weights are damaged ({error}). Remove the file and train again.") from error
    if difference := tensor_difference(model.state_dict(), weights):
        raise DataError(f"{path}: a checkpoint of another model: {difference}. Remove it and train again.")
    model.load_state_dict(weights)


def check_weights(path: Path, expected_sha256: str | None) -> str:
    """Checks that a model file is the one that its training wrote; the file alone cannot show a changed weight.

    Args:
        path: model.safetensors.
        expected_sha256: As recorded in run.json; None if not recorded.

    Returns:
        The file's SHA-256.

    Raises:
        DataError: The digests differ.
    """
    digest = file_sha256(path)
    if expected_sha256 not in (None, digest):
        raise DataError(
            f"{path}: expected the weights recorded in run.json, SHA-256 {expected_sha256}, found {digest}. The file "
            "was changed after the training, or this run is training again: let it finish, or fetch or copy both "
            "files again."
        )
    return digest


def tensor_difference(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], loaded_from_elsewhere: bool = False
) -> str | None:
    """Describes the first tensor whose presence, shape or number type differs; None if all agree.

    Args:
        expected: Tensors of the model, by name.
        found: Tensors of the file, by name.
        loaded_from_elsewhere: Whether to accept floating-point numbers of any width and missing BatchNorm counters,
            which old checkpoints lack and evaluation never reads.
    """
    one, other = (_kinds(tensors, loaded_from_elsewhere) for tensors in (expected, found))
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if loaded_from_elsewhere:
        names = [name for name in names if not name.endswith("num_batches_tracked")]
    if not names:
        return None
    first = names[0]
    return (
        f"{len(names)} tensors differ, first {first!r} (expected {one.get(first, 'none')}, found "
        f"{other.get(first, 'none')})"
    )


def _kinds(tensors: Mapping[str, torch.Tensor], any_float: bool) -> dict[str, str]:
    """Returns the shape of each tensor as text, followed by its number type if that is unusual."""
    kinds = {}
    for name, tensor in tensors.items():
        usual = tensor.is_floating_point() if any_float else tensor.dtype == torch.float32
        kinds[name] = f"{tuple(tensor.shape)}{'' if usual else f' {tensor.dtype}'}"
    return kinds


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of an unfinished training: tensors, numbers, strings and containers of them.

    The file ends with a SHA-256 of its content, because torch loads most files with a flipped bit without an error.
    The preceding state stays as state-previous.pt, so at least one complete state exists at every moment.
    """
    content = io.BytesIO()
    torch.save(state, content)
    newest, previous = (folder / name for name in STATES)
    with replacing(newest) as aside:
        with open(aside, "wb") as file:
            file.write(content.getbuffer())
            file.write(_TRAILER + hashlib.sha256(content.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())  # before the state that it replaces is renamed
        if newest.is_file():
            os.replace(newest, previous)


def load_newest_state(folder: Path, key: str, log: Callable[[str], object]) -> dict[str, Any] | None:
    """Reads the newest state of an unfinished training, or the preceding one if the newest is damaged.

    Args:
        folder: Folder that `save_state` wrote to.
        key: Configuration that the state must belong to.
        log: Receives one sentence if the newest state cannot be used.

    Returns:
        The state, or None if no state has this configuration.

    Raises:
        DataError: The newest state is damaged and no other one can be used; the message lists the damaged files.
    """
    newest, previous = (folder / name for name in STATES)
    if not newest.is_file():
        return load_state(previous, key)
    try:
        state = load_state(newest, key)
    except DataError as error:
        try:
            state = load_state(previous, key)
        except DataError as other:
            raise DataError(
                f"Both states of this unfinished training are unusable. {error} The same holds for the state before "
                f"it: {other}"
            ) from error
        if state is None:
            raise
        log(f"{newest}: damaged; resuming from the preceding state, {previous.name}. {error}")
        return state
    if state is None:
        cause = "belongs to another recipe, data set or number of processes"
        log(f"{newest}: {cause}; this training starts from the beginning.")
    return state


def remove_states(folder: Path) -> None:
    """Removes the states of a finished training."""
    for name in STATES:
        (folder / name).unlink(missing_ok=True)


def load_state(path: Path, key: str) -> dict[str, Any] | None:
    """Reads the state of an unfinished training; unpickles nothing but tensors and plain values.

    Returns:
        The state, or None if the file does not exist or belongs to another configuration than `key`.

    Raises:
        DataError: The file is damaged or contains something else.
    """
    if not path.is_file():
        return None
    content = _checked_content(path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message recommends loading without this protection.
        raise DataError(
            f"{path}: expected the state of an unfinished training, found something other than tensors and "
            "plain values; none of its code was run. Remove it; the training then starts from the beginning."
        ) from error
    except (RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(
            f"{path}: the state of an unfinished training is damaged ({type(error).__name__}). "
            "Remove it; the training then starts from the beginning."
        ) from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: expected the state of a training, found a {type(state).__name__}. Remove it.")
    return state if state.get("key") == key else None


def _checked_content(path: Path) -> bytes:
    """Reads what `save_state` wrote before the trailer, once, so that the bytes checked are the bytes used."""
    try:
        with open(path, "rb") as file:
            content = file.read(max(0, path.stat().st_size - _TRAILER_BYTES))
            trailer = file.read()
    except OSError as error:
        raise DataError(
            f"{path}: the state of an unfinished training could not be read ({error.strerror or error}). Make it "
            "readable, or remove it; the training then starts from the beginning."
        ) from error
    if trailer[: len(_TRAILER)] != _TRAILER:
        found = "the file is damaged, incomplete or from an older version of luab"
    elif trailer[len(_TRAILER) :] != hashlib.sha256(content).digest():
        found = "another one: the file is damaged"
    else:
        return content
    raise DataError(
        f"{path}: expected the state of an unfinished training that ends with its SHA-256, found "
        f"{found}. Remove it; the training then starts from the beginning."
    )
