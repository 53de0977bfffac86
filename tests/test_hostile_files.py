"""Malicious files, lists and settings raise an error, run no code and do not touch other folders.

Malicious archives are tested in fetch/test_unpack.py, XML in byproducts/test_bad_records.py, training states in
training/test_checkpoint.py, passwords in test_secrets.py.
"""

import ast
import gzip
import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from luab import cli
from luab.byproducts import imagenet_ab
from luab.commands.export import export
from luab.commands.stages import make_index, make_manifest
from luab.data.images.build_pack import build_pack
from luab.data.images.evaluation import EvaluationSet
from luab.data.images.pack import Pack
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.coco_instances import read_instances
from luab.data.manifests.manifest import SCHEMA, read_manifest
from luab.data.manifests.testsets import TEST_SETS
from luab.data.supervisions.point_files import TARGETS_SCHEMA, read_image_points
from luab.errors import ConfigError, DataError
from luab.fetch.listing import load_archives
from luab.fetch.verify import archived
from luab.files import read_json, write_json
from luab.model import build_model
from luab.predict import predict
from luab.predictions import label_table, read_predictions
from luab.provenance.snakemake_records import import_records, read_records
from luab.study.config import Packing, parse_study
from luab.study.paths import Run
from luab.tasks import NAMES, task_of
from luab.training.checkpoint import load_model, load_state, read_card, save_model, save_state
from luab.training.heartbeat import ATTEMPTS, PROGRESS, read_attempts, read_progress
from luab.training.pretrained import put_into, read_backbone
from luab.training.train import train

pytestmark = pytest.mark.faults

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)
SHELL = (
    "a;touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a|b",
    "a&b",
    "a>b",
    "a b",
    "'",
    '"',
    "a\nb",
    "~",
    "*",
    "\\",
)
OUTSIDE = ("/etc/passwd", "../secret.JPEG", "train/../../secret.JPEG", "train/..", "..", "/", "a\0b")
PACKING = Packing.model_validate({})
REPOSITORY = Path(__file__).resolve().parents[1]


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def trap(tmp_path):
    """A folder that no test may create; first checks that unpickling a Trap creates it."""
    path = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(path)))
    path.rmdir()
    yield path
    assert not path.exists()


# ---- nothing is unpickled -------------------------------------------------------------------------------------

PLUGIN = "plugins/snakemake-executor-plugin-submitit/src/snakemake_executor_plugin_submitit"
PICKLERS = {
    "luab/byproducts/reading/workers.py": "a pipe to a child that this process started",
    f"{PLUGIN}/messages.py": "what submitit's own job left in the user's folder",
}
FORBIDDEN = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "pd.read_pickle",
    "torch.jit.load",
}


def called(node):
    """Dotted name of the called function."""
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    return ".".join([function.id if isinstance(function, ast.Name) else "", *reversed(parts)])


def dangers(code):
    """Calls that run or unpickle their argument."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name, given = called(node), {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        unsafe = name in FORBIDDEN or name.startswith(("pickle.load", "dill.", "joblib.", "shelve."))
        unsafe |= name == "torch.load" and given.get("weights_only") is not True
        unsafe |= name == "np.load" and given.get("allow_pickle") is not False
        unsafe |= given.get("shell") is True
        found += [name] if unsafe else []
    return found


@pytest.mark.parametrize(
    "code",
    ["pickle.load(f)", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "yaml.load(t)", "eval(t)",
     "subprocess.run(c, shell=True)", "os.system(c)", "pickle.loads(b)"],
)  # fmt: skip
def test_dangerous_calls_are_detected(code):
    assert dangers(code) and not dangers("torch.load(p, weights_only=True); np.load(p, allow_pickle=False); m().eval()")


def test_luab_has_no_dangerous_calls():
    found = {}
    for file in sorted(file for folder in ("luab", "plugins") for file in (REPOSITORY / folder).rglob("*.py")):
        if "tests" in file.parts:
            continue
        if calls := dangers(file.read_text(encoding="utf-8")):
            found[str(file.relative_to(REPOSITORY))] = calls
    assert found.keys() == PICKLERS.keys()
    assert all(set(calls) == {"pickle.load"} for calls in found.values())


# ---- weights from unknown sources ------------------------------------------------------------------------------


@pytest.fixture
def weights(toy_study):
    """A study, a file with random weights in the folder of a run, and the model."""
    study = toy_study()
    torch.manual_seed(0)
    model = build_model(CLICK.backbone, study.recipe(CLICK.backbone), 2)
    path = study.layout.run(CLICK) / "model.safetensors"
    save_model(path, model, {"run": CLICK.identity()})
    return study, path, model


def header(path):
    """Header of a safetensors file as JSON, and the remaining bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path, content, rest, length=None):
    text = json.dumps(content).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + rest)


