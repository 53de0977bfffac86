"""The section `transfer`: which fine-tunings it makes, what it refuses, and that a study without it stays the same."""

from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError
from luab.study.config import Study, load_study, parse_study
from luab.study.paths import Run
from luab.study.transfers import FineTuning

OVERLAYS = {
    "full": ["config/transfer.yaml"],
    "pilot": ["config/demo.yaml", "config/pilot.yaml", "config/pilot_transfer.yaml"],
}
ENTRY = {"task": "detection", "data": "voc", "network": "faster_rcnn", "recipe": "detection_resnet"} | {
    "gpu_images_per_s": 9.5, "backbones": ["resnet50"], "supervisions": ["none", "click"]
}  # fmt: skip


@pytest.fixture(scope="module")
def main(repository: Path) -> Study:
    return load_study(["config/config.yaml"], repository)


def with_entry(repository: Path, **keys: Any) -> Study:
    """The full study with one entry of `transfer`, of which these keys differ."""
    content = load_study(["config/config.yaml"], repository).model_dump(mode="json")
    recipes = {"detection_resnet": {"epochs": 26, "batch_size": 16, "shorter_px": 800, "longest_px": 1333}
               | {"optimizer": "momentum", "lr": 0.02, "weight_decay": 1e-4}}  # fmt: skip
    content |= {"transfer": {"boxes": ENTRY | keys}, "transfer_recipes": recipes}
    return parse_study(content, repository)


@pytest.mark.parametrize(("size", "number"), [("full", 84), ("pilot", 60)])
def test_the_shipped_entries_are_as_many_fine_tunings_as_planned(repository: Path, size: str, number: int) -> None:
    study = load_study(["config/config.yaml", *OVERLAYS[size]], repository)
    ones = study.fine_tunings()
    assert len(ones) == len(set(ones)) == len({one.folder for one in ones}) == number
    assert {one.run for one in ones} <= set(study.runs())
    assert {one.run.supervision for one in ones} == {"none", "random", "shuffled", "click"}
    assert {one.run.weight for one in ones} == {0.0, study.luab_lambda}
    assert {one.run.seed for one in ones} == set(study.seeds)


@pytest.mark.parametrize("size", OVERLAYS)
def test_entries_change_no_training(repository: Path, size: str) -> None:
    files = ["config/config.yaml", *OVERLAYS[size]]
    study, without = load_study(files, repository), load_study(files[:-1], repository)
    assert study.runs() == without.runs() and study.cohorts() == without.cohorts()
    assert study.layout == without.layout
    assert study.digest() != without.digest()


def test_a_study_without_entries_is_written_as_if_there_was_no_such_section(main: Study) -> None:
    assert main.transfer == {} and main.fine_tunings() == []
    assert "transfer" not in main.dump()
    assert parse_study(main.model_dump(mode="json")) == main


def test_the_written_study_reads_back_with_its_recipes(repository: Path, tmp_path: Path) -> None:
    study = load_study(["config/config.yaml", "config/transfer.yaml"], repository)
    (tmp_path / "study.yaml").write_text(study.dump(), encoding="utf-8")
    assert load_study([tmp_path / "study.yaml"]) == study
    assert set(study.transfer_recipes) == {entry.recipe for entry in study.transfer.values()}


def test_an_overlay_removes_an_entry_with_null(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "less.yaml").write_text("transfer: {coco_points: null, coco_detection: null}\n", encoding="utf-8")
    study = load_study(["config/config.yaml", "config/transfer.yaml", tmp_path / "less.yaml"], repository)
    assert "coco_points" not in study.transfer and "voc_detection" in study.transfer


def test_a_folder_names_a_fine_tuning(repository: Path) -> None:
    study = with_entry(repository)
    one = FineTuning("boxes", Run("imagenet", "resnet50", "click", 1.0, 2))
    assert one in study.fine_tunings()
    assert one.folder == "boxes/resnet50/click-1/seed2" and study.fine_tuning(one.folder) == one
    assert study.layout.fine_tuning_scores(one) == Path("results/transfer/boxes/resnet50/click-1/seed2/scores.csv")
    for wrong, said in (("boxs/resnet50/click-1/seed2", "mean boxes"), ("boxes/resnet50/click/seed2", "<supervision>")):
        with pytest.raises(ConfigError, match=said):
            study.fine_tuning(wrong)


def test_null_takes_every_backbone_and_supervision_at_the_main_lambda(repository: Path) -> None:
    study = with_entry(repository, backbones=None, supervisions=None)
    assert {one.run for one in study.fine_tunings()} == {r for r in study.headline_runs() if r.dataset == "imagenet"}


def test_lambdas_of_the_sweep_can_be_named(repository: Path) -> None:
    study = with_entry(repository, backbones=["resnet18", "resnet50"], lambdas=[0.1, 1.0])
    weights = {(one.run.backbone, one.run.weight) for one in study.fine_tunings()}
    assert weights == {("resnet18", 0.0), ("resnet18", 0.1), ("resnet18", 1.0), ("resnet50", 0.0), ("resnet50", 1.0)}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"network": "fcn"}, "network 'fcn' is not for detection; use faster_rcnn"),
        ({"task": "segmentation"}, "network 'faster_rcnn' is not for segmentation; use fcn or deeplabv3"),
        ({"supervised_by": "points"}, "segmentation of coco"),
        ({"data": "imagenet_points"}, "no boxes and masks"),
        ({"recipe": "detection_resnt"}, "transfer.boxes.recipe: .*detection_resnt.yaml does not exist"),
        ({"on": "folder"}, "transfer.boxes.on: the study does not train on 'folder'"),
        ({"backbones": ["resnet51"]}, r"transfer.boxes.backbones\[0\]: 'resnet51' .* mean resnet50"),
        ({"supervisions": ["none", "clik"]}, r"transfer.boxes.supervisions\[1\]: 'clik' .* mean click"),
        ({"lambdas": [2.0]}, r"transfer.boxes.lambdas\[0\]: no run of imagenet has lambda 2"),
        ({"netwrk": "fcn"}, "transfer.boxes.netwrk: unknown key. .* mean network"),
    ],
)
def test_mistakes_are_named_with_their_key(repository: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_entry(repository, **keys)


def test_points_need_the_data_set_that_they_come_with(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.yaml").write_text("coco: null\n", encoding="utf-8")
    files = ["config/config.yaml", "config/transfer.yaml", tmp_path / "alone.yaml"]
    with pytest.raises(ConfigError, match=r"coco_points.supervised_by: points of coco .* leaves out"):
        load_study(files, repository)
