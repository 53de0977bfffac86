"""The demo's COCO: reproducible bytes, official names, masks that match the pictures, records with all oddities."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from luab.byproducts import coco_ab
from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_ID
from luab.data.images.coco import CocoAB
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.manifest import read_manifest
from luab.data.supervisions.coco import BYPRODUCTS
from luab.data.supervisions.makers import Sources, write_targets
from luab.data.supervisions.point_files import read_class_points
from luab.demo.coco import coco_archives, coco_pictures, mask_polygons, run_lengths
from luab.demo.packing import pack, write_archives_yaml
from luab.fetch.unpack import unpack_all
from luab.study.supervisions import Supervision

SEED, SIZE_PX, TRAIN, VAL = 3, 48, 60, 12


def draw_coco(folder: Path, seed: int) -> None:
    server = folder / "server"
    server.mkdir(parents=True)
    entries = {archive.name: pack(archive, server) for archive in coco_archives(seed, SIZE_PX, TRAIN, VAL)}
    write_archives_yaml(entries, server / "archives.yaml")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "coco"
    draw_coco(folder, SEED)
    return folder


@pytest.fixture(scope="module")
def prepared(world: Path) -> Path:
    """Runs the study's own steps on the archives: unpacked tree, index, both manifests, targets."""
    data, server = world.parent / "data", world / "server"
    archives = {f"{name}.zip": server / f"{name}.zip" for name in ("train2014", "val2014", "annotations_trainval2014")}
    unpack_all(archives, data / "raw", data / "raw.json", "coco")
    coco_ab.index(server / "coco_ab_v1_0.json", data / "index.parquet", data / "index.json")
    for name in ("coco_train", "coco_val"):
        build_manifest(name, data / "raw", data / f"{name}.parquet", data / f"{name}.json", partial=True)
    for name in ("click", "random", "box"):
        where = data / f"{name}.parquet"
        sources = Sources(data / "index.parquet", data / "coco_train.parquet")
        write_targets(BYPRODUCTS, sources, Supervision(points=name), where, data / f"{name}.json")
    return data


def instances(world: Path, half: str) -> dict[str, Any]:
    with zipfile.ZipFile(world / "server" / "annotations_trainval2014.zip") as archive:
        content: dict[str, Any] = json.loads(archive.read(f"annotations/instances_{half}.json"))
        return content


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    draw_coco(tmp_path / "again", SEED)
    assert digests(tmp_path / "again") == digests(world)
    draw_coco(tmp_path / "other", SEED + 1)
    assert digests(tmp_path / "other")["server/train2014.zip"] != digests(world)["server/train2014.zip"]


def test_files_and_entries_have_the_official_names(world: Path, repository: Path) -> None:
    official = yaml.safe_load((repository / "config" / "archives.yaml").read_text(encoding="utf-8"))
    entries = yaml.safe_load((world / "server" / "archives.yaml").read_text(encoding="utf-8"))
    assert set(entries) == {"coco_train", "coco_val", "coco_annotations", "coco_ab"}
    for name, entry in entries.items():
        for key in ("file", "dataset", "unpack"):
            assert entry[key] == official[name][key]
        assert digests(world)[f"server/{entry['file']}"] == entry["sha256"]
    with zipfile.ZipFile(world / "server" / "train2014.zip") as archive:
        assert len(archive.namelist()) == 60
        assert all(name.startswith("train2014/COCO_train2014_") and len(name) == 41 for name in archive.namelist())


def test_pictures_show_two_to_four_objects_of_one_theme(world: Path) -> None:
    pictures = coco_pictures(SEED, "train2014", SIZE_PX, 60)
    counts = [sum(not item.crowd for item in picture.objects) for picture in pictures]
    assert counts.count(0) == 1 and max(counts) <= 4 and np.mean(counts) > 2
    assert any(item.crowd for picture in pictures for item in picture.objects)
    together = [{item.name for item in picture.objects} for picture in pictures]
    assert not any({"truck", "banana"} <= names for names in together)
    assert sum({"dog", "person"} <= names for names in together) >= 3
    for picture in pictures:
        plain = [item.mask for item in picture.objects if not item.crowd]
        assert (np.sum(plain, axis=0) <= 1).all()  # objects in front hide those behind them


