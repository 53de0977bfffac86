"""Manifests of small trees in the layout of every data set."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.data.manifests import labels
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.known_counts import DATA_SETS, KNOWN_COUNTS
from luab.data.manifests.labels import CORRUPTIONS, EXTRA_CORRUPTIONS, IN9_VARIANTS
from luab.data.manifests.layouts import LAYOUTS
from luab.data.manifests.manifest import SCHEMA, read_manifest
from luab.data.manifests.tree import Tree
from luab.errors import ConfigError, DataError
from luab.files import lines_sha256, read_json
from luab.study.config import OWN_TESTS
from luab.study.roots import OWN

TENCH, GOLDFISH = labels.wnids()[:2]


def touch(root: Path, paths: Iterable[str]) -> Path:
    """Creates files of one byte; building a manifest opens no image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"\xff")
    return root


def build(root: Path, dataset: str, **sources: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Builds the manifest and card of a tree, partial by default."""
    out = root.parent / f"{dataset}.parquet"
    options = {"partial": True} | sources
    card = build_manifest(dataset, root, out, out.with_suffix(".json"), **options)
    assert read_json(out.with_suffix(".json")) == card
    return read_manifest(out), card


def ids(rows: pd.DataFrame) -> list[str]:
    return rows["image_id"].tolist()


def labels_of(rows: pd.DataFrame) -> dict[str, list[int]]:
    return {image_id: list(map(int, of)) for image_id, of in zip(rows["image_id"], rows["labels"], strict=True)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


# ---- the file itself ---------------------------------------------------------------------------------------


def test_every_layout_has_counts_and_a_tree() -> None:
    assert set(LAYOUTS) == set(KNOWN_COUNTS)
    assert len(LAYOUTS) == 20 + len([*OWN, OWN_TESTS])


def test_counts_follow_from_how_each_set_was_made() -> None:
    n = {dataset: known["n"] for dataset, known in KNOWN_COUNTS.items()}
    assert n["imagenet_val"] == n["imagenet_real"] == n["wsol_test"] == 50 * 1000
    assert n["imagenet_v2"] == n["wsol_val"] == 10 * 1000
    assert n["imagenet_c"] == len(CORRUPTIONS) * 5 * 50_000 == 75 * 50_000
    assert n["imagenet_c_extra"] == len(EXTRA_CORRUPTIONS) * 5 * 50_000
    assert n["in9"] == len(IN9_VARIANTS) * 9 * 450
    assert n["siscore_location"] == 21 * 21 * 1228
    # AlexNet's published 10.71940899 % of ImageNet-Sketch is a whole number of images for this count alone.
    assert n["imagenet_sketch"] is not None
    assert 0.1071940899 * n["imagenet_sketch"] == pytest.approx(5455, abs=1e-4)
    assert (n["imagenet_train"], n["imagenet_a"], n["imagenet_o"], n["imagenet_r"]) == (1_281_167, 7_500, 2_000, 30_000)
    assert (n["siscore_size"], n["siscore_rotation"]) == (92_884, 39_540)
    assert (n["coco_train"], n["coco_val"]) == (82_783, 40_504)


def test_rows_are_sorted_paths_relative_and_card_complete(root: Path) -> None:
    touch(
        root,
        [
            f"train/{GOLDFISH}/{GOLDFISH}_2.JPEG",
            f"train/{TENCH}/{TENCH}_9.JPEG",
            f"train/{TENCH}/{TENCH}_10.JPEG",
        ],
    )
    rows, card = build(root, "imagenet_train")
    assert ids(rows) == [f"{TENCH}_10", f"{TENCH}_9", f"{GOLDFISH}_2"]
    assert rows["path"].tolist()[0] == f"train/{TENCH}/{TENCH}_10.JPEG"
    assert rows["group"].tolist() == ["", "", ""]
    assert rows["width"].isna().all() and [len(boxes) for boxes in rows["boxes"]] == [0, 0, 0]
    assert card == {
        "dataset": "imagenet_train",
        "n": 3,
        "ids_sha256": lines_sha256(ids(rows)),
        "classes": 2,
        "known": {"n": 1281167, "classes": 1000},
        "agrees": None,
        "ignored": {},
    }


def test_two_builds_are_byte_identical(root: Path, tmp_path: Path) -> None:
    touch(root, [f"imagenet-r/{GOLDFISH}/art_{i}.jpg" for i in range(5)])
    for name in ("one", "two"):
        build_manifest("imagenet_r", root, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json", partial=True)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_complete_tree_agrees_and_any_other_number_is_an_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_wnids = [labels.wnids()[index] for index in labels.subset("imagenet_a")]
    counts = [38] * 100 + [37] * 100
    touch(root, (f"{wnid}/{k}.jpg" for wnid, n in zip(a_wnids, counts, strict=True) for k in range(n)))
    assert build(root, "imagenet_a", partial=False)[1]["agrees"] is True
    (root / a_wnids[0] / "0.jpg").unlink()
    with pytest.raises(
        DataError, match=rf"the 7,500 images of imagenet_a, found 7,499; .*the fewest: {a_wnids[0]} \(37"
    ):
        build(root, "imagenet_a", partial=False)
    assert "7,500" not in capsys.readouterr().err
    assert build(root, "imagenet_a")[1]["agrees"] is None
    assert "WARNING" in (text := capsys.readouterr().err) and "the 7,500 images of imagenet_a, found 7,499" in text
    touch(root, [f"{a_wnids[5]}/{k}.jpg" for k in (0, 1000, 1001)])
    with pytest.raises(DataError, match=rf"found 7,501; folders with the most: {a_wnids[5]} \(40\)"):
        build(root, "imagenet_a", partial=False)


def test_held_out_images_are_in_one_manifest_and_counted_in_both(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, [f"train/{wnid}/{wnid}_{k}.JPEG" for wnid in (TENCH, GOLDFISH) for k in range(200)])
    rows, card = build(root, "imagenet_train")
    train, kept = build(root, "imagenet_train", held_out=0.1)
    held_out, other = build(root, "imagenet_held_out", held_out=0.1)
    assert sorted(ids(train) + ids(held_out)) == ids(rows) and 20 <= len(held_out) <= 60
    assert kept["ignored"] == {"images of the other manifest": len(held_out)} and card["ignored"] == {}
    assert other["ignored"] == {"images of the other manifest": len(train)}
    # Held out by name alone: more with a larger share, and the same whatever other images there are.
    more, _ = build(root, "imagenet_held_out", held_out=0.2)
    assert set(ids(held_out)) < set(ids(more))
    shutil.rmtree(root / "train" / GOLDFISH)
    alone, _ = build(root, "imagenet_held_out", held_out=0.1)
    assert ids(alone) == [name for name in ids(held_out) if name.startswith(TENCH)]
    with pytest.raises(ConfigError, match="`held_out_byproducts` of 0 leaves no image of 200"):
        build(root, "imagenet_held_out")
    # The published number is that of all images, whichever manifest has them.
    monkeypatch.setitem(DATA_SETS["imagenet_train"], "n", 200)
    capsys.readouterr()
    build(root, "imagenet_train", held_out=0.1)
    assert capsys.readouterr().err == ""


def test_unknown_dataset_lists_did_you_mean(root: Path) -> None:
    with pytest.raises(ConfigError, match="imagenet_val"):
        build_manifest("imagenet_vall", root, root / "x.parquet", root / "x.json")


def test_read_refuses_missing_damaged_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no file"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="expected the columns image_id string, path"):
        read_manifest(tmp_path / "other.parquet")


def test_schema_is_the_written_one(root: Path) -> None:
    touch(root, [f"train/{TENCH}/{TENCH}_1.JPEG"])
    build(root, "imagenet_train")
    assert pq.read_schema(root.parent / "imagenet_train.parquet").equals(SCHEMA)


# ---- mistakes that every tree can have -------------------------------------------------------------------------


def test_missing_class_folder_is_named(root: Path) -> None:
    touch(root, (f"train/{wnid}/{wnid}_1.JPEG" for wnid in labels.wnids() if wnid != "n01443537"))
    with pytest.raises(DataError, match=r"1 of the 1000 class folders in train: n01443537\. .*paths\.partial"):
        build(root, "imagenet_train", partial=False)
    assert build(root, "imagenet_train", partial=True)[1]["n"] == 999


def test_empty_class_folder_counts_as_missing(root: Path) -> None:
    touch(root, (f"train/{wnid}/{wnid}_1.JPEG" for wnid in labels.wnids()))
    (root / "train" / TENCH / f"{TENCH}_1.JPEG").unlink()
    with pytest.raises(DataError, match=TENCH):
        build(root, "imagenet_train", partial=False)


@pytest.mark.parametrize("partial", [True, False])
def test_unknown_wnid_is_always_refused(root: Path, partial: bool) -> None:
    touch(root, [f"train/{TENCH}/{TENCH}_1.JPEG", "train/n01440765/x.JPEG"])
    with pytest.raises(DataError, match=r"'n01440765'.*n01440764"):
        build(root, "imagenet_train", partial=partial)


def test_wnid_outside_the_sub_list_is_refused(root: Path) -> None:
    touch(root, [f"imagenet-a/{TENCH}/1.jpg"])
    with pytest.raises(DataError, match="a class folder of imagenet_a"):
        build(root, "imagenet_a")


def test_duplicate_ids_name_both_files(root: Path) -> None:
    touch(root, [f"train/{TENCH}/{TENCH}_1.JPEG", f"train/{TENCH}/{TENCH}_1.png"])
    with pytest.raises(DataError, match=rf"{TENCH}_1\.(JPEG|png) and train/{TENCH}/{TENCH}_1\.(JPEG|png)"):
        build(root, "imagenet_train")


@pytest.mark.parametrize("dataset", [name for name in LAYOUTS if name != "imagenet_real"])
def test_empty_and_missing_trees_show_the_expected_one(root: Path, dataset: str) -> None:
    sources = {"lists": write_lists(root.parent / "lists", "val"), "val": None}
    for place in (root, root / "nowhere"):
        with pytest.raises(DataError) as error:
            build(place, dataset, **(sources if dataset.startswith("wsol") else {}))
        assert DATA_SETS[dataset]["tree"] in str(error.value) or (
            dataset in OWN and "folder.images" in str(error.value)
        )


def test_missing_imagenet_error_has_instructions(root: Path) -> None:
    for dataset in ("imagenet_train", "imagenet_val"):
        with pytest.raises(DataError, match=r"licence.*register at https://image-net\.org.*paths\.imagenet"):
            build(root / "nowhere", dataset)


def test_suffixes_in_any_case_and_hidden_files_counted(root: Path) -> None:
    names = ["a.JPG", "b.jpeg", "c.PNG", "._a.JPG", ".DS_Store", "README.txt", "d.gif"]
    touch(
        root,
        [f"sketch/{TENCH}/{name}" for name in names] + ["sketch/._x/y.jpg", "__MACOSX/sketch/n01440764/z.jpg"],
    )
    rows, card = build(root, "imagenet_sketch")
    assert ids(rows) == [f"{TENCH}/{stem}" for stem in "abc"]
    assert card["ignored"] == {"hidden files": 2, "other files": 2}


# ---- ImageNet ----------------------------------------------------------------------------------------------


def test_samples_give_108_rows_with_the_right_labels(samples: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "train").symlink_to(samples / "imagenet")
    rows, card = build(root, "imagenet_train")
    found = labels_of(rows)
    assert (len(rows), card["classes"]) == (108, 108)
    assert found["n01440764_sample"] == [0]
    assert found["n02085620_sample"] == [151]  # Chihuahua
    assert found["n01514668_sample"] == [7]  # cock
    assert all((root / path).is_file() for path in rows["path"])


def test_val_in_folders(root: Path) -> None:
    touch(root, [f"val/{TENCH}/ILSVRC2012_val_00000293.JPEG", f"val/{GOLDFISH}/ILSVRC2012_val_00000236.JPEG"])
    rows, _ = build(root, "imagenet_val")
    assert labels_of(rows) == {"ILSVRC2012_val_00000236": [1], "ILSVRC2012_val_00000293": [0]}
    assert rows["path"].tolist()[1] == f"val/{TENCH}/ILSVRC2012_val_00000293.JPEG"


def write_devkit(root: Path, truth: list[int]) -> None:
    """Writes a devkit with ids in reverse order of the wnids and one inner node, as in the real struct array."""
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"), ("children", "O")]
    synsets = np.zeros((1001, 1), dtype=fields)
    for position, wnid in enumerate(reversed(labels.wnids())):
        synsets[position, 0] = (float(position + 1), wnid, "words", 0.0, np.zeros((1, 0)))
    synsets[1000, 0] = (1001.0, "n00001740", "entity", 3.0, np.array([[1.0, 2.0, 3.0]]))
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(
        "".join(f"{number}\n" for number in truth), encoding="utf-8"
    )


def test_flat_val_is_labelled_through_the_devkit(root: Path) -> None:
    write_devkit(root, [1000, 1, 999])
    touch(root, [f"val/ILSVRC2012_val_{k:08d}.JPEG" for k in (3, 1, 2)])
    rows, _ = build(root, "imagenet_val")
    assert labels_of(rows) == {
        "ILSVRC2012_val_00000001": [0],
        "ILSVRC2012_val_00000002": [999],
        "ILSVRC2012_val_00000003": [1],
    }


def test_flat_val_needs_devkit_lines_and_names(root: Path) -> None:
    touch(root, ["val/ILSVRC2012_val_00000002.JPEG"])
    with pytest.raises(DataError, match=r"found 1 images without class folders and no meta\.mat and no ILSVRC2012_val"):
        build(root, "imagenet_val")
    write_devkit(root, [1])
    with pytest.raises(DataError, match="expected a line for ILSVRC2012_val_00000002, found 1 lines"):
        build(root, "imagenet_val")
    touch(root, ["val/holiday.JPEG"])
    (root / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(DataError, match="found 'holiday'"):
        build(root, "imagenet_val")


def test_devkit_inner_node_and_damaged_meta_are_refused(root: Path) -> None:
    touch(root, ["val/ILSVRC2012_val_00000001.JPEG"])
    write_devkit(root, [1001])
    with pytest.raises(DataError, match="found '1001'"):
        build(root, "imagenet_val")
    (root / "ILSVRC2012_devkit_t12/data/meta.mat").write_bytes(b"not a mat file" * 20)
    with pytest.raises(DataError, match=r"meta\.mat: expected the devkit's `synsets`"):
        build(root, "imagenet_val")


def test_flat_val_names_missing_classes(root: Path) -> None:
    write_devkit(root, list(range(1, 1000)))
    touch(root, (f"val/ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, 1000)))
    with pytest.raises(DataError, match=rf"1 of the 1000 classes in val: {TENCH}"):
        build(root, "imagenet_val", partial=False)


def real_world(root: Path, lists: Any) -> dict[str, Path]:
    """Writes real.json and validation images whose folders sort differently from their numbers."""
    touch(root, [f"val/{TENCH}/ILSVRC2012_val_00000003.JPEG", f"val/{GOLDFISH}/ILSVRC2012_val_00000001.JPEG"])
    touch(root, ["val/n15075141/ILSVRC2012_val_00000002.JPEG"])
    build(root, "imagenet_val")
    (root.parent / "real.json").write_text(json.dumps(lists), encoding="utf-8")
    return {"val": root.parent / "imagenet_val.parquet"}


def test_real_labels_follow_the_file_name_not_the_folder(root: Path) -> None:
    val = real_world(root, [[], [970, 795], [5]])
    rows, card = build(root, "imagenet_real", real=root.parent / "real.json", **val)
    assert labels_of(rows) == {
        "ILSVRC2012_val_00000001": [],
        "ILSVRC2012_val_00000002": [970, 795],
        "ILSVRC2012_val_00000003": [5],
    }
    assert rows["path"].tolist()[2] == f"val/{TENCH}/ILSVRC2012_val_00000003.JPEG"
    assert card["classes"] == 3


def test_real_is_found_in_a_folder(root: Path) -> None:
    val = real_world(root, [[1], [2], [3]])
    for place in ({"real": root.parent}, {}):
        (root / "real.json").write_text("[[1], [2], [3]]", encoding="utf-8")
        assert len(build(root, "imagenet_real", **place, **val)[0]) == 3


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1], [2]], "a list for ILSVRC2012_val_00000003"),
        ([[1], [2], [1000]], "class indices 0 to 999"),
        ([1, 2, 3], "list of lists"),
        ({"a": []}, "list of lists"),
    ],
)
def test_real_refuses_short_and_foreign_lists(root: Path, lists: Any, message: str) -> None:
    val = real_world(root, lists)
    with pytest.raises(DataError, match=message):
        build(root, "imagenet_real", real=root.parent / "real.json", **val)


def test_real_needs_the_val_manifest(root: Path) -> None:
    real_world(root, [[1], [2], [3]])
    with pytest.raises(DataError, match="manifest of imagenet_val"):
        build(root, "imagenet_real", real=root.parent / "real.json")


# ---- shifted sets ------------------------------------------------------------------------------------------


def test_v2_folder_10_is_class_10(root: Path) -> None:
    folders = ["0", "1", "2", "10", "100", "999"]
    touch(root, [f"imagenetv2-matched-frequency-format-val/{k}/ab12.jpeg" for k in folders])
    rows, _ = build(root, "imagenet_v2")
    assert labels_of(rows) == {f"{k}/ab12": [int(k)] for k in folders}


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("imagenet_v2", "imagenetv2-threshold0.7-format-val"),
        ("imagenet_v2", "imagenetv2-top-images-format-val"),
        ("imagenet_v2", "imagenetv2-topimages"),
        ("wsol_val", "imagenetv2-matched-frequency-format-val"),
    ],
)
def test_another_variant_of_v2_is_refused(root: Path, dataset: str, folder: str) -> None:
    """Same counts, same folders: nothing else would tell."""
    lists = write_lists(root.parent / "lists", "val")
    touch(root, [f"{folder}/0/0.jpeg", f"{folder}/10/1.jpeg", f"{folder}/10/2.jpeg"])
    for place in (root, root / folder):
        with pytest.raises(DataError, match=rf"{folder}: expected the variant .*copies\.{dataset}"):
            build(place, dataset, lists=lists)


@pytest.mark.parametrize("folder", ["1000", "010", "n01440764"])
def test_v2_refuses_other_folders(root: Path, folder: str) -> None:
    touch(root, ["0/a.jpeg", f"{folder}/a.jpeg"])
    with pytest.raises(DataError, match=f"found '{folder}'"):
        build(root, "imagenet_v2")


@pytest.mark.parametrize(
    ("dataset", "above", "wnid", "file", "label"),
    [
        ("imagenet_a", "imagenet-a", "n01498041", "0.000116_digital clock _ digital clock_0.865662.jpg", 6),
        ("imagenet_o", "deep/er/imagenet-o", "n01443537", "ab.JPEG", 1),
        ("imagenet_r", "", "n01443537", "art_0.jpg", 1),
        ("imagenet_sketch", "sketch", "n01440764", "sketch_0.JPEG", 0),
    ],
)
def test_wnid_trees_at_any_depth(root: Path, dataset: str, above: str, wnid: str, file: str, label: int) -> None:
    touch(root, [str(Path(above, wnid, file)), str(Path(above, "README.txt"))])
    rows, _ = build(root, dataset)
    assert labels_of(rows) == {f"{wnid}/{file.rpartition('.')[0]}": [label]}
    assert rows["path"].tolist() == [str(Path(above, wnid, file))]


def test_corruptions_at_different_depths(root: Path) -> None:
    name = "ILSVRC2012_val_00000293"
    deeper = f"gaussian_noise/3/{TENCH}/{name}.JPEG"
    touch(root, [f"noise/{deeper}", f"fog/1/{GOLDFISH}/{name}.JPEG", f"extra/spatter/1/{TENCH}/{name}.JPEG"])
    rows, card = build(root, "imagenet_c")
    assert ids(rows) == [f"fog/1/{GOLDFISH}/{name}", f"gaussian_noise/3/{TENCH}/{name}"]
    assert rows["group"].tolist() == ["fog/1", "gaussian_noise/3"]
    assert rows["path"].tolist()[1] == f"noise/{deeper}"
    assert card["ignored"] == {"extra corruptions": 1}


def test_the_extra_corruptions_have_a_manifest_of_their_own(root: Path) -> None:
    name = "ILSVRC2012_val_00000293"
    touch(root, [f"extra/spatter/1/{TENCH}/{name}.JPEG", f"fog/1/{GOLDFISH}/{name}.JPEG"])
    rows, card = build(root, "imagenet_c_extra")
    assert ids(rows) == [f"spatter/1/{TENCH}/{name}"] and card["ignored"] == {"corruptions of mCE": 1}
    with pytest.raises(DataError, match=r"19 of the 20 sets: gaussian_blur/1"):
        build(root, "imagenet_c_extra", partial=False)


def test_missing_corruption_and_strange_severity(root: Path) -> None:
    touch(root, (f"{c}/{s}/{TENCH}/v.JPEG" for c in CORRUPTIONS for s in range(1, 6) if (c, s) != ("fog", 4)))
    with pytest.raises(DataError, match=r"1 of the 75 sets: fog/4"):
        build(root, "imagenet_c", partial=False)
    assert len(build(root, "imagenet_c")[0]) == 74
    touch(root, [f"fog/6/{TENCH}/v.JPEG"])
    with pytest.raises(DataError, match="found 'fog/6'"):
        build(root, "imagenet_c")


def test_same_corruption_twice_is_a_duplicate(root: Path) -> None:
    touch(root, [f"{place}/fog/1/{TENCH}/v.JPEG" for place in ("weather", "copy")])
    with pytest.raises(DataError, match=rf"copy/fog/1/{TENCH}/v.JPEG and weather|weather/fog.* and copy"):
        build(root, "imagenet_c")


def test_objectnet_keeps_the_overlap_with_all_indices(root: Path) -> None:
    base = "objectnet-1.0/images"
    touch(root, [f"{base}/{folder}/x1.png" for folder in ("bicycle", "t-shirt", "air_freshener", "wok")])
    touch(root, ["objectnet-1.0/mappings/folder_to_objectnet_label.json", "objectnet-1.0/README"])
    rows, card = build(root, "objectnet")
    assert labels_of(rows) == {"bicycle/x1": [671, 444], "t-shirt/x1": [610], "wok/x1": [909]}
    assert rows["path"].tolist()[0] == f"{base}/bicycle/x1.png"
    assert card["ignored"] == {"folders without an ImageNet class": 1}
    assert card["known"] == {"n": None, "classes": 125}


SISCORE = [
    ("siscore_size", "area", "area", [("7", "0.05"), ("8", "1.0")], ["0.05", "1"]),
    ("siscore_rotation", "rotation", "rotation", [("7", "121"), ("8", "341")], ["121", "341"]),
    (
        "siscore_location", "location20_area02_min0pc", "x_coord,y_coord",
        [("7", "0.15000000000000002,0.9"), ("8", "0.25,0.75")], ["0.15,0.9", "0.25,0.75"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "folder", "columns", "factors", "groups"), SISCORE)
@pytest.mark.parametrize("inside", [True, False])
def test_siscore_groups_by_factor(
    root: Path,
    dataset: str,
    folder: str,
    columns: str,
    factors: list[tuple[str, str]],
    groups: list[str],
    inside: bool,
) -> None:
    touch(root, [f"{folder}/kite/7.jpg", f"{folder}/torch/8.jpg"])
    text = f"image_id,{columns},pct_inside_image\n" + "".join(f"{i},{factor},1.0\n" for i, factor in factors)
    (root / (folder if inside else "") / "metadata.csv").write_text(text, encoding="utf-8")
    rows, _ = build(root, dataset)
    assert labels_of(rows) == {"kite/7": [21], "torch/8": [862]}
    assert rows["group"].tolist() == groups


def test_siscore_metadata_missing_foreign_or_short(root: Path) -> None:
    touch(root, ["area/kite/7.jpg"])
    with pytest.raises(DataError, match=r"metadata\.csv: expected SI-Score's side file"):
        build(root, "siscore_size")
    for text, message in (
        ("image_id,rotation\n7,1\n", "columns image_id and area, found"),
        ("image_id,area\n8,0.5\n", "a row for the image area/kite/7.jpg"),
        ("image_id,area\n7,big\n", "a number in area, found 'big'"),
    ):
        (root / "metadata.csv").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            build(root, "siscore_size")


def in9_tree(root: Path, variants: Iterable[str]) -> Path:
    touch(
        root,
        (f"bg_challenge/{v}/val/{c}/n1_{k}.JPEG" for v in variants for c in labels.IN9_FOLDERS for k in (1, 2)),
    )
    return touch(root, (f"bg_challenge/fg_mask/val/{c}/n1_{k}.npy" for c in labels.IN9_FOLDERS for k in (1, 2)))


def test_in9_has_groups_and_its_own_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in9_tree(root, IN9_VARIANTS)
    monkeypatch.setitem(DATA_SETS["in9"], "n", 8 * 9 * 2)
    rows, card = build(root, "in9", partial=False)
    assert (card["n"], card["classes"], card["agrees"]) == (8 * 9 * 2, 9, False)
    assert labels_of(rows)["mixed_rand/02_wheeled vehicle/n1_2"] == [2]
    assert set(rows["group"]) == set(IN9_VARIANTS)
    assert all(group == image_id.split("/")[0] for group, image_id in zip(rows["group"], rows["image_id"], strict=True))


def test_in9_missing_variant_and_mask(root: Path) -> None:
    in9_tree(root, IN9_VARIANTS[:-1])
    with pytest.raises(DataError, match="1 of the 8 variants: only_bg_t"):
        build(root, "in9", partial=False)
    (root / "bg_challenge/fg_mask/val/08_fish/n1_2.npy").unlink()
    with pytest.raises(DataError, match=r"none for 1 of 18, first original/08_fish/n1_2"):
        build(root, "in9")


# ---- localisation ------------------------------------------------------------------------------------------

LISTED = {
    "val": [("val2/0/0.jpeg", 0, (500, 375), [(156, 163, 318, 230)]),
            ("val2/10/1.jpeg", 10, (333, 500), [(1, 2, 3, 4), (0, 0, 332, 499)])],
    "test": [("val/ILSVRC2012_val_00000001.JPEG", 65, (500, 375), [(111, 108, 441, 193)]),
             ("val/ILSVRC2012_val_00000002.JPEG", 970, (400, 300), [(1, 2, 3, 4), (5, 6, 7, 8)])],
}  # fmt: skip


def write_lists(folder: Path, split: str, flat: bool = False) -> Path:
    """Writes the four lists as in the real repository, or with the split in their names; no newline at the end."""
    rows = LISTED[split]
    lists = {
        "image_ids": [path for path, *_ in rows],
        "class_labels": [f"{path},{label}" for path, label, *_ in rows],
        "image_sizes": [f"{path},{w},{h}" for path, _, (w, h), _ in rows],
        "localization": [f"{path},{','.join(map(str, box))}" for path, _, _, boxes in rows for box in boxes],
    }
    place = folder if flat else folder / "metadata" / "ILSVRC" / split
    place.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (place / (f"wsol_{split}_{name}.txt" if flat else f"{name}.txt")).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def two_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the lists of two images the published ones."""
    for name in ("wsol_val", "wsol_test"):
        monkeypatch.setitem(DATA_SETS[name], "n", 2)


def boxes_of(rows: pd.DataFrame) -> list[list[list[int]]]:
    return [[list(map(int, box)) for box in boxes] for boxes in rows["boxes"]]


@pytest.mark.usefixtures("two_listed")
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("above", ["imagenetv2-threshold0.7-format-val", "val2"])
def test_wsol_val_has_boxes_and_sizes(root: Path, above: str, flat: bool) -> None:
    touch(root, [f"{above}/0/0.jpeg", f"{above}/10/1.jpeg", f"{above}/10/2.jpeg"])
    rows, _ = build(root, "wsol_val", lists=write_lists(root.parent / "lists", "val", flat), partial=False)
    assert labels_of(rows) == {"0/0": [0], "10/1": [10]}
    assert boxes_of(rows) == [[[156, 163, 318, 230]], [[1, 2, 3, 4], [0, 0, 332, 499]]]
    assert (rows["width"].tolist(), rows["height"].tolist()) == ([500, 333], [375, 500])
    assert rows["path"].tolist() == [f"{above}/0/0.jpeg", f"{above}/10/1.jpeg"]


@pytest.mark.usefixtures("two_listed")
def test_wsol_val_with_hashed_names(root: Path) -> None:
    touch(root, ["val2/0/ab.jpeg", "val2/10/cd.jpeg"])
    lists = write_lists(root.parent / "lists", "val")
    with pytest.raises(DataError, match=r"found 0; missing: val2/0/0\.jpeg.*issue 42"):
        build(root, "wsol_val", lists=lists)
    names = lists / "metadata/ILSVRC/val/image_names.txt"
    names.write_text("val2/0/0.jpeg,0/ab.jpeg\nval2/10/1.jpeg,10/cd.jpeg\n", encoding="utf-8")
    rows, _ = build(root, "wsol_val", lists=lists, partial=False)
    assert rows["path"].tolist() == ["val2/0/ab.jpeg", "val2/10/cd.jpeg"]
    assert ids(rows) == ["0/0", "10/1"]


@pytest.mark.usefixtures("two_listed")
@pytest.mark.parametrize("nested", [True, False])
def test_wsol_test_resolves_flat_and_sorted_val(root: Path, nested: bool) -> None:
    folders = ["n01751748/", "n09246464/"] if nested else ["", ""]
    paths = [f"val/{folder}ILSVRC2012_val_0000000{k}.JPEG" for k, folder in enumerate(folders, start=1)]
    touch(root, paths)
    rows, _ = build(root, "wsol_test", lists=write_lists(root.parent / "lists", "test"), partial=False)
    assert labels_of(rows) == {"ILSVRC2012_val_00000001": [65], "ILSVRC2012_val_00000002": [970]}
    assert rows["path"].tolist() == paths
    assert boxes_of(rows)[1] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_wsol_test_with_missing_images(root: Path) -> None:
    touch(root, ["val/ILSVRC2012_val_00000002.JPEG"])
    lists = write_lists(root.parent / "lists", "test")
    with pytest.raises(
        DataError, match=r"2 images that image_ids\.txt lists, found 1; missing: val/ILSVRC2012_val_00000001"
    ):
        build(root, "wsol_test", lists=lists, partial=False)
    rows, card = build(root, "wsol_test", lists=lists)
    assert (len(rows), card["ignored"]) == (1, {"listed images that are not there": 1})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("localization", "val2/0/0.jpeg,1,2,3\n", r"line 1: expected an image id and 4 whole numbers"),
        ("localization", "val2/0/0.jpeg,1,2,3,4\n", r"none for 1, first val2/10/1\.jpeg"),
        ("class_labels", "val2/0/0.jpeg,tench\n", "line 1"),
        ("image_sizes", None, "found no file"),
    ],
)
def test_wsol_lists_damaged(root: Path, name: str, text: str | None, message: str) -> None:
    touch(root, ["0/0.jpeg", "10/1.jpeg"])
    lists = write_lists(root.parent / "lists", "val")
    file = lists / f"metadata/ILSVRC/val/{name}.txt"
    file.unlink() if text is None else file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        build(root, "wsol_val", lists=lists)


