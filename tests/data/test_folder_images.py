"""Your own images: what is read from folders and tables, and every mistake that is listed."""

import csv
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from luab.byproducts.folder_ab import SCHEMA
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.folder_images import Names, folder_entries, image_id, own_test_entries
from luab.data.manifests.manifest import read_manifest
from luab.data.manifests.tree import Entry, Tree
from luab.data.own_points import own_points
from luab.errors import DataError
from luab.study.roots import OWN


def draw(root: Path, paths: Iterable[str], size: tuple[int, int] = (8, 6)) -> Path:
    """Writes a different image of this size to each path."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 50 + number).save(root / path)
    return root


def table(file: Path, rows: Iterable[Iterable[object]]) -> Path:
    """Writes a table separated by commas."""
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)
    return file


def entries(root: Path, split: str = "train", labels: Path | None = None, held_out: float = 0.25) -> list[Entry]:
    """The entries of a split."""
    return list(folder_entries(Tree(f"folder_{split}", root, lists=labels, held_out=held_out)))


def paths(found: Iterable[Entry]) -> list[str]:
    return [entry.path for entry in found]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four images; their names have blanks and letters outside ASCII."""
    return draw(tmp_path / "images", [f"{name}/{k}.jpg" for name in ("red fox", "dächsle 獾") for k in range(4)])


def test_classes_are_numbered_by_name_and_a_share_of_each_is_held_out(root: Path, tmp_path: Path) -> None:
    cards = {}
    for name in OWN:
        cards[name] = build_manifest(name, root, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json", held_out=0.25)
        assert cards[name]["names"] == ["dächsle 獾", "red fox"] and cards[name]["classes"] == 2
    train, val = (read_manifest(tmp_path / f"{name}.parquet") for name in OWN)
    assert (len(train), len(val)) == (6, 2) and not set(train["image_id"]) & set(val["image_id"])
    assert {
        image_id[:-2]: int(labels[0]) for image_id, labels in zip(train["image_id"], train["labels"], strict=True)
    } == {
        "dächsle 獾": 0,
        "red fox": 1,
    }
    assert set(train["width"]) == {8} and set(train["height"]) == {6}


def test_more_images_do_not_move_the_others_to_another_split_more_than_needed(root: Path) -> None:
    before = set(paths(entries(root, "val", held_out=0.5)))
    draw(root, [f"red fox/more{k}.jpg" for k in range(4)], size=(9, 6))
    after = set(paths(entries(root, "val", held_out=0.5)))
    assert {path for path in before if path.startswith("d")} <= after
    assert len([path for path in after if path.startswith("red")]) == 4


def test_folders_train_and_val_are_the_split(tmp_path: Path) -> None:
    root = draw(
        tmp_path / "images", [f"{split}/{name}/{k}.png" for split in ("train", "val") for name in "ab" for k in "01"]
    )
    assert paths(entries(root)) == ["train/a/0.png", "train/a/1.png", "train/b/0.png", "train/b/1.png"]
    assert paths(entries(root, "val")) == ["val/a/0.png", "val/a/1.png", "val/b/0.png", "val/b/1.png"]


def test_a_table_gives_labels_splits_and_boxes(root: Path, tmp_path: Path) -> None:
    fox = [f"red fox/{k}.jpg" for k in range(4)]
    rows = [
        ["image", "label", "split", "x0", "y0", "x1", "y1"],
        [fox[0], "Fuchs, rot", "train", 0, 0, 3, 3],
        [fox[0], "Fuchs, rot", "train", 4, 1, 7, 5],
        [str(root / fox[1]), "Fuchs, rot", "test", "", "", "", ""],
        [fox[2].replace("/", "\\"), "x", "train", "", "", "", ""],
        [fox[3], "x", "valid", "", "", "", ""],
    ]
    labels = table(tmp_path / "labels.csv", rows)
    train, val = entries(root, "train", labels), entries(root, "val", labels)
    assert paths(train) == [fox[0], fox[2]] and paths(val) == [fox[1], fox[3]]
    assert train[0].boxes == ((0, 0, 3, 3), (4, 1, 7, 5)) and train[0].labels == (0,) and train[1].labels == (1,)


def copy(root: Path, source: str, *targets: str) -> None:
    for target in targets:
        (root / target).parent.mkdir(exist_ok=True)
        shutil.copy(root / source, root / target)


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 4)).save(root / "red fox" / "turned.jpg", exif=exif)


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one image": (lambda root: draw(root, ["lone/0.jpg"], (3, 3)), "the class 'lone' has one image"),
    "case": (
        lambda root: draw(root, ["Red Fox/a.jpg", "Red Fox/b.jpg"], (3, 3)),
        "'Red Fox' and 'red fox' differ in case",
    ),
    "suffix": (lambda root: draw(root, ["red fox/0.png"], (3, 3)), "0.jpg and red fox/0.png have the same name up to"),
    "two classes": (
        lambda root: copy(root, "red fox/0.jpg", "dächsle 獾/copy.jpg"),
        "are the same image in two classes",
    ),
    "no image": (lambda root: (root / "red fox" / "bad.jpg").write_bytes(b"text"), "bad.jpg: not an image"),
    "empty": (lambda root: (root / "red fox" / "empty.jpg").touch(), "empty.jpg' (empty)"),
    "turned": (turned, "turned.jpg: its EXIF data says that it is to be turned"),
    "loose": (lambda root: draw(root, ["loose.jpg"]), "expected one folder per class, found 1 images outside of them"),
}


