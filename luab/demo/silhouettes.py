"""What the demo world's classes look like: polygons in a unit frame, x right, y down, about [-1, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One polygon of a silhouette; `role` says which colour of the class's palette fills it."""

    role: str
    points: Points


def ellipse(role: str, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Part:
    """An ellipse as a 26-gon, turned by `turn` radians about its centre."""
    angle = np.linspace(0, 2 * np.pi, 26, endpoint=False)
    across, down = rx * np.cos(angle), ry * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return Part(role, np.stack([x + cos * across - sin * down, y + sin * across + cos * down], axis=1))


def polygon(role: str, *corners: tuple[float, float]) -> Part:
    """A polygon by its corners."""
    return Part(role, np.array(corners, dtype=np.float64))


def stroke(role: str, *knots: tuple[float, float], start: float, end: float | None = None) -> Part:
    """A band with round ends along a curve through `knots`; half its width goes from `start` to `end`."""
    path = _smooth(np.array(knots, dtype=np.float64))
    tangent = np.gradient(path, axis=0)
    length = np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / length
    half = np.linspace(start, start if end is None else end, len(path))[:, None]
    left, right = path + normal * half, path - normal * half
    head = _cap(path[0], -normal[0], float(half[0, 0]))
    tail = _cap(path[-1], normal[-1], float(half[-1, 0]))
    return Part(role, np.concatenate([left, tail, right[::-1], head]))


def ring(role: str, x: float, y: float, radius: float, width: float) -> Part:
    """A wheel: a circle's band, `width` across, open in the middle."""
    angle = np.linspace(0, 2 * np.pi, 33)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    band = np.concatenate([circle * radius, circle[::-1] * (radius - width)])
    return Part(role, band + np.array([x, y]))


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
    """Half a circle about `centre`, from the direction `first` round to its opposite."""
    angle = np.linspace(0, -np.pi, 6)[1:-1]
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    return centre + radius * (turn @ first)


def _legs(role: str, xs: tuple[float, ...], top: float, foot: float, width: float) -> list[Part]:
    return [stroke(role, (x, top), (x + 0.03, foot), start=width, end=width * 0.8) for x in xs]


def _eye(x: float, y: float, size: float = 0.05) -> list[Part]:
    return [ellipse("white", x, y, size * 1.5, size * 1.5), ellipse("ink", x + size * 0.3, y, size, size)]


def _retriever() -> list[Part]:
    return [
        stroke("light", (-0.55, 0.0), (-0.85, -0.25), (-0.95, -0.6), start=0.16, end=0.06),
        *_legs("dark", (-0.42, 0.3), 0.2, 0.78, 0.1),
        *_legs("body", (-0.55, 0.42), 0.15, 0.8, 0.11),
        ellipse("body", -0.08, 0.08, 0.6, 0.3),
        ellipse("light", 0.4, 0.05, 0.2, 0.3, 0.2),
        stroke("body", (0.35, -0.05), (0.6, -0.4), start=0.24, end=0.2),
        ellipse("body", 0.62, -0.42, 0.25, 0.23),
        stroke("light", (0.72, -0.36), (0.93, -0.32), start=0.12, end=0.1),
        ellipse("ink", 1.0, -0.36, 0.06, 0.05),
        ellipse("dark", 0.5, -0.36, 0.1, 0.24, 0.25),
        *_eye(0.72, -0.48),
    ]


def _chihuahua() -> list[Part]:
    return [
        stroke("body", (-0.45, 0.0), (-0.75, -0.15), (-0.7, -0.5), start=0.06, end=0.03),
        *_legs("dark", (-0.35, 0.2), 0.2, 0.8, 0.06),
        *_legs("body", (-0.45, 0.3), 0.2, 0.82, 0.06),
        ellipse("body", -0.08, 0.15, 0.45, 0.22),
        stroke("body", (0.25, 0.05), (0.45, -0.35), start=0.16),
        polygon("dark", (0.2, -0.5), (0.08, -1.0), (0.48, -0.7)),
        polygon("dark", (0.55, -0.68), (0.85, -1.02), (0.8, -0.45)),
        polygon("light", (0.26, -0.55), (0.18, -0.88), (0.42, -0.68)),
        ellipse("body", 0.5, -0.42, 0.33, 0.3),
        stroke("light", (0.68, -0.32), (0.86, -0.28), start=0.1, end=0.07),
        ellipse("ink", 0.92, -0.3, 0.05, 0.045),
        *_eye(0.6, -0.48, 0.07),
    ]


def _goose() -> list[Part]:
    return [
        *_legs("warm", (-0.1, 0.15), 0.4, 0.85, 0.04),
        polygon("warm", (-0.1, 0.82), (0.14, 0.9), (-0.1, 0.92)),
        polygon("warm", (0.15, 0.82), (0.4, 0.9), (0.15, 0.92)),
        polygon("dark", (-0.6, 0.15), (-1.0, -0.1), (-0.65, 0.4)),
        ellipse("body", -0.05, 0.22, 0.68, 0.34, -0.1),
        stroke("light", (0.45, 0.1), (0.6, -0.3), (0.5, -0.68), start=0.16, end=0.1),
        ellipse("light", 0.55, -0.76, 0.18, 0.15),
        polygon("warm", (0.68, -0.84), (1.0, -0.72), (0.67, -0.66)),
        ellipse("dark", -0.2, 0.15, 0.42, 0.18, -0.2),
        *_eye(0.58, -0.8, 0.035),
    ]


def _flamingo() -> list[Part]:
    return [
        stroke("dark", (-0.05, 0.1), (-0.02, 0.98), start=0.035),
        stroke("dark", (0.1, 0.1), (0.3, 0.45), (0.02, 0.6), start=0.035),
        polygon("dark", (-0.3, -0.1), (-0.75, 0.15), (-0.3, 0.15)),
        ellipse("body", -0.05, -0.02, 0.45, 0.25, -0.15),
        ellipse("light", -0.12, 0.0, 0.28, 0.13, -0.2),
        stroke("body", (0.3, -0.08), (0.62, -0.3), (0.35, -0.62), (0.5, -0.9), start=0.09, end=0.07),
        ellipse("body", 0.56, -0.9, 0.14, 0.11),
        stroke("light", (0.66, -0.9), (0.82, -0.82), (0.82, -0.68), start=0.06, end=0.03),
        ellipse("ink", 0.82, -0.66, 0.05, 0.07),
        *_eye(0.57, -0.93, 0.03),
    ]


def _ambulance() -> list[Part]:
    return [
        polygon("body", (-1, -0.55), (0.4, -0.55), (0.4, 0.45), (-1, 0.45)),
        polygon("body", (0.38, -0.3), (0.75, -0.28), (0.98, 0.08), (1, 0.45), (0.38, 0.45)),
        polygon("glass", (0.48, -0.2), (0.7, -0.18), (0.86, 0.08), (0.48, 0.08)),
        polygon("accent", (-1, 0.15), (1, 0.15), (1, 0.28), (-1, 0.28)),
        polygon("accent", (-0.42, -0.42), (-0.24, -0.42), (-0.24, 0.06), (-0.42, 0.06)),
        polygon("accent", (-0.57, -0.27), (-0.09, -0.27), (-0.09, -0.09), (-0.57, -0.09)),
        polygon("glass", (0.1, -0.55), (0.34, -0.55), (0.3, -0.7), (0.14, -0.7)),
        *[ellipse("ink", x, 0.48, 0.21, 0.21) for x in (-0.55, 0.6)],
        *[ellipse("white", x, 0.48, 0.09, 0.09) for x in (-0.55, 0.6)],
    ]


def _tandem() -> list[Part]:
    return [
        *[ring("ink", x, 0.3, 0.36, 0.075) for x in (-0.64, 0.64)],
        stroke("body", (-0.64, 0.3), (-0.3, -0.25), (0.36, -0.28), start=0.06),
        stroke("body", (-0.64, 0.3), (0.3, 0.32), start=0.06),
        stroke("body", (-0.32, -0.3), (-0.14, 0.3), start=0.06),
        stroke("body", (0.1, -0.3), (0.28, 0.3), (0.36, -0.1), start=0.06),
        stroke("dark", (0.64, 0.3), (0.4, -0.5), start=0.05),
        stroke("ink", (0.36, -0.52), (0.6, -0.56), start=0.06),
        stroke("ink", (-0.08, -0.42), (0.1, -0.46), start=0.05),
        ellipse("accent", -0.36, -0.38, 0.17, 0.07),
        ellipse("accent", 0.06, -0.36, 0.15, 0.07),
        *[ellipse("dark", x, 0.3, 0.09, 0.09) for x in (-0.14, 0.28)],
    ]


def _turtle() -> list[Part]:
    dome = [
        (0.75 * float(np.cos(a)) - 0.1, 0.25 - 0.72 * float(np.sin(a))) for a in np.linspace(0, np.pi, 16)
    ]
    return [
        stroke("light", (-0.75, 0.25), (-0.98, 0.38), start=0.08, end=0.02),
        *_legs("light", (-0.5, 0.25), 0.25, 0.52, 0.14),
        stroke("light", (0.5, 0.2), (0.82, -0.02), start=0.14, end=0.16),
        ellipse("light", 0.86, -0.06, 0.17, 0.15),
        polygon("body", *dome),
        polygon("dark", (-0.3, -0.4), (0.1, -0.4), (0.2, -0.1), (-0.4, -0.1)),
        polygon("dark", (-0.72, 0.1), (-0.45, -0.05), (-0.35, 0.2), (-0.68, 0.24)),
        polygon("dark", (0.24, -0.05), (0.48, 0.08), (0.5, 0.24), (0.14, 0.2)),
        stroke("dark", (-0.84, 0.27), (0.66, 0.27), start=0.06),
        *_eye(0.91, -0.1, 0.035),
    ]


def _chameleon() -> list[Part]:
    tail = ((-0.5, 0.05), (-0.85, 0.2), (-0.95, 0.6), (-0.68, 0.78), (-0.5, 0.6), (-0.62, 0.46))
    return [
        stroke("wood", (-1.0, 0.86), (1.0, 0.66), start=0.06),
        stroke("body", *tail, start=0.15, end=0.045),
        stroke("dark", (-0.25, 0.2), (-0.35, 0.5), (-0.1, 0.72), start=0.07),
        stroke("dark", (0.35, 0.2), (0.55, 0.42), (0.4, 0.68), start=0.07),
        ellipse("body", -0.02, -0.02, 0.6, 0.32, -0.12),
        *[ellipse("light", x, -0.02 - x * 0.1, 0.06, 0.2) for x in (-0.35, -0.1, 0.15)],
        polygon("body", (0.35, -0.1), (0.45, -0.75), (1.0, -0.12), (0.75, 0.15), (0.4, 0.18)),
        ellipse("light", 0.66, -0.2, 0.13, 0.13),
        ellipse("ink", 0.69, -0.2, 0.05, 0.05),
    ]


def _fox() -> list[Part]:
    return [
        stroke("body", (-0.45, 0.1), (-0.75, 0.25), (-0.9, 0.6), start=0.12, end=0.2),
        ellipse("white", -0.92, 0.66, 0.14, 0.16),
        *_legs("ink", (-0.38, 0.28), 0.25, 0.72, 0.07),
        *_legs("dark", (-0.48, 0.38), 0.2, 0.75, 0.07),
        ellipse("body", -0.05, 0.08, 0.52, 0.24),
        ellipse("white", 0.36, 0.16, 0.13, 0.2, 0.3),
        polygon("ink", (0.28, -0.42), (0.32, -0.86), (0.56, -0.52)),
        polygon("ink", (0.58, -0.52), (0.82, -0.84), (0.82, -0.4)),
        polygon("body", (0.22, -0.42), (0.55, -0.6), (0.86, -0.4), (1.0, -0.06), (0.6, 0.06), (0.3, -0.05)),
        polygon("white", (0.58, 0.06), (1.0, -0.06), (0.74, -0.16)),
        ellipse("ink", 1.0, -0.06, 0.05, 0.045),
        *_eye(0.64, -0.28, 0.04),
    ]


def _skunk() -> list[Part]:
    return [
        stroke("body", (-0.4, 0.15), (-0.85, -0.1), (-0.75, -0.65), (-0.4, -0.78), start=0.14, end=0.24),
        stroke("white", (-0.45, 0.1), (-0.8, -0.15), (-0.72, -0.6), (-0.4, -0.75), start=0.04, end=0.12),
        *_legs("ink", (-0.4, -0.25, 0.3, 0.45), 0.3, 0.65, 0.09),
        ellipse("body", -0.02, 0.18, 0.55, 0.3, 0.05),
        stroke("white", (-0.5, 0.05), (0.0, -0.1), (0.55, 0.08), (0.75, 0.2), start=0.09, end=0.03),
        stroke("body", (0.5, 0.22), (0.95, 0.36), start=0.2, end=0.07),
        ellipse("body", 0.46, 0.0, 0.08, 0.08),
        stroke("white", (0.55, 0.12), (0.8, 0.24), start=0.04, end=0.02),
        ellipse("accent", 1.0, 0.36, 0.05, 0.05),
        *_eye(0.72, 0.27, 0.035),
    ]


def _grasshopper() -> list[Part]:
    return [
        stroke("dark", (0.65, -0.1), (0.85, -0.6), (1.0, -0.75), start=0.025),
        stroke("dark", (0.6, -0.1), (0.6, -0.6), (0.72, -0.85), start=0.025),
        stroke("dark", (0.3, 0.15), (0.45, 0.35), (0.4, 0.65), start=0.045),
        stroke("dark", (0.1, 0.15), (0.12, 0.4), (0.02, 0.65), start=0.045),
        stroke("body", (0.6, 0.0), (0.0, 0.12), (-0.9, 0.2), start=0.2, end=0.08),
        ellipse("light", -0.25, 0.0, 0.65, 0.13, -0.12),
        stroke("dark", (0.0, 0.15), (-0.45, -0.6), start=0.12, end=0.06),
        stroke("dark", (-0.45, -0.6), (-0.75, 0.68), start=0.05, end=0.04),
        ellipse("body", 0.64, 0.0, 0.2, 0.22),
        *_eye(0.72, -0.07, 0.055),
    ]


def _fly() -> list[Part]:
    legs = [
        stroke("ink", (side * 0.2, y), (side * 0.62, y - 0.12), (side * 0.85, y + drop), start=0.035)
        for side in (-1, 1)
        for y, drop in ((-0.25, -0.42), (0.0, 0.1), (0.22, 0.5))
    ]
    return [
        *legs,
        ellipse("body", 0, 0.4, 0.3, 0.45),
        *[stroke("dark", (-0.2, y), (0.2, y), start=0.035) for y in (0.35, 0.52, 0.68)],
        ellipse("pale", -0.45, 0.35, 0.2, 0.55, 0.5),
        ellipse("pale", 0.45, 0.35, 0.2, 0.55, -0.5),
        ellipse("dark", 0, -0.12, 0.3, 0.3),
        ellipse("body", 0, -0.5, 0.3, 0.22),
        ellipse("accent", -0.22, -0.54, 0.16, 0.18, 0.4),
        ellipse("accent", 0.22, -0.54, 0.16, 0.18, -0.4),
    ]


def _accordion() -> list[Part]:
    folds = [(-0.45 + i * 0.09, -0.42 + 0.09 * (i % 2)) for i in range(11)]
    lower = [(x, -y) for x, y in folds[::-1]]
    return [
        polygon("light", *folds, *lower),
        *[stroke("dark", (-0.41 + i * 0.18, -0.34), (-0.41 + i * 0.18, 0.34), start=0.03) for i in range(5)],
        polygon("body", (-0.95, -0.62), (-0.42, -0.55), (-0.42, 0.55), (-0.95, 0.62)),
        polygon("body", (0.42, -0.55), (0.95, -0.62), (0.95, 0.62), (0.42, 0.55)),
        polygon("white", (0.68, -0.5), (0.88, -0.52), (0.88, 0.52), (0.68, 0.5)),
        *[stroke("ink", (0.7, y), (0.84, y), start=0.035) for y in (-0.36, -0.18, 0.0, 0.18, 0.36)],
        *[ellipse("gold", -0.7, y, 0.07, 0.07) for y in (-0.35, -0.12, 0.12, 0.35)],
    ]


def _guitar() -> list[Part]:
    return [
        polygon("dark", (0.1, -0.09), (0.82, -0.07), (0.82, 0.07), (0.1, 0.09)),
        polygon("ink", (0.78, -0.12), (1.0, -0.1), (1.0, 0.1), (0.78, 0.12)),
        ellipse("body", -0.6, 0.0, 0.4, 0.48),
        ellipse("body", -0.12, 0.0, 0.3, 0.35),
        polygon("body", (-0.5, -0.36), (-0.1, -0.3), (-0.1, 0.3), (-0.5, 0.36)),
        ellipse("ink", -0.2, 0.0, 0.14, 0.14),
        polygon("ink", (-0.72, -0.16), (-0.64, -0.16), (-0.64, 0.16), (-0.72, 0.16)),
        *[stroke("white", (-0.68, y), (0.85, y * 0.7), start=0.012) for y in (-0.05, 0.0, 0.05)],
    ]


def _orangutan() -> list[Part]:
    return [
        stroke("body", (-0.3, -0.15), (-0.8, 0.2), (-0.85, 0.8), start=0.15, end=0.11),
        stroke("body", (0.3, -0.15), (0.8, 0.2), (0.85, 0.8), start=0.15, end=0.11),
        stroke("dark", (-0.25, 0.5), (-0.42, 0.9), start=0.16, end=0.14),
        stroke("dark", (0.25, 0.5), (0.42, 0.9), start=0.16, end=0.14),
        ellipse("body", 0, 0.25, 0.45, 0.52),
        ellipse("light", 0, 0.32, 0.25, 0.32),
        ellipse("body", 0, -0.5, 0.42, 0.4),
        ellipse("dark", -0.24, -0.45, 0.17, 0.27),
        ellipse("dark", 0.24, -0.45, 0.17, 0.27),
        ellipse("skin", 0, -0.42, 0.24, 0.28),
        stroke("ink", (-0.1, -0.28), (0.1, -0.28), start=0.025),
        *_eye(-0.1, -0.52, 0.035),
        *_eye(0.1, -0.52, 0.035),
    ]


def _gibbon() -> list[Part]:
    return [
        stroke("wood", (-1.0, -0.9), (1.0, -0.96), start=0.055),
        stroke("body", (-0.15, -0.05), (-0.55, -0.35), (-0.42, -0.88), start=0.08),
        stroke("body", (0.15, -0.05), (0.55, -0.35), (0.5, -0.9), start=0.08),
        stroke("dark", (-0.12, 0.4), (-0.4, 0.65), (-0.25, 0.95), start=0.09, end=0.07),
        stroke("dark", (0.12, 0.4), (0.35, 0.68), (0.2, 0.95), start=0.09, end=0.07),
        ellipse("body", 0, 0.18, 0.24, 0.38),
        ellipse("body", 0, -0.3, 0.25, 0.24),
        ellipse("pale", 0, -0.28, 0.19, 0.17),
        ellipse("dark", 0, -0.27, 0.14, 0.12),
        *_eye(-0.06, -0.3, 0.03),
        *_eye(0.06, -0.3, 0.03),
    ]


def _goldfish() -> list[Part]:
    return [
        polygon("light", (-0.4, 0.0), (-0.98, -0.5), (-0.75, 0.0), (-0.98, 0.5)),
        polygon("light", (-0.2, -0.3), (0.05, -0.72), (0.35, -0.3)),
        polygon("dark", (-0.1, 0.3), (-0.2, 0.62), (0.25, 0.32)),
        ellipse("body", 0.15, 0.0, 0.65, 0.4),
        stroke("dark", (0.45, -0.25), (0.36, 0.0), (0.45, 0.25), start=0.03),
        polygon("dark", (0.2, 0.05), (-0.1, 0.0), (-0.08, 0.25)),
        *[
            ellipse("light", x, y, 0.05, 0.05)
            for x, y in ((0.0, -0.2), (-0.2, -0.08), (0.1, -0.08), (-0.25, 0.12))
        ],
        *_eye(0.6, -0.1, 0.06),
    ]


def _puffer() -> list[Part]:
    spikes = [
        polygon(
            "dark",
            *[
                (float(r * np.cos(a + d)) * 0.95, float(r * np.sin(a + d)))
                for r, d in ((0.55, -0.12), (0.84, 0.0), (0.55, 0.12))
            ],
        )
        for a in np.linspace(0.35, 2 * np.pi - 0.1, 14)
    ]
    return [
        polygon("dark", (-0.5, 0.0), (-1.0, -0.28), (-0.9, 0.0), (-1.0, 0.28)),
        *spikes,
        ellipse("body", 0, 0, 0.62, 0.62),
        ellipse("white", 0.05, 0.25, 0.48, 0.34),
        *[
            ellipse("dark", x, y, 0.07, 0.06)
            for x, y in ((-0.3, -0.3), (-0.05, -0.42), (-0.4, -0.05), (-0.12, -0.18))
        ],
        polygon("warm", (0.56, -0.02), (0.72, 0.04), (0.56, 0.12)),
        *_eye(0.32, -0.16, 0.08),
    ]


def _backpack() -> list[Part]:
    return [
        stroke("dark", (-0.22, -0.75), (0.0, -1.0), (0.22, -0.75), start=0.05),
        stroke("dark", (-0.55, -0.3), (-0.82, 0.2), (-0.6, 0.75), start=0.08),
        stroke("dark", (0.55, -0.3), (0.82, 0.2), (0.6, 0.75), start=0.08),
        stroke("body", (0, -0.35), (0, 0.5), start=0.5, end=0.56),
        polygon("body", (-0.58, 0.2), (0.58, 0.2), (0.6, 0.88), (-0.6, 0.88)),
        stroke("accent", (-0.42, -0.2), (0.0, -0.08), (0.42, -0.2), start=0.05),
        polygon("light", (-0.4, 0.2), (0.4, 0.2), (0.38, 0.76), (-0.38, 0.76)),
        stroke("accent", (-0.34, 0.32), (0.34, 0.32), start=0.035),
        ellipse("gold", 0.0, 0.42, 0.06, 0.06),
    ]


def _teapot() -> list[Part]:
    return [
        ring("dark", -0.62, 0.1, 0.36, 0.11),
        stroke("body", (0.4, 0.3), (0.72, 0.0), (0.95, -0.35), start=0.15, end=0.06),
        ellipse("body", 0.0, 0.18, 0.62, 0.5),
        polygon("dark", (-0.35, 0.62), (0.35, 0.62), (0.42, 0.74), (-0.42, 0.74)),
        ellipse("light", 0.0, -0.27, 0.36, 0.14),
        ellipse("gold", 0.0, -0.46, 0.1, 0.1),
        stroke("light", (-0.5, 0.12), (0.0, 0.24), (0.5, 0.12), start=0.06),
        *[ellipse("white", x, 0.36, 0.06, 0.06) for x in (-0.3, 0.0, 0.3)],
    ]


def _banana() -> list[Part]:
    return [
        stroke("body", (-0.85, -0.45), (-0.6, 0.25), (0.05, 0.52), (0.85, 0.2), start=0.13, end=0.12),
        stroke("body", (-0.62, 0.08), (-0.25, 0.32), (0.4, 0.36), start=0.18, end=0.18),
        stroke("light", (-0.62, -0.05), (-0.2, 0.26), (0.6, 0.22), start=0.05, end=0.04),
        stroke("dark", (-0.86, -0.5), (-0.92, -0.75), start=0.08, end=0.07),
        ellipse("ink", 0.93, 0.16, 0.08, 0.08),
        *[ellipse("dark", x, y, 0.04, 0.03) for x, y in ((-0.3, 0.4), (0.1, 0.5), (0.35, 0.42))],
    ]


def _vase() -> list[Part]:
    side = ((0.22, -0.3), (0.16, -0.12), (0.42, 0.2), (0.44, 0.5), (0.24, 0.92))
    return [
        stroke("leaf", (0.0, -0.3), (-0.2, -0.6), (-0.35, -0.75), start=0.03),
        stroke("leaf", (0.0, -0.3), (0.05, -0.8), start=0.03),
        stroke("leaf", (0.05, -0.3), (0.25, -0.55), (0.4, -0.65), start=0.03),
        *[ellipse("warm", x, y, 0.15, 0.15) for x, y in ((-0.38, -0.78), (0.06, -0.85), (0.42, -0.68))],
        *[ellipse("gold", x, y, 0.06, 0.06) for x, y in ((-0.38, -0.78), (0.06, -0.85), (0.42, -0.68))],
        polygon("body", *side, *[(-x, y) for x, y in side[::-1]]),
        stroke("light", (-0.36, 0.22), (0.0, 0.3), (0.36, 0.22), start=0.05),
        stroke("dark", (-0.38, 0.5), (0.0, 0.58), (0.38, 0.5), start=0.05),
        stroke("dark", (-0.22, -0.31), (0.22, -0.31), start=0.04),
    ]


SILHOUETTES: dict[str, Callable[[], list[Part]]] = {
    "golden retriever": _retriever,
    "Chihuahua": _chihuahua,
    "goose": _goose,
    "flamingo": _flamingo,
    "ambulance": _ambulance,
    "bicycle-built-for-two": _tandem,
    "box turtle": _turtle,
    "African chameleon": _chameleon,
    "red fox": _fox,
    "skunk": _skunk,
    "grasshopper": _grasshopper,
    "fly": _fly,
    "accordion": _accordion,
    "acoustic guitar": _guitar,
    "orangutan": _orangutan,
    "gibbon": _gibbon,
    "goldfish": _goldfish,
    "puffer": _puffer,
    "backpack": _backpack,
    "teapot": _teapot,
    "banana": _banana,
    "vase": _vase,
}


def strange_shape(rng: np.random.Generator) -> list[Part]:
    """A shape of no class: a star, gear, cross, arrow, moon or crystal, with a mark on it."""
    kind = int(rng.integers(6))
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    if kind < 2:
        count = int(rng.integers(4, 8))
        angle = np.linspace(0, 2 * np.pi, 4 * count if kind else 2 * count, endpoint=False)
        inner = 0.45 if kind == 0 else 0.75
        far = np.arange(len(angle)) // (2 if kind else 1) % 2 == 0
        outline = np.where(far, 0.95, inner)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    elif kind == 2:
        outline = (
            np.array(
                [
                    (-1, -3),
                    (1, -3),
                    (1, -1),
                    (3, -1),
                    (3, 1),
                    (1, 1),
                    (1, 3),
                    (-1, 3),
                    (-1, 1),
                    (-3, 1),
                    (-3, -1),
                    (-1, -1),
                ]
            )
            / 3.2
        )
    elif kind == 3:
        outline = np.array(
            [(-0.9, -0.25), (0.1, -0.25), (0.1, -0.7), (0.95, 0), (0.1, 0.7), (0.1, 0.25), (-0.9, 0.25)]
        )
    elif kind == 4:
        moon = np.stack([np.cos(angle[:14] + 0.9), np.sin(angle[:14] + 0.9)], axis=1)
        outline = np.concatenate([moon * 0.9, moon[::-1] * 0.6 + (0.28, -0.15)])
    else:
        outline = np.array([(0, -0.95), (0.5, -0.35), (0.35, 0.6), (0, 0.95), (-0.35, 0.6), (-0.5, -0.35)])
    return [Part("body", outline), ellipse("light", 0, 0, 0.25, 0.25), ellipse("dark", 0, 0, 0.12, 0.12)]
