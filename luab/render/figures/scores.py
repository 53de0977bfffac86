"""Figures of the scores: sweep of lambda, gains over the baseline, the gap between backgrounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from luab.render import quantities as q
from luab.render import style, summaries
from luab.render.tables import swept_backbones


@style.styled
def lambda_sweep(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Benchmarks against the weight of the byproduct loss, one row of panels per swept backbone.

    Raises:
        DataError: No backbone has several lambdas, or a cell is missing.
    """
    backbones = swept_backbones(scores)
    chosen = scores[scores["backbone"].isin(backbones)]
    shown = summaries.present(chosen, q.SWEPT)
    summary = summaries.summarise(chosen, shown, diffs=False)
    figure = style.new_figure(style.PAGE_IN, 1.45 * len(backbones) + 0.45)
    grid = figure.subplots(len(backbones), len(shown), squeeze=False, sharex=True)
    for row, backbone in zip(grid, backbones, strict=True):
        for axes, quantity in zip(row, shown, strict=True):
            here = summaries.of(summary[summary["backbone"] == backbone], quantity)
            _sweep_panel(axes, here)
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\n%")
    for axes, quantity in zip(grid[0], shown, strict=True):
        axes.set_title(quantity.heading)
    for axes in grid[-1]:
        axes.set_xlabel("λ (log scale)")
    style.legend_above(figure, grid[0, 0])
    band = ", their spread as a band" if summary["n"].max() > 1 else ""
    note = (
        f"Points: {summaries.spread_text(summary)}. Horizontal lines: runs at a single λ{band} "
        f"(baseline: no byproduct loss; random points: λ = {headline_lambda:g}). Arrow: which way is better."
    )
    return style.finish(figure, note, label)


def _sweep_panel(axes: Axes, rows: pd.DataFrame) -> None:
    for supervision in style.supervision_order(list(rows["supervision"])):
        line = rows[rows["supervision"] == supervision].sort_values("lambda")
        mean, std = 100 * line["mean"].to_numpy(), 100 * line["std"].fillna(0).to_numpy()
        colour, name = style.COLOURS[supervision], style.SUPERVISIONS[supervision]
        if len(line) == 1:
            dashes = (0, (5, 2)) if supervision == "none" else (0, (1.5, 1.5))
            axes.axhline(mean[0], color=colour, ls=dashes, label=name, gid=supervision)
            axes.axhspan(mean[0] - std[0], mean[0] + std[0], color=colour, alpha=0.15, lw=0)
            continue
        weights = line["lambda"].to_numpy()
        axes.fill_between(weights, mean - std, mean + std, color=colour, alpha=0.2, lw=0)
        axes.plot(weights, mean, color=colour, marker=style.MARKERS[supervision], label=name, gid=supervision)
        axes.set_xscale("log")
        axes.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1, y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4))


