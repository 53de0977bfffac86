"""Every recipe of a fine-tuning is valid and gives its sources; contradictions are refused."""

import pytest
import yaml
from pydantic import ValidationError

from luab.study.transfer_recipes import TransferRecipe


def test_every_recipe_is_valid_and_says_where_it_is_from(repository):
    files = sorted((repository / "config" / "recipes" / "transfer").glob("*.yaml"))
    assert {"drawn_detection", "drawn_segmentation"} < {file.stem for file in files}
    for file in files:
        text = file.read_text(encoding="utf-8")
        recipe = TransferRecipe.model_validate(yaml.safe_load(text))
        assert ("segmentation" in file.stem or file.stem == "points") <= (recipe.crop_px is not None), file
        assert "SOURCE:" in text or "ASSUME:" in text, file


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"scale_jitter": (1.2, 0.8)}, "is not .smallest, largest"),
        ({"shorter_px": 900}, "larger than longest_px"),
        ({"schedule": "steps"}, "decay_epochs"),
        ({"schedule": "steps", "decay_epochs": (5.0,)}, "below epochs"),
        ({"frozen_stages": 2}, "frozen_norm"),
        ({"anchors_px": (8,)}, "at least two levels"),
        ({"epoch": 3}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(recipe, keys, text):
    with pytest.raises(ValidationError, match=text):
        recipe(**keys)
