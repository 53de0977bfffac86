"""Stages of COCO on the demo's COCO, called like the workflow does: unpack, index, manifest, targets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luab.commands.stages import make_index, make_manifest, make_targets
from luab.data.manifests.known_counts import DATA_SETS
from luab.data.manifests.manifest import read_manifest
from luab.data.supervisions.point_files import read_class_points
from luab.demo.coco import coco_archives
from luab.demo.packing import pack
from luab.errors import ConfigError, DataError
from luab.fetch.unpack import unpack_all
from luab.files import file_sha256, write_json
from luab.planning.plan import Plan
from luab.study.config import Coco, Study
from luab.study.roots import source_root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    for archive in coco_archives(0, 32, train=12, val=4):
        pack(archive, folder)
    return folder


@pytest.fixture
def study(server: Path, toy_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study with COCO downloaded and unpacked."""
    made = toy_study(paths={"data": str(tmp_path / "data"), "partial": False})
    suites = [{"name": "coco", "benchmarks": ["coco_val"]}]
    backbones = [backbone.model_dump() for backbone in made.backbones]
    coco = Coco.model_validate({"backbones": backbones, "supervisions": ["none", "click"], "suites": suites})
    made = made.model_copy(update={"coco": coco})
    for name, count in (("coco_train", 12), ("coco_val", 4)):
        monkeypatch.setitem(DATA_SETS[name], "n", count)
    layout = made.layout
    archives = {f"{name}.zip": server / f"{name}.zip" for name in ("train2014", "val2014", "annotations_trainval2014")}
    unpack_all(archives, layout.raw_folder("coco"), layout.raw_card("coco"), "coco")
    file = layout.archive_folder() / "coco_ab_v1_0.json"
    file.parent.mkdir(parents=True)
    shutil.copy(server / file.name, file)
    write_json(layout.archive_card("coco_ab"), {"file": file.name, "sha256": file_sha256(file)})
    return made


def card(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def test_from_archives_to_points(study: Study) -> None:
    layout = study.layout
    assert make_index(study, "coco_ab").startswith("11 records; no known counts")  # 2 without, 1 twice
    assert card(layout.index("coco_ab"))["source_sha256"] == file_sha256(layout.archive_folder() / "coco_ab_v1_0.json")
    for name, count in (("coco_train", 12), ("coco_val", 4)):
        make_manifest(study, name)
        rows = read_manifest(layout.manifest(name))
        assert len(rows) == count
        assert (source_root(study, name) / rows["path"][0]).is_file()
    for supervision in ("click", "replayed", "random", "centre", "box", "none"):
        make_targets(study, supervision, "coco")
        path = layout.target(supervision, "coco")
        assert str(path).endswith(f"targets/coco/{supervision}.parquet")
        assert sum(len(of.labels) for of in read_class_points(path, 80).values()) == card(path)["n"]
    assert card(layout.target("random", "coco"))["n"] == card(layout.target("click", "coco"))["n"] > 0


def test_unknown_names_raise(study: Study) -> None:
    with pytest.raises(ConfigError, match="There are no byproducts 'coco'"):
        make_index(study, "coco")
    with pytest.raises(ConfigError, match="no data set 'voc'"):
        make_targets(study, "click", "voc")
    with pytest.raises(DataError, match=r"COCO-AB is missing\. Run `luab index`"):
        make_targets(study, "click", "coco")


def test_inputs_of_the_coco_stages(study: Study) -> None:
    plan, layout = Plan.of(study), study.layout
    assert plan.trees("coco") == ("coco_train", "coco_val", "coco_annotations")
    for name in ("coco_train", "coco_val"):
        assert plan.manifest_inputs(name) == [str(layout.raw_card("coco"))]
    assert plan.target_inputs("imagenet") == [str(layout.index().with_suffix(".json"))]
    waits = [layout.index("coco_ab").with_suffix(".json"), layout.manifest("coco_train").with_suffix(".json")]
    assert plan.target_inputs("coco") == list(map(str, waits))
