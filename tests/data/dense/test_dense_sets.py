"""A study's dense sets: where they are, which tasks they have, and ImageNet's points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luab.data.dense.dense_sets import classes_of, dense_set
from luab.errors import ConfigError, DataError
from luab.study.config import Study


def test_the_classes_begin_at_one() -> None:
    assert {name: len(classes_of(name)) for name in ("coco", "voc", "imagenet_points")} == {
        "coco": 80,
        "voc": 20,
        "imagenet_points": 1000,
    }
    assert classes_of("voc")[14] == classes_of("coco")[0] == "person"


def test_imagenet_has_one_point_of_the_images_class(toy_study: Callable[..., Study]) -> None:
    pointed = dense_set(toy_study(), "imagenet_points", "train", "points")
    labels = set()
    assert len(pointed) == 18  # of three classes, six of ten images have a click
    for i in range(len(pointed)):
        image, target = pointed[i]
        (x, y), (label,) = target["points"][0].floor().int().tolist(), target["point_labels"].tolist()
        assert image[:, y, x].float().mean() < 60  # a black dot on a plain colour
        assert target["image_labels"].tolist() == [label]
        labels.add(label)
    assert labels == {1, 2, 3}


@pytest.mark.parametrize(
    ("data", "split", "task"),
    [("voc", "train", "points"), ("coco", "val", "points"), ("imagenet_points", "val", "points"),
     ("imagenet_points", "train", "segmentation")],
)  # fmt: skip
def test_what_a_data_set_does_not_have(toy_study: Callable[..., Study], data: Any, split: Any, task: Any) -> None:
    with pytest.raises(ConfigError, match=f"{data} has no {split} images for the task {task}"):
        dense_set(toy_study(), data, split, task)


def test_voc_is_looked_for_in_the_users_own_copy(toy_study: Callable[..., Study], tmp_path: Path) -> None:
    study = toy_study(paths={"copies": {"voc": str(tmp_path / "mine")}})
    with pytest.raises(DataError, match=r"mine/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt: .* found no file"):
        dense_set(study, "voc", "train", "detection")
    with pytest.raises(DataError, match=r"data/raw/voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"):
        dense_set(toy_study(), "voc", "val", "segmentation")
