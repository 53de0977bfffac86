"""The report's byproduct browser: a few training images of every class, small, with trace and click."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luab.byproducts.imagenet_ab import read_index, read_index_pieces
from luab.errors import DataError
from luab.render.figures.figures import manifest_paths, read_image

MOST_PER_CLASS = 6
MOST_IMAGES = 2000
MOST_BYTES = 6_000_000
"""Of all embedded images before base64, which adds a third: the page stays within 15 MB at full size."""
SEED = 0
_SIDE_PX = 160
_TRACE_POINTS = 48
_TRIED = 3  # candidates for each place: some have no click


def browser_samples(index: Path, manifest: Path, images_root: Path, names: dict[str, str]) -> dict[str, Any]:
    """Images for the browser, drawn with `SEED` among each class's images that have a click.

    Args:
        index: data/byproducts/imagenet_ab.parquet.
        manifest: Of imagenet_train.
        images_root: What the manifest's paths are relative to.
        names: wnid -> name of the class.

    Returns:
        `samples`: dicts of id, wnid, name, src (data URL), width, height (px), and trace and click as
        [[x, y], ...] in pixels of the shown image; those of one class together, classes by name. `images` and
        `classes`: how many images of how many classes the index has; `per_class`: most that are shown of one.

    Raises:
        DataError: An input is missing or damaged, or a listed image cannot be read.
    """
    paths = manifest_paths(manifest)
    table = read_index(index, ["image_id", "wnid", "annotators"])
    table = table.filter(pa.compute.greater(table["annotators"], 0))
    by_class: dict[str, list[str]] = {}
    for image_id, wnid in zip(table["image_id"].to_pylist(), table["wnid"].to_pylist(), strict=True):
        if image_id in paths:
            by_class.setdefault(wnid, []).append(image_id)
    if not by_class:
        raise DataError(f"{index}: expected annotated images that {manifest} lists too, found none. Index again.")
    per_class = max(1, min(MOST_PER_CLASS, MOST_IMAGES // len(by_class)))
    wanted = _candidates(by_class, per_class)
    rows = _clicked(index, {image_id for ids in wanted.values() for image_id in ids})
    # Round by round, so that a full page misses the last images of classes and no class as a whole.
    chosen = {wnid: [rows[name] for name in ids if name in rows][:per_class] for wnid, ids in wanted.items()}
    shown, room = [], MOST_BYTES
    for place in range(per_class):
        for wnid in sorted(chosen):
            if place < len(chosen[wnid]):
                row = chosen[wnid][place]
                sample, size = _sample(row, wnid, names.get(wnid, wnid), images_root / paths[row["image_id"]])
                room -= size
                if room >= 0:
                    shown.append(sample)
    shown.sort(key=lambda sample: (sample["name"].casefold(), sample["wnid"]))
    images = sum(len(ids) for ids in by_class.values())
    return {"samples": shown, "images": images, "classes": len(by_class), "per_class": per_class}


def _candidates(by_class: dict[str, list[str]], per_class: int) -> dict[str, list[str]]:
    draw = np.random.default_rng(SEED)
    return {wnid: list(draw.permutation(sorted(by_class[wnid]))[: _TRIED * per_class]) for wnid in sorted(by_class)}


def _clicked(index: Path, image_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    wanted = pa.array(sorted(image_ids), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for piece in read_index_pieces(index, ["image_id", "click_xy", "trace_xy"]):
        for row in piece.filter(pa.compute.is_in(piece["image_id"], wanted)).to_pylist():
            if row["click_xy"] and row["click_xy"][0]:
                found[row["image_id"]] = row
    return found


def _sample(row: dict[str, Any], wnid: str, name: str, path: Path) -> tuple[dict[str, Any], int]:
    from PIL import Image

    image = Image.fromarray(read_image(path))
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70)
    trace = row["trace_xy"][0]
    places = np.unique(np.linspace(0, len(trace) - 1, min(len(trace), _TRACE_POINTS)).round().astype(int))
    sample = {
        "id": row["image_id"],
        "wnid": wnid,
        "name": name,
        "src": data_url("image/webp", buffer.getvalue()),
        "width": image.width,
        "height": image.height,
        "trace": _pixels([trace[place] for place in places], image.width, image.height),
        "click": _pixels(row["click_xy"][0], image.width, image.height),
    }
    return sample, len(buffer.getvalue())


def _pixels(points: list[list[float]], width: int, height: int) -> list[list[float]]:
    return [[round(float(x) * width, 1), round(float(y) * height, 1)] for x, y in points]


def data_url(kind: str, content: bytes) -> str:
    """A file as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
