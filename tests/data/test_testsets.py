"""Test sets: names, preprocessing, and the rows that each takes from its manifests."""

import pandas as pd
import pytest

from luab.data.manifests.labels import subset
from luab.data.manifests.layouts import LAYOUTS
from luab.data.manifests.testsets import TEST_SETS, TestSet, test_set_rows
from luab.errors import DataError

NAMES = {
    "imagenet_val", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_o", "imagenet_sketch",
    "imagenet_c", "imagenet_cocc", "objectnet", "siscore_size", "siscore_location", "siscore_rotation",
    "in9", "in9_challenge", "wsol_val", "wsol_test", "coco_val", "folder_val", "folder_points",
    "imagenet_held_out", "folder_tests",
}  # fmt: skip


ALTERNATIVES = {
    "imagenet_c_resize256", "imagenet_c_extra", "in9_nine_class", "in9_challenge_nine_class",
    "imagenet_cocc_0_mean", "imagenet_cocc_56_mean", "imagenet_cocc_168_mean", "imagenet_cocc_224_mean",
    "imagenet_cocc_56_black", "imagenet_cocc_112_black", "imagenet_cocc_168_black", "imagenet_cocc_224_black",
    "wsol_val_stride1", "wsol_val_attention", "wsol_test_stride1", "wsol_test_attention",
}  # fmt: skip


def manifest(*rows: tuple[str, list[int], str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image_id", "labels", "group"])
    size = pd.array([None] * len(rows), dtype=pd.Int32Dtype())
    return frame.assign(path=frame["image_id"] + ".jpg", width=size, height=size, boxes=[[]] * len(rows))


def columns(rows: pd.DataFrame, *names: str) -> list[tuple[str, ...]]:
    return list(rows[list(names)].itertuples(index=False, name=None))


def test_all_names_and_only_known_manifests_and_subsets() -> None:
    assert set(TEST_SETS) == NAMES | ALTERNATIVES
    for name, test_set in TEST_SETS.items():
        assert test_set.name == name
        assert set(test_set.manifests) <= set(LAYOUTS)
        assert test_set.subset is None or len(subset(test_set.subset)) in (125, 200)


def having(field: str, value: object) -> set[str]:
    return {name for name in NAMES if getattr(TEST_SETS[name], field) == value}


def test_preprocessing_follows_the_releasing_papers() -> None:
    assert having("resize", "identity") == {"imagenet_c", "in9", "in9_challenge"}
    with_maps = {"wsol_val", "wsol_test", "coco_val", "folder_points", "imagenet_held_out"}
    assert having("resize", "squash") == having("cam", True) == with_maps
    assert NAMES - having("border_px", 0) == {"objectnet"} and TEST_SETS["objectnet"].border_px == 2
    assert having("hole", 0.5) == NAMES - having("hole", 0.0) == {"imagenet_cocc"}
    assert having("challenge", True) == {"in9_challenge"}
    restricted = {"imagenet_a", "imagenet_o", "imagenet_r", "objectnet"}
    assert NAMES - having("subset", None) == restricted
    assert all(TEST_SETS[name].subset == name for name in restricted)


def test_alternatives_change_the_preprocessing_only() -> None:
    assert TEST_SETS["imagenet_c_resize256"].resize == "resize_crop"
    views = {name: TEST_SETS[name].resize for name in ALTERNATIVES}
    assert {n for n, v in views.items() if v == "identity"} == {
        "imagenet_c_extra",
        "in9_nine_class",
        "in9_challenge_nine_class",
    }
    assert {n for n, v in views.items() if v == "squash"} == {n for n in ALTERNATIVES if n.startswith("wsol")}
    assert {n for n in ALTERNATIVES if TEST_SETS[n].manifests == ("imagenet_val",)} == {
        n for n in ALTERNATIVES if n.startswith("imagenet_cocc")
    }
    assert TEST_SETS["imagenet_cocc_56_black"].hole == 0.25 and TEST_SETS["imagenet_cocc_56_black"].fill == "black"
    assert TEST_SETS["imagenet_cocc_224_mean"].hole == 1.0 and TEST_SETS["imagenet_cocc_224_mean"].fill == "mean"
    assert {n for n, t in TEST_SETS.items() if t.cam_method == "stride1"} == {"wsol_val_stride1", "wsol_test_stride1"}
    nine = {n for n, t in TEST_SETS.items() if t.outputs == 9}
    assert nine == {"in9_nine_class", "in9_challenge_nine_class"} and TEST_SETS["in9_challenge_nine_class"].challenge
    assert having("dataset", "coco") == having("outputs", 80) == {"coco_val"}


def test_test_sets_are_immutable() -> None:
    with pytest.raises(AttributeError):
        TEST_SETS["imagenet_val"].hole = 0.5  # type: ignore[misc]


def test_rows_are_sorted_and_name_their_manifest() -> None:
    val = manifest(("b", [1], ""), ("a", [0], ""))
    rows = test_set_rows(TEST_SETS["imagenet_cocc"], {"imagenet_val": val})
    assert columns(rows, "image_id", "path", "manifest") == [
        ("a", "a.jpg", "imagenet_val"),
        ("b", "b.jpg", "imagenet_val"),
    ]
    assert "manifest" not in val.columns


def test_imagenet_o_joins_its_images_with_val_of_the_same_classes() -> None:
    # 1 and 996 are among the 200 classes of ImageNet-O, 0 and 2 are not
    val = manifest(("ILSVRC2012_val_00000001", [0], ""), ("ILSVRC2012_val_00000002", [996], ""))
    val = pd.concat([val, manifest(("ILSVRC2012_val_00000003", [1], ""), ("x", [2], ""))], ignore_index=True)
    out = manifest(("n01443537/ab", [1], ""))
    rows = test_set_rows(TEST_SETS["imagenet_o"], {"imagenet_val": val, "imagenet_o": out})
    assert columns(rows, "image_id", "group", "manifest") == [
        ("ILSVRC2012_val_00000002", "in", "imagenet_val"),
        ("ILSVRC2012_val_00000003", "in", "imagenet_val"),
        ("n01443537/ab", "out", "imagenet_o"),
    ]
    assert val["group"].tolist() == [""] * 4
    assert rows["width"].dtype == pd.Int32Dtype()


def test_challenge_takes_foregrounds_and_backgrounds() -> None:
    variants = ("mixed_rand", "only_bg_t", "original", "no_fg")
    in9 = manifest(*((f"{variant}/00_dog/a", [0], variant) for variant in variants))
    rows = test_set_rows(TEST_SETS["in9_challenge"], {"in9": in9})
    assert rows["group"].tolist() == ["only_bg_t", "original"]
    assert len(test_set_rows(TEST_SETS["in9"], {"in9": in9})) == 4


def test_missing_manifest_and_no_rows() -> None:
    val = manifest(("a", [0], ""))
    with pytest.raises(DataError, match="expected the manifest imagenet_o, found imagenet_val"):
        test_set_rows(TEST_SETS["imagenet_o"], {"imagenet_val": val})
    with pytest.raises(DataError, match="no images that belong"):
        test_set_rows(TEST_SETS["imagenet_o"], {"imagenet_val": val, "imagenet_o": manifest(("b", [1], ""))})


def test_defaults_are_the_standard_preprocessing() -> None:
    plain = TestSet("mine", ("imagenet_val",))
    assert (plain.subset, plain.resize, plain.border_px, plain.hole, plain.cam) == (
        None,
        "resize_crop",
        0,
        0.0,
        False,
    )
