"""Numbers about COCO-AB: what annotators tagged, missed and took back, how long it took, how workers differ."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.icons import TAG_COLUMNS, added, last_records, left, rows_of
from luab.byproducts.statistics.averages import mean, quantile, ratio

# A page was left open for more than two hours; means are clipped here.
CLIP_TIME_MS = 600_000

_COLUMNS = [*TAG_COLUMNS, "action_time_ms", "worker_id", "time_spent_ms"]
# Columns that `coco_statistics` needs.
COLUMNS = [*_COLUMNS, "trace_time_ms"]

_Statistic = tuple[str, float, str, int]  # name, value, unit, how many it is over
_SHARE, _MS, _COUNT = "share", "ms", "count"


def coco_statistics(
    table: pa.Table,
    classes_of: Mapping[int, Collection[int]] | None = None,
    aim: Mapping[str, NDArray[Any]] | None = None,
) -> pd.DataFrame:
    """What the byproducts of COCO look like, as a tidy table, in one pass over the records.

    Of an image with several records the last counts; tags are those of the official loader (`added`).

    Args:
        table: The index (`read_index`); positions in the trace are not read.
        classes_of: Official image number -> classes that the image has by its annotations; adds the share of them
            that were tagged (`classes_tagged`), of tags that are right (`tags_right`), and how workers differ in the
            first. Images that it lacks have no say.
        aim: By name of a statistic, for each tag of a class that the image has, whether its point lies in a box or on
            a mask of the class, or how far it is from the middle (`luab.data.supervisions.aim.aim_of_tags`);
            adds their means.

    Returns:
        Columns statistic, value, unit (share and fraction in [0, 1]; count, ms) and n, the number of records,
        tags or workers that the value is over. A value over nothing is NaN.
    """
    samples = pc.list_value_length(table["trace_time_ms"])
    records = last_records(table.select(_COLUMNS).append_column("samples", samples))
    pages = [_Page(record, classes_of) for record in rows_of(records)]
    found = [
        ("records", table.num_rows, _COUNT, table.num_rows),
        ("images", records.num_rows, _COUNT, table.num_rows),
        *_tags(pages),
        *_times(pages),
        *_workers(pages, classes_of is not None),
    ]
    if classes_of is not None:
        known = [page for page in pages if page.classes is not None]
        present, tags = sum(len(page.present) for page in known), sum(len(page.tags) for page in known)
        right = sum(page.right for page in known)
        found += [
            ("classes_tagged", ratio(right, present), _SHARE, present),
            ("tags_right", ratio(right, tags), _SHARE, tags),
        ]
    for name, values in (aim or {}).items():
        found.append((name, mean(values), _SHARE if values.dtype == bool else "fraction", len(values)))
    frame = pd.DataFrame(found, columns=["statistic", "value", "unit", "n"])
    return frame.astype({"value": "float64", "n": "int64"})


class _Page:
    """What the statistics need of one record."""

    def __init__(self, record: dict[str, Any], classes_of: Mapping[int, Collection[int]] | None) -> None:
        kinds = record["action_type"]
        self.worker, self.spent_ms = record["worker_id"], record["time_spent_ms"]
        self.tags, self.kept = set(added(record)), set(left(record))
        self.moves, self.removes = kinds.count("move"), kinds.count("remove")
        times = [time for kind, time in zip(kinds, record["action_time_ms"], strict=True) if kind == "add"]
        self.first_tag_ms = min(times, default=None)
        self.samples = record["samples"]
        self.classes = None if classes_of is None else classes_of.get(record["image_id"])
        self.present = set(self.classes or ())
        self.right = len(self.present & self.tags)


def _tags(pages: list[_Page]) -> list[_Statistic]:
    counts = _array(len(page.tags) for page in pages)
    tags, n = int(counts.sum()), len(pages)
    samples = _array(page.samples for page in pages)
    return [
        ("tags", tags, _COUNT, n),
        ("tags_per_image_mean", mean(counts), _COUNT, n),
        ("images_with_tags", mean(counts > 0), _SHARE, n),
        ("tags_taken_back", ratio(sum(len(page.tags - page.kept) for page in pages), tags), _SHARE, tags),
        ("moves_per_tag", ratio(sum(page.moves for page in pages), tags), _COUNT, tags),
        ("removals_per_tag", ratio(sum(page.removes for page in pages), tags), _COUNT, tags),
        ("trace_points_mean", mean(samples), _COUNT, n),
        ("trace_empty", mean(samples == 0), _SHARE, n),
    ]


def _times(pages: list[_Page]) -> list[_Statistic]:
    spent = _array(page.spent_ms for page in pages if page.spent_ms is not None)
    each = _array(page.spent_ms / len(page.tags) for page in pages if page.spent_ms is not None and page.tags)
    first = _array(page.first_tag_ms for page in pages if page.first_tag_ms is not None)
    return [
        ("time_spent_quartile_1", quantile(spent, 0.25), _MS, len(spent)),
        ("time_spent_median", quantile(spent, 0.5), _MS, len(spent)),
        ("time_spent_quartile_3", quantile(spent, 0.75), _MS, len(spent)),
        ("time_spent_mean_clipped", mean(np.minimum(spent, CLIP_TIME_MS)), _MS, len(spent)),
        ("time_spent_max", float(spent.max()) if len(spent) else np.nan, _MS, len(spent)),
        ("time_per_tag_quartile_1", quantile(each, 0.25), _MS, len(each)),
        ("time_per_tag_median", quantile(each, 0.5), _MS, len(each)),
        ("time_per_tag_quartile_3", quantile(each, 0.75), _MS, len(each)),
        ("first_tag_time_median", quantile(first, 0.5), _MS, len(first)),
    ]


def _workers(pages: list[_Page], judged: bool) -> list[_Statistic]:
    by_worker: dict[str, list[_Page]] = {}
    for page in pages:
        if page.worker is not None:
            by_worker.setdefault(page.worker, []).append(page)
    images = _array(len(own) for own in by_worker.values())
    timed = [[page.spent_ms for page in own if page.spent_ms is not None] for own in by_worker.values()]
    found: list[_Statistic] = [("workers", len(images), _COUNT, int(images.sum()))]
    found += _spread("images_per_worker", images, _COUNT)
    found += _spread("time_spent_per_worker", _array(np.median(times) for times in timed if times), _MS)
    if judged:
        present = [
            (sum(page.right for page in own), sum(len(page.present) for page in own)) for own in by_worker.values()
        ]
        found += _spread("classes_tagged_per_worker", _array(right / of for right, of in present if of), _SHARE)
    return found


def _spread(name: str, values: NDArray[np.float64], unit: str) -> list[_Statistic]:
    shares = {"decile_1": 0.1, "median": 0.5, "decile_9": 0.9}
    return [(f"{name}_{which}", quantile(values, share), unit, len(values)) for which, share in shares.items()]


def _array(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array(list(values), dtype=np.float64)