def test_wsol_without_lists(root: Path) -> None:
    touch(root, ["0/0.jpeg"])
    with pytest.raises(DataError, match=r"`lists=`"):
        build(root, "wsol_val")
    with pytest.raises(DataError, match=r"val/image_ids\.txt or wsol_val_image_ids\.txt"):
        build(root, "wsol_val", lists=root)


# ---- trees that people have ------------------------------------------------------------------------------------


def complete_val(root: Path) -> list[str]:
    """Writes the 50,000 validation images as links to one file, in class folders."""
    names = [f"val/{labels.wnids()[k % 1000]}/ILSVRC2012_val_{k + 1:08d}.JPEG" for k in range(50_000)]
    touch(root, [names[0]])
    for name in names[1:]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).hardlink_to(root / names[0])
    return names


def test_a_few_missing_validation_images_are_named(root: Path) -> None:
    names = complete_val(root)
    assert build(root, "imagenet_val", partial=False)[1]["agrees"] is True
    for name in names[20:22]:
        (root / name).unlink()
    with pytest.raises(DataError, match=r"50,000 images of imagenet_val, found 49,998; missing: \S+_00000021, \S+22\."):
        build(root, "imagenet_val", partial=False)


@pytest.mark.parametrize("dataset", [name for name in LAYOUTS if KNOWN_COUNTS[name]["n"] is not None])
def test_every_published_number_is_compared(root: Path, dataset: str) -> None:
    known = KNOWN_COUNTS[dataset]["n"] or 0
    tree = Tree(dataset, root)
    assert tree.difference(known) == ""
    for n in (known - 1, known + 1, 1):
        assert f"expected the {known:,} images of {dataset}, found {n:,}" in tree.difference(n)


