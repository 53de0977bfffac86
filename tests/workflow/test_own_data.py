"""Your own images from `luab init` to the report, as docs/own-data.md says, on drawn photographs and on real ones."""

import csv
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageDraw

from luab.data.manifests.labels import in9_of_class, wnid_index
from luab.files import read_json

from .conftest import Checkout

pytestmark = pytest.mark.slow

COLOURS = {"red fox": "red", "Dachs, größer": "grey", "猫": "orange"}
RECIPE = """
batch_size: 16
input_px: 64
crop_scale: [0.5, 1.0]
optimizer: adamw
lr: 4.0e-3
weight_decay: 0.02
warmup_epochs: 1
"""


def photographs(folder: Path, per_class: int = 24) -> list[list[object]]:
    """Draws a disc of the class's colour on grey noise; returns a row of byproducts for each, in pixels."""
    rows: list[list[object]] = []
    dice = random.Random(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for k in range(per_class):
            image = Image.effect_noise((90, 70), 60).convert("RGB")
            x, y = dice.randint(14, 76), dice.randint(14, 56)
            ImageDraw.Draw(image).ellipse((x - 12, y - 12, x + 12, y + 12), fill=colour)
            image.save(folder / name / f"{k:03}.jpg")
            rows.append([f"{name}/{k:03}.jpg", x + dice.gauss(0, 2), y + dice.gauss(0, 2), 400 + k, f"w{k % 3}", name])
    return rows


def write_table(file: Path, rows: Iterable[Iterable[object]]) -> None:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["image", "x", "y", "time_ms", "worker", "class"], *rows])


def init(checkout: Checkout, *arguments: str, seeds: int = 2, epochs: int = 12) -> str:
    """Runs `luab init`, and shortens the training that it plans to seconds."""
    done = checkout.python("-m", "luab", "init", "my-study", *arguments, "--backbone", "test_resnet")
    assert done.returncode == 0, done.stderr
    study = checkout.folder / "my-study.yaml"
    text = study.read_text(encoding="utf-8")
    for long, short in (
        ("seeds: [0, 1, 2]", f"seeds: {list(range(seeds))}"),
        ('recipe: "own_scratch"', "recipe: short"),
        ("device: auto", "device: cpu"),
        ("[none, random, shuffled, click]", "[none, shuffled, click]"),
    ):
        assert long in text
        text = text.replace(long, short)
    study.write_text(text, encoding="utf-8")
    (checkout.folder / "config" / "recipes" / "short.yaml").write_text(f"epochs: {epochs}{RECIPE}", encoding="utf-8")
    return done.stdout


def test_drawn_photographs_from_init_to_the_report(copy_checkout: Callable[[str], Checkout], tmp_path: Path) -> None:
    checkout = copy_checkout("own")
    write_table(tmp_path / "clicks.csv", photographs(tmp_path / "photographs"))
    images, clicks = str(tmp_path / "photographs"), str(tmp_path / "clicks.csv")
    photographs(tmp_path / "later", per_class=5)
    test = ("--test", f"later={tmp_path / 'later'}")
    said = init(checkout, "--images", images, "--byproducts", clicks, "--points", "pixels", *test)
    assert "3 classes, 57 training images (19 to 19 per class, median 19), 15 held out" in said
    run = ("--cores", "2", "--configfile", "my-study.yaml")
    done = checkout.snakemake(*run, timeout_s=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert checkout.plan(*run) == {}
    results = checkout.folder / "results" / "my-study"
    scores = pd.read_csv(results / "scores.csv", keep_default_na=False)
    assert set(scores["dataset"]) == {"folder"} and set(scores["supervision"]) == {"none", "shuffled", "click"}
    held_out = scores[scores["benchmark"] == "folder_val"]
    balanced = held_out[(held_out["metric"] == "balanced_accuracy") & (held_out["supervision"] == "none")]
    assert len(balanced) == 2 and balanced["value"].astype(float).min() > 1 / 3, "no better than chance"
    assert set(scores.loc[scores["metric"] == "accuracy", "group"]) == set(COLOURS)
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "Your own images, classification" in page and "Your own images, localisation" in page
    assert "Your own test sets" in page and "later, balanced" in page
    of_test = scores[(scores["benchmark"] == "folder_tests") & (scores["group"] == "later")]
    assert set(of_test["metric"]) == {"balanced_accuracy", "top1"} and set(of_test["n"]) == {15}
    assert (results / "figures" / "folder_maps.png").is_file()
    card = read_json(results / "runs/folder/test_resnet/click-1/seed0/run.json")
    assert (card["images"], card["points"]) == (57, 57)
    exported = checkout.python(
        *("-m", "luab", "export", "folder/test_resnet/click-1/seed0", "--out", "model", "--config", "my-study.yaml")
    )
    assert exported.returncode == 0, exported.stderr
    assert read_json(checkout.folder / "model" / "config.json")["label_names"] == sorted(COLOURS)


@pytest.mark.samples
def test_real_photographs(copy_checkout: Callable[[str], Checkout], samples: Path, tmp_path: Path) -> None:
    """The samples by super-class, with the centres of the images as points: it is about reading real files."""
    rows: list[list[object]] = []
    for file in sorted(samples.glob("imagenet/*/*.JPEG")):
        name = f"super class {in9_of_class()[wnid_index()[file.parent.name]]}"
        (tmp_path / "photographs" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "photographs" / name)
        rows.append([file.name, 0.5, 0.5, "", "", name])
    write_table(tmp_path / "points.csv", rows)
    checkout, points = copy_checkout("samples"), str(tmp_path / "points.csv")
    said = init(checkout, "--images", str(tmp_path / "photographs"), "--byproducts", points, seeds=1, epochs=2)
    assert "9 classes, 90 training images (10 to 10 per class, median 10), 18 held out" in said
    tables = [f"results/my-study/tables/folder_{name}.csv" for name in ("main", "points")]
    done = checkout.snakemake(*tables, "--cores", "2", "--configfile", "my-study.yaml", timeout_s=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert {len(pd.read_csv(checkout.folder / table)) > 0 for table in tables} == {True}
