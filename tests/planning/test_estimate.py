"""GPU hours: worked by hand, and from the speeds of finished runs."""

from pathlib import Path

import pytest

from luab.files import write_json
from luab.planning import estimate
from luab.study.config import Study, load_study
from luab.study.paths import Run

BASELINE = Run("imagenet", "resnet50", "none", 0.0, 0)


@pytest.fixture
def full(repository: Path, tmp_path: Path) -> Study:
    """The full study, its results in an empty folder."""
    study = load_study(["config/config.yaml"], repository)
    return study.model_copy(update={"paths": study.paths.model_copy(update={"results": tmp_path})})


def test_hours_of_a_training_by_hand(full: Study) -> None:
    speeds = {("imagenet", "resnet50"): estimate.Speed(1000.0, "made up")}
    assert estimate.training_hours(full, BASELINE, speeds) == pytest.approx(1_281_167 * 100 / 1000 / 3600)


def test_hours_of_predictions_by_hand(full: Study) -> None:
    speeds = {("imagenet", "resnet50"): estimate.Speed(1000.0, "made up")}
    assert estimate.prediction_hours(BASELINE, ["imagenet_c"], speeds) == pytest.approx(3_750_000 / 3000 / 3600)
    # ImageNet-O reads its own images and the validation images.
    assert estimate.prediction_hours(BASELINE, ["imagenet_o"], speeds) == pytest.approx(52_000 / 3000 / 3600)


def test_parts_hold_every_training_once_and_the_sweep_comes_after_the_main_tables(full: Study) -> None:
    speeds = estimate.published_speeds(full)
    parts = estimate.parts(full, speeds)
    assert sum(part.trainings for part in parts) == len(full.runs())
    assert [(part.name, part.trainings) for part in parts[:11]] == [
        ("Baseline", 27),
        ("Random points", 27),
        ("Shuffled points", 27),
        ("LUAB (clicks)", 27),
        ("COCO: Baseline", 6),
        ("COCO: Random points", 6),
        ("COCO: Shuffled points", 6),
        ("COCO: LUAB (clicks)", 6),
        ("COCO: LUAB (shared head)", 6),
        ("lambda sweep: the other lambdas", 24),
        ("COCO: lambda sweep: the other lambdas", 21),
    ]
    trained = sum(estimate.training_hours(full, run, speeds) for run in full.runs())
    assert sum(part.gpu_hours for part in parts[:11]) == pytest.approx(trained)


def test_finished_runs_replace_the_published_speed(full: Study) -> None:
    for seed, rate in enumerate((3000.0, 5000.0, 4400.0)):
        card = full.layout.run_json(Run("imagenet", "resnet50", "none", 0.0, seed))
        write_json(card, {"images_per_s": rate, "processes": 2})
    write_json(full.layout.run_json(Run("imagenet", "resnet18", "none", 0.0, 0)), {"seconds": 5})
    speeds = estimate.known_speeds(full)
    assert speeds["imagenet", "resnet50"] == estimate.Speed(2200.0, "measured, n=3")
    assert speeds["imagenet", "resnet18"] == estimate.Speed(3482.0, "config")
