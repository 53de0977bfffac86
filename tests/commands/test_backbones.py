"""The check of a study's backbones, and the page about timm's families."""

import pytest

from luab.commands import backbones
from luab.commands.backbones import check_backbone, page, try_families
from luab.errors import ConfigError
from luab.study.paths import Run


def checked(toy_study, backbone, benchmark="wsol_test", **recipe):
    made = toy_study(backbone, recipe=recipe)
    suites = [made.suites[0].model_copy(update={"benchmarks": [benchmark]})]
    check_backbone(made.model_copy(update={"suites": suites}), Run("imagenet", backbone, "click", 1.0, 0))


def test_backbones_of_a_study(toy_study):
    checked(toy_study, "test_resnet")
    checked(toy_study, "test_resnet", "wsol_test_stride1", input_px=64)
    checked(toy_study, "test_vit", "wsol_test_attention")
    checked(toy_study, "pit_ti_224", "imagenet_val", input_px=64, model_kwargs={"img_size": 64})
    with pytest.raises(ConfigError, match="no score map is defined for features of shape"):
        checked(toy_study, "pit_ti_224", input_px=64, model_kwargs={"img_size": 64})
    with pytest.raises(ConfigError, match="constant map for attention with relative positions"):
        settings = {"model_kwargs": {"img_size": 32, "depth": 1}}
        checked(toy_study, "vit_relpos_small_patch16_224", "wsol_test_attention", **settings)


def test_the_size_of_the_weights_is_checked(toy_study):
    """test_vit's weights have 160 px, and its recipe leaves the size out."""
    made = toy_study("test_vit", recipe={"begins_with": "timm", "model_kwargs": {}})
    recipe = made.recipes["toy"]
    left_out = type(recipe).model_validate(recipe.model_dump(exclude={"input_px"}))
    check_backbone(made.model_copy(update={"recipes": {"toy": left_out}}), Run("imagenet", "test_vit", "none", 0.0, 0))


def test_page():
    lines = []
    text = page(try_families(("test_resnet", "levit_128s", "crossvit_tiny_240"), lines.append))
    assert len(lines) == 3 and "The byproduct head works for 3 of 3, score maps for " in text
    assert "| yes, 2 classifiers | no: features of shape [(2, 401, 96), (2, 197, 192)] | – |" in text
    assert "| resnet | `test_resnet` |" in text


def test_the_families_are_timms_own():
    assert len(backbones.FAMILIES) == len(set(backbones.FAMILIES)) >= 60