def harm(path, what, trap):
    content, rest = header(path)
    tensors = load_file(path)
    metadata = {"luab": content["__metadata__"]["luab"]}
    if what == "pickle":
        path.write_bytes(pickle.dumps(Trap(trap)))
    elif what == "torch's zip":
        torch.save({"backbone.conv1.conv1.weight": Trap(trap)}, path)
    elif what == "header longer than the file":
        with_header(path, content, rest, 2**40)
    elif what == "header without end":
        with_header(path, content, rest, 2**64 - 1)
    elif what == "places beyond the file":
        content["backbone.bn1.bias"]["data_offsets"][1] = 2**50
        with_header(path, content, rest)
    elif what == "places that overlap":
        content["backbone.bn1.bias"]["data_offsets"] = content["backbone.bn1.weight"]["data_offsets"]
        with_header(path, content, rest)
    elif what == "shapes of 2**80 numbers":
        content["backbone.bn1.bias"]["shape"] = [2**40, 2**40]
        with_header(path, content, rest)
    elif what == "no card":
        save_file(tensors, path)
    elif what == "a card that is a list":
        save_file(tensors, path, metadata={"luab": "[1]"})
    elif what == "a card without bottom":
        save_file(tensors, path, metadata={"luab": "[" * 200_000})
    elif what == "one more tensor":
        save_file(tensors | {"backbone.more": torch.zeros(1)}, path, metadata=metadata)
    elif what == "one less":
        save_file({k: t for k, t in tensors.items() if k != "byproduct.bias"}, path, metadata=metadata)
    elif what == "another shape":
        save_file(tensors | {"byproduct.bias": torch.zeros(3)}, path, metadata=metadata)
    elif what == "half precision":
        save_file(tensors | {"byproduct.bias": torch.zeros(2, dtype=torch.float16)}, path, metadata=metadata)
    elif what == "whole numbers":
        save_file(tensors | {"byproduct.bias": torch.zeros(2, dtype=torch.int64)}, path, metadata=metadata)


HARMS = [
    "pickle", "torch's zip", "header longer than the file", "header without end", "places beyond the file",
    "places that overlap", "shapes of 2**80 numbers", "no card", "a card that is a list", "a card without bottom",
    "one more tensor", "one less", "another shape", "half precision", "whole numbers",
]  # fmt: skip


@pytest.mark.parametrize("what", HARMS)
def test_damaged_weights_of_a_run_raise(weights, trap, what):
    study, path, model = weights
    load_model(path, model, CLICK.identity())
    harm(path, what, trap)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_model(path, model, CLICK.identity())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(DataError, match=re.escape(str(path))):
        predict(study, CLICK, "all", ("imagenet_val",))


@pytest.mark.parametrize("what", [what for what in HARMS if what not in ("no card", "half precision", "one less")])
def test_damaged_initial_weights_raise(weights, trap, what):
    """From timm, --weights or another run; the byproduct head is ignored and any floating-point type is accepted."""
    _, path, _ = weights
    path.rename(path.with_name("theirs.safetensors"))
    path = path.with_name("theirs.safetensors")
    if what in ("another shape", "whole numbers"):
        kind = torch.zeros(97) if what == "another shape" else torch.zeros(1000, dtype=torch.int64)
        save_file(load_file(path) | {"backbone.fc.bias": kind}, path)
    elif not what.startswith("a card"):
        harm(path, what, trap)
    if what.startswith("a card"):
        harm(path, what, trap)
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_card(path)
        return
    with pytest.raises(DataError, match=re.escape(str(path))):
        put_into(timm.create_model("test_resnet"), read_backbone(path), f"{path}: expected the weights of test_resnet")


