"""All score files of a study in one tidy table; a missing, double or foreign cell is refused."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.benchmarks.benchmark import RUN_KEYS
from luab.errors import DataError
from luab.files import read_json, replacing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (*RUN_KEYS, "benchmark", "metric", "group", "value", "n", "protocol")
SCORES_PATTERN = "results/runs/{dataset}/{backbone}/{supervision}-{lambda:g}/seed{seed}/scores"
_KEYS = ("benchmark", "protocol", "run", "n", "ids_sha256", "metrics", "details")
_PARSERS: dict[str, Callable[[str], float | int]] = {"lambda": float, "seed": int, "value": float, "n": int}
_TYPES: dict[str, Any] = {"lambda": "float64", "seed": "int64", "value": "float64", "n": "int64"}
_SHOWN = 20

Cell = Mapping[str, Any]


def collect(expected: Iterable[Cell], scores_root: Callable[[Cell], Path | str] | str, output_csv: Path | str) -> int:
    """Writes one row per run, benchmark, metric and group, sorted.

    The same files give the same bytes. Group is empty for a benchmark's own metrics.

    Args:
        expected: Every cell of the study: the run's keys (dataset, backbone, supervision, lambda, seed)
            and "benchmark".
        scores_root: The folder of a run's score files: a function of the cell, or a pattern such as
            SCORES_PATTERN. Its files are <benchmark>.json.
        output_csv: Columns as in COLUMNS; UTF-8, "\\n", numbers by repr so that nothing is lost.

    Returns:
        The number of rows.

    Raises:
        DataError: Lists all that is wrong at once: cells missing or asked for twice, files of another run or
            benchmark, runs that scored other images than the rest, numbers given twice or not finite.
    """
    folder_of = scores_root if callable(scores_root) else scores_root.format_map
    cells = list(expected)
    problems = _doubles(cells)
    found: list[tuple[Cell, dict[str, Any]]] = []
    for cell in cells:
        content, wrong = _read_cell(cell, Path(folder_of(cell)) / f"{cell['benchmark']}.json")
        problems += wrong
        if content is not None:
            found.append((cell, content))
    problems += _differing(found)
    _refuse(problems)
    rows = sorted(row for cell, content in found for row in _rows(cell, content))
    _write(rows, output_csv)
    return len(rows)


def read_scores(path: Path | str) -> "pd.DataFrame":
    """The tidy table: text columns as text ("none" stays "none"), lambda and value float, seed and n int.

    Raises:
        DataError: The file is missing, is not such a table, or has other columns.
    """
    import pandas as pd

    path = Path(path)
    remedy = "Make it with Snakemake or `luab score`; do not edit it by hand."
    if not path.is_file():
        raise DataError(f"{path}: expected the table of all scores; it is not there. {remedy}")
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except ValueError as error:
        raise DataError(f"{path}: expected a table of scores, could not read it ({error}). {remedy}") from error
    if tuple(table.columns) != COLUMNS:
        raise DataError(
            f"{path}: expected the columns {', '.join(COLUMNS)}; found {', '.join(table.columns)}. {remedy}"
        )
    try:
        # Python's own parsers: repr came from them, and pandas' is not exact in every version.
        parsed = {name: [parse(text) for text in table[name]] for name, parse in _PARSERS.items()}
    except ValueError as error:
        raise DataError(f"{path}: expected numbers in {', '.join(_PARSERS)}; {error}. {remedy}") from error
    return table.assign(**{name: pd.Series(values, dtype=_TYPES[name]) for name, values in parsed.items()})


def _read_cell(cell: Cell, path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The content of a cell's file, or None, and what is wrong with it."""
    if not path.is_file():
        return None, [f"missing: {_name(cell)} ({path})"]
    content = read_json(path)
    if not isinstance(content, dict) or (absent := [key for key in _KEYS if key not in content]):
        lacks = ", ".join(absent) if isinstance(content, dict) else ", ".join(_KEYS)
        return None, [f"not a score file, lacks {lacks}: {path}"]
    run = {key: cell[key] for key in RUN_KEYS}
    if content["run"] != run or content["benchmark"] != cell["benchmark"]:
        other = f"{content['benchmark']} of {content['run']}"
        return None, [f"another run's: {path} should be {_name(cell)} and holds {other}"]
    return content, _bad_numbers(cell, content)


def _bad_numbers(cell: Cell, content: dict[str, Any]) -> list[str]:
    numbers = _numbers(content)
    names = [f"{metric} {group}".rstrip() for metric, group, _, _ in numbers]
    bad = [
        f"{name} is {value!r}" for name, (_, _, value, _) in zip(names, numbers, strict=True) if not _is_finite(value)
    ]
    bad += [f"{name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if not numbers:
        bad.append("no numbers")
    return [f"unusable: {_name(cell)}: {', '.join(bad)}"] if bad else []


def _doubles(cells: list[Cell]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for name in map(_name, cells):
        if name in seen:
            problems.append(f"asked for twice: {name}")
        seen.add(name)
    return problems


def _differing(found: list[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """Runs that differ from the first one of their benchmark in images, or of their backbone in protocol."""
    first: dict[tuple[str, ...], tuple[str, Any]] = {}
    problems = []
    for cell, content in found:
        place = (cell["dataset"], cell["benchmark"])
        for key, what, value in (
            ((*place, "images"), "scored other images", (content["n"], content["ids_sha256"])),
            ((*place, "protocol", cell["backbone"]), "used another protocol", content["protocol"]),
        ):
            name, usual = first.setdefault(key, (_name(cell), value))
            if value != usual:
                problems.append(f"{what}: {_name(cell)} has {_short(value)}, {name} has {_short(usual)}")
    return problems


def _refuse(problems: list[str]) -> None:
    if not problems:
        return
    more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DataError(
        "Scores: expected one good file for every run and benchmark of the study, all runs on the "
        f"same images; {len(problems)} found wrong:\n  "
        + "\n  ".join(problems[:_SHOWN])
        + more
        + "\nRun Snakemake again to make what is missing; remove a wrong file first."
    )


def _rows(cell: Cell, content: dict[str, Any]) -> list[tuple[Any, ...]]:
    head = (cell["dataset"], cell["backbone"], cell["supervision"], float(cell["lambda"]), int(cell["seed"]))
    return [
        (*head, cell["benchmark"], metric, group, float(value), int(n), content["protocol"])
        for metric, group, value, n in _numbers(content)
    ]


def _numbers(content: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """(metric, group, value, n) of everything in a score file."""
    own = [(metric, "", value, content["n"]) for metric, value in content["metrics"].items()]
    parts = [(part["metric"], part["group"], part["value"], part["n"]) for part in content["details"]]
    return own + parts


def _write(rows: list[tuple[Any, ...]], output_csv: Path | str) -> None:
    with replacing(output_csv) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([repr(value) if isinstance(value, float) else value for value in row] for row in rows)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _name(cell: Cell) -> str:
    run = "{dataset}/{backbone}/{supervision}-{lambda:g}/seed{seed}".format_map(cell)
    return f"{run} {cell['benchmark']}"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        n, digest = value
        return f"{n} images, digest {str(digest)[:12]}"
    return repr(value)
