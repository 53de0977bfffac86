"""What the demo world's classes look like, made of parts in a unit frame."""

from collections.abc import Callable

import numpy as np

from luab.demo.parts import Part, ellipse, polygon, ring, stroke


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
    dome = [(0.75 * float(np.cos(a)) - 0.1, 0.25 - 0.72 * float(np.sin(a))) for a in np.linspace(0, np.pi, 16)]
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
        *[ellipse("light", x, y, 0.05, 0.05) for x, y in ((0.0, -0.2), (-0.2, -0.08), (0.1, -0.08), (-0.25, 0.12))],
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
        *[ellipse("dark", x, y, 0.07, 0.06) for x, y in ((-0.3, -0.3), (-0.05, -0.42), (-0.4, -0.05), (-0.12, -0.18))],
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
