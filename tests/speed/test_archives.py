"""Generated archives for measurements: equal seeds give equal bytes, and records have the structure of the release."""

import importlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from luab.byproducts.imagenet_ab import index, read_index
from luab.byproducts.reading.patterns import Shapes
from luab.demo.imagenet_annotators import TrainImage, image_ab_members


@pytest.fixture
def archives(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(repository / "speed")
    return importlib.import_module("archives")


def test_equal_seeds_give_equal_archives(archives: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.tar.gz" for n in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        archives.write_archive(path, 1300, seed)
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[1] != contents[2]
    card = index(paths[0], tmp_path / "i.parquet", tmp_path / "i.json")
    assert (card["rows"], card["counts"]["wnids"]) == (1300, 2)
    assert card["counts"]["junk_skipped"] > 5 and card["counts"]["empty_trace"] > 20
    assert 0.8 < card["counts"]["selected_with_time"] / 1300 < 0.93
    width = read_index(tmp_path / "i.parquet", ["width"])["width"].to_pylist()
    assert 0.5 < width.count(500) / 1300 < 0.7


def test_records_have_the_structure_of_the_demos_records(archives: Any) -> None:
    images = [TrainImage(f"n01440764_{n}", "n01440764", 60, 50, [(5, 6, 30, 40)], False) for n in range(60)]
    shapes = Shapes()
    for name, record in image_ab_members(images, seed=0, boxed=0.5).items():
        if "/._" not in name and shapes.read(record) is None:
            shapes.learn(record)
    records = [data for name, data in archives.members(200, 3) if "/._" not in name]
    with_metadata = [data for data in records if b"<metadata>" in data]
    assert len(with_metadata) > 190
    assert all(shapes.read(data) for data in with_metadata)


def test_the_official_click_equals_ours(archives: Any, repository: Path, tmp_path: Path) -> None:
    from luab.byproducts.clicks import click_points

    archives.write_archive(tmp_path / "ab.tar.gz", 60)
    index(tmp_path / "ab.tar.gz", tmp_path / "i.parquet", tmp_path / "i.json")
    table = read_index(tmp_path / "i.parquet")
    clicks = click_points(table)
    records = {Path(name).stem: data for name, data in archives.members(60, 0)}
    for row, (x, y) in zip(clicks.rows, clicks.xy, strict=True):
        root = ElementTree.fromstring(records[table["image_id"][int(row)].as_py()])
        click = root.find("metadata/selectedRecord")
        assert click is not None
        assert (float(click.findtext("x") or ""), float(click.findtext("y") or "")) == (x, y)
