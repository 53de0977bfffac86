"""A step does not wait for the device: losses are read together, after many steps, and an error is still found."""

import contextlib
import dataclasses
import inspect

import pytest
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from luab.data.images.loader import ahead
from luab.errors import JobError
from luab.files import file_sha256
from luab.study.config import Recipe, Split
from luab.study.paths import Run
from luab.tasks import Outputs
from luab.training.distributed import Processes
from luab.training.train import train
from luab.training.trainer import Flags, Trainer

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)
MAP = {"kind": "gaussian", "sigma": 0.2}
RECIPE = {
    "epochs": 9, "batch_size": 8, "input_px": 64, "optimizer": "sgd", "lr": 0.01, "weight_decay": 0.01,
    "warmup_epochs": 1, "clip_grad": 1.0, "ema_decay": 0.9, "label_smoothing": 0.1, "channels_last": True,
}  # fmt: skip
MIXED = {"mixup": 0.5, "cutmix": 0.5}
WAYS = [
    ("test_resnet", "regress", {}, MIXED | {"drop_path": 0.1}),
    ("test_vit", "regress", {}, MIXED | {"classification": "bce", "model_kwargs": {"img_size": 64}}),
    ("test_resnet", "attribution", {"loss": "point_ce", "map": MAP}, {}),
    ("test_resnet", "heatmap", {"map": MAP}, MIXED),
]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _trainer(backbone="test_resnet", use="regress", settings=None, recipe=None, device="cpu", classes=10, steps=9):
    return Trainer.build(
        dataclasses.replace(CLICK, backbone=backbone),
        Recipe.model_validate(RECIPE | (recipe or {})),
        Outputs(classes, 0 if use == "attribution" else 2, False, use),
        Split(1, 4, 2),  # two parts per step
        steps,
        torch.device(device),
        Processes(),
        use=use,
        settings=settings,
    )


