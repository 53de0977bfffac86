"""Real JPEGs and real records through the command line, stage by stage; runs where the samples are."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from luab.files import read_json

pytestmark = [pytest.mark.samples, pytest.mark.slow]

RUN = "imagenet/resnet18/click-1/seed0"
RECORD = "n01440764_10027"
RECIPE = """
epochs: 1
batch_size: 12
input_px: 224
optimizer: sgd
lr: 0.01
weight_decay: 1.0e-4
warmup_epochs: 0
"""


@dataclass(frozen=True)
class Bench:
    """A folder with a study over the samples."""

    folder: Path
    repository: Path

    def luab(self, *arguments: str) -> str:
        """Runs one command; returns what it said on stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "luab", *arguments, "--config", str(self.folder / "samples.yaml")],
            cwd=self.repository,
            env=os.environ | {"PYTHONPATH": str(self.repository)},
            capture_output=True,
            text=True,
            timeout=300,
            encoding="utf-8",
            errors="replace",
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def bench(samples: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The samples as an ImageNet tree and as the official archive, with a configuration over them."""
    folder = tmp_path_factory.mktemp("samples")
    _link_images(samples / "imagenet", folder / "imagenet")
    with tarfile.open(folder / "imagenet_ab_v1_0.tar.gz", "w:gz") as tar:
        tar.add(samples / "imagenet_ab" / "train_xml", "train_xml")
    packed = (folder / "imagenet_ab_v1_0.tar.gz").read_bytes()
    entry = {
        "dataset": "imagenet_ab",
        "urls": ["file:imagenet_ab_v1_0.tar.gz"],
        "file": "imagenet_ab_v1_0.tar.gz",
        "bytes": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "checksum_source": "this test",
        "unpack": False,
    }
    (folder / "archives.yaml").write_text(yaml.safe_dump({"imagenet_ab": entry}), encoding="utf-8")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "short.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "samples.yaml").write_text(json.dumps(_configuration(folder)), encoding="utf-8")
    return Bench(folder, repository)


def _link_images(images: Path, tree: Path) -> None:
    """train/ and val/ show the same pictures; one training image gets the name that a real record has."""
    for k, file in enumerate(sorted(images.glob("*/*.JPEG"))):
        wnid = file.parent.name
        name = f"{RECORD}.JPEG" if RECORD.startswith(wnid) else file.name
        for target in (tree / "train" / wnid / name, tree / "val" / wnid / f"ILSVRC2012_val_{k + 1:08d}.JPEG"):
            target.parent.mkdir(parents=True)
            target.symlink_to(file.resolve())


def _configuration(folder: Path) -> dict[str, object]:
    return {
        "coco": None,
        "backbones": [{"name": "resnet18", "recipe": "short", "gpu_images_per_s": 5000}],
        "sweep": {"backbones": [], "supervisions": [], "lambdas": []},
        "suites": [{"name": "val", "benchmarks": ["imagenet_val"]}],
        "compute": {"device": "cpu", "workers": 0, "threads": 2, "predict_batch": 27},
        "paths": {
            "data": str(folder / "data"),
            "results": str(folder / "results"),
            "archives": str(folder / "archives.yaml"),
            "recipes": str(folder / "recipes"),
            "imagenet": str(folder / "imagenet"),
            "partial": True,
        },
    }


def test_real_records_are_indexed(bench: Bench) -> None:
    bench.luab("fetch", "imagenet_ab")
    bench.luab("index")
    index = pq.read_table(bench.folder / "data/byproducts/imagenet_ab.parquet").to_pandas().set_index("image_id")
    assert sorted(index.index) == ["n01440764_10027", "n02490219_6469", "n02490219_6690", "n04542943_689"]
    assert read_json(bench.folder / "data/byproducts/imagenet_ab.json")["rows"] == 4
    bench.luab("targets", "click")
    targets = pq.read_table(bench.folder / "data/targets/imagenet/click.parquet").to_pandas().set_index("image_id")
    assert RECORD in targets.index
    x, y = targets.loc[RECORD, ["x", "y"]]
    clicked = [tuple(point) for clicks in index.loc[RECORD, "click_xy"] for point in clicks]
    assert 0 < x < 1 and 0 < y < 1 and clicked
    assert min(abs(x - cx) + abs(y - cy) for cx, cy in clicked) < 1e-6 or len(clicked) > 1


def test_real_images_are_trained_on_predicted_and_scored(bench: Bench) -> None:
    if not (bench.folder / "data/targets/imagenet/click.json").is_file():
        pytest.fail("the records come first")
    for dataset in ("imagenet_train", "imagenet_val"):
        bench.luab("manifest", dataset)
        card = read_json(bench.folder / f"data/manifests/{dataset}.json")
        assert (card["n"], card["classes"]) == (108, 108)
    bench.luab("train", RUN)
    folder = bench.folder / "results" / "runs" / RUN
    run = read_json(folder / "run.json")
    assert (run["images"], run["points"]) == (108, 1)
    assert 0 < run["final"]["classification"] < 20
    bench.luab("predict", RUN, "val")
    predictions = pq.read_table(folder / "predictions" / "imagenet_val.parquet").to_pandas()
    assert len(predictions) == 108 and predictions["point_x"].notna().all()
    bench.luab("score", RUN, "val")
    score = read_json(folder / "scores" / "imagenet_val.json")
    assert score["n"] == 108 and 0 <= score["metrics"]["top1"] <= score["metrics"]["top5"] <= 1
