"""Tables as files: raw CSV, Markdown for people, LaTeX with booktabs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from luab.files import replacing

if TYPE_CHECKING:
    from luab.render.tables import Table

_BOLD = "\u0001"
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "λ": r"$\lambda$",
    "Δ": r"$\Delta$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


def write_table(table: "Table", csv: Path | str, md: Path | str, tex: Path | str, label: str = "") -> None:
    """Writes one table three times; each file appears whole or not at all.

    Args:
        table: From luab.render.tables.
        csv: Raw numbers; empty where there is none.
        md: Cells, title, notes.
        tex: The same for LaTeX.
        label: Words in the title, e.g. "demo world"; empty for none.

    Raises:
        JobError: The disk is full, or the folder cannot be written to.
    """
    with replacing(csv) as aside:
        table.raw.to_csv(aside, index=False, lineterminator="\n")
    with replacing(md) as aside:
        aside.write_text(markdown(table, label))
    with replacing(tex) as aside:
        aside.write_text(latex(table, label))


def markdown(table: "Table", label: str = "") -> str:
    """The table as Markdown: title with label, cells, notes as a list."""
    head = list(table.cells.columns)
    lines = [_md_row(head), "|" + "|".join("---" for _ in head) + "|"]
    lines += [_md_row(row) for row in _rows(table.cells)]
    return "\n".join([f"**{_title(table, label)}**", "", *lines, "", *(f"- {_md(note)}" for note in table.notes), ""])


def latex(table: "Table", label: str = "") -> str:
    """The table as a LaTeX float; needs the packages booktabs, threeparttable and graphicx."""
    head = list(table.cells.columns)
    rows = []
    for i, row in enumerate(_rows(table.cells)):
        if i and i in table.groups:
            rows.append(r"\midrule")
        rows.append(_tex_row(row))
    wide = len(head) > 5
    body = [
        r"\begin{threeparttable}",
        rf"\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        _tex_row(head),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\begin{tablenotes}[flushleft]\footnotesize",
        *(rf"\item {escape(note)}" for note in table.notes),
        r"\end{tablenotes}",
        r"\end{threeparttable}",
    ]
    float_ = "table*" if wide else "table"
    return "\n".join(
        [
            "% needs: booktabs, threeparttable, graphicx",
            rf"\begin{{{float_}}}",
            r"\centering",
            rf"\caption{{{escape(_title(table, label))}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
            *body,
            *(["}"] if wide else []),
            rf"\end{{{float_}}}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text as LaTeX prints it: every character that LaTeX would take as a command is escaped."""
    return "".join(_TEX.get(character, character) for character in text)


def _title(table: "Table", label: str) -> str:
    return f"{table.title} ({label})" if label else table.title


def _rows(cells: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(cells.itertuples(index=False, name=None))


def _md_row(row: Sequence[str]) -> str:
    return "| " + " | ".join(_md_cell(text) for text in row) + " |"


def _md_cell(text: str) -> str:
    return f"**{_md(text[1:])}**" if text.startswith(_BOLD) else _md(text.strip())


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "\\<")


def _tex_row(row: Sequence[str]) -> str:
    return " & ".join(_tex_cell(text) for text in row) + r" \\"


def _tex_cell(text: str) -> str:
    if text.startswith(_BOLD):
        return rf"\textbf{{{escape(text[1:])}}}"
    indent = r"\quad " if text.startswith("  ") else ""
    return indent + escape(text.strip())
