"""COCO with the same trainer and predictor: heads, labels, initial weights, resuming and predictions."""

import dataclasses
import json
import shutil
import signal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from luab.byproducts import coco_ab
from luab.data.images.coco import CocoAB
from luab.data.manifests.build_manifest import build_manifest
from luab.data.supervisions.coco import BYPRODUCTS
from luab.data.supervisions.makers import Sources, write_targets
from luab.demo.coco import coco_archives
from luab.demo.packing import pack
from luab.errors import ConfigError, DataError
from luab.fetch.unpack import unpack_all
from luab.files import file_sha256, read_json
from luab.planning.plan import Plan
from luab.predict import predict
from luab.provenance import lineage
from luab.study.config import parse_study
from luab.study.paths import Run, card
from luab.study.supervisions import Supervision
from luab.tasks import Outputs, task_of
from luab.training.train import train, training_set

NONE = Run("coco", "test_resnet", "none", 0.0, 0)
RANDOM, CLICK, SHARED = (
    dataclasses.replace(NONE, supervision=name, weight=1.0) for name in ("random", "click", "click_shared")
)
BASELINE = Run("imagenet", "test_resnet", "none", 0.0, 0)
RECIPE = {"epochs": 2, "batch_size": 8, "input_px": 32, "optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01}

BASELINE_WEIGHTS = {"run": "imagenet/none-0"}


@pytest.fixture(scope="module")
def world(toy_world, tmp_path_factory):
    """The toy ImageNet and a drawn COCO of 24 training and 6 validation images, prepared as in a study."""
    root = tmp_path_factory.mktemp("coco") / "toy"
    shutil.copytree(toy_world, root)
    data = root / "data"
    for archive in coco_archives(1, 40, train=24, val=6):
        pack(archive, root)
    archives = {f"{name}.zip": root / f"{name}.zip" for name in ("train2014", "val2014", "annotations_trainval2014")}
    unpack_all(archives, data / "raw" / "coco", data / "raw" / "coco.json", "coco")
    index = data / "byproducts" / "coco_ab.parquet"
    coco_ab.index(root / "coco_ab_v1_0.json", index, card(index))
    for name in ("coco_train", "coco_val"):
        path = data / "manifests" / f"{name}.parquet"
        build_manifest(name, data / "raw" / "coco", path, card(path), partial=True)
    for name in ("click", "random"):
        path = data / "targets" / "coco" / f"{name}.parquet"
        sources = Sources(index, data / "manifests" / "coco_train.parquet")
        write_targets(BYPRODUCTS, sources, Supervision(points=name), path, card(path))
    return root


@pytest.fixture
def study(world, tmp_path):
    """Builds a study of both data sets; further keyword arguments change the COCO recipe."""

    def build(keep_labels=False, results="results", backbone="test_resnet", gpus=1, **recipe):
        backbone = {"name": backbone, "gpu_images_per_s": 100}
        sweep = {"backbones": [], "supervisions": [], "lambdas": []}
        coco = {
            "backbones": [backbone | {"recipe": "coco"}],
            "supervisions": {
                "none": {},
                "random": {},
                "click": {},
                "click_shared": {"points": "click", "head": "shared"},
            },
            "sweep": sweep,
            "suites": [{"name": "coco", "benchmarks": ["coco_val", "coco_localization"]}],
            "keep_labels": keep_labels,
        }
        return parse_study(
            {
                "backbones": [backbone | {"recipe": "toy"}],
                "supervisions": ["none", "click"],
                "sweep": sweep,
                "seeds": [0],
                "suites": [{"name": "all", "benchmarks": ["imagenet_val"]}],
                "coco": coco,
                "compute": {"device": "cpu", "workers": 0, "threads": 1, "gpus": gpus},
                "paths": {
                    "data": str(world / "data"),
                    "results": str(tmp_path / results),
                    "imagenet": str(world / "imagenet"),
                    "partial": True,
                },
                "recipes": {
                    "toy": RECIPE | {"epochs": 1, "warmup_epochs": 0},
                    "coco": RECIPE | {"warmup_epochs": 0.5} | recipe,
                },
            }
        )

    return build


def weights(study, run):
    return load_file(study.layout.run(run) / "model.safetensors")


def test_numbers_of_outputs_by_run(study):
    points = {NONE: 0, RANDOM: 160, CLICK: 160, SHARED: 2}
    assert {run: task_of("coco").outputs(study(), run) for run in points} == {
        run: Outputs(80, n, True) for run, n in points.items()
    }
    assert task_of("imagenet").outputs(study(), BASELINE) == Outputs(1000, 0, False)
    assert task_of("imagenet").outputs(study(), dataclasses.replace(CLICK, dataset="imagenet")).points == 2
    assert Run.parse(SHARED.folder) == SHARED


def test_baseline_control_and_luab_see_the_same_labels(study):
    """Only the points differ, because the clicks decide for every run which labels a crop keeps."""
    sets = {run.supervision: training_set(study(), run) for run in (NONE, RANDOM, CLICK, SHARED)}
    items = {name: [dataset[i] for i in range(len(dataset))] for name, (dataset, _) in sets.items()}
    for image, labels, points, taught in zip(*items.values(), strict=True):
        assert all(
            torch.equal(image["images"], other["images"]) and torch.equal(image["labels"], other["labels"])
            for other in (labels, points, taught)
        )
    taught = {name: sum(float(item["weights"].sum()) for item in found) for name, found in items.items()}
    assert taught["none"] == 0 and taught["click"] == taught["click_shared"] > 0 and taught["random"] > 0
    assert any(not torch.equal(a["points"], b["points"]) for a, b in zip(items["random"], items["click"], strict=True))
    shown = [item["labels"].sum() for item in items["click"]]
    annotated = [len(labels) for labels in sets["none"][0].labels]
    assert sum(shown) < sum(annotated)  # some clicks lie outside the crop
    for run, (_, inputs) in zip((NONE, RANDOM, CLICK), sets.values(), strict=False):
        assert inputs["labels_click"] == read_json(card(study().layout.target("click", "coco")))["sha256"]
        assert (f"targets_{run.supervision}" in inputs) == (run is not NONE)


def test_keep_labels_keeps_all_annotated_labels(study):
    dataset, inputs = training_set(study(keep_labels=True), NONE)
    assert "labels_click" not in inputs and task_of("coco").settings(study(keep_labels=True)) == {
        "labels": "as annotated"
    }
    for i in range(len(dataset)):
        assert dataset[i]["labels"].sum() == len(dataset.labels[i])


def test_the_library_follows_the_official_loader(world):
    """Without a separate labelling, the points of the targets decide the labels."""
    data = world / "data"
    manifest, targets = data / "manifests" / "coco_train.parquet", data / "targets" / "coco"
    both = CocoAB(data / "raw" / "coco", manifest, targets / "click.parquet", labelling=targets / "click.parquet")
    alone = CocoAB(data / "raw" / "coco", manifest, targets / "click.parquet")
    for ours, theirs in ((both[i], alone[i]) for i in range(6)):
        assert all(torch.equal(part, theirs[name]) for name, part in ours.items())


def test_a_training_records_its_results(study):
    made = study()
    result = train(made, CLICK)
    assert result["run"]["dataset"] == "coco" and result["images"] == 24
    assert result["points"] == read_json(card(made.layout.target("click", "coco")))["n"]
    final = result["final"]
    assert final["loss"] == pytest.approx(final["classification"] + final["byproduct"], rel=1e-6)
    assert final["byproduct"] > 0 and final["points"] > 0.5  # points per image that survived
    assert weights(made, CLICK)["byproduct.weight"].shape[0] == 160
    assert weights(made, CLICK)["backbone.fc.weight"].shape[0] == 80


def test_with_lambda_zero_luab_is_the_baseline_bit_for_bit(study):
    made, weight_zero = study(), dataclasses.replace(CLICK, weight=0.0)
    train(made, NONE)
    train(made, weight_zero)
    baseline, luab = weights(made, NONE), weights(made, weight_zero)
    assert luab.keys() - baseline.keys() == {"byproduct.weight", "byproduct.bias"}
    assert all(torch.equal(tensor, luab[name]) for name, tensor in baseline.items())


def test_a_training_starts_from_the_imagenet_baseline(study):
    made = study(begins_with=BASELINE_WEIGHTS, lr=1e-9, weight_decay=0.0, epochs=1, warmup_epochs=0)
    with pytest.raises(DataError, match="expected trained weights, found no file"):
        train(made, NONE)
    train(made, BASELINE, {"versions": {}})
    result = train(made, NONE)
    first = made.layout.run(BASELINE) / "model.safetensors"
    digest = result["inputs"]["begins_with"]
    assert digest == file_sha256(first)
    link = lineage._input(made.layout, NONE, result["recipe"], "begins_with", digest)
    assert link.found == f"{BASELINE.folder}: SHA-256 {digest}" and link.state == "ok" and link.links
    link = lineage._input(made.layout, NONE, {"begins_with": {"timm": "a1_in1k"}}, "begins_with", digest)
    assert link.found == f"timm a1_in1k: SHA-256 {digest}"
    before, after = weights(made, BASELINE), weights(made, NONE)
    assert after["backbone.fc.weight"].shape == (80, before["backbone.fc.weight"].shape[1])
    kernels = [name for name in before if name.endswith("conv.weight") or "conv1.weight" in name]
    assert kernels and all(torch.allclose(before[name], after[name], atol=1e-6) for name in kernels)


def test_other_weights_than_the_recipe_names_are_refused(study):
    made = study(begins_with=BASELINE_WEIGHTS | {"sha256": "0" * 64})
    train(made, BASELINE)
    with pytest.raises(DataError, match=r"SHA-256 0{64} as in the recipe, found [0-9a-f]{64}"):
        train(made, NONE)


def test_weights_of_another_model_or_run_are_refused(study):
    made = study(begins_with=BASELINE_WEIGHTS)
    train(made, BASELINE)
    file = made.layout.run(BASELINE) / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    identity = {"luab": json.dumps({"run": BASELINE.identity()})}
    save_file(tensors | {name: tensors[name][:1].clone()}, file, metadata=identity)
    with pytest.raises(DataError, match=r"expected the weights of imagenet/test_resnet/none-0/seed0, found another"):
        train(made, NONE)
    save_file(tensors, file, metadata={"luab": json.dumps({"run": NONE.identity()})})
    with pytest.raises(DataError, match="found another run's"):
        train(made, NONE)


@pytest.mark.parametrize("step", [1, 4])
def test_a_warned_training_resumes_bit_for_bit(study, trainings, step):
    whole, parted = study(results="whole", color_jitter=0.4, ema_decay=0.9), study(color_jitter=0.4, ema_decay=0.9)
    assert trainings(whole, CLICK).fine
    warned = trainings(parted, CLICK, ({"signal": signal.SIGTERM, "rank": None, "at_step": step},))
    assert warned.codes == [1] and "resumes from there" in warned.messages[0]
    assert trainings(parted, CLICK).fine
    assert file_sha256(parted.layout.run(CLICK) / "model.safetensors") == file_sha256(
        whole.layout.run(CLICK) / "model.safetensors"
    )


def test_two_processes_train_like_one(study, trainings):
    """The points are distributed unevenly over the shares of a batch; the loss covers all of them."""
    run = dataclasses.replace(CLICK, backbone="test_vit")
    kwargs = {"backbone": "test_vit", "model_kwargs": {"img_size": 32}}
    one, two = study(results="one", **kwargs), study(results="two", gpus=2, **kwargs)
    assert trainings(one, run).fine and trainings(two, run).fine
    for name, tensor in weights(one, run).items():
        assert torch.allclose(tensor, weights(two, run)[name], atol=2e-4), name


@pytest.mark.parametrize("run", [NONE, CLICK, SHARED])
def test_predictions(study, run):
    made = study(epochs=1, warmup_epochs=0)
    train(made, run)
    content = predict(made, run, "coco", ("coco_val",))
    table = pq.read_table(made.layout.prediction_folder(run) / "coco_val.parquet")
    assert content["files"]["coco_val"]["rows"] == table.num_rows == 6
    assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
    scores = pc.list_flatten(table["scores"]).to_numpy().reshape(6, 80)
    assert np.isfinite(scores).all() and len(np.unique(scores)) > 80
    counts = pc.list_value_length(table["labels"]).to_pylist()
    size = table["cam_h"][0].as_py() * table["cam_w"][0].as_py()
    assert pc.list_value_length(table["cam"]).to_pylist() == [size * count for count in counts] and sum(counts) > 6
    if run is NONE:
        assert table["points"].null_count == 6
        return
    points = pc.list_flatten(table["points"]).to_numpy().reshape(6, 80, 2)
    assert np.isfinite(points).all()
    assert (points == points[:, :1]).all() == (run is SHARED)


def test_inputs_of_a_training_in_the_plan(study):
    made = study(begins_with=BASELINE_WEIGHTS)
    plan, layout = Plan.of(made), made.layout
    manifest, baseline = str(card(layout.manifest("coco_train"))), str(layout.run_json(BASELINE))
    click, random = (str(card(layout.target(name, "coco"))) for name in ("click", "random"))
    assert plan.training_inputs(NONE) == [manifest, click, baseline]
    assert plan.training_inputs(RANDOM) == [manifest, click, random, baseline]
    assert plan.training_inputs(SHARED) == [manifest, click, baseline]
    assert Plan.of(study(keep_labels=True)).training_inputs(NONE) == [manifest]
    assert "coco_main" in plan.tables and "coco_main" not in Plan.of(made.model_copy(update={"coco": None})).tables
    assert set(plan.prepared()) >= {manifest, click, random} and baseline not in plan.prepared()


def test_impossible_settings_are_refused_with_their_place(study):
    with pytest.raises(ConfigError, match=r"recipes.coco.mixup: not supported for multi-label data"):
        study(mixup=0.2)
    made = study()
    with pytest.raises(ConfigError, match="The study does not train on 'coco', only on imagenet"):
        made.model_copy(update={"coco": None}).part("coco")
    with pytest.raises(ConfigError, match=r"There is no suite 'coc'\. Did you mean coco"):
        made.suite("coc")
    swapped = made.coco.model_copy(update={"suites": [made.suites[0].model_copy(update={"name": "other"})]})
    with pytest.raises(
        ConfigError, match="other scores models trained on coco, but its test set imagenet_val is for models"
    ):
        Plan.of(made.model_copy(update={"coco": swapped}))
