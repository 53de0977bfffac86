"""The demo's VOC and COCO as dense sets: official names, reproducible bytes, boxes and masks that fit the pictures."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from luab.byproducts import coco_ab
from luab.data.dense import coco, voc
from luab.data.dense.dense_sets import dense_set
from luab.data.manifests.build_manifest import build_manifest
from luab.data.supervisions.coco import BYPRODUCTS
from luab.data.supervisions.makers import Sources, write_targets
from luab.demo.classes import CLASSES
from luab.demo.coco import coco_archives
from luab.demo.packing import pack
from luab.demo.voc import DRAWN, draw_voc
from luab.fetch.unpack import unpack_all
from luab.study.config import Study
from luab.study.drawn_world import Demo
from luab.study.supervisions import Supervision

WORLD = Demo.model_validate({"seed": 3, "size_px": 48, "sizes": {"coco_train": 120, "coco_val": 60}})
FILES = ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "world_voc"
    draw_voc(folder, WORLD)
    return folder


@pytest.fixture(scope="module")
def raw(world: Path) -> Path:
    folder = world.parent / "raw" / "voc"
    unpack_all({name: world / "server" / name for name in FILES}, folder, world.parent / "voc.json", "voc")
    return folder


def test_the_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
        }

    draw_voc(tmp_path / "again", WORLD)
    assert digests(tmp_path / "again") == digests(world)
    draw_voc(tmp_path / "other", WORLD.model_copy(update={"seed": 4}))
    assert all(digests(tmp_path / "other")[name] != digests(world)[name] for name in FILES)


def test_files_and_entries_have_the_official_names(world: Path, repository: Path) -> None:
    official = yaml.safe_load((repository / "config" / "archives.yaml").read_text(encoding="utf-8"))
    entries = yaml.safe_load((world / "server" / "archives.yaml").read_text(encoding="utf-8"))
    assert set(entries) == {name for name, entry in official.items() if entry["dataset"] == "voc"}
    for name, entry in entries.items():
        same = ("dataset", "file", "unpack")
        assert [entry[key] for key in same] == [official[name][key] for key in same]
        assert (world / "server" / entry["file"]).stat().st_size == entry["bytes"]


def test_the_splits_have_half_as_many_pictures_as_coco(raw: Path) -> None:
    for split, count in (("train", 60), ("val", 30)):
        assert len(voc.detection(raw, split, partial=True)) == count  # type: ignore[arg-type]
        assert len(voc.segmentation(raw, split, partial=True)) == count  # type: ignore[arg-type]


def test_training_and_validation_share_no_picture(raw: Path) -> None:
    for read in (voc.detection, voc.segmentation):
        train, val = (set(read(raw, split, partial=True).image_ids) for split in ("train", "val"))
        assert train and not train & val


def test_boxes_enclose_the_masks(raw: Path) -> None:
    """The trainval pictures of 2012 have both."""
    boxes, masks = voc.detection(raw, "train", partial=True), voc.segmentation(raw, "train", partial=True)
    both = sorted(set(boxes.image_ids) & set(masks.image_ids))
    assert len(both) == 40
    for name in both:
        objects = boxes.objects(boxes.image_ids.index(name))
        mask = masks.mask_of(masks.image_ids.index(name))
        assert set(objects["label"].tolist()) >= set(np.unique(mask).tolist()) - {0, 255}
        covered = np.zeros(mask.shape, dtype=bool)
        for (x0, y0, x1, y1), label in zip(objects["xyxy"].astype(int).tolist(), objects["label"], strict=True):
            covered[y0:y1, x0:x1] |= mask[y0:y1, x0:x1] == label
            edges = mask[[y0, y1 - 1], x0:x1], mask[y0:y1, [x0, x1 - 1]].T
            # Each side of a tight box touches its object, or the border that a neighbour's edge put over it.
            assert all(np.isin(side, (label, 255)).any() for both_sides in edges for side in both_sides)
        assert covered[(mask != 0) & (mask != 255)].all()


def test_all_drawn_classes_and_difficult_objects_occur(raw: Path) -> None:
    train = voc.detection(raw, "train", partial=True)
    objects = np.concatenate([train.objects(i) for i in range(len(train))])
    assert {voc.CLASSES[label - 1] for label in objects["label"]} == set(DRAWN)
    assert 0 < objects["difficult"].mean() < 0.15
    assert {len(train.objects(i)) for i in range(len(train))} >= {1, 2, 3}
    assert {name for names in DRAWN.values() for name in names} <= {item.name for item in CLASSES}


def test_a_study_finds_the_drawn_pictures(raw: Path, toy_study: Callable[..., Study]) -> None:
    study = toy_study(paths={"copies": {"voc": str(raw)}})
    image, target = dense_set(study, "voc", "train", "detection")[0]
    assert target["boxes"].canvas_size == image.shape[1:] and len(target["labels"])
    assert len(dense_set(study, "voc", "val", "segmentation")) == 30


@pytest.fixture(scope="module")
def drawn_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders server/ and raw/ of the demo's COCO."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "server").mkdir()
    for archive in coco_archives(3, 48, 60, 20):
        pack(archive, folder / "server")
    names = ("train2014.zip", "val2014.zip", "annotations_trainval2014.zip")
    unpack_all({name: folder / "server" / name for name in names}, folder / "raw", folder / "raw.json", "coco")
    return folder


def test_drawn_coco_has_boxes_and_masks(drawn_coco: Path) -> None:
    boxes, masks = (read(drawn_coco / "raw", "val", partial=True) for read in (coco.detection, coco.segmentation))
    for i in range(len(boxes)):
        labels = set(boxes[i][1]["labels"].tolist())
        assert set(masks[i][1]["mask"].unique().tolist()) <= labels | {0, 255}


def test_clicks_lie_on_objects_of_their_class(
    drawn_coco: Path, tmp_path: Path, toy_study: Callable[..., Study]
) -> None:
    study = toy_study(
        paths={"data": str(tmp_path), "copies": {"coco_train": str(drawn_coco / "raw")}}, supervisions=["none", "click"]
    )
    index, manifest = tmp_path / "index.parquet", tmp_path / "coco_train.parquet"
    coco_ab.index(drawn_coco / "server" / "coco_ab_v1_0.json", index, index.with_suffix(".json"))
    build_manifest("coco_train", drawn_coco / "raw", manifest, manifest.with_suffix(".json"), partial=True)
    targets = study.layout.target("click", "coco")
    write_targets(
        BYPRODUCTS, Sources(index, manifest), Supervision(points="click"), targets, targets.with_suffix(".json")
    )
    pointed, masks = (dense_set(study, "coco", "train", task) for task in ("points", "segmentation"))
    hits = []
    for i, name in enumerate(pointed.image_ids):
        mask = masks.target(masks.image_ids.index(name))["mask"]
        target = pointed[i][1]
        assert set(target["point_labels"].tolist()) <= set(target["image_labels"].tolist())
        for (x, y), label in zip(target["points"].floor().int().tolist(), target["point_labels"].tolist(), strict=True):
            hits.append(int(mask[y, x]) in (label, 255))
    assert len(hits) > 80 and np.mean(hits) > 0.8
