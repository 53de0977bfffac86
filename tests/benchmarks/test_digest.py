"""The code digests of scoring and collecting cover only what these stages run."""

from luab.provenance.code import covered_modules


def test_score_depends_on_at_most_26_modules() -> None:
    covered = covered_modules("luab.benchmarks.score")
    assert len(covered) <= 26, sorted(covered)
    assert {f"luab.benchmarks.{name}" for name in ("catalogue", "imagenet", "coco", "outcomes")} <= covered.keys()


def test_collect_does_not_depend_on_the_formulas() -> None:
    assert not {"luab.benchmarks.imagenet", "luab.benchmarks.coco"} & covered_modules("luab.benchmarks.collect").keys()
