"""Figures of fine-tunings: images with the true boxes or masks, and with those that each one predicts."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image, UnidentifiedImageError

from luab.errors import DataError
from luab.metrics.detection import Detections
from luab.metrics.segmentation import IGNORED
from luab.render import style
from luab.render.style import Array

EXAMPLES = 6
"""Images of a figure."""
LEAST_SCORE = 0.5
"""Score from which boxes are drawn."""
_CELL_IN = 1.05
_SHADES = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#E69F00", "#882255", "#44AA99", "#999933",
    "#AA4499", "#117733", "#DDCC77", "#332288",
)  # fmt: skip
"""Okabe and Ito's palette, then Tol's, used in turn for the classes of a figure."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the truth or one fine-tuning has in an image: boxes, or a mask."""

    boxes: Detections | None = None
    mask: Array | None = None  # [h, w] classes, 0 for the background, `IGNORED` for pixels that do not count

    @property
    def classes(self) -> set[int]:
        """The classes that are drawn."""
        if self.boxes is not None:
            return set(self.boxes.labels.tolist())
        return set(np.unique(self.mask).tolist()) - {0, IGNORED} if self.mask is not None else set()


@dataclasses.dataclass(frozen=True)
class DenseExample:
    """One image, its truth first, then each fine-tuning."""

    image_id: str
    image: Array  # [height, width, 3] uint8
    seen: Sequence[Seen]


@style.styled
def dense_examples(
    examples: Sequence[DenseExample], titles: Sequence[str], names: Sequence[str], note: str, label: str = ""
) -> Figure:
    """One column per image; the first row shows the truth, each other row a fine-tuning.

    Args:
        examples: The images.
        titles: Titles of the rows, the truth first.
        names: Names of the classes, without the background.
        note: How the images were chosen and what is drawn.
        label: Words in the caption, such as "demo world".

    Raises:
        DataError: There is no example.
    """
    if not examples:
        raise DataError("Examples: the evaluation set has no image with an object. Build its annotations again.")
    occurring = sorted({label for example in examples for seen in example.seen for label in seen.classes})
    colours = {label: _SHADES[place % len(_SHADES)] for place, label in enumerate(occurring)}
    figure = style.new_figure(style.PAGE_IN, _CELL_IN * len(titles) + 0.4)
    grid = figure.subplots(len(titles), len(examples), squeeze=False)
    for column, example in zip(grid.T, examples, strict=True):
        column[0].set_title(example.image_id, fontsize=5.2, pad=2)
        for axes, seen in zip(column, example.seen, strict=True):
            _draw(axes, example.image, seen, colours)
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    handles = [Patch(color=colour, label=names[label - 1]) for label, colour in colours.items()]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(8, len(handles)), handlelength=1)
    repeated = " Colours repeat." if len(occurring) > len(_SHADES) else ""
    return style.finish(figure, f"n = {len(examples)} images. {note}{repeated}", label)


def decoded_mask(content: bytes, size_hw: tuple[int, int], place: str, classes: int) -> Array:
    """[h, w] classes of a predicted mask.

    Args:
        content: A PNG of one byte per pixel.
        size_hw: Height and width that it must have.
        place: Beginning of the error message.
        classes: Number of classes, without the background.

    Raises:
        DataError: It is not such a PNG, or has other classes.
    """
    remedy = "Predict again."
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if (picture.height, picture.width) != size_hw or picture.mode not in ("L", "P"):
                raise DataError(
                    f"{place}: expected a mask of {size_hw[1]} x {size_hw[0]} pixels with one byte each, found "
                    f"{picture.width} x {picture.height} of mode {picture.mode}. {remedy}"
                )
            mask = np.array(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{place}: expected a mask as PNG, could not read it ({error}). {remedy}") from error
    if mask.max() > classes:
        raise DataError(f"{place}: expected classes from 0 to {classes} in the mask, found {mask.max()}. {remedy}")
    return mask


def confident(detections: Detections) -> Detections:
    """The detections that are drawn: those with a score of at least `LEAST_SCORE`, best last, so that it is on top."""
    order = np.argsort(detections.scores, kind="stable")
    order = order[detections.scores[order] >= LEAST_SCORE]
    return detections.take(order)


def _draw(axes: Axes, image: Array, seen: Seen, colours: dict[int, str]) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    if seen.boxes is not None:
        for (x0, y0, x1, y1), label in zip(seen.boxes.boxes, seen.boxes.labels, strict=True):
            for line_pt, edge, gid in ((2.2, "#000000A0", None), (1.1, colours[int(label)], "box")):
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=edge, lw=line_pt, gid=gid))
    if seen.mask is not None:
        axes.imshow(_shaded(seen.mask, colours), extent=(0, width, height, 0), interpolation="nearest", gid="mask")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _shaded(mask: Array, colours: dict[int, str]) -> Array:
    """[h, w, 4] colours of a mask over its image; pixels that do not count are white."""
    from matplotlib.colors import to_rgba

    shades = np.zeros((IGNORED + 1, 4))
    shades[IGNORED] = (1, 1, 1, 0.8)
    for label, colour in colours.items():
        shades[label] = to_rgba(colour, 0.65)
    return np.asarray(shades[mask])


def spread(ids: Sequence[str], usable: Callable[[int], bool], count: int = EXAMPLES) -> list[int]:
    """At most `count` places of usable images, evenly spaced in the order of their ids."""
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    chosen: list[int] = []
    for start in np.linspace(0, len(order), min(count, len(order)), endpoint=False).round().astype(int).tolist():
        place = next((i for i in order[start:] if i not in chosen and usable(i)), None)
        chosen += [] if place is None else [place]
    return sorted(chosen, key=lambda i: ids[i])


def pixels(picture: Any) -> Array:
    """[height, width, 3] uint8 of a decoded image."""
    return np.asarray(picture.convert("RGB"))
