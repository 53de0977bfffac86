"""Backdrops of the demo world: procedural textures in soft colours, one for each family of classes."""

from collections.abc import Callable

import numpy as np

from luab.demo.canvas import Field, Size
from luab.demo.randomness import smooth_noise


def _blend(share: Field, first: tuple[float, ...], second: tuple[float, ...]) -> Field:
    """Mixes two colours; `share` [H, W] is that of the second, clipped to [0, 1]; returns [H, W, 3]."""
    amount = np.clip(share, 0, 1)[..., None]
    return np.array(first) * (1 - amount) + np.array(second) * amount


def _grid(size: Size) -> tuple[Field, Field]:
    """x and y of all pixels' centres in [0, 1], both [H, W]."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    return (x + 0.5) / width, (y + 0.5) / height


def lawn(size: Size, rng: np.random.Generator) -> Field:
    """Grass: upright blades, darker towards the viewer."""
    x, y = _grid(size)
    blades = np.sin(2 * np.pi * x * rng.uniform(14, 20) + 3 * smooth_noise(rng, size, 8)) * 0.18
    return _blend(0.25 + 0.5 * y + blades, (0.72, 0.84, 0.52), (0.42, 0.63, 0.34))


def sky(size: Size, rng: np.random.Generator) -> Field:
    """Sky that pales towards the horizon, with clouds."""
    _, y = _grid(size)
    ground = _blend(y, (0.45, 0.68, 0.90), (0.84, 0.92, 0.97))
    cloud = np.clip((smooth_noise(rng, size, 5) - 0.52) * 3.2, 0, 0.9)[..., None]
    return ground * (1 - cloud) + 0.98 * cloud


def road(size: Size, rng: np.random.Generator) -> Field:
    """Asphalt with a kerb above and a dashed lane below."""
    x, y = _grid(size)
    horizon, lane = rng.uniform(0.2, 0.34), rng.uniform(0.74, 0.86)
    ground = _blend(smooth_noise(rng, size, 14), (0.50, 0.51, 0.54), (0.58, 0.58, 0.61))
    ground[y < horizon] = (0.80, 0.77, 0.72)
    ground[np.abs(y - horizon) < 0.03] = (0.93, 0.92, 0.88)
    dash = (np.abs(y - lane) < 0.03) & (np.sin(2 * np.pi * (x * 3 + rng.random())) > 0)
    ground[dash] = (0.96, 0.90, 0.66)
    return ground


def dunes(size: Size, rng: np.random.Generator) -> Field:
    """Sand in curved bands."""
    x, y = _grid(size)
    bend = 0.08 * np.sin(2 * np.pi * (x * rng.uniform(0.8, 1.6) + rng.random()))
    bands = 0.5 + 0.5 * np.sin(2 * np.pi * (y + bend) * rng.uniform(5, 7))
    return _blend(0.65 * bands + 0.35 * y, (0.96, 0.87, 0.68), (0.86, 0.71, 0.49))


def birches(size: Size, rng: np.random.Generator) -> Field:
    """A forest in winter: pale air and upright trunks."""
    x, y = _grid(size)
    ground = _blend(y, (0.78, 0.84, 0.88), (0.95, 0.96, 0.97))
    for _ in range(int(rng.integers(5, 8))):
        centre, half, lean = rng.random(), rng.uniform(0.02, 0.045), rng.uniform(-0.06, 0.06)
        trunk = (np.abs(x - centre - lean * (y - 0.5)) < half) & (y < rng.uniform(0.78, 0.95))
        ground[trunk] = np.array((0.62, 0.58, 0.56)) * rng.uniform(0.85, 1.15)
    return ground


def bokeh(size: Size, rng: np.random.Generator) -> Field:
    """Leaves out of focus: large soft discs of light."""
    x, y = _grid(size)
    ground = _blend(smooth_noise(rng, size, 4), (0.55, 0.66, 0.32), (0.86, 0.86, 0.50))
    for _ in range(9):
        far = np.hypot(x - rng.random(), (y - rng.random()) * size[1] / size[0])
        disc = 0.45 * np.clip((rng.uniform(0.08, 0.17) - far) / 0.02, 0, 1)[..., None]
        ground = ground * (1 - disc) + np.array((0.98, 0.96, 0.76)) * disc
    return ground


def stage(size: Size, rng: np.random.Generator) -> Field:
    """A curtain in folds under a spotlight."""
    x, y = _grid(size)
    folds = 0.5 + 0.5 * np.sin(2 * np.pi * x * rng.uniform(6, 9) + rng.uniform(0, 6))
    light = np.exp(-3.0 * ((x - rng.uniform(0.35, 0.65)) ** 2 + (y - 0.45) ** 2))[..., None]
    return _blend(folds, (0.42, 0.25, 0.42), (0.55, 0.34, 0.52)) * (0.75 + 0.65 * light)


def foliage(size: Size, rng: np.random.Generator) -> Field:
    """A dark forest of slanting leaves."""
    x, y = _grid(size)
    slant = np.sin(2 * np.pi * (x + y) * rng.uniform(7, 10)) * np.sin(2 * np.pi * (x - y) * rng.uniform(4, 6))
    share = 0.5 + 0.4 * slant + 0.5 * (smooth_noise(rng, size, 6) - 0.5)
    return _blend(share, (0.15, 0.36, 0.33), (0.33, 0.56, 0.45))


def water(size: Size, rng: np.random.Generator) -> Field:
    """Water with bright wavy lines."""
    x, y = _grid(size)
    wave = 0.05 * np.sin(2 * np.pi * (x * rng.uniform(2, 3) + rng.random()))
    lines = np.abs(np.sin(np.pi * (y + wave + 0.1 * smooth_noise(rng, size, 6)) * rng.uniform(6, 8))) ** 6
    return _blend(0.45 * lines + 0.4 * (1 - y), (0.13, 0.43, 0.62), (0.60, 0.86, 0.88))


def tiles(size: Size, rng: np.random.Generator) -> Field:
    """A kitchen wall of pastel tiles."""
    x, y = _grid(size)
    count = rng.uniform(3.5, 5.5)
    column, row = x * count + rng.random(), y * count * size[1] / size[0] + rng.random()
    check = (np.floor(column) + np.floor(row)) % 2
    ground = _blend(check, (0.93, 0.86, 0.84), (0.83, 0.87, 0.90))
    ground[(column % 1 < 0.07) | (row % 1 < 0.07)] = (0.98, 0.97, 0.95)
    return ground


def plain(size: Size, rng: np.random.Generator) -> Field:
    """An even ground, as in a studio: any brightness from black to white, hardly any colour."""
    _, y = _grid(size)
    grey = rng.uniform(0, 1)
    return np.clip((grey + 0.08 * (0.5 - y))[..., None] * (1 + rng.uniform(-0.06, 0.06, size=3)), 0, 1)


_ALL = (lawn, sky, road, dunes, birches, bokeh, stage, foliage, water, tiles, plain)
BACKDROPS: dict[str, Callable[[Size, np.random.Generator], Field]] = {paint.__name__: paint for paint in _ALL}
