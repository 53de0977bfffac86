"""Weights and states are either read back completely or refused with one clear error."""

import hashlib
import json
import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from luab.errors import DataError
from luab.training import checkpoint
from luab.training.checkpoint import (
    load_model,
    load_newest_state,
    load_state,
    read_card,
    remove_states,
    save_model,
    save_state,
)

RUN = {"backbone": "x", "lambda": 1.0, "seed": 0}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, nn.Linear(3, 2), {"run": RUN})
    return path


def test_weights_are_read_back_and_written_again_byte_for_byte(weights, tmp_path):
    model = nn.Linear(3, 2)
    load_model(weights, model, RUN)
    save_model(tmp_path / "again.safetensors", model, {"run": RUN})
    assert weights.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert read_card(weights) == {"run": RUN} and len(os.listdir(tmp_path)) == 2


def test_another_run_and_another_architecture_are_refused(weights):
    with pytest.raises(DataError, match=r"expected the weights of .*'seed': 1"):
        load_model(weights, nn.Linear(3, 2), RUN | {"seed": 1})
    with pytest.raises(DataError, match=r"1 tensors differ, first 'weight' \(expected \(2, 4\), found \(2, 3\)"):
        load_model(weights, nn.Linear(4, 2), RUN)
    with pytest.raises(DataError, match="first 'bias'"):
        load_model(weights, nn.Linear(3, 2, bias=False), RUN)


@pytest.mark.parametrize("damage", ["truncated", "empty", "pickle", "foreign", "missing"])
def test_a_damaged_model_is_refused(weights, damage):
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "pickle":
        torch.save(nn.Linear(3, 2).state_dict(), weights)
    elif damage == "foreign":
        save_file({"weight": torch.zeros(2)}, weights)
    else:
        weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load_model(weights, nn.Linear(3, 2), RUN)


def test_a_state_is_read_back_for_its_own_configuration_only(tmp_path):
    path = tmp_path / "state.pt"
    save_state(tmp_path, {"key": "k", "tensor": torch.arange(3), "log": [[0, 1.5]], "ema": None})
    state = load_state(path, "k")
    assert state is not None and state["tensor"].tolist() == [0, 1, 2] and state["log"] == [[0, 1.5]]
    assert load_state(path, "other") is None and load_state(tmp_path / "none.pt", "k") is None


class _Malicious:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder):
        self.folder = folder


@pytest.mark.parametrize("damage", ["malicious", "malicious zip", "truncated", "text", "list"])
def test_a_foreign_state_is_refused_and_not_executed(tmp_path, damage):
    path, trap = tmp_path / "state.pt", tmp_path / "trap"
    if damage == "malicious":
        path.write_bytes(pickle.dumps(protocol=2, obj={"key": "k", "x": _Malicious(str(trap))}))
    elif damage == "malicious zip":
        torch.save({"key": "k", "x": _Malicious(str(trap))}, path)
    elif damage == "truncated":
        save_state(tmp_path, {"key": "k", "tensor": torch.arange(300)})
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        path.write_text(json.dumps({"key": "k"}), encoding="utf-8")
    if damage != "truncated":
        _seal(path)
    with pytest.raises(DataError, match=r"state\.pt: .*Remove it"):
        load_state(path, "k")
    assert not trap.exists()


def _seal(path):
    """Adds the checksum of a state to a file, as somebody could who wants its code to run."""
    content = path.read_bytes()
    path.write_bytes(content + checkpoint._TRAILER + hashlib.sha256(content).digest())


def test_any_cut_of_a_state_is_a_data_error(tmp_path):
    path = tmp_path / "state.pt"
    save_state(tmp_path, {"key": "k", "tensor": torch.arange(30), "words": ["a", 1, 2.5]})
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            load_state(path, "k")


def test_the_last_two_states_are_kept(tmp_path):
    logged: list[str] = []
    assert load_newest_state(tmp_path, "k", logged.append) is None
    for step in range(3):
        save_state(tmp_path, {"key": "k", "step": step})
    assert sorted(os.listdir(tmp_path)) == ["state-previous.pt", "state.pt"]
    assert load_newest_state(tmp_path, "k", logged.append)["step"] == 2 and logged == []
    assert load_newest_state(tmp_path, "other", logged.append) is None and "starts from the beginning" in logged.pop()
    newest, previous = tmp_path / "state.pt", tmp_path / "state-previous.pt"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-50])
    assert load_newest_state(tmp_path, "k", logged.append)["step"] == 1 and "state-previous.pt" in logged.pop()
    previous.write_bytes(whole[:-50])
    with pytest.raises(DataError, match=r"state\.pt: .*damaged"):
        load_newest_state(tmp_path, "k", logged.append)
    newest.unlink()  # as after a kill between the two renames
    previous.write_bytes(whole)
    assert load_newest_state(tmp_path, "k", logged.append)["step"] == 2 and logged == []
    remove_states(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_damaged_state_and_one_of_another_configuration_are_an_error(tmp_path):
    save_state(tmp_path, {"key": "other"})
    save_state(tmp_path, {"key": "k"})
    (tmp_path / "state.pt").write_bytes(b"PK")
    with pytest.raises(DataError, match="Remove it"):
        load_newest_state(tmp_path, "k", print)


def _state(step):
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    return {"key": "k", "step": step, "model": model.state_dict(), "log": [[0, 0.1, 2.5]], "random": [[1, 2], None]}


def test_no_damaged_state_is_used(tmp_path):
    """300 flipped bits at random positions, 4 KB of zeros as a lost page leaves them, and truncations."""
    dice, logged = random.Random(0), []
    save_state(tmp_path, _state(1))
    save_state(tmp_path, _state(2))
    newest, previous = tmp_path / "state.pt", tmp_path / "state-previous.pt"
    whole, before = newest.read_bytes(), previous.read_bytes()
    flips = []
    for _ in range(300):
        content = bytearray(whole)
        content[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        flips.append(bytes(content))
    zeros = [whole[:at] + bytes(4096) + whole[at + 4096 :] for at in range(0, len(whole) - 4096, 4096)]
    cuts = [whole[:end] for end in (0, 1, 10, 44, 45, 46, *(dice.randrange(len(whole)) for _ in range(30)))]
    longer = [whole + b"\0", whole + whole]
    for content in (*flips, *zeros, *cuts, *longer):
        newest.write_bytes(content)
        state = load_newest_state(tmp_path, "k", logged.append)
        assert state is not None and state["step"] == 1
        assert "state.pt: damaged; resuming from the preceding state, state-previous.pt" in logged.pop()
    newest.write_bytes(flips[0])
    previous.write_bytes(before[:-1])
    with pytest.raises(DataError, match=r"Both states .*state\.pt: .*Remove it.*state-previous\.pt: .*Remove it"):
        load_newest_state(tmp_path, "k", logged.append)


def test_a_state_of_an_older_version_is_refused_by_name(tmp_path):
    torch.save({"key": "k"}, tmp_path / "state.pt")
    with pytest.raises(DataError, match=r"state\.pt: .*ends with its SHA-256.*older version of luab\. Remove it"):
        load_newest_state(tmp_path, "k", print)
