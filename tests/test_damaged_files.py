"""Bits that flip on a disk: a damaged file ends in an error, or its numbers are still right.

States of trainings are tested in training/test_checkpoint.py, archives in fetch/.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.benchmarks.collect import _read_cell
from luab.data.manifests.manifest import SCHEMA, read_manifest
from luab.data.supervisions.point_files import read_image_points, write_points
from luab.errors import DataError
from luab.files import content_sha256
from luab.predictions import read_predictions
from luab.study.noises import Point

pytestmark = pytest.mark.faults

FLIPS = 300


def _points(folder: Path) -> tuple[Path, Callable[[], object]]:
    rng, names = np.random.default_rng(0), [f"image_{i:05d}" for i in range(2000)]
    xy = rng.random((2000, 2)).astype(np.float32)
    path = folder / "click.parquet"
    points = [Point(name, None, x, y) for name, (x, y) in zip(names, xy.tolist(), strict=True)]
    write_points(points, path, folder / "click.json", {})
    return path, lambda: [part if isinstance(part, list) else part.tolist() for part in read_image_points(path)]


def _predictions(folder: Path) -> tuple[Path, Callable[[], object]]:
    rng, path = np.random.default_rng(0), folder / "imagenet_val.parquet"
    columns = [np.array([f"image_{i:05d}" for i in range(2000)]), rng.integers(0, 1000, 2000)]
    table = pa.table({"image_id": columns[0], "label": columns[1].astype(np.int16)})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return path, lambda: read_predictions(folder, "imagenet_val", ("image_id", "label")).to_pydict()


def _manifest(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "imagenet_val.parquet"
    names = [f"val/image_{i:05d}.JPEG" for i in range(2000)]
    rows = [
        {"image_id": name, "path": name, "labels": [i % 1000], "group": "", "width": 500, "height": 400, "boxes": []}
        for i, name in enumerate(names)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return path, lambda: read_manifest(path).to_json()


@pytest.mark.parametrize("make", [_points, _predictions, _manifest])
def test_a_flipped_bit_never_gives_other_numbers(tmp_path: Path, make: Callable[[Path], tuple]) -> None:
    path, read = make(tmp_path)
    right, content, rng, found = read(), path.read_bytes(), random.Random(0), 0
    for _ in range(FLIPS):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read() == right
        except DataError:
            found += 1
    assert found > 0.9 * FLIPS


def test_a_changed_score_is_found(tmp_path: Path) -> None:
    cell = {"dataset": "imagenet", "backbone": "b", "supervision": "click", "lambda": 1.0, "seed": 0}
    cell["benchmark"] = "imagenet_val"
    run = {key: cell[key] for key in ("dataset", "backbone", "supervision", "lambda", "seed")}
    content = {"benchmark": "imagenet_val", "protocol": "p", "run": run, "n": 3, "ids_sha256": "0", "details": []}
    content |= {"metrics": {"top1": 0.7123}}
    path = tmp_path / "imagenet_val.json"
    path.write_text(json.dumps({**content, "sha256": content_sha256(content)}), encoding="utf-8")
    assert _read_cell(cell, path) == (content, [])
    path.write_text(path.read_text(encoding="utf-8").replace("0.7123", "0.7523"), encoding="utf-8")
    assert "damaged" in _read_cell(cell, path)[1][0]