@pytest.mark.parametrize(
    "key", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"]
)
def test_a_recipe_cannot_make_timm_load_other_weights(toy_study, key):
    with pytest.raises(ConfigError, match=rf"model_kwargs: {key} would make timm load other weights"):
        toy_study(recipe={"model_kwargs": {key: "strange.pth"}})


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:folder", "../model", *SHELL])
def test_a_backbone_must_be_a_timm_model_name(toy_study, name):
    with pytest.raises(ConfigError, match=r"backbones\[0\]\.name"):
        toy_study(backbone=name)


def test_a_damaged_run_json_is_not_exported(weights, tmp_path):
    study, path, _ = weights
    strange = {"run": CLICK.identity(), "images": 1, "points": 1, "model_sha256": "0" * 64}
    recipe = study.recipe(CLICK.backbone).model_dump(mode="json") | {"model_kwargs": {"checkpoint_path": "x.pth"}}
    for card in ("[" * 200_000, "{", json.dumps([1]), json.dumps(strange), json.dumps(strange | {"recipe": recipe})):
        (path.parent / "run.json").write_text(card, encoding="utf-8")
        with pytest.raises(DataError, match=r"run\.json|model\.safetensors"):
            export(study, CLICK, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- paths from lists, cards and archives ---------------------------------------------------------------------


def manifest(file, **changes):
    row = {"image_id": "a", "path": "train/a.JPEG", "labels": [0], "group": "", "width": 8, "height": 8, "boxes": []}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row | {"image_id": "0"}, row | changes], SCHEMA), file)
    return file


def test_a_valid_manifest_is_read(tmp_path):
    for name in ("train/a..b/c.JPEG", "..a/b.JPEG", "02_wheeled vehicle/.x.JPEG"):
        assert read_manifest(manifest(tmp_path / "m.parquet", path=name))["path"][1] == name


