"""The style of all figures: type, colours, display names, notes and reproducible files."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Bbox

from luab.files import replacing

if TYPE_CHECKING:
    import pandas as pd

COLUMN_IN = 3.25
PAGE_IN = 6.75
INK, MUTED, FAINT = "#222222", "#666666", "#D9D9D9"


@dataclasses.dataclass(frozen=True)
class Look:
    """How a supervision is shown in every table and figure."""

    title: str
    colour: str
    marker: str


Looks = Mapping[str, Look]
"""By supervision, in the order of display."""


# Colours of Okabe and Ito's palette and its darker shades: distinct under the common colour-vision deficiencies.
_LOOKS = {
    "none": Look("Baseline", "#6B6B6B", "s"),
    "random": Look("Random points", "#D98200", "^"),
    "click": Look("LUAB (clicks)", "#0072B2", "o"),
    "trace": Look("LUAB (traces)", "#009E73", "D"),
    "centre": Look("Image centre", "#CC79A7", "v"),
    "box": Look("Box centre", "#8C510A", "P"),
    "click_shared": Look("LUAB (shared head)", "#56B4E9", "X"),
    "replayed": Look("LUAB (final places)", "#A3225F", "<"),
    "shuffled": Look("Shuffled points", "#5E3C99", ">"),
}
COLOURS = {name: look.colour for name, look in _LOOKS.items()}
_BACKBONES = {
    **{f"resnet{layers}": f"ResNet-{layers}" for layers in (18, 34, 50, 101, 152)},
    "vit_tiny_patch16_224": "ViT-Ti/16",
    "vit_small_patch16_224": "ViT-S/16",
    "vit_base_patch16_224": "ViT-B/16",
    "convnext_tiny": "ConvNeXt-T",
    "swin_tiny_patch4_window7_224": "Swin-T",
}
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 6.5),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "axes.formatter.use_mathtext"), False),
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.5,
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 0),
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "lines.solid_capstyle": "round",
    "figure.dpi": 100,
    "savefig.dpi": 250,
    "pdf.fonttype": 42,
}
NOTE_PX = "Note height"
"""Key of a PNG's metadata: height of the note and label at its bottom, in pixels; the report shows them as text."""
_NOTE_PT = 5.8
_LINE_IN = _NOTE_PT * 1.35 / 72

Array = npt.NDArray[Any]
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a drawing function to use this style without changing global settings."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure without a window, which pyplot does not keep."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, note: str, label: str = "") -> Figure:
    """Adds the note, which explains spread and n, and the label, such as "demo world", below the panels.

    The note is wrapped to the width; the figure, in constrained layout, grows by its height.
    """
    width, height = figure.get_size_inches()
    lines = _wrapped(note, width * 72 - 6)
    if label and _width_pt(f"{lines[-1]}    {label}") > width * 72 - 6:
        lines.append("")
    below = _below_in(lines)
    total = height + below
    figure.set_size_inches(width, total)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below / total, 1, height / total))
    y, x = 0.04 / total, 0.04 / width
    small: dict[str, Any] = {"fontsize": _NOTE_PT, "color": MUTED, "va": "bottom"}
    figure.text(x, y, "\n".join(lines), linespacing=1.25, gid="note", **small)
    if label:
        figure.text(1 - x, y, label, ha="right", style="italic", gid="label", **small)
    return figure


def _below_in(lines: Sequence[str]) -> float:
    """Height of the note and label, in inches."""
    return len(lines) * _LINE_IN + 0.1


def spread(mean: Array, std: Array, possible: tuple[float, float]) -> tuple[Array, Array]:
    """Lower and upper end of mean ± std, cut to the possible range."""
    return np.clip(mean - std, *possible), np.clip(mean + std, *possible)


def arms(mean: Array, std: Array, possible: tuple[float, float]) -> Array:
    """Lengths of error bars [2, n] below and above the mean, cut to the possible range."""
    low, high = spread(mean, std, possible)
    return np.clip([mean - low, high - mean], 0, None)


def bins_for(n: int, most: int) -> int:
    """Number of bins of a histogram of n values: Rice's rule, 2 n^(1/3), at least 5."""
    return int(np.clip(round(2 * n ** (1 / 3)), 5, most))


