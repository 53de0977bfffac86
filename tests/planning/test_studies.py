"""Studies beside the main one: what they share with it at full size and over the pilot, and where results lie."""

import re
from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError
from luab.planning.plan import Plan, shared_runs, sharing
from luab.render.products import products_of
from luab.study.config import Study, load_study, parse_study
from luab.study.supervisions import FROM_TAGS

MAIN = {
    "full": ["config/config.yaml"],
    "pilot": ["config/config.yaml", "config/demo.yaml", "config/pilot.yaml", "config/pilot_short.yaml"],
}
FILES = sorted((Path(__file__).parents[2] / "config" / "studies").glob("*.yaml"))
ALONE = ["uses"]
"""Studies in the drawn world that share nothing."""
DRAWN = ["interfaces"]
"""Studies that share trainings with the pilot, and need data at full size that nobody published."""
NAMES = [file.stem for file in FILES if file.stem not in ALONE]
CASES = [(size, name) for size in MAIN for name in NAMES if size == "pilot" or name not in DRAWN]


@pytest.fixture(scope="module")
def loaded(repository: Path) -> Any:
    """Reads each configuration once, in the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        known: dict[tuple[str, ...], Study] = {}

        def load(size: str, name: str | None = None) -> Study:
            files = [*MAIN[size], *([f"config/studies/{name}.yaml"] if name else [])]
            if (key := tuple(files)) not in known:
                known[key] = load_study(files)
            return known[key]

        yield load


@pytest.mark.parametrize(("size", "name"), CASES)
def test_a_study_shares_every_training_that_the_main_one_has(loaded: Any, size: str, name: str) -> None:
    study, main = loaded(size, name), loaded(size)
    both = set(study.runs()) & set(main.runs())
    assert study.study.name == name and both and shared_runs(study) == both
    assert len(study.runs()) > len(both)


@pytest.mark.parametrize("name", NAMES)
def test_jobs_of_the_pilot_that_a_study_shares_are_the_same_jobs(loaded: Any, name: str) -> None:
    """Snakemake would train a run again if the other runs of its job changed."""
    study, main = loaded("pilot", name), loaded("pilot")
    ours, theirs = Plan.of(study).cohorts(), Plan.of(main).cohorts()
    assert ours and all(theirs[key] == runs for key, runs in ours.items())
    assert {run for runs in ours.values() for run in runs} == shared_runs(study)


@pytest.mark.parametrize("size", MAIN)
def test_two_studies_never_train_one_folder_differently(loaded: Any, size: str) -> None:
    trained: dict[str, Any] = {}
    for name in [name for of_size, name in CASES if of_size == size]:
        study = loaded(size, name)
        plan = Plan.of(study)
        for run in study.runs():
            settings = (plan.trained_with(run), plan.training_inputs(run))
            assert trained.setdefault(run.folder, settings) == settings, run.folder


@pytest.mark.parametrize("name", ALONE)
def test_a_study_that_shares_nothing_has_folders_of_its_own(loaded: Any, name: str) -> None:
    study, main = loaded("pilot", name), loaded("pilot")
    assert study.study.name == name and not study.study.over and shared_runs(study) == frozenset()
    assert sharing(study) == ""
    assert study.paths.results != main.paths.results and study.paths.data != main.paths.data
    assert study.layout.report() == study.paths.results / "report.html"
    assert len(Plan.of(study).descriptions()) == 2
    assert max(map(len, Plan.of(study).cohorts().values())) == study.compute.cohort == 9


@pytest.mark.parametrize(("size", "name"), [*CASES, *(("pilot", name) for name in ALONE)])
def test_the_documentation_has_these_numbers(loaded: Any, repository: Path, size: str, name: str) -> None:
    study = loaded(size, name)
    shared, new = len(shared_runs(study)), len(study.runs()) - len(shared_runs(study))
    hours = re.search(r"about ([0-9,]+) GPU hours", sharing(study))
    cells = [str(shared), str(new), *([hours[1]] if hours else [])]
    text = (repository / "docs" / "studies.md").read_text(encoding="utf-8")
    assert f"| {name} | {size} | {' | '.join(cells)} |" in text


def test_results_of_a_study_have_their_own_folder_and_its_trainings_do_not(loaded: Any) -> None:
    study = loaded("full", "noise")
    assert str(study.layout.scores_csv()) == "results/studies/noise/scores.csv"
    assert str(study.layout.table("answers", "md")) == "results/studies/noise/tables/answers.md"
    assert str(study.layout.report()) == "results/studies/noise/report.html"
    assert study.layout.run(study.runs()[0]).parts[:2] == ("results", "runs")
    assert Plan.of(study).descriptions() == [] and len(Plan.of(loaded("full")).descriptions()) == 2


def test_answers_belong_to_studies_alone(loaded: Any) -> None:
    def names(size: str, name: str | None) -> set[str]:
        study = loaded(size, name)
        return {product.name for kind in ("table", "figure") for product in products_of(study, kind)}

    own = {"answers", "coco_answers", "folder_answers", "noise_levels", "lambda_gradients", "coco_lambda_gradients"}
    assert not own & names("full", None) and not own & names("pilot", None)
    assert own & names("pilot", "noise") == {"answers", "noise_levels"}
    assert own & names("full", "lambda") == {"answers", "coco_answers", "lambda_gradients", "coco_lambda_gradients"}
    assert own & names("full", "precision") == {"answers", "coco_answers"}
    assert own & names("pilot", "uses") == {"answers"}
    assert own & names("pilot", "interfaces") == {"answers"}


def test_the_main_study_shares_nothing(loaded: Any) -> None:
    assert sharing(loaded("full")) == "" and shared_runs(loaded("full")) == frozenset()


@pytest.mark.parametrize("changed", ["recipe", "held_out_byproducts", "scale"])
def test_other_trainings_are_not_shared(loaded: Any, changed: str) -> None:
    content = loaded("full", "noise").model_dump(mode="json")
    before = {run for run in shared_runs(loaded("full", "noise")) if run.supervision == "click"}
    if changed == "recipe":
        content["recipes"]["resnet"]["epochs"] = 50
    elif changed == "scale":
        content["supervisions"]["click"]["scale"] = 2.0
    else:
        content[changed] = 0.02
    assert before and not before & shared_runs(parse_study(content))


def test_unknown_controls_and_missing_files_are_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    content = load_study(["config/config.yaml"]).model_dump(mode="json")
    texts = {"name": "q", "title": "T", "question": "Q", "answer_if": "A"}
    with pytest.raises(ConfigError, match=r"study.against\[0\]: 'suffled' is not in `supervisions`.*shuffled"):
        parse_study(content | {"study": texts | {"against": ["suffled"]}})
    with pytest.raises(ConfigError, match=r"study.compared\[1\]: 'clik' is not in `supervisions`.*click"):
        parse_study(content | {"study": texts | {"compared": ["click", "clik"]}})
    study = parse_study(content | {"study": texts | {"over": ["config/none.yaml"]}})
    with pytest.raises(ConfigError, match=r"config/none\.yaml"):
        shared_runs(study)


def test_browsing_and_tagging_have_equal_images_in_every_run(loaded: Any) -> None:
    study = loaded("pilot", "interfaces")
    plan, main = Plan.of(study), Plan.of(loaded("pilot"))
    new = {run.supervision for run in set(study.runs()) - shared_runs(study)}
    entries = {name: study.supervisions[name] for name in new}
    assert len(new) == 7 and all(entry.records in FROM_TAGS for entry in entries.values())
    assert {run.weight for run in study.runs() if run.supervision in new} == {study.luab_lambda}
    tags = str(study.paths.tags)
    for entry in study.supervisions.values():
        if entry.target:
            inputs = plan.target_inputs("imagenet", entry.target)
            assert (tags in inputs) == (entry.records in FROM_TAGS)
            assert tags in inputs or inputs == main.target_inputs("imagenet", entry.target)
    assert loaded("pilot").paths.tags is None


def test_at_full_size_browsing_and_tagging_need_tags_of_your_own(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(repository)
    files = [*MAIN["full"], "config/studies/interfaces.yaml"]
    with pytest.raises(ConfigError, match=r"browsed, tagged, both, .* need tags .* `paths\.tags`"):
        load_study(files)
    (tmp_path / "own.yaml").write_text("paths: {tags: my_tags.csv}", encoding="utf-8")
    study = load_study([*files, tmp_path / "own.yaml"])
    assert study.backbone_names == ["resnet50"]
    assert len(study.runs()) == 11 * 3 and len(shared_runs(study)) == 4 * 3
    assert "my_tags.csv" in Plan.of(study).target_inputs("imagenet", "tagged")
    [hours] = re.findall(r"about ([0-9,]+) GPU hours", sharing(study))
    text = (repository / "docs" / "studies.md").read_text(encoding="utf-8")
    assert f"21 new trainings, about {hours} GPU hours" in text and "and 12\nshared ones" in text


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ({"points": "random", "of": "shuffled"}, r"x\.of: expected click, trace, box, .*, found 'shuffled'"),
        ({"points": "click", "of": "trace"}, r"x\.of: only random, shuffled, centre are made from other points"),
        ({"points": "shuffled", "of": "box", "noise": {"workers": {"fastest": 0.5}}}, "'box' does not come from"),
        ({"points": "shuffled", "of": "box", "noise": {"after_ms": 300}}, r"noise\.after_ms"),
        ({"points": "shuffled", "of": "box", "use": "weighting"}, r"x\.of: `use: weighting` needs controls of the cl"),
    ],
)
def test_impossible_controls_are_refused(loaded: Any, entry: dict[str, Any], mistake: str) -> None:
    content = loaded("full").model_dump(mode="json")
    content["supervisions"]["x"] = entry
    with pytest.raises(ConfigError, match=mistake):
        parse_study(content)


def test_keys_for_the_drawn_world_count_there_alone(loaded: Any) -> None:
    assert loaded("full", "noise").backbone_names == ["resnet18"]
    assert loaded("pilot", "noise").backbone_names == ["test_resnet"]
    assert loaded("pilot", "noise").study.drawn_world == {}
