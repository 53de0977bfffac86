"""The answer of a study beside the main one: its comparisons, and sentences that are computed from them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from luab.comparison.over_seeds import difference_to, holm
from luab.render import quantities as q
from luab.render import style, summaries
from luab.render.products import controls_of
from luab.render.report.curves import read_log
from luab.study.paths import Run
from luab.study.question import Question
from luab.study.supervisions import BASELINE, CONTROLS, Supervision

RATIO = "byproduct_gradient_ratio"
"""Column of log.csv: norm of the gradient of the weighted byproduct loss divided by that of the classification."""
_KINDS = {
    "jitter": "jitter",
    "centre_bias": "centre bias",
    "keep": "share of the clicks",
    "wrong": "share of exchanged clicks",
    "after_ms": "shortest time in ms",
    "workers": "half of the workers",
}


class Level(NamedTuple):
    """A level of one kind of noise.

    Attributes:
        supervision: Name of the entry.
        value: Setting of the noise; NaN for a choice of workers.
        text: The setting for people.
    """

    supervision: str
    value: float
    text: str


def comparisons(
    scores: pd.DataFrame, question: Question, headline_lambda: float, entries: Mapping[str, Supervision]
) -> pd.DataFrame:
    """Paired differences between every supervision and those that the study compares it with.

    Args:
        scores: Tidy scores of one data set, see `luab.render.tables.scores_of`.
        question: The study; `compares: lambda` compares every lambda, the others the headline lambda alone.
        headline_lambda: Lambda of the main tables, and of the controls.
        entries: Supervisions of the data set, from which `compares: uses` finds the controls of each use.

    Returns:
        One row per backbone, supervision, lambda, control and number: difference, low, high (95 % interval), p, n
        (seeds), images, p_holm (over the rows of one backbone, number and control; of all backbones if these are what
        is compared, and of the controls of all uses that have the same points), tests (how many that are), gain
        (difference, positive if better) and verdict: "better", "worse" or "equal", by p_holm or, where there is no p,
        "equal". Sorted as the scores. A number that one of both lacks, such as the baseline's point, has no row.

    Raises:
        DataError: The scores have none of the numbers that answer.
    """
    shown = summaries.present(scores, answering(scores, question), "answers")
    chosen = summaries.only(scores, shown)
    found = [
        difference_to(pair, method, control).assign(control=control)
        for method, control, pair in _pairs(chosen, question, headline_lambda, entries)
    ]
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["benchmark", "metric", "group"])
    if table.empty:
        return table
    roles = table["control"].map(lambda control: _role(control, question, entries)).rename("role")
    family = [roles, *(table[key] for key in summaries.PLACE)]
    family += [table["backbone"]] if question.compares != "backbones" else []
    table["p_holm"] = table.groupby(family)["p"].transform(lambda p: holm(p.to_numpy(dtype=float)))
    table["tests"] = table.groupby(family)["p"].transform("count")
    images = chosen.groupby(summaries.PLACE)["n"].max().rename("images").reset_index()
    signs = {quantity.key: quantity.gain_sign for quantity in shown}
    table = table.merge(images, on=summaries.PLACE, how="left")
    table["gain"] = [signs[key] for key in table[summaries.PLACE].itertuples(index=False, name=None)]
    table["gain"] *= table["difference"]
    better = np.where(table["gain"] > 0, "better", "worse")
    return table.assign(verdict=np.where(table["p_holm"] < summaries.SIGNIFICANT, better, "equal"))


def answering(rows: pd.DataFrame, question: Question) -> tuple[q.Quantity, ...]:
    """The quantities that answer a question, given scores or comparisons of one data set, which are not empty."""
    return q.answering(str(rows["dataset"].iloc[0]), question.also, summaries.own_tests(rows))


def sentences(
    table: pd.DataFrame,
    question: Question,
    entries: Mapping[str, Supervision],
    ratios: Mapping[tuple[str, float], float],
) -> list[str]:
    """The answer in sentences, one per number and, unless backbones are compared, backbone.

    Args:
        table: From `comparisons`.
        question: The study.
        entries: Supervisions of the data set.
        ratios: Gradient ratio by backbone and lambda, from `gradient_ratios`; used with `compares: lambda`.
    """
    if table.empty:
        return []
    words: list[str] = []
    for quantity in answering(table, question):
        rows = summaries.of(table, quantity)
        if question.compares == "backbones":
            words += [_of_backbones(of, quantity, entries) for _, of in rows.groupby("control", sort=False)]
            continue
        for backbone, of in rows.groupby("backbone", sort=False):
            head = f"{style.backbone_name(str(backbone))}, {quantity.title}: "
            text = _answer(
                of, question, entries, {weight: r for (name, weight), r in ratios.items() if name == backbone}
            )
            words.append(f"{head}{text} {_about(of)}")
    return words


def noise_levels(entries: Mapping[str, Supervision]) -> dict[str, list[Level]]:
    """Levels of each kind of noise, the weakest first; level 0 (of keep, 1) is the entry without noise.

    Entries with several kinds of noise, and kinds of which there is no entry without noise, are left out.
    """
    levels: dict[str, list[Level]] = {}
    for name, entry in entries.items():
        kinds = {kind: value for kind, value in entry.noise.settings.items() if kind != "seed"}
        clean = [other for other, one in entries.items() if _like(one, entry) and not one.noise.settings]
        if len(kinds) != 1 or not clean:
            continue
        [(kind, value)] = kinds.items()
        none = Level(clean[0], 1.0 if kind == "keep" else 0.0, "1" if kind == "keep" else "0")
        if kind == "workers":
            levels.setdefault(kind, []).append(Level(name, float("nan"), title_of(name, entries)))
        else:
            levels.setdefault(kind, [none]).append(Level(name, float(value), f"{value:g}"))
    order = [kind for kind in _KINDS if kind in levels]
    return {kind: sorted(levels[kind], key=lambda level: _severity(kind, level)) for kind in order}


def gradient_ratios(logs: Mapping[Run, Path]) -> dict[tuple[str, float], float]:
    """Gradient ratio by backbone and lambda: the median over the epochs of a run, and the mean of these over seeds.

    Runs whose log has no such column, or no finite value in it, are left out.
    """
    found: dict[tuple[str, float], list[float]] = {}
    for run, log in logs.items():
        values = [float(row[RATIO]) for row in read_log(log, ("epoch",)) if row.get(RATIO)]
        if values:
            found.setdefault((run.backbone, run.weight), []).append(statistics.median(values))
    return {key: statistics.fmean(values) for key, values in found.items()}


def kind_title(kind: str) -> str:
    """Name of a kind of noise for people."""
    return _KINDS[kind]


def title_of(name: str, entries: Mapping[str, Supervision]) -> str:
    """Title of a supervision; its name if it has none."""
    return (entries[name].title or name) if name in entries else name


def _role(control: str, question: Question, entries: Mapping[str, Supervision]) -> str:
    """What a control is: its name or, for controls of uses and of certain points, its kind."""
    if question.compares == "uses" and control != BASELINE:
        return f"{entries[control].points} of its use"
    entry = entries.get(control)
    return control if entry is None or entry.of == "click" else f"{entry.points} of its points"


def _against(method: str, question: Question, entries: Mapping[str, Supervision]) -> Sequence[str]:
    """What a supervision is compared with; nothing if it is itself a control."""
    if question.compares == "uses":
        return [name for name in controls_of(entries).get(method, ()) if entries[name].points in question.against]
    points = entries[method].points if method in entries else method
    if method not in (question.compared or []) and (question.compared or points in (BASELINE, *CONTROLS)):
        return ()
    before = question.against[: question.against.index(method)] if method in question.against else question.against
    return [name for name in before if _is_for(entries.get(name), points)]


def _is_for(control: Supervision | None, points: str) -> bool:
    """Whether a control is for these points; shuffled points that are not of the clicks are for their own alone."""
    return control is None or control.points != "shuffled" or control.of in ("click", points)


def _pairs(
    scores: pd.DataFrame, question: Question, headline_lambda: float, entries: Mapping[str, Supervision]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Supervision, control and the scores of both, for each lambda that is compared, backbone after backbone."""
    at_headline = summaries.has_lambda(scores, headline_lambda)
    compared = at_headline | (question.compares == "lambda")
    of_controls = at_headline | (scores["supervision"] == BASELINE)
    for backbone in style.backbone_order(scores["backbone"].unique()):
        of_backbone = scores["backbone"] == backbone
        for method in dict.fromkeys(scores.loc[of_backbone, "supervision"]):
            against = _against(method, question, entries)
            mine = scores[of_backbone & compared & (scores["supervision"] == method)]
            for weight in sorted(mine["lambda"].unique()):
                for control in against:
                    other = scores[of_backbone & of_controls & (scores["supervision"] == control)]
                    if len(other):
                        yield method, control, pd.concat([mine[mine["lambda"] == weight], other])