@style.styled
def robustness_gain(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Gain over the baseline per benchmark with its 95 % interval, one panel per backbone.

    Raises:
        DataError: A cell is missing.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    shown = summaries.present(chosen, q.GAINS)
    summary = summaries.summarise(chosen, shown)
    backbones = style.backbone_order(list(summary["backbone"]))
    columns = min(5, len(backbones))
    rows = -(-len(backbones) // columns)
    figure = style.new_figure(style.PAGE_IN, rows * (0.155 * len(shown) + 0.45) + 0.35)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(backbones) :]:
        axes.set_axis_off()
    for i, backbone in enumerate(backbones):
        axes = grid.flat[i]
        _gain_panel(axes, summary[summary["backbone"] == backbone], shown)
        axes.set_title(style.backbone_name(backbone))
        # Panels above an empty place are the last of their column.
        if i + columns >= len(backbones):
            axes.set_xlabel("Gain (pp), right is better", fontsize=6 if columns > 3 else 7)
    style.legend_above(figure, grid[0, 0])
    single = int(summary["n"].max()) == 1
    intervals = "no intervals, since n = 1 seed" if single else f"95 % intervals, n = {summaries.seeds_text(summary)}"
    note = (
        f"Difference to the baseline in percentage points at λ = {headline_lambda:g}, sign flipped where "
        f"lower is better (marked ↓), so that right is always better; {intervals}. "
        "Hollow: the interval holds 0 or there is none."
    )
    return style.finish(figure, note, label)


def _gain_panel(axes: Axes, rows: pd.DataFrame, shown: Sequence[q.Quantity]) -> None:
    supervisions = [name for name in style.supervision_order(list(rows["supervision"])) if name != "none"]
    offsets = np.linspace(-0.17, 0.17, len(supervisions)) if len(supervisions) > 1 else [0.0]
    axes.axvline(0, color=style.COLOURS["none"], lw=1.0)
    for supervision, offset in zip(supervisions, offsets, strict=True):
        mine = rows[rows["supervision"] == supervision]
        gains = np.array([_gain(summaries.of(mine, quantity), quantity) for quantity in shown])  # [quantities, 3]
        y = np.arange(len(shown)) + offset
        sure = (gains[:, 1] > 0) | (gains[:, 2] < 0)  # NaN compares false: hollow
        colour = style.COLOURS[supervision]
        axes.hlines(y, gains[:, 1], gains[:, 2], color=colour, lw=1.0, alpha=0.75)
        look: dict[str, Any] = {"ls": "none", "marker": style.MARKERS[supervision], "mec": colour, "mew": 0.9}
        axes.plot(gains[:, 0], y, mfc="white", gid=supervision, **look)
        axes.plot(gains[sure, 0], y[sure], mfc=colour, **look)
        # Filled in the legend: a hollow entry would say that nothing is ever sure.
        axes.plot([], [], mfc=colour, label=style.SUPERVISIONS[supervision], **look)
    axes.set_yticks(range(len(shown)), [_gain_name(quantity) for quantity in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def _gain(row: pd.DataFrame, quantity: q.Quantity) -> tuple[float, float, float]:
    """Gain, low and high end in percentage points."""
    sign = quantity.gain_sign
    difference, low, high = 100 * sign * row.iloc[0][["difference", "low", "high"]].astype(float)
    return (difference, low, high) if sign > 0 else (difference, high, low)


def _gain_name(quantity: q.Quantity) -> str:
    return quantity.heading if quantity.lower else quantity.title


@style.styled
def background_gap(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """Accuracy on same-class and on random backgrounds, and the gap between, per backbone and supervision.

    Raises:
        DataError: A cell is missing, or the Backgrounds Challenge is not in the study.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    wanted = summaries.present(chosen, [q.MIXED_RAND, q.MIXED_SAME, q.BG_GAP])
    summary = summaries.summarise(chosen, wanted, diffs=False)
    backbones = style.backbone_order(list(summary["backbone"]))
    supervisions = style.supervision_order(list(summary["supervision"]))
    lines = len(backbones) * (len(supervisions) + 0.8)
    figure = style.new_figure(style.PAGE_IN, 0.125 * lines + 0.75)
    accuracy, gap = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    ticks = []
    for i, backbone in enumerate(backbones):
        start = i * (len(supervisions) + 0.8)
        ticks.append(start + (len(supervisions) - 1) / 2)
        if i % 2:
            for axes in (accuracy, gap):
                axes.axhspan(start - 0.9, start + len(supervisions) - 0.1, color="#F5F5F5", lw=0, zorder=0)
        for j, supervision in enumerate(supervisions):
            here = summary[(summary["backbone"] == backbone) & (summary["supervision"] == supervision)]
            _gap_row(accuracy, gap, here, start + j, supervision)
    accuracy.set_yticks(ticks, [style.backbone_name(backbone) for backbone in backbones])
    accuracy.set_ylim(lines - 0.9, -0.9)
    for axes in (accuracy, gap):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    accuracy.set_xlabel("Accuracy (%) ↑    hollow: mixed-rand, filled: mixed-same")
    gap.set_xlabel("BG-gap (percentage points) ↓")
    style.legend_above(figure, accuracy)
    note = (
        f"ImageNet-9, {_images_per_variant(chosen):,} images per variant; λ = {headline_lambda:g}; "
        f"{summaries.spread_text(summary)}. BG-gap: accuracy on mixed-same minus accuracy on mixed-rand."
    )
    return style.finish(figure, note, label)


def _images_per_variant(scores: pd.DataFrame) -> int:
    details = scores[(scores["benchmark"] == "in9") & (scores["group"] == q.MIXED_RAND.metric)]
    return int(details["n"].max()) if len(details) else int(summaries.only(scores, [q.MIXED_RAND])["n"].max())


def _gap_row(accuracy: Axes, gap: Axes, rows: pd.DataFrame, y: float, supervision: str) -> None:
    colour, marker = style.COLOURS[supervision], style.MARKERS[supervision]
    (rand, rand_std), (same, same_std), (width, width_std) = (
        100 * summaries.of(rows, quantity).iloc[0][["mean", "std"]].astype(float).fillna(0).to_numpy()
        for quantity in (q.MIXED_RAND, q.MIXED_SAME, q.BG_GAP)
    )
    bars: dict[str, Any] = {"ls": "none", "marker": marker, "color": colour, "elinewidth": 0.9, "mew": 0.9}
    accuracy.plot([rand, same], [y, y], color=colour, lw=1.6, alpha=0.25, solid_capstyle="butt")
    accuracy.errorbar(rand, y, xerr=rand_std, mfc="white", **bars)
    accuracy.errorbar(same, y, xerr=same_std, **bars)
    gap.errorbar(width, y, xerr=width_std, **bars)
    accuracy.plot([], [], marker=marker, color=colour, ls="none", label=style.SUPERVISIONS[supervision])
