"""Which weights a run begins with: forms of the key, runs that follow from it, and mistakes."""

import dataclasses
import re

import pytest
import yaml
from pydantic import ValidationError

from luab.errors import ConfigError
from luab.planning.plan import Plan
from luab.study.config import load_study, parse_study
from luab.study.paths import Run
from luab.study.recipes import BeginsWith, Preprocessing, Recipe

RECIPE = {"epochs": 10, "batch_size": 8, "optimizer": "sgd", "lr": 1, "weight_decay": 0}
CLICK = Run("coco", "resnet50", "click", 1.0, 3)


def test_forms():
    assert Recipe(**RECIPE).begins_with == Recipe(**RECIPE, begins_with="random").begins_with == BeginsWith()
    assert Recipe(**RECIPE, begins_with="timm").begins_with == BeginsWith(timm="backbone")
    for section in ({"timm": "a1_in1k", "sha256": "0" * 64}, {"file": "w.safetensors", "timm": "a1_in1k"}):
        assert not Recipe(**RECIPE, begins_with=section).begins_with.is_random
    assert str(BeginsWith()) == "random weights" and str(BeginsWith(timm="a1_in1k")) == "timm a1_in1k"


def test_the_forms_in_the_documentation(repository):
    page = (repository / "docs" / "extending.md").read_text(encoding="utf-8")
    forms = re.findall(r"^\| `(begins_with: .*?)` \|", page, re.MULTILINE)
    parsed = [Recipe.model_validate(RECIPE | yaml.safe_load(form)).begins_with for form in forms]
    assert len(set(map(str, parsed))) == len(forms) == 7


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("imagenet/none-0", "imagenet/resnet50/none-0/seed3"),
        ("imagenet/resnet18/none-0", "imagenet/resnet18/none-0/seed3"),
        ("imagenet/click-0.5/seed0", "imagenet/resnet50/click-0.5/seed0"),
        ("imagenet/resnet18/none-0/seed7", "imagenet/resnet18/none-0/seed7"),
    ],
)
def test_backbone_and_seed_of_the_first_run_are_those_of_the_run_that_begins(text, folder):
    assert BeginsWith(run=text).first_run(CLICK).folder == folder


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"run": "imagenet/none-0", "timm": "a1_in1k"}, "cannot be combined"),
        ({"run": "imagenet"}, r"run 'imagenet' is not <dataset>/\[<backbone>/\]<supervision>-<lambda>\[/seed<k>\]"),
        ({"run": "imagenet/none-1"}, "lambda must be 0 for none"),
        ({"sha256": "0" * 64}, "`sha256` needs `run`, `timm` or `file`"),
        ({"file": "a{b}.safetensors"}, "contains braces"),
        ({"run": "imagenet/none-0", "sha256": "123"}, "should match pattern"),
        ("pretrained", "valid dictionary"),
    ],
)
def test_mistakes(section, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**RECIPE, begins_with=section)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"initial": "random"}, "begins_with: random`"),
        ({"initial": "timm"}, "begins_with: timm`"),
        ({"initial": "imagenet"}, r"begins_with: \{run: imagenet/none-0\}`"),
        ({"initial": "timm", "initial_sha256": "0" * 64}, r"begins_with: \{timm: backbone, sha256: 0{64}\}`"),
    ],
)
def test_the_old_key_names_the_new_one(old, new):
    with pytest.raises(ValidationError, match=f"the key `initial` is now `begins_with`; replace it by `{new}"):
        Recipe(**RECIPE, **old)


def test_input_size_and_crop_are_those_of_the_weights_unless_the_recipe_has_them():
    needed = Preprocessing(weights="x", input_px=384, crop_pct=1.0)
    left_out, given = Recipe(**RECIPE), Recipe(**RECIPE, input_px=224, crop_pct=0.875)
    assert (left_out.input_px, left_out.crop_pct) == (224, 0.875)
    seen = left_out.seen_with(needed)
    assert (seen.input_px, seen.crop_pct) == (384, 1.0) and seen.seen_with(Preprocessing()) == seen
    assert given.seen_with(needed) == given and left_out.seen_with(Preprocessing()) == left_out


def config(**begins):
    """A study of ResNet-18 and -50 on ImageNet and COCO; keywords set `begins_with` of the recipes a, b and c."""
    names = {"resnet18": "a", "resnet50": "b"}
    backbones = [{"name": name, "recipe": recipe, "gpu_images_per_s": 1} for name, recipe in names.items()]
    return {
        "backbones": backbones,
        "supervisions": ["none", "click"],
        "seeds": [0, 1],
        "suites": [{"name": "all", "benchmarks": ["imagenet_val"]}],
        "coco": {
            "backbones": [backbones[1] | {"recipe": "c"}],
            "supervisions": ["none", "click"],
            "suites": [{"name": "coco", "benchmarks": ["coco_val"]}],
        },
        "recipes": {name: RECIPE | ({"begins_with": begins[name]} if name in begins else {}) for name in "abc"},
    }


def test_the_plan_waits_for_the_first_run_or_the_file():
    study = parse_study(config(c={"run": "imagenet/click-1"}, b={"file": "w.safetensors"}))
    plan, layout = Plan.of(study), study.layout
    run = dataclasses.replace(CLICK, seed=1)
    first = Run("imagenet", "resnet50", "click", 1.0, 1)
    assert study.first_run(run) == first
    assert plan.training_inputs(run)[-1] == str(layout.run_json(first))
    assert plan.training_inputs(first)[-1] == "w.safetensors"
    assert str(layout.run_json(first)) not in plan.prepared()


def test_leaving_the_size_to_the_weights_is_kept_and_changes_what_a_training_depends_on(tmp_path):
    study = parse_study(config(a="timm"))
    (tmp_path / "kept.yaml").write_text(study.dump(), encoding="utf-8")
    again = load_study([tmp_path / "kept.yaml"])
    assert again == study and again.recipes["a"].left_to_weights == ("input_px", "crop_pct")
    fixed = config(a="timm")
    fixed["recipes"]["a"] |= {"input_px": 224}
    run = Run("imagenet", "resnet18", "none", 0.0, 0)
    assert Plan.of(study).trained_with(run) != Plan.of(parse_study(fixed)).trained_with(run)


@pytest.mark.parametrize(
    ("begins", "message"),
    [
        (
            {"c": {"run": "imagenet/resnet34/none-0"}},
            r"coco.backbones\[0\]: c begins with the run imagenet/resnet34/",
        ),
        ({"c": {"run": "imagenet/none-0/seed9"}}, r"imagenet/resnet50/none-0/seed9, which this study does not train"),
        ({"b": {"run": "imagenet/none-0"}}, r"backbones\[1\]: b begins with imagenet/resnet50/none-0/seed0, which has"),
        (
            {"a": {"run": "imagenet/resnet50/none-0"}, "b": {"run": "imagenet/resnet18/none-0"}},
            "would begin with itself",
        ),
        ({"c": {"rnu": "imagenet/none-0"}}, r"recipes.c.begins_with.rnu: unknown key. Did you mean run\?"),
    ],
)
def test_a_first_run_is_one_of_the_study_and_ends_somewhere(begins, message):
    with pytest.raises(ConfigError, match=message):
        parse_study(config(**begins))
