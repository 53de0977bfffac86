"""The demo world: reproducible bytes, official layouts, records with all oddities, exact boxes."""

import csv
import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from luab.byproducts.imagenet_ab import agreement, index
from luab.data.manifests.labels import (
    CORRUPTIONS,
    IN9_FOLDERS,
    IN9_VARIANTS,
    in9_of_class,
    objectnet_folders,
    siscore_classes,
    subset,
)
from luab.demo.canvas import mask_box
from luab.demo.classes import CLASSES, FAMILIES, DemoClass
from luab.demo.drawing import Look, class_sprite, draw_scene, over, paint, palette
from luab.demo.imagenet_annotators import TrainImage, image_ab_members
from luab.demo.imagenet_c import corrupt
from luab.demo.photos import PHOTO, train_images, val_images
from luab.demo.polygons import SILHOUETTES, polygon
from luab.demo.randomness import stream
from luab.demo.shifted import ADVERSARIAL
from luab.demo.world import draw_world
from luab.fetch.listing import load_archives
from luab.study.drawn_world import Demo, WorldSizes

SEED, SIZE_PX = 3, 40
SMALL = WorldSizes(
    train=6,
    val=4,
    v2=1,
    adversarial=1,
    renditions=4,
    strange=1,
    sketches=1,
    corrupted=1,
    objectnet=2,
    siscore=1,
    in9=4,
    wsol_val=1,
    coco_train=160,
    coco_val=80,
)


def drawn(seed: int) -> Demo:
    return Demo(seed=seed, size_px=SIZE_PX, boxed=0.425, sizes=SMALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "world"
    draw_world(folder, drawn(SEED))
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def contents(world: Path, file: str) -> dict[str, bytes]:
    path = world / "server" / file
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


# ---- the whole world --------------------------------------------------------------------------------------------


def test_one_seed_gives_one_world(world: Path, tmp_path: Path) -> None:
    draw_world(tmp_path / "again", drawn(SEED))
    assert digests(tmp_path / "again") == digests(world)


def test_another_seed_gives_another_world(world: Path, tmp_path: Path) -> None:
    draw_world(tmp_path / "other", drawn(SEED + 1))
    first, second = digests(world / "server"), digests(tmp_path / "other" / "server")
    same_names = {"wsol_test_image_ids.txt"}  # the validation images have the same numbers in all worlds
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] == second[name]} == same_names


def test_the_card_counts_the_pictures(world: Path) -> None:
    card = json.loads((world / "world.json").read_text(encoding="utf-8"))
    assert card["seed"] == SEED
    assert card["counts"]["imagenet_train"] == 22 * 6 == len(list(world.glob("imagenet/train/*/*.JPEG")))
    assert card["counts"]["imagenet_val"] == 22 * 4 == len(list(world.glob("imagenet/val/*/*.JPEG")))
    assert card["counts"]["imagenet_c_noise"] == 22 * 3 * 5


