"""Collects the scores of all fine-tunings in one tidy table; missing and foreign files are errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.errors import DataError
from luab.files import read_number, read_rows, write_csv
from luab.study.transfers import FineTuning

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("transfer", "dataset", "backbone", "supervision", "lambda", "seed")
"""What identifies the fine-tuning that a score belongs to."""
COLUMNS = (*KEYS, "metric", "group", "value", "n", "protocol")
_PARSERS: dict[str, Any] = {"lambda": float, "seed": int, "value": float, "n": int}
_MOST_PROBLEMS_SHOWN = 20


def collect(files: Mapping[FineTuning, Path], output_csv: Path | str) -> int:
    """Writes the rows of each fine-tuning's scores.csv, in the order of `files`; equal inputs give equal bytes.

    Args:
        files: scores.csv of each fine-tuning of the study.
        output_csv: Has COLUMNS. The group is empty for the metrics of all images and classes.

    Returns:
        The number of rows.

    Raises:
        DataError: A file is missing, damaged or belongs to another fine-tuning, or fine-tunings of one entry of
            `transfer` scored another number of images. The message lists all problems.
    """
    problems: list[str] = []
    rows: list[tuple[Any, ...]] = []
    first: dict[tuple[str, str, str], tuple[str, Any]] = {}
    for one, path in files.items():
        try:
            cells = [cell for _, cell in read_rows(path, COLUMNS, key=(*KEYS, "metric", "group"))]
            values = [_values(path, cell) for cell in cells]
        except DataError as error:
            problems.append(str(error))
            continue
        if not cells or any(_identity(cell) != tuple(one.identity().values()) for cell in cells):
            problems.append(f"{path}: expected scores of {one.folder}, found {'others' if cells else 'none'}")
        for cell, row in zip(cells, values, strict=True):
            key = (one.transfer, cell["metric"], cell["group"])
            name, expected = first.setdefault(key, (one.folder, cell["n"]))
            if cell["n"] != expected:
                problems.append(f"{path}: {cell['metric']} of {cell['n']} images; {name} has {expected}")
            rows.append(row)
    if problems:
        more = len(problems) - _MOST_PROBLEMS_SHOWN
        lines = [*problems[:_MOST_PROBLEMS_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
        raise DataError(
            f"Scores of fine-tunings: expected one valid file for each of {len(files)}; {len(problems)} problems:\n  "
            + "\n  ".join(lines)
            + "\nRemove wrong files, then run Snakemake again to create the missing ones."
        )
    write_csv(output_csv, COLUMNS, rows)
    return len(rows)


def read_transfer_scores(path: Path | str) -> "pd.DataFrame":
    """Reads the tidy table; lambda and value as float, seed and n as int, other columns as text.

    Raises:
        DataError: The file is missing or damaged.
    """
    import pandas as pd

    rows = [_values(path, cell) for _, cell in read_rows(path, COLUMNS)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({name: parse for name, parse in _PARSERS.items()})


def _values(path: Path | str, cell: Mapping[str, str]) -> tuple[Any, ...]:
    read_number(cell["value"], f"{path}: {cell['metric']}")
    try:
        return tuple(_PARSERS.get(name, str)(cell[name]) for name in COLUMNS)
    except ValueError as error:
        raise DataError(f"{path}: lambda, seed, value and n must be numbers ({error}). Score again.") from error


def _identity(cell: Mapping[str, str]) -> tuple[Any, ...]:
    return tuple(_PARSERS.get(name, str)(cell[name]) for name in KEYS)