@pytest.mark.parametrize(("spoil", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_each_mistake_is_named(root: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(root)
    with pytest.raises(DataError) as error:
        entries(root), entries(root, "val")
    assert message in str(error.value)


def test_all_mistakes_are_listed_together_up_to_twenty(root: Path) -> None:
    for k in range(25):
        (root / "red fox" / f"bad{k}.jpg").write_bytes(b"text%d" % k)
    draw(root, ["lone/0.jpg"], (3, 3))
    with pytest.raises(DataError, match=r"26 mistakes:[\s\S]*and 6 more") as error:
        entries(root, held_out=0)
    assert str(error.value).count("\n  - ") == 21


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["image", "label"], ["nope.jpg", "a"]], "line 2: there is no image 'nope.jpg' below"),
        ([["image", "label"], ["../secret.jpg", "a"]], "line 2: there is no image '../secret.jpg' below"),
        (
            [["image", "label"], ["red fox/0.jpg", "a"], ["red fox/0.jpg", "b"]],
            "is in two classes or splits, 'a' and 'b'",
        ),
        ([["image", "label"], ["red fox/0.jpg", "a"], ["red fox/0.jpg", "a"]], "line 3: red fox/0.jpg is listed twice"),
        ([["image", "label"], ["red fox/0.jpg", ""]], "line 2: the label is empty"),
        ([["image", "label", "split"], ["red fox/0.jpg", "a", "trian"]], "expected train or val as the split"),
        ([["image", "lable"], ["red fox/0.jpg", "a"]], "'lable' is unknown. Did you mean label?"),
        (
            [
                ["image", "label", "x0", "y0", "x1", "y1"],
                *[[f"red fox/{k}.jpg", "ab"[k // 2], 0, 0, 8, 5] for k in range(4)],
            ],
            "the box 0, 0, 8, 5 is not inside the image of 8 x 6 pixels",
        ),
    ],
)
def test_mistakes_of_a_table_are_named(root: Path, tmp_path: Path, rows: list[list[object]], message: str) -> None:
    (tmp_path / "secret.jpg").write_bytes((root / "red fox/0.jpg").read_bytes())
    with pytest.raises(DataError) as error:
        entries(root, "train", table(tmp_path / "labels.csv", rows))
    assert message in str(error.value)


def test_a_missing_folder_is_named_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no folder\. Correct `folder\.images`"):
        entries(tmp_path / "nowhere")


def test_names_are_found_in_every_usual_form(tmp_path: Path) -> None:
    names = Names(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "val/a/2.JPG"])
    for name in ("val/a/2.JPG", "a/2.JPG", "2.JPG", "val/a/2", "a\\2", "2", str(tmp_path / "val/a/2.JPG"), "./a/2"):
        assert names.find(name) == "val/a/2", name
    assert names.find("a/1.jpg") == "train/a/1"
    with pytest.raises(DataError, match=r"'1\.jpg' fits train/a/1 and train/b/1"):
        names.find("1.jpg")
    with pytest.raises(DataError, match="there is no image 'c/1'"):
        names.find("c/1")


IMAGES = [
    Entry(image_id(path), path, (label,), "", 200, 100)
    for path, label in (("a/1.jpg", 0), ("a/2.jpg", 0), ("b/3.jpg", 1))
]


def points(*rows: tuple[str, float, float, str | None]) -> pa.Table:
    columns = {"image": 0, "x": 1, "y": 2, "class": 3}
    return pa.Table.from_pylist(
        [{name: row[place] for name, place in columns.items()} | {"time_ms": None, "worker": None} for row in rows],
        SCHEMA,
    )


def test_points_in_pixels_become_fractions_and_other_classes_are_left_out(tmp_path: Path) -> None:
    found = own_points(
        points(("a/1.jpg", 50, 50, None), ("1", 100, 0, "a"), ("3", 200, 100, "b"), ("3", 1, 1, "a")),
        IMAGES, ["a", "b"], tmp_path, "pixels",
    )  # fmt: skip
    assert found.rows == {"a/1": [0, 1], "b/3": [2]} and found.notes["of_another_class"] == 1
    assert np.allclose(found.xy[:3], [[0.25, 0.5], [0.5, 0], [1, 1]])


def test_pixels_that_are_called_fractions_are_detected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"they are pixels, not fractions.*`folder\.points: pixels`"):
        own_points(points(("1", 50, 60, None), ("2", 0.5, 70, None)), IMAGES, ["a", "b"], tmp_path, "fractions")


