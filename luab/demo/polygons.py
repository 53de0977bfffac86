"""Silhouettes of the demo world: filled polygons in a unit frame of about [-1, 1], x right, y down."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [n, 2], x and y
Corners = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class FilledPolygon:
    """One polygon of a silhouette: its corners [n, 2], and the palette colour that fills them ("body", "ink", ...)."""

    role: str
    points: Points


def ellipse(role: str, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> FilledPolygon:
    """Returns an ellipse as a 26-gon, turned by `turn` radians about its centre."""
    angle = np.linspace(0, 2 * np.pi, 26, endpoint=False)
    across, down = rx * np.cos(angle), ry * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return FilledPolygon(role, np.stack([x + cos * across - sin * down, y + sin * across + cos * down], axis=1))


def polygon(role: str, corners: Corners) -> FilledPolygon:
    """Returns the polygon with these corners."""
    return FilledPolygon(role, np.array(corners, dtype=np.float64))


def stroke(role: str, knots: Corners, start: float, end: float | None = None) -> FilledPolygon:
    """Returns a round-ended band along a smooth curve through `knots`; half its width goes from `start` to `end`."""
    path = _smooth(np.array(knots, dtype=np.float64))
    tangent = np.gradient(path, axis=0)
    length = np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / length
    half = np.linspace(start, start if end is None else end, len(path))[:, None]
    left, right = path + normal * half, path - normal * half
    head = _cap(path[0], -normal[0], float(half[0, 0]))
    tail = _cap(path[-1], normal[-1], float(half[-1, 0]))
    return FilledPolygon(role, np.concatenate([left, tail, right[::-1], head]))


def ring(role: str, x: float, y: float, radius: float, width: float) -> FilledPolygon:
    """Returns a ring, `width` across, that is open in the middle."""
    circle = _on_circle(np.linspace(0, 2 * np.pi, 33))
    band = np.concatenate([circle * radius, circle[::-1] * (radius - width)])
    return FilledPolygon(role, band + np.array([x, y]))


def _on_circle(angle: NDArray[np.float64]) -> Points:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def transformed(polygons: list[FilledPolygon], matrix: Points) -> list[FilledPolygon]:
    """Applies a linear map [2, 2] to all points."""
    return [replace(one, points=one.points @ matrix.T) for one in polygons]


def shifted(polygons: list[FilledPolygon], offset: Points) -> list[FilledPolygon]:
    """Moves all points by `offset` [2]."""
    return [replace(one, points=one.points + offset) for one in polygons]


def extent(polygons: list[FilledPolygon]) -> tuple[Points, Points]:
    """Returns the smallest and the largest x and y of all points, each [2]."""
    points = np.concatenate([one.points for one in polygons])
    return points.min(axis=0), points.max(axis=0)


def _smooth(knots: Points, steps: int = 7) -> Points:
    """Catmull-Rom curve through the knots; a straight line for two."""
    if len(knots) == 2:
        return knots
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
        pieces.append(0.5 * (2 * p1 + (p2 - p0) * t + bend * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3))
    return np.concatenate([*pieces, knots[-1:]])


def _cap(centre: Points, first: Points, radius: float) -> Points:
    """Half a circle about `centre`, from the direction `first` to the opposite one."""
    angle = np.linspace(0, -np.pi, 6)[1:-1]
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    return centre + radius * (turn @ first)


TABLES = Path(__file__).parent / "tables"
_ALL: tuple[Callable[..., FilledPolygon], ...] = (ellipse, polygon, ring, stroke)
_SHAPES = {shape.__name__: shape for shape in _ALL}
# A row of the table holds the name of a shape and its arguments; shapes are painted in the order of the rows.
SILHOUETTES = {
    name: [_SHAPES[shape](*arguments) for shape, *arguments in rows]
    for name, rows in json.loads((TABLES / "silhouettes.json").read_text(encoding="utf-8")).items()
}


def strange_shape(rng: np.random.Generator) -> list[FilledPolygon]:
    """Draws a shape of no class: a star, gear, cross, arrow, moon or crystal, with a mark on it."""
    kind = int(rng.integers(6))
    outline: Points
    if kind < 2:
        count = int(rng.integers(4, 8))
        angle = np.linspace(0, 2 * np.pi, 4 * count if kind else 2 * count, endpoint=False)
        inner = 0.45 if kind == 0 else 0.75
        outer = np.arange(len(angle)) // (2 if kind else 1) % 2 == 0
        outline = np.where(outer, 0.95, inner)[:, None] * _on_circle(angle)
    elif kind == 2:
        x, y = (-1, 1, 1, 3, 3, 1, 1, -1, -1, -3, -3, -1), (-3, -3, -1, -1, 1, 1, 3, 3, 1, 1, -1, -1)
        outline = np.stack([x, y], axis=1) / 3.2
    elif kind == 3:
        outline = np.array([(-0.9, -0.25), (0.1, -0.25), (0.1, -0.7), (0.95, 0), (0.1, 0.7), (0.1, 0.25), (-0.9, 0.25)])
    elif kind == 4:
        moon = _on_circle(np.linspace(0, 2 * np.pi, 24, endpoint=False)[:14] + 0.9)
        outline = np.concatenate([moon * 0.9, moon[::-1] * 0.6 + (0.28, -0.15)])
    else:
        outline = np.array([(0, -0.95), (0.5, -0.35), (0.35, 0.6), (0, 0.95), (-0.35, 0.6), (-0.5, -0.35)])
    return [FilledPolygon("body", outline), ellipse("light", 0, 0, 0.25, 0.25), ellipse("dark", 0, 0, 0.12, 0.12)]
