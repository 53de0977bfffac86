"""`luab init`: the configuration that it writes, and all mistakes of images and byproducts at once."""

from pathlib import Path

import pytest
from PIL import Image

from luab.commands.init import named_folders, write_study
from luab.errors import ConfigError, DataError
from luab.planning.plan import Plan
from luab.study.config import load_study, own_folder

ROWS = [f"{name}/{k}.jpg,0.{k}5,0.5" for name in ("Füchse", "hares & rabbits") for k in range(5)]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, object]:
    """Images of two classes and a table with a point on each."""
    for name in ("Füchse", "hares & rabbits"):
        for k in range(5):
            (tmp_path / "my images" / name).mkdir(parents=True, exist_ok=True)
            Image.effect_noise((9, 8), 40 + k).save(tmp_path / "my images" / name / f"{k}.jpg")
    (tmp_path / "p.csv").write_text("\n".join(["image,x,y", *ROWS]), encoding="utf-8")
    return {"images": tmp_path / "my images", "byproducts": tmp_path / "p.csv"}


def test_the_written_study_is_planned_and_trains_nothing_else(
    given: dict[str, object], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_study("mine", own_folder(given, "resnet18"), "resnet18", tmp_path / "mine.yaml")
    assert "2 classes, 8 training images (4 to 4 per class, median 4), 2 held out" in text
    assert "points: 8 training and 2 held-out images have one" in text
    monkeypatch.chdir(repository)
    study = load_study(["config/config.yaml", tmp_path / "mine.yaml"])
    assert list(study.parts) == ["folder"] and study.folder is not None and study.folder.images == given["images"]
    plan = Plan.of(study)
    assert {run.supervision for run in study.runs()} >= {"none", "random", "shuffled", "click"}
    assert plan.tables == ["folder_main", "folder_points"] and plan.figures == ["folder_maps"]
    assert plan.index_inputs("folder_ab") == [str(given["byproducts"])]
    assert any("targets/folder/click" in path for path in plan.suite_manifests("own"))


def test_mistakes_of_images_and_byproducts_are_listed_together(given: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "my images" / "Füchse" / "bad.jpg").write_bytes(b"text")
    (tmp_path / "p.csv").write_text("image,x,y\n0.jpg,nan,0\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        write_study("mine", own_folder(given, "resnet18"), "resnet18", tmp_path / "mine.yaml")
    assert "bad.jpg: not an image" in str(error.value) and "expected a number" in str(error.value)
    assert str(error.value).endswith("Nothing was written.") and not (tmp_path / "mine.yaml").exists()


def test_bad_rows_and_rows_that_fit_no_image_are_listed_together(given: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "\n".join(["image,x,y", *ROWS, "9.jpg,.1,.1", "Füchse/0.jpg,a,0"]), encoding="utf-8"
    )
    with pytest.raises(DataError) as error:
        write_study("mine", own_folder(given, "resnet18"), "resnet18", tmp_path / "mine.yaml")
    assert "found 'a'" in str(error.value) and "there is no image '9.jpg'" in str(error.value)


def test_test_sets_are_checked_and_scored(
    given: dict[str, object], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "night" / "Füchse").mkdir(parents=True)
    Image.effect_noise((9, 8), 90).save(tmp_path / "night" / "Füchse" / "1.jpg")
    folder = own_folder(given | {"tests": named_folders([f"night={tmp_path}/night"])}, "resnet18")
    write_study("mine", folder, "resnet18", tmp_path / "mine.yaml")
    monkeypatch.chdir(repository)
    study = load_study(["config/config.yaml", tmp_path / "mine.yaml"])
    assert study.folder is not None and study.folder.tests == {"night": tmp_path / "night"}
    assert study.folder.benchmarks == ["folder_val", "folder_points", "folder_tests"]
    (tmp_path / "night" / "hare").mkdir()
    with pytest.raises(DataError, match=r"hare is no class of the training images\..*\n.*Nothing was written"):
        write_study("other", folder, "resnet18", tmp_path / "other.yaml")


def test_a_test_set_has_a_name_of_its_own_and_a_folder() -> None:
    with pytest.raises(ConfigError, match=r"expected NAME=FOLDER, found night, =x, for example --test night="):
        named_folders(["night", "=x", "a=b"])
    with pytest.raises(ConfigError, match="--test: a is given twice"):
        named_folders(["a=b", "a=c"])


def test_an_existing_file_is_kept(given: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="this file exists"):
        write_study("mine", own_folder(given, "resnet18"), "resnet18", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == "mine"


def test_wrong_options_are_listed_together(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        own_folder(given | {"held_out": 1.5, "points": "percent"}, "resnet18_")
    text = str(error.value)
    assert "held_out" in text and "points" in text and "timm has no model 'resnet18_'" in text
