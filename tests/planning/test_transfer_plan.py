"""What fine-tunings wait for, how long they may take, and which share a job."""

import re
from pathlib import Path
from typing import Any

import pytest

from luab.planning.estimate import by_transfer, fine_tuning_hours, known_dense_speeds, parts, published_dense_speeds
from luab.planning.estimate import published_speeds as speeds_of
from luab.planning.plan import Plan, summary
from luab.provenance.code import covered_modules
from luab.study.config import load_study

PILOT = ["config/config.yaml", "config/demo.yaml", "config/pilot.yaml"]


@pytest.fixture
def planned(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(repository)
    return lambda *files: Plan.of(load_study(["config/config.yaml", *files]))


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        ("voc_detection", ["data/raw/voc.json"]),
        ("coco_detection", ["data/raw/coco.json"]),
        ("coco_points", ["data/raw/coco.json", "data/targets/coco/click.json"]),
    ],
)
def test_a_fine_tuning_waits_for_its_run_and_its_images(planned: Any, entry: str, data: list[str]) -> None:
    plan = planned("config/transfer.yaml").transfers
    (one,) = plan.named(f"{entry}/resnet50/click-1/seed0")
    assert plan.training_inputs([one]) == ["results/runs/imagenet/resnet50/click-1/seed0/run.json", *data]
    assert plan.predicted_inputs([one])[0] == f"results/transfer/{one.folder}/run.json"
    assert plan.scored_inputs([one])[0] == f"results/transfer/{one.folder}/predictions.json"
    assert "detection_resnet" not in plan.fine_tuned_with([one])[0] and '"epochs":' in plan.fine_tuned_with([one])[0]


def test_own_copies_are_not_waited_for(planned: Any, tmp_path: Path) -> None:
    (tmp_path / "copies.yaml").write_text("paths: {copies: {voc: /data/voc}}\n", encoding="utf-8")
    plan = planned("config/transfer.yaml", str(tmp_path / "copies.yaml")).transfers
    ones = plan.named("voc_detection/resnet50/none-0/seed0")
    assert plan.training_inputs(ones) == ["results/runs/imagenet/resnet50/none-0/seed0/run.json"]
    assert plan.images_of(ones) == ["/data/voc"]


def test_every_job_of_the_full_study_is_alone_and_the_pilot_s_four_share_one(planned: Any) -> None:
    full, pilot = planned("config/transfer.yaml"), planned(*PILOT[1:], "config/pilot_transfer.yaml")
    assert full.transfers.cohorts() == {}
    cohorts = pilot.transfers.cohorts()
    assert len(cohorts) == 15 and {len(ones) for ones in cohorts.values()} == {4}
    assert sorted(one for ones in cohorts.values() for one in ones) == sorted(pilot.study.fine_tunings())
    pattern = re.compile(pilot.transfers.pattern)
    assert not any(pattern.fullmatch(one.folder) for one in pilot.study.fine_tunings())
    pattern = re.compile(full.transfers.pattern)
    assert all(pattern.fullmatch(one.folder) for one in full.study.fine_tunings())


def test_gpu_hours_are_images_times_epochs_by_speed(planned: Any) -> None:
    study = planned("config/transfer.yaml").study
    speeds = published_dense_speeds(study)
    assert fine_tuning_hours(study, "voc_detection", speeds) == (5011 + 11540) * 26 / 9.5 / 3600
    costs = {cost.transfer: cost for cost in by_transfer(study, speeds)}
    assert list(costs) == list(study.transfer) and costs["coco_points"].fine_tunings == 4 * 3
    assert known_dense_speeds(study) == speeds  # nothing has finished
    names = [part.name for part in parts(study, speeds_of(study))]
    assert names[-len(costs) :] == [f"fine-tunings: {name}" for name in costs]
    assert "183 trainings and 84 fine-tunings" in summary(study)


def test_a_job_has_at_least_an_hour_and_at_most_the_longest(planned: Any) -> None:
    plan = planned("config/transfer.yaml").transfers
    assert plan.training_minutes(plan.named("coco_points/resnet50/none-0/seed0")) == 24 * 60
    assert plan.training_minutes(plan.named("voc_segmentation/resnet50/none-0/seed0")) == pytest.approx(1307, abs=1)
    assert plan.prediction_minutes(plan.named("voc_segmentation/resnet50/none-0/seed0")) == 60


def test_the_drawn_voc_is_in_a_list_of_its_own(planned: Any) -> None:
    pilot = planned(*PILOT[1:], "config/pilot_transfer.yaml")
    assert pilot.archive_list("voc2007_test") == ["data/pilot/world_voc/server/archives.yaml"]
    assert pilot.archive_list("imagenet_v2") == ["data/pilot/world/server/archives.yaml"]
    assert planned("config/transfer.yaml").archive_list("voc2007_test") == []


@pytest.mark.parametrize("files", [[], ["config/demo.yaml"], PILOT[1:]])
def test_a_study_without_entries_plans_no_file_of_fine_tunings(planned: Any, files: list[str]) -> None:
    plan = planned(*files)
    everything = [*plan.prepared(), *plan.crate_inputs(), *plan.report_inputs(), *plan.scores(), *plan.descriptions()]
    assert plan.transfers.finished() == plan.transfers.scores() == plan.transfers.prepared() == []
    assert not [path for path in everything if "transfer" in path or "voc" in path]
    assert not {"detection", "segmentation"} & {*plan.tables, *plan.figures}


@pytest.mark.parametrize(
    "module", ["luab.demo.world", "luab.benchmarks.score", "luab.benchmarks.collect", "luab.data.supervisions.coco"]
)
def test_stages_before_fine_tunings_do_not_follow_their_code(module: str) -> None:
    covered = covered_modules(module)
    assert not [
        name for name in covered if name.startswith(("luab.transfer", "luab.data.dense", "luab.study.transfer"))
    ]
