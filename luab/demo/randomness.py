"""Named random streams and cloudy noise: all randomness of the demo world comes from here."""

import zlib

import numpy as np
from PIL import Image

from luab.demo.canvas import Field, Size


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Returns a generator that depends on the names alone, so that no picture depends on those drawn before it."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def smooth_noise(rng: np.random.Generator, size: Size, cells: int) -> Field:
    """Returns cloudy noise [H, W] in [0, 1] for a frame of `size` (width, height), with `cells` blobs across."""
    grid = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.clip(np.asarray(grid.resize(size, Image.Resampling.BICUBIC), dtype=np.float64), 0, 1)
