"""Images for the byproduct browser of the report: a few small training images of every class, with trace and click."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luab.byproducts.imagenet_ab import read_index
from luab.errors import DataError
from luab.render.figures.figures import manifest_paths, read_image, rows_of

MOST_PER_CLASS = 6
MOST_IMAGES = 2000
MOST_BYTES = 6_000_000
"""Bytes of all embedded images before base64, which adds a third: at full size the page stays within 15 MB."""
SEED = 0
_SIDE_PX = 160
_TRACE_POINTS = 48
_CANDIDATES = 3  # images drawn for each one shown, since some have no click


def browser_samples(index: Path, manifest: Path, images_root: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Images for the browser, drawn with `SEED` from the images of each class (wnid -> name) that have a click.

    Returns:
        `samples`: dicts of id, wnid, name, src (data URL), width, height (px), and trace and click as [[x, y], ...] in
        pixels of the shown image; grouped by class, classes by name. `images` and `classes`: number of annotated
        images and of their classes; `per_class`: most images shown per class.
    """
    paths = manifest_paths(manifest)
    table = read_index(index, ["image_id", "wnid", "annotators"])
    table = table.filter(pa.compute.greater(table["annotators"], 0))
    by_class: dict[str, list[str]] = {}
    for image_id, wnid in zip(table["image_id"].to_pylist(), table["wnid"].to_pylist(), strict=True):
        if image_id in paths:
            by_class.setdefault(wnid, []).append(image_id)
    if not by_class:
        raise DataError(f"{index}: no annotated image is listed in {manifest}. Index the byproducts again.")
    per_class = max(1, min(MOST_PER_CLASS, MOST_IMAGES // len(by_class)))
    draw = np.random.default_rng(SEED)
    candidates = {
        wnid: draw.permutation(sorted(by_class[wnid]))[: _CANDIDATES * per_class].tolist() for wnid in sorted(by_class)
    }
    ids = [image_id for of_class in candidates.values() for image_id in of_class]
    rows = {row["image_id"]: row for row in rows_of(index, ["image_id", "click_xy", "trace_xy"], ids)}
    chosen = {
        wnid: [rows[name] for name in ids if rows[name]["click_xy"] and rows[name]["click_xy"][0]][:per_class]
        for wnid, ids in candidates.items()
    }
    # Round by round, so that a full page lacks the last images of classes, but no class.
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
    """A file as a URL that contains its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
