"""The report's training curves: one panel per backbone and quantity, one line per run."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from luab.errors import DataError
from luab.render.style import backbone_name
from luab.study.paths import Run

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 10, 40
MOST_POINTS = 120
"""Points per line: more are not visible at this width, and fewer keep the page small."""


@dataclasses.dataclass(frozen=True)
class Line:
    """The line of one run."""

    run: str
    supervision: str
    points: str  # in SVG's format
    last: float


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of `WIDTH` x `HEIGHT`; ticks are (place, text)."""

    title: str
    part: str  # heading that it stands under: classification or byproducts
    axis: str  # title of the vertical axis
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


CLASSIFICATION, BYPRODUCTS = "Classification", "Byproducts"
_TITLES = {
    "loss": "loss",
    "classification": "classification loss",
    "byproduct": "byproduct loss, before λ",
    "points": "visible points per image",
}


def panels(runs: Sequence[Run], logs: Mapping[Run, Path]) -> list[Panel]:
    """Panels by part, then in the order of the runs, one for each quantity that a log of the backbone has.

    The sum of the terms is left out where the log has the terms: it differs between runs by λ alone. Panels of one data
    set and quantity have equal axes.
    """
    rows = {run: read_log(logs[run], ("epoch",)) for run in runs}
    curves: dict[tuple[str, str, str], dict[Run, list[tuple[float, float]]]] = {}
    for dataset, backbone in dict.fromkeys((run.dataset, run.backbone) for run in runs):
        own = [run for run in runs if (run.dataset, run.backbone) == (dataset, backbone)]
        logged = {run: quantities(rows[run]) for run in own}
        columns = list(dict.fromkeys(name for names in logged.values() for name in names))
        for column in (name for name in columns if name != "loss" or "classification" not in columns):
            values = {run: _curve(rows[run], column) for run in own if column in logged[run]}
            curves[dataset, backbone, column] = values
    drawn = []
    for (dataset, backbone, column), values in curves.items():
        alike = [other for key, other in curves.items() if (key[0], key[2]) == (dataset, column)]
        frame = [pair for other in alike for curve in other.values() for pair in curve]
        drawn.append(_panel(f"{dataset}, {backbone_name(backbone)}", column, values, frame))
    return sorted(drawn, key=lambda panel: panel.part != CLASSIFICATION)


def quantities(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the columns of a log that describe its training: all but epoch and lr that are not empty and not 0.

    Logs of older versions have byproduct and points for baselines too, and all their values are 0.
    """
    names = [name for name in rows[0] if name not in ("epoch", "lr")]
    return [name for name in names if any(value for _, value in _finite(rows, name))]


def title(column: str) -> str:
    """Name of a quantity for people; of an unknown one, its column with blanks."""
    return _TITLES.get(column, column.replace("_", " "))


def read_log(log: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of log.csv of a training, one per epoch, as text.

    Raises:
        DataError: The log is missing, empty or lacks one of these columns.
    """
    try:
        with open(log, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{log}: cannot read this training log ({error.strerror}). Train the run.") from error
    if not rows or not set(columns) <= rows[0].keys():
        raise DataError(f"{log}: the training log has no rows with {', '.join(columns)}. Train the run again.")
    return rows


def _finite(rows: Sequence[Mapping[str, str]], column: str) -> list[tuple[float, float]]:
    """(epoch, value) of the finite values."""
    pairs = [(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    return [pair for pair in pairs if math.isfinite(pair[1])]


def _curve(rows: list[dict[str, str]], column: str) -> list[tuple[float, float]]:
    """(epoch, value) of at most `MOST_POINTS` finite values, evenly spaced, the last one included."""
    finite = _finite(rows, column)
    places = np.linspace(0, len(finite) - 1, min(len(finite), MOST_POINTS)).round().astype(int)
    return [finite[place] for place in places]


def _panel(
    where: str, column: str, values: dict[Run, list[tuple[float, float]]], frame: list[tuple[float, float]]
) -> Panel:
    points = np.array(frame)
    x_ticks, x0, x1 = _axis(points[:, 0], whole=True)
    y_ticks, y0, y1 = _axis(points[:, 1], whole=False)

    def place_x(epoch: float) -> float:
        return round(LEFT + (epoch - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT), 1)

    def place_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        Line(run.folder, run.supervision, " ".join(f"{place_x(x)},{place_y(y)}" for x, y in curve), curve[-1][1])
        for run, curve in values.items()
    ]
    x_texts = [(place_x(tick), f"{tick:g}") for tick in x_ticks]
    y_texts = [(place_y(tick), f"{tick:g}") for tick in y_ticks]
    part = CLASSIFICATION if column in ("loss", "classification") else BYPRODUCTS
    return Panel(f"{where}: {title(column)}", part, title(column), x_texts, y_texts, lines)


def _axis(values: np.ndarray, whole: bool) -> tuple[list[float], float, float]:
    """Ticks within the range of the values, and the range, which is widened if all values are equal."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        room = 0.5 if whole else abs(low) / 10 or 1.0
        low, high = low - room, high + room
    ticks = MaxNLocator(5, integer=whole).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high], low, high
