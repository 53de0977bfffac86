"""Crops, flips and evaluation views: image and point move together."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from luab.data.images.crops import CropFlip, point_in_crop, to_uint8
from luab.data.images.evaluation import evaluation_view

# A crop of 40 x 20 pixels at left 10, top 20 of an image of 100 x 80.
CROP = (20, 10, 20, 40)


@pytest.mark.parametrize(
    ("pixel", "flip", "expected"),
    [
        ((30, 30), False, (0.5, 0.5)),
        ((20, 35), False, (0.25, 0.75)),
        ((20, 35), True, (0.75, 0.75)),
        ((10, 20), False, (0.0, 0.0)),  # the upper left corner is inside
        ((50, 40), False, (1.0, 1.0)),  # and so is the lower right one
        ((50, 40), True, (0.0, 1.0)),
        ((10, 20), True, (1.0, 0.0)),
        ((9.9, 30), False, None),
        ((50.1, 30), False, None),
        ((30, 19.9), True, None),
        ((30, 40.1), True, None),
    ],
)
def test_points_in_a_crop_by_hand(pixel, flip, expected):
    moved = point_in_crop((pixel[0] / 100, pixel[1] / 80), (100, 80), CROP, flip)
    assert moved == (None if expected is None else pytest.approx(expected))


def test_whole_pixels_on_a_border_stay_inside_though_stored_as_float32():
    for width in (200, 333, 500, 4288):
        for left in range(0, width - 1, 7):
            stored = float(np.float32(left / width)), 0.5
            assert point_in_crop(stored, (width, 10), (0, left, 10, width - left), False) == (0.0, 0.5)
            assert left == 0 or point_in_crop(stored, (width, 10), (0, 0, 10, left), False) == (1.0, 0.5)


def test_the_crop_equals_timms_for_the_same_random_state():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    ours = CropFlip(32, flip=0)
    theirs = RandomResizedCropAndInterpolation(32, (0.08, 1), interpolation="bicubic")
    for seed in range(5):
        random.seed(seed)
        cut, _ = ours(image, None)
        random.seed(seed)
        assert np.array_equal(np.asarray(cut), np.asarray(theirs(image)))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(50, 90), st.integers(50, 90)),
    at=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
)
def test_a_painted_dot_moves_like_its_point(seed, size, at):
    width, height = size
    x, y = int(at[0] * width), int(at[1] * height)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y, x] = 255
    random.seed(seed)
    cut, point = CropFlip(128, (0.3, 1.0), "bilinear")(Image.fromarray(pixels), ((x + 0.5) / width, (y + 0.5) / height))
    grey = np.asarray(cut, dtype=float)[:, :, 0]
    if point is None:
        assert grey.max() < 140  # at most the blurred edge of the dot
        return
    rows, columns = np.indices(grey.shape)
    seen = (columns * grey).sum() / grey.sum() + 0.5, (rows * grey).sum() / grey.sum() + 0.5
    # A dot on the border loses the part outside the crop, hence the tolerance of one source pixel.
    pixel = 128 / (0.3**0.5 * min(size) * 0.75)
    assert seen == pytest.approx((point[0] * 128, point[1] * 128), abs=pixel)


def test_flip_happens_half_of_the_time_and_mirrors_the_point():
    image = Image.new("RGB", (40, 40))
    random.seed(0)
    whole = CropFlip(16, (1.0, 1.0))
    xs = [whole(image, (0.25, 0.5))[1] for _ in range(400)]
    flipped = sum(x is not None and x[0] > 0.5 for x in xs)
    assert 160 < flipped < 240


def test_an_image_of_one_pixel_is_still_cropped():
    random.seed(0)
    for _ in range(20):
        cut, _ = CropFlip(8)(Image.new("RGB", (1, 1)), (0.5, 0.5))
        assert cut.size == (8, 8)


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (333, 500), (64, 64), (30, 20)])
@pytest.mark.parametrize(("input_px", "crop_pct"), [(64, 0.875), (224, 0.9), (32, 1.0)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_view_equals_torchvision(size, input_px, crop_pct, interpolation):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    theirs = Compose(
        [Resize(int(input_px / crop_pct), InterpolationMode(interpolation), antialias=True), CenterCrop(input_px)]
    )
    ours = evaluation_view(image, input_px, crop_pct, "resize_crop", interpolation=interpolation)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs(image)))


def official_point_in_crop(clicks, size_wh, crop, flip):
    """SOURCE: naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb, check_in_point, in double precision."""
    (width, height), (top, left, h, w) = size_wh, crop
    x0, y0 = left / width, top / height
    x1, y1 = x0 + w / width, y0 + h / height
    x, y = (sum(values) / len(clicks) for values in zip(*clicks, strict=True))
    if flip:
        x0, x1, x = 1 - x1, 1 - x0, 1 - x
    inside = x0 <= x <= x1 and y0 <= y <= y1
    return ((x - x0) * width / w, (y - y0) * height / h) if inside else None


def test_points_equal_those_of_the_official_arithmetic_except_on_borders():
    rng, draws = np.random.default_rng(0), CropFlip()
    random.seed(0)
    differ = 0
    for _ in range(4000):
        size_wh = (int(rng.integers(60, 500)), int(rng.integers(60, 500)))
        crop, flip = draws.draw(size_wh)
        pixels = [[int(rng.integers(0, side + 1)) for side in size_wh] for _ in range(int(rng.integers(1, 4)))]
        clicks = [(x / size_wh[0], y / size_wh[1]) for x, y in pixels]
        stored = tuple(float(np.float32(sum(values) / len(clicks))) for values in zip(*clicks, strict=True))
        ours, theirs = point_in_crop(stored, size_wh, crop, flip), official_point_in_crop(clicks, size_wh, crop, flip)
        if theirs is not None:
            assert ours == pytest.approx(theirs, abs=1e-4)
        elif ours is not None:
            differ += 1
            assert min(min(abs(v), abs(1 - v)) for v in ours) < 1e-9  # on a border, see DEVIATES in `point_in_crop`
    assert differ <= 4


def test_squash_identity_and_border():
    gradient = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3))
    image = Image.fromarray(gradient)
    assert evaluation_view(image, 32, 0.875, "squash").size == (32, 32)
    same = Image.fromarray(gradient[:32, :32])
    assert evaluation_view(same, 32, 0.875, "identity") is same
    assert evaluation_view(image, 32, 0.875, "identity").size == (32, 32)
    framed = np.full((36, 36, 3), 255, dtype=np.uint8)
    framed[2:-2, 2:-2] = 7
    view = evaluation_view(Image.fromarray(framed), 32, 1.0, "resize_crop", border_px=2)
    assert (np.asarray(view) == 7).all()


def test_to_uint8_puts_channels_first_and_copies():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    tensor = to_uint8(Image.fromarray(pixels))
    assert tensor.shape == (3, 2, 3) and tensor.is_contiguous()
    assert tensor[1, 0, 2] == pixels[0, 2, 1]
