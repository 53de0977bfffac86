"""timm's augmentations: pixels equal timm's own, and points and boxes move with them."""

import math
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.auto_augment import NAME_TO_OP, AugmentOp, RandAugment
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import ColorJitter

from luab.data.images.augmentations import MOVING, Changes, Moves, changes_of
from luab.data.images.imagenet import ImageNetAB
from luab.study.config import Recipe

RECIPE = Recipe(epochs=10, batch_size=8, optimizer="sgd", lr=0.1, weight_decay=0, input_px=64)
POLICIES = ["rand-m9-mstd0.5-inc1", "rand-m7-n4-p1", "rand-m9-tweights-n3", "original-mstd0.5", "v0", "3a"]
HPARAMS = {"translate_const": 28, "img_mean": (124, 116, 104), "interpolation": Image.Resampling.BILINEAR}
SIDE = 64


def _recipe(**changes):
    return Recipe.model_validate({**RECIPE.model_dump(), **changes})


def _seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _picture(dot=None):
    """Coloured waves, with a white dot of 5 x 5 pixels around the given pixel."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    pixels = np.stack([110 + 40 * np.sin(4 * x + c) * np.cos(3 * y + c) for c in range(3)], axis=-1).astype(np.uint8)
    pixels[0, :2] = [[0] * 3, [255] * 3]  # autocontrast and equalize stay the same with and without the dot
    if dot is not None:
        pixels[dot[1] - 2 : dot[1] + 3, dot[0] - 2 : dot[0] + 3] = 255
    return Image.fromarray(pixels)


def _centre(image, without):
    """Centre of the pixels that differ most, in pixels from the upper left corner."""
    difference = np.abs(np.asarray(image, float) - np.asarray(without, float)).sum(axis=-1)
    assume(difference.max() > 20)
    y, x = np.nonzero(difference > difference.max() / 2)
    weights = difference[y, x]
    return np.average(x + 0.5, weights=weights), np.average(y + 0.5, weights=weights)


@pytest.fixture
def old_pillow(monkeypatch):
    """Pillow 13 refuses to posterize to 0 bits; timm was written for earlier ones, which returned black."""
    monkeypatch.setattr(auto_augment.ImageOps, "posterize", _posterize_of_pillow_12)


def _posterize_of_pillow_12(image, bits):
    return image.point([value & ~(2 ** (8 - bits) - 1) for value in range(256)] * 3)


@pytest.mark.usefixtures("old_pillow")
@pytest.mark.parametrize("policy", [*POLICIES, None])
@pytest.mark.parametrize("jitter", [None, 0.4])
def test_pixels_equal_timms_for_the_same_draws(policy, jitter):
    if jitter and policy not in (None, "3a"):
        pytest.skip("timm turns the jitter off")
    changes = changes_of(_recipe(auto_augment=policy, color_jitter=jitter))
    theirs = create_transform(
        SIDE, is_training=True, hflip=0, auto_augment=policy, color_jitter=jitter, interpolation="bicubic",
        separate=True,
    )[1]  # fmt: skip
    if changes is None:
        assert policy is None and jitter is None
        return
    moved = 0
    for seed in range(40):
        _seed(seed)
        ours, moves = changes(_picture((20, 30)))
        after = random.random(), np.random.random(), torch.rand(())
        _seed(seed)
        assert np.array_equal(np.asarray(ours), np.asarray(theirs(_picture((20, 30)))))
        assert after == (random.random(), np.random.random(), torch.rand(()))
        moved += bool(moves.matrices)
    assert (moved > 3) == (policy not in ("3a", None))


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(NAME_TO_OP)),
    magnitude=st.floats(0, 10),
    seed=st.integers(0, 1000),
    at=st.tuples(st.integers(8, SIDE - 9), st.integers(8, SIDE - 9)),
)
@example("Rotate", 10.0, 1, (20, 40))
@example("TranslateXRel", 10.0, 1, (32, 32))
def test_a_painted_dot_moves_like_its_point_under_every_operation(name, magnitude, seed, at):
    changes = Changes(RandAugment([AugmentOp(name, 1.0, magnitude, HPARAMS)], 1))
    images = []
    for dot in (at, None):
        _seed(seed)
        image, moves = changes(_picture(dot))
        images.append(image)
    assert len(moves.matrices) == (name in MOVING)
    (point,), (inside,) = moves.points(np.array([at]) / SIDE + 0.5 / SIDE)
    if name.startswith("Posterize"):
        return  # with few bits, parts of the dot have the colour of the background
    if not inside or not (point * SIDE > 4).all() or not (point * SIDE < SIDE - 4).all():
        return  # partly cut away
    assert _centre(*images) == pytest.approx(point * SIDE, abs=1)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), at=st.tuples(st.integers(8, SIDE - 9), st.integers(8, SIDE - 9)))
def test_a_painted_dot_moves_like_its_point_under_four_operations(seed, at):
    changes = Changes(RandAugment([AugmentOp(name, 1.0, 5, HPARAMS) for name in MOVING], 4))
    images = []
    for dot in (at, None):
        _seed(seed)
        image, moves = changes(_picture(dot))
        images.append(image)
    (point,), (inside,) = moves.points(np.array([at]) / SIDE + 0.5 / SIDE)
    difference = np.abs(np.asarray(images[0], float) - np.asarray(images[1], float)).sum(axis=-1)
    if not inside:
        assert difference.sum() < 0.6 * 25 * 3 * 160  # at most a part of the dot is left
    elif (point * SIDE > 4).all() and (point * SIDE < SIDE - 4).all():
        assert _centre(*images) == pytest.approx(point * SIDE, abs=1.5)


def test_operations_by_hand():
    corner, middle = np.array([[0.25, 0.5]]), np.array([[0.5, 0.5]])
    shift = Moves(100, ((1, 0, 10, 0, 1, -20),))  # output (x, y) shows input (x + 10, y - 20)
    assert shift.points(corner)[0] == pytest.approx(np.array([[0.15, 0.7]]))
    shear = Moves(100, ((1, 0.2, 0, 0, 1, 0),))
    assert shear.points(corner)[0] == pytest.approx(np.array([[0.15, 0.5]]))
    changes = Changes(RandAugment([AugmentOp("Rotate", 1.0, 10, HPARAMS)], 1))
    _seed(0)
    _, turn = changes(_picture())
    assert turn.points(middle)[0] == pytest.approx(middle)  # about the centre, by 30 degrees
    x, y = turn.points(corner)[0][0] - 0.5
    assert math.hypot(x, y) == pytest.approx(0.25) and abs(y) == pytest.approx(0.125)


def test_posterize_to_0_bits_is_black_with_every_pillow():
    changes = Changes(RandAugment([AugmentOp("PosterizeIncreasing", 1.0, 10, HPARAMS)], 1))
    assert not np.asarray(changes(_picture())[0]).any()
    changes = Changes(RandAugment([AugmentOp("PosterizeIncreasing", 1.0, 6, HPARAMS)], 1))
    assert np.array_equal(changes(_picture())[0], _posterize_of_pillow_12(_picture(), 2))


def test_right_angles():
    """Pillow turns by right angles without a matrix."""
    right = {**HPARAMS, "magnitude_max": 60}
    changes = Changes(RandAugment([AugmentOp("Rotate", 1.0, 30, right)], 1))
    _seed(0)
    image, moves = changes(_picture((10, 20)))
    (point,), _ = moves.points(np.array([[10.5, 20.5]]) / SIDE)
    x, y = (point * SIDE).astype(int)
    assert (np.asarray(image)[y - 2 : y + 3, x - 2 : x + 3] == 255).all()


def test_draws_of_the_resampling_stay_timms():
    """Without an interpolation in its parameters, timm draws the resampling of each operation."""
    ours, theirs = (RandAugment([AugmentOp("ShearX", 1.0, 5, {"translate_const": 28})], 3) for _ in range(2))
    changes = Changes(ours)
    for seed in range(10):
        _seed(seed)
        image, _ = changes(_picture((10, 20)))
        _seed(seed)
        assert np.array_equal(np.asarray(image), np.asarray(theirs(_picture((10, 20)))))


@pytest.mark.parametrize("decoding", ["exact", "fast"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_dot_in_a_file_moves_like_its_point(tmp_path, decoding, number):
    """From the file to the view: crop, flip, three operations that move pixels, erasing."""
    y, x = np.mgrid[:120, :160]
    pixels = np.stack([90 + 0.2 * x + 0.1 * y, 140 - 0.3 * y, 90 + 0 * x], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "without.JPEG", quality=95)
    pixels[60:66, 80:86] = 255
    Image.fromarray(pixels).save(tmp_path / "with.JPEG", quality=95)
    names = ["without.JPEG", "with.JPEG"]
    recipe = _recipe(input_px=96, crop_scale=(0.2, 1))
    rows = pd.DataFrame({"image_id": ["a", "b"], "path": names, "labels": [[0], [0]]})
    dataset = ImageNetAB(tmp_path, rows, recipe=recipe, decoding=decoding)
    # The view depends on the row of the image: read the two files as the same row.
    other = ImageNetAB(tmp_path, rows.iloc[[1, 0]].reset_index(drop=True), recipe=recipe, decoding=decoding)
    policy = RandAugment([AugmentOp(name, 0.7, 6, HPARAMS) for name in MOVING], 3)
    dataset.changes = other.changes = Changes(policy, RandomErasing(0.5, mode="pixel", device="cpu"))
    seen = moved = 0
    for epoch in range(150):
        dataset.epoch = other.epoch = epoch
        without, view = dataset.view((0, number)), other.view((0, number))
        assert view[1:] == without[1:]
        point = view.place((83 / 160, 63 / 120))
        difference = np.abs(view.pixels.numpy().astype(float) - without.pixels.numpy()).sum(axis=0)
        if point is None or difference.max() < 60 or not all(0.1 < side < 0.9 for side in point):
            continue
        rows_, columns = np.nonzero(difference > difference.max() / 2)
        middle = np.median(columns) + 0.5, np.median(rows_) + 0.5
        seen, moved = seen + 1, moved + bool(view.moves.matrices)
        if not any(_touches(box, np.array(point) * 96) for box in view.moves.erased):
            assert middle == pytest.approx(np.array(point) * 96, abs=1.5)
    assert seen > 30 and moved > 15


def _touches(box, point):
    return (np.array(box[:2]) - 8 < point).all() and (point < np.array(box[2:]) + 8).all()


def test_a_point_that_left_the_picture_does_not_come_back():
    away_and_back = Moves(100, ((1, 0, 60, 0, 1, 0), (1, 0, -60, 0, 1, 0)))
    xy, inside = away_and_back.points(np.array([[0.5, 0.5], [0.8, 0.5], [0.6, 0.5]]))
    assert xy == pytest.approx(np.array([[0.5, 0.5], [0.8, 0.5], [0.6, 0.5]]))
    assert inside.tolist() == [False, True, True]  # a border is inside
    xy, inside = Moves(100).points(np.array([[0.1, 1.0]]))
    assert xy.tolist() == [[0.1, 1.0]] and inside.tolist() == [True]


def test_boxes_hold_what_they_held():
    boxes = np.array([[0.2, 0.4, 0.6, 0.8], [0.0, 0.0, 0.05, 1.0]])
    moved, inside = Moves(100, ((1, 0, 10, 0, 1, -30),)).boxes(boxes)  # 0.1 to the left, 0.3 down
    assert moved == pytest.approx(np.array([[0.1, 0.7, 0.5, 1.0], [0, 0.3, 0, 1]])) and inside.tolist() == [True, False]
    moved, _ = Moves(100, ((1, 0.5, 0, 0, 1, 0),)).boxes(boxes[:1])  # x - 0.5 y
    assert moved == pytest.approx(np.array([[0, 0.4, 0.4, 0.8]]))
    untouched, inside = Moves(100).boxes(boxes)
    assert np.array_equal(untouched, boxes) and inside.all()


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("count", [1, 3])
def test_erasing_equals_timms_up_to_rounding(mode, count):
    changes = changes_of(_recipe(random_erasing=0.7, erasing_mode=mode, erasing_count=count))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    erased = 0
    for seed in range(20):
        pixels = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        normalised = (pixels / 255 - mean) / std
        theirs = normalised.clone()
        _seed(seed)
        RandomErasing(0.7, mode=mode, max_count=count, device="cpu")(theirs)
        after = random.random(), torch.rand(())
        _seed(seed)
        moves = changes.erase(pixels, changes(_picture())[1])
        assert after == (random.random(), torch.rand(()))
        in_range = (-mean / std).maximum(((1 - mean) / std).minimum(theirs))  # uint8 ends at black and white
        assert ((pixels / 255 - mean) / std - in_range).abs().max() <= 0.5 / 255 / 0.224 + 1e-5
        y, x = np.nonzero((theirs != normalised).any(dim=0).numpy())
        centres = (np.mgrid[:SIDE, :SIDE][::-1].reshape(2, -1).T + 0.5) / SIDE
        covered = moves.covered(centres).reshape(SIDE, SIDE)
        assert covered[y, x].all() and covered.sum() - len(y) <= 0.01 * SIDE**2
        erased += bool(moves.erased)
    assert 8 <= erased < 20


def test_points_in_erased_boxes_by_hand():
    moves = Moves(100, (), ((10, 20, 30, 60), (90, 90, 100, 100)))
    xy = np.array([[0.1, 0.2], [0.2999, 0.5999], [0.3, 0.4], [0.2, 0.6], [1.0, 1.0], [0.0999, 0.3]])
    assert moves.covered(xy).tolist() == [True, True, False, False, True, False]
    assert moves.points(xy)[1].all()


def test_colours_change_and_geometry_does_not():
    changes = changes_of(_recipe(input_px=32, auto_augment="3a", color_jitter=0.3))
    pixels = np.full((32, 32, 3), 90, dtype=np.uint8)
    pixels[8:24, 8:16] = (200, 30, 30)
    changed = 0
    for seed in range(20):
        random.seed(seed)
        image, moves = changes(Image.fromarray(pixels))
        after = np.asarray(image, dtype=int)
        changed += not np.array_equal(after, pixels)
        inner, outer = after[10:22, 10:14], after[0:4]
        # The patch stays where it is: flat inside, flat outside; blur only touches its rim.
        assert np.ptp(inner, axis=(0, 1)).max() <= 40 and np.ptp(outer, axis=(0, 1)).max() <= 2
        assert moves == Moves(32)
    assert changed > 10


def test_other_operations_and_pickles():
    changes = Changes(ColorJitter(0.4, 0.4, 0.4))
    image, moves = changes(_picture())
    assert image.size == (SIDE, SIDE) and moves == Moves(SIDE)
    assert changes.erase(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), moves) == moves
    changes = changes_of(_recipe(auto_augment="rand-m9-n5-p1", random_erasing=1))
    copy = pickle.loads(pickle.dumps(changes))  # for loader processes that are not forked
    for each in (changes, copy):
        _seed(3)
        image, moves = each(_picture())
        pixels = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        each.result = np.asarray(image).tobytes(), each.erase(pixels, moves), pixels.numpy().tobytes()
    assert changes.result == copy.result and changes.result[1].erased
    assert changes_of(RECIPE) is None
