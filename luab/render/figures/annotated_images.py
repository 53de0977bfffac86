"""Figures of annotated images: mouse traces with clicks and boxes (ImageNet-AB), or with icons (COCO-AB)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from luab.byproducts.icons import IconPath
from luab.errors import DataError
from luab.render import style
from luab.render.style import Array

_YELLOW, _REMOVED = "#FFD23F", "#D55E00"
_SCALE_QUANTILE = 0.75  # quantile of the durations of the traces at which the colour scale ends


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image and its mouse trace."""

    title: str
    image: Array  # [height, width, 3] uint8
    trace_xy: Array  # [t, 2] fractions of the image, x right, y down
    trace_ms: Array  # [t] from any origin


@dataclasses.dataclass(frozen=True)
class BrowsedImage(AnnotatedImage):
    """An image of ImageNet-AB."""

    click_xy: Array  # [k, 2] fractions of the image
    boxes: Array  # [b, 4] x0y0x1y1 in pixels of the image, ends included; b = 0 if it has no box


@dataclasses.dataclass(frozen=True)
class TaggedImage(AnnotatedImage):
    """An image of COCO-AB."""

    icons: list[tuple[str, IconPath]]  # name of the class and path of its icon


@style.styled
def byproduct_samples(samples: Sequence[BrowsedImage], label: str = "") -> Figure:
    """Images of ImageNet with mouse trace (coloured by time), clicks and boxes; DataError without any."""
    if not samples:
        raise DataError("byproduct_samples: the index contains no image with a click and a trace.")
    # One person who left the mouse resting would give all other traces a single colour.
    scale_s = float(np.quantile([np.ptp(sample.trace_ms) for sample in samples], _SCALE_QUANTILE)) / 1000

    def draw(axes: Axes, sample: BrowsedImage) -> LineCollection:
        height, width = sample.image.shape[:2]
        for x0, y0, x1, y1 in sample.boxes:
            for edge, line_width in (("#00000080", 2.0), ("#FFFFFF", 1.0)):
                axes.add_patch(Rectangle((x0, y0), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=edge, lw=line_width))
        seconds = (sample.trace_ms - sample.trace_ms.min()) / 1000
        lines = _draw_trace(axes, sample, seconds, scale_s, width_pt=1.5)
        points = (sample.click_xy * (width, height)).T
        axes.plot(*points, "o", ms=5.5, mfc=_YELLOW, mec="black", mew=0.9, gid="click")
        return lines

    figure = _grid(samples, draw, 1.62, "Time since the trace began (s)", "max")
    note = (
        f"n = {len(samples)} images, evenly spaced in the order of their names. Line: mouse trace; "
        "circle: click; white rectangle: ground-truth box, if the image has one."
    )
    return style.finish(figure, note, label)


@style.styled
def coco_samples(samples: Sequence[TaggedImage], usable: int, records: int, label: str = "") -> Figure:
    """Images of COCO with icons, their paths from where they were added to where they were left, and the mouse trace.

    They are a sample of the `usable` of all `records`. DataError if there is none.
    """
    if not samples:
        raise DataError("coco_samples: the index contains no image with a trace and two icons, one of them moved.")

    def draw(axes: Axes, sample: TaggedImage) -> LineCollection:
        height, width = sample.image.shape[:2]
        # Pages stay open for seconds or for hours: on one scale in seconds most traces would have a single colour.
        shares = (sample.trace_ms - sample.trace_ms.min()) / max(1, np.ptp(sample.trace_ms))
        lines = _draw_trace(axes, sample, shares, 1.0, width_pt=0.8)
        for name, icon in sample.icons:
            _draw_icon(axes, name, np.array(icon.places) * (width, height), icon.removed, width)
        return lines

    figure = _grid(samples, draw, 1.5, "Time, share of the page's trace", "neither")
    note = (
        f"n = {len(samples)} images, evenly spaced by number among the {usable:,} of {records:,} with two icons or "
        "more, one of them moved, and a trace. Disc: icon where it was left, with its class; ring: where it was added; "
        "white line: drag; cross: removed in the end. Coloured line: mouse trace, which pauses while an icon is "
        "dragged."
    )
    return style.finish(figure, note, label)


def _grid(
    samples: Sequence[Any], draw: Callable[[Axes, Any], LineCollection], row_in: float, scale: str, extend: str
) -> Figure:
    """Draws every sample on its image, in rows of four, with one colour scale at the right."""
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    figure = style.new_figure(style.PAGE_IN, row_in * rows + 0.25)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, sample in zip(grid.flat, samples, strict=False):
        height, width = sample.image.shape[:2]
        axes.imshow(sample.image, extent=(0, width, height, 0), interpolation="antialiased", alpha=0.85)
        lines = draw(axes, sample)
        margin = 0.02 * max(width, height)
        axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
        axes.set_title(sample.title, fontsize=6, pad=2)
    place: dict[str, Any] = {"shrink": 0.7, "aspect": 30, "pad": 0.015, "panchor": False, "extend": extend}
    style.colour_bar(figure, lines, scale, ax=list(grid.flat), **place)
    return figure


def _draw_trace(axes: Axes, sample: AnnotatedImage, values: Array, most: float, width_pt: float) -> LineCollection:
    """The trace as a line coloured by `values` [t], from 0 to `most`."""
    height, width = sample.image.shape[:2]
    points = sample.trace_xy * (width, height)
    axes.plot(*points.T, color="black", alpha=0.4, lw=width_pt + 1, solid_joinstyle="round")
    segments = np.stack([points[:-1], points[1:]], axis=1)  # [t - 1, 2 ends, 2]
    lines = LineCollection(list(segments), cmap="viridis", lw=width_pt, capstyle="round", gid="trace")
    lines.set_array(values[1:])
    lines.set_clim(0, most)
    axes.add_collection(lines)
    return lines


def _draw_icon(axes: Axes, name: str, places: Array, removed: bool, width: int) -> None:
    """One icon; places [k, 2] in pixels of the image."""
    halo = [withStroke(linewidth=2.4, foreground="black")]
    if len(places) > 1:
        axes.plot(*places.T, color="white", lw=1.2, path_effects=halo, gid="drag", zorder=3)
        axes.plot(*places[0], "o", ms=5, mfc="none", mec="white", mew=1.1, path_effects=halo, gid="added", zorder=4)
    marker, colour = ("X", _REMOVED) if removed else ("o", _YELLOW)
    axes.plot(*places[-1], marker, ms=5.5, mfc=colour, mec="black", mew=0.8, gid="icon", zorder=5)
    x = places[-1][0]
    # Away from the ring and from the border of the image.
    left = x > 0.6 * width or (places[0][0] > x > 0.25 * width)
    offset: dict[str, Any] = {"xytext": (-4 if left else 4, 0), "ha": "right" if left else "left", "va": "center"}
    halo = [withStroke(linewidth=1.6, foreground="black")]
    look: dict[str, Any] = {"fontsize": 5.5, "color": "white", "path_effects": halo, "zorder": 6}
    axes.annotate(name, places[-1], textcoords="offset points", **offset, **look)
