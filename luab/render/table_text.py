"""A table before and after a file format is chosen: text, raw CSV, Markdown for people, LaTeX with booktabs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from luab.files import replacing

BOLD = "\u0001"  # marks a bold cell until a format is chosen; no name contains a control character
AT_CHANCE = "°"  # marks the cell of a number that a control without a model reaches
_TEX = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>|"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "…": r"\ldots{}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "°": r"$^\circ$", "≥": r"$\geq$", "≤": r"$\leq$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "λ": r"$\lambda$", "Δ": r"$\Delta$",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table as text; the text of a bold cell begins with `BOLD`."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table before a file format is chosen."""

    name: str  # stem of its files
    title: str  # one line
    cells: pd.DataFrame  # text of every cell; the first columns name the row; a leading `BOLD` marks a bold cell
    raw: pd.DataFrame  # the same numbers, unrounded fractions, one row per number
    notes: list[str]  # lines below the table: n, protocol, source
    groups: list[int] = dataclasses.field(default_factory=list)  # first row of each block; rules separate the blocks

    def sheet(self, label: str = "") -> Sheet:
        """The table as text, with the label (for example "demo world") in its title."""
        title = f"{self.title} ({label})" if label else self.title
        rows = [list(row) for row in self.cells.itertuples(index=False, name=None)]
        return Sheet(title, list(self.cells.columns), rows, self.notes)


def write_table(table: Table, csv: Path | str, md: Path | str, tex: Path | str, label: str = "") -> None:
    """Writes the raw numbers as CSV, and title (with the label), cells and notes as Markdown and LaTeX."""
    raw = table.raw.to_csv(index=False, lineterminator="\n")
    for path, text in ((csv, raw), (md, markdown(table.sheet(label))), (tex, latex(table, label))):
        with replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")


def markdown(sheet: Sheet) -> str:
    """A table as Markdown: title, cells, notes as a list."""
    lines = [_md_row(sheet.head), "|" + "|".join("---" for _ in sheet.head) + "|", *map(_md_row, sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines, "", *(f"- {_md(note)}" for note in sheet.notes), ""])


def latex(table: Table, label: str = "") -> str:
    """The table as a LaTeX float; needs the packages booktabs, threeparttable and graphicx."""
    sheet = table.sheet(label)
    rows = []
    for i, row in enumerate(sheet.rows):
        if i and i in table.groups:
            rows.append(r"\midrule")
        rows.append(_tex_row(row))
    wide = len(sheet.head) > 5
    float_ = "table*" if wide else "table"
    lines = [
        "% needs: booktabs, threeparttable, graphicx",
        rf"\begin{{{float_}}}",
        r"\centering",
        rf"\caption{{{escape(sheet.title)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        r"\begin{threeparttable}",
        rf"\begin{{tabular}}{{{'l' * len(sheet.head)}}}",
        r"\toprule",
        _tex_row(sheet.head),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\begin{tablenotes}[flushleft]\footnotesize",
        *(rf"\item {escape(note)}" for note in sheet.notes),
        r"\end{tablenotes}",
        r"\end{threeparttable}",
        *(["}"] if wide else []),
        rf"\end{{{float_}}}",
        "",
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text with all characters escaped that have a meaning in LaTeX."""
    return text.translate(_TEX)


def _md_row(row: Sequence[str]) -> str:
    cells = (f"**{_md(text[1:])}**" if text.startswith(BOLD) else _md(text.strip()) for text in row)
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    return re.sub(r"([\\|*_<])", r"\\\1", text)


def _tex_row(row: Sequence[str]) -> str:
    cells = []
    for text in row:
        indent = r"\quad " if text.startswith("  ") else ""
        cells.append(rf"\textbf{{{escape(text[1:])}}}" if text.startswith(BOLD) else indent + escape(text.strip()))
    return " & ".join(cells) + r" \\"
