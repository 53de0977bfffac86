"""Held-out images from end to end on the toy world: no training reads them, and their traces are compared with maps."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts.imagenet_ab import SCHEMA, read_index
from luab.commands.stages import make_manifest, make_pack, make_targets, score_suite
from luab.data.manifests.layouts import is_held_out
from luab.data.manifests.manifest import read_manifest
from luab.files import read_json
from luab.predict import predict
from luab.study.config import Packing, parse_study
from luab.study.paths import Run
from luab.training.train import train, training_set

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)
SHARE = 0.3


def write_index(path, image_ids):
    """A click and a trace of two samples on each image; two people on the last one."""
    empty = {field.name: [None] if pa.types.is_list(field.type) else None for field in SCHEMA}
    rows = []
    for name in image_ids:
        people = 2 if name == image_ids[-1] else 1
        one = {"worker_id": "W", "selected": True, "estimate_time_ms": 400, "click_xy": [[0.5, 0.5]]}
        one |= {"click_time_ms": [300], "trace_xy": [[0.1, 0.9], [0.5, 0.5]], "trace_time_ms": [0, 300]}
        one |= {"hover_action": [], "hover_time_ms": []}
        lists = {field: [None] * people for field, value in empty.items() if isinstance(value, list)}
        lists |= {field: [value] * people for field, value in one.items()}
        about = {"image_id": name, "wnid": name.split("_")[0], "annotators": people, "has_box": False, "boxes": []}
        rows.append({**empty, **lists, **about, "width": 48, "height": 48})
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    assert read_index(path, ["image_id"]).num_rows == len(image_ids)


@pytest.fixture
def study(toy_study, toy_world, tmp_path):
    content = toy_study(paths={"data": str(tmp_path / "data")}, recipe={"epochs": 1}).model_dump(mode="json")
    content["suites"] = [{"name": "all", "benchmarks": ["trace_alignment"]}]
    study = parse_study({**content, "held_out_byproducts": SHARE})
    rows = read_manifest(toy_world / "data" / "manifests" / "imagenet_train.parquet")
    write_index(study.layout.index(), sorted(rows["image_id"]))
    return study


def test_no_training_sees_held_out_images_and_their_traces_are_scored(study, toy_world):
    for name in ("imagenet_train", "imagenet_held_out"):
        make_manifest(study, name)
    for name in ("click", "held_out_traces"):
        make_targets(study, name, "imagenet")
    every = read_manifest(toy_world / "data" / "manifests" / "imagenet_train.parquet")["image_id"].tolist()
    held_out = [name for name in every if is_held_out(name, SHARE)]
    assert 3 <= len(held_out) <= 15
    dataset, _ = training_set(study, RUN)
    seen = [path.split("/")[-1].removesuffix(".JPEG") for path in dataset.paths.to_pylist()]
    assert sorted(seen + held_out) == sorted(every)
    packed = study.model_copy(update={"packing": Packing()})
    make_pack(packed)
    assert read_json(study.layout.pack("imagenet_train").with_suffix(".json"))["n"] == len(seen)
    assert training_set(packed, RUN)[0].paths == dataset.paths
    assert train(study, RUN)["images"] == len(seen)
    predict(study, RUN, "all", ("imagenet_held_out",))
    score_suite(study, RUN, "all")
    content = read_json(study.layout.score(RUN, "trace_alignment"))
    assert content["n"] == len(held_out) and -1 <= content["metrics"]["alignment"] <= 1
    people = {d["metric"]: (d["value"], d["n"]) for d in content["details"]}
    assert people["another person"] == (pytest.approx(1.0), 1) and people["image centre"][1] == len(held_out)
    table = pq.read_table(study.layout.target("held_out_traces"))
    assert set(held_out) | {every[-1]} == set(table["image_id"].to_pylist())
    assert np.allclose(table["moments"][0].as_py()[0][:2], (0.1 + 0.4 * 0.5 / 32, 0.9 - 0.4 * 0.5 / 32))
