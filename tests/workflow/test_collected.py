"""The whole circle: drawn images, a worker in a browser, the export, and a study that trains on what was recorded."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from luab.annotate.exports import export_all
from luab.demo.photos import train_images

from ..annotate.conftest import Served, collection, configuration, served
from ..annotate.pointing import Hand
from .conftest import Checkout

__all__ = ["collection", "served"]  # fixtures of another folder

PER_CLASS = 24
POINT = (0.25, 0.5)


def draw(folder: Path) -> None:
    """Images of two classes, in folders of their names."""
    for image, content in itertools.islice(train_images(0, 96, PER_CLASS), 2 * PER_CLASS):
        file = folder / "photos" / image.wnid.replace("n0144", "class ") / f"{image.image_id}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def annotate(hand: Hand, url: str) -> None:
    """Clicks every image at the same fraction of its sides, after a movement over it."""
    hand.login(f"{url}/browsing", "Ann")
    for page in (1, 2):
        hand.wait(lambda page=page: hand.one(".counter").text == f"{page} / 2")  # type: ignore[misc]
        hand.loaded()
        for place in range(1, PER_CLASS + 1):
            left, top = hand.corner(f".tile:nth-child({place}) img")
            size = (
                "const i = document.querySelectorAll('.tile img')[arguments[0]]; return [i.offsetWidth, i.offsetHeight]"
            )
            width, height = hand.driver.execute_script(size, place - 1)
            for step in (0.2, 0.6, 1):
                hand.move(left + round(POINT[0] * width * step), top + round(POINT[1] * height))
            hand.click(left + round(POINT[0] * width), top + round(POINT[1] * height))
        hand.press(".submit")
    hand.one("#code")


def study(folder: Path) -> Path:
    """A small study of the images and their records."""
    content: dict[str, Any] = {
        "label": "collected",
        "backbones": [],
        "suites": [],
        "coco": None,
        "folder": {
            "images": str(folder / "photos"),
            "byproducts": str(folder / "export" / "imagenet_ab.tar.gz"),
            "backbones": [{"name": "test_resnet", "recipe": "tiny_cnn", "gpu_images_per_s": 1000}],
            "supervisions": ["none", "random", "click"],
            "suites": [{"name": "own", "benchmarks": ["folder_val", "folder_points"]}],
        },
        "seeds": [0],
        "compute": {"device": "cpu", "workers": 0, "threads": 1},
        "paths": {"recipes": "tests/workflow/tiny/recipes"},
    }
    file = folder / "collected.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.mark.slow
def test_what_is_collected_trains(
    browser: Any, served: Callable[..., Served], copy_checkout: Callable[[str], Checkout], tmp_path: Path
) -> None:
    draw(tmp_path)
    browsing = {"images": "photos", "images_per_page": PER_CLASS, "pages": 2}
    here = served(configuration(tmp_path, browsing=browsing, tagging=None))
    annotate(Hand(browser.driver), here.url)
    export_all(here.desk, tmp_path / "export")
    points = pd.read_csv(tmp_path / "export" / "points.csv")
    assert len(points) == 2 * PER_CLASS and points["time_ms"].gt(0).all()
    assert points["x"].sub(POINT[0]).abs().max() < 0.02 and points["y"].sub(POINT[1]).abs().max() < 0.02
    checkout = copy_checkout("collected")
    done = checkout.snakemake("--cores", "2", "--configfile", "config/config.yaml", str(study(tmp_path)), timeout_s=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    (targets,) = (checkout.folder / "data").rglob("targets/folder/click.parquet")
    found = pd.read_parquet(targets)
    assert len(found) > PER_CLASS and found["x"].sub(POINT[0]).abs().max() < 0.02
    assert (checkout.folder / "results" / "report.html").exists()
    runs = pd.read_csv(checkout.folder / "results" / "scores.csv")
    assert set(runs["supervision"]) == {"none", "random", "click"}
