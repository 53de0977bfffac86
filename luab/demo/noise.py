"""Cloudy noise and named random streams: all randomness of the demo world comes from here."""

import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for each name, so that no picture depends on how many were drawn before it."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> NDArray[np.float64]:
    """Cloudy noise in [0, 1] for a frame of `size` (width, height), `cells` blobs across; returns [H, W]."""
    grid = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.clip(np.asarray(grid.resize(size, Image.Resampling.BICUBIC), dtype=np.float64), 0, 1)
