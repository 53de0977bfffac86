"""The code digest of a training covers the code that a training runs, and little else."""

from luab.provenance.code import TRAINING, covered_modules


def test_a_training_covers_at_most_30_modules() -> None:
    assert len(covered_modules(*TRAINING)) <= 30


def test_a_new_test_set_or_a_faster_reader_of_records_does_not_mark_trainings_as_old() -> None:
    covered = covered_modules(*TRAINING)
    assert "luab.data.manifests.testsets" not in covered
    assert {module for module in covered if module.startswith("luab.byproducts.reading")} == set()
