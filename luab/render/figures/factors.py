"""Figures of accuracy against one factor: severity of a corruption; size, rotation and place of an object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from luab.data.manifests.labels import CORRUPTION_FAMILIES, CORRUPTIONS
from luab.errors import DataError
from luab.render import style, summaries

_FACTORS = {
    "siscore_size": ("Object size (% of the image)", 100.0),
    "siscore_rotation": ("Rotation (degrees)", 1.0),
}


@style.styled
def corruption_severity(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """ImageNet-C accuracy against severity: all corruptions, then each family; one row per backbone.

    Raises:
        DataError: There are no details of ImageNet-C.
    """
    details = _details(summaries.at_headline(scores, headline_lambda), "imagenet_c")
    split = details["group"].str.rsplit("/", n=1, expand=True)
    details = details.assign(corruption=split[0], severity=split[1].astype(int))
    details = details[details["corruption"].isin(CORRUPTIONS)]
    panels = {"All": CORRUPTIONS} | {family.title(): names for family, names in CORRUPTION_FAMILIES.items()}
    panels = {name: names for name, names in panels.items() if details["corruption"].isin(names).any()}
    backbones = style.backbone_order(list(details["backbone"]))
    figure = style.new_figure(style.PAGE_IN, 1.25 * len(backbones) + 0.5)
    grid = figure.subplots(len(backbones), len(panels), squeeze=False, sharex=True, sharey="row")
    for row, backbone in zip(grid, backbones, strict=True):
        for axes, names in zip(row, panels.values(), strict=True):
            chosen = details[(details["backbone"] == backbone) & details["corruption"].isin(names)]
            _draw_lines(axes, _by_factor(chosen, "severity"), dodge=0.13)
            axes.set_xticks(sorted(details["severity"].unique()))
            if backbone == backbones[-1]:
                axes.set_xlabel("Severity")
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\naccuracy (%) ↑")
    for axes, (name, names) in zip(grid[0], panels.items(), strict=True):
        count = details.loc[details["corruption"].isin(names), "corruption"].nunique()
        axes.set_title(f"{name} ({count})")
    style.legend_above(figure, grid[0, 0])
    note = (
        f"ImageNet-C, in brackets: corruptions averaged; {int(details['n'].max()):,} images per corruption "
        f"and severity; λ = {headline_lambda:g}; {_spread(details)}."
    )
    return style.finish(figure, note, label)


@style.styled
def si_score_factors(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """SI-Score: accuracy against size and rotation, and LUAB's change of accuracy over the object's place.

    Raises:
        DataError: There are no details of SI-Score.
    """
    chosen = summaries.at_headline(scores, headline_lambda)
    there = set(chosen.loc[chosen["group"] != "", "benchmark"])
    factors = [name for name in _FACTORS if name in there]
    place = "siscore_location" in there and "click" in set(chosen["supervision"])
    if not factors and not place:
        raise DataError("scores: expected details of SI-Score, found none. Add a siscore_* benchmark to `suites`.")
    backbones = style.backbone_order(list(chosen["backbone"]))
    figure = style.new_figure(style.PAGE_IN, 1.3 * len(backbones) + 0.55)
    ratios = [1.25] * len(factors) + [1.0] * place
    grid = figure.subplots(len(backbones), len(ratios), squeeze=False, width_ratios=ratios)
    for column, factor in enumerate(factors):
        _factor_column(list(grid[:, column]), _details(chosen, factor), factor, backbones)
    if place:
        _place_column(figure, list(grid[:, -1]), _details(chosen, "siscore_location"), backbones)
    for row, backbone in zip(grid, backbones, strict=True):
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\naccuracy (%) ↑")
    if factors:
        style.legend_above(figure, grid[0, 0])
    used = chosen[(chosen["group"] != "") & chosen["benchmark"].isin([*factors, "siscore_location"])]
    sizes = {name: used.loc[used["benchmark"] == name, "n"] for name in sorted(set(used["benchmark"]))}
    images = "; ".join(f"{name.removeprefix('siscore_')} {_span(n)}" for name, n in sizes.items())
    note = f"Images per factor value: {images}. λ = {headline_lambda:g}; {_spread(used)}."
    if place:
        note += " Maps: mean over seeds of LUAB minus baseline at each place of the object's centre."
    return style.finish(figure, note, label)


def _factor_column(column: Sequence[Axes], details: pd.DataFrame, factor: str, backbones: Sequence[str]) -> None:
    title, scale = _FACTORS[factor]
    details = details.assign(factor=details["group"].astype(float) * scale)
    for axes, backbone in zip(column, backbones, strict=True):
        _draw_lines(axes, _by_factor(details[details["backbone"] == backbone], "factor"), dodge=0)
        axes.tick_params(labelbottom=backbone == backbones[-1])
    column[-1].set_xlabel(title)


def _place_column(figure: Figure, column: Sequence[Axes], details: pd.DataFrame, backbones: Sequence[str]) -> None:
    maps = [location_difference(details[details["backbone"] == backbone]) for backbone in backbones]
    limit = max(0.5, max(float(np.nanmax(np.abs(values.to_numpy()))) for values in maps))
    for axes, values in zip(column, maps, strict=True):
        shown = axes.imshow(
            values.to_numpy(), cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="equal", interpolation="nearest"
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
    column[0].set_title("Place: LUAB − baseline", pad=3)
    bar = figure.colorbar(shown, ax=list(column), shrink=max(0.35, 0.9 / len(backbones)), aspect=14, pad=0.03)
    bar.set_label("pp, above 0 is better")
    bar.outline.set_visible(False)


def location_difference(details: pd.DataFrame) -> pd.DataFrame:
    """LUAB minus baseline in percentage points on the grid of places: rows y (down), columns x (right).

    Args:
        details: Rows of siscore_location of one backbone; group is "x,y" as fractions of the image.

    Raises:
        DataError: A group is not of that form.
    """
    place = details["group"].str.extract(r"^\(?\s*([-\d.]+)\s*[,/_]\s*([-\d.]+)\s*\)?$")
    if place.isna().any(axis=None):
        wrong = details.loc[place.isna().any(axis=1), "group"].iloc[0]
        raise DataError(f"scores: siscore_location: expected a group like '0.25,0.5' (x,y), found {wrong!r}.")
    table = details.assign(x=place[0].astype(float), y=place[1].astype(float))
    means = table.groupby(["supervision", "y", "x"])["value"].mean()
    return 100 * (means["click"] - means["none"]).unstack("x").sort_index()


def _details(scores: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    metric = "accuracy"
    here = (scores["benchmark"] == benchmark) & (scores["group"] != "") & (scores["metric"] == metric)
    if not here.any():
        raise DataError(
            f"scores: expected details of {benchmark} ({metric} per group), found none. "
            "Add the benchmark to `suites` in the configuration and run again, or leave this figure out."
        )
    return scores[here]


def _by_factor(details: pd.DataFrame, factor: str) -> pd.DataFrame:
    """Mean and spread over seeds, in percent, of each run's mean over the groups at one factor value."""
    per_seed = details.groupby(["supervision", factor, "seed"], as_index=False)["value"].mean()
    per_seed["value"] *= 100
    table = per_seed.groupby(["supervision", factor], as_index=False)["value"].agg(["mean", "std"])
    return table.rename(columns={factor: "x"}).fillna({"std": 0.0})


def _draw_lines(axes: Axes, table: pd.DataFrame, dodge: float) -> None:
    """One line per supervision; with `dodge` also markers, set apart sideways."""
    supervisions = style.supervision_order(list(table["supervision"]))
    for i, supervision in enumerate(supervisions):
        line = table[table["supervision"] == supervision].sort_values("x")
        x, mean, std = (line[name].to_numpy() for name in ("x", "mean", "std"))
        colour, name = style.COLOURS[supervision], style.SUPERVISIONS[supervision]
        if dodge:
            x = x + dodge * (i - (len(supervisions) - 1) / 2)
            look: dict[str, Any] = {"marker": style.MARKERS[supervision], "ms": 2.6, "elinewidth": 0.9}
            axes.errorbar(x, mean, yerr=std, color=colour, lw=0.8, label=name, gid=supervision, **look)
        else:
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, lw=0)
            axes.plot(x, mean, color=colour, label=name, gid=supervision)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _spread(rows: pd.DataFrame) -> str:
    return summaries.spread_text(rows.groupby(summaries.CELL)["seed"].nunique().to_frame("n"))


def _span(n: pd.Series) -> str:
    low, high = int(n.min()), int(n.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
