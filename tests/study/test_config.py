"""The configuration: closed, every mistake at once, with near names; generated pages in step."""

import json

import pytest
import yaml

from luab.errors import ConfigError
from luab.study.config import keys_table, known_backbones, load_study, parse_study, schema_json

FULL = ["config/config.yaml"]
DEMO = [*FULL, "config/demo.yaml"]


@pytest.fixture
def full(repository):
    return load_study(FULL, repository)


def _changed(repository, **changes):
    config = yaml.safe_load((repository / FULL[0]).read_text())
    return parse_study(config | changes, repository)


def test_runs_are_counted_by_hand(full, repository):
    # 9 backbones x (baseline, random, click) x 3 seeds, and 4 more lambdas of click on 2 backbones x 3 seeds
    assert len([run for run in full.runs() if run.dataset == "imagenet"]) == 9 * 3 * 3 + 2 * 4 * 3 == 105
    # COCO: 2 x 4 x 3, and 4 more lambdas on 1 backbone x 3 seeds
    assert len([run for run in full.runs() if run.dataset == "coco"]) == 2 * 4 * 3 + 4 * 3 == 36
    # 2 x 3 x 3 and 1 more lambda on 1 backbone x 3 seeds; COCO: 1 x 3 x 3
    assert len(load_study(DEMO, repository).runs()) == 2 * 3 * 3 + 3 + 3 * 3 == 30
    assert len(set(full.runs())) == 141
    assert len(full.model_copy(update={"coco": None}).runs()) == 105
    assert full.weights("resnet18", "click") == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert full.weights("resnet50", "click") == [1.0] and full.weights("resnet18", "none") == [0.0]


def test_the_demo_overrides_sizes_and_sources_only(repository):
    keys = set(yaml.safe_load((repository / DEMO[1]).read_text()))
    assert keys <= {"label", "backbones", "sweep", "suites", "compute", "decoding", "paths", "demo", "coco"}
    demo, full = load_study(DEMO, repository), load_study(FULL, repository)
    assert demo.benchmarks == full.benchmarks and demo.seeds == full.seeds
    assert demo.supervisions == full.supervisions and demo.luab_lambda == full.luab_lambda


def test_a_dump_reads_back_equal(full, tmp_path):
    (tmp_path / "dump.yaml").write_text(full.dump())
    again = load_study(["dump.yaml"], tmp_path)
    assert again == full and again.digest() == full.digest()


def test_all_mistakes_at_once_with_did_you_mean(repository):
    with pytest.raises(ConfigError) as caught:
        _changed(
            repository,
            sedes=[0],
            luab_lambda=-1,
            supervisions=["none", "clik"],
            compute={"worker": 3},
            backbones=[{"name": "resnet5", "recipe": "resnet", "gpu_images_per_s": 1}],
        )
    text = str(caught.value)
    assert "5 mistakes" in text
    assert "sedes: unknown key. Did you mean seeds" in text
    assert "luab_lambda: Input should be greater than 0 (found -1)" in text
    assert "supervisions[1]: Input should be 'none', 'random', 'click'" in text
    assert "compute.worker: unknown key. Did you mean workers?" in text
    assert "backbones[0].name: timm has no model 'resnet5'. Did you mean resnet" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"luab_lambda": float("inf")}, "luab_lambda: Input should be a finite number"),
        ({"luab_lambda": 0.12345678}, "lambda 0.12345678: run folders keep six digits"),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
        ({"supervisions": ["click"]}, "supervisions: the baseline 'none' is missing"),
        (
            {"backbones": [{"name": "resnet18", "recipe": "resent", "gpu_images_per_s": 1}]},
            "config/recipes/resent.yaml does not exist. Did you mean resnet?",
        ),
        (
            {"sweep": {"backbones": ["resnet19"], "supervisions": ["click"], "lambdas": [1]}},
            "sweep.backbones[0]: 'resnet19' is not in `backbones`. Did you mean resnet18",
        ),
        (
            {"sweep": {"backbones": [], "supervisions": ["none"], "lambdas": [1]}},
            "sweep.supervisions[0]: 'none' is not in `supervisions`, or has no lambda",
        ),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(repository, changes, sentence):
    with pytest.raises(ConfigError) as caught:
        _changed(repository, **changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"auto_augment": "rand-m9"}, "the click would no longer lie on the object"),
        ({"auto_augment": "3aw"}, "the click would no longer lie on the object"),
        ({"mixup": 0.2, "batch_size": 7}, "batch_size must be even"),
        ({"crop_scale": [0.5, 0.1]}, "crop_scale [0.5, 0.1] is not [smallest, largest]"),
        ({"warmup_epochs": 3}, "warmup_epochs 3 is not less than epochs 2"),
        ({"crop_pct": 0}, "recipes.toy.crop_pct: Input should be greater than 0"),
        ({"learning_rate": 1}, "recipes.toy.learning_rate: unknown key"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(toy_study, recipe, sentence):
    with pytest.raises(ConfigError) as caught:
        toy_study(recipe=recipe)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n- 2\n", b"\xff\xfe\x00", b""])
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml: expected"):
        load_study(["bad.yaml"], tmp_path)
    with pytest.raises(ConfigError, match=r"gone\.yaml: expected a configuration file"):
        load_study(["gone.yaml"], tmp_path)


def test_a_backbone_outside_the_study_lists_did_you_mean(full):
    with pytest.raises(ConfigError, match="Did you mean resnet50"):
        full.recipe("resnet_50")


def test_generated_pages_are_in_step(repository):
    hint = "run `luab docs`"
    assert (repository / "config/schema.json").read_text() == schema_json(), hint
    assert (repository / "docs/config.md").read_text() == keys_table(), hint
    assert json.loads(schema_json())["additionalProperties"] is False


def test_backbones_are_read_without_importing_timm():
    import timm

    assert known_backbones() == set(timm.list_models())


def test_the_demo_reads_images_exactly_and_the_full_study_fast(full, repository):
    demo = load_study(DEMO, repository)
    assert (full.decoding, full.packing) == ("fast", None)
    assert (demo.decoding, demo.packing) == ("exact", None)
