"""What the demo ends with: the headline numbers on a terminal, and where everything lies."""

from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from luab.render.table_text import Sheet
from luab.study.config import Study
from luab.study.paths import DATASET

_TABLES = {
    "imagenet": ("imagenet_main", "background_robustness", "localization"),
    "coco": ("coco_main", "coco_localization"),
}
_SHORT = {"none": "Baseline", "random": "Random", "click": "LUAB"}  # 80 columns are soon full
_TO_LOOK_AT = ("report.html", "tables", "figures", "scores.csv")


def print_headline(study: Study) -> None:
    """One table per backbone: every benchmark's headline by supervision, with LUAB's difference to the baseline."""
    console = Console()
    for sheet in headline_sheets(study):
        table = Table(title=sheet.title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for name in sheet.head:
            table.add_column(name, no_wrap=True)
        for row in sheet.rows:
            table.add_row(*(cell.replace(" ± ", "±") for cell in row))  # else numbers are cut at 80 columns
        console.print(table)
    there = [str(study.paths.results / name) for name in _TO_LOOK_AT if (study.paths.results / name).exists()]
    console.print("Look at: " + ("  ".join(there) if there else "nothing yet; run `make demo`"))


def headline_sheets(study: Study) -> list[Sheet]:
    """One sheet per data set and backbone, of text; from the tables that exist."""
    sheets = []
    for dataset, part in study.parts.items():
        files = [study.layout.table(name, "csv") for name in _TABLES[dataset]]
        files = [file for file in files if file.is_file()]
        if files:
            numbers = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
            sheets += [
                _sheet(study, dataset, numbers[numbers["backbone"] == name], name) for name in part.backbone_names
            ]
    return sheets


def _sheet(study: Study, dataset: str, numbers: pd.DataFrame, backbone: str) -> Sheet:
    part = study.part(dataset)
    seeds = f"mean ± std over {len(study.seeds)} seeds, λ = {part.luab_lambda:g}"
    where = "" if dataset == DATASET else f" on {dataset.upper()}"
    title = f"{backbone}{where}{f' ({study.label})' if study.label else ''}, %: {seeds}"
    rows = []
    for heading, found in _benchmarks(numbers, dataset):
        by_supervision = {str(row["supervision"]): row for _, row in found.iterrows()}
        cells = [_mean(by_supervision.get(name)) for name in part.supervisions]
        rows.append([heading, *cells, _difference(by_supervision.get("click"))])
    return Sheet(title, ["", *(_SHORT.get(name, name) for name in part.supervisions), "LUAB − baseline"], rows)


def _benchmarks(numbers: pd.DataFrame, dataset: str) -> Iterator[tuple[str, pd.DataFrame]]:
    from luab.render.quantities import COCO_LOCALIZATION, COCO_MAIN, GAINS, LOCALIZATION

    points = [quantity for quantity in LOCALIZATION if quantity.needs_point]
    for quantity in (*GAINS, *points) if dataset == DATASET else (*COCO_MAIN, *COCO_LOCALIZATION):
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
