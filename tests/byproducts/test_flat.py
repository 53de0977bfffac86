"""Flat tables of clicks and traces: hand-made records of both releases, as tar, zip, folder, JSON and index."""

import io
import json
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import luab
from luab.byproducts import coco_ab, imagenet_ab
from luab.errors import DataError


def points(tag: str, *txy: tuple[int, float, float]) -> str:
    made = (f"<{tag}><time>{t}</time><x>{x}</x><y>{y}</y></{tag}>" for t, x, y in txy)
    return "".join(made) or f"<{tag}>None</{tag}>"


def metadata(worker: str, selected: str, clicks: list[Any], trace: list[Any]) -> str:
    return (
        f"<metadata><estimateTime>20</estimateTime><worker_id>{worker}</worker_id>"
        f"<hoveredRecord>None</hoveredRecord>{points('mouseTracking', *trace)}<selected>{selected}</selected>"
        f"{points('selectedRecord', *clicks)}</metadata>"
    )


SIZE = "<size><width>100</width><height>80</height></size>"
RECORDS = {
    "n01440764/n01440764_1.xml": SIZE
    + metadata("A", "True", [(30, 0.5, 0.25), (40, 0.6, 0.35)], [(10, 0.1, 0.2), (30, 0.5, 0.25)])
    + metadata("B", "False", [], [(11, 0.9, 0.8)]),
    "n01440764/n01440764_2.xml": SIZE,  # a record of boxes only
    "n01443537/n01443537_3.xml": metadata("A", "True", [(50, 1.25, 0.5)], []),
}


def tar_of(path: Path, records: dict[str, str] = RECORDS) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in records.items():
            content = f"<annotation>{text}</annotation>".encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_clicks_of_imagenet_ab_worked_by_hand(tmp_path: Path) -> None:
    clicks = luab.read_clicks(tar_of(tmp_path / "a.tar.gz"))
    assert list(clicks["image_id"]) == ["n01440764_1", "n01440764_1", "n01443537_3"]
    assert list(clicks["label"]) == ["n01440764", "n01440764", "n01443537"]
    assert clicks[["record", "annotator", "order"]].to_numpy().tolist() == [[0, 0, 0], [0, 0, 1], [2, 0, 0]]
    assert clicks[["x", "y", "time_ms"]].to_numpy().tolist() == [[0.5, 0.25, 30], [0.6, 0.35, 40], [1.25, 0.5, 50]]
    assert list(clicks["action"]) == ["click"] * 3 and list(clicks["selected"]) == [True] * 3
    assert list(clicks["worker_id"]) == ["A"] * 3
    assert clicks["width"].tolist()[:2] == [100, 100] and math.isnan(clicks["width"].tolist()[2])


def test_traces_of_imagenet_ab_worked_by_hand(tmp_path: Path) -> None:
    traces = luab.read_traces(tar_of(tmp_path / "a.tar.gz"))
    assert traces[["record", "annotator", "order"]].to_numpy().tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert traces[["x", "y", "time_ms"]].to_numpy().tolist() == [[0.1, 0.2, 10], [0.5, 0.25, 30], [0.9, 0.8, 11]]
    assert list(traces["selected"]) == [True, True, False] and list(traces["worker_id"]) == ["A", "A", "B"]


def test_tar_zip_folder_and_index_give_equal_tables(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "a.tar.gz")
    with tarfile.open(tar) as opened, zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        opened.extractall(tmp_path / "folder", filter="data")
        for member in opened.getmembers():
            packed.writestr(member.name, opened.extractfile(member).read())  # type: ignore[union-attr]
    imagenet_ab.index(tar, tmp_path / "a.parquet", tmp_path / "a.json")
    for read in (luab.read_clicks, luab.read_traces):
        tables = [read(tmp_path / name) for name in ("a.tar.gz", "a.zip", "folder", "a.parquet")]
        for table in tables[1:]:
            pd.testing.assert_frame_equal(table, tables[0])


