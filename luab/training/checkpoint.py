"""Weights as safetensors with a card, and the state that lets a training go on exactly where it stopped."""

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from luab.errors import DataError
from luab.files import file_sha256, replacing

STATES = ("state.pt", "state-previous.pt")


def save_model(path: Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Writes the weights with their card in the file's metadata, aside and then renamed.

    Args:
        path: model.safetensors.
        model: Its state_dict is written, on the CPU.
        card: What the weights are (run, recipe, data); JSON.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as aside:
        # Bytes first: safetensors hides a full disk behind an error of its own, and so does torch below.
        aside.write_bytes(save(weights, metadata={"luab": json.dumps(card, sort_keys=True)}))


def read_card(path: Path) -> dict[str, Any]:
    """The card inside a model file.

    Raises:
        DataError: The file is missing, not safetensors, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["luab"])
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected trained weights, found no file. Train this run first.") from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected safetensors with a luab card, found something else ({error}). "
            "Remove the file and train again."
        ) from error
    if not isinstance(card, dict):
        raise DataError(
            f"{path}: expected an object as luab card, found a {type(card).__name__}. Remove the file and train again."
        )
    return card


def load_model(path: Path, model: nn.Module, run: dict[str, Any]) -> None:
    """Loads weights into a model of the same run.

    Args:
        path: model.safetensors.
        model: Of the architecture that was trained.
        run: Identity that the card must carry.

    Raises:
        DataError: The weights are another run's, of other shapes or number types, or damaged.
    """
    found = read_card(path).get("run")
    if found != run:
        raise DataError(
            f"{path}: expected the weights of {run}, found those of {found}. Remove the file and train this run again."
        )
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: the weights are damaged ({error}). Remove the file and train again.") from error
    expected, stored = kinds(model.state_dict()), kinds(weights)
    wrong = [name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name)]
    if wrong:
        name = sorted(wrong)[0]
        raise DataError(
            f"{path}: a checkpoint of another model: {len(wrong)} tensors differ, first {name!r} (expected "
            f"{expected.get(name, 'none')}, found {stored.get(name, 'none')}). Remove it and train again."
        )
    model.load_state_dict(weights)


def check_weights(path: Path, told: str | None) -> str:
    """Refuses weights whose numbers are not those that their training wrote: nothing in the file itself tells.

    Args:
        path: model.safetensors.
        told: SHA-256 that run.json names; None where nothing names one.

    Returns:
        The file's SHA-256.

    Raises:
        DataError: They differ.
    """
    digest = file_sha256(path)
    if told not in (None, digest):
        raise DataError(
            f"{path}: expected the weights that run.json names, SHA-256 {told}, found {digest}. They were changed "
            "after the training, or are being trained anew: finish it, or fetch or copy both files again."
        )
    return digest


def kinds(tensors: Mapping[str, torch.Tensor], any_float: bool = False) -> dict[str, str]:
    """Shape and number type of each tensor, as text: what a checkpoint must have in common with its model.

    Args:
        tensors: By name.
        any_float: Whether floating-point numbers of any width are alike.
    """
    return {name: f"{tuple(tensor.shape)}{_type(tensor, any_float)}" for name, tensor in tensors.items()}


def _type(tensor: torch.Tensor, any_float: bool) -> str:
    usual = tensor.is_floating_point() if any_float else tensor.dtype == torch.float32
    return "" if usual else f" {tensor.dtype}"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of an unfinished training: tensors, numbers, strings and containers of them.

    The state before stays as state-previous.pt; there is at every moment at least one that is whole.
    """
    content = io.BytesIO()
    torch.save(state, content)
    newest, previous = (folder / name for name in STATES)
    with replacing(newest) as aside:
        with open(aside, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before the one it replaces moves on
        if newest.is_file():
            os.replace(newest, previous)


def load_newest_state(folder: Path, key: str, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Reads the last state of an unfinished training, or the one before where the last is damaged.

    Args:
        folder: Where `save_state` wrote.
        key: Configuration that the state must belong to.
        say: Told in one sentence why the last state is not used.

    Returns:
        The state, or None where there is none of this configuration.

    Raises:
        DataError: The last state is damaged and there is no other one to go on from.
    """
    newest, previous = (folder / name for name in STATES)
    try:
        state = load_state(newest, key)
        if state is None and newest.is_file():
            say(f"{newest}: of another recipe, data set or number of processes; this training starts anew.")
        if state is not None or newest.is_file():
            return state
        return load_state(previous, key)
    except DataError:
        with contextlib.suppress(DataError):
            state = load_state(previous, key) if newest.is_file() else None
            if state is not None:
                say(f"{newest}: damaged; going on from the one before, {previous.name}.")
                return state
        raise


def remove_states(folder: Path) -> None:
    """Removes what a finished training needs no more."""
    for name in STATES:
        (folder / name).unlink(missing_ok=True)


def load_state(path: Path, key: str) -> dict[str, Any] | None:
    """Reads the state of an unfinished training; nothing but tensors and plain values is unpickled.

    Args:
        path: One of those that `save_state` wrote.
        key: Configuration that the state must belong to.

    Returns:
        The state, or None when there is no file or it belongs to another configuration.

    Raises:
        DataError: The file is damaged or holds something else.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to load it without this protection.
        raise DataError(
            f"{path}: expected the state of an unfinished training, found something other than tensors and "
            "plain values; nothing of it was run. Remove it; the training then starts anew."
        ) from error
    except (RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(
            f"{path}: the state of an unfinished training is damaged ({type(error).__name__}). "
            "Remove it; the training then starts anew."
        ) from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: expected the state of a training, found a {type(state).__name__}. Remove it.")
    return state if state.get("key") == key else None
