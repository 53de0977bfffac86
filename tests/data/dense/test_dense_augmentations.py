"""Boxes, masks and points move with what is painted there, and the seed alone decides how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from luab.data.dense.augmentations import augmentation
from luab.data.dense.dense_set import OBJECT, DetectionSet, Images, Pointed, PointSet, SegmentationSet

SIZE_WH, DOT_PX = (90, 60), 7
STEPS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "flip": {"flip": 1.0},
    "larger": {"short_px": 97},
    "limited": {"short_px": 200, "longest_px": 120},
    "jitter": {"short_px": 80, "jitter": (0.5, 2.0), "flip": 0.5},
    "crop": {"crop_px": 48},
    "padded": {"crop_px": 128, "flip": 0.5},
    "all": {"short_px": 64, "longest_px": 200, "jitter": (0.6, 1.8), "flip": 0.5, "crop_px": 64},
}


def dotted(left: int, top: int) -> tuple[tv_tensors.Image, dict[str, Any]]:
    """A black picture with a white square, and its box, mask and middle."""
    width, height = SIZE_WH
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.int64)
    for part, value in ((image, 255), (mask, 3)):
        part[..., top : top + DOT_PX, left : left + DOT_PX] = value
    box = torch.tensor([[left, top, left + DOT_PX, top + DOT_PX]], dtype=torch.float32)
    points = torch.tensor([[left + DOT_PX / 2, top + DOT_PX / 2]])
    return tv_tensors.Image(image), {
        "boxes": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(height, width)),
        "labels": torch.tensor([3]),
        "iscrowd": torch.tensor([False]),
        "difficult": torch.tensor([True]),
        "area": torch.tensor([49.0]),
        "mask": tv_tensors.Mask(mask),
        "points": tv_tensors.KeyPoints(points, canvas_size=(height, width)),
        "point_labels": torch.tensor([3]),
        "image_labels": torch.tensor([3, 5]),
        "image_id": "dot",
    }


def middle(picture: torch.Tensor) -> torch.Tensor:
    """The centre x y of what is painted, weighted by brightness."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in picture.shape), indexing="ij")
    weights = picture.float() / picture.sum()
    return torch.stack([(columns * weights).sum(), (rows * weights).sum()])


@pytest.mark.parametrize("name", STEPS)
def test_box_mask_and_point_stay_on_the_dot(name: str) -> None:
    change = augmentation(**STEPS[name])
    rng, whole = np.random.default_rng(1), 0
    for seed in range(40):
        torch.manual_seed(seed)
        given = int(rng.integers(0, SIZE_WH[0] - DOT_PX + 1)), int(rng.integers(0, SIZE_WH[1] - DOT_PX + 1))
        image, target = change(*dotted(*given))
        white = image[0] > 127
        if not white.any():
            assert len(target["points"]) == len(target["point_labels"]) == 0
            continue
        height, width = image.shape[1:]
        touches = white[0].any() or white[-1].any() or white[:, 0].any() or white[:, -1].any()
        if touches:  # perhaps cut: then the middle of the rest is not that of the dot
            continue
        whole += 1
        place = middle(image[0])
        x0, y0, x1, y1 = target["boxes"][0].tolist()
        assert torch.allclose(target["points"][0].as_subclass(torch.Tensor), place, atol=0.3)
        assert torch.allclose(torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2]), place, atol=0.3)
        # Nearest neighbours are up to one pixel of the original off.
        assert torch.allclose(middle(target["mask"] == 3), place, atol=1.0 + width / SIZE_WH[0])
        assert 0.9 * (x1 - x0) * (y1 - y0) < image[0].sum() / 255 < 1.1 * (x1 - x0) * (y1 - y0)
        for part in ("boxes", "points"):
            assert target[part].canvas_size == target["mask"].shape == (height, width)
        assert [target[part].tolist() for part in ("labels", "difficult", "point_labels")] == [[3], [True], [3]]
        assert target["image_id"] == "dot" and target["image_labels"].tolist() == [3, 5]
    assert whole > 8


def test_what_leaves_the_image_goes_with_all_its_parts() -> None:
    change = augmentation(crop_px=20)
    gone = 0
    for seed in range(30):
        torch.manual_seed(seed)
        image, target = change(*dotted(2, 2))
        assert image.shape == (3, 20, 20)
        lengths = {len(target[part]) for part in ("boxes", "labels", "iscrowd", "difficult", "area")}
        assert lengths == {int((image > 0).any())} or (target["boxes"].numel() == 0 and image.sum() > 0)
        gone += lengths == {0}
        assert len(target["points"]) == len(target["point_labels"])
        assert target["image_labels"].tolist() == [3, 5]
    assert 0 < gone < 30


