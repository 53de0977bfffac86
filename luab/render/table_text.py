"""Tables as files: raw CSV, Markdown for people, LaTeX with booktabs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from luab.errors import DataError
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


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table as text; a bold cell begins with `BOLD`."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = dataclasses.field(default_factory=list)


def read_markdown(md: Path) -> Sheet:
    """The inverse of `markdown`, but for the indent of cells.

    Raises:
        DataError: The file is missing, or was not written by `write_table`.
    """
    try:
        lines = md.read_text().splitlines()
    except OSError as error:
        raise DataError(f"{md}: expected a rendered table; {error.strerror}. Render it.") from error
    rows = [_cells(line) for line in lines if line.startswith("|")]
    if len(rows) < 2 or not lines[0].startswith("**") or len({len(row) for row in rows}) != 1:
        raise DataError(
            f"{md}: expected a table as `luab render table` writes it, found another text. Render it again."
        )
    notes = [_unescaped(line[2:]) for line in lines if line.startswith("- ")]
    return Sheet(_unescaped(lines[0][2:-2]), rows[0], rows[2:], notes)


def _cells(line: str) -> list[str]:
    texts = [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]
    bold = [len(text) > 4 and text.startswith("**") and text.endswith("**") for text in texts]
    return [_BOLD + _unescaped(text[2:-2]) if b else _unescaped(text) for text, b in zip(texts, bold, strict=True)]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\\|*_<])", r"\1", text)


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
