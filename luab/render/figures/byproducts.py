"""Figures of the annotation byproducts: examples, where people click, how long they take."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from luab.errors import DataError
from luab.render import style

Array = npt.NDArray[Any]
LONG_MS = 3000  # ASSUME: a trace is long from 3 s on; the authors' follow-up work calls shorter ones usable
_BOX = "#FFFFFF"
_CLICK = "#FFD23F"
_DENSITY = "Blues"
_BINS = 40


_SCALE_SHARE = 0.75  # quantile of the traces' durations at which the colour scale ends


@dataclasses.dataclass(frozen=True)
class ByproductSample:
    """One image with what its annotators left behind.

    Attributes:
        image_id: Shown above the image.
        image: [height, width, 3] uint8.
        trace_xy: [t, 2] fractions of the image, x right, y down.
        trace_ms: [t] any origin.
        click_xy: [k, 2] fractions of the image.
        boxes: [b, 4] x0y0x1y1 in pixels of the image; empty where there is none.
    """

    image_id: str
    image: Array
    trace_xy: Array
    trace_ms: Array
    click_xy: Array
    boxes: Array


@style.styled
def byproduct_samples(samples: Sequence[ByproductSample], label: str = "") -> Figure:
    """Images with mouse trace (coloured by time), clicks and box.

    Raises:
        DataError: There is no sample.
    """
    if not samples:
        raise DataError("byproduct samples: expected images with a click and a trace, found none in the index.")
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    figure = style.new_figure(style.PAGE_IN, 1.62 * rows + 0.25)
    grid = figure.subplots(rows, columns, squeeze=False)
    # One person who left the mouse resting would turn every other trace into a single colour.
    scale_s = float(np.quantile([np.ptp(sample.trace_ms) for sample in samples], _SCALE_SHARE)) / 1000
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, sample in zip(grid.flat, samples, strict=False):
        lines = _draw_sample(axes, sample, scale_s)
    bar = figure.colorbar(lines, ax=list(grid.flat), shrink=0.7, aspect=30, pad=0.015, extend="max")
    bar.set_label("Time since the trace began (s)")
    bar.outline.set_visible(False)
    note = (
        f"n = {len(samples)} images, evenly spaced in the order of their names. Line: mouse trace; "
        "circle: click; white rectangle: ground-truth box, where there is one."
    )
    return style.finish(figure, note, label)


def _draw_sample(axes: Axes, sample: ByproductSample, scale_s: float) -> LineCollection:
    height, width = sample.image.shape[:2]
    axes.imshow(sample.image, extent=(0, width, height, 0), interpolation="antialiased", alpha=0.85)
    unit = max(width, height)
    for x0, y0, x1, y1 in sample.boxes:
        axes.add_patch(Rectangle((x0, y0), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec="#00000080", lw=2.0))
        axes.add_patch(Rectangle((x0, y0), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=_BOX, lw=1.0))
    points = sample.trace_xy * (width, height)
    seconds = (sample.trace_ms - sample.trace_ms.min()) / 1000
    axes.plot(*points.T, color="black", alpha=0.45, lw=2.6, solid_joinstyle="round")
    segments = np.stack([points[:-1], points[1:]], axis=1)  # [t - 1, 2 ends, 2]
    lines = LineCollection(list(segments), cmap="viridis", lw=1.5, capstyle="round", gid="trace")
    lines.set_array(seconds[1:])
    lines.set_clim(0, scale_s)
    axes.add_collection(lines)
    axes.plot(*(sample.click_xy * (width, height)).T, "o", ms=5.5, mfc=_CLICK, mec="black", mew=0.9, gid="click")
    axes.set(xlim=(-0.01 * unit, width + 0.01 * unit), ylim=(height + 0.01 * unit, -0.01 * unit))
    axes.set_title(sample.image_id, fontsize=6, pad=2)
    return lines


@style.styled
def click_density(clicks: Array, label: str = "") -> Figure:
    """Where clicks fall in the image, with the marginals and the centre for reference.

    Args:
        clicks: [n, 2] fractions of the image, x right, y down; those outside [0, 1] are counted, not drawn.
        label: E.g. "demo world".

    Raises:
        DataError: There is no click.
    """
    if not len(clicks):
        raise DataError("click density: expected clicks, found none in the index. Index the byproducts again.")
    inside = clicks[((clicks >= 0) & (clicks <= 1)).all(axis=1)]
    figure = style.new_figure(style.COLUMN_IN, 3.2)
    grid = figure.add_gridspec(2, 3, width_ratios=(5, 1, 0.22), height_ratios=(1, 5), wspace=0.04, hspace=0.04)
    main = figure.add_subplot(grid[1, 0])
    top, right = figure.add_subplot(grid[0, 0], sharex=main), figure.add_subplot(grid[1, 1], sharey=main)
    counts, edges, _ = np.histogram2d(inside[:, 1], inside[:, 0], bins=_BINS, range=[[0, 1], [0, 1]])
    # Relative to the uniform law, so that the scale reads without knowing the bins.
    density = counts / len(inside) * _BINS**2
    shown = main.imshow(density, extent=(0, 1, 1, 0), cmap=_DENSITY, vmin=0, aspect="auto", interpolation="nearest")
    _marginal(top, edges, counts.sum(axis=0), upright=True)
    _marginal(right, edges, counts.sum(axis=1), upright=False)
    main.axhline(0.5, color=style.INK, lw=0.6, ls=(0, (4, 3)))
    main.axvline(0.5, color=style.INK, lw=0.6, ls=(0, (4, 3)))
    x, y = inside.mean(axis=0)
    main.plot(x, y, "+", color=style.COLOURS["random"], ms=8, mew=1.6, label="mean click", gid="mean")
    main.legend(
        loc="lower right",
        handletextpad=0.2,
        facecolor="white",
        frameon=True,
        framealpha=0.8,
        edgecolor="none",
    )
    main.set(xlabel="x (fraction of the width)", ylabel="y (fraction of the height)", xlim=(0, 1), ylim=(1, 0))
    main.grid(False)
    bar = figure.colorbar(shown, cax=figure.add_subplot(grid[1, 2]))
    bar.set_label("Density (1 = uniform)")
    bar.outline.set_visible(False)
    std = inside.std(axis=0)
    note = (
        f"n = {len(inside):,} clicks ({len(clicks) - len(inside):,} outside the image left out). Mean ± "
        f"standard deviation: x {x:.3f} ± {std[0]:.3f}, y {y:.3f} ± {std[1]:.3f}. "
        "Dashed: centre of the image."
    )
    return style.finish(figure, note, label)


def _marginal(axes: Axes, edges: Array, counts: Array, upright: bool) -> None:
    axes.stairs(
        counts / counts.sum(),
        edges,
        fill=True,
        color=style.COLOURS["click"],
        alpha=0.35,
        orientation="vertical" if upright else "horizontal",
    )
    (axes.axvline if upright else axes.axhline)(0.5, color=style.INK, lw=0.6, ls=(0, (4, 3)))
    axes.set_axis_off()


@style.styled
def hover_time(times_ms: Array, label: str = "") -> Figure:
    """Distribution of the recorded annotation time per image (estimateTime), on a log axis.

    Args:
        times_ms: [n] integers; zeros cannot stand on a log axis and are counted in the note.
        label: E.g. "demo world".

    Raises:
        DataError: No time is above zero.
    """
    import seaborn

    positive = times_ms[times_ms > 0]
    if not len(positive):
        raise DataError("hover time: expected times above zero, found none in the index. Index again.")
    figure = style.new_figure(style.COLUMN_IN, 2.0)
    axes = figure.subplots()
    look = {"color": style.COLOURS["click"], "alpha": 0.55, "linewidth": 0}
    seaborn.histplot(x=positive, bins=60, stat="percent", log_scale=True, ax=axes, **look)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: duration(ms)))
    median = float(np.median(positive))
    lower, upper = np.percentile(positive, [25, 75])
    axes.axvspan(lower, upper, color=style.FAINT, alpha=0.6, lw=0, zorder=0)
    axes.axvline(median, color=style.COLOURS["random"], lw=1.2, gid="median")
    top = max(bar.get_height() for bar in axes.containers[0])
    axes.set_ylim(0, top * 1.18)
    axes.annotate(
        f"median {median:,.0f} ms",
        (median, top * 1.1),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=6.5,
    )
    axes.set(xlabel="Recorded time per image", ylabel="Share of records (%)")
    zero, long = float(np.mean(times_ms == 0)), float(np.mean(times_ms > LONG_MS))
    note = (
        f"n = {len(times_ms):,} records. Shown: {len(positive):,} above zero; exactly zero: "
        f"{style.percent(zero)} %; above {LONG_MS / 1000:g} s: {style.percent(long)} %. "
        "Grey: middle half of those shown."
    )
    return style.finish(figure, note, label)


@style.styled
def worker_spread(images: Array, means_ms: Array, label: str = "") -> Figure:
    """How unequal the workers are: how many images each selected, and how long each took in the mean.

    Args:
        images: [w] images of each worker.
        means_ms: [w] mean recorded time of each worker's images.
        label: E.g. "demo world".

    Raises:
        DataError: There is no worker.
    """
    import seaborn

    if not len(images):
        raise DataError("worker spread: expected workers with a selected image, found none in the index. Index again.")
    figure = style.new_figure(style.COLUMN_IN, 1.9)
    left, right = figure.subplots(1, 2, sharey=True)
    # As many bins as there are workers to fill them: 30 for the release's 1,705.
    look = {
        "bins": min(30, 4 + len(images) // 4),
        "log_scale": True,
        "color": style.COLOURS["click"],
        "alpha": 0.55,
        "linewidth": 0,
    }
    for axes, values, gid in ((left, images, "images"), (right, means_ms, "time")):
        seaborn.histplot(x=values, ax=axes, **look)
        axes.axvline(float(np.median(values)), color=style.COLOURS["random"], lw=1.2, gid=gid)
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0, 3.0) if np.ptp(np.log10(values)) < 2 else (1.0,), numticks=6)
        )
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(values.min() / 2, values.max() * 2)
    left.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    right.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: duration(ms)))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="Images of a worker", ylabel="Workers")
    right.set(xlabel="Mean time per image")
    tenth = np.sort(images)[::-1][: -(-len(images) // 10)]
    note = (
        f"n = {len(images):,} workers, {int(images.sum()):,} selected images. Lines: medians, {np.median(images):,.0f} "
        f"images and {np.median(means_ms):,.0f} ms. The busiest tenth of the workers gave "
        f"{style.percent(tenth.sum() / images.sum())} % of the images. Single times count as 60 s at most."
    )
    return style.finish(figure, note, label)


def duration(ms: float) -> str:
    """A time for people: "250 ms", "3.2 s", "1,200 s"."""
    if ms < 1000:
        return f"{ms:g} ms"
    if ms < 60_000:
        return f"{ms / 1000:g} s"
    return f"{ms / 1000:,.0f} s"