def test_archives_yaml_matches_the_files(world: Path) -> None:
    entries = yaml.safe_load((world / "server/archives.yaml").read_text(encoding="utf-8"))
    on_disk = {path.name for path in (world / "server").iterdir()} - {"archives.yaml"}
    assert {entry["file"] for entry in entries.values()} == on_disk
    for entry in entries.values():
        content = (world / "server" / entry["file"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["urls"] == [f"file:{entry['file']}"]


def test_archives_are_named_as_in_the_full_study(world: Path, repository: Path) -> None:
    demo = yaml.safe_load((world / "server/archives.yaml").read_text(encoding="utf-8"))
    full = yaml.safe_load((repository / "config/archives.yaml").read_text(encoding="utf-8"))
    for name, entry in demo.items():
        assert (entry["dataset"], entry["file"]) == (full[name]["dataset"], full[name]["file"]), name
        assert entry["unpack"] == full[name]["unpack"], name


def test_every_class_list_contains_some_of_the_classes() -> None:
    indices = {item.index for item in CLASSES}
    for name in ("imagenet_a", "imagenet_o", "imagenet_r", "objectnet"):
        assert len(indices & set(subset(name))) >= 3, name
    assert len(indices & set(siscore_classes().values())) >= 3
    families = Counter(int(in9_of_class()[index]) for index in indices)
    assert families == {**dict.fromkeys(range(9), 2), -1: 4}
    assert {item.name for item in CLASSES} | {"person", "frisbee", "cup"} == set(SILHOUETTES)  # the last are COCO's


# ---- layouts ----------------------------------------------------------------------------------------------

HEX = r"[0-9a-f]{40}"
WNID = r"n\d{8}"
LAYOUTS = [
    (
        "imagenetv2-matched-frequency.tar.gz",
        rf"imagenetv2-matched-frequency-format-val/\d{{1,3}}/{HEX}\.jpeg",
    ),
    ("imagenetv2-threshold0.7.tar.gz", rf"imagenetv2-threshold0\.7-format-val/\d{{1,3}}/{HEX}\.jpeg"),
    ("imagenet-a.tar", rf"imagenet-a/({WNID}/.+\.jpg|README\.txt)"),
    ("imagenet-o.tar", rf"imagenet-o/({WNID}/{HEX}\.JPEG|README\.txt)"),
    ("imagenet-r.tar", rf"imagenet-r/({WNID}/(sketch|graphic|art|cartoon)_\d+\.jpg|README\.txt)"),
    ("ImageNet-Sketch.zip", rf"sketch/{WNID}/sketch_\d+\.JPEG"),
    ("imagenet-c-noise.tar", rf"(gaussian|shot|impulse)_noise/[1-5]/{WNID}/ILSVRC2012_val_\d{{8}}\.JPEG"),
    ("imagenet-c-blur.tar", rf"(defocus|glass|motion|zoom)_blur/[1-5]/{WNID}/ILSVRC2012_val_\d{{8}}\.JPEG"),
    ("imagenet-c-weather.tar", rf"(snow|frost|fog|brightness)/[1-5]/{WNID}/ILSVRC2012_val_\d{{8}}\.JPEG"),
    (
        "imagenet-c-digital.tar",
        rf"(contrast|elastic_transform|pixelate|jpeg_compression)/[1-5]/{WNID}/ILSVRC2012_val_\d{{8}}\.JPEG",
    ),
    ("objectnet-1.0.zip", rf"objectnet-1\.0/(images/[a-z_-]+/{HEX}\.png|mappings/\w+\.json|README)"),
    ("siscore-size.zip", r"area/([a-z]+/\w+\.jpg|metadata\.csv)"),
    ("siscore-rotation.zip", r"rotation/([a-z]+/\w+\.jpg|metadata\.csv)"),
    ("siscore-location.zip", r"location20_area02_min0pc/([a-z]+/\w+\.jpg|metadata\.csv)"),
    (
        "backgrounds_challenge_data.tar.gz",
        rf"bg_challenge/(({'|'.join(IN9_VARIANTS)})/val/0\d_[a-z ]+/{WNID}_\d+\.JPEG"
        rf"|fg_mask/val/0\d_[a-z ]+/{WNID}_\d+\.npy)",
    ),
    ("imagenet_ab_v1_0.tar.gz", rf"train_xml/{WNID}/(\._)?{WNID}_\d+\.xml"),
]


@pytest.mark.parametrize(("file", "pattern"), LAYOUTS, ids=[file for file, _ in LAYOUTS])
def test_archives_have_the_official_layout(world: Path, file: str, pattern: str) -> None:
    members = contents(world, file)
    assert members
    assert [name for name in members if not re.fullmatch(pattern, name)] == []
    for name, content in members.items():
        if name.endswith((".jpg", ".jpeg", ".JPEG", ".png")):
            assert Image.open(io.BytesIO(content)).size >= (SIZE_PX, SIZE_PX)


@pytest.mark.parametrize("file", ["imagenetv2-matched-frequency.tar.gz", "imagenetv2-threshold0.7.tar.gz"])
def test_v2_is_a_plain_tar_despite_its_name(world: Path, file: str) -> None:
    assert (world / "server" / file).stat().st_size % 512 == 0
    with tarfile.open(world / "server" / file, "r:") as archive:
        assert len(archive.getnames()) == 22


def test_imagenet_c_has_75_sets_at_the_size_of_the_crop(world: Path) -> None:
    sets = Counter()
    for name in ("noise", "blur", "weather", "digital"):
        for member, content in contents(world, f"imagenet-c-{name}.tar").items():
            sets[tuple(member.split("/")[:2])] += 1
            assert Image.open(io.BytesIO(content)).size == (SIZE_PX, SIZE_PX)
    assert len(sets) == 75
    assert set(sets.values()) == {22}


def test_validation_names_mix_the_classes(world: Path) -> None:
    wnid = {path.stem: path.parent.name for path in world.glob("imagenet/val/*/*.JPEG")}
    assert sorted(wnid) == [f"ILSVRC2012_val_{n:08d}" for n in range(1, 89)]
    in_name_order = [wnid[name] for name in sorted(wnid)]
    assert in_name_order != sorted(in_name_order)


def test_real_has_images_with_several_labels_and_with_none(world: Path) -> None:
    labels = json.loads((world / "server/real.json").read_text(encoding="utf-8"))
    assert [image.real for image in val_images(SEED, SIZE_PX, SMALL.val)] == labels
    lengths = Counter(map(len, labels))
    assert set(lengths) == {0, 1, 2}
    assert lengths[1] > 0.7 * len(labels)


def test_folders_of_a_o_and_r_are_the_classes_of_their_lists(world: Path) -> None:
    wnids = {
        subset_name: {item.wnid for item in CLASSES if item.index in subset(subset_name)}
        for subset_name in ("imagenet_a", "imagenet_o", "imagenet_r")
    }
    for name in wnids:
        members = contents(world, f"{name.replace('_', '-')}.tar")
        folders = {member.split("/")[1] for member in members if member.count("/") == 2}
        assert folders == wnids[name]


def test_sketches_are_grey(world: Path) -> None:
    for content in contents(world, "ImageNet-Sketch.zip").values():
        assert Image.open(io.BytesIO(content)).mode == "L"


def test_objectnet_has_red_borders_and_a_folder_outside_imagenet(world: Path) -> None:
    members = contents(world, "objectnet-1.0.zip")
    folders = set()
    for name, content in members.items():
        if name.endswith(".png"):
            folders.add(name.split("/")[2])
            picture = pixels(content)
            edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert (edge == (255, 0, 0)).all()
            assert not (picture[1:-1, 1:-1] == (255, 0, 0)).all(axis=2).any()
    assert len(folders & set(objectnet_folders())) == 5
    assert len(folders - set(objectnet_folders())) == 1


@pytest.mark.parametrize(
    ("file", "columns", "values"),
    [
        ("siscore-size.zip", ["area"], 8),
        ("siscore-rotation.zip", ["rotation"], 6),
        ("siscore-location.zip", ["x_coord", "y_coord"], 9),
    ],
)
def test_siscore_lists_each_image_with_its_factor(world: Path, file: str, columns: list[str], values: int) -> None:
    members = contents(world, file)
    table = next(content for name, content in members.items() if name.endswith("metadata.csv"))
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert {Path(name).stem for name in members if name.endswith(".jpg")} == {row["image_id"] for row in rows}
    factors = Counter(tuple(row[column] for column in columns) for row in rows)
    assert len(factors) == values
    assert len(set(factors.values())) == 1


def test_localisation_lists_match_the_pictures(world: Path) -> None:
    def rows(split: str, name: str) -> list[list[str]]:
        text = (world / f"server/wsol_{split}_{name}.txt").read_text(encoding="utf-8")
        assert not text.endswith("\n")
        return [line.split(",") for line in text.split("\n")]

    tar = contents(world, "imagenetv2-threshold0.7.tar.gz")
    files = {name.replace("imagenetv2-threshold0.7-format-val", "val2"): data for name, data in tar.items()}
    for path in world.glob("imagenet/val/*/*.JPEG"):
        files[f"val/{path.name}"] = path.read_bytes()
    for split in ("val", "test"):
        ids = [row[0] for row in rows(split, "image_ids")]
        sizes = {path: (int(w), int(h)) for path, w, h in rows(split, "image_sizes")}
        assert [row[0] for row in rows(split, "class_labels")] == ids == list(sizes)
        assert {path: pixels(files[path]).shape[1::-1] for path in ids} == sizes
        boxes = rows(split, "localization")
        assert {row[0] for row in boxes} == set(ids)
        for path, *box in boxes:
            x0, y0, x1, y1 = map(int, box)
            assert 0 <= x0 <= x1 < sizes[path][0]
            assert 0 <= y0 <= y1 < sizes[path][1]


# ---- the Backgrounds Challenge ----------------------------------------------------------------------------


def test_in9_variants_are_made_of_the_same_pictures(world: Path) -> None:
    members = contents(world, "backgrounds_challenge_data.tar.gz")
    stems = [name[len("bg_challenge/fg_mask/val/") : -4] for name in members if "/fg_mask/" in name]
    assert len(stems) == 9 * SMALL.in9
    assert {stem.split("/")[0] for stem in stems} == set(IN9_FOLDERS)
    for stem in stems:
        mask = np.load(io.BytesIO(members[f"bg_challenge/fg_mask/val/{stem}.npy"]))
        assert mask.shape == (SIZE_PX, SIZE_PX)
        assert set(np.unique(mask)) == {0, 1}
        inside = eroded(mask == 1)
        picture = {v: pixels(members[f"bg_challenge/{v}/val/{stem}.JPEG"]).astype(int) for v in IN9_VARIANTS}
        for variant in ("mixed_same", "mixed_rand", "mixed_next", "only_fg"):
            # JPEG blurs colours within blocks, so the pixels agree only approximately.
            if inside.sum() > 20:
                assert np.abs(picture[variant] - picture["original"])[inside].mean() < 25, (variant, stem)
        assert picture["no_fg"][inside].mean() < 25 or inside.sum() <= 20
        assert picture["only_fg"][eroded(mask == 0)].mean() < 25


def eroded(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask whose neighbours also belong to it."""
    padded = np.pad(mask, 1, constant_values=False)
    inner = mask.copy()
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return inner


def background_classes(world: Path, variant: str) -> list[tuple[int, int]]:
    """Returns the classes (foreground, background) of each picture, the latter by the most similar only_bg_t."""
    members = contents(world, "backgrounds_challenge_data.tar.gz")
    folder = "bg_challenge/only_bg_t/val/"
    grounds = [
        (int(name[len(folder)][0] + name[len(folder) + 1]), pixels(content).astype(int))
        for name, content in members.items()
        if name.startswith(folder)
    ]
    pairs = []
    for name, content in members.items():
        if f"/{variant}/" in name:
            rest = name.split("/val/")[1]
            mask = np.load(io.BytesIO(members[f"bg_challenge/fg_mask/val/{rest[:-5]}.npy"]))
            distances = [np.abs(pixels(content) - ground)[mask == 0].mean() for _, ground in grounds]
            pairs.append((int(rest[:2]), grounds[int(np.argmin(distances))][0]))
    return pairs


def test_backgrounds_depend_on_the_class_only_in_the_right_variants(world: Path) -> None:
    same = {v: [f == b for f, b in background_classes(world, v)] for v in ("original", "mixed_same", "mixed_rand")}
    assert all(same["original"])
    assert all(same["mixed_same"])
    assert np.mean(same["mixed_rand"]) < 0.4
    assert all((f + 1) % 9 == b for f, b in background_classes(world, "mixed_next"))


def test_backdrops_depend_on_the_class_in_photographs_but_not_in_imagenet_a() -> None:
    def usual(look: Look) -> float:
        scenes = [
            (item, draw_scene(item, (30, 24), look, stream(0, item.name, k))) for item in CLASSES for k in range(12)
        ]
        return float(np.mean([scene.backdrop == FAMILIES[item.family] for item, scene in scenes]))

    assert 0.42 < usual(PHOTO) < 0.58
    assert usual(ADVERSARIAL) == 0.0


# ---- boxes ------------------------------------------------------------------------------------------------


def test_the_box_of_a_painted_square_is_its_pixels() -> None:
    square = polygon("body", [(10, 20), (30, 20), (30, 41), (10, 41)])
    colours = palette((0.1, 0.8, 0.9), (1.0, 0.0, 0.0))
    sprite = paint([square], colours, (60, 50), np.random.default_rng(0))
    assert sprite.box == (10, 20, 29, 40)
    assert sprite.mask.sum() == 20 * 21


@pytest.mark.parametrize("item", CLASSES, ids=[item.name for item in CLASSES])
def test_a_box_encloses_the_painted_pixels(item: DemoClass) -> None:
    sprite = class_sprite(item, (96, 80), PHOTO, stream(1, item.name))
    black, white = np.zeros((80, 96, 3)), np.ones((80, 96, 3))
    # Share of the ground that is hidden, from pictures on black and on white.
    hidden = 1 - (over(white, sprite) - over(black, sprite)).mean(axis=2)
    visible_box = mask_box(hidden > 0.499)
    if item.name not in ("African chameleon", "gibbon"):
        assert visible_box == sprite.box
    else:  # the branch is painted but does not belong to the animal
        assert not sprite.mask[hidden < 0.499].any()
        assert not sprite.mask[sprite.coverage - sprite.body > 0.9].any()
        assert (sprite.coverage - sprite.body > 0.9).sum() > 10


def test_the_box_of_a_mask_is_inclusive_and_none_for_an_empty_mask() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    assert mask_box(mask) is None
    mask[2, 3] = mask[4, 6] = True
    assert mask_box(mask) == (3, 2, 6, 4)


def test_boxes_in_the_records_match_the_drawing(world: Path) -> None:
    drawn = {image.image_id: image for image, _ in train_images(SEED, SIZE_PX, SMALL.train)}
    boxed = 0
    for image_id, root in records(world).items():
        image = drawn[image_id]
        boxes = [tuple(int(box.findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")) for box in root.iter("bndbox")]
        if boxes:
            boxed += 1
            assert boxes == image.boxes
            assert (int(root.findtext("size/width")), int(root.findtext("size/height"))) == (
                image.width,
                image.height,
            )
        with Image.open(world / f"imagenet/train/{image.wnid}/{image_id}.JPEG") as picture:
            assert picture.size == (image.width, image.height)
    assert 0.25 < boxed / len(drawn) < 0.65


# ---- byproducts -------------------------------------------------------------------------------------------


def records(world: Path) -> dict[str, ElementTree.Element]:
    members = contents(world, "imagenet_ab_v1_0.tar.gz")
    return {
        Path(name).stem: ElementTree.fromstring(content)
        for name, content in members.items()
        if not Path(name).name.startswith("._")
    }


def times(record: ElementTree.Element, tag: str) -> list[int]:
    return [int(entry.findtext("time")) for entry in record.iter(tag) if len(entry)]


def test_an_index_of_the_records_finds_the_expected_counts(world: Path, tmp_path: Path) -> None:
    entry = load_archives(world / "server" / "archives.yaml")["imagenet_ab"]
    assert entry.counts
    card = index(world / "server" / entry.file, tmp_path / "i.parquet", tmp_path / "i.json", known=entry.counts)
    assert card["agrees"], agreement(card)
    assert {"records", "junk_skipped", "without_metadata"} <= set(entry.counts)


def test_records_have_all_documented_oddities(world: Path) -> None:
    members = contents(world, "imagenet_ab_v1_0.tar.gz")
    roots = records(world)
    everything = [record for root in roots.values() for record in root.iter("metadata")]
    selected = [record for record in everything if record.findtext("selected") == "True"]
    not_selected = [record for record in everything if record.findtext("selected") == "False"]
    estimates = [int(record.findtext("estimateTime")) for record in selected]
    gaps = [np.diff(times(record, "mouseTracking")) for record in everything]
    marks = [mark for record in everything for mark in record.iter("mouseTracking") if len(mark)]
    counts = {
        "junk": sum("/._" in name for name in members),
        "no XML": 22 * SMALL.train - len(roots),
        "no metadata": sum(root.find("metadata") is None for root in roots.values()),
        "several metadata": sum(len(root.findall("metadata")) > 1 for root in roots.values()),
        "with a box": sum(root.find("object") is not None for root in roots.values()),
        "without a box": sum(root.find("object") is None for root in roots.values()),
        "no trace": sum(record.findtext("mouseTracking") == "None" for record in everything),
        "no hover": sum(record.findtext("hoveredRecord") == "None" for record in everything),
        "no click": sum(record.findtext("selectedRecord") == "None" for record in everything),
        "not selected": len(not_selected),
        "unclicked": sum(int(record.findtext("selectedCount")) > 0 for record in not_selected),
        "clicked twice": sum(len(record.findall("selectedRecord")) > 1 for record in selected),
        "unclosed hover": sum(
            record.findall("hoveredRecord/action")[-1].text == "enter"
            for record in selected
            if record.find("hoveredRecord/action") is not None
        ),
        "duplicate times": sum(bool((gap == 0).any()) for gap in gaps),
        "long gap": sum(bool((gap > 2500).any()) for gap in gaps),
        "long time": sum(estimate > 20_000 for estimate in estimates),
        "instant": estimates.count(2),
        "selected without time": estimates.count(0),
        "outside": sum(not 0 <= float(mark.findtext(axis)) <= 1 for mark in marks for axis in "xy"),
    }
    assert {name: count for name, count in counts.items() if count < 2} == {}
    assert 0.08 < len(not_selected) / len(everything) < 0.2


def test_records_have_the_known_defect_and_are_unsorted(world: Path) -> None:
    roots = records(world)
    for root in roots.values():
        for record in root.iter("metadata"):
            assert record.findtext("imageWidth") == record.findtext("imageHeight")
            assert [child.tag for child in record] == sorted(child.tag for child in record)
            width = int(record.findtext("originalImageWidth"))
            for mark in record.iter("mouseTracking"):
                if len(mark):
                    steps = float(mark.findtext("x")) * width
                    assert abs(steps - round(steps)) < 1e-9
    wnids = list(dict.fromkeys(image_id.split("_")[0] for image_id in roots))
    assert len(wnids) == 22
    assert wnids != sorted(wnids)


@pytest.fixture(scope="module")
def many() -> list[tuple[TrainImage, ElementTree.Element]]:
    images = [TrainImage(f"n00000001_{n}", "n00000001", 120, 90, [(40, 20, 99, 59)], False) for n in range(1500)]
    by_id = {image.image_id: image for image in images}
    members = image_ab_members(images, seed=5, boxed=0.425)
    return [
        (by_id[Path(name).stem], ElementTree.fromstring(content))
        for name, content in members.items()
        if "/._" not in name
    ]


def test_most_clicks_are_in_the_box(many: list[tuple[TrainImage, ElementTree.Element]]) -> None:
    inside = []
    for image, root in many:
        x0, y0, x1, y1 = image.boxes[0]
        for click in root.iter("selectedRecord"):
            if len(click):
                x, y = float(click.findtext("x")) * image.width, float(click.findtext("y")) * image.height
                inside.append(x0 <= x <= x1 + 1 and y0 <= y <= y1 + 1)
    assert len(inside) > 1200
    assert 0.85 < np.mean(inside) < 0.97


def test_traces_enter_over_an_edge_and_slow_down(
    many: list[tuple[TrainImage, ElementTree.Element]],
) -> None:
    slower, entered = [], []
    for _, root in many:
        for record in root.iter("metadata"):
            if record.findtext("selected") != "True" or int(record.findtext("selectedCount")) != 1:
                continue
            path = np.array(
                [[float(m.findtext("x")), float(m.findtext("y"))] for m in record.iter("mouseTracking") if len(m)]
            )
            at = np.array(times(record, "mouseTracking"))
            if len(path) < 6 or np.diff(at).max() > 1000:
                continue
            assert (np.diff(at) >= 0).all()
            click = record.find("selectedRecord")
            assert (path[-1] == (float(click.findtext("x")), float(click.findtext("y")))).all()
            half = at[0] + (at[-1] - at[0]) / 2
            lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
            slower.append(lengths[at[1:] <= half].sum() > lengths[at[1:] > half].sum())
            entered.append(np.minimum(path[0], 1 - path[0]).min() < 0.05)
    assert np.mean(slower) > 0.8
    assert np.mean(entered) > 0.8


def test_times_are_distributed_as_in_the_release(many: list[tuple[TrainImage, ElementTree.Element]]) -> None:
    selected = [r for _, root in many for r in root.iter("metadata") if r.findtext("selected") == "True"]
    estimates = np.array([int(record.findtext("estimateTime")) for record in selected])
    assert 350 < np.median(estimates) < 700
    assert estimates[estimates > 20_000].size >= 2
    steps = np.concatenate([np.diff(times(record, "mouseTracking")) for record in selected])
    steps = steps[(steps > 0) & (steps < 350)]
    assert steps.min() >= 1
    assert 38 < steps.mean() < 57


# ---- corruptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_change_more_with_severity(name: str) -> None:
    clean = [draw_scene(item, (48, 48), PHOTO, stream(2, item.name)).pixels for item in CLASSES[:8]]
    change = [
        np.mean(
            [
                np.abs(corrupt(picture, name, severity, stream(2, name, severity, k)).astype(int) - picture).mean()
                for k, picture in enumerate(clean)
            ]
        )
        for severity in range(1, 6)
    ]
    assert change[0] > 0.5
    assert change == sorted(change)