FOREIGN = ("lost+found", "@eaDir", ".snapshot", ".Trash-1000", "__MACOSX", ".ipynb_checkpoints", "#recycle")


def test_foreign_folders_are_passed_over_everywhere(root: Path) -> None:
    for name in FOREIGN:
        touch(root, [f"{name}/n00000001/x.JPEG", f"train/{name}/x.JPEG", f"train/{TENCH}/{name}/x.JPEG"])
        touch(root, [f"val/{name}/x.JPEG"])
    touch(root, [f"train/{TENCH}/{TENCH}_1.JPEG", "val/ILSVRC2012_val_00000001.JPEG"])
    write_devkit(root, [1000])
    assert ids(build(root, "imagenet_train")[0]) == [f"{TENCH}_1"]
    assert labels_of(build(root, "imagenet_val")[0]) == {"ILSVRC2012_val_00000001": [0]}
    assert build(root, "imagenet_sketch")[0]["path"].tolist() == [f"train/{TENCH}/{TENCH}_1.JPEG"]


def test_links_that_lead_back_are_passed_over(root: Path) -> None:
    touch(root, [f"noise/fog/1/{TENCH}/a.JPEG"])
    (root / "noise/again").symlink_to(root)
    (root / "self").symlink_to("self")
    assert ids(build(root, "imagenet_c")[0]) == [f"fog/1/{TENCH}/a"]


