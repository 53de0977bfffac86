"""The two interfaces side by side: browsing for images of a class (ImageNet-AB) and tagging objects (COCO-AB)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from luab.render import style

_BROWSING, _TAGGING = "Browsing (ImageNet-AB)", "Tagging (COCO-AB)"


class Row(NamedTuple):
    """One line of the comparison: what, and the statistic of each side; "" where the interface has none."""

    what: str
    browsing: str
    tagging: str


ROWS = (
    Row("images shown", "records", "images"),
    Row("workers", "workers", "workers"),
    Row("images per worker, median", "images_per_worker_median", "images_per_worker_median"),
    Row("images with a point", "images_pointed_at", "images_pointed_at"),
    Row("labels with a point", "images_pointed_at", "classes_tagged"),
    Row("points on a class that the image has", "", "tags_right"),
    Row("points in a box of their class", "click_in_box", "tags_in_box"),
    Row("points on a mask of their class", "", "tags_in_mask"),
    Row("time per point, first quartile", "estimate_time_quartile_1", "time_per_tag_quartile_1"),
    Row("time per point, median", "estimate_time_median", "time_per_tag_median"),
    Row("time per point, third quartile", "estimate_time_quartile_3", "time_per_tag_quartile_3"),
    Row("trace samples per image, mean", "trace_points_mean", "trace_points_mean"),
)
SHARES = ("images with a point", "labels with a point", "points in a box of their class")
NOTES = (
    "Browsing: one class per page of 48 images, a click selects an image; time per point is the time that the pointer "
    "was over the image before it was selected, and ImageNet's boxes cover some of the images. Tagging: icons of 80 "
    "classes are dragged onto one image; time per point is the time of the page over its number of tags, panes "
    "without a class of the image included. So times compare what a point costs, not how fast people point.",
    "A label of ImageNet is the image's class; workers saw images of other classes too, which are not in the release.",
)


def comparison(index: Path, coco_index: Path, manifest: Path, instances: Path) -> pd.DataFrame:
    """`compare_interfaces` from files.

    Args:
        index: imagenet_ab.parquet.
        coco_index: coco_ab.parquet.
        manifest: Manifest of coco_train.
        instances: instances_train2014.json.
    """
    from luab.byproducts.imagenet_ab import read_index_pieces
    from luab.byproducts.statistics import COLUMNS, byproduct_statistics

    browsing = byproduct_statistics(read_index_pieces(index, COLUMNS))
    return compare_interfaces(browsing, tagging_statistics(coco_index, manifest, instances))


def compare_interfaces(browsing: pd.DataFrame, tagging: pd.DataFrame) -> pd.DataFrame:
    """The comparison as a tidy table: what, interface, statistic, value, unit, n.

    Args:
        browsing: luab.byproducts.statistics.byproduct_statistics of ImageNet-AB.
        tagging: `tagging_statistics`.
    """
    sides = {_BROWSING: _by_name(_with_coverage(browsing)), _TAGGING: _by_name(tagging)}
    rows = []
    for row in ROWS:
        for (interface, known), name in zip(sides.items(), (row.browsing, row.tagging), strict=True):
            if name in known:
                rows.append((row.what, interface, name, *known[name]))
    return pd.DataFrame(rows, columns=["what", "interface", "statistic", "value", "unit", "n"])


def tagging_statistics(index: Path, manifest: Path, instances: Path) -> pd.DataFrame:
    """luab.byproducts.coco_statistics against the annotations, with the shares of tags in boxes and on masks.

    Args:
        index: coco_ab.parquet.
        manifest: Manifest of coco_train.
        instances: instances_train2014.json.
    """
    from luab.byproducts.coco_ab import read_index
    from luab.byproducts.coco_statistics import coco_statistics
    from luab.byproducts.coco_tags import added, last_records, rows_of
    from luab.data.coco_masks import points_in_masks
    from luab.data.coco_targets import Sources, click
    from luab.data.manifest import read_manifest_table

    table = read_index(index)
    listed = read_manifest_table(manifest).select(["image_id", "width", "height", "labels", "boxes", "box_labels"])
    points = click(Sources(index, manifest, 0)).points
    classes, in_box = {}, []
    for row in rows_of(listed):
        classes[int(row["image_id"][-12:])] = row["labels"]
        tagged = {
            label: points[row["image_id"], label] for label in row["labels"] if (row["image_id"], label) in points
        }
        in_box += [_in_a_box(row, label, xy) for label, xy in tagged.items()]
    found = coco_statistics(table, classes, points_in_masks(instances, manifest, points).values())
    last = last_records(table)
    per_tag = [row["time_spent_ms"] / len(added(row)) for row in rows_of(last) if row["time_spent_ms"] and added(row)]
    without = found.loc[found["statistic"] == "images_without_tags", "value"].iloc[0]
    more = [
        ("images_pointed_at", 1 - without, "share", last.num_rows),
        ("tags_in_box", float(np.mean(in_box)) if in_box else np.nan, "share", len(in_box)),
        *(
            (f"time_per_tag_{name}", float(np.quantile(per_tag, share)) if per_tag else np.nan, "ms", len(per_tag))
            for name, share in (("quartile_1", 0.25), ("median", 0.5), ("quartile_3", 0.75))
        ),
    ]
    return pd.concat([found, pd.DataFrame(more, columns=found.columns)], ignore_index=True)


@style.styled
def interfaces(compared: pd.DataFrame, label: str = "") -> Figure:
    """Coverage and precision of points on the left, what a point costs on the right."""
    figure = style.new_figure(style.PAGE_IN, 1.9)
    shares, times = figure.subplots(1, 2, width_ratios=[3, 2])
    looks = {_BROWSING: ("click", -0.16), _TAGGING: ("random", 0.16)}
    for interface, (look, offset) in looks.items():
        mine = compared[compared["interface"] == interface].set_index("what")
        colour, marker = style.COLOURS[look], style.MARKERS[look]
        for place, what in enumerate(SHARES):
            if what in mine.index:
                value, n = 100 * mine.loc[what, "value"], int(mine.loc[what, "n"])
                shares.plot(value, place + offset, marker, color=colour, label=interface if not place else None)
                shares.annotate(f"{value:.1f}  (n = {n:,})", (value, place + offset), (6, 0), fontsize=6, va="center",
                                textcoords="offset points")  # fmt: skip
        low, middle, high = (mine.loc[f"time per point, {q}", "value"] / 1000 for q in _QUARTILES)
        height = 0.5 + 2 * offset
        times.hlines(height, low, high, color=colour, lw=2)
        times.plot(middle, height, marker, color=colour)
        times.annotate(f"{middle:.2g} s", (middle, height), (0, 6), fontsize=6, ha="center", textcoords="offset points")
    shares.set_yticks(range(len(SHARES)), SHARES)
    shares.set(xlim=(0, 130), ylim=(len(SHARES) - 0.5, -0.5), xlabel="Share (%)", xticks=range(0, 101, 25))
    times.set(xscale="log", ylim=(1.2, -0.2), yticks=[], xlabel="Time per point (s): median and quartiles")
    times.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    style.legend_above(figure, shares)
    note = (
        "Points: clicks of ImageNet-AB, tags of COCO-AB by the official rule. Time per point: hovering before the "
        "click; time of the page over its tags. The two ask for different things: see the table of the same name."
    )
    return style.finish(figure, note, label)


_QUARTILES = ("first quartile", "median", "third quartile")


def _by_name(statistics: pd.DataFrame) -> dict[str, tuple[float, str, int]]:
    rows = statistics[["statistic", "value", "unit", "n"]].itertuples(index=False, name=None)
    return {name: (value, unit, n) for name, value, unit, n in rows}


def _with_coverage(browsing: pd.DataFrame) -> pd.DataFrame:
    known = _by_name(browsing)
    clicked, _, records = known["images_with_click"]
    more = pd.DataFrame(
        [("images_pointed_at", clicked / records if records else np.nan, "share", records)], columns=browsing.columns
    )
    return pd.concat([browsing, more], ignore_index=True)


def _in_a_box(row: Mapping[str, Any], label: int, point_xy: tuple[float, float]) -> bool:
    x, y = point_xy[0] * row["width"], point_xy[1] * row["height"]
    return any(
        x0 <= x <= x1 + 1 and y0 <= y <= y1 + 1
        for (x0, y0, x1, y1), of in zip(row["boxes"], row["box_labels"], strict=True)
        if of == label
    )
