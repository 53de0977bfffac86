"""Tags on the demo's ImageNet pictures: at most one, mostly on the main object, in a table that studies can read."""

import hashlib
from pathlib import Path

import numpy as np

from luab.byproducts.folder_ab import read_points
from luab.demo.photos import train_images, train_scenes
from luab.demo.tags import draw_tags
from luab.study.drawn_world import Demo, WorldSizes

WORLD = Demo(seed=3, size_px=40, sizes=WorldSizes(train=12))


def test_most_pictures_have_one_tag_on_their_object(tmp_path: Path) -> None:
    draw_tags(WORLD, tmp_path / "tags.csv")
    table, bad = read_points(tmp_path / "tags.csv")
    scenes = {f"{item.wnid}/{name}.JPEG": (item, scene) for name, item, scene in train_scenes(3, 40, 12)}
    rows = table.to_pylist()
    tagged = {row["image"] for row in rows}
    assert bad == 0 and len(tagged) == len(rows) and tagged < set(scenes)
    assert 0.8 < len(rows) / len(scenes) < 0.95  # 12 % are missed
    on_it = []
    for row in rows:
        item, scene = scenes[row["image"]]
        height, width = scene.mask.shape
        x, y = min(int(row["x"] * width), width - 1), min(int(row["y"] * height), height - 1)
        on_it.append(scene.mask[y, x])
        assert row["class"] == item.name and row["time_ms"] > 0 and 0 <= row["x"] <= 1 and 0 <= row["y"] <= 1
    assert 0.6 < np.mean(on_it) < 0.95
    assert 1 < len({row["worker"] for row in rows}) <= 9


def test_the_same_world_has_the_same_tags_and_another_one_has_others(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    for world, file in zip((WORLD, WORLD, WORLD.model_copy(update={"seed": 4})), files, strict=True):
        draw_tags(world, file)
    first, again, other = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert first == again != other


def test_a_picture_has_the_same_tag_however_many_there_are(tmp_path: Path) -> None:
    draw_tags(WORLD, tmp_path / "many.csv")
    few = WORLD.model_copy(update={"sizes": WorldSizes(train=3)})
    draw_tags(few, tmp_path / "few.csv")
    many, some = (set((tmp_path / f"{name}.csv").read_text(encoding="utf-8").splitlines()) for name in ("many", "few"))
    assert 1 < len(some) < len(many) and some < many
    names = {image.image_id for image, _ in train_images(3, 40, 3)}
    assert {line.partition(",")[0].rpartition("/")[2].removesuffix(".JPEG") for line in some} - {"image"} <= names