@pytest.mark.parametrize("column", ["path", "image_id"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_the_folder_in_a_manifest_raises(tmp_path, column, name):
    with pytest.raises(DataError, match=rf"m\.parquet, row 1: expected a {column} below the data set's folder"):
        read_manifest(manifest(tmp_path / "m.parquet", **{column: name}))


def test_images_outside_the_folder_are_not_read(weights, toy_world, tmp_path):
    study, *_ = weights
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(next((toy_world / "imagenet").rglob("*.JPEG")).read_bytes())
    data = tmp_path / "data"
    paths = study.paths.model_copy(update={"data": data})
    study = study.model_copy(update={"paths": paths})
    for name in ("imagenet_val", "imagenet_train"):
        manifest(data / "manifests" / f"{name}.parquet", path=str(secret))
    rows = pq.read_table(data / "manifests" / "imagenet_val.parquet").to_pandas().assign(manifest="m")
    unchecked = EvaluationSet({"m": toy_world}, rows, TEST_SETS["imagenet_val"], study.recipe("test_resnet"))
    assert unchecked[1][0].shape == (3, 32, 32)  # without the check, the outside file is read
    for use in (
        lambda: predict(study, CLICK, "all", ("imagenet_val",)),
        lambda: train(study, CLICK),
        lambda: build_pack(toy_world, data / "manifests/imagenet_train.parquet", PACKING, data / "p.parquet", 0),
    ):
        with pytest.raises(DataError, match="below the data set's folder"):
            use()
    assert not study.layout.prediction_folder(CLICK).exists()


@pytest.mark.parametrize("name", [*OUTSIDE, *SHELL, "", None, 7])
def test_a_card_cannot_name_a_file_outside_its_folder(tmp_path, name):
    card = tmp_path / "data" / "archives" / "imagenet_ab.json"
    write_json(card, {"file": "ab_v1.0.tar.gz", "sha256": "0"})
    assert archived(card.parent, card) == (card.parent / "ab_v1.0.tar.gz", "0")
    write_json(card, {"file": name, "sha256": "0"})
    with pytest.raises(DataError, match=r"imagenet_ab\.json: expected the card of a download"):
        archived(card.parent, card)


@pytest.mark.parametrize("card", [[], {}, {"file": "a.tar"}, {"sha256": "0"}, "a.tar"])
def test_a_card_of_another_kind_raises(tmp_path, card):
    write_json(tmp_path / "a.json", card)
    with pytest.raises(DataError, match="expected the card of a download"):
        archived(tmp_path, tmp_path / "a.json")


def test_no_stage_opens_a_file_outside_that_a_card_names(toy_study, tmp_path, monkeypatch, repository):
    study = toy_study(paths={"data": str(tmp_path / "data"), "archives": str(repository / "config/archives.yaml")})
    for name in ("imagenet_ab", "imagenet_real", "imagenet_a"):
        write_json(study.layout.archive_card(name), {"file": "../../secret", "sha256": "0"})
    (tmp_path / "secret").write_bytes(b"PK")
    monkeypatch.setattr(cli, "study_of", lambda config: study)
    for stage in (
        lambda: make_index(study, "imagenet_ab"),
        lambda: make_manifest(study, "imagenet_real"),
        lambda: cli.unpack("imagenet_a"),
    ):
        with pytest.raises(DataError, match=r"expected the card of a download.*found file '\.\./\.\./secret'"):
            stage()


def test_a_pack_reads_only_its_own_shards(toy_world, tmp_path):
    listed, index = toy_world / "data/manifests/imagenet_train.parquet", tmp_path / "packs/imagenet_train.parquet"
    build_pack(toy_world / "imagenet", listed, PACKING, index, 0)
    ids = pa.array(read_manifest(listed)["image_id"])
    whole = Pack(index, PACKING, ids).read(0)
    shard = index.with_suffix("") / "shard-00000.tar"
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(shard.stat().st_size))
    card = read_json(index.with_suffix(".json"))
    card["shards"][0]["file"] = "../../secret"
    write_json(index.with_suffix(".json"), card)
    assert Pack(index, PACKING, ids).read(0) == whole
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00000\.tar: expected"):
        Pack(index, PACKING, ids)


@pytest.mark.parametrize(
    "name", ["../../n01440764_1.xml", "/train_xml/n01440764/n01440764_1.exe", "train_xml/../x.xml"]
)
def test_a_path_in_a_record_s_name_raises_and_nothing_is_unpacked(tmp_path, name):
    record = b"<annotation><metadata><estimateTime>5</estimateTime><selected>True</selected></metadata></annotation>"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(record)
        tar.addfile(member, io.BytesIO(record))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ab.tar.gz").write_bytes(gzip.compress(stream.getvalue()))
    with pytest.raises(DataError, match="does not have the format of ImageNet-AB"):
        imagenet_ab.index(tmp_path / "in" / "ab.tar.gz", tmp_path / "out" / "i.parquet", tmp_path / "out" / "i.json")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"ab.tar.gz"}


@pytest.mark.parametrize(
    "name", ["/etc/passwd.jpg", "../COCO_train2014_000000000009.jpg", "a/b.jpg", "a\n.jpg", "a\0.jpg"]
)
def test_a_path_in_a_coco_file_name_raises(tmp_path, name):
    image = {"id": 9, "file_name": name, "width": 8, "height": 8}
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": [image], "annotations": [], "categories": []}), encoding="utf-8")
    with pytest.raises(DataError, match=r"entry 0 of 'images'.*(file name|file_name)"):
        read_instances(file)