def test_linked_class_folders_and_images_are_read(root: Path) -> None:
    touch(root.parent, [f"disk/{TENCH}/a.JPEG", "disk/b.JPEG"])
    (root / "train").mkdir()
    (root / "train" / TENCH).symlink_to(root.parent / "disk" / TENCH)
    (root.parent / "disk" / TENCH / "b.JPEG").symlink_to(root.parent / "disk" / "b.JPEG")
    assert ids(build(root, "imagenet_train")[0]) == ["a", "b"]


def test_images_that_cannot_be_read_are_named(root: Path) -> None:
    touch(root, (f"train/{wnid}/{wnid}_1.JPEG" for wnid in (TENCH, GOLDFISH)))
    folder = root / "train" / TENCH
    (folder / "empty.JPEG").touch()
    (folder / "gone.JPEG").symlink_to("nowhere")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "folder.jpeg").mkdir()
    (folder / os.fsdecode(b"caf\xe9.JPEG")).write_bytes(b"x")
    with pytest.raises(DataError, match="found 5 that cannot: ") as error:
        build(root, "imagenet_train")
    text = str(error.value)
    for name, reason in (("empty.JPEG", "empty"), ("gone.JPEG", "a broken link"), ("folder.jpeg", "not a file")):
        assert f"train/{TENCH}/{name}' ({reason}" in text
    assert "loop.jpg' (a broken link: Too many levels" in text and "caf\\udce9.JPEG' (its name is not UTF-8)" in text