def _settle(figure: Figure) -> None:
    """Computes the layout once and rounds the positions of the panels, so that equal calls give equal bytes.

    The layout solver orders its variables by memory address, which changes its last digit (measured: 2e-16 of a side).
    """
    figure.draw_without_rendering()
    places = [axes.get_position(original=True).bounds for axes in figure.axes]
    figure.set_layout_engine("none")
    for axes, place in zip(figure.axes, places, strict=True):
        axes.set_position(Bbox.from_bounds(*(round(value, 6) for value in place)))


def _wrapped(text: str, width_pt: float) -> list[str]:
    """Lines no wider than `width_pt`; "n = 3" is not broken."""
    lines = [""]
    for word in text.replace(" = ", "\u00a0=\u00a0").replace(" ± ", "\u00a0±\u00a0").split(" "):
        longer = f"{lines[-1]} {word}".strip(" ")
        if lines[-1] and _width_pt(longer) > width_pt:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width_pt(text: str) -> float:
    font = FontProperties(family=_STYLE["font.family"], size=_NOTE_PT)
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def save(figure: Figure, pdf: Path | str) -> None:
    """Writes the PDF and a PNG of the same name, with the note as its description; equal figures give equal bytes."""
    pdf = Path(pdf)
    with mpl.rc_context(_STYLE):
        _settle(figure)
        with replacing(pdf) as aside:
            # Dates and versions would change the file on every run.
            figure.savefig(aside, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        lines = [line for text in figure.texts if text.get_gid() == "note" for line in text.get_text().split("\n")]
        # str.split splits at no-break spaces too.
        about = {"Software": None, "Description": " ".join(" ".join(lines).split())}
        about[NOTE_PX] = str(round(_below_in(lines) * _STYLE["savefig.dpi"])) if lines else "0"
        with replacing(pdf.with_suffix(".png")) as aside:
            figure.savefig(aside, format="png", metadata=about)


def backbone_name(name: str) -> str:
    """The usual spelling of a backbone; timm's name if it is not in the list."""
    if name.startswith("test_"):
        return name.replace("test_", "Test ").replace("resnet", "ResNet").replace("vit", "ViT").replace("_", "-")
    return _BACKBONES.get(name, name)


def backbone_order(names: Iterable[str]) -> list[str]:
    """The distinct names: first the known families by size, then the rest by name."""
    known = list(_BACKBONES)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))


def looks_of(scores: "pd.DataFrame") -> dict[str, Look]:
    """The looks of the supervisions in scores, under the titles in the column `title` if there is one."""
    titles = dict(zip(scores["supervision"], scores["title"], strict=True)) if "title" in scores else {}
    return looks(scores["supervision"], titles)


def looks(supervisions: Iterable[str], titles: Mapping[str, str] | None = None) -> dict[str, Look]:
    """Title, colour and marker of each supervision: the baseline first, then in the order given.

    A supervision without a colour of its own has the next free one of the palette. One without a title, here and in
    the table of known names, is shown under its name.
    """
    titles = titles or {}
    names = sorted(dict.fromkeys(supervisions), key=lambda name: name != "none")
    palette = [name for name in (*list(_LOOKS)[3:], "random", "click") if name not in names] or list(_LOOKS)[1:]
    free = itertools.cycle(palette)
    found = {name: _LOOKS.get(name) or dataclasses.replace(_LOOKS[next(free)], title=name) for name in names}
    return {name: dataclasses.replace(look, title=titles.get(name, look.title)) for name, look in found.items()}


def percent(value: float, signed: bool = False) -> str:
    """A fraction as percent with one decimal and a true minus sign: 0.712 -> "71.2"."""
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−")


def colour_bar(figure: Figure | SubFigure, shown: Any, title: str, **place: Any) -> None:
    """A colour bar without a frame; `place` goes to matplotlib."""
    bar = figure.colorbar(shown, **place)
    bar.set_label(title)
    bar.outline.set_visible(False)


def legend_above(figure: Figure | SubFigure, axes: Axes, columns: int = 6) -> None:
    """One legend for the whole figure, above the panels, without repeated entries."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=columns, handlelength=1.6)
