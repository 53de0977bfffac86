"""The headline numbers, for the terminal and the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from luab.benchmarks.formula import CENTRE
from luab.errors import DataError
from luab.files import read_json, read_text, replacing
from luab.progress import wide_console
from luab.render.answers import comparisons, gradient_ratios, sentences
from luab.render.products import find_product
from luab.render.quantities import HEADLINE, Quantity, main_supervision
from luab.render.style import backbone_name, percent
from luab.render.summaries import CONTROLS, SIGNIFICANT, no_better
from luab.render.table_text import AT_CHANCE, Sheet, markdown
from luab.render.tables import scores_of
from luab.study.config import Study
from luab.study.supervisions import MAKERS, Supervision
from luab.tasks import task_of

BEGIN, END = "<!-- numbers from `luab headline --into` -->", "<!-- end of the numbers -->"
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
    results = [study.layout.shown / name for name in ("report.html", "tables", "figures", "scores.csv")]
    found = "  ".join(str(path) for path in results if path.exists())
    console.print("Look at: " + (found or "nothing yet; run `make demo`"))


def headline_sheets(study: Study) -> list[Sheet]:
    """One sheet per data set and backbone, from the tables that exist."""
    return [_sheet(study, dataset, rows, backbone) for dataset, backbone, rows in _tables(study)]


def write_into(study: Study, page: Path) -> None:
    """Replaces what stands between `BEGIN` and `END` in a Markdown page by the findings and the headline's tables.

    Raises:
        DataError: There are no results, or the page lacks the two marks.
    """
    sheets, text = headline_sheets(study), read_text(page)
    if not sheets:
        raise DataError(
            f"{study.paths.results}: there are no tables yet. Run the study first, for example `make demo`."
        )
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page}: expected the lines {BEGIN} and {END}, between which the numbers go. Add both.")
    found = "\n".join(f"- {one}" for one in findings(study))
    tables = (markdown(sheet).strip() for sheet in sheets)
    block = [found, "<details><summary>All numbers</summary>", *tables, "</details>", _measured(study)]
    with replacing(page) as aside:
        aside.write_text(before + BEGIN + "\n\n" + "\n\n".join(block) + "\n\n" + END + after, encoding="utf-8")


def _measured(study: Study) -> str:
    """On what the numbers were measured, from the cards of the trainings."""
    cards = [read_json(path) for path in map(study.layout.run_json, study.runs()) if path.is_file()]
    where = {f"{card['hardware']['gpu'] or card['hardware']['processor']}" for card in cards}
    commits = {str(card["commit"])[:7] for card in cards}
    return (
        f"{len(cards)} trainings on {', '.join(sorted(where))}, with the code of {', '.join(sorted(commits))}; "
        f"protocols in docs/protocols.md. {AT_CHANCE.strip()}: no better than a control that needs no training."
    )


def findings(study: Study) -> list[str]:
    """What the study found, in sentences computed from the tables that exist; for the demo, also that it is a toy.

    For each data set and backbone: the difference of LUAB to the baseline on the first benchmark with its interval and
    n, how many benchmarks differ significantly after correction, and the learnt point next to its controls.
    """
    found = [text for dataset, backbone, rows in _tables(study) for text in _finding(study, dataset, backbone, rows)]
    if study.demo:
        found.append(
            f"This is a toy: a drawn world, tiny networks and {_count(study.seeds)}. It shows that the code works, "
            "and nothing about real images."
        )
    return found


def answers_of(study: Study) -> dict[str, list[str]]:
    """The answer of a study beside the main one, in sentences by title of the data set; empty for the main study."""
    found = {}
    for product in (find_product("table", name) for name in ("answers", "coco_answers", "folder_answers")):
        if inputs := product.needs(study):
            question, scores = inputs.question, scores_of(product, inputs)
            if question is not None:
                table = comparisons(scores, question, inputs.headline_lambda, inputs.entries)
                ratios = gradient_ratios(inputs.logs)
                found[task_of(product.dataset).title] = sentences(table, question, inputs.entries, ratios)
    return found


def _finding(study: Study, dataset: str, backbone: str, numbers: pd.DataFrame) -> Iterator[str]:
    part = study.part(dataset)
    luab = main_supervision(part.supervisions)
    shown = [(quantity, rows[rows["supervision"] == luab]) for quantity, rows in _benchmarks(numbers, dataset)]
    compared = [(quantity, rows.iloc[0]) for quantity, rows in shown if rows["difference"].notna().any()]
    if luab is None or not compared:
        return
    quantity, first = compared[0]
    low, high = (percent(first[end], signed=True) for end in ("low", "high"))
    interval = "no interval" if pd.isna(first["low"]) else f"95 % interval {low} to {high}"
    seeds = f"n = {int(first['n'])} {'seed' if first['n'] == 1 else 'seeds'}, {int(first['images']):,} images"
    difference = f"{percent(first['difference'], signed=True)} percentage points"
    tested = [_p(row) for _, row in compared if not pd.isna(_p(row))]
    yield (
        f"{task_of(dataset).title}, {backbone_name(backbone)}: on {quantity.title}, "
        f"{part.supervisions[luab].title or luab} with λ = {part.luab_lambda:g} differs from the baseline by "
        f"{difference} ({interval}; {seeds}). {_tested(tested)}"
    )
    for quantity, rows in shown:
        controls = _controls_of(rows.iloc[0]) if quantity.needs_point and len(rows) else {}
        if CENTRE in controls:
            better = "no better than" if no_better(rows.iloc[0], quantity, controls.values()) else "better than"
            shown_as, centre = f"{100 * rows.iloc[0]['mean']:.1f} %", f"{100 * controls[CENTRE]:.1f} %"
            yield (
                f"{backbone_name(backbone)}, {quantity.title}: the learnt point reaches {shown_as}, {better} the "
                f"image's centre ({centre})."
            )
            return


def _tested(p: list[float]) -> str:
    if not p:
        return "One seed cannot show whether this is chance."
    sure = sum(value < SIGNIFICANT for value in p)
    return (
        f"Of {len(p)} numbers, {sure or 'none'} {'differs' if sure == 1 else 'differ'} significantly from the "
        f"baseline (p < {SIGNIFICANT:g}; corrected for the number of benchmarks)."
    )


def _p(row: pd.Series) -> float:
    return float(row["p"] if pd.isna(row["p_holm"]) else row["p_holm"])


def _tables(study: Study) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Data set, backbone and its rows of the headline's tables that exist."""
    for dataset, part in study.parts.items():
        files = filter(Path.is_file, (study.layout.table(name, "csv") for name in HEADLINE[dataset].tables))
        text: Any = {"dtype": {"supervision": str, "group": str}, "keep_default_na": False, "na_values": [""]}
        tables = [pd.read_csv(file, **text) for file in files] or [pd.DataFrame({"backbone": []})]
        numbers = pd.concat(tables, ignore_index=True)
        for name in part.backbone_names:
            if len(rows := numbers[numbers["backbone"] == name]):
                yield dataset, name, rows