def test_broken_links_to_class_folders_are_named(root: Path) -> None:
    touch(root, (f"train/{wnid}/{wnid}_1.JPEG" for wnid in labels.wnids()[1:]))
    (root / "train" / TENCH).symlink_to("/nowhere")
    with pytest.raises(DataError, match=rf"{TENCH}; could not read 1: 'train/{TENCH}' \(a broken link: No such file"):
        build(root, "imagenet_train", partial=False)


def test_class_folders_that_are_still_packed_are_named(root: Path) -> None:
    touch(root, (f"train/{wnid}/{wnid}_1.JPEG" for wnid in labels.wnids()[2:]))
    touch(root, [f"train/{TENCH}.tar", f"train/{GOLDFISH}.tar"])
    with pytest.raises(DataError, match=rf"2 of the 1000 class folders .*2 are still packed, first {TENCH}\.tar"):
        build(root, "imagenet_train", partial=False)


@pytest.mark.parametrize("partial", [True, False])
def test_half_sorted_validation_images_are_named(root: Path, partial: bool) -> None:
    touch(root, [f"val/{TENCH}/ILSVRC2012_val_00000293.JPEG", "val/ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataError, match=r"found 1 images outside the class folders, first ILSVRC2012_val_00000001"):
        build(root, "imagenet_val", partial=partial)


def test_images_with_names_of_another_class_or_set_are_refused(root: Path) -> None:
    """With a copy of an image in place of a missing one, the count alone would be right."""
    touch(root, [f"train/{TENCH}/{GOLDFISH}_10.JPEG", f"val/{TENCH}/ILSVRC2012_val_00000293 (1).JPEG"])
    with pytest.raises(DataError, match=rf"expected images of {TENCH} in this folder, found one of {GOLDFISH}"):
        build(root, "imagenet_train")
    with pytest.raises(DataError, match=r"expected a name like ILSVRC2012_val_00000293, found .*\(1\)'"):
        build(root, "imagenet_val")


def test_the_error_shows_what_the_folder_holds(root: Path) -> None:
    touch(root, [f"Train/{TENCH}/a.JPEG", "ILSVRC/README"])
    with pytest.raises(DataError, match=r"found 'ILSVRC', 'Train'\."):
        build(root, "imagenet_train")


def test_suffixes_of_wsol_images_may_differ(root: Path) -> None:
    touch(root, ["val2/0/0.JPEG", "val2/10/1.jpg"])
    rows, _ = build(root, "wsol_val", lists=write_lists(root.parent / "lists", "val"))
    assert rows["path"].tolist() == ["val2/0/0.JPEG", "val2/10/1.jpg"]


CODE = """
import sys
from pathlib import Path
from luab.data.manifests.build_manifest import build_manifest
from luab.errors import DataError
root = Path(sys.argv[2])
try:
    print(build_manifest(sys.argv[1], root, root.parent / "m.parquet", root.parent / "m.json", partial=True)["n"])
except DataError as error:
    print(error)
"""


def as_a_user(dataset: str, root: Path) -> str:
    """Builds a partial manifest without the right of root to read everything; returns the count or the error."""
    command = [sys.executable, "-c", CODE, dataset, str(root)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can read every folder, and setpriv is not installed")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, encoding="utf-8", errors="replace"
    ).stdout.strip()


def test_closed_folders_matter_only_where_images_are_needed(root: Path) -> None:
    touch(root, [f"sketch/{TENCH}/a.JPEG", f"sketch/{GOLDFISH}/b.JPEG", "private/x", "sketch/old/x.JPEG"])
    closed = [root / "private", root / "sketch" / "old", root / "sketch" / GOLDFISH]
    for folder in closed:
        folder.chmod(0)
    try:
        found = as_a_user("imagenet_sketch", root)
        assert (
            f"sketch/{GOLDFISH}: expected a readable file or folder" in found and "no permission (d---------" in found
        )
        (root / "sketch" / GOLDFISH).chmod(0o755)
        assert as_a_user("imagenet_sketch", root) == "2"
        (root / "sketch" / GOLDFISH / "b.JPEG").chmod(0)
        assert "'sketch/n01443537/b.JPEG' (no permission (----------" in as_a_user("imagenet_sketch", root)
        (root / "sketch").chmod(0)
        found = as_a_user("imagenet_sketch", root)
        assert "could not read 2: 'private' (no permission (d---------" in found and "'sketch' (no permission" in found
        root.chmod(0)
        assert f"{root}: expected a readable file or folder" in as_a_user("imagenet_sketch", root)
        assert f"user {os.geteuid()}: {root})" in as_a_user("imagenet_train", root)
    finally:
        for folder in (root, root / "sketch", *closed):
            folder.chmod(0o755)
