"""Figures of studies beside the main one: levels of noise, and lambda with the ratio of gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from luab.comparison.over_seeds import difference_to_baseline
from luab.errors import DataError
from luab.render import answers, style, summaries
from luab.render import quantities as q
from luab.render.answers import Level
from luab.study.supervisions import BASELINE, Supervision

_LINES = ("shuffled", "centre")


@style.styled
def noise_levels(
    scores: pd.DataFrame, entries: Mapping[str, Supervision], headline_lambda: float, label: str = ""
) -> Figure:
    """Gain over the baseline against the level of each kind of noise, one row of panels per kind, with intervals.

    Horizontal lines show the controls `shuffled` and `centre`. Only the first backbone is shown. DataError without any
    level or number.
    """
    kinds = {kind: levels for kind, levels in answers.noise_levels(entries).items() if kind != "workers"}
    if not kinds:
        raise DataError("noise_levels: no supervision has noise of one kind; add some to `supervisions`.")
    shown = [
        quantity
        for quantity in summaries.present(scores, q.ANSWERS[str(scores["dataset"].iloc[0])], "noise_levels")
        if not quantity.needs_point  # the baseline has none
    ]
    backbone = style.backbone_order(scores["backbone"].unique())[0]
    chosen = summaries.at_headline(scores[scores["backbone"] == backbone], headline_lambda)
    gains = difference_to_baseline(summaries.only(chosen, shown))
    looks = style.looks_of(scores)
    figure = style.new_figure(style.PAGE_IN, 1.3 * len(kinds) + 0.45)
    grid = figure.subplots(len(kinds), len(shown), squeeze=False, sharey="col")
    for row, (kind, levels) in zip(grid, kinds.items(), strict=True):
        for axes, quantity in zip(row, shown, strict=True):
            _noise_panel(axes, summaries.of(gains, quantity), levels, looks, quantity.gain_sign)
            axes.set_xlabel(answers.kind_title(kind))
        row[0].set_ylabel("Gain (pp) ↑")
    for axes, quantity in zip(grid[0], shown, strict=True):
        axes.set_title(quantity.title)
    style.legend_above(figure, grid[0, 0])
    note = (
        f"{style.backbone_name(backbone)}, λ = {headline_lambda:g}. Difference to the baseline with the same seed, "
        f"sign flipped where lower is better; {summaries.intervals_text(gains)}, not corrected. Grey line: baseline; "
        "other lines and bands: controls with their intervals. Levels are evenly spaced, the weakest noise first."
    )
    return style.finish(figure, note, label)


def _noise_panel(axes: Axes, gains: pd.DataFrame, levels: Sequence[Level], looks: style.Looks, sign: int) -> None:
    by = {str(row["supervision"]): row for _, row in gains.iterrows()}
    axes.axhline(0, color=style.COLOURS[BASELINE], lw=1.0)
    for name in _LINES:
        if name in by:
            value, low, high = _interval(by[name], sign)
            axes.axhline(value, color=looks[name].colour, ls=(0, (1.5, 1.5)), label=looks[name].title, gid=name)
            axes.axhspan(low, high, color=looks[name].colour, alpha=0.15, lw=0)
    places = [place for place, level in enumerate(levels) if level.supervision in by]
    numbers = [_interval(by[levels[place].supervision], sign) for place in places]
    if numbers:
        value, low, high = np.array(numbers).T
        look = looks[levels[0].supervision]
        arms = np.nan_to_num([value - low, high - value])
        drawn: dict[str, Any] = {"color": look.colour, "marker": look.marker, "elinewidth": 0.9}
        axes.errorbar(places, value, yerr=arms, label=look.title, gid=levels[0].supervision, **drawn)
    axes.set_xticks(range(len(levels)), [level.text for level in levels])
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _interval(row: pd.Series, sign: int) -> tuple[float, float, float]:
    """Gain and the ends of its interval in percentage points; the gain itself where there is no interval."""
    value = 100 * sign * row["difference"]
    ends = [value if pd.isna(row[name]) else 100 * sign * row[name] for name in ("low", "high")]
    return value, min(ends), max(ends)


@style.styled
def lambda_gradients(
    scores: pd.DataFrame, ratios: Mapping[tuple[str, float], float], headline_lambda: float, label: str = ""
) -> Figure:
    """Gain over the baseline against lambda, with the ratio of gradients as the upper axis; a row per swept backbone.

    Args:
        scores: Of one data set.
        ratios: By backbone and lambda, from `luab.render.answers.gradient_ratios`.
        headline_lambda: Lambda of the controls.
        label: Words below the figure.
    """
    backbones = summaries.swept_backbones(scores)
    chosen = scores[scores["backbone"].isin(backbones)]
    shown = [
        quantity
        for quantity in summaries.present(chosen, q.ANSWERS[str(scores["dataset"].iloc[0])], "lambda_gradients")
        if not quantity.needs_point
    ]
    gains, looks = difference_to_baseline(summaries.only(chosen, shown)), style.looks_of(scores)
    figure = style.new_figure(style.PAGE_IN, 1.7 * len(backbones) + 0.45)
    grid = figure.subplots(len(backbones), len(shown), squeeze=False, sharey="col")
    for row, backbone in zip(grid, backbones, strict=True):
        of_backbone = {weight: ratio for (name, weight), ratio in ratios.items() if name == backbone}
        for axes, quantity in zip(row, shown, strict=True):
            rows = summaries.of(gains[gains["backbone"] == backbone], quantity)
            _lambda_panel(axes, rows, looks, quantity.gain_sign)
            _ratio_axis(axes, of_backbone)
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\nGain (pp) ↑")
    for axes, quantity in zip(grid[0], shown, strict=True):
        axes.set_title(quantity.title)
    for axes in grid[-1]:
        axes.set_xlabel("λ (log scale)")
    style.legend_above(figure, grid[0, 0])
    note = (
        "Difference to the baseline with the same seed, sign flipped where lower is better; "
        f"{summaries.intervals_text(gains)}, not corrected. Upper axis: norm of the gradient of λ times the byproduct "
        "loss at the shared feature, divided by that of the classification; median over epochs, mean over seeds. "
        f"Horizontal lines: supervisions at λ = {headline_lambda:g} only."
    )
    return style.finish(figure, note, label)


def _lambda_panel(axes: Axes, gains: pd.DataFrame, looks: style.Looks, sign: int) -> None:
    axes.axhline(0, color=style.COLOURS[BASELINE], lw=1.0)
    axes.set_xscale("log")
    for name, look in looks.items():
        line = gains[gains["supervision"] == name].sort_values("lambda")
        numbers = [_interval(row, sign) for _, row in line.iterrows()]
        named: dict[str, Any] = {"color": look.colour, "label": look.title, "gid": name}
        if len(numbers) == 1:
            axes.axhline(numbers[0][0], ls=(0, (1.5, 1.5)), **named)
        elif numbers:
            value, low, high = np.array(numbers).T
            arms = [value - low, high - value]
            axes.errorbar(line["lambda"].to_numpy(), value, yerr=arms, marker=look.marker, elinewidth=0.9, **named)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _ratio_axis(axes: Axes, ratios: Mapping[float, float]) -> None:
    """Adds an upper axis with the ratio at every second lambda."""
    upper = axes.twiny()
    upper.set_xscale("log")
    upper.set_xlim(axes.get_xlim())
    weights = sorted(ratios)[::2]
    upper.set_xticks(weights, [f"{ratios[weight]:.1g}" for weight in weights], fontsize=5)
    upper.xaxis.set_minor_locator(NullLocator())
    upper.grid(visible=False)
