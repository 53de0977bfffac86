"""Statistics of COCO-AB: what annotators tagged, missed and removed, how long it took, and how workers differ."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.icons import TAG_COLUMNS, added, last_records, left, rows_of
from luab.byproducts.statistics.averages import DECILES, QUARTILES, Statistic, mean, ratio, summary, table_of

CLIP_TIME_MS = 600_000
"""Times are clipped here before averaging: one page was left open for more than two hours."""

_COLUMNS = [*TAG_COLUMNS, "action_time_ms", "worker_id", "time_spent_ms"]
COLUMNS = [*_COLUMNS, "trace_time_ms"]
"""Columns that `coco_statistics` needs."""


def coco_statistics(
    table: pa.Table,
    classes_of: Mapping[int, Collection[int]] | None = None,
    aim: Mapping[str, NDArray[Any]] | None = None,
) -> pd.DataFrame:
    """Computes statistics of the byproducts of COCO, in one pass over the records.

    If an image has several records, the last one counts. Tags are those of the official loader (`added`).

    Args:
        table: The index (`read_index`) with at least `COLUMNS`.
        classes_of: Official image number -> classes in its ground truth. Adds the share of these classes that were
            tagged (`classes_tagged`), its spread over workers, and the share of correct tags (`tags_right`), over the
            images in `classes_of`.
        aim: Result of `luab.data.supervisions.aim.aim_of_tags`: by name of a statistic, one value for each correct
            tag. Adds their means.

    Returns:
        Columns statistic, value, unit (share and fraction in [0, 1]; count, ms) and n, the number of records, tags or
        workers that the value summarises. A value over nothing is NaN.
    """
    samples = pc.list_value_length(table["trace_time_ms"])
    records = last_records(table.select(_COLUMNS).append_column("samples", samples))
    pages = [_Page(record, classes_of) for record in rows_of(records)]
    statistics = [
        ("records", table.num_rows, "count", table.num_rows),
        ("images", records.num_rows, "count", table.num_rows),
        *_tags(pages),
        *_times(pages),
        *_workers(pages, classes_of is not None),
    ]
    if classes_of is not None:
        known = [page for page in pages if page.classes is not None]
        present, tags = sum(len(page.present) for page in known), sum(len(page.tags) for page in known)
        right = sum(page.right for page in known)
        statistics += [
            ("classes_tagged", ratio(right, present), "share", present),
            ("tags_right", ratio(right, tags), "share", tags),
        ]
    for name, values in (aim or {}).items():
        statistics.append((name, mean(values), "share" if values.dtype == bool else "fraction", len(values)))
    return table_of(statistics)


class _Page:
    """One record, as the statistics need it."""

    def __init__(self, record: dict[str, Any], classes_of: Mapping[int, Collection[int]] | None) -> None:
        kinds = record["action_type"]
        self.worker, self.spent_ms = record["worker_id"], record["time_spent_ms"]
        self.tags, self.left = set(added(record)), set(left(record))
        self.moves, self.removes = kinds.count("move"), kinds.count("remove")
        times = [time for kind, time in zip(kinds, record["action_time_ms"], strict=True) if kind == "add"]
        self.first_tag_ms = min(times, default=None)
        self.samples = record["samples"]
        self.classes = None if classes_of is None else classes_of.get(record["image_id"])
        self.present = set(self.classes or ())
        self.right = len(self.present & self.tags)


def _tags(pages: list[_Page]) -> list[Statistic]:
    counts = _array(len(page.tags) for page in pages)
    tags, n = int(counts.sum()), len(pages)
    samples = _array(page.samples for page in pages)
    return [
        ("tags", tags, "count", n),
        ("tags_per_image_mean", mean(counts), "count", n),
        ("images_with_tags", mean(counts > 0), "share", n),
        ("tags_taken_back", ratio(sum(len(page.tags - page.left) for page in pages), tags), "share", tags),
        ("moves_per_tag", ratio(sum(page.moves for page in pages), tags), "count", tags),
        ("removals_per_tag", ratio(sum(page.removes for page in pages), tags), "count", tags),
        ("trace_points_mean", mean(samples), "count", n),
        ("trace_empty", mean(samples == 0), "share", n),
    ]


def _times(pages: list[_Page]) -> list[Statistic]:
    spent = _array(page.spent_ms for page in pages if page.spent_ms is not None)
    each = _array(page.spent_ms / len(page.tags) for page in pages if page.spent_ms is not None and page.tags)
    first = _array(page.first_tag_ms for page in pages if page.first_tag_ms is not None)
    return [
        *summary("time_spent", spent, "ms", *QUARTILES),
        ("time_spent_mean_clipped", mean(np.minimum(spent, CLIP_TIME_MS)), "ms", len(spent)),
        *summary("time_spent", spent, "ms", "max"),
        *summary("time_per_tag", each, "ms", *QUARTILES),
        *summary("first_tag_time", first, "ms", "median"),
    ]


def _workers(pages: list[_Page], with_classes: bool) -> list[Statistic]:
    by_worker: dict[str, list[_Page]] = {}
    for page in pages:
        if page.worker is not None:
            by_worker.setdefault(page.worker, []).append(page)
    images = _array(len(own) for own in by_worker.values())
    timed = [[page.spent_ms for page in own if page.spent_ms is not None] for own in by_worker.values()]
    medians = _array(np.median(times) for times in timed if times)
    statistics = [
        ("workers", len(images), "count", int(images.sum())),
        *summary("images_per_worker", images, "count", *DECILES),
        *summary("time_spent_per_worker", medians, "ms", *DECILES),
    ]
    if with_classes:
        present = [
            (sum(page.right for page in own), sum(len(page.present) for page in own)) for own in by_worker.values()
        ]
        tagged = _array(right / of for right, of in present if of)
        statistics += summary("classes_tagged_per_worker", tagged, "share", *DECILES)
    return statistics


def _array(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array(list(values), dtype=np.float64)