def _batch(classes=10):
    weights = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 1])
    points = torch.rand(8, 2)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    return {"images": images, "labels": torch.randint(classes, (8,)), "points": points, "weights": weights}


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: numbers read from tensors, and shapes that depend on values."""

    waiting = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().split(".")[0] in self.waiting
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def reads(monkeypatch):
    """Counts reads; `tolist` of a CPU tensor is no operation, so it is counted by name."""
    with Reads() as counted, monkeypatch.context() as patch:
        tolist = torch.Tensor.tolist

        def counting(self):
            counted.count += 1
            return tolist(self)

        patch.setattr(torch.Tensor, "tolist", counting)
        yield counted


@pytest.mark.parametrize(("backbone", "use", "settings", "recipe"), WAYS)
def test_values_are_read_at_the_interval_only(monkeypatch, backbone, use, settings, recipe):
    trainer, batch, counts = _trainer(backbone, use, settings, recipe), _batch(), []
    trainer.read_every = 3
    for _ in range(8):
        with reads(monkeypatch) as counted:
            trainer.step(batch, Flags)
        counts.append(counted.count)
    assert [count > 0 for count in counts] == [False, False, False, True, False, False, True, False]
    trainer.read()
    assert not trainer.pending and trainer.sums["loss"] > 0


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(("backbone", "use", "settings", "recipe"), WAYS)
@pytest.mark.parametrize(
    "more", [{"optimizer": "adamw"}, {"amp": "bfloat16"}, {"amp": "float16", "optimizer": "adamw"}]
)
def test_no_step_waits_for_the_gpu(backbone, use, settings, recipe, more):
    trainer, batch = _trainer(backbone, use, settings, recipe | more, "cuda"), _batch()
    for batches in (3, 40):  # the first steps allocate memory and choose algorithms
        pinned = ({name: part.pin_memory() for name, part in batch.items()} for _ in range(batches))
        try:
            for part in ahead(pinned, trainer.device):
                trainer.step(part, Flags)
                torch.cuda.set_sync_debug_mode("error" if batches > 3 else "default")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(trainer.pending) == 43 and "fused" in trainer.optimizer_name
    trainer.read()


@pytest.mark.gpu
@GPU
def test_batches_that_are_copied_ahead_are_the_batches():
    batches = [{"images": torch.full((8, 3, 64, 64), k, dtype=torch.uint8).pin_memory()} for k in range(7)]
    for k, batch in enumerate(ahead(batches, torch.device("cuda"))):
        assert batch["images"].is_cuda and bool((batch["images"] == k).all())
    assert k == 6 and list(ahead([], torch.device("cuda"))) == []


def test_a_diverging_training_stops_within_the_interval_and_names_its_first_bad_step():
    trainer, batch = _trainer(), _batch()
    trainer.read_every = 4
    with pytest.raises(JobError, match=r"classification became nan in step 2 \(epoch 0, batch 2\)"):
        for k in range(9):
            if k == 2:
                with torch.no_grad():
                    next(trainer.model.parameters()).fill_(float("nan"))
            trainer.step(batch, Flags)
    assert trainer.done == 4


def test_the_interval_does_not_change_the_results(toy_study, tmp_path, monkeypatch):
    products = []
    build = Trainer.build
    for every in (1, 2, 50):

        def built(*given, every=every, **named):
            trainer = build(*given, **named)
            trainer.read_every = every
            return trainer

        monkeypatch.setattr(Trainer, "build", built)
        study = toy_study(paths={"results": str(tmp_path / str(every))}, recipe={"ema_decay": 0.9})
        train(study, CLICK)
        folder = study.layout.run(CLICK)
        products.append((file_sha256(folder / "model.safetensors"), (folder / "log.csv").read_bytes()))
    assert products[0] == products[1] == products[2]


def _weights(build, steps=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(6, 7))
    update = build(model)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        update()
    return model


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "adagrad"])
def test_foreach_computes_the_same_as_one_by_one(name):
    """It holds for the optimisers that have a fused form, and not for NAdam."""
    assert "fused" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    results = []
    for options in ({"foreach": False}, {"foreach": True}):

        def build(model, options=options):
            return create_optimizer_v2(model, name, lr=0.01, weight_decay=0.05, momentum=0.9, **options).step

        results.append(_weights(build).state_dict())
    assert all(torch.equal(tensor, results[1][key]) for key, tensor in results[0].items())


def test_foreach_averages_weights_as_one_by_one():
    averages = []
    for foreach in (False, True):

        def build(model, foreach=foreach):
            optimizer, ema = torch.optim.SGD(model.parameters(), lr=0.1), ModelEmaV3(model, 0.9, foreach=foreach)
            averages.append(ema)
            return lambda: (optimizer.step(), ema.update(model, step=None))

        _weights(build)
    one, other = (ema.module.state_dict() for ema in averages)
    assert averages[1].foreach and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize(
    ("name", "text"), [("sgd", "SGD, foreach"), ("adamw", "AdamW, foreach"), ("lamb", "Lamb"), ("lion", "Lion")]
)
def test_the_kind_of_optimiser_is_named(name, text):
    assert _trainer(recipe={"optimizer": name}).optimizer_name == text


def test_a_state_of_a_fused_optimiser_continues_on_the_cpu():
    trainers = [_trainer(recipe={"optimizer": "adamw"}) for _ in range(2)]
    batch = _batch()
    trainers[0].step(batch, Flags)
    state = trainers[0].state("key")
    for group in state["optimizer"]["param_groups"]:
        group |= {"fused": True, "foreach": None}
    trainers[1].restore(state)
    assert {(group["fused"], group["foreach"]) for group in trainers[1].optimizer.param_groups} == {(None, True)}
    torch.manual_seed(0)
    trainers[1].step(batch, Flags)


@pytest.mark.gpu
@GPU
def test_a_state_of_a_cpu_continues_fused_on_the_gpu():
    old, new = _trainer(recipe={"optimizer": "adamw"}), _trainer(recipe={"optimizer": "adamw"}, device="cuda")
    old.step(_batch(), Flags)
    state = old.state("key")
    state["random"][0]["cuda"] = torch.cuda.get_rng_state()
    new.restore(state)
    new.step(_batch(), Flags)
    new.read()
    assert new.optimizer_name == "AdamW, fused" and new.optimizer.param_groups[0]["fused"]
