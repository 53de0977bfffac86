"""Figures of the scores: the sweep of lambda, differences to the baseline, the gap between backgrounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from luab.errors import DataError
from luab.render import quantities as q
from luab.render import style, summaries
from luab.render.style import Looks

_SIGNED = FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")


@style.styled
def lambda_sweep(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Benchmarks against the weight of the byproduct loss, one row of panels per swept backbone; DataError without."""
    looks = style.looks_of(scores)
    backbones = summaries.swept_backbones(scores)
    chosen = scores[scores["backbone"].isin(backbones)]
    shown = summaries.present(chosen, q.SWEPT, "lambda_sweep")
    summary = summaries.summarise(chosen, shown, diffs=False)
    figure = style.new_figure(style.PAGE_IN, 1.45 * len(backbones) + 0.45)
    grid = figure.subplots(len(backbones), len(shown), squeeze=False, sharex=True, sharey="col")
    for row, backbone in zip(grid, backbones, strict=True):
        for axes, quantity in zip(row, shown, strict=True):
            rows = summaries.of(summary[summary["backbone"] == backbone], quantity)
            _sweep_panel(axes, rows, looks, quantity.possible)
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\n%")
    for axes, quantity in zip(grid[0], shown, strict=True):
        axes.set_title(quantity.heading)
    for axes in grid[-1]:
        axes.set_xlabel("λ (log scale)")
    style.legend_above(figure, grid[0, 0])
    band = ", their spread as a band" if summary["n"].max() > 1 else ""
    note = (
        f"Points: {summaries.spread_text(summary)}. Horizontal lines: supervisions with a single λ{band} "
        f"(baseline: no byproduct loss; others: λ = {headline_lambda:g}). Two λ are not joined to a line. Arrow: "
        "direction of better values."
    )
    return style.finish(figure, note, label)


def _sweep_panel(axes: Axes, rows: pd.DataFrame, looks: Looks, possible: tuple[float, float]) -> None:
    for supervision, look in looks.items():
        line = rows[rows["supervision"] == supervision].sort_values("lambda")
        mean, std = 100 * line["mean"].to_numpy(), 100 * line["std"].fillna(0).to_numpy()
        low, high = style.spread(mean, std, possible)
        named: dict[str, Any] = {"color": look.colour, "label": look.title, "gid": supervision}
        if len(line) == 1:
            dashes = (0, (5, 2)) if supervision == "none" else (0, (1.5, 1.5))
            axes.axhline(mean[0], ls=dashes, **named)
            axes.axhspan(low[0], high[0], color=look.colour, alpha=0.15, lw=0)
        elif len(line):
            weights = line["lambda"].to_numpy()
            if len(line) > 2:
                axes.fill_between(weights, low, high, color=look.colour, alpha=0.2, lw=0)
                axes.plot(weights, mean, marker=look.marker, **named)
            else:  # two points say nothing about what lies between them
                arms = style.arms(mean, std, possible)
                axes.errorbar(weights, mean, yerr=arms, ls="none", marker=look.marker, elinewidth=0.9, **named)
            axes.set_xscale("log")
            axes.set_xticks(weights, [f"{weight:g}" for weight in weights])
            axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1, y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4))