def _answer(
    rows: pd.DataFrame, question: Question, entries: Mapping[str, Supervision], ratios: Mapping[float, float]
) -> str:
    if question.compares == "noise":
        return _of_noise(rows, entries)
    if question.compares == "lambda":
        return _of_lambda(rows, entries, ratios)
    parts = []
    for method, of in rows.groupby("supervision", sort=False):
        against = [f"{_verdict(row)} {title_of(row['control'], entries)} ({_number(row)})" for _, row in of.iterrows()]
        parts.append(f"{title_of(str(method), entries)} is {_listed(against)}")
    return f"{'; '.join(parts)}."


def _of_noise(rows: pd.DataFrame, entries: Mapping[str, Supervision]) -> str:
    parts = []
    for kind, levels in noise_levels(entries).items():
        against = [_held(rows[rows["control"] == control], levels, entries) for control in rows["control"].unique()]
        parts.append(f"{_KINDS[kind]}: {_listed([text for text in against if text])}")
    return f"{'; '.join(parts)}."


def _held(rows: pd.DataFrame, levels: Sequence[Level], entries: Mapping[str, Supervision]) -> str:
    """At which levels the points are better than one control, with the number of the last of these."""
    by = {str(row["supervision"]): row for _, row in rows.iterrows()}
    there = [level for level in levels if level.supervision in by]
    if not there:
        return ""
    control = title_of(str(rows["control"].iloc[0]), entries)
    better = [level for level in there if by[level.supervision]["verdict"] == "better"]
    if not better:
        return f"better than {control} at no level"
    shown = f"{better[-1].text}: {_number(by[better[-1].supervision])}"
    if len(better) == len(there):
        return f"better than {control} at every level (at {shown})"
    others = ", ".join(level.text for level in there if level not in better)
    return f"better than {control} at {', '.join(level.text for level in better)} (at {shown}), not at {others}"


