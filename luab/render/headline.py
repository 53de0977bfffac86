"""The headline numbers, for the terminal and the report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from luab.progress import wide_console
from luab.render.quantities import HEADLINE, main_supervision
from luab.render.table_text import Sheet
from luab.study.config import Study
from luab.study.supervisions import MAKERS, Supervision
from luab.tasks import task_of

_LONGEST_TITLE = 12  # longer titles do not fit into 80 columns
_SHORT = {"none": "Baseline", "random": "Random", "shuffled": "Shuffled", "click": "LUAB"}


def print_headline(study: Study) -> None:
    """Prints one table per backbone: every benchmark by supervision, with the difference of LUAB to the baseline."""
    console = wide_console()
    for sheet in headline_sheets(study):
        table = Table(title=sheet.title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for name in sheet.head:
            table.add_column(name, no_wrap=True)
        for row in sheet.rows:
            table.add_row(*(cell.replace(" ± ", "±") for cell in row))  # rich would cut wider numbers at 80 columns
        console.print(table)
    results = [study.paths.results / name for name in ("report.html", "tables", "figures", "scores.csv")]
    found = "  ".join(str(path) for path in results if path.exists())
    console.print("Look at: " + (found or "nothing yet; run `make demo`"))


def headline_sheets(study: Study) -> list[Sheet]:
    """One sheet per data set and backbone, from the tables that exist."""
    sheets = []
    for dataset, part in study.parts.items():
        files = filter(Path.is_file, (study.layout.table(name, "csv") for name in HEADLINE[dataset].tables))
        text: Any = {"dtype": {"supervision": str}, "keep_default_na": False, "na_values": [""]}
        tables = [pd.read_csv(file, **text) for file in files] or [pd.DataFrame({"backbone": []})]
        numbers = pd.concat(tables, ignore_index=True)
        shown = [(name, numbers[numbers["backbone"] == name]) for name in part.backbone_names]
        sheets += [_sheet(study, dataset, rows, name) for name, rows in shown if len(rows)]
    return sheets


def _sheet(study: Study, dataset: str, numbers: pd.DataFrame, backbone: str) -> Sheet:
    part = study.part(dataset)
    luab = main_supervision(part.supervisions)
    seeds = f"mean ± std over {len(study.seeds)} seeds, λ = {part.luab_lambda:g}"
    short = task_of(dataset).short
    where = f" on {short}" if short else ""
    title = f"{backbone}{where}{f' ({study.label})' if study.label else ''}, %: {seeds}"
    rows = []
    for heading, benchmark in _benchmarks(numbers, dataset):
        by_supervision = {str(row["supervision"]): row for _, row in benchmark.iterrows()}
        cells = [_mean(by_supervision.get(name)) for name in part.supervisions]
        rows.append([heading, *cells] + ([_difference(by_supervision.get(luab))] if luab else []))
    heads = {name: _short(name, entry) for name, entry in part.supervisions.items()}
    return Sheet(title, ["", *heads.values()] + ([f"{heads[luab]} − baseline"] if luab else []), rows)


def _short(name: str, entry: Supervision) -> str:
    """The title of a supervision if the config has a short one; else a short name of known points, or its name."""
    own = entry.title if name not in MAKERS or entry.title != MAKERS[name].title else ""
    return own if own and len(own) <= _LONGEST_TITLE else _SHORT.get(name, name)


def _benchmarks(numbers: pd.DataFrame, dataset: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Heading and rows of every quantity in the tables."""
    for quantity in HEADLINE[dataset].quantities:
        here = (numbers["benchmark"] == quantity.benchmark) & (numbers["metric"] == quantity.metric)
        rows = numbers[here & (numbers["group"].fillna("") == quantity.group)]
        if len(rows):
            yield quantity.heading.replace(" (% of diagonal)", ""), rows


def _mean(row: pd.Series | None) -> str:
    if row is None:
        return "–"
    return f"{100 * row['mean']:.1f}" + (f" ± {100 * row['std']:.1f}" if row["n"] > 1 else "")


def _difference(row: pd.Series | None) -> str:
    if row is None or pd.isna(row["difference"]):
        return "–"
    text = f"{100 * row['difference']:+.1f}"
    return text if pd.isna(row["low"]) else f"{text} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
