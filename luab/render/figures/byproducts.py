"""Figures of the statistics of byproducts: where people click, how long they take, browsing against tagging."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from luab.byproducts.statistics.imagenet import LONG_TIME_MS, busiest_tenth
from luab.errors import DataError
from luab.render import style
from luab.render.quantities import INTERFACES
from luab.render.style import Array

_BINS = 40  # at most, per side
_MARKED, _MEDIAN = style.COLOURS["click"], style.COLOURS["random"]
_BARS: Any = {"log_scale": True, "color": _MARKED, "alpha": 0.55, "linewidth": 0}
_CENTRE: Any = {"color": style.INK, "lw": 0.6, "ls": (0, (4, 3))}
_LOOKS = {"browsing": ("#0072B2", "o"), "tagging": ("#D98200", "s")}
_SHARES = (
    "Labels with a point",
    "Points in a box of their class",
    "Middle of the image in such a box",
    "Points on a mask of their class",
)


@style.styled
def click_density(clicks: Array, label: str = "") -> Figure:
    """Density of clicks [n, 2] (fractions of the image, x right, y down), with the marginals and the centre.

    Clicks outside [0, 1] are counted, not drawn. DataError if there is no click.
    """
    if not len(clicks):
        raise DataError("click_density: the index contains no clicks. Index the byproducts again.")
    inside = _inside(clicks)
    figure = style.new_figure(style.COLUMN_IN, 3.2)
    grid = figure.add_gridspec(2, 3, width_ratios=(5, 1, 0.22), height_ratios=(1, 5), wspace=0.04, hspace=0.04)
    main = figure.add_subplot(grid[1, 0])
    top, right = figure.add_subplot(grid[0, 0], sharex=main), figure.add_subplot(grid[1, 1], sharey=main)
    density = _density(inside, _bins_of(len(inside)))
    shown = _draw_density(main, density)
    _marginal(top, density.sum(axis=0), upright=True)
    _marginal(right, density.sum(axis=1), upright=False)
    x, y = inside.mean(axis=0)
    main.plot(x, y, "+", color=_MEDIAN, ms=8, mew=1.6, label="mean click", gid="mean")
    frame: dict[str, Any] = {"facecolor": "white", "frameon": True, "framealpha": 0.8, "edgecolor": "none"}
    main.legend(loc="lower right", handletextpad=0.2, **frame)
    main.set_ylabel("y (fraction of the height)")
    style.colour_bar(figure, shown, "Density (1 = uniform)", cax=figure.add_subplot(grid[1, 2]))
    std = inside.std(axis=0)
    note = (
        f"n = {len(inside):,} clicks ({len(clicks) - len(inside):,} outside the image left out). Mean ± "
        f"standard deviation: x {x:.3f} ± {std[0]:.3f}, y {y:.3f} ± {std[1]:.3f}. "
        "Dashed: centre of the image."
    )
    return style.finish(figure, note, label)


def _inside(points: Array) -> Array:
    """The points [n, 2] that lie in the image."""
    return points[((points >= 0) & (points <= 1)).all(axis=1)]


def _bins_of(n: int) -> int:
    """Bins per side for n points, about four to a bin where points are few."""
    return int(np.clip(np.sqrt(n) / 2, 8, _BINS))


def _density(points: Array, bins: int) -> Array:
    """[bins, bins] density of points in the image, rows y; relative to uniform, so it does not depend on the bins."""
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=bins, range=[[0, 1], [0, 1]])
    return counts / len(points) * bins**2


def _draw_density(axes: Axes, density: Array, most: float | None = None) -> Any:
    look: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "aspect": "auto", "interpolation": "nearest"}
    shown = axes.imshow(density, extent=(0, 1, 1, 0), vmax=most, **look)
    axes.axhline(0.5, **_CENTRE)
    axes.axvline(0.5, **_CENTRE)
    axes.set(xlabel="x (fraction of the width)", xlim=(0, 1), ylim=(1, 0))
    axes.grid(False)
    return shown


def _marginal(axes: Axes, density: Array, upright: bool) -> None:
    edges = np.linspace(0, 1, len(density) + 1)
    orientation: Any = "vertical" if upright else "horizontal"
    axes.stairs(density / density.sum(), edges, fill=True, color=_MARKED, alpha=0.35, orientation=orientation)
    (axes.axvline if upright else axes.axhline)(0.5, **_CENTRE)
    axes.set_axis_off()


@style.styled
def hover_time(times_ms: Array, label: str = "") -> Figure:
    """Distribution of the recorded times per image [n] (estimateTime), on a logarithmic axis.

    Zeros, which do not fit on that axis, are counted in the note. DataError if no time is above zero.
    """
    import seaborn

    positive = times_ms[times_ms > 0]
    if not len(positive):
        raise DataError("hover_time: the index contains no time above zero. Index the byproducts again.")
    figure = style.new_figure(style.COLUMN_IN, 2.0)
    axes = figure.subplots()
    seaborn.histplot(x=positive, bins=style.bins_for(len(positive), 60), stat="percent", ax=axes, **_BARS)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(_DURATION)
    median = float(np.median(positive))
    axes.axvspan(*np.percentile(positive, [25, 75]), color=style.FAINT, alpha=0.6, lw=0, zorder=0)
    axes.axvline(median, color=_MEDIAN, lw=1.2, gid="median")
    top = max(bar.get_height() for bar in axes.containers[0])
    axes.set_ylim(0, top * 1.18)
    offset: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 6.5}
    axes.annotate(f"median {median:,.0f} ms", (median, top * 1.1), **offset)
    axes.set(xlabel="Recorded time per image", ylabel="Share of records (%)")
    zero, long = float(np.mean(times_ms == 0)), float(np.mean(times_ms > LONG_TIME_MS))
    note = (
        f"n = {len(times_ms):,} records. Shown: {len(positive):,} above zero; exactly zero: "
        f"{style.percent(zero)} %; above {LONG_TIME_MS / 1000:g} s: {style.percent(long)} %. "
        "Grey: middle half of those shown."
    )
    return style.finish(figure, note, label)


@style.styled
def worker_spread(images: Array, means_ms: Array, label: str = "") -> Figure:
    """Distributions over workers of the number of images that each selected [w], and of the mean time of these [w].

    DataError if there is no worker.
    """
    import seaborn

    if not len(images):
        raise DataError(
            "worker_spread: the index contains no workers with a selected image. Index the byproducts again."
        )
    figure = style.new_figure(style.COLUMN_IN, 1.9)
    left, right = figure.subplots(1, 2, sharey=True)
    bins = style.bins_for(len(images), 30)
    for axes, values, gid in ((left, images, "images"), (right, means_ms, "time")):
        seaborn.histplot(x=values, bins=bins, ax=axes, **_BARS)
        axes.axvline(float(np.median(values)), color=_MEDIAN, lw=1.2, gid=gid)
        narrow = np.ptp(np.log10(values)) < 2
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if narrow else (1.0,), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(values.min() / 2, values.max() * 2)
    left.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    right.xaxis.set_major_formatter(_DURATION)
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="Images of a worker", ylabel="Workers")
    right.set(xlabel="Mean time per image")
    note = (
        f"n = {len(images):,} workers, {int(images.sum()):,} selected images. Lines: medians, {np.median(images):,.0f} "
        f"images and {np.median(means_ms):,.0f} ms. The busiest tenth of the workers selected "
        f"{style.percent(busiest_tenth(images))} % of the images. Single times count as 60 s at most."
    )
    return style.finish(figure, note, label)


def duration(ms: float) -> str:
    """A time for people: "250 ms", "3.2 s", "1,200 s"."""
    if ms < 1000:
        return f"{ms:g} ms"
    return f"{ms / 1000:g} s" if ms < 60_000 else f"{ms / 1000:,.0f} s"


_DURATION = FuncFormatter(lambda ms, _: duration(ms))


@dataclasses.dataclass(frozen=True)
class InterfaceSample:
    """Times and points of one interface."""

    times_ms: Array  # [n] recorded time of each image, above zero
    points: Array  # [m, 2] fractions of the image


@style.styled
def interfaces(numbers: pd.DataFrame, samples: dict[str, InterfaceSample], label: str = "") -> Figure:
    """Coverage and precision of "browsing" and "tagging", their times, and the density of their points.

    The numbers are from luab.render.summaries.interface_numbers. DataError if an interface has no time, or no point in
    an image.
    """
    for name, sample in samples.items():
        if not len(sample.times_ms) or not len(_inside(sample.points)):
            raise DataError(f"interfaces: the index has no times and points of {name}. Index the byproducts again.")
    figure = style.new_figure(style.PAGE_IN, 4.1)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.15))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    shares, times = upper.subplots(1, 2, width_ratios=(1, 1))
    _shares_panel(shares, numbers)
    _times_panel(times, samples)
    style.legend_above(upper, times)
    panels = lower.subplots(1, 2, sharey=True)
    shown = _density_panels(list(panels), samples)
    style.colour_bar(lower, shown, "Density (1 = uniform)", ax=list(panels), pad=0.015)
    timed = ", ".join(f"{len(sample.times_ms):,}" for sample in samples.values())
    shown_shares = numbers[numbers["title"].isin(_SHARES) & numbers["n"].notna()]
    counts = "; ".join(
        f"{title.lower()}: {', '.join(f'{int(n):,}' for n in rows['n'])}"
        for title, rows in shown_shares.groupby("title", sort=False)
    )
    note = (
        f"n, browsing then tagging: {counts}. Middle of the image: on the images or tags of the row above; times: "
        f"{timed}. Times: browsing, recorded while the pointer was on the image; tagging, as long as the page "
        "of the image was open, so they are different quantities. Images, classes and workers differ too."
    )
    return style.finish(figure, note, label)


def _shares_panel(axes: Axes, numbers: pd.DataFrame) -> None:
    for offset, (name, (colour, _)) in zip((-0.19, 0.19), _LOOKS.items(), strict=True):
        mine = numbers[numbers["interface"] == name].set_index("title").loc[list(_SHARES), "value"]
        places = np.arange(len(_SHARES)) + offset
        known = mine.notna().to_numpy()
        values = 100 * mine.to_numpy()
        axes.barh(places[known], values[known], height=0.34, color=colour, label=INTERFACES[name], gid=name)
        for place, value in zip(places, values, strict=True):
            text = "–" if np.isnan(value) else style.percent(value / 100)
            end = (0 if np.isnan(value) else value, place)
            axes.annotate(text, end, xytext=(2, 0), textcoords="offset points", va="center", fontsize=6)
    names = [title.replace(" of ", "\nof ").replace(" in such", "\nin such") for title in _SHARES]
    axes.set_yticks(range(len(_SHARES)), names)
    axes.set(ylim=(len(_SHARES) - 0.5, -0.5), xlim=(0, 112), xlabel="Share (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _times_panel(axes: Axes, samples: dict[str, InterfaceSample]) -> None:
    slowest = max(np.median(sample.times_ms) for sample in samples.values())
    for name, sample in samples.items():
        colour, marker = _LOOKS[name]
        axes.ecdf(sample.times_ms, color=colour, label=INTERFACES[name], gid=name)
        median = float(np.median(sample.times_ms))
        axes.plot(median, 0.5, marker, color=colour, ms=5)
        x, side = (5, "left") if median == slowest else (-5, "right")
        look: dict[str, Any] = {"xytext": (x, 0), "textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(f"median {duration(float(f'{median:.3g}'))}", (median, 0.5), fontsize=6, **look)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_DURATION)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    ends = np.concatenate([np.quantile(sample.times_ms, [0.005, 0.995]) for sample in samples.values()])
    axes.set(xlabel="Time per image", ylabel="Images up to this time (%)", ylim=(0, 1.02))
    axes.set_xlim(ends.min() / 1.5, ends.max() * 1.5)


def _density_panels(panels: Sequence[Axes], samples: dict[str, InterfaceSample]) -> Any:
    """Density of the points that lie in the image, on one colour scale."""
    inside = [_inside(sample.points) for sample in samples.values()]
    bins = _bins_of(min(map(len, inside)))
    densities = [_density(points, bins) for points in inside]
    most = max(density.max() for density in densities)
    for axes, name, density, points in zip(panels, samples, densities, inside, strict=True):
        shown = _draw_density(axes, density, most)
        axes.set_title(f"{INTERFACES[name]}, n = {len(points):,} points")
    panels[0].set_ylabel("y (fraction of the height)")
    return shown
