"""Places of artefacts."""

from pathlib import Path

import pytest

from luab.study.paths import Layout, Run, card

LAYOUT = Layout(Path("data"), Path("results"))


@pytest.mark.parametrize(
    ("run", "folder"),
    [
        (Run("imagenet", "resnet50", "click", 1.0, 0), "imagenet/resnet50/click-1/seed0"),
        (Run("imagenet", "test_vit", "none", 0.0, 12), "imagenet/test_vit/none-0/seed12"),
        (Run("imagenet", "x", "random", 0.3, 2), "imagenet/x/random-0.3/seed2"),
        (Run("imagenet", "x", "click", 1e-7, 2), "imagenet/x/click-1e-07/seed2"),
    ],
)
def test_a_run_and_its_folder_name_each_other(run, folder):
    assert run.folder == folder and Run.parse(folder) == run
    assert LAYOUT.run(run) == Path("results/runs") / folder


@pytest.mark.parametrize("text", ["a/b/c", "a/b/click/seed0", "a/b/click-1/0", "a/b/click-x/seed0", "a/b/c-1/seedx"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError):
        Run.parse(text)


def test_places_by_hand():
    run = Run("imagenet", "resnet50", "click", 1.0, 0)
    base = "results/runs/imagenet/resnet50/click-1/seed0/"
    assert str(LAYOUT.prediction_card(run, "accuracy")) == base + "predictions/accuracy.json"
    assert str(LAYOUT.score(run, "in9")) == base + "scores/in9.json"
    assert str(LAYOUT.target("click")) == "data/targets/imagenet/click.parquet"
    assert str(card(LAYOUT.manifest("in9"))) == "data/manifests/in9.json"
    assert run.identity()["lambda"] == 1.0


@pytest.mark.parametrize("name", ["click--1", "click-0", "none-1", "click-nan", "click-inf"])
def test_a_lambda_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lambda must be"):
        Run.parse(f"imagenet/resnet50/{name}/seed0")
