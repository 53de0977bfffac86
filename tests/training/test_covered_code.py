"""The code digest of a training covers the code that a training runs, and little else."""

import pytest

from luab.provenance.code import covered_modules, training_code
from luab.tasks import NAMES


@pytest.mark.parametrize("dataset", NAMES)
def test_a_training_covers_at_most_42_modules(dataset: str) -> None:
    assert len(covered_modules(*training_code(dataset))) <= 42


@pytest.mark.parametrize("dataset", NAMES)
def test_a_new_test_set_or_a_faster_reader_of_records_does_not_mark_trainings_as_old(dataset: str) -> None:
    covered = covered_modules(*training_code(dataset))
    assert "luab.data.manifests.testsets" not in covered
    assert {module for module in covered if module.startswith("luab.byproducts.reading")} == set()


def test_a_training_does_not_cover_the_tasks_of_other_data_sets() -> None:
    for dataset in NAMES:
        tasks = {name for name in covered_modules(*training_code(dataset)) if name.startswith("luab.tasks.")}
        assert tasks == {f"luab.tasks.{dataset}"}
