"""Figures of COCO: what taggers left behind, and gains by size and context."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luab.errors import DataError
from luab.render import quantities as q
from luab.render import style
from luab.render.figures_scores import gains

Array = npt.NDArray[Any]
_ICONS = ("#FFD23F", "#7FD1FF", "#FF9F9F", "#B8F2A2", "#E3B7FF", "#FFFFFF")


@dataclasses.dataclass(frozen=True)
class Icon:
    """One class's icon: where it was added last, the places that it was moved to, and whether it was taken away."""

    name: str
    places_xy: list[tuple[float, float]]
    removed: bool


@dataclasses.dataclass(frozen=True)
class TagSample:
    """One image with what its tagger left behind; points are fractions of the image, x right, y down."""

    image_id: str
    image: Array
    trace_xy: Array
    icons: list[Icon]


@style.styled
def coco_samples(samples: Sequence[TagSample], label: str = "") -> Figure:
    """Images with the icons that were dropped on them, their way to the final place, and the mouse trace.

    Raises:
        DataError: There is no sample.
    """
    if not samples:
        raise DataError("coco samples: expected images with tags and a trace, found none in the index.")
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    figure = style.new_figure(style.PAGE_IN, 1.55 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, sample in zip(grid.flat, samples, strict=False):
        _draw_tags(axes, sample)
    note = (
        f"n = {len(samples)} images, evenly spaced in the order of their numbers. Circle: where an icon was added "
        "last, which is what the official loader takes; arrow: to its final place, where it was moved; cross: taken "
        "away again; thin line: mouse trace, which is not recorded while an icon is dragged."
    )
    return style.finish(figure, note, label)


def _draw_tags(axes: Axes, sample: TagSample) -> None:
    height, width = sample.image.shape[:2]
    axes.imshow(sample.image, extent=(0, width, height, 0), interpolation="antialiased", alpha=0.85)
    axes.plot(*(sample.trace_xy * (width, height)).T, color="black", lw=0.6, alpha=0.6, gid="trace")
    for place, icon in enumerate(sample.icons):
        colour = _ICONS[place % len(_ICONS)]
        points = np.array(icon.places_xy) * (width, height)
        for start, end in itertools.pairwise(points):
            arrow = {"arrowstyle": "-|>", "color": "black", "lw": 1.0, "shrinkA": 2, "shrinkB": 0}
            axes.annotate("", end, start, arrowprops=arrow)
        axes.plot(*points[0], "o", ms=5.5, mfc=colour, mec="black", mew=0.8, gid="icon")
        if icon.removed:
            axes.plot(*points[-1], "x", ms=6, color="black", mew=1.2)
        right = points[0, 0] > 0.6 * width
        box = {"boxstyle": "round,pad=0.15", "fc": colour, "ec": "none", "alpha": 0.85}
        axes.annotate(
            icon.name, points[0], (-5 if right else 5, 0), textcoords="offset points", fontsize=5.5, va="center",
            ha="right" if right else "left", bbox=box,
        )  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_title(sample.image_id, fontsize=6, pad=2)


def coco_gain_by_size(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Gain over the baseline in mAP: all images, by size of the objects, in and out of context.

    Raises:
        DataError: A cell is missing.
    """
    return gains(scores, headline_lambda, q.COCO_GAINS, label)
