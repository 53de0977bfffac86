"""Training points for your own images, from the index of their byproducts: at most one point per image.

Held-out images have points too, which predictions are compared with; training reads those of its own images.
"""

import functools
from collections import defaultdict
from collections.abc import Container, Hashable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from luab.byproducts.folder_ab import read_index
from luab.data.manifests.manifest import read_manifest_table
from luab.data.manifests.tree import Entry
from luab.data.own_points import OwnPoints, own_points
from luab.data.supervisions.makers import Byproducts, Made, Maker, Sources, Worker, area_of, centre_of
from luab.files import read_fields
from luab.study.noises import Point
from luab.study.roots import OWN


def click(sources: Sources) -> Made:
    """Returns the mean of each image's points, with the same weight for each row of the table, whatever its kind."""
    return _means(sources)


def kinds(sources: Sources) -> Mapping[str, Maker]:
    """Returns makers of the points of some kinds of rows only, by name, as the card of the index has them."""
    of_name = read_fields(sources.index.with_suffix(".json"), ()).get("kinds", {})
    return {name: functools.partial(_means, kinds=frozenset(values)) for name, values in of_name.items()}


def _means(sources: Sources, kinds: Container[str] | None = None) -> Made:
    """The mean of each image's points of these kinds; None for all rows."""
    table = read_index(sources.index)
    found, wanted = _own_points(sources, table), {"worker": sources.workers, "kind": kinds}
    columns = [(table[name].to_pylist(), values) for name, values in wanted.items() if values is not None]
    points = []
    for image_id, rows in found.rows.items():
        kept = [row for row in rows if all(column[row] in values for column, values in columns)]
        if kept:
            points.append(Point(image_id, None, *found.xy[kept].mean(axis=0).tolist()))
    return Made(points, found.notes)


def box(sources: Sources) -> Made:
    """Returns the centre of the largest box of each image that has one."""
    points = []
    for entry in _images(sources):
        if entry.boxes and entry.width and entry.height:
            centre = centre_of(max(entry.boxes, key=area_of), entry.width, entry.height)
            points.append(Point(entry.image_id, None, *centre))
    return Made(points, {})


def classes(sources: Sources) -> Mapping[str, Hashable]:
    """Returns the split and class of each image, so that no point moves from held-out images to training images."""
    return {
        entry.image_id: (manifest.stem, entry.labels[0])
        for manifest in _manifests(sources)
        for entry in _entries(manifest)
    }


def workers(sources: Sources) -> Mapping[str, Worker]:
    """Returns the mean time per point of each worker that is named; nobody knows who was right."""
    table, times = read_index(sources.index), defaultdict[str, list[float]](list)
    for name, time_ms in zip(table["worker"].to_pylist(), table["time_ms"].to_pylist(), strict=True):
        if name is not None:
            times[name] += [time_ms] if time_ms is not None else []
    return {name: Worker(float(np.mean(of)) if of else 0.0, None) for name, of in times.items()}


def time_ms(sources: Sources) -> Mapping[str, float]:
    """Returns the mean time of each image's points; images without a recorded time have none."""
    table = read_index(sources.index)
    times, found = table["time_ms"].to_pylist(), _own_points(sources, table)
    known = {name: [times[row] for row in rows if times[row] is not None] for name, rows in found.rows.items()}
    return {name: float(np.mean(of)) for name, of in known.items() if of}


BYPRODUCTS = Byproducts({"click": click, "box": box}, classes, workers, {"time_ms": time_ms}, kinds)


def _own_points(sources: Sources, table: pa.Table) -> OwnPoints:
    about = read_fields(sources.index.with_suffix(".json"), ("root", "unit", "on_bad"))
    names = read_fields(sources.manifest.with_suffix(".json"), ("names",))["names"]
    skip_bad, root = about["on_bad"] == "count", Path(about["root"])
    return own_points(table, _images(sources), names, root, about["unit"], skip_bad)


def _manifests(sources: Sources) -> list[Path]:
    return [sources.manifest.with_name(f"{name}.parquet") for name in OWN]


def _images(sources: Sources) -> list[Entry]:
    return [entry for manifest in _manifests(sources) for entry in _entries(manifest)]


def _entries(manifest: Path) -> list[Entry]:
    return [Entry(**row) for row in read_manifest_table(manifest).to_pylist()]
