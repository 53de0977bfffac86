"""Summaries of scores for tables and figures: mean, spread, difference to the baseline, and what is missing."""

from collections.abc import Iterable, Sequence

import pandas as pd

from luab.benchmarks.formula import CENTRE, CHANCE, PERSON, WHOLE
from luab.comparison.over_seeds import difference_to_baseline, mean_std
from luab.errors import DataError
from luab.render import style
from luab.render.quantities import BOTH_INTERFACES, FOLDER_TESTS, Quantity

CELL = ["backbone", "supervision", "lambda"]
PLACE = ["benchmark", "metric", "group"]
SIGNIFICANT = 0.05
CONTROLS = (CHANCE, CENTRE, WHOLE)
"""Controls that a model should exceed; a person is none of them."""


def interface_numbers(browsing: pd.DataFrame, tagging: pd.DataFrame) -> pd.DataFrame:
    """The statistics (columns statistic, value, unit, n) of both interfaces, matched by meaning.

    Returns:
        Columns title, interface, statistic, value, unit, n; two rows per title, browsing first. If an interface lacks
        the number, its statistic is empty and its value NaN.

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
                raise DataError(f"{interface}: the statistic {name} is missing. Render its table again.")
    return pd.DataFrame(rows, columns=["title", "interface", "statistic", "value", "unit", "n"])


def present(scores: pd.DataFrame, quantities: Sequence[Quantity], product: str) -> list[Quantity]:
    """The quantities that the scores contain, in the order given; DataError, which names the product, without any."""
    scored = set(scores[PLACE].itertuples(index=False, name=None))
    shown = [quantity for quantity in quantities if quantity.key in scored]
    if not shown:
        required = ", ".join(sorted({quantity.benchmark for quantity in quantities}))
        raise DataError(
            f"{product}: requires scores of at least one of the benchmarks {required}, found "
            f"{', '.join(sorted(set(scores['benchmark']))) or 'none'}. Add one to `suites` in the configuration."
        )
    return shown


def own_tests(scores: pd.DataFrame) -> list[str]:
    """Names of the test sets of the user's own in scores, sorted."""
    here = (scores["benchmark"] == FOLDER_TESTS[0].benchmark) & (scores["metric"] == FOLDER_TESTS[0].metric)
    return sorted(set(scores.loc[here, "group"]) - {""})


def only(scores: pd.DataFrame, quantities: Iterable[Quantity]) -> pd.DataFrame:
    """The rows of the scores for these quantities."""
    keys = pd.MultiIndex.from_tuples([quantity.key for quantity in quantities], names=PLACE)
    return scores[pd.MultiIndex.from_frame(scores[PLACE]).isin(keys)]


def has_lambda(scores: pd.DataFrame, weight: float) -> "pd.Series[bool]":
    """Whether each row has this lambda; the baseline has 0."""
    return (scores["lambda"] - weight).abs() < 1e-9


def at_headline(scores: pd.DataFrame, headline_lambda: float) -> pd.DataFrame:
    """The baseline and every supervision at the headline lambda; DataError if no supervised run has that lambda."""
    baseline = scores["supervision"] == "none"
    headline = ~baseline & has_lambda(scores, headline_lambda)
    if not headline.any() and not baseline.all():
        trained = ", ".join(f"{value:g}" for value in sorted(scores.loc[~baseline, "lambda"].unique()))
        raise DataError(
            f"scores: expected runs at the headline lambda {headline_lambda:g}, found lambda {trained}. "
            "Set `luab_lambda` to one of these, or train at it."
        )
    return scores[baseline | headline]


def swept_backbones(scores: pd.DataFrame) -> list[str]:
    """Backbones with a supervision that was trained at several lambdas; DataError without any."""
    counts = scores.groupby(["backbone", "supervision"])["lambda"].nunique()
    swept = [backbone for (backbone, _), n in counts.items() if n > 1]
    if not swept:
        raise DataError(
            "lambda_sweep: requires a backbone with several lambdas; the scores have one lambda per supervision. "
            "Add backbones to `sweep` in the configuration."
        )
    return style.backbone_order(swept)


