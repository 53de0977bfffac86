"""The configuration: closed, every mistake at once, with near names; generated pages in step."""

import json

import pytest
import yaml

from luab.data.images.augmentations import changes_of
from luab.errors import ConfigError
from luab.study.config import Recipe, keys_table, known_backbones, load_study, parse_study, schema_json
from luab.study.yaml_files import read_yaml

FULL = ["config/config.yaml"]
DEMO = [*FULL, "config/demo.yaml"]


@pytest.fixture
def full(repository):
    return load_study(FULL, repository)


def _changed(repository, **changes):
    config = yaml.safe_load((repository / FULL[0]).read_text(encoding="utf-8"))
    return parse_study(config | changes, repository)


def test_runs_are_counted_by_hand(full, repository):
    # 9 backbones x (baseline, random, shuffled, click) x 3 seeds, and 4 more lambdas of click on 2 backbones x 3 seeds
    assert len([run for run in full.runs() if run.dataset == "imagenet"]) == 9 * 4 * 3 + 2 * 4 * 3 == 132
    # COCO: 2 x 5 x 3, and 4 more lambdas on 1 backbone x 3 seeds
    assert len([run for run in full.runs() if run.dataset == "coco"]) == 2 * 5 * 3 + 7 * 3 == 51
    # 2 x 4 and 1 more lambda on 1 backbone; COCO: 1 x 4
    assert len(load_study(DEMO, repository).runs()) == 2 * 4 + 1 + 4 == 13
    assert len(set(full.runs())) == 183
    assert len(full.model_copy(update={"coco": None}).runs()) == 132
    assert full.weights("resnet18", "click") == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert full.weights("resnet50", "click") == [1.0] and full.weights("resnet18", "none") == [0.0]


def test_the_demo_overrides_sizes_and_sources_only(repository):
    keys = set(yaml.safe_load((repository / DEMO[1]).read_text(encoding="utf-8")))
    assert keys <= {"label", "backbones", "seeds", "sweep", "suites", "compute", "decoding", "paths", "demo", "coco"}
    demo, full = load_study(DEMO, repository), load_study(FULL, repository)
    assert demo.benchmarks == full.benchmarks and demo.seeds == full.seeds[:1]
    assert demo.supervisions == full.supervisions and demo.luab_lambda == full.luab_lambda


def test_a_dump_reads_back_equal(full, tmp_path):
    (tmp_path / "dump.yaml").write_text(full.dump(), encoding="utf-8")
    again = load_study(["dump.yaml"], tmp_path)
    assert again == full and again.digest() == full.digest()


def test_all_mistakes_at_once_with_did_you_mean(repository):
    with pytest.raises(ConfigError) as caught:
        _changed(
            repository,
            sedes=[0],
            luab_lambda=-1,
            supervisions={"none": {}, "clik": {"pionts": "click"}},
            compute={"worker": 3},
            backbones=[{"name": "resnet5", "recipe": "resnet", "gpu_images_per_s": 1}],
        )
    text = str(caught.value)
    assert "5 mistakes" in text
    assert "sedes: unknown key. Did you mean seeds" in text
    assert "luab_lambda: Input should be greater than 0 (found -1)" in text
    assert "supervisions.clik.pionts: unknown key. Did you mean points?" in text
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
        ({"auto_augment": "augmix-m3"}, "AugMix blends several copies of an image"),
        ({"auto_augment": "rand-m9-x1"}, "is not one of timm's policies that luab can use"),
        ({"auto_augment": "rand-m9-mstd"}, "is not one of timm's policies that luab can use"),
        ({"auto_augment": "3aw"}, "is not one of timm's policies that luab can use"),
        ({"auto_augment": "rand-m9", "color_jitter": 0.4}, "color_jitter 0.4 has no effect"),
        ({"bce_threshold": 0.2}, "bce_threshold 0.2 has no effect with classification 'cross_entropy'"),
        ({"erasing_mode": "pixels"}, "recipes.toy.erasing_mode: Input should be 'const', 'rand' or 'pixel'"),
        ({"random_erasing": 2}, "recipes.toy.random_erasing: Input should be less than or equal to 1"),
        ({"repeated_augmentation": 0}, "recipes.toy.repeated_augmentation: Input should be greater than or equal to 1"),
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


def test_every_recipe_is_valid_and_its_augmentation_known_to_timm(repository):
    for path in sorted((repository / "config/recipes").glob("*.yaml")):
        recipe = Recipe.model_validate(read_yaml(path))
        nothing = not (recipe.auto_augment or recipe.color_jitter or recipe.random_erasing)
        assert (changes_of(recipe) is None) == nothing, path


@pytest.mark.parametrize(
    "policy",
    ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.8-mmax15-mstd101", "rand-mstd1-tweights", "rand-t3aw", "rand", "v0r", "3a",
     "original", "originalr-mstd0.5"],
)  # fmt: skip
def test_every_policy_that_is_accepted_is_known_to_timm(toy_study, policy):
    assert changes_of(toy_study(recipe={"auto_augment": policy}).recipe("test_resnet")) is not None


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
    assert (repository / "config/schema.json").read_text(encoding="utf-8") == schema_json(), hint
    assert (repository / "docs/config.md").read_text(encoding="utf-8") == keys_table(), hint
    assert json.loads(schema_json())["additionalProperties"] is False


