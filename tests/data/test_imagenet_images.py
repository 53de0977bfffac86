"""Items of the training and evaluation sets: labels, points, missing points, real files, seeded randomness."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from luab.data.images.augmentations import Changes
from luab.data.images.evaluation import EvaluationSet
from luab.data.images.image_files import check_images, open_image
from luab.data.images.imagenet import ImageNetAB, points_of
from luab.data.manifests.manifest import read_manifest
from luab.data.manifests.testsets import TEST_SETS, TestSet
from luab.errors import DataError
from luab.study.config import Recipe

RECIPE = Recipe(epochs=1, batch_size=2, input_px=32, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0)


@pytest.fixture
def toy(toy_world: Path) -> ImageNetAB:
    data = toy_world / "data"
    return ImageNetAB(
        toy_world / "imagenet",
        data / "manifests" / "imagenet_train.parquet",
        data / "targets" / "imagenet" / "click.parquet",
        RECIPE,
        seed=3,
    )


def test_an_item_is_pixels_label_point_and_weight(toy):
    pixels, label, point, weight = (toy[1][name] for name in ("images", "labels", "points", "weights"))
    assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.uint8
    assert label == 0 and toy[12]["labels"] == 1 and toy[29]["labels"] == 2
    assert point.dtype == torch.float32 and weight in (0.0, 1.0)
    assert len(toy) == 30


def test_images_without_a_point_keep_their_label_and_get_weight_0(toy):
    without = [i for i in range(30) if np.isnan(toy.points[i, 0])]
    assert len(without) == 12
    for i in without:
        item = toy[i]
        assert (item["labels"], item["weights"], item["points"].tolist()) == (i // 10, 0.0, [-1.0, -1.0])


def test_points_lie_on_the_dot_or_are_absent(toy):
    seen = 0
    for epoch in range(3):
        toy.epoch = epoch
        for i in range(30):
            item = toy[i]
            pixels, point, weight = item["images"], item["points"], item["weights"]
            if not weight:
                assert point.tolist() == [-1.0, -1.0]
                continue
            column, row = (min(31, int(v)) for v in (point * 32).tolist())
            if 1 <= column <= 30 and 1 <= row <= 30:  # resizing blurs the outermost pixels
                seen += 1
                assert pixels[:, row, column].float().mean() < 60
    assert seen > 20


def test_the_baseline_sees_the_same_pixels_without_points(toy, toy_world):
    manifest = toy_world / "data" / "manifests" / "imagenet_train.parquet"
    baseline = ImageNetAB(toy_world / "imagenet", manifest, None, RECIPE, seed=3)
    for i in (1, 5, 20):
        assert torch.equal(baseline[i]["images"], toy[i]["images"])
        assert baseline[i]["weights"] == 0.0


def test_an_item_depends_on_seed_epoch_and_index_alone(toy):
    toy.epoch = 0
    first = toy[4]["images"]
    assert torch.equal(first, toy[4]["images"])
    assert not torch.equal(first, toy[5]["images"])
    toy.epoch = 1
    assert not torch.equal(first, toy[4]["images"])
    toy.epoch, toy.seed = 0, 4
    assert not torch.equal(first, toy[4]["images"])


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, False), (1, True), (2, True)])
@pytest.mark.parametrize("colours", [False, True])
def test_a_plain_loop_sees_fresh_views_in_every_epoch(toy, workers, persistent, colours):
    if colours:
        toy.changes = Changes(lambda image: image)
    options = {"multiprocessing_context": "fork"} if workers else {}
    loader = torch.utils.data.DataLoader(
        toy, batch_size=10, num_workers=workers, persistent_workers=persistent, **options
    )
    epochs = [torch.cat([batch["images"] for batch in loader]) for _ in range(3)]
    for k, one in enumerate(epochs):
        for other in epochs[:k]:
            assert sum(torch.equal(a, b) for a, b in zip(one, other, strict=True)) == 0


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_the_epoch_reaches_running_loader_processes(toy, workers, persistent):
    options = {"multiprocessing_context": "fork"} if workers else {}
    loader = torch.utils.data.DataLoader(
        toy, batch_size=10, num_workers=workers, persistent_workers=persistent, **options
    )
    for epoch in (0, 3, 0):
        toy.epoch = epoch
        seen = torch.cat([batch["images"] for batch in loader])
        assert torch.equal(seen, torch.stack([toy[i]["images"] for i in range(30)]))


def test_reads_without_an_epoch_are_those_of_epoch_0_1_2(toy):
    fresh = [toy[4]["images"] for _ in range(3)]
    for epoch, pixels in enumerate(fresh):
        toy.epoch = epoch
        assert torch.equal(toy[4]["images"], pixels)
    toy.epoch = None
    assert toy.epoch is None


def test_the_random_state_of_the_process_does_not_change(toy):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    toy[3]
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert torch.equal(torch.get_rng_state(), states[2])


def test_points_are_matched_by_id_in_any_order(toy_world):
    targets = toy_world / "data" / "targets" / "imagenet" / "click.parquet"
    forward = points_of(np.array(["n01440764_1", "nobody", "n01443537_2"]), targets)
    backward = points_of(np.array(["n01443537_2", "nobody", "n01440764_1"]), targets)
    assert np.array_equal(forward, backward[::-1], equal_nan=True)
    assert np.isnan(forward[1]).all() and not np.isnan(forward[[0, 2]]).any()
    assert np.isnan(points_of(np.array(["n01440764_1"]), None)).all()


def test_evaluation_items_carry_their_row(toy_world):
    rows = read_manifest(toy_world / "data" / "manifests" / "imagenet_train.parquet")
    rows = rows.assign(manifest="imagenet_train")
    view = EvaluationSet({"imagenet_train": toy_world / "imagenet"}, rows, TestSet("toy", ("imagenet_train",)), RECIPE)
    pixels, row = view[7]
    assert pixels.shape == (3, 32, 32) and row == 7 and len(view) == 30


@pytest.mark.parametrize("name", TEST_SETS)
def test_each_test_set_has_its_own_view(tmp_path, name):
    """Only ObjectNet cuts a 2 px frame, only the centre crop cuts the sides, and stored crops stay as they are."""
    framed = np.full((32, 64, 3), 90, dtype=np.uint8)
    framed[:, :12] = framed[:, -12:] = 170
    framed[:2] = framed[-2:] = 255
    stored = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    rows = pd.DataFrame({"path": ["framed.png", "stored.png"], "manifest": "m"})
    for path, array in zip(rows["path"], (framed, stored), strict=True):
        Image.fromarray(array).save(tmp_path / path)
    whole = RECIPE.model_copy(update={"crop_pct": 1.0})  # the centre crop then keeps the full height
    view, cropped = (EvaluationSet({"m": tmp_path}, rows, TEST_SETS[name], recipe) for recipe in (whole, RECIPE))
    seen = view[0][0][0]
    is_cropped = TEST_SETS[name].resize == "resize_crop"
    assert (seen.max() < 200) == (name == "objectnet")
    assert (seen[16, 0] < 100) == is_cropped
    assert torch.equal(cropped[1][0], torch.from_numpy(stored).permute(2, 0, 1)) == (not is_cropped)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / ("x.jpg" if mode in ("L", "CMYK") else "x.png")
    Image.new(mode, (5, 4)).save(file)
    image = open_image(file, "row 0")
    assert (image.mode, image.size) == ("RGB", (5, 4))


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing", "folder"])
def test_a_damaged_image_is_named(tmp_path, damage):
    file = tmp_path / "bad.JPEG"
    if damage == "empty":
        file.touch()
    elif damage == "text":
        file.write_text("<html>not found</html>", encoding="utf-8")
    elif damage == "truncated":
        Image.effect_noise((64, 64), 50).save(file)
        file.write_bytes(file.read_bytes()[:600])
    elif damage == "folder":
        file.mkdir()
    with pytest.raises(DataError, match=r"bad\.JPEG \(row 7 of the list\): expected an image"):
        open_image(file, "row 7 of the list")


def test_missing_images_are_counted_before_training(tmp_path):
    (tmp_path / "a").touch()
    check_images(tmp_path, np.array(["a"]))
    with pytest.raises(DataError, match=r"2 of the 3 images checked are missing, first b"):
        check_images(tmp_path, np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match=r"5 of the 5 images checked"):
        check_images(tmp_path, np.array([str(i) for i in range(10)]), most=5)


@pytest.mark.samples
def test_real_photographs_decode_and_crop(samples):
    files = sorted((samples / "imagenet").rglob("*.JPEG"))[:20]
    assert files
    rows = pd.DataFrame(
        {
            "image_id": [file.stem for file in files],
            "path": [str(file.relative_to(samples / "imagenet")) for file in files],
            "labels": [[0]] * len(files),
        }
    )
    dataset = ImageNetAB(samples / "imagenet", rows)
    for i in range(len(files)):
        pixels, weight = dataset[i]["images"], dataset[i]["weights"]
        assert pixels.shape == (3, 224, 224) and weight == 0 and pixels.float().std() > 1


def test_points_may_come_as_a_table_in_any_order(toy, toy_world):
    table = pd.read_parquet(toy_world / "data" / "targets" / "imagenet" / "click.parquet").sample(
        frac=1, random_state=0
    )
    table.loc[len(table)] = {"image_id": "without", "x": np.nan, "y": 0.5}
    rows = toy_world / "data" / "manifests" / "imagenet_train.parquet"
    given = ImageNetAB(toy_world / "imagenet", rows, table, RECIPE, seed=3)
    assert np.array_equal(given.points, toy.points, equal_nan=True) and given.taught_points == toy.taught_points


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["1"], "x": [0.1], "y": [0.1]}, "no column image_id; found image, x, y"),
        ({"image_id": ["1", "1"], "x": [0.1, 0.2], "y": [0.1, 0.2]}, "found several for 1"),
        ({"image_id": ["1", "2"], "x": [0.1, 120.0], "y": [0.1, 0.2]}, r"in \[0, 1\], as fractions.*found 1 points"),
    ],
)
def test_a_wrong_table_of_points_is_refused(columns, message):
    with pytest.raises(DataError, match=message):
        points_of(np.array(["1"]), pd.DataFrame(columns))


@pytest.mark.parametrize("indexed", [False, True])
def test_points_come_from_pandas_own_parquet(tmp_path: Path, indexed: bool) -> None:
    table = pd.DataFrame({"image_id": ["b", "a"], "x": [0.5, 0.25], "y": [1.0, 0.75], "worker": ["v", "w"]})
    (table.set_index("image_id") if indexed else table).to_parquet(tmp_path / "mine.parquet")
    assert points_of(np.array(["a", "none", "b"]), tmp_path / "mine.parquet")[[0, 2]].tolist() == [
        [0.25, 0.75],
        [0.5, 1.0],
    ]
    table.drop(columns="y").to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"mine\.parquet: no column y"):
        points_of(np.array(["a"]), tmp_path / "mine.parquet")