@pytest.mark.parametrize(
    "listed", ["../../secret/ILSVRC2012_val_00000001.JPEG", "/secret/ILSVRC2012_val_00000001.JPEG"]
)
def test_a_localisation_list_cannot_name_images_outside(tmp_path, listed):
    val, lists = tmp_path / "in" / "imagenet" / "val", tmp_path / "in" / "lists"
    for folder in (val, lists, tmp_path / "secret"):
        folder.mkdir(parents=True)
        (folder / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    for name, row in (
        ("image_ids", ""),
        ("class_labels", ",65"),
        ("image_sizes", ",9,9"),
        ("localization", ",1,1,2,2"),
    ):
        (lists / f"wsol_test_{name}.txt").write_text(f"{listed}{row}\n", encoding="utf-8")
    out = tmp_path / "m.parquet"
    build_manifest("wsol_test", val.parent, out, tmp_path / "m.json", partial=True, lists=lists)
    assert read_manifest(out)["path"].tolist() == ["val/ILSVRC2012_val_00000001.JPEG"]


@pytest.mark.parametrize(
    ("name", "row"), [("class_labels", ",1000"), ("class_labels", ",99999"), ("image_sizes", ",9," + "9" * 5000)]
)
def test_a_localisation_list_has_valid_classes_and_sizes(tmp_path, name, row):
    image = "val/ILSVRC2012_val_00000001.JPEG"
    (tmp_path / image).parent.mkdir()
    (tmp_path / image).write_bytes(b"x")
    rows = {"image_ids": "", "class_labels": ",65", "image_sizes": ",9,9", "localization": ",1,1,2,2"} | {name: row}
    for other, text in rows.items():
        (tmp_path / f"wsol_test_{other}.txt").write_text(f"{image}{text}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"wsol_test_{name}\.txt"):
        build_manifest("wsol_test", tmp_path, tmp_path / "m.parquet", tmp_path / "m.json", partial=True, lists=tmp_path)


@pytest.mark.parametrize("what", ["empty", "noise", "cut", "flipped", "a later version"])
def test_a_damaged_devkit_raises(tmp_path, what):
    kind = [("ILSVRC2012_ID", int), ("WNID", object), ("num_children", int)]
    stream = io.BytesIO()
    savemat(stream, {"synsets": np.array([(1, "n01440764", 0), (2, "n01443537", 0)], dtype=kind)}, do_compression=True)
    whole = stream.getvalue()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n", encoding="utf-8")
    (data / "meta.mat").write_bytes(whole)
    out = (tmp_path / "m.parquet", tmp_path / "m.json")
    assert build_manifest("imagenet_val", tmp_path, *out, partial=True)["n"] == 1
    (data / "meta.mat").write_bytes(
        {
            "empty": b"",
            "noise": bytes(range(256)) * 4,
            "cut": whole[:-30],
            "flipped": whole[:150] + bytes([whole[150] ^ 255]) + whole[151:],
            "a later version": b"MATLAB 7.3 MAT-file".ljust(124, b"\0") + b"\x00\x02IM" + bytes(100),
        }[what]
    )
    with pytest.raises(DataError, match=r"meta\.mat: expected the devkit's `synsets`"):
        build_manifest("imagenet_val", tmp_path, *out, partial=True)


def test_a_pickled_mask_raises(trap, tmp_path):
    from luab.predict import Predictor

    file = tmp_path / "fg_mask" / "a.npy"
    file.parent.mkdir()
    np.save(file, np.array([Trap(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: expected the foreground mask"):
        Predictor._foreground(None, tmp_path, "original/a.JPEG")  # type: ignore[arg-type]


def test_deeply_nested_json_does_not_crash(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    for name in ("real.json", "provenance.jsonl", PROGRESS, ATTEMPTS):
        (tmp_path / name).write_text(deep + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"real\.json: expected JSON"):
        read_json(tmp_path / "real.json")
    with pytest.raises(DataError, match=r"provenance\.jsonl, line 1: expected the record"):
        list(read_records(tmp_path / "provenance.jsonl"))
    assert read_progress(tmp_path) is None and read_attempts(tmp_path) == []
    (tmp_path / "instances.json").write_text(f'{{"images": [{deep}]}}', encoding="utf-8")
    with pytest.raises(DataError, match="brackets nested too deep"):
        read_instances(tmp_path / "instances.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [[-1]]}, "expected classes from 0 to 999 in labels, found -1 to -1"),
        ({"labels": [[1000]]}, "found 1000 to 1000"),
        ({"top5": [[0, 1, 2, 3, 30_000]]}, "in top5, found 0 to 30000"),
        ({"top5": [[0, 1, 2, 3, -5]]}, "in top5, found -5 to 3"),
        ({"labels": [["0"]]}, "expected whole numbers in labels, found string"),
        ({"labels": ["../secret"]}, "expected whole numbers in labels"),
    ],
)
def test_predictions_with_invalid_classes_raise(tmp_path, changes, words):
    """A negative class would index a table from its end; one that is too large would end in a traceback."""
    row = {"image_id": ["../../a"], "labels": [[0]], "top5": [[0, 1, 2, 3, 4]]}  # ids are compared, not opened
    pq.write_table(pa.table(row), tmp_path / "val.parquet")
    assert read_predictions(tmp_path, "val", tuple(row)).num_rows == 1
    pq.write_table(pa.table(row | changes), tmp_path / "val.parquet")
    with pytest.raises(DataError, match=words):
        read_predictions(tmp_path, "val", tuple(row))


def test_invalid_coco_labels_raise():
    assert label_table(pa.table({"labels": [[79], []]}), 80).sum() == 1
    for bad in ([[80]], [[-1]]):
        with pytest.raises(DataError, match="expected classes from 0 to 79"):
            label_table(pa.table({"labels": bad}), 80)


def sound_files(folder):
    """One small file of each kind that others may have written, and its reader."""
    ids = [f"a{k:03d}" for k in range(50)]
    rows = [{"image_id": i, "path": i, "labels": [1], "group": "", "width": 8, "height": 8, "boxes": []} for i in ids]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "manifest.parquet")
    half = pa.array([0.5] * 50, pa.float32())
    pq.write_table(
        pa.table([ids, [None] * 50, [0.5] * 50, [0.5] * 50], schema=TARGETS_SCHEMA), folder / "targets.parquet"
    )
    best = [[0, 1, 2, 3, 4]] * 50
    pq.write_table(pa.table({"image_id": ids, "top5": best, "confidence": half}), folder / "predictions.parquet")
    model = torch.nn.Linear(3, 2)
    save_model(folder / "model.safetensors", model, {"run": {"seed": 1}})
    save_state(folder, {"key": "k", "tensor": torch.arange(3), "log": [[0, 1.5]], "text": None})
    return {
        "manifest.parquet": read_manifest,
        "targets.parquet": read_image_points,
        "predictions.parquet": lambda _: read_predictions(folder, "predictions", ("image_id", "top5", "confidence")),
        "model.safetensors": lambda file: load_model(file, model, {"seed": 1}),
        "state.pt": lambda file: load_state(file, "k"),
    }


@pytest.mark.filterwarnings("ignore")  # from torch, for the protocol of a damaged pickle
def test_randomly_damaged_files_raise_data_errors_or_are_read(tmp_path):
    rng, refused = random.Random(0), 0
    for name, read in sound_files(tmp_path).items():
        file = tmp_path / name
        whole = file.read_bytes()
        read(file)
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(whole))] = rng.randrange(256)
            file.write_bytes(damaged[: rng.choice([len(whole), len(whole), rng.randrange(len(whole))])])
            try:
                read(file)
            except DataError:
                refused += 1
    assert refused > 500  # of 750; changes in numbers and unread parts are not detected


# ---- no command is taken from data ----------------------------------------------------------------------------


def constraints():
    """Wildcards of the workflow and their patterns."""
    text = (REPOSITORY / "workflow/rules/common.smk").read_text(encoding="utf-8")
    below = re.search(r'^BELOW_DATASET = r"(.+)"$', text, re.MULTILINE)
    assert below
    block = text.split("wildcard_constraints:\n")[1].split("\n\n")[0]
    found = dict(re.findall(r'^    (\w+)=f?r?"(.+)",$', block, re.MULTILINE))
    tasks = "|".join(NAMES)
    for name, code in (("taught", "TASKS"), ("byproducts", '"|".join(luab_tasks.task_of(name).byproducts')):
        assert f"    {name}={code}" in block
    found |= {"taught": tasks, "byproducts": "|".join(task_of(name).byproducts for name in NAMES)}
    assert len(found) == len(block.splitlines())
    return {
        name: pattern.replace("{BELOW_DATASET}", below[1]).replace("{TASKS}", tasks) for name, pattern in found.items()
    }


def placeholders():
    """Expressions in braces in the shell commands of rules."""
    found = set()
    for file in sorted((REPOSITORY / "workflow/rules").glob("*.smk")):
        for command in re.findall(r"shell:\s*\n((?:\s+\".*\"\n)+)", file.read_text(encoding="utf-8")):
            found |= set(re.findall(r"{(.*?)}", command))
    return found


def test_shell_commands_of_rules_contain_only_names():
    found, known = placeholders(), constraints()
    params = {"params.name", "params.suite", "params.runs", "params.names"}
    assert found <= {"log", *params, *(f"wildcards.{name}" for name in known)}
    assert {"wildcards.run", "wildcards.archive", "wildcards.dataset", "params.suite"} <= found


@pytest.mark.parametrize("bad", [*SHELL, "..", "../x", "/x", "-rf", "{x}", "ü"])
def test_no_wildcard_can_be_a_command_or_a_path(bad):
    known = constraints()
    assert re.fullmatch(known["run"], CLICK.folder) and re.fullmatch(known["archive"], "ILSVRC2012-x_1.0")
    for name, pattern in known.items():
        assert not re.fullmatch(pattern, bad), name
    places = [f"imagenet/{bad}/click-1/seed0", f"imagenet/r/{bad}-1/seed0", f"imagenet/r/click-{bad}/seed0"]
    places += [f"imagenet/r/click-1/seed{bad}", f"{bad}/r/click-1/seed0"]
    for place in places:
        assert not re.fullmatch(known["run"], place), place


@pytest.mark.parametrize("bad", SHELL)
def test_bad_names_in_the_configuration_raise(toy_study, bad):
    """Names used in commands and file names: suites, recipes, backbones."""
    content = yaml.safe_load(toy_study().dump())
    parse_study(content)
    for place, key in (("suites", "name"), ("backbones", "recipe")):
        changed = json.loads(json.dumps(content))
        changed[place][0][key] = bad
        with pytest.raises(ConfigError, match=rf"{place}\[0\]\.{key}"):
            parse_study(changed)


@pytest.mark.parametrize("key", ["data", "results", "imagenet", "archives"])
def test_snakemake_patterns_in_paths_raise(toy_study, key):
    for bad in ("a{run}", "{wildcards.x}", "a\nb"):
        with pytest.raises(ConfigError, match=r"paths: .* contains braces"):
            toy_study(paths={key: bad})


@pytest.mark.parametrize("bad", [*SHELL, "../x", "-x", "/x"])
def test_bad_names_in_the_list_of_downloads_raise(tmp_path, bad):
    entry = {"dataset": "d", "urls": ["https://host/x"], "file": "x.tar", "checksum_source": "none published"}
    for name, change in ((bad, {}), ("x", {"file": bad}), ("x", {"dataset": bad}), ("x", {"unpack": bad})):
        (tmp_path / "archives.yaml").write_text(yaml.safe_dump({name: entry | change}), encoding="utf-8")
        with pytest.raises(ConfigError, match="mistake"):
            load_archives(tmp_path / "archives.yaml")


def test_commands_of_dvc_contain_no_parameters():
    """No ${...} from a parameter file, and no shell commands except Snakemake."""
    for file in ("dvc.yaml", "dvc.lock"):
        if not (REPOSITORY / file).is_file():
            continue
        content = yaml.safe_load((REPOSITORY / file).read_text(encoding="utf-8"))
        assert "vars" not in content and content["stages"]
        for name, stage in content["stages"].items():
            assert re.fullmatch(r"snakemake [\w ./-]+", stage["cmd"]), name
            assert "do" not in stage and "foreach" not in stage and "matrix" not in stage


def test_records_of_snakemake_are_not_run(tmp_path):
    provenance, metadata = tmp_path / "results" / "provenance.jsonl", tmp_path / ".snakemake" / "metadata"
    provenance.parent.mkdir()
    names = [f"results/{bad}" for bad in SHELL] + ["results/" + "x" * 400, "results/a\0b"]
    lines = [
        {"output": name, "rule": "train", "shellcmd": "touch pwned", "params": ["$(touch pwned)"]} for name in names
    ]
    provenance.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert import_records(provenance, metadata) == len(names)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != provenance]
    assert len(written) == len(names) and all(path.is_relative_to(metadata) for path in written)
