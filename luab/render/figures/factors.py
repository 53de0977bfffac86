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
from luab.render.quantities import main_supervision
from luab.render.style import Looks

_FACTORS = {"siscore_size": ("Object size (% of the image)", 100.0), "siscore_rotation": ("Rotation (degrees)", 1.0)}


@style.styled
def corruption_severity(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """ImageNet-C accuracy against severity: all corruptions, then each family; DataError if there are no details."""
    looks = style.looks_of(scores)
    details = _details(summaries.at_headline(scores, headline_lambda), "imagenet_c", "corruption_severity")
    split = details["group"].str.rsplit("/", n=1, expand=True)
    details = details.assign(corruption=split[0], severity=split[1].astype(int))
    details = details[details["corruption"].isin(CORRUPTIONS)]
    panels = {"All": CORRUPTIONS} | {family.title(): names for family, names in CORRUPTION_FAMILIES.items()}
    panels = {name: names for name, names in panels.items() if details["corruption"].isin(names).any()}
    if not panels:
        raise DataError("corruption_severity: the scores of imagenet_c contain none of the 15 corruptions.")
    backbones = style.backbone_order(list(details["backbone"]))
    figure = style.new_figure(style.PAGE_IN, 1.25 * len(backbones) + 0.5)
    grid = figure.subplots(len(backbones), len(panels), squeeze=False, sharex=True, sharey=True)
    for row, backbone in zip(grid, backbones, strict=True):
        for axes, names in zip(row, panels.values(), strict=True):
            chosen = details[(details["backbone"] == backbone) & details["corruption"].isin(names)]
            _draw_lines(axes, _by_factor(chosen, "severity"), looks, dodge=0.13)
            axes.set_xticks(sorted(details["severity"].unique()))
            if backbone == backbones[-1]:
                axes.set_xlabel("Severity")
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\naccuracy (%) ↑")
    for axes, (name, names) in zip(grid[0], panels.items(), strict=True):
        count = details.loc[details["corruption"].isin(names), "corruption"].nunique()
        axes.set_title(f"{name} ({count})")
    style.legend_above(figure, grid[0, 0])
    note = (
        f"ImageNet-C; in brackets: number of corruptions averaged; {int(details['n'].max()):,} images per corruption "
        f"and severity; λ = {headline_lambda:g}; {_spread(details)}."
    )
    return style.finish(figure, note, label)


@style.styled
def si_score_factors(scores: pd.DataFrame, headline_lambda: float, label: str = "") -> Figure:
    """SI-Score: accuracy against size and rotation, and the difference to the baseline over the object's place.

    The difference is shown for LUAB, or for the last supervision of a study without clicks. DataError if there are no
    details of SI-Score.
    """
    looks = style.looks_of(scores)
    compared = main_supervision(looks)
    chosen = summaries.at_headline(scores, headline_lambda)
    detailed = set(chosen.loc[chosen["group"] != "", "benchmark"])
    factors = [name for name in _FACTORS if name in detailed]
    mapped = compared if "siscore_location" in detailed else None
    if not factors and mapped is None:
        raise DataError(
            "si_score_factors: the scores have no details of SI-Score. Add a siscore_* benchmark to `suites`."
        )
    used = chosen[(chosen["group"] != "") & chosen["benchmark"].isin([*factors, "siscore_location"])]
    backbones = style.backbone_order(list(used["backbone"]))
    figure = style.new_figure(style.PAGE_IN, 1.3 * len(backbones) + 0.55)
    ratios = [1.25] * len(factors) + [1.0] * (mapped is not None)
    grid = figure.subplots(len(backbones), len(ratios), squeeze=False, width_ratios=ratios)
    for axes in list(grid[:, : len(factors)].flat)[1:]:
        axes.sharey(grid[0, 0])
    for column, factor in enumerate(factors):
        details = _details(chosen, factor, "si_score_factors")
        title, scale = _FACTORS[factor]
        details = details.assign(factor=details["group"].astype(float) * scale)
        for axes, backbone in zip(grid[:, column], backbones, strict=True):
            _draw_lines(axes, _by_factor(details[details["backbone"] == backbone], "factor"), looks, dodge=0)
            axes.tick_params(labelbottom=backbone == backbones[-1])
        grid[-1, column].set_xlabel(title)
    if mapped is not None:
        details = _details(chosen, "siscore_location", "si_score_factors")
        maps = [location_difference(details[details["backbone"] == name], mapped) for name in backbones]
        _place_column(figure, list(grid[:, -1]), maps, looks[mapped].title)
    for row, backbone in zip(grid, backbones, strict=True):
        row[0].set_ylabel(f"{style.backbone_name(backbone)}\naccuracy (%) ↑")
    if factors:
        style.legend_above(figure, grid[0, 0])
    sizes = {name: used.loc[used["benchmark"] == name, "n"] for name in sorted(set(used["benchmark"]))}
    images = "; ".join(f"{name.removeprefix('siscore_')} {summaries.span(n)}" for name, n in sizes.items())
    note = f"Images per factor value: {images}. λ = {headline_lambda:g}; {_spread(used)}."
    if mapped is not None:
        note += f" Maps: {looks[mapped].title} minus baseline, mean over seeds, at each place of the object's centre."
    return style.finish(figure, note, label)


def _place_column(figure: Figure, column: Sequence[Axes], maps: Sequence[pd.DataFrame], title: str) -> None:
    limit = max([0.5, *(float(np.nanmax(np.abs(values.to_numpy()))) for values in maps if values.size)])
    for axes, values in zip(column, maps, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        look: dict[str, Any] = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        shown = axes.imshow(values.to_numpy() if values.size else np.full((1, 1), np.nan), aspect="equal", **look)
    column[0].set_title(f"Place: {title.partition(' (')[0]} − baseline", pad=3)
    place: dict[str, Any] = {"shrink": max(0.35, 0.9 / len(column)), "aspect": 14, "pad": 0.03}
    style.colour_bar(figure, shown, "pp, above 0 is better", ax=list(column), **place)


def location_difference(details: pd.DataFrame, supervision: str = "click") -> pd.DataFrame:
    """A supervision minus the baseline in percentage points on the grid of places: rows y (down), columns x (right).

    The details are of one backbone; their group is "x,y" as fractions of the image, or DataError is raised. Without the
    supervision or the baseline, the grid is empty.
    """
    place = details["group"].str.extract(r"^\(?\s*([-\d.]+)\s*[,/_]\s*([-\d.]+)\s*\)?$")
    if place.isna().any(axis=None):
        wrong = details.loc[place.isna().any(axis=1), "group"].iloc[0]
        raise DataError(f"scores: siscore_location: expected a group like '0.25,0.5' (x,y), found {wrong!r}.")
    if not {supervision, "none"} <= set(details["supervision"]):
        return pd.DataFrame()
    table = details.assign(x=place[0].astype(float), y=place[1].astype(float))
    means = table.groupby(["supervision", "y", "x"])["value"].mean()
    return 100 * (means[supervision] - means["none"]).unstack("x").sort_index()


def _details(scores: pd.DataFrame, benchmark: str, product: str) -> pd.DataFrame:
    here = (scores["benchmark"] == benchmark) & (scores["group"] != "") & (scores["metric"] == "accuracy")
    if not here.any():
        raise DataError(
            f"{product}: the scores have no details of {benchmark} (accuracy per group). Add the benchmark to `suites` "
            "in the configuration and score it."
        )
    return scores[here]


def _by_factor(details: pd.DataFrame, factor: str) -> pd.DataFrame:
    """Mean and spread over seeds, in percent, of each run's mean over the groups at one factor value."""
    per_seed = details.groupby(["supervision", factor, "seed"], as_index=False)["value"].mean()
    per_seed["value"] *= 100
    table = per_seed.groupby(["supervision", factor], as_index=False)["value"].agg(["mean", "std"])
    return table.rename(columns={factor: "x"}).fillna({"std": 0.0})


def _draw_lines(axes: Axes, table: pd.DataFrame, looks: Looks, dodge: float) -> None:
    """One line per supervision; with `dodge` also markers, set apart sideways."""
    for i, (supervision, look) in enumerate(looks.items()):
        line = table[table["supervision"] == supervision].sort_values("x")
        if line.empty:
            continue
        x, mean, std = (line[name].to_numpy() for name in ("x", "mean", "std"))
        named: dict[str, Any] = {"color": look.colour, "label": look.title, "gid": supervision}
        if dodge:
            x = x + dodge * (i - (len(looks) - 1) / 2)
            axes.errorbar(
                x,
                mean,
                yerr=style.arms(mean, std, (0, 100)),
                lw=0.8,
                marker=look.marker,
                ms=2.6,
                elinewidth=0.9,
                **named,
            )
        else:
            axes.fill_between(x, *style.spread(mean, std, (0, 100)), color=look.colour, alpha=0.2, lw=0)
            axes.plot(x, mean, **named)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _spread(rows: pd.DataFrame) -> str:
    return summaries.spread_text(rows.groupby(summaries.CELL)["seed"].nunique().to_frame("n"))