def test_some_images_keep_their_record_numbers(tmp_path: Path) -> None:
    clicks = luab.read_clicks(tar_of(tmp_path / "a.tar.gz"), images=["n01443537_3"])
    assert clicks["record"].tolist() == [2] and clicks["x"].tolist() == [1.25]
    assert luab.read_traces(tmp_path / "a.tar.gz", images=[]).empty


def coco_record(image_id: int, *actions: tuple[str, str, tuple[float, float] | None]) -> dict[str, Any]:
    made = [
        {"actionType": kind, "iconType": icon, "timeAt": 5 + k}
        | ({} if to is None else {"pointTo": dict(zip("xy", to, strict=True))})
        | ({} if kind == "add" else {"pointFrom": {"x": 0.5, "y": 0.5}})
        for k, (kind, icon, to) in enumerate(actions)
    ]
    return {
        "image_id": image_id, "originalImageHeight": 480, "originalImageWidth": 0 if image_id == 7 else 640,
        "imageHeight": 450, "imageWidth": 450, "timeSpent": 22283, "actionHistories": made, "categoryHistories": [],
        "mouseTracking": [{"x": 0.5, "y": 0.25, "timeAt": 3}], "hit_id": "0" * 32, "page_id": 3, "worker_id": "W",
    }  # fmt: skip


def test_icons_and_traces_of_coco_ab_worked_by_hand(tmp_path: Path) -> None:
    archive = tmp_path / "coco.json"
    actions = (("add", "dog", (0.5, 0.5)), ("add", "cup", (0.1, 0.2)), ("move", "cup", (0.3, 0.4)))
    records = [coco_record(9, *actions, ("remove", "dog", None)), coco_record(7, ("add", "person", (0.25, 0.75)))]
    archive.write_text(json.dumps(records), encoding="utf-8")
    clicks = luab.read_clicks(archive)
    assert list(clicks["image_id"]) == [9, 9, 9, 9, 7] and list(clicks["record"]) == [0, 0, 0, 0, 1]
    assert list(clicks["label"]) == ["dog", "cup", "cup", "dog", "person"]
    assert list(clicks["action"]) == ["add", "add", "move", "remove", "add"]
    assert list(clicks["selected"]) == [False, True, True, False, True]  # the dog was taken back
    assert clicks["x"].tolist()[:3] == [0.5, 0.1, 0.3] and math.isnan(clicks["x"][3])
    assert clicks["time_ms"].tolist() == [5, 6, 7, 8, 5] and list(clicks["order"]) == [0, 1, 2, 3, 0]
    assert clicks["width"].tolist()[:4] == [640] * 4 and math.isnan(clicks["width"][4])
    traces = luab.read_traces(archive)
    assert traces[["image_id", "x", "y", "time_ms"]].to_numpy().tolist() == [[9, 0.5, 0.25, 3], [7, 0.5, 0.25, 3]]
    assert traces["selected"].isna().all()
    coco_ab.index(archive, tmp_path / "c.parquet", tmp_path / "c.json")
    pd.testing.assert_frame_equal(luab.read_clicks(tmp_path / "c.parquet"), clicks)
    assert luab.read_clicks(archive, images=[7])["label"].tolist() == ["person"]


def test_it_is_as_strict_as_the_index(tmp_path: Path) -> None:
    bad = tar_of(tmp_path / "bad.tar.gz", RECORDS | {"n01443537/n01443537_4.xml": "<metadata><selected>Yes</selected>"})
    with pytest.raises(DataError, match="n01443537_4"):
        luab.read_clicks(bad)
    assert len(luab.read_clicks(bad, on_bad="count")) == 3
    (tmp_path / "page.tar.gz").write_bytes(b"<!doctype html><title>404</title>")
    with pytest.raises(DataError, match=r"expected a tar or zip .* found a web page"):
        luab.read_traces(tmp_path / "page.tar.gz")
    with pytest.raises(DataError, match="found no file"):
        luab.read_traces(tmp_path / "nothing.tar.gz")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="the columns are not those"):
        luab.read_clicks(tmp_path / "other.parquet")
