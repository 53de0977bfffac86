"""Kinds of points and test sets of your own images, in the configuration."""

from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError
from luab.planning.plan import Plan
from luab.study.config import Study, load_study, parse_study
from luab.study.roots import source_root

KINDS = {"browsed": ["b"], "gazed": ["g1", "g2"]}
TESTS = {"night": "photos/night", "snow": "photos/winter/snow"}


def study(repository: Path, supervisions: Any = ("none", "click"), benchmarks: Any = (), **folder: Any) -> Study:
    section = {
        "images": "photos/day",
        "byproducts": "points.csv",
        "backbones": [{"name": "test_resnet", "recipe": "own_scratch", "gpu_images_per_s": 1}],
        "supervisions": supervisions if isinstance(supervisions, dict) else list(supervisions),
        "suites": [{"name": "own", "benchmarks": ["folder_val", *benchmarks]}],
    }
    own = {"backbones": [], "suites": [], "coco": None, "folder": section | folder}
    main = load_study(["config/config.yaml"], repository).model_dump(mode="json")
    return parse_study(main | own | {"sweep": None, "recipes": {}, "supervisions": ["none"]}, repository)


def test_points_of_a_kind_can_be_trained_on_and_controlled(repository: Path) -> None:
    entries = {
        "none": {},
        "browsed": {},
        "gaze": {"points": "gazed", "noise": {"workers": {"fastest": 0.5}}},
        "random": {"points": "random", "of": "browsed"},
        "shuffled_gaze": {"points": "shuffled", "of": "gazed"},
    }
    made = study(repository, entries, kinds=KINDS)
    assert made.folder is not None
    targets = [entry.target for entry in made.folder.supervisions.values()]
    assert targets[1] == "browsed" and targets[3:] == ["random_of_browsed", "shuffled_of_gazed"]
    assert made.folder.supervisions["browsed"].title == "Browsing"
    assert made.folder.supervisions["gaze"].about.startswith("regresses the points gazed; noise: workers")
    assert made.of_target("shuffled_of_gazed", "folder").of == "gazed"
    options = Plan.of(made).index_options("folder_ab")
    assert options is not None and options.startswith(f"kinds {KINDS}, root ")


@pytest.mark.parametrize(
    ("entries", "kinds", "sentence"),
    [
        ({"none": {}, "a": {"points": "gaze"}}, KINDS, "there are no points 'gaze' here. Did you mean gazed?"),
        ({"none": {}, "a": {"points": "random", "of": "gaze"}}, KINDS, "expected click, box, browsed, gazed, found"),
        ({"none": {}, "tagged": {}}, KINDS, "there are no points 'tagged' here"),
        (["none"], {"click": ["c"]}, "luab makes points of the name click itself; choose another name"),
        (["none"], {"gazed": []}, "folder.kinds.gazed"),
        (["none"], {"eye gaze": ["g"]}, "folder.kinds"),
    ],
)
def test_wrong_kinds_are_refused(repository: Path, entries: Any, kinds: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        study(repository, entries, kinds=kinds)
    assert sentence in str(error.value)


def test_test_sets_have_one_manifest_below_the_folder_that_holds_them(repository: Path) -> None:
    made = study(repository, benchmarks=["folder_tests"], tests=TESTS)
    plan, manifests = Plan.of(made), made.layout.manifest_folder()
    assert source_root(made, "folder_tests") == Path("photos").absolute()
    assert plan.manifest_inputs("folder_tests") == [str(manifests / "folder_train.json")]
    assert plan.manifest_options("folder_tests") == "False, night photos/night, snow photos/winter/snow"
    assert str(manifests / "folder_tests.json") in plan.suite_manifests("own")
    assert plan.tables == ["folder_main", "folder_tests"]


def test_test_sets_and_their_benchmark_need_each_other(repository: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder\.tests: night, snow would not be scored; add the benchmark"):
        study(repository, tests=TESTS)
    with pytest.raises(ConfigError, match=r"`folder\.tests` names none\. Add some, or remove the benchmark"):
        study(repository, benchmarks=["folder_tests"])


def test_a_study_without_kinds_and_test_sets_is_written_as_before(repository: Path) -> None:
    made = study(repository)
    assert made.folder is not None
    assert not {"kinds", "tests"} & set(made.folder.model_dump()) and "kinds" not in made.dump()
    options = Plan.of(made).index_options("folder_ab")
    assert options is not None and options.startswith("root photos/day, unit fractions")
    used = study(repository, kinds=KINDS, tests=TESTS, benchmarks=["folder_tests"])
    assert parse_study({**used.model_dump(mode="json")}, repository) == used
