"""The official rule for labels and points of a crop, checked by hand, and items of CocoAB from painted images."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from luab import CocoAB
from luab.data.images.augmentations import Moves
from luab.data.images.coco import crop_targets
from luab.data.supervisions.point_files import TARGETS_SCHEMA, ClassPoints
from luab.errors import DataError
from luab.study.config import Recipe

RECIPE = Recipe(epochs=1, batch_size=2, input_px=32, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0)
SIZE = (640, 480)
CROP = (100, 200, 300, 320)  # rows 100 to 400, columns 200 to 520


def seen(
    tags: dict[int, tuple[float, float]],
    classes: tuple[int, ...] = (3, 7),
    crop: Any = CROP,
    flip: bool = False,
    size: tuple[int, int] = SIZE,
    **options: Any,
) -> tuple[set[int], dict[int, tuple[float, float]]]:
    """Returns the positive classes and the points with weight 1; tags are in pixels of the image."""
    order = sorted(tags)
    xy = np.array([(tags[n][0] / size[0], tags[n][1] / size[1]) for n in order]).reshape(-1, 2)
    found = crop_targets(
        np.array(classes, np.int16), ClassPoints(np.array(order, np.int16), xy), size, crop, flip, **options
    )
    assert [part.shape for part in found] == [(80,), (80, 2), (80,)]
    assert {part.dtype for part in found} == {np.dtype(np.float32)}
    here = np.flatnonzero(found.weights)
    away = np.delete(found.points, here, axis=0)
    assert (found.weights[here] == 1).all() and (away == -1).all()
    points = {int(n): (float(found.points[n, 0]), float(found.points[n, 1])) for n in here}
    return set(np.flatnonzero(found.labels).tolist()), points


def test_a_tagged_class_is_positive_if_its_point_is_in_the_crop() -> None:
    assert seen({3: (280, 175)}) == ({3, 7}, {3: (0.25, 0.25)})  # (280 - 200) / 320, (175 - 100) / 300
    assert seen({3: (100, 175)}) == ({7}, {})  # left of the crop: not positive although annotated
    assert seen({3: (280, 401)}) == ({7}, {})


def test_untagged_classes_are_always_positive_and_tags_without_annotation_never() -> None:
    assert seen({}) == ({3, 7}, {})
    assert seen({5: (280, 175)}) == ({3, 7}, {})
    assert seen({5: (280, 175)}, classes=()) == (set(), {})


@pytest.mark.parametrize(
    ("pixel", "point"),
    [
        ((200, 100), (0.0, 0.0)),
        ((520, 400), (1.0, 1.0)),
        ((199, 100), None),
        ((521, 400), None),
        ((520, 401), None),
        ((200, 99), None),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_borders_belong_to_the_crop(pixel: tuple[int, int], point: tuple[float, float] | None, flip: bool) -> None:
    labels, points = seen({3: pixel}, flip=flip)
    if point is None:
        assert (labels, points) == ({7}, {})
    else:
        x, y = point
        assert (labels, points) == ({3, 7}, {3: (1 - x if flip else x, y)})


def test_a_flip_mirrors_the_point() -> None:
    # The loader mirrors the whole image: x 280 -> 640 - 280 = 360, crop from 640 - 200 - 320 = 120: (360 - 120) / 320.
    assert seen({3: (280, 175)}, flip=True) == ({3, 7}, {3: (0.75, 0.25)})


def test_points_are_rounded_down_to_whole_pixels_first() -> None:
    assert seen({3: (520.9, 400.9)}) == ({3, 7}, {3: (1.0, 1.0)})
    assert seen({3: (199.9, 175)}) == ({7}, {})
    assert seen({3: (280.9, 175.9)}) == ({3, 7}, {3: (0.25, 0.25)})
    # The far edge of the image, fraction 1, is pixel 640: only a crop that reaches the edge holds it.
    assert seen({3: (640, 480)}, crop=(0, 0, 480, 640)) == ({3, 7}, {3: (1.0, 1.0)})
    assert seen({3: (640, 480)}, crop=(0, 0, 480, 639)) == ({7}, {})


def test_labels_of_cropped_out_points_can_be_kept() -> None:
    assert seen({3: (100, 175), 7: (280, 175)}, keep_labels=True) == ({3, 7}, {7: (0.25, 0.25)})
    assert seen({5: (100, 175)}, keep_labels=True) == ({3, 7}, {})


def test_results_equal_the_official_loader() -> None:
    """Compares with a transcription of the notebook's loop, for crops in whole pixels."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        width, height = (int(side) for side in rng.integers(50, 640, 2))
        top, left = int(rng.integers(0, height - 20)), int(rng.integers(0, width - 20))
        crop = (top, left, int(rng.integers(10, height - top + 1)), int(rng.integers(10, width - left + 1)))
        flip = bool(rng.integers(2))
        classes = rng.choice(80, 6, replace=False)
        tagged = np.sort(rng.choice(80, 30, replace=False)).astype(np.int16)
        xy = rng.integers(0, 451, (30, 2)) / 450
        found = crop_targets(classes, ClassPoints(tagged, xy), (width, height), crop, flip)
        labels, points = np.zeros(80), np.full((80, 2), -1.0)
        tags = dict(zip(tagged.tolist(), xy.tolist(), strict=True))
        l_y, l_h, l_w = crop[0], crop[2], crop[3]
        l_x = width - crop[1] - l_w if flip else crop[1]
        for label in classes:
            if int(label) in tags:
                x, y = tags[int(label)]
                point_y, point_x = int(y * height), int(x * width)
                if flip:
                    point_x = width - point_x
                if l_y <= point_y <= l_y + l_h and l_x <= point_x <= l_x + l_w:
                    points[label] = (point_x - l_x) / l_w, (point_y - l_y) / l_h
                    labels[label] = 1
            else:
                labels[label] = 1
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.points, points, atol=1e-6)
        np.testing.assert_array_equal(found.weights, (points[:, 0] >= 0).astype(np.float32))


