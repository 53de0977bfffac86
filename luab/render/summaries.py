"""Summaries of scores for tables and figures: mean, spread, difference to the baseline, and what is missing."""

from collections.abc import Iterable, Sequence

import pandas as pd

from luab.comparison.over_seeds import difference_to_baseline, mean_std
from luab.errors import DataError
from luab.render.quantities import BOTH_INTERFACES, Quantity

CELL = ["backbone", "supervision", "lambda"]
PLACE = ["benchmark", "metric", "group"]


def interface_numbers(browsing: pd.DataFrame, tagging: pd.DataFrame) -> pd.DataFrame:
    """The statistics that both interfaces are compared by.

    Args:
        browsing: statistic, value, unit, n of ImageNet-AB (luab.byproducts.statistics.imagenet).
        tagging: The same of COCO-AB (luab.byproducts.statistics.coco).

    Returns:
        Columns title, interface, statistic, value, unit, n; two rows for each title, browsing first; NaN and no name
        where an interface has no such number.

    Raises:
        DataError: A statistic is missing.
    """
    tables = {"browsing": browsing.set_index("statistic"), "tagging": tagging.set_index("statistic")}
    rows: list[tuple[str, str, str, float, str, float]] = []
    for title, *names in BOTH_INTERFACES:
        for (interface, table), name in zip(tables.items(), names, strict=True):
            if name is None:
                rows.append((title, interface, "", float("nan"), "", float("nan")))
            elif name in table.index:
                rows.append((title, interface, name, *table.loc[name, ["value", "unit", "n"]]))
            else:
                raise DataError(f"{interface}: expected the statistic {name}, found none. Render its table again.")
    return pd.DataFrame(rows, columns=["title", "interface", "statistic", "value", "unit", "n"])


def present(scores: pd.DataFrame, quantities: Sequence[Quantity]) -> list[Quantity]:
    """The quantities that the study has scores for, in the order given.

    Raises:
        DataError: It has none of them.
    """
    there = set(scores[PLACE].itertuples(index=False, name=None))
    found = [quantity for quantity in quantities if quantity.key in there]
    if not found:
        wanted = ", ".join(sorted({quantity.benchmark for quantity in quantities}))
        there_is = ", ".join(sorted(set(scores["benchmark"])))
        raise DataError(
            f"scores: expected one of the benchmarks {wanted}, found {there_is}. Add one to `suites` in the "
            "configuration and run again, or leave this table or figure out."
        )
    return found


def only(scores: pd.DataFrame, quantities: Iterable[Quantity]) -> pd.DataFrame:
    """The scores of some quantities."""
    keys = pd.MultiIndex.from_tuples([quantity.key for quantity in quantities], names=PLACE)
    return scores[pd.MultiIndex.from_frame(scores[PLACE]).isin(keys)]


def at_headline(scores: pd.DataFrame, headline_lambda: float) -> pd.DataFrame:
    """The baseline and every supervision at the headline lambda.

    Raises:
        DataError: No supervised run has that lambda.
    """
    baseline = scores["supervision"] == "none"
    headline = ~baseline & ((scores["lambda"] - headline_lambda).abs() < 1e-9)
    if not headline.any():
        found = ", ".join(f"{value:g}" for value in sorted(scores.loc[~baseline, "lambda"].unique())) or "none"
        raise DataError(
            f"scores: expected runs at the headline lambda {headline_lambda:g}, found lambda {found}. "
            "Set `luab_lambda` to one of these, or train at it."
        )
    return scores[baseline | headline]


def summarise(scores: pd.DataFrame, quantities: Sequence[Quantity], diffs: bool = True) -> pd.DataFrame:
    """Mean, spread and difference to the baseline of every cell, refusing holes.

    Args:
        scores: Tidy scores; rows of other quantities are ignored.
        quantities: What is wanted, all of it present for some run.
        diffs: Whether to add the differences of luab.comparison.over_seeds.

    Returns:
        One row per backbone, supervision, lambda and quantity: mean, std (over seeds; NaN for one), n
        (seeds), images (of the test set), protocol, and difference, low, high, p, p_holm, which are NaN
        for the baseline.

    Raises:
        DataError: A backbone and supervision lacks a quantity that others have.
    """
    chosen = only(scores, quantities)
    _refuse_holes(scores, quantities)
    keys = [*CELL, *PLACE]
    table = mean_std(chosen)[[*keys, "mean", "std", "n"]]
    about = chosen.groupby(keys, as_index=False).agg(images=("n", "max"), protocol=("protocol", "first"))
    table = table.merge(about, on=keys, validate="one_to_one")
    if diffs:
        # Holm's correction is over all benchmarks of a method, not over those of one table.
        wanted = pd.concat([scores[scores["group"] == ""], chosen])
        pairs = difference_to_baseline(wanted[~wanted.index.duplicated()])
        columns = ["difference", "low", "high", "p", "p_holm"]
        table = table.merge(pairs[[*keys, *columns]], on=keys, how="left", validate="one_to_one")
    return table


def cell(summary: pd.DataFrame, backbone: str, supervision: str, weight: float, quantity: Quantity) -> pd.Series:
    """The one row of `summarise` for a run's cell and a quantity."""
    here = (summary["backbone"] == backbone) & (summary["supervision"] == supervision)
    here &= (summary["lambda"] - weight).abs() < 1e-9
    for column, value in zip(PLACE, quantity.key, strict=True):
        here &= summary[column] == value
    return summary[here].iloc[0]


def of(summary: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """All rows of `summarise` for one quantity."""
    here = summary["benchmark"] == quantity.benchmark
    return summary[here & (summary["metric"] == quantity.metric) & (summary["group"] == quantity.group)]


def seeds_text(summary: pd.DataFrame) -> str:
    """How many seeds stand behind each point: "3 seeds", "1 seed" or "1 to 3 seeds"."""
    low, high = int(summary["n"].min()), int(summary["n"].max())
    return f"{low} to {high} seeds" if low != high else f"{high} seed{'s' if high != 1 else ''}"


def spread_text(summary: pd.DataFrame) -> str:
    """What the spread is, or that there is none: with one seed nothing can be said about it."""
    if int(summary["n"].max()) == 1:
        return "one seed per point (n = 1), so no spread is shown"
    return f"mean ± standard deviation over n = {seeds_text(summary)}"


def _refuse_holes(scores: pd.DataFrame, quantities: Sequence[Quantity]) -> None:
    runs = scores[CELL].drop_duplicates()
    have = set(scores[[*CELL, *PLACE]].itertuples(index=False, name=None))
    missing = [
        f"{run[0]} {run[1]}-{run[2]:g}: {'/'.join(filter(None, quantity.key))}"
        for run in runs.itertuples(index=False, name=None)
        for quantity in quantities
        if (*run, *quantity.key) not in have and not (quantity.needs_point and run[1] == "none")
    ]
    if missing:
        raise DataError(
            f"scores: expected every run to have every benchmark, found {len(missing)} empty cells: "
            f"{'; '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. Score these runs and collect again."
        )
