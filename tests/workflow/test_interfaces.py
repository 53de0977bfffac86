"""Browsing against tagging through Snakemake: the same images, equal numbers of points, an answer from the scores."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from luab.data.supervisions.point_files import read_image_points
from luab.files import file_sha256, read_json
from luab.provenance.lineage import lineage
from luab.render.headline import answers_of
from luab.study.config import load_study

from .conftest import Checkout
from .test_trace import every

pytestmark = pytest.mark.slow

CONFIG = ("--configfile", "config/demo.yaml", "tests/workflow/tiny/interfaces.yaml")
TABLES = ("results/tables/answers.md", "results/tables/imagenet_main.csv")


def test_clicks_and_tags_on_the_same_images_give_an_answer(
    copy_checkout: Callable[[str], Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = copy_checkout("interfaces")
    done = checkout.snakemake(*TABLES, "--cores", "1", *CONFIG, timeout_s=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    folder = checkout.folder / "data" / "targets" / "imagenet"
    found = {name: read_image_points(folder / f"{name}.parquet") for name in ("browsed", "tagged", "both")}
    images, clicks = found["browsed"]
    assert 22 * 8 / 2 < len(images) < 22 * 8
    assert found["tagged"][0] == found["both"][0] == images
    is_click, is_tag = ((found["both"][1] == found[name][1]).all(axis=1) for name in ("browsed", "tagged"))
    assert (is_click | is_tag).all() and 0.3 < is_click.mean() < 0.7
    card = read_json(folder / "both.json")
    assert card["notes"]["clicks"] == is_click.sum() and card["n"] == len(clicks) == card["notes"]["with_both"]
    assert read_json(folder / "shuffled_of_tagged.json")["of"] == "tagged"
    table = (checkout.folder / TABLES[0]).read_text(encoding="utf-8")
    assert table.count("Tagging, shuffled") == 1 and table.count("| Browsing |") == 2
    with monkeypatch.context() as patch:
        patch.chdir(checkout.folder)
        study = load_study(["config/config.yaml", *CONFIG[1:]])
        [(title, [text])] = answers_of(study).items()
        traced = lineage(study, Path(TABLES[1]), ["tagged", "metric=top1"])
    assert title == "ImageNet-1k" and "Tagging is not significantly different from Baseline (" in text
    assert ", no interval) and not significantly different from Browsing (" in text
    assert "n = 1 seed, 66 images." in text
    tags = file_sha256(checkout.folder / "data" / "tags" / "imagenet_tags.csv")
    assert not list(traced.problems())
    assert ("tags", f"SHA-256 {tags}") in [(one.what, one.found) for one in every(traced)]
    assert checkout.plan(*TABLES, "--cores", "1", *CONFIG) == {}
    # Without tags, neither the world nor the index of the clicks is made again.
    names = ("browsed", "tagged", "both", "shuffled_tagged")
    plain = {"study": None, "paths": {"tags": None}, "supervisions": {"click": {}, **dict.fromkeys(names)}}
    (checkout.folder / "plain.json").write_text(json.dumps(plain), encoding="utf-8")
    again = checkout.plan("data/targets/imagenet/click.json", "--cores", "1", *CONFIG, "plain.json")
    assert again == {"targets": 1}
