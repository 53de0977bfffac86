"""`luab shared-classes` on drawn data, whose records are read here without luab's readers."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from luab.commands.init import examine
from luab.commands.shared_classes import prepare
from luab.commands.stages import make_index, make_manifest, make_targets
from luab.data.manifests.labels import coco_categories, wnid_index
from luab.data.manifests.manifest import read_manifest
from luab.data.shared_classes import Candidate, Examined, equal_numbers, halves, shown_by_coco, shown_by_imagenet
from luab.data.supervisions.point_files import read_image_points
from luab.demo.backgrounds_challenge import in9_archive
from luab.demo.coco import coco_archives
from luab.demo.imagenet_annotators import image_ab_members
from luab.demo.packing import Archive, Members, jpeg_bytes, pack
from luab.demo.photos import train_images, val_images
from luab.demo.shifted import siscore
from luab.errors import ConfigError, DataError
from luab.fetch.unpack import unpack_all
from luab.files import file_sha256, read_json, write_json
from luab.planning.plan import Plan
from luab.study.config import Study, load_study

SEED, SIZE = 0, 32
CLASSES = ["bicycle", "bird", "dog"]  # those of the drawn ImageNet and COCO; a drawn truck is on COCO alone


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Members]:
    """Folder of a drawn ImageNet and of packed archives, and the XMLs of ImageNet-AB."""
    folder = tmp_path_factory.mktemp("world")
    images = []
    for image, content in train_images(SEED, SIZE, 6):
        place = folder / "imagenet" / "train" / image.wnid / f"{image.image_id}.JPEG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        images.append(image)
    for one in val_images(SEED, SIZE, 2):
        place = folder / "imagenet" / "val" / one.item.wnid / f"{one.name}.JPEG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(jpeg_bytes(one.scene.pixels))
    records = image_ab_members(images, SEED, 0.4)
    pack(Archive("imagenet_ab", "imagenet_ab", "imagenet_ab_v1_0.tar.gz", "tar.gz", records, False, True), folder)
    for archive in [*coco_archives(SEED, SIZE, 70, 40), in9_archive(SEED, SIZE, 4), next(siscore(SEED, SIZE, 1))]:
        pack(archive, folder)
    return folder, records


@pytest.fixture(scope="module")
def study(world: tuple[Path, Members], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The main study, with the manifests and indexes that the command reads."""
    folder, data = world[0], tmp_path_factory.mktemp("data")
    overlay = data / "overlay.yaml"
    paths = {"data": str(data), "imagenet": str(folder / "imagenet"), "partial": True, "results": str(data / "r")}
    overlay.write_text(json.dumps({"label": "drawn", "paths": paths}), encoding="utf-8")
    made = load_study(["config/config.yaml", overlay], repository)
    layout = made.layout
    for name, file in (("imagenet_ab", "imagenet_ab_v1_0.tar.gz"), ("coco_ab", "coco_ab_v1_0.json")):
        layout.archive_folder().mkdir(exist_ok=True)
        shutil.copy(folder / file, layout.archive_folder() / file)
        write_json(layout.archive_card(name), {"file": file, "sha256": file_sha256(folder / file)})
    trees = {
        "coco": ["train2014.zip", "val2014.zip", "annotations_trainval2014.zip"],
        "in9": ["backgrounds_challenge_data.tar.gz"],
        "siscore_size": ["siscore-size.zip"],
    }
    for name, files in trees.items():
        unpack_all({file: folder / file for file in files}, layout.raw_folder(name), layout.raw_card(name), name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        for name in ("imagenet_ab", "coco_ab"):
            make_index(made, name)
        for name in ("imagenet_train", "imagenet_val", "coco_train", "coco_val", "in9", "siscore_size"):
            make_manifest(made, name)
    return made


@pytest.fixture(scope="module")
def prepared(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command writes, and what it prints."""
    out = tmp_path_factory.mktemp("out") / "shared"
    return out, prepare(study, out, 0)


def source_of(file: Path) -> str:
    return "coco" if file.name.startswith("COCO_") else "imagenet"


def images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if not file.is_dir())


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_class_has_as_many_images_of_one_source_as_of_the_other(prepared: tuple[Path, str], split: str) -> None:
    found = images(prepared[0] / "images" / split)
    assert all(file.is_symlink() and file.resolve().is_file() for file in found)
    counts = Counter((file.parent.name, source_of(file)) for file in found)
    assert sorted({name for name, _ in counts}) == CLASSES
    assert all(counts[name, "coco"] == counts[name, "imagenet"] > 0 for name in CLASSES)
    of_card = read_json(prepared[0] / "card.json")["images_of_each_source"]["held_out" if split == "val" else split]
    assert of_card == {name: counts[name, "coco"] for name in CLASSES}


def test_a_class_has_all_images_of_the_source_that_has_fewer(prepared: tuple[Path, str], study: Study) -> None:
    """Counted from the manifests: of the drawn ImageNet there are few images, two for each class held out."""
    val = read_manifest(study.layout.manifest("imagenet_val"))
    of_imagenet = Counter(coco_categories().get(labels[0]) for labels in val["labels"])
    rows = read_manifest(study.layout.manifest("coco_val"))
    of_coco = Counter(name for labels in rows["labels"] if len(names := shown_by_coco(labels)) == 1 for name in names)
    expected = {name: min(of_imagenet[name], of_coco[name]) for name in CLASSES}
    assert read_json(prepared[0] / "card.json")["images_of_each_source"]["held_out"] == expected


def test_images_show_their_class_and_no_other_shared_one(prepared: tuple[Path, str], study: Study) -> None:
    rows = read_manifest(study.layout.manifest("coco_train")).set_index("image_id")["labels"]
    for file in images(prepared[0] / "images" / "train"):
        if source_of(file) == "coco":
            assert shown_by_coco(rows[file.stem]) == {file.parent.name}
        else:
            assert coco_categories()[wnid_index()[file.stem.split("_")[0]]] == file.parent.name


def test_a_click_lies_where_its_record_says(prepared: tuple[Path, str], world: tuple[Path, Members]) -> None:
    points = pd.read_csv(prepared[0] / "points.csv")
    (row, *_) = points[points["kind"].str.startswith("browsed")].itertuples()
    stem = Path(row.image).stem
    (content,) = [xml for name, xml in world[1].items() if Path(name).name == f"{stem}.xml"]
    clicks = []
    for one in ET.fromstring(content).iter("metadata"):
        if one.findtext("selected") == "True":
            first = one.find("selectedRecord")
            assert first is not None
            clicks.append((float(first.findtext("x", "")), float(first.findtext("y", ""))))
    assert clicks and np.allclose(np.mean(clicks, axis=0), (row.x, row.y), rtol=0, atol=1e-12)


def test_a_tag_lies_where_its_record_says(prepared: tuple[Path, str], world: tuple[Path, Members]) -> None:
    points = pd.read_csv(prepared[0] / "points.csv")
    (row, *_) = points[points["kind"].str.startswith("tagged")].itertuples()
    number, records = int(Path(row.image).stem[-12:]), json.loads((world[0] / "coco_ab_v1_0.json").read_bytes())
    last = [record for record in records if record["image_id"] == number][-1]
    adds = [
        one["pointTo"] for one in last["actionHistories"] if (one["actionType"], one["iconType"]) == ("add", row[4])
    ]
    assert (row.x, row.y) == (adds[-1]["x"], adds[-1]["y"])


def test_every_image_has_a_point_and_both_has_as_many_as_either(prepared: tuple[Path, str]) -> None:
    points = pd.read_csv(prepared[0] / "points.csv")
    files = {str(file.relative_to(prepared[0] / "images")) for file in images(prepared[0] / "images" / "train")}
    assert set(points["image"]) == files and len(points) == len(files)
    counts = points.groupby(["class", "kind"]).size()
    n = read_json(prepared[0] / "card.json")["images_of_each_source"]["train"]
    for name in CLASSES:
        kinds = counts[name].to_dict()
        half = Counter({kind: kinds.get(kind, 0) for kind in ("browsed_1", "browsed_2", "tagged_1", "tagged_2")})
        assert half["browsed_1"] + half["browsed_2"] == half["tagged_1"] + half["tagged_2"] == n[name]
        assert half["browsed_1"] + half["tagged_1"] == n[name] and abs(half["browsed_1"] - half["tagged_1"]) <= 1


def test_test_sets_go_through_the_same_map(prepared: tuple[Path, str]) -> None:
    tests = prepared[0] / "tests"
    expected = {"in9_original", "in9_mixed_same", "in9_mixed_rand", "in9_mixed_next", "in9_only_fg"}
    assert {test.name for test in tests.iterdir()} == {"imagenet", "coco", "siscore_size", *expected}
    assert {folder.name for folder in (tests / "siscore_size").iterdir()} == {"bird"}  # the goose
    for file in images(tests / "in9_mixed_rand"):
        assert coco_categories()[wnid_index()[file.resolve().name.split("_")[0]]] == file.parent.name
    assert len(images(tests / "in9_original")) == len(images(tests / "in9_mixed_rand")) > 0
    halves_of_val = [file.resolve() for name in ("imagenet", "coco") for file in images(tests / name)]
    assert sorted(halves_of_val) == sorted(file.resolve() for file in images(prepared[0] / "images" / "val"))
    for name in ("imagenet", "coco"):
        assert {source_of(file) for file in images(tests / name)} == {name}


def test_a_class_of_one_source_is_left_out_with_its_numbers(prepared: tuple[Path, str]) -> None:
    assert "the class truck, which has 0 of ImageNet for training, " in prepared[1]
    assert "left out: 13 classes" in prepared[1] and "images of both" in prepared[1]
    assert len(read_json(prepared[0] / "card.json")["classes_left_out"]) == 13


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_images(
    prepared: tuple[Path, str], study: Study, tmp_path: Path
) -> None:
    def content(out: Path) -> dict[str, Any]:
        links = {str(file.relative_to(out)): str(file.readlink()) for file in images(out) if file.is_symlink()}
        return links | {name: (out / name).read_bytes() for name in ("points.csv", "card.json")}

    prepare(study, tmp_path / "again", 0)
    prepare(study, tmp_path / "other", 1)
    assert content(tmp_path / "again") == content(prepared[0])
    other = content(tmp_path / "other")
    assert other.keys() != content(prepared[0]).keys()
    counts = [read_json(out / "card.json")["images_of_each_source"] for out in (prepared[0], tmp_path / "other")]
    assert counts[0] == counts[1]


def test_the_written_study_is_planned_and_its_points_are_made(
    prepared: tuple[Path, str], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    overlay = tmp_path / "paths.yaml"
    overlay.write_text(json.dumps({"paths": {"data": str(tmp_path / "data"), "partial": True}}), encoding="utf-8")
    made = load_study(["config/config.yaml", prepared[0] / "study.yaml", overlay])
    assert made.folder is not None and made.label == "drawn" and list(made.parts) == ["folder"]
    examine(made.folder)  # images, points and test sets have no mistakes
    plan = Plan.of(made)
    assert plan.tables == ["folder_main", "folder_tests", "folder_answers"]
    assert len(made.runs()) == 7 * 3
    assert plan.manifest_inputs("folder_tests") == [str(tmp_path / "data" / "manifests" / "folder_train.json")]
    make_index(made, "folder_ab")
    for name in ("folder_train", "folder_val", "folder_tests"):
        make_manifest(made, name)
    with_points = {}
    for name, entry in made.folder.supervisions.items():
        if entry.target is not None:
            make_targets(made, entry.target, "folder")
            with_points[name] = set(read_image_points(made.layout.target(entry.target, "folder"))[0])
    n = sum(read_json(prepared[0] / "card.json")["images_of_each_source"]["train"].values())
    assert [len(with_points[name]) for name in ("browsed", "tagged", "both", "random")] == [n] * 4
    assert not with_points["browsed"] & with_points["tagged"] and with_points["both"] == with_points["random"]
    assert with_points["both"] < with_points["browsed"] | with_points["tagged"]
    assert with_points["shuffled_browsed"] <= with_points["browsed"]
    listed = read_manifest(made.layout.manifest("folder_tests"))
    names = read_json(made.layout.manifest("folder_train").with_suffix(".json"))["names"]
    assert names == CLASSES and set(listed["group"]) == set(made.folder.tests)
    assert all(f"/{names[labels[0]]}/" in path for path, labels in zip(listed["path"], listed["labels"], strict=True))


def test_what_is_missing_is_listed_with_the_command_that_makes_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    empty = tmp_path / "empty.yaml"
    empty.write_text(json.dumps({"paths": {"data": str(tmp_path / "none")}}), encoding="utf-8")
    with pytest.raises(DataError) as error:
        prepare(load_study(["config/config.yaml", empty]), tmp_path / "shared", 0)
    cards = [f"{tmp_path}/none/manifests/coco_val.json", f"{tmp_path}/none/byproducts/imagenet_ab.json"]
    assert "found 0 of 6" in str(error.value) and all(card in str(error.value) for card in cards)
    assert "snakemake --cores all " in str(error.value) and not (tmp_path / "shared").exists()


def test_an_existing_folder_is_kept(study: Study, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"this folder exists\. Choose another one \(--out\)"):
        prepare(study, tmp_path, 0)
    with pytest.raises(ConfigError, match="this folder exists"):
        prepare(study, tmp_path / "mine", 0)
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"


def drawn(file: Path, noise: int, turned: bool = False) -> Candidate:
    """A small image, to be turned by its EXIF data or not."""
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.effect_noise((9, 8), noise).save(file, exif=exif)
    return Candidate(file.stem, file)


def test_images_that_a_study_would_refuse_are_left_out_with_the_reason(tmp_path: Path) -> None:
    good, turned = drawn(tmp_path / "good.jpg", 40), drawn(tmp_path / "turned.jpg", 50, turned=True)
    copied = Candidate("copied", Path(shutil.copy(good.file, tmp_path / "copied.jpg")))
    (tmp_path / "text.jpg").write_text("text", encoding="utf-8")
    examined = Examined()
    given = [good, turned, copied, Candidate("text", tmp_path / "text.jpg")]
    assert [examined.new(one) for one in given] == [True, False, False, False]
    reasons = "\n".join(examined.left_out)
    assert "turned.jpg: its EXIF data" in reasons and "copied.jpg: the same image as good.jpg" in reasons
    assert "text.jpg: not an image" in reasons


def test_both_sources_have_as_many_usable_images_as_the_smaller(tmp_path: Path) -> None:
    def of(name: str, n: int) -> list[Candidate]:
        return [Candidate(f"{name}{k}", tmp_path / f"{name}{k}.jpg") for k in range(n)]

    usable: Callable[[Candidate], bool] = lambda one: one.image_id not in ("a1", "a2")  # noqa: E731
    first, second = equal_numbers([of("a", 5), of("b", 9)], 3, usable)
    assert sorted(one.image_id for one in first) == ["a0", "a3", "a4"] and len(second) == 3
    assert equal_numbers([of("a", 5), of("b", 9)[::-1]], 3, usable) == [first, second]
    assert equal_numbers([of("a", 5), []], 3, usable) == [[], []]


def test_halves_of_odd_numbers_take_turns() -> None:
    assert [halves(*pair) for pair in ((4, 0), (5, 0), (5, 1), (1, 0), (1, 1))] == [
        (2, 2),
        (3, 2),
        (2, 3),
        (1, 0),
        (0, 1),
    ]


def test_labels_become_shared_classes_by_the_table() -> None:
    assert shown_by_imagenet([207]) == {"dog"} and shown_by_imagenet([1]) == set()  # golden retriever, goldfish
    assert shown_by_coco([0, 16]) == {"dog"} and shown_by_coco([14, 16]) == {"bird", "dog"}  # 0 is person