def test_annotations_match_the_masks(world: Path) -> None:
    content, pictures = instances(world, "train2014"), coco_pictures(SEED, "train2014", SIZE_PX, 60)
    assert [image["id"] for image in content["images"]] == [picture.number for picture in pictures]
    assert {item["id"] for item in content["categories"]} == set(INDEX_OF_ID)
    masks = [(picture.number, item) for picture in pictures for item in picture.objects]
    for annotation, (number, item) in zip(content["annotations"], masks, strict=True):
        rows, columns = np.nonzero(item.mask)
        x, y, width, height = annotation["bbox"]
        assert (annotation["image_id"], annotation["iscrowd"]) == (number, item.crowd)
        assert COCO_CLASSES[INDEX_OF_ID[annotation["category_id"]]].name == item.name
        assert (x, y, x + width - 1, y + height - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
        assert annotation["area"] == item.mask.sum()
    assert len({annotation["id"] for annotation in content["annotations"]}) == len(masks)


def test_run_lengths_and_polygons_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 1]], dtype=bool)
    assert run_lengths(mask) == {"counts": [2, 4], "size": [2, 3]}  # column by column: 00 11 11
    assert run_lengths(~mask) == {"counts": [0, 2, 4], "size": [2, 3]}
    (outline,) = mask_polygons(np.pad(mask, 1))
    corners = np.array(outline).reshape(-1, 2)
    np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[2, 1], [4, 3]], atol=0.13)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # in annToMask
def test_pycocotools_reads_the_masks(world: Path, prepared: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(prepared / "raw" / "annotations" / "instances_train2014.json")
    pictures = {picture.number: picture for picture in coco_pictures(SEED, "train2014", SIZE_PX, 60)}
    overlaps = []
    for number, picture in pictures.items():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number], iscrowd=None))
        for annotation, item in zip(annotations, picture.objects, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.shape == item.mask.shape
            overlaps.append((mask & item.mask).sum() / (mask | item.mask).sum())
            if item.crowd:
                assert (mask == item.mask).all()
    assert np.mean(overlaps) > 0.95 and min(overlaps) > 0.6


def test_records_have_all_oddities(world: Path, prepared: Path) -> None:
    card = json.loads((prepared / "index.json").read_text(encoding="utf-8"))
    counts = card["counts"]
    assert (counts["records"], counts["images"], counts["duplicate_records"]) == (59, 58, 1)
    assert counts["zero_original_size"] == counts["zero_displayed_size"] == 2
    for name in ("moves", "removes", "added_again"):
        assert counts[name] > 0
    for name in ("points_out_of_range", "needed_points_missing", "missing_values", "unknown_keys", "bad_records"):
        assert counts[name] == 0
    assert counts["workers"] > 1 and counts["trace_backward_times"] == 0


def test_clicks_hit_their_objects_more_often_than_random_points(prepared: Path) -> None:
    pictures = coco_pictures(SEED, "train2014", SIZE_PX, 60)
    masks: dict[tuple[str, int], Any] = {}
    for picture in pictures:
        for item in picture.objects:
            label = next(n for n, coco_class in enumerate(COCO_CLASSES) if coco_class.name == item.name)
            key = (f"COCO_train2014_{picture.number:012d}", label)
            masks[key] = masks.get(key, False) | item.mask
    shares = {}
    for name in ("click", "random"):
        hits = []
        for image_id, of in read_class_points(prepared / f"{name}.parquet", 80).items():
            for label, (x, y) in zip(of.labels.tolist(), of.xy.tolist(), strict=True):
                if (image_id, label) in masks:
                    mask = masks[image_id, label]
                    height, width = mask.shape
                    hits.append(mask[min(int(y * height), height - 1), min(int(x * width), width - 1)])
        shares[name] = np.mean(hits)
    assert shares["click"] > 0.6 > shares["random"]


def test_the_studys_own_steps_run_on_it(world: Path, prepared: Path) -> None:
    rows = read_manifest(prepared / "coco_train.parquet")
    assert len(rows) == 60 and len(read_manifest(prepared / "coco_val.parquet")) == 12
    assert (rows["labels"].map(len) == 0).sum() == 1
    with Image.open(prepared / "raw" / rows["path"][0]) as image:
        assert image.size == (rows["width"][0], rows["height"][0])
    data = CocoAB(prepared / "raw", rows, prepared / "click.parquet")
    labels, weights = np.zeros(80), 0.0
    for i in range(20):
        item = data[i]
        labels += item["labels"].numpy()
        weights += float(item["weights"].sum())
    assert labels.sum() > weights > 10