@style.styled
def robustness_gain(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Gain over the baseline per benchmark with its 95 % interval, one panel per backbone.

    DataError if a number is missing, or if there is no supervision besides the baseline.
    """
    chosen, looks = _compared(scores, headline_lambda, "robustness_gain")
    shown = summaries.present(chosen, q.GAINS, "robustness_gain")
    summary = summaries.summarise(chosen, shown)
    backbones = style.backbone_order(list(summary["backbone"]))
    columns = min(5, len(backbones))
    rows = -(-len(backbones) // columns)
    figure = style.new_figure(style.PAGE_IN, rows * (0.155 * len(shown) + 0.45) + 0.35)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(backbones) :]:
        axes.set_axis_off()
    for i, backbone in enumerate(backbones):
        axes = grid.flat[i]
        _gain_panel(axes, summary[summary["backbone"] == backbone], shown, looks)
        axes.set_title(style.backbone_name(backbone))
        # Panels above an empty place are the last of their column.
        if i + columns >= len(backbones):
            axes.set_xlabel("Gain (pp), right is better", fontsize=6 if columns > 3 else 7)
    style.legend_above(figure, grid[0, 0])
    note = (
        f"Difference to the baseline in percentage points at λ = {headline_lambda:g}, sign flipped where "
        f"lower is better (marked ↓), so that right is always better; {summaries.intervals_text(summary)}. "
        "Hollow: the interval contains 0, or there is no interval."
    )
    return style.finish(figure, note, label)


def _compared(scores: pd.DataFrame, headline_lambda: float, product: str) -> tuple[pd.DataFrame, dict[str, style.Look]]:
    """The scores at the headline lambda, and the look of every supervision."""
    looks = style.looks_of(scores)
    if set(looks) <= {"none"}:
        raise DataError(f"{product}: requires a supervision besides the baseline; add one to `supervisions`.")
    return summaries.at_headline(scores, headline_lambda), looks


def _gain_panel(axes: Axes, rows: pd.DataFrame, shown: Sequence[q.Quantity], looks: Looks) -> None:
    supervisions = [name for name in looks if name != "none"]
    offsets = np.linspace(-0.17, 0.17, len(supervisions)) if len(supervisions) > 1 else [0.0]
    axes.axvline(0, color=style.COLOURS["none"], lw=1.0)
    for supervision, offset in zip(supervisions, offsets, strict=True):
        mine = rows[rows["supervision"] == supervision]
        if mine.empty:
            continue
        table = pd.concat([summaries.of(mine, quantity) for quantity in shown])
        signs = [quantity.gain_sign for quantity in shown]
        gain, end, other_end = (100 * table[name].to_numpy(float) * signs for name in ("difference", "low", "high"))
        y = np.arange(len(shown)) + offset
        sure = table["sure"].to_numpy()
        look = looks[supervision]
        axes.hlines(y, np.minimum(end, other_end), np.maximum(end, other_end), color=look.colour, lw=1.0, alpha=0.75)
        marks: dict[str, Any] = {"ls": "none", "marker": look.marker, "mec": look.colour, "mew": 0.9}
        axes.plot(gain, y, mfc="white", gid=supervision, **marks)
        axes.plot(gain[sure], y[sure], mfc=look.colour, **marks)
        # Filled in the legend, where a hollow mark would mean "not significant".
        axes.plot([], [], mfc=look.colour, label=look.title, **marks)
    axes.set_yticks(range(len(shown)), [quantity.heading if quantity.lower else quantity.title for quantity in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_SIGNED)


@style.styled
def coco_gain_by_size(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Mean average precision, and its gain over the baseline, by the size of objects and by their context.

    One column per backbone; the contexts are left out if the study has none. DataError if a number or the sizes are
    missing, or if the baseline is alone.
    """
    chosen, looks = _compared(scores, headline_lambda, "coco_gain_by_size")
    sizes = summaries.present(chosen, q.COCO_SIZES, "coco_gain_by_size")
    shown = summaries.present(chosen, [*sizes, *q.COCO_CONTEXTS], "coco_gain_by_size")
    summary = summaries.summarise(chosen, shown)
    backbones = style.backbone_order(list(summary["backbone"]))
    figure = style.new_figure(style.COLUMN_IN if len(backbones) == 1 else style.PAGE_IN, 3.0)
    grid = figure.subplots(2, len(backbones), squeeze=False, sharex=True, sharey="row")
    for column, backbone in zip(grid.T, backbones, strict=True):
        mine = summary[summary["backbone"] == backbone]
        for place, (supervision, look) in enumerate(looks.items()):
            offset = 0.09 * (place - (len(looks) - 1) / 2)
            rows = mine[mine["supervision"] == supervision]
            # Two lines: none joins a size and a context.
            for first, part in ((0, sizes), (len(sizes), shown[len(sizes) :])):
                if part and len(rows):
                    table = pd.concat([summaries.of(rows, quantity) for quantity in part])
                    _part_line(column, table, look, supervision, np.arange(len(part)) + first + offset)
        column[0].set_title(style.backbone_name(backbone))
        column[1].axhline(0, color=style.COLOURS["none"], lw=1.0)
        column[1].set_xticks(range(len(shown)), [_part_name(quantity, chosen) for quantity in shown])
        column[1].set_xlim(-0.5, len(shown) - 0.5)
        for axes in column:
            axes.grid(axis="x", visible=False)
    grid[0, 0].set_ylabel("mAP (%) ↑")
    grid[1, 0].set_ylabel("Gain (pp) ↑")
    grid[1, 0].yaxis.set_major_formatter(_SIGNED)
    style.legend_above(figure, grid[0, 0], columns=3)
    context = ""
    if len(shown) > len(sizes):
        context = " In context: some of the usual companions of the class are in the image; out of context: none."
    note = (
        f"λ = {headline_lambda:g}. Above: {summaries.spread_text(summary)}. Below: difference to the baseline, same "
        f"seed; {summaries.intervals_text(summary)}; hollow: the interval contains 0, or there is none. Size: largest "
        f"object of the class in the image, by the area of its mask (below 32², below 96², larger).{context} n: "
        "positives, each part against the same negatives; sizes over the classes that have all sizes shown, contexts "
        "over the classes that have both."
    )
    return style.finish(figure, note, label)


def _part_line(column: Sequence[Axes], table: pd.DataFrame, look: style.Look, supervision: str, x: Any) -> None:
    names = ("mean", "std", "difference", "low", "high")
    mean, std, gain, low, high = (100 * table[name].to_numpy(float) for name in names)
    sure = table["sure"].to_numpy()
    marks: dict[str, Any] = {"marker": look.marker, "color": look.colour, "mec": look.colour, "lw": 0.9}
    arms = style.arms(mean, np.nan_to_num(std), (0, 100))
    column[0].errorbar(x, mean, yerr=arms, elinewidth=0.9, label=look.title, **marks)
    if supervision == "none":
        return
    column[1].vlines(x, low, high, color=look.colour, lw=1.0, alpha=0.75)
    column[1].plot(x, gain, mfc="white", gid=supervision, **marks)
    column[1].plot(x[sure], gain[sure], **marks | {"ls": "none"})


def _part_name(quantity: q.Quantity, scores: pd.DataFrame) -> str:
    part = quantity.metric.removeprefix("map_")
    here = scores[(scores["benchmark"] == quantity.benchmark) & (scores["group"] == part)]
    name = part.removesuffix("_context").replace("_", " ") + ("\ncontext" if part.endswith("_context") else "")
    return f"{name}\nn = {int(here['n'].max()):,}" if len(here) else name


@style.styled
def background_gap(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Accuracy on same-class and on random backgrounds, and the gap between, per backbone and supervision.

    DataError if a number is missing, or if the Backgrounds Challenge is not in the study.
    """
    looks = style.looks_of(scores)
    chosen = summaries.at_headline(scores, headline_lambda)
    shown = summaries.present(chosen, [q.MIXED_RAND, q.MIXED_SAME, q.BG_GAP], "background_gap")
    summary = summaries.summarise(chosen, shown, diffs=False)
    backbones = style.backbone_order(list(summary["backbone"]))
    step = len(looks) + 0.8
    lines = len(backbones) * step
    figure = style.new_figure(style.PAGE_IN, 0.125 * lines + 0.75)
    accuracy, gap = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for i, backbone in enumerate(backbones):
        if i % 2:
            for axes in (accuracy, gap):
                axes.axhspan(i * step - 0.9, i * step + len(looks) - 0.1, color="#F5F5F5", lw=0, zorder=0)
        for j, (supervision, look) in enumerate(looks.items()):
            rows = summary[(summary["backbone"] == backbone) & (summary["supervision"] == supervision)]
            if len(rows):
                _gap_row(accuracy, gap, rows, i * step + j, look)
    ticks = [i * step + (len(looks) - 1) / 2 for i in range(len(backbones))]
    accuracy.set_yticks(ticks, [style.backbone_name(backbone) for backbone in backbones])
    accuracy.set_ylim(lines - 0.9, -0.9)
    for axes in (accuracy, gap):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    accuracy.set_xlabel("Accuracy (%) ↑    hollow: mixed-rand, filled: mixed-same")
    gap.set_xlabel("BG-gap (percentage points) ↓")
    style.legend_above(figure, accuracy)
    details = chosen[(chosen["benchmark"] == "in9") & (chosen["group"] == q.MIXED_RAND.metric)]
    images = (details if len(details) else summaries.only(chosen, shown))["n"].max()
    note = (
        f"ImageNet-9, {int(images):,} images per variant; λ = {headline_lambda:g}; "
        f"{summaries.spread_text(summary)}. BG-gap: accuracy on mixed-same minus accuracy on mixed-rand."
    )
    return style.finish(figure, note, label)


def _gap_row(accuracy: Axes, gap: Axes, rows: pd.DataFrame, y: float, look: style.Look) -> None:
    numbers = 100 * rows.set_index("metric")[["mean", "std"]].fillna(0)  # one seed has no spread
    (rand, rand_std), (same, same_std), (width, width_std) = (
        numbers.reindex([quantity.metric]).iloc[0] for quantity in (q.MIXED_RAND, q.MIXED_SAME, q.BG_GAP)
    )
    bars: dict[str, Any] = {"ls": "none", "marker": look.marker, "color": look.colour, "elinewidth": 0.9, "mew": 0.9}
    accuracy.plot([rand, same], [y, y], color=look.colour, lw=1.6, alpha=0.25, solid_capstyle="butt")
    for axes, value, std, possible, face in (
        (accuracy, rand, rand_std, q.MIXED_RAND.possible, "white"),
        (accuracy, same, same_std, q.MIXED_SAME.possible, look.colour),
        (gap, width, width_std, q.BG_GAP.possible, look.colour),
    ):
        axes.errorbar(value, y, xerr=style.arms(np.array([value]), np.array([std]), possible), mfc=face, **bars)
    accuracy.plot([], [], marker=look.marker, color=look.colour, ls="none", label=look.title)
