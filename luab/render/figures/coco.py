"""Figures of COCO and COCO-AB: what annotators left on images, both interfaces, gains by the size of objects."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from luab.byproducts.icons import IconPath
from luab.errors import DataError
from luab.render import quantities as q
from luab.render import style, summaries
from luab.render.figures.byproducts import duration

Array = npt.NDArray[Any]
_ICON, _REMOVED = "#FFD23F", "#D55E00"
_LOOKS = {"browsing": ("#0072B2", "o"), "tagging": ("#D98200", "s")}
_SHARES = (
    "Labels with a point",
    "Points in a box of their class",
    "Middle of the image in such a box",
    "Points on a mask of their class",
)


@dataclasses.dataclass(frozen=True)
class TagSample:
    """One image with what its annotator did on it.

    Attributes:
        title: Shown above the image.
        image: [height, width, 3] uint8.
        trace_xy: [t, 2] fractions of the image, x right, y down.
        trace_ms: [t] since the page began.
        icons: Name of a class and the way of its icon.
    """

    title: str
    image: Array
    trace_xy: Array
    trace_ms: Array
    icons: list[tuple[str, IconPath]]


@style.styled
def coco_samples(samples: Sequence[TagSample], usable: int, records: int, label: str = "") -> Figure:
    """Images with icons, the way of each from where it was added to where it was left, and the mouse trace.

    Args:
        samples: What is shown.
        usable: How many images they were taken from.
        records: How many images have a record.
        label: E.g. "demo world".

    Raises:
        DataError: There is no sample.
    """
    if not samples:
        raise DataError(
            "coco samples: expected images with two icons, one of them moved, and a trace; found none in the index."
        )
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    figure = style.new_figure(style.PAGE_IN, 1.5 * rows + 0.25)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, sample in zip(grid.flat, samples, strict=False):
        lines = _draw_sample(axes, sample)
    bar = figure.colorbar(lines, ax=list(grid.flat), shrink=0.7, aspect=30, pad=0.015, panchor=False)
    bar.set_label("Time, share of the page's trace")
    bar.outline.set_visible(False)
    note = (
        f"n = {len(samples)} images, evenly spaced by number among the {usable:,} of {records:,} with two icons or "
        "more, one of them moved, and a trace. Disc: icon where it was left, with its class; ring: where it was added; "
        "white line: drag; cross: removed in the end. Coloured line: mouse trace, which pauses while an icon is "
        "dragged."
    )
    return style.finish(figure, note, label)


def _draw_sample(axes: Axes, sample: TagSample) -> LineCollection:
    height, width = sample.image.shape[:2]
    axes.imshow(sample.image, extent=(0, width, height, 0), interpolation="antialiased", alpha=0.85)
    points = sample.trace_xy * (width, height)
    axes.plot(*points.T, color="black", alpha=0.3, lw=1.6, solid_joinstyle="round")
    segments = np.stack([points[:-1], points[1:]], axis=1)  # [t - 1, 2 ends, 2]
    lines = LineCollection(list(segments), cmap="viridis", lw=0.8, capstyle="round", gid="trace")
    # Pages stay open for seconds or for hours: one scale of seconds would leave most traces in one colour.
    lines.set_array((sample.trace_ms[1:] - sample.trace_ms.min()) / max(1, np.ptp(sample.trace_ms)))
    lines.set_clim(0, 1)
    axes.add_collection(lines)
    for name, icon in sample.icons:
        _draw_icon(axes, name, np.array(icon.places) * (width, height), icon.removed, width)
    unit = max(width, height)
    axes.set(xlim=(-0.02 * unit, width + 0.02 * unit), ylim=(height + 0.02 * unit, -0.02 * unit))
    axes.set_title(sample.title, fontsize=6, pad=2)
    return lines


def _draw_icon(axes: Axes, name: str, places: Array, removed: bool, width: int) -> None:
    """One icon; places [k, 2] in pixels of the image."""
    halo = [withStroke(linewidth=2.4, foreground="black")]
    if len(places) > 1:
        axes.plot(*places.T, color="white", lw=1.2, path_effects=halo, gid="drag", zorder=3)
        axes.plot(*places[0], "o", ms=5, mfc="none", mec="white", mew=1.1, path_effects=halo, gid="added", zorder=4)
    mark, colour = ("X", _REMOVED) if removed else ("o", _ICON)
    axes.plot(*places[-1], mark, ms=5.5, mfc=colour, mec="black", mew=0.8, gid="icon", zorder=5)
    x = places[-1][0]
    # Away from the ring and from the image's border.
    left = x > 0.6 * width or (places[0][0] > x > 0.25 * width)
    axes.annotate(
        name,
        places[-1],
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=5.5,
        color="white",
        path_effects=[withStroke(linewidth=1.6, foreground="black")],
        zorder=6,
    )


@dataclasses.dataclass(frozen=True)
class InterfaceSample:
    """What is drawn of one interface beside its statistics.

    Attributes:
        times_ms: [n] recorded time of each image, above zero.
        points: [m, 2] fractions of the image, x right, y down.
    """

    times_ms: Array
    points: Array

    @property
    def inside(self) -> Array:
        """The points that lie in the image."""
        return self.points[((self.points >= 0) & (self.points <= 1)).all(axis=1)]


@style.styled
def interfaces(numbers: pd.DataFrame, samples: dict[str, InterfaceSample], label: str = "") -> Figure:
    """Coverage and precision of both interfaces, their times, and where their points fall.

    Args:
        numbers: As luab.render.quantities.interface_numbers gives them.
        samples: Of "browsing" and "tagging".
        label: E.g. "demo world".

    Raises:
        DataError: An interface has no time or no point in an image.
    """
    for name, sample in samples.items():
        if not len(sample.times_ms) or not len(sample.inside):
            raise DataError(f"interfaces: expected times and points of {name}, found none in its index. Index again.")
    figure = style.new_figure(style.PAGE_IN, 4.1)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.15))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    shares, times = upper.subplots(1, 2, width_ratios=(1, 1))
    _shares_panel(shares, numbers)
    _times_panel(times, samples)
    style.legend_above(upper, times)
    panels = lower.subplots(1, 2, sharey=True)
    shown = _density_panels(list(panels), samples)
    bar = lower.colorbar(shown, ax=list(panels), pad=0.015)
    bar.set_label("Density (1 = uniform)")
    bar.outline.set_visible(False)
    timed = ", ".join(f"{len(sample.times_ms):,}" for sample in samples.values())
    shown_shares = numbers[numbers["title"].isin(_SHARES) & numbers["n"].notna()]
    counts = "; ".join(
        f"{title.lower()}: {', '.join(f'{int(n):,}' for n in rows['n'])}"
        for title, rows in shown_shares.groupby("title", sort=False)
    )
    note = (
        f"n, browsing then tagging: {counts}. Middle of the image: on the images or tags of the row above; times: "
        f"{timed}. Times: browsing, as recorded while the pointer was on the image; tagging, as long as the page "
        "of the image was open: not the same quantity. Images, classes and workers differ too."
    )
    return style.finish(figure, note, label)


def _shares_panel(axes: Axes, numbers: pd.DataFrame) -> None:
    for offset, (name, (colour, _)) in zip((-0.19, 0.19), _LOOKS.items(), strict=True):
        mine = numbers[numbers["interface"] == name].set_index("title").loc[list(_SHARES), "value"]
        places = np.arange(len(_SHARES)) + offset
        known = mine.notna().to_numpy()
        values = 100 * mine.to_numpy()
        axes.barh(places[known], values[known], height=0.34, color=colour, label=q.INTERFACES[name], gid=name)
        for place, value in zip(places, values, strict=True):
            text = "–" if np.isnan(value) else style.percent(value / 100)
            axes.annotate(text, (0 if np.isnan(value) else value, place), xytext=(2, 0), textcoords="offset points",
                          va="center", fontsize=6)  # fmt: skip
    axes.set_yticks(range(len(_SHARES)), [title.replace(" of ", "\nof ").replace(" in such", "\nin such")
                                          for title in _SHARES])  # fmt: skip
    axes.set(ylim=(len(_SHARES) - 0.5, -0.5), xlim=(0, 112), xlabel="Share (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _times_panel(axes: Axes, samples: dict[str, InterfaceSample]) -> None:
    for name, sample in samples.items():
        colour, _ = _LOOKS[name]
        axes.ecdf(sample.times_ms, color=colour, label=q.INTERFACES[name], gid=name)
        median = float(np.median(sample.times_ms))
        axes.plot(median, 0.5, _LOOKS[name][1], color=colour, ms=5)
        slower = median == max(np.median(other.times_ms) for other in samples.values())
        axes.annotate(f"median {duration(float(f'{median:.3g}'))}", (median, 0.5), xytext=(5 if slower else -5, 0),
                      textcoords="offset points", fontsize=6, va="center", ha="left" if slower else "right"
                      )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: duration(ms)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    ends = np.concatenate([np.quantile(sample.times_ms, [0.005, 0.995]) for sample in samples.values()])
    axes.set(xlabel="Time per image", ylabel="Images up to this time (%)", ylim=(0, 1.02))
    axes.set_xlim(ends.min() / 1.5, ends.max() * 1.5)


def _density_panels(panels: Sequence[Axes], samples: dict[str, InterfaceSample]) -> Any:
    """Where points fall, on one scale of colours; those outside of the image are not drawn."""
    inside = [sample.inside for sample in samples.values()]
    fewest = min(len(points) for points in inside)
    bins = int(np.clip(np.sqrt(fewest) / 2, 8, 40))  # as many as there are points to fill them
    densities = [
        np.histogram2d(points[:, 1], points[:, 0], bins=bins, range=[[0, 1], [0, 1]])[0] / len(points) * bins**2
        for points in inside
    ]
    look: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": max(density.max() for density in densities)}
    for axes, name, density, points in zip(panels, samples, densities, inside, strict=True):
        shown = axes.imshow(density, extent=(0, 1, 1, 0), aspect="auto", interpolation="nearest", **look)
        axes.axhline(0.5, color=style.INK, lw=0.6, ls=(0, (4, 3)))
        axes.axvline(0.5, color=style.INK, lw=0.6, ls=(0, (4, 3)))
        axes.set_title(f"{q.INTERFACES[name]}, n = {len(points):,} points")
        axes.set(xlabel="x (fraction of the width)", xlim=(0, 1), ylim=(1, 0))
        axes.grid(False)
    panels[0].set_ylabel("y (fraction of the height)")
    return shown


@style.styled
def coco_gain_by_size(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Mean average precision, and its gain over the baseline, by the size of objects and by their context.

    A column for each backbone; the contexts are left out where the study has none.

    Raises:
        DataError: A cell is missing, or the sizes are not in the study.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    sizes = summaries.present(chosen, q.COCO_SIZES)
    shown = [*sizes, *summaries.present(chosen, [*sizes, *q.COCO_CONTEXTS])[len(sizes) :]]
    summary = summaries.summarise(chosen, shown)
    backbones = style.backbone_order(list(summary["backbone"]))
    width = style.COLUMN_IN if len(backbones) == 1 else style.PAGE_IN
    figure = style.new_figure(width, 3.0)
    grid = figure.subplots(2, len(backbones), squeeze=False, sharex=True, sharey="row")
    for column, backbone in zip(grid.T, backbones, strict=True):
        mine = summary[summary["backbone"] == backbone]
        supervisions = style.supervision_order(list(mine["supervision"]))
        for place, supervision in enumerate(supervisions):
            offset = 0.09 * (place - (len(supervisions) - 1) / 2)
            rows = mine[mine["supervision"] == supervision]
            for first, part in ((0, sizes), (len(sizes), shown[len(sizes) :])):
                if part:
                    _part_line(column, rows, supervision, part, first + offset)
        column[0].set_title(style.backbone_name(backbone))
        column[1].axhline(0, color=style.COLOURS["none"], lw=1.0)
        column[1].set_xticks(range(len(shown)), [_part_name(quantity, chosen) for quantity in shown])
        column[1].set_xlim(-0.5, len(shown) - 0.5)
        for axes in column:
            axes.grid(axis="x", visible=False)
    grid[0, 0].set_ylabel("mAP (%) ↑")
    grid[1, 0].set_ylabel("Gain (pp) ↑")
    grid[1, 0].yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    )
    style.legend_above(figure, grid[0, 0], columns=3)
    single = int(summary["n"].max()) == 1
    intervals = "no intervals, since n = 1 seed" if single else f"95 % intervals, n = {summaries.seeds_text(summary)}"
    context = (
        " In context: some of the class's usual companions are in the image; out of it: none."
        if len(shown) > len(sizes)
        else ""
    )
    note = (
        f"λ = {headline_lambda:g}. Above: {summaries.spread_text(summary)}. Below: difference to the baseline, "
        f"seed against the same seed; {intervals}; hollow: the interval holds 0 or there is none. Size: "
        "of the class's largest object in the image, by the area of its mask (below 32², below 96², more)."
        f"{context} n: positives, each part against the same negatives; sizes over the classes that have all of those "
        "shown, contexts over those with both."
    )
    return style.finish(figure, note, label)


def _part_line(
    column: Sequence[Axes], rows: pd.DataFrame, supervision: str, shown: Sequence[q.Quantity], first: float
) -> None:
    table = pd.concat([summaries.of(rows, quantity) for quantity in shown])
    mean, std, gain, low, high = (
        100 * table[name].to_numpy(dtype=float) for name in ("mean", "std", "difference", "low", "high")
    )
    x = np.arange(len(shown)) + first
    colour = style.COLOURS[supervision]
    look: dict[str, Any] = {"marker": style.MARKERS[supervision], "color": colour, "mec": colour, "lw": 0.9}
    column[0].errorbar(x, mean, yerr=np.nan_to_num(std), elinewidth=0.9, label=style.SUPERVISIONS[supervision], **look)
    if supervision == "none":
        return
    column[1].vlines(x, low, high, color=colour, lw=1.0, alpha=0.75)
    column[1].plot(x, gain, mfc="white", gid=supervision, **look)
    sure = (low > 0) | (high < 0)  # NaN compares false: hollow
    column[1].plot(x[sure], gain[sure], **look | {"ls": "none"})


def _part_name(quantity: q.Quantity, scores: pd.DataFrame) -> str:
    part = quantity.metric.removeprefix("map_")
    here = scores[(scores["benchmark"] == quantity.benchmark) & (scores["group"] == part)]
    name = part.removesuffix("_context").replace("_", " ") + ("\ncontext" if part.endswith("_context") else "")
    return f"{name}\nn = {int(here['n'].max()):,}" if len(here) else name