def test_padding_is_black_and_ignored() -> None:
    image, target = augmentation(crop_px=128)(*dotted(40, 30))
    assert image.shape == (3, 128, 128)
    inside = target["mask"] != 255
    assert inside.sum() == SIZE_WH[0] * SIZE_WH[1]
    assert image[:, ~inside].sum() == 0


@pytest.mark.parametrize(
    ("short_px", "longest_px", "size_hw"), [(120, None, (120, 180)), (120, 150, (100, 150)), (30, 150, (30, 45))]
)
def test_the_aspect_ratio_is_kept(short_px: int, longest_px: int | None, size_hw: tuple[int, int]) -> None:
    image, _ = augmentation(short_px, longest_px)(*dotted(40, 30))
    assert image.shape[1:] == size_hw


def test_jitter_reaches_both_ends() -> None:
    change = augmentation(60, jitter=(0.5, 2.0))
    torch.manual_seed(0)
    heights = [change(*dotted(40, 30))[0].shape[1] for _ in range(300)]
    assert 30 <= min(heights) < 33 and 117 < max(heights) <= 120


def test_points_on_the_border_survive_a_flip() -> None:
    pointed = [Pointed(np.array([1, 2]), np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1, 2]))]
    root = Path("/nowhere")
    for flip in (0.0, 1.0):
        target = PointSet(Images(root, ["a"], ["a.png"]), pointed).target(0, (20, 10))
        _, moved = augmentation(flip=flip)(tv_tensors.Image(torch.zeros(3, 10, 20, dtype=torch.uint8)), target)
        pixels = moved["points"].floor().int().tolist()
        assert pixels == ([[19, 0], [0, 9]] if flip else [[0, 0], [19, 9]])


# ---- seeds --------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Images:
    rng = np.random.default_rng(0)
    names = [f"{k}.png" for k in range(4)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    return Images(tmp_path, [name[0] for name in names], names)


def boxes(count: int) -> list[Any]:
    return [np.array([((5, 5, 45, 35), 1, False, False, 1200.0)], OBJECT) for _ in range(count)]


def opened(pictures: Images, seed: int = 0) -> DetectionSet:
    change = augmentation(40, 80, (0.5, 2.0), 0.5, 32)
    return DetectionSet(pictures, np.full((4, 2), (50, 40)), boxes(4), change, seed)


def test_the_same_seed_gives_the_same_crop(pictures: Images) -> None:
    first, again, other = opened(pictures), opened(pictures), opened(pictures, seed=1)
    torch.manual_seed(7)
    views = [first[i][0] for i in range(4)]
    torch.manual_seed(8)
    assert all(torch.equal(again[i][0], views[i]) for i in (2, 0, 3, 1))  # in any order, whatever was drawn before
    assert not all(torch.equal(other[i][0], views[i]) for i in range(4))
    again.epoch = 1
    assert not all(torch.equal(again[i][0], views[i]) for i in range(4))
    again.epoch = 0
    assert all(torch.equal(again[i][0], views[i]) for i in range(4))


def test_each_image_has_its_own_crop(pictures: Images) -> None:
    same = opened(Images(pictures.root, ["a", "b", "c", "d"], ["0.png"] * 4))
    views = [same[i][0] for i in range(4)]
    assert not any(torch.equal(views[i], views[j]) for i in range(4) for j in range(i))


def test_reading_leaves_the_trainings_generator_alone(pictures: Images) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    opened(pictures)[0]
    assert torch.equal(torch.get_rng_state(), before)


def first_of(items: list[Any]) -> Any:
    return items[0]


def test_running_loader_processes_see_the_epoch(pictures: Images) -> None:
    images = opened(pictures)
    loader = DataLoader(images, 1, num_workers=1, persistent_workers=True, collate_fn=first_of)
    by_epoch = []
    for epoch in (0, 1):
        images.epoch = epoch
        by_epoch.append([image for image, _ in loader])
        assert all(torch.equal(image, images[i][0]) for i, image in enumerate(by_epoch[-1]))
    assert not all(map(torch.equal, *by_epoch))


@pytest.mark.parametrize("kind", ["boxes", "mask"])
def test_an_image_of_another_size_than_annotated_is_an_error(pictures: Images, kind: str) -> None:
    wrong: Callable[[], Any] = {
        "boxes": lambda: DetectionSet(pictures, np.full((4, 2), (40, 50)), boxes(4)),
        "mask": lambda: SegmentationSet(pictures, lambda _: np.zeros((50, 40), np.uint8)),
    }[kind]
    with pytest.raises(Exception, match=r"0.png: expected 40 x 50 pixels, .* found 50 x 40"):
        wrong()[0]
