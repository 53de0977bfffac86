"""`luab export`: folders that timm loads without luab, with equal logits and equal preprocessing."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config

from luab.byproducts.coco_classes import INDEX_OF_NAME
from luab.commands.export import export
from luab.data.images.crops import to_uint8
from luab.data.images.evaluation import evaluation_view
from luab.data.manifests.labels import wnid_index
from luab.errors import ConfigError, DataError
from luab.files import file_sha256, read_json, write_json
from luab.model import Normalise, build_model
from luab.study.config import parse_study
from luab.study.paths import Run
from luab.tasks import task_of
from luab.training.checkpoint import load_model, save_model
from luab.training.train import train

CLICK = Run("imagenet", "test_resnet", "click", 1.0, 0)
VIT = dataclasses.replace(CLICK, backbone="test_vit")
STRIDE = Run("imagenet", "resnet18", "none", 0.0, 0)
COCO = dataclasses.replace(CLICK, dataset="coco")
SHARED = dataclasses.replace(COCO, supervision="click_shared")
RECIPE = {
    "epochs": 1, "batch_size": 8, "input_px": 48, "optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01,
    "warmup_epochs": 0, "crop_pct": 0.8,
}  # fmt: skip
KWARGS = {"test_vit": {"img_size": 48, "patch_size": 8, "depth": 2}, "resnet18": {"output_stride": 16}}
METRICS = {"top1": 0.25, "top5": 0.5}

# A program of a user who has timm but not luab.
WITHOUT_LUAB = """
import sys
sys.modules["luab"] = None
import json, os, timm, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
for folder, name, arguments in json.loads(sys.argv[1]):
    by_folder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    by_name = timm.create_model(name, **arguments, checkpoint_path=f"{folder}/model.safetensors").eval()
    by_hand = timm.create_model(name, **arguments).eval()
    by_hand.load_state_dict(load_file(f"{folder}/model.safetensors"), strict=True)
    images = load_file(f"{folder}-images.safetensors")["images"]
    with torch.no_grad():
        logits = {"folder": by_folder(images), "name": by_name(images), "hand": by_hand(images)}
        if os.path.exists(f"{folder}/byproduct_head.safetensors"):
            head = load_file(f"{folder}/byproduct_head.safetensors")
            pooled = by_folder.forward_head(by_folder.forward_features(images), pre_logits=True)
            logits["points"] = torch.nn.functional.linear(pooled, head["weight"], head["bias"])
    save_file(logits, f"{folder}-logits.safetensors")
try:
    import luab
except ImportError:
    print("no luab")