# ---- items --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, Path]:
    """Twelve grey images with black dots of classes 0 and 5; class 9 and image 11 have no points."""
    root = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(1)
    rows, points = [], []
    for n in range(12):
        image_id, (width, height) = f"COCO_train2014_{n:012d}", (60 + n, 50)
        pixels = np.full((height, width, 3), 220, dtype=np.uint8)
        for label in (0, 5):
            x, y = int(rng.integers(4, width - 5)), int(rng.integers(4, height - 5))
            pixels[y - 3 : y + 4, x - 3 : x + 4] = 0
            if n < 11:
                points.append((image_id, label, (x + 0.5) / width, (y + 0.5) / height))
        Image.fromarray(pixels).save(root / f"{n}.png")
        rows.append({"image_id": image_id, "path": f"{n}.png", "labels": [0, 5, 9]})
    columns = [list(column) for column in zip(*points, strict=True)]
    pq.write_table(pa.table(columns, schema=TARGETS_SCHEMA), root / "click.parquet")
    return root, pd.DataFrame(rows), root / "click.parquet"


def test_items_hold_labels_points_and_weights_that_fit_the_pixels(world: tuple[Path, pd.DataFrame, Path]) -> None:
    root, rows, targets = world
    data, dots, gone = CocoAB(root, rows, targets, RECIPE, seed=1), 0, 0
    assert len(data) == 12
    for epoch in range(6):
        data.epoch = epoch
        for i in range(12):
            item = data[i]
            pixels, labels, points, weights = (item[name] for name in ("images", "labels", "points", "weights"))
            assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32)
            assert (labels.shape, points.shape, weights.shape) == ((80,), (80, 2), (80,))
            assert {part.dtype for part in (labels, points, weights)} == {torch.float32}
            assert labels[9] == 1 and weights[9] == 0 and points[9].tolist() == [-1, -1]
            for label in (0, 5):
                if i == 11:
                    assert (labels[label], weights[label]) == (1, 0)
                    continue
                assert labels[label] == weights[label]
                gone += int(weights[label] == 0)
                column, row = (int(v * 32) for v in points[label].tolist())
                if weights[label] and 2 <= column <= 29 and 2 <= row <= 29:
                    dots += 1
                    assert pixels[:, row, column].float().mean() < 90
    assert dots > 30 and gone > 10


def test_an_item_depends_on_seed_epoch_and_index_alone(world: tuple[Path, pd.DataFrame, Path]) -> None:
    root, rows, targets = world
    data = CocoAB(root, rows, targets, RECIPE, seed=1)
    first = data[3]
    assert not torch.equal(first["images"], data[3]["images"])  # without an epoch every read is fresh
    data.epoch = 0
    torch.manual_seed(5)
    assert all(torch.equal(part, data[3][name]) for name, part in first.items())
    without = CocoAB(root, rows, None, RECIPE, seed=1)
    without.epoch = 0
    assert torch.equal(first["images"], without[3]["images"])  # the baseline gets the same pixels
    assert without[3]["labels"].nonzero().flatten().tolist() == [0, 5, 9]  # and the labels of the annotations
    assert without[3]["weights"].sum() == 0
    data.epoch = 1
    assert not torch.equal(first["images"], data[3]["images"])


def test_labels_can_be_kept(world: tuple[Path, pd.DataFrame, Path]) -> None:
    root, rows, targets = world
    kept = CocoAB(root, rows, targets, RECIPE, seed=1, keep_labels=True)
    official = CocoAB(root, rows, targets, RECIPE, seed=1)
    assert all(kept[i]["labels"].sum() == 3 for i in range(12))
    assert sum(float(official[i]["labels"].sum()) for i in range(12)) < 36
    assert all(torch.equal(kept[i]["points"], official[i]["points"]) for i in range(12))


def test_the_official_augmentation_without_a_recipe(world: tuple[Path, pd.DataFrame, Path]) -> None:
    root, rows, targets = world
    data = CocoAB(root, rows, targets)
    assert data[0]["images"].shape == (3, 224, 224)
    assert not torch.equal(data[0]["images"], data[1]["images"])


def test_a_missing_image_is_named(world: tuple[Path, pd.DataFrame, Path]) -> None:
    root, rows, _ = world
    with pytest.raises(DataError, match=r"none\.png \(row 0 of the training manifest\)"):
        CocoAB(root, rows.assign(path="none.png"))[0]


def test_points_of_every_class_move_with_the_pixels() -> None:
    shift = Moves(100, ((1, 0, 20, 0, 1, 0),))  # 20 % to the left
    assert seen({3: (360, 175), 7: (220, 175)}, moves=shift) == ({3}, {3: (pytest.approx(0.3), 0.25)})
    mirrored = seen({3: (360, 175), 7: (220, 175)}, flip=True, moves=shift)  # after the flip, to the left again
    assert mirrored == ({3, 7}, {3: (pytest.approx(0.3), 0.25), 7: (pytest.approx(0.7375), 0.25)})


def test_an_erased_point_is_absent_but_keeps_its_label() -> None:
    erased = Moves(100, (), ((20, 20, 30, 30),))
    assert seen({3: (280, 175), 7: (360, 175)}, moves=erased) == ({3, 7}, {7: (0.5, 0.25)})