def _of_lambda(rows: pd.DataFrame, entries: Mapping[str, Supervision], ratios: Mapping[float, float]) -> str:
    parts = []
    for (method, control), of in rows.groupby(["supervision", "control"], sort=False):
        best = of.loc[of["gain"].idxmax()]
        ratio = f"; gradient ratio {ratios[best['lambda']]:.2g}" if best["lambda"] in ratios else ""
        at = {verdict: ", ".join(f"{w:g}" for w in of.loc[of["verdict"] == verdict, "lambda"]) for verdict in _WORDS}
        better, worse = (f"at λ = {at[name]}" if at[name] else "at no λ" for name in ("better", "worse"))
        one, other = title_of(str(method), entries), title_of(str(control), entries)
        parts.append(
            f"of {len(of)} λ, {one} is better than {other} {better} and worse {worse}; "
            f"the largest gain is at λ = {best['lambda']:g} ({_number(best)}{ratio})"
        )
    return f"{_listed(parts)}."


def _of_backbones(rows: pd.DataFrame, quantity: q.Quantity, entries: Mapping[str, Supervision]) -> str:
    parts, control = [], title_of(str(rows["control"].iloc[0]), entries)
    for method, of in rows.groupby("supervision", sort=False):
        names = {
            verdict: _listed([style.backbone_name(name) for name in of.loc[of["verdict"] == verdict, "backbone"]])
            for verdict in _WORDS
        }
        counts = of["verdict"].value_counts()
        better, worse = (
            f"{counts.get(name, 0)}{f' ({names[name]})' if names[name] else ''}" for name in ("better", "worse")
        )
        most, least = of.loc[of["gain"].idxmax()], of.loc[of["gain"].idxmin()]
        first, last = (f"{_number(row)} with {style.backbone_name(row['backbone'])}" for row in (least, most))
        parts.append(
            f"with {title_of(str(method), entries)}, of {len(of)} backbones {better} are better than with {control} "
            f"and {worse} worse; from {first} to {last}"
        )
    return f"{quantity.title}: {'; '.join(parts)}. {_about(rows)}"


_WORDS = {"better": "better than", "worse": "worse than", "equal": "not significantly different from"}


def _verdict(row: pd.Series) -> str:
    return _WORDS[str(row["verdict"])]


def _number(row: pd.Series) -> str:
    """The difference with its interval and p: "+1.0 [+0.5, +1.5], p = 0.003"."""
    shown, low, high = (style.percent(row[name], signed=True) for name in ("difference", "low", "high"))
    if pd.isna(row["low"]):
        return f"{shown}, no interval"
    return f"{shown} [{low}, {high}], " + ("p < 0.001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.3f}")


def _about(rows: pd.DataFrame) -> str:
    """What the numbers of a sentence are: unit, n, tests."""
    n, tests = summaries.span(rows["n"]), summaries.span(rows["tests"])
    corrected = f"; p: paired t-test, Holm's correction over {tests} tests" if rows["p"].notna().any() else ""
    return (
        f"Differences in percentage points with 95 % intervals; n = {n} {'seed' if n == '1' else 'seeds'}, "
        f"{summaries.span(rows['images'])} images{corrected}."
    )


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _like(one: Supervision, other: Supervision) -> bool:
    return all(getattr(one, key) == getattr(other, key) for key in ("points", "of", "use", "settings", "head"))


def _severity(kind: str, level: Level) -> Any:
    return level.text if kind == "workers" else -level.value if kind == "keep" else level.value