def summarise(scores: pd.DataFrame, quantities: Sequence[Quantity], diffs: bool = True) -> pd.DataFrame:
    """Mean, spread and, with `diffs`, difference to the baseline of every run and quantity.

    Returns:
        One row per backbone, supervision, lambda and quantity: mean, std (over seeds; NaN for one), n (seeds), images
        (of the test set), protocol, difference, low, high, p, p_holm (NaN for the baseline; from
        luab.comparison.over_seeds); `sure`, whether there is an interval, and it excludes 0; and `significant`, whether
        the corrected p, or p where none is corrected, is below 0.05.

    Raises:
        DataError: A run lacks a quantity that other runs have.
    """
    chosen = only(scores, quantities)
    _refuse_holes(scores, quantities)
    keys = [*CELL, *PLACE]
    table = mean_std(chosen)[[*keys, "mean", "std", "n"]]
    about = chosen.groupby(keys, as_index=False).agg(images=("n", "max"), protocol=("protocol", "first"))
    table = table.merge(about, on=keys, validate="one_to_one")
    if not diffs:
        return table
    columns = ["difference", "low", "high", "p", "p_holm"]
    # Holm's correction is over all benchmarks of a method, not over those of one table.
    everything = pd.concat([scores[scores["group"] == ""], chosen])
    pairs = difference_to_baseline(everything[~everything.index.duplicated()])
    if pairs.empty:
        return table.assign(**dict.fromkeys(columns, float("nan")), sure=False, significant=False)
    table = table.merge(pairs[[*keys, *columns]], on=keys, how="left", validate="one_to_one")
    significant = table["p_holm"].fillna(table["p"]) < SIGNIFICANT
    return table.assign(sure=(table["low"] > 0) | (table["high"] < 0), significant=significant)


def controls_of(scores: pd.DataFrame) -> dict[str, dict[tuple[str, str, str], float]]:
    """Values of the controls in scores, people included, by control and by the place of the number they belong to."""
    found: dict[str, dict[tuple[str, str, str], float]] = {}
    for control in (*CONTROLS, PERSON):
        rows = scores[scores["metric"] == control]
        means = rows.groupby(["benchmark", "group"])["value"].mean()
        if len(means):
            found[control] = {(benchmark, metric, ""): value for (benchmark, metric), value in means.items()}
    return found


def no_better(row: pd.Series, quantity: Quantity, controls: Iterable[float]) -> bool:
    """Whether a mean is no better than one of its controls, by less than 1.96 standard errors of a share."""
    for control in controls:
        share = not quantity.lower and 0 < control < 1
        margin = 1.96 * (control * (1 - control) / row["images"]) ** 0.5 if share else 0.0
        if (row["mean"] - control) * quantity.gain_sign <= margin:
            return True
    return False


def of(summary: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows of a summary for one quantity."""
    here = summary["benchmark"] == quantity.benchmark
    return summary[here & (summary["metric"] == quantity.metric) & (summary["group"] == quantity.group)]


def span(counts: pd.Series) -> str:
    """The range of counts: "3", or "1 to 3"."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def spread_text(summary: pd.DataFrame) -> str:
    """What the spread is, or that one seed has none."""
    if summary["n"].max() == 1:
        return "one seed per point (n = 1), so no spread is shown"
    return f"mean ± standard deviation over n = {span(summary['n'])} seeds"


def intervals_text(summary: pd.DataFrame) -> str:
    """What the intervals are, or that one seed has none."""
    if summary["n"].max() == 1:
        return "no intervals, since n = 1 seed"
    return f"95 % intervals, n = {span(summary['n'])} seeds"


def difference_text(row: pd.DataFrame) -> str:
    """The difference to the baseline: "+0.9 [+0.5, +1.3], p = 0.003"; "+0.9 (n = 1)" without interval."""
    if row.empty or pd.isna(row.iloc[0]["difference"]):
        return "–"
    first = row.iloc[0]
    shown, low, high = (style.percent(first[name], signed=True) for name in ("difference", "low", "high"))
    if pd.isna(first["low"]):
        return f"{shown} (n = {int(first['n'])})"
    p = first["p"] if pd.isna(first["p_holm"]) else first["p_holm"]
    return f"{shown} [{low}, {high}], " + ("p < 0.001" if p < 0.001 else f"p = {p:.3f}")


def _refuse_holes(scores: pd.DataFrame, quantities: Sequence[Quantity]) -> None:
    runs = scores[CELL].drop_duplicates()
    have = set(scores[[*CELL, *PLACE]].itertuples(index=False, name=None))
    missing = [
        f"{run[0]} {run[1]}-{run[2]:g}: {'/'.join(filter(None, quantity.key))}"
        for run in runs.itertuples(index=False, name=None)
        for quantity in quantities
        if (*run, *quantity.key) not in have and not quantity.needs_point  # not every use of byproducts predicts one
    ]
    if missing:
        raise DataError(
            f"scores: {len(missing)} numbers are missing that other runs have: "
            f"{'; '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. Score these runs and collect again."
        )