def _sheet(study: Study, dataset: str, numbers: pd.DataFrame, backbone: str) -> Sheet:
    part = study.part(dataset)
    luab = main_supervision(part.supervisions)
    spread = "mean ± std over " if len(study.seeds) > 1 else ""
    seeds = f"{spread}{_count(study.seeds)}, λ = {part.luab_lambda:g}"
    short = task_of(dataset).short
    where = f" on {short}" if short else ""
    title = f"{backbone}{where}{f' ({study.label})' if study.label else ''}, %: {seeds}"
    rows = []
    for quantity, benchmark in _benchmarks(numbers, dataset):
        heading = _heading(quantity)
        by_supervision = {str(row["supervision"]): row for _, row in benchmark.iterrows()}
        cells = [_mean(by_supervision.get(name), quantity) for name in part.supervisions]
        rows.append([heading, *cells] + ([_difference(by_supervision.get(luab))] if luab else []))
    heads = {name: _short(name, entry) for name, entry in part.supervisions.items()}
    return Sheet(title, ["", *heads.values()] + ([f"{heads[luab]} − baseline"] if luab else []), rows)


def _count(seeds: Sequence[int]) -> str:
    return "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _short(name: str, entry: Supervision) -> str:
    """The title of a supervision if the config has a short one; else a short name of known points, or its name."""
    own = entry.title if name not in MAKERS or entry.title != MAKERS[name].title else ""
    return own if own and len(own) <= _LONGEST_TITLE else _SHORT.get(name, name)


def _heading(quantity: Quantity) -> str:
    return quantity.heading.replace(" (% of diagonal)", "")


def _benchmarks(numbers: pd.DataFrame, dataset: str) -> Iterator[tuple[Quantity, pd.DataFrame]]:
    """Every quantity in the tables, and its rows."""
    for quantity in HEADLINE[dataset].quantities:
        here = (numbers["benchmark"] == quantity.benchmark) & (numbers["metric"] == quantity.metric)
        rows = numbers[here & (numbers["group"].fillna("") == quantity.group)]
        if len(rows):
            yield quantity, rows


def _mean(row: pd.Series | None, quantity: Quantity) -> str:
    if row is None:
        return "–"
    mark = AT_CHANCE if no_better(row, quantity, _controls_of(row).values()) else ""
    return f"{100 * row['mean']:.1f}" + (f" ± {100 * row['std']:.1f}" if row["n"] > 1 else "") + mark


def _controls_of(row: pd.Series) -> dict[str, float]:
    """Values of the controls of a number, by control."""
    columns = {name: name.replace(" ", "_") for name in CONTROLS}
    return {name: row[column] for name, column in columns.items() if column in row and not pd.isna(row[column])}


def _difference(row: pd.Series | None) -> str:
    if row is None or pd.isna(row["difference"]):
        return "–"
    text, low, high = (percent(row[name], signed=True) for name in ("difference", "low", "high"))
    return text if pd.isna(row["low"]) else f"{text} [{low}, {high}]"