def test_rows_that_fit_no_image_are_listed_or_counted(tmp_path: Path) -> None:
    rows = points(("1", 0.5, 0.5, None), ("9", 0.5, 0.5, None), ("2", 1.1, 0.5, None))
    with pytest.raises(DataError) as error:
        own_points(rows, IMAGES, ["a", "b"], tmp_path, "fractions")
    assert "2 of 3 rows" in str(error.value) and "row 1: there is no image '9'" in str(error.value)
    assert "row 2: the point 1.1, 0.5 is outside a/2.jpg" in str(error.value)
    found = own_points(rows, IMAGES, ["a", "b"], tmp_path, "fractions", skip_bad=True)
    assert found.rows == {"a/1": [0]} and found.notes == {"of_another_class": 0, "without_image": 1, "out_of_range": 1}


def test_images_of_test_sets_have_the_numbers_of_the_training_classes(tmp_path: Path) -> None:
    draw(tmp_path, ["night/b/1.jpg", "winter/snow/a/1.png", "winter/snow/b/deep/2.jpg"])
    out, tests = tmp_path / "m.parquet", {"snow": tmp_path / "winter/snow", "night": tmp_path / "night"}
    card = build_manifest("folder_tests", tmp_path, out, tmp_path / "m.json", names=["a", "b", "c"], tests=tests)
    rows = read_manifest(out)
    assert list(rows["image_id"]) == ["night/b/1", "snow/a/1", "snow/b/deep/2"]
    assert [labels[0] for labels in rows["labels"]] == [1, 0, 1] and list(rows["group"]) == ["night", "snow", "snow"]
    assert list(rows["path"]) == ["night/b/1.jpg", "winter/snow/a/1.png", "winter/snow/b/deep/2.jpg"]
    assert card["n"] == 3 and card["names"] == ["a", "b", "c"]


def test_one_test_set_may_be_the_whole_folder(tmp_path: Path) -> None:
    draw(tmp_path, ["a/1.jpg"])
    tree = Tree("folder_tests", tmp_path, names=["a"], tests={"all": tmp_path})
    assert [(one.image_id, one.path, one.labels) for one in own_test_entries(tree)] == [("all/a/1", "a/1.jpg", (0,))]


def test_mistakes_of_all_test_sets_are_listed_together(tmp_path: Path) -> None:
    draw(tmp_path, ["night/cats/1.jpg", "night/dog/1.jpg", "night/birds/1.jpg", "night/loose.jpg", "night/cat/1.jpg"])
    (tmp_path / "night/cat/2.jpg").write_text("text", encoding="utf-8")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    tests = {name: tmp_path / name for name in ("night", "empty", "missing")}
    with pytest.raises(DataError) as error:
        list(own_test_entries(Tree("folder_tests", tmp_path, names=["cat", "dog"], tests=tests)))
    text = str(error.value)
    assert "folder.tests: 6 mistakes" in text and "cats is no class of the training images. Did you mean cat?" in text
    assert "birds is no class of the training images. The choices are cat, dog." in text
    assert "cat/2.jpg: not an image" in text and "1 images outside the class folders, night/loose.jpg" in text
    assert "expected images of the classes of the training images, found none" in text
    assert "missing: expected a folder with <class>/*.jpg, found none" in text
