"""Collects all score files of a study into one tidy table; missing, duplicate and foreign files are errors."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.benchmarks.benchmark import RUN_KEYS
from luab.errors import DataError
from luab.files import content_sha256, read_json, write_csv

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (*RUN_KEYS, "benchmark", "metric", "group", "value", "n", "protocol")
_KEYS = ("benchmark", "protocol", "run", "n", "ids_sha256", "metrics", "details")
_PARSERS: dict[str, Any] = {"lambda": float, "seed": int, "value": float, "n": int}
_MOST_PROBLEMS_SHOWN = 20

Cell = Mapping[str, Any]


def collect(expected: Iterable[Cell], scores_folder: Callable[[Cell], Path | str], output_csv: Path | str) -> int:
    """Writes one sorted row per run, benchmark, metric and group; equal inputs give equal bytes.

    Args:
        expected: Every run and benchmark of the study: dataset, backbone, supervision, lambda, seed and "benchmark".
        scores_folder: Returns the folder of a run's score files, which are called <benchmark>.json.
        output_csv: Has COLUMNS. The group is empty for the metrics of a whole benchmark.

    Returns:
        The number of rows.

    Raises:
        DataError: A file is missing, listed twice or belongs to another run or benchmark; runs scored different images;
            or numbers are duplicate or not finite. The message lists all problems.
    """
    cells = list(expected)
    problems = [f"listed twice: {name}" for name, times in Counter(map(_name, cells)).items() if times > 1]
    contents: list[tuple[Cell, dict[str, Any]]] = []
    for cell in cells:
        content, faults = _read_cell(cell, Path(scores_folder(cell)) / f"{cell['benchmark']}.json")
        problems += faults
        if content is not None:
            contents.append((cell, content))
    problems += _differing(contents)
    if problems:
        lines = problems[:_MOST_PROBLEMS_SHOWN]
        if len(problems) > len(lines):
            lines.append(f"... and {len(problems) - len(lines)} more")
        raise DataError(
            "Scores: expected one valid score file for every run and benchmark of the study, all on the same images; "
            f"{len(problems)} problems:\n  "
            + "\n  ".join(lines)
            + "\nRemove wrong files, then run Snakemake again to create the missing ones."
        )
    rows = sorted(row for cell, content in contents for row in _rows(cell, content))
    write_csv(output_csv, COLUMNS, rows)
    return len(rows)


def read_scores(path: Path | str) -> "pd.DataFrame":
    """Reads the tidy table: text columns as text ("none" stays "none"), lambda and value as float, seed and n as int.

    Raises:
        DataError: The file is missing, is not a table, or has other columns.
    """
    import pandas as pd

    path = Path(path)
    remedy = "Create it with Snakemake or `luab collect`; do not edit it by hand."
    if not path.is_file():
        raise DataError(f"{path}: the table of all scores does not exist. {remedy}")
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except ValueError as error:
        raise DataError(f"{path}: not a readable table of scores ({error}). {remedy}") from error
    if tuple(table.columns) != COLUMNS:
        raise DataError(
            f"{path}: expected the columns {', '.join(COLUMNS)}; found {', '.join(table.columns)}. {remedy}"
        )
    try:
        # Python's own parsers invert repr; the parser of pandas is not exact in every version.
        parsed = {name: [parse(text) for text in table[name]] for name, parse in _PARSERS.items()}
    except ValueError as error:
        raise DataError(f"{path}: a value in {', '.join(_PARSERS)} is not a number ({error}). {remedy}") from error
    return table.assign(**{name: pd.Series(values, dtype=_PARSERS[name]) for name, values in parsed.items()})


def _read_cell(cell: Cell, path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The content of a score file, or None, and the problems with it."""
    if not path.is_file():
        return None, [f"missing: {_name(cell)} ({path})"]
    content = read_json(path)
    if not isinstance(content, dict) or (absent := [key for key in _KEYS if key not in content]):
        lacking = absent if isinstance(content, dict) else _KEYS
        return None, [f"not a score file, lacks {', '.join(lacking)}: {path}"]
    digest = content.pop("sha256", None)
    if digest not in (None, content_sha256(content)):
        return None, [f"damaged: {path}: its SHA-256 is not the one that it names. Remove it and score again"]
    run = {key: cell[key] for key in RUN_KEYS}
    if content["run"] != run or content["benchmark"] != cell["benchmark"]:
        actual = f"{content['benchmark']} of {content['run']}"
        return None, [f"another run's: {path} should contain {_name(cell)} but contains {actual}"]
    return content, _bad_numbers(cell, content)


def _bad_numbers(cell: Cell, content: dict[str, Any]) -> list[str]:
    numbers = [(f"{metric} {group}".rstrip(), value) for metric, group, value, _ in _numbers(content)]
    bad = [f"{name} is {v!r}" for name, v in numbers if not isinstance(v, int | float) or not math.isfinite(v)]
    bad += [f"{name} twice" for name, times in sorted(Counter(name for name, _ in numbers).items()) if times > 1]
    if not numbers:
        bad.append("no numbers")
    return [f"unusable: {_name(cell)}: {', '.join(bad)}"] if bad else []


def _differing(contents: list[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """Runs whose images differ from those of the benchmark's first run, or whose protocol from the backbone's first."""
    first: dict[tuple[str, ...], tuple[str, Any]] = {}
    problems = []
    for cell, content in contents:
        benchmark = (cell["dataset"], cell["benchmark"])
        for key, problem, value in (
            ((*benchmark, "images"), "scored other images", (content["n"], content["ids_sha256"])),
            ((*benchmark, "protocol", cell["backbone"]), "used another protocol", content["protocol"]),
        ):
            name, expected = first.setdefault(key, (_name(cell), value))
            if value != expected:
                problems.append(f"{problem}: {_name(cell)} has {_short(value)}, {name} has {_short(expected)}")
    return problems


def _rows(cell: Cell, content: dict[str, Any]) -> list[tuple[Any, ...]]:
    head = (cell["dataset"], cell["backbone"], cell["supervision"], float(cell["lambda"]), int(cell["seed"]))
    return [
        (*head, cell["benchmark"], metric, group, float(value), int(n), content["protocol"])
        for metric, group, value, n in _numbers(content)
    ]


def _numbers(content: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """(metric, group, value, n) of all numbers in a score file."""
    own = [(metric, "", value, content["n"]) for metric, value in content["metrics"].items()]
    parts = [(part["metric"], part["group"], part["value"], part["n"]) for part in content["details"]]
    return own + parts


def _name(cell: Cell) -> str:
    return "{dataset}/{backbone}/{supervision}-{lambda:g}/seed{seed} {benchmark}".format_map(cell)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        n, digest = value
        return f"{n} images, digest {str(digest)[:12]}"
    return repr(value)
