"""Training with a compiled backbone: same names, same resuming, and a named reason where it does not compile."""

import dataclasses
import logging

import pytest
import torch
from safetensors.torch import load_file

from luab.files import file_sha256, read_json
from luab.study.paths import Run
from luab.training import checkpoint, compiled
from luab.training import train as module
from luab.training.checkpoint import read_card
from luab.training.train import train, train_cohort

CLICK = Run("imagenet", "test_vit", "click", 1.0, 0)
NONE = dataclasses.replace(CLICK, supervision="none", weight=0.0)
# Stochastic depth draws inside the compiled part, mixup outside.
NOISY = {"drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "clip_grad": 1.0}
ON = {**NOISY, "compile": True}


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    # pytest would format its many thousand records.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def study(toy_study, tmp_path, monkeypatch):
    """Builds a study with results in a folder; the backbone is traced, but not translated to C++, which takes long."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")

    def build(folder, backbone="test_vit", **overrides):
        return toy_study(backbone, **{"paths": {"results": str(tmp_path / folder)}, "recipe": ON} | overrides)

    return build


def _products(study, run):
    folder = study.layout.run(run)
    return file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_bytes()


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_compiled_training_is_the_plain_one_within_rounding(study, backbone):
    run, weights = dataclasses.replace(CLICK, backbone=backbone), []
    for name, recipe in {"plain": {"ema_decay": 0.9}, "compiled": {"ema_decay": 0.9, "compile": True}}.items():
        one = study(name, backbone, recipe=recipe, compute={"images_per_process": 4})
        execution = train(one, run)["execution"]
        assert execution["backbone"].startswith("compiled in" if name == "compiled" else "not compiled")
        file = one.layout.run(run) / "model.safetensors"
        weights.append(load_file(file))
        assert ("compile" in read_card(file)["recipe"]) == (name == "compiled")
    assert list(weights[0]) == list(weights[1])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
def test_a_killed_compiled_training_resumes_to_the_same_bytes(study, monkeypatch):
    whole, broken, save, count = study("whole"), study("broken"), checkpoint.save_state, 0
    train(whole, CLICK)

    def killed(folder, state):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        save(folder, state)

    monkeypatch.setattr(module, "_SECONDS_BETWEEN_STATES", -1.0)
    monkeypatch.setattr(checkpoint, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train(broken, CLICK)
    torch._dynamo.reset()  # as in a new process
    train(broken, CLICK)
    assert _products(broken, CLICK) == _products(whole, CLICK)


@pytest.mark.slow
def test_members_of_a_compiled_cohort_equal_their_trainings_alone(study):
    together, alone = study("together"), study("alone")
    train_cohort(together, [NONE, CLICK])
    for run in (NONE, CLICK):
        train(alone, run)
        assert _products(together, run) == _products(alone, run)


def test_what_does_not_compile_trains_without_and_says_why(study, monkeypatch, capfd):
    def broken(*_):
        raise NotImplementedError("no kernel for this")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    both = study("plain", recipe=NOISY), study("fallback")
    for one in both:
        train(one, CLICK)
    plain, fallback = (load_file(one.layout.run(CLICK) / "model.safetensors") for one in both)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in fallback.items())
    reason = read_json(both[1].layout.run_json(CLICK))["execution"]["backbone"]
    assert reason == "not compiled: NotImplementedError: no kernel for this"
    assert f"backbone test_vit {reason}" in capfd.readouterr().err


@pytest.mark.parametrize("use", ["attribution", "rrr"])
def test_second_derivatives_are_not_compiled(study, use):
    uses = {"none": {}, "used": {"points": "click", "use": use}}
    one = study("attribution", "test_resnet", recipe={"compile": True}, supervisions=uses)
    result = train(one, Run("imagenet", "test_resnet", "used", 0.5, 0))
    assert result["execution"]["backbone"].startswith(f"not compiled: `use: {use}` needs second derivatives")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("default")
def test_trains_with_torchs_own_compiler_on_a_gpu(toy_study):
    recipe = {"compile": True, "ema_decay": 0.9, "amp": "bfloat16", "channels_last": True}
    result = train(
        toy_study("test_resnet", recipe=recipe, compute={"device": "cuda"}),
        Run("imagenet", "test_resnet", "click", 1.0, 0),
    )
    assert result["execution"]["backbone"].startswith("compiled in"), result["execution"]