def test_backbones_are_read_without_importing_timm():
    import timm

    assert known_backbones() == set(timm.list_models())


def test_the_demo_reads_images_exactly_and_the_full_study_fast(full, repository):
    demo = load_study(DEMO, repository)
    assert (full.decoding, full.packing) == ("fast", None)
    assert (demo.decoding, demo.packing) == ("exact", None)


def _with(repository, tmp_path, content, name="mine.yaml"):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_study([*FULL, tmp_path / name], repository)


def test_a_key_that_stands_twice_is_refused_with_both_lines(repository, tmp_path):
    whole = "coco: null\n" + (repository / FULL[0]).read_text(encoding="utf-8")
    second = whole.splitlines().index("coco:") + 1
    with pytest.raises(ConfigError, match=rf"mine\.yaml, line {second}: the key `coco` is already set in line 1,"):
        _with(repository, tmp_path, whole)
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 3: the key `gpus` is already set in line 2"):
        _with(repository, tmp_path, "compute:\n  gpus: 1\n  'gpus': 2\n")
    with pytest.raises(ConfigError, match=r"mine\.json: expected JSON; the key 'label' stands twice"):
        _with(repository, tmp_path, '{"label": "a",\n\t"label": "b"}', "mine.json")
    (tmp_path / "toy.yaml").write_text("lr: 1\nepochs: 2\nlr: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"toy\.yaml, line 3: the key `lr` is already set in line 1"):
        _with(
            repository,
            tmp_path,
            f"paths: {{recipes: {tmp_path}}}\nbackbones: [{{name: resnet18, recipe: toy, gpu_images_per_s: 1}}]",
        )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("seeds: [010]", r"line 1: YAML reads 010 as the number 8\."),
        ("luab_lambda: 1:30", r"line 1: YAML reads 1:30 as the number 90\."),
        ("seeds: [yes]", r"seeds: .* \(found True\)\. YAML reads yes, on and true like this"),
        ("compute: {gpus: on}", r"compute\.gpus: .* \(found True\)"),
        ("label: no", r"label: .* \(found False\)\. YAML reads no, off and false like this; put text in quotes"),
        ("label: 2024", r'label: .* For text, write "2024" in quotes'),
        ("compute:\n\tgpus: 1", "Indent with spaces, not with tabs"),
    ],
)
def test_what_yaml_turns_into_another_type_is_refused(repository, tmp_path, line, sentence):
    with pytest.raises(ConfigError, match=sentence):
        _with(repository, tmp_path, line)


def test_what_yaml_and_people_read_alike_is_accepted(repository, tmp_path):
    study = _with(repository, tmp_path, "label: 2024-01-01\nluab_lambda: 1e-1\npaths: {partial: yes}\n")
    assert (study.label, study.luab_lambda, study.paths.partial) == ("2024-01-01", 0.1, True)
    again = _with(repository, tmp_path, study.dump())
    assert again == study


def test_an_exponent_is_a_number_in_model_kwargs(toy_study):
    recipe = toy_study(recipe={"model_kwargs": {"drop_rate": "1e-1", "act_layer": "gelu"}}).recipes["toy"]
    assert recipe.model_kwargs == {"drop_rate": 0.1, "act_layer": "gelu"}


def test_other_encodings_are_named_and_a_byte_order_mark_is_accepted(repository, tmp_path):
    assert _with(repository, tmp_path, "label: é".encode("utf-8-sig")).label == "é"
    with pytest.raises(ConfigError, match=r"expected text in UTF-8, found UTF-16"):
        _with(repository, tmp_path, "label: é".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"such as Latin-1, in line 2\. Save it again as UTF-8"):
        _with(repository, tmp_path, "seeds: [0]\nlabel: é".encode("latin-1"))


def test_home_and_variables_in_paths_are_expanded_once(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", "/a b")
    study = _with(repository, tmp_path, "paths: {data: ~/d, imagenet: $SCRATCH/i, copies: {objectnet: '${SCRATCH}/o'}}")
    assert study.paths.data == tmp_path / "home" / "d" and str(study.paths.imagenet) == "/a b/i"
    assert str(study.paths.copies["objectnet"]) == "/a b/o"
    monkeypatch.delenv("SCRATCH")
    for key in ("data", "recipes", "imagenet"):
        with pytest.raises(ConfigError, match=rf"paths\.{key}: .* the environment variable \$SCRATCH is not set"):
            _with(repository, tmp_path, f"paths: {{{key}: $SCRATCH/x}}")
    with pytest.raises(ConfigError, match=r"paths\.results: .* there is no user '~nobody_here'"):
        _with(repository, tmp_path, "paths: {results: ~nobody_here/x}")