"""


@pytest.fixture
def study(tmp_path):
    """Both datasets, without images: an export reads only the run."""

    def backbones(names, recipes):
        return [{"name": name, "recipe": recipes + name, "gpu_images_per_s": 100} for name in names]

    names = ["test_resnet", "test_vit", "resnet18"]
    sweep = {"backbones": [], "supervisions": [], "lambdas": []}
    recipes = {name: RECIPE | {"model_kwargs": KWARGS.get(name, {})} for name in names}
    return parse_study(
        {
            "label": "demo world",
            "backbones": backbones(names, ""),
            "supervisions": ["none", "click"],
            "sweep": sweep,
            "seeds": [0],
            "suites": [{"name": "all", "benchmarks": ["imagenet_val"]}],
            "coco": {
                "backbones": backbones(["test_resnet"], ""),
                "supervisions": {"none": {}, "click": {}, "click_shared": {"points": "click", "head": "shared"}},
                "sweep": sweep,
                "suites": [{"name": "coco", "benchmarks": ["coco_val"]}],
            },
            "compute": {"device": "cpu", "workers": 0, "threads": 1},
            "paths": {"data": str(tmp_path / "data"), "results": str(tmp_path / "results")},
            "recipes": recipes,
        }
    )


def write_run(study, run, seed=1):
    """Writes the folder of a finished run, with random weights and statistics that differ from their initial values."""
    torch.manual_seed(seed)
    recipe, folder = study.recipe(run.backbone, run.dataset), study.layout.run(run)
    outputs = task_of(run.dataset).outputs(study, run)
    model = build_model(run.backbone, recipe, outputs.points, outputs.classes)
    with torch.no_grad():  # a gain of 0, the initial value, would hide a layer
        for tensor in (*model.parameters(), *(b for name, b in model.named_buffers() if "running" in name)):
            tensor += torch.rand_like(tensor) * 0.1
    identity = {"run": run.identity(), "recipe": recipe.model_dump(mode="json"), "inputs": {"imagenet_train": "d"}}
    save_model(folder / "model.safetensors", model, identity)
    digest = file_sha256(folder / "model.safetensors")
    more = {"images": 880, "points": 645, "commit": "abc", "model_sha256": digest, "seconds": 1.5}
    write_json(folder / "run.json", identity | more)
    return model.eval()


def write_scores(study, run, model_sha256=None, identity=None):
    """Writes scores, and the card of their predictions."""
    folder = study.layout.run(run)
    score = {"metrics": METRICS, "protocol": "as agreed", "n": 1760, "details": []}
    write_json(folder / "scores" / "imagenet_val.json", score | {"run": identity or run.identity()})
    card = {"model_sha256": model_sha256 or read_json(folder / "run.json")["model_sha256"]}
    write_json(folder / "predictions" / "all.json", card)


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1]), text


def view(path, config):
    return create_transform(**resolve_data_config(pretrained_cfg=config["pretrained_cfg"]))(Image.open(path))


def test_timm_without_luab_gives_the_same_logits(study, tmp_path):
    """All ways of loading, bit-identical: with and without byproduct head, fixed size, another stride, COCO."""
    asked, ours = [], {}
    for k, run in enumerate((CLICK, VIT, STRIDE, COCO, SHARED)):
        model, out = write_run(study, run, seed=k), tmp_path / f"out{k}"
        assert export(study, run, out) == out
        images = torch.randn(5, 3, 48, 48)
        save_file({"images": images}, f"{out}-images.safetensors")
        kept = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.no_grad():
            ours[str(out)] = model(images)
        torch.set_num_threads(kept)
        arguments = {"num_classes": task_of(run.dataset).classes(study)} | KWARGS.get(run.backbone, {})
        asked.append((str(out), run.backbone, arguments))
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_LUAB, json.dumps(asked)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert (done.returncode, done.stdout) == (0, "no luab\n"), done.stderr
    for out, outputs in ours.items():
        logits, points = outputs["logits"], outputs.get("points")
        found = load_file(f"{out}-logits.safetensors")
        for way in ("folder", "name", "hand"):
            assert torch.equal(found[way], logits), (out, way)
        assert (points is None) == ("points" not in found)
        assert points is None or torch.equal(found["points"], points)
        assert logits.std(dim=0).min() > 0  # the five images have different logits


def test_a_trained_model_predicts_as_in_luab(toy_study, tmp_path):
    study = toy_study()
    train(study, CLICK)
    folder = export(study, CLICK, tmp_path / "out")
    recipe = study.recipe("test_resnet")
    ours = build_model("test_resnet", recipe, 2)
    load_model(study.layout.run(CLICK) / "model.safetensors", ours, CLICK.identity())
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=theirs))
    files = sorted(study.paths.imagenet.glob("train/*/*.JPEG"))
    seen = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    pixels = [to_uint8(evaluation_view(Image.open(file), 32, recipe.crop_pct, "resize_crop")) for file in files]
    with torch.no_grad():
        logits = ours.eval()(seen)["logits"]
        assert torch.equal(theirs(seen), logits)
        answers = ours(Normalise()(torch.stack(pixels)))["logits"].argmax(dim=1)
    assert torch.equal(logits.argmax(dim=1), answers)
    card = read_json(folder / "luab.json")
    assert card["images"] == 30 and card["points"] == read_json(study.layout.run_json(CLICK))["points"] > 0


@pytest.mark.parametrize(("run", "way"), [(CLICK, "resize_crop"), (VIT, "resize_crop"), (COCO, "squash")])
def test_timms_transform_equals_luabs_preprocessing(study, tmp_path, run, way):
    """The same pixels; the normalised values differ by rounding, (x / 255 - m) / s against (x - 255 m) / 255 s."""
    write_run(study, run)
    config = read_json(export(study, run, tmp_path / "out") / "config.json")
    rng, recipe = np.random.default_rng(0), study.recipe(run.backbone, run.dataset)
    for k in range(40):
        width, height = (int(side) for side in rng.integers(20, 300, 2))
        file = tmp_path / f"{k}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
        pixels = to_uint8(evaluation_view(Image.open(file), 48, recipe.crop_pct, way))
        theirs = view(file, config)
        mean, std = (torch.tensor(config["pretrained_cfg"][name]).view(3, 1, 1) for name in ("mean", "std"))
        assert torch.equal(((theirs * std + mean) * 255).round().to(torch.uint8), pixels)
        assert (theirs - Normalise()(pixels[None])[0]).abs().max() < 1e-6


def test_config_json_has_what_timm_needs(study, tmp_path):
    write_run(study, CLICK)
    config = read_json(export(study, CLICK, tmp_path / "out") / "config.json")
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("test_resnet", 1000, 96)
    names = config["label_names"]
    assert len(names) == 1000 and all(names[index] == wnid for wnid, index in wnid_index().items())
    assert config["label_descriptions"]["n01440764"].startswith("tench")
    inner = config["pretrained_cfg"]
    assert inner["input_size"] == [3, 48, 48] and inner["num_classes"] == 1000
    assert (inner["interpolation"], inner["crop_pct"], inner["crop_mode"]) == ("bilinear", 0.8, "center")
    assert inner["mean"] == [0.485, 0.456, 0.406] and inner["std"] == [0.229, 0.224, 0.225]
    assert {"first_conv", "classifier"} <= inner.keys()
    # These keys describe the weights that timm would download, not the exported ones.
    foreign = {"tag", "license", "origin_url", "paper_ids", "paper_name", "notes", "url", "file", "hf_hub_id", "source"}
    assert not foreign & inner.keys()


def test_model_arguments_are_exported(study, tmp_path):
    for run, expected in ((VIT, {"img_size": [48, 48]}), (STRIDE, {"output_stride": 16})):
        write_run(study, run)
        folder = export(study, run, tmp_path / run.backbone)
        found = read_json(folder / "config.json")["model_args"]
        name, wanted = next(iter(expected.items()))
        assert found[name] == wanted or [found[name]] * 2 == wanted
    assert "output_stride=16" in (folder / "README.md").read_text(encoding="utf-8")


def test_coco_is_described_as_multi_label(study, tmp_path):
    write_run(study, COCO)
    folder = export(study, COCO, tmp_path / "out")
    config = read_json(folder / "config.json")
    assert config["num_classes"] == 80 and config["problem_type"] == "multi_label_classification"
    assert config["label_names"] == sorted(INDEX_OF_NAME, key=INDEX_OF_NAME.__getitem__)
    assert (config["pretrained_cfg"]["crop_mode"], config["pretrained_cfg"]["crop_pct"]) == ("squash", 1.0)
    matter, text = front_matter(folder)
    assert "multi-label-image-classification" in matter["tags"] and "**multi-label**" in text and "sigmoid" in text
    assert "a point (x, y) for each of 80 classes" in text


def test_a_classifier_of_another_size_has_no_label_names(study, tmp_path):
    recipe = study.recipes["test_resnet"].model_copy(update={"model_kwargs": {"num_classes": 9}})
    nine = study.model_copy(update={"recipes": study.recipes | {"test_resnet": recipe}})
    write_run(nine, CLICK)
    folder = export(nine, CLICK, tmp_path / "out")
    config = read_json(folder / "config.json")
    assert config["num_classes"] == 9 and "label_names" not in config and "label_descriptions" not in config
    assert timm.create_model(f"local-dir:{folder}", pretrained=True)(torch.zeros(1, 3, 48, 48)).shape == (1, 9)


def test_the_model_card(study, tmp_path):
    write_run(study, CLICK)
    write_scores(study, CLICK)
    matter, text = front_matter(export(study, CLICK, tmp_path / "out"))
    assert matter["library_name"] == "timm" and matter["pipeline_tag"] == "image-classification"
    assert "license" not in matter and "datasets" not in matter  # the demo world is not ImageNet
    assert "(demo world)" in text.split("\n# ")[1].splitlines()[0] and "**Demo world: these weights" in text
    assert "880 training images (all of ImageNet-1k: 1,281,167)" in text
    assert "645 points (click)" in text and "weighted by λ = 1" in text
    for words in ("| imagenet_val | top1 | 0.2500 | 1,760 | as agreed |", "| commit | abc |", "| seed | 0 |"):
        assert words in text
    assert "**Demo world.** One training" in text
    real = study.model_copy(update={"label": ""})
    matter, text = front_matter(export(real, CLICK, tmp_path / "real"))
    assert matter["datasets"] == ["imagenet-1k"] and "emo world" not in text


def test_the_model_card_without_scores(study, tmp_path):
    write_run(study, STRIDE)
    _, text = front_matter(export(study, STRIDE, tmp_path / "out"))
    assert "no scores when it was exported" in text and "(the baseline)" in text and "byproduct head" not in text


def test_the_code_in_the_model_card_runs(study, tmp_path, monkeypatch):
    write_run(study, VIT)
    folder = export(study, VIT, tmp_path / "out")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    found: dict = {}
    images = torch.randn(2, 3, 48, 48)
    logits = []
    for block in blocks:
        exec(block, found)
        logits.append(found["model"](images))
    assert torch.equal(*logits) and found["transform"](Image.new("RGB", (90, 70))).shape == (3, 48, 48)


def test_only_listed_keys_of_run_json_are_exported(study, tmp_path):
    write_run(study, CLICK)
    write_scores(study, CLICK)
    file = study.layout.run_json(CLICK)
    write_json(file, read_json(file) | {"token": "hf_secret", "log": str(tmp_path / "somewhere")})
    folder = export(study, CLICK, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "byproduct_head.safetensors", "config.json", "luab.json", "model.safetensors",
    ]  # fmt: skip
    card = read_json(folder / "luab.json")
    assert card["run"] == CLICK.identity() and card["label"] == "demo world" and card["commit"] == "abc"
    assert card["scores"] == {"imagenet_val": {"metrics": METRICS, "n": 1760, "protocol": "as agreed"}}
    assert card["files"] == {path.name: file_sha256(path) for path in folder.glob("*.safetensors")}
    for path in folder.iterdir():
        content = path.read_bytes()
        assert b"hf_secret" not in content and str(tmp_path).encode() not in content, path.name
        assert os.fsencode(os.path.expanduser("~/")) not in content
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}
        assert set(tensors.keys()) == set(timm.create_model("test_resnet").state_dict())


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_an_existing_output_is_not_changed(study, tmp_path, what):
    write_run(study, CLICK)
    out, kept = tmp_path / "out", tmp_path / "kept"
    kept.mkdir()
    if what == "file":
        out.write_text("mine", encoding="utf-8")
    elif what == "link":
        out.symlink_to(kept)
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export(study, CLICK, out)
    assert (
        out.is_symlink()
        if what == "link"
        else "mine" in (out if what == "file" else out / "mine.txt").read_text(encoding="utf-8")
    )


def test_an_empty_output_folder_is_accepted(study, tmp_path, monkeypatch):
    write_run(study, CLICK)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (export(study, CLICK, Path("empty")) / "config.json").is_file()


def damage(study, what):
    folder = study.layout.run(CLICK)
    card, model = folder / "run.json", folder / "model.safetensors"
    if what == "unfinished":
        card.unlink()
        (folder / "state.pt").write_bytes(b"")
    elif what == "trained again":
        write_run(study, CLICK, seed=7)
        write_json(card, read_json(card) | {"model_sha256": "0" * 64})
    elif what == "another run":
        write_json(card, read_json(card) | {"run": VIT.identity()})
    elif what == "other shapes":
        recipe = read_json(card)["recipe"] | {"model_kwargs": {"num_classes": 10}}
        write_json(card, read_json(card) | {"recipe": recipe})
    elif what == "no recipe":
        write_json(card, {key: value for key, value in read_json(card).items() if key != "recipe"})
    elif what == "strange recipe":
        write_json(card, read_json(card) | {"recipe": read_json(card)["recipe"] | {"magic": 1}})
    elif what == "no object":
        write_json(card, ["run"])
    elif what == "no weights":
        model.unlink()
    elif what == "old predictions":
        write_scores(study, CLICK, model_sha256="1" * 64)
    elif what == "other scores":
        write_scores(study, CLICK, identity=VIT.identity())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "unfinished",
            r"found model\.safetensors, state\.pt\. Resume it with `luab train imagenet/test_re",
        ),
        ("no weights", r"found run\.json\. Resume it"),
        ("trained again", "expected the weights recorded in run.json"),
        ("another run", "expected the run .*found .*test_vit"),
        ("no object", r"expected the run .*found \['run'\]"),
        ("other shapes", "a checkpoint of another model"),
        ("no recipe", "recipe is missing"),
        ("strange recipe", "this version of luab cannot"),
        ("old predictions", "made with other weights than.*luab predict .* all"),
        ("other scores", "expected scores of"),
    ],
)
def test_an_incomplete_run_raises_and_nothing_is_written(study, tmp_path, what, words):
    write_run(study, CLICK)
    damage(study, what)
    with pytest.raises(DataError, match=words):
        export(study, CLICK, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_the_command_accepts_run_names_and_paths(study, tmp_path, monkeypatch, repository):
    from typer.testing import CliRunner

    from luab import cli

    write_run(study, CLICK)
    kept = tmp_path / "kept.yaml"
    kept.write_text(study.dump(), encoding="utf-8")
    monkeypatch.setenv("LUAB_CONFIG", str(kept))
    monkeypatch.chdir(repository)
    for k, name in enumerate((CLICK.folder, f"{study.layout.run(CLICK)}/")):
        done = CliRunner().invoke(cli.app, ["export", name, "--out", str(tmp_path / f"out{k}")])
        assert done.exit_code == 0, done.exception
        assert done.stdout == f"{tmp_path / f'out{k}'}\n"
    assert (tmp_path / "out0" / "model.safetensors").read_bytes() == (
        tmp_path / "out1" / "model.safetensors"
    ).read_bytes()


def test_run_json_says_label_and_outputs_without_the_configuration(study, tmp_path, monkeypatch, repository):
    """A run of the demo, exported from its folder with the default configuration, does not become ImageNet's."""
    import typer.testing

    from luab import cli
    from luab.commands.stages import about_model

    write_run(study, SHARED)
    file = study.layout.run_json(SHARED)
    write_json(file, read_json(file) | about_model(study, SHARED))
    monkeypatch.chdir(repository)
    monkeypatch.delenv("LUAB_CONFIG", raising=False)
    arguments = ["export", str(study.layout.run(SHARED)), "--out", str(tmp_path / "out")]
    done = typer.testing.CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    matter, text = front_matter(tmp_path / "out")
    assert "datasets" not in matter and "Demo world: these weights" in text
    assert read_json(tmp_path / "out/luab.json")["label"] == "demo world"
    assert load_file(tmp_path / "out/byproduct_head.safetensors")["weight"].shape[0] == 2  # one head for all classes
    write_run(study, CLICK)  # as older versions wrote it
    done = typer.testing.CliRunner().invoke(cli.app, ["export", str(study.layout.run(CLICK)), "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and "does not say" in str(done.exception)
