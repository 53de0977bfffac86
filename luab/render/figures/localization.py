"""Figure of score maps of the baseline and another supervision, side by side."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from luab.errors import DataError
from luab.render import style
from luab.render.style import Array

_CELL_IN = 1.14
_TRUTH, _FOUND, _POINT = "#FFFFFF", "#00E5A0", "#FFD23F"


@dataclasses.dataclass(frozen=True)
class CamView:
    """The score map and the prediction of one model for an image."""

    heat: Array  # [side, side] in [0, 1], of the image stretched to a square
    box: Array | None  # [4] x0y0x1y1, fractions of the image; None without boxes to choose a threshold by
    point_xy: tuple[float, float] | None  # fractions of the image; None for a model without a byproduct head


@dataclasses.dataclass(frozen=True)
class CamExample:
    """One image seen by several models."""

    image_id: str
    image: Array  # [height, width, 3] uint8
    truth: Array  # [boxes, 4] x0y0x1y1, fractions of the image
    views: Sequence[CamView]
    recorded_xy: tuple[float, float] | None = None  # the annotator's point, fractions of the image
    trace_xy: Array | None = None  # [moments, 2] mouse trace at equal intervals of time, shown on the image alone


@style.styled
def cam_examples(
    examples: Sequence[CamExample], models: Sequence[str], note: str, label: str = "", cell_in: float = _CELL_IN
) -> Figure:
    """One column per example: the image and the score map of each model, with true box, found box and point.

    The note explains how images and thresholds were chosen. Images are `cell_in` inches high; names of models stand
    beside small ones horizontally. DataError if there is no example.
    """
    if not examples:
        raise DataError("Score maps: the prediction files share no image with a box, a recorded point or a trace.")
    figure = style.new_figure(style.PAGE_IN, cell_in * (len(models) + 1) + 0.35)
    grid = figure.subplots(len(models) + 1, len(examples), squeeze=False)
    for column, example in zip(grid.T, examples, strict=True):
        column[0].set_title(example.image_id, fontsize=5.2, pad=2)
        for axes, view in zip(column, [None, *example.views], strict=True):
            _draw_image(axes, example)
            if view is not None:
                _draw_view(axes, view)
            elif example.trace_xy is not None:
                axes.plot(*example.trace_xy.T, "o", ms=1.8, mfc=_TRUTH, mec="black", mew=0.3, gid="trace")
    for axes, name in zip(grid[:, 0], ["Image", *models], strict=True):
        axes.set_ylabel(name, **({} if cell_in == _CELL_IN else {"rotation": 0, "ha": "right", "va": "center"}))
    outline = [withStroke(linewidth=3.4, foreground="#303030")]
    marks: dict[str, Any] = {"ls": "none", "mec": "black", "mfc": _POINT}
    handles = [
        Line2D([], [], color=_TRUTH, lw=1.6, path_effects=outline, label="True box"),
        Line2D([], [], color=_FOUND, lw=1.6, path_effects=outline, label="Found box"),
        Line2D([], [], marker="o", ms=4.5, label="Predicted point", **marks),
        Line2D([], [], marker="X", ms=5.5, label="Recorded point", **marks | {"mfc": _TRUTH}),
    ]
    drawn = (
        any(len(example.truth) for example in examples),
        any(view.box is not None for example in examples for view in example.views),
        any(view.point_xy is not None for example in examples for view in example.views),
        any(example.recorded_xy for example in examples),
    )
    shown = [handle for handle, is_drawn in zip(handles, drawn, strict=True) if is_drawn]
    if shown:
        figure.legend(handles=shown, loc="outside upper center", ncols=len(shown))
    return style.finish(figure, f"n = {len(examples)} images. {note}", label)


def _draw_image(axes: Axes, example: CamExample) -> None:
    # WSOL stretches every image to a square; the models saw squares.
    axes.imshow(example.image, extent=(0, 1, 1, 0), aspect="equal", interpolation="antialiased")
    for box in example.truth:
        _draw_box(axes, box, _TRUTH, "truth")
    if example.recorded_xy is not None:
        axes.plot(*example.recorded_xy, "X", ms=5.5, mfc=_TRUTH, mec="black", mew=0.9, gid="recorded", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _draw_view(axes: Axes, view: CamView) -> None:
    # Fainter where the map is low, so that the image shows through.
    axes.imshow(
        view.heat, extent=(0, 1, 1, 0), cmap="inferno", vmin=0, vmax=1, alpha=0.35 + 0.4 * view.heat, gid="heat"
    )
    if view.box is not None:
        _draw_box(axes, view.box, _FOUND, "found")
    if view.point_xy is not None:
        axes.plot(*view.point_xy, "o", ms=4.5, mfc=_POINT, mec="black", mew=0.9, gid="point", clip_on=False)


def _draw_box(axes: Axes, box: Array, colour: str, what: str) -> None:
    x0, y0, x1, y1 = box
    for width, edge, gid in ((2.2, "#000000A0", None), (1.1, colour, what)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=edge, lw=width, gid=gid))


def cam_view(cam: Array, threshold: float | None, point_xy: tuple[float, float] | None, side_px: int = 224) -> CamView:
    """Normalises a raw map [h, w] and finds the box of its largest contour, on a square of `side_px`.

    The contour is above `threshold`, a share of the maximum of the map, as in MaxBoxAcc; no box if it is None.
    """
    from luab.metrics.contours import contour_boxes, eight_bits

    map8 = eight_bits(cam, side_px)
    if threshold is None:
        return CamView(map8 / 255.0, None, point_xy)
    boxes, largest = contour_boxes((map8 > int(threshold * map8.max())).astype(np.uint8))
    return CamView(map8 / 255.0, boxes[largest] / side_px, point_xy)
