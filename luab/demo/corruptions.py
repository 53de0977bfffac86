"""The fifteen corruptions of ImageNet-C on small pictures, each in five strengths.

DEVIATES: ImageNet-C's own are tuned for 224 px and need ImageMagick and frost photographs; the demo's keep each
corruption's nature, drawn with numpy and Pillow at strengths that make sense for a few dozen pixels.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from luab.demo.noise import smooth_noise

Pixels = NDArray[np.uint8]
Field = NDArray[np.float64]


def corrupt(pixels: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """Applies one corruption to a picture [H, W, 3]; `severity` is 1 to 5."""
    result = CORRUPTIONS[name](pixels / 255, severity - 1, rng)
    return np.round(np.clip(result, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    return x + rng.normal(0, (0.06, 0.10, 0.15, 0.22, 0.32)[level], x.shape)


def _shot_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    photons = (80, 40, 20, 10, 5)[level]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    share, draw = (0.02, 0.05, 0.08, 0.14, 0.22)[level], rng.random(x.shape)
    return np.where(draw < share / 2, 0.0, np.where(draw > 1 - share / 2, 1.0, x))


def _defocus_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    radius = (1.0, 1.5, 2.0, 2.9, 3.7)[level]
    reach = range(-int(radius), int(radius) + 1)
    return _mean_of_shifts(x, [(dy, dx) for dy in reach for dx in reach if dx**2 + dy**2 <= radius**2])


def _glass_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    reach = (0.8, 1.2, 1.6, 2.2, 3.0)[level]
    return _filtered(_moved(x, rng.uniform(-reach, reach, (2, *x.shape[:2]))), ImageFilter.GaussianBlur(0.4))


def _motion_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    half, angle = (1.5, 2.5, 3.5, 5, 7)[level], rng.uniform(-np.pi / 4, np.pi / 4)
    steps = np.linspace(-half, half, 2 * int(half) + 3)
    return _mean_of_shifts(x, [(round(s * np.sin(angle)), round(s * np.cos(angle))) for s in steps])


def _zoom_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    y, z = np.mgrid[0 : x.shape[0], 0 : x.shape[1]]
    middle = np.array(x.shape[:2]).reshape(2, 1, 1) / 2
    zooms = np.linspace(1, (1.08, 1.14, 1.20, 1.27, 1.35)[level], 7)
    return np.mean([_moved(x, (np.stack([y, z]) - middle) * (1 / zoom - 1)) for zoom in zooms], axis=0)


def _snow(x: Field, level: int, rng: np.random.Generator) -> Field:
    share = (0.02, 0.035, 0.05, 0.07, 0.10)[level]
    flakes = (rng.random(x.shape[:2]) < share).astype(np.float64)[..., None]
    streaks = _mean_of_shifts(flakes, [(s, s // 2) for s in range(4)]) * 3
    pale = (0.08, 0.14, 0.20, 0.26, 0.32)[level]
    return (1 - pale) * x + pale * np.maximum(x, 0.9) + np.minimum(streaks, 1) * 0.8


def _frost(x: Field, level: int, rng: np.random.Generator) -> Field:
    size = (x.shape[1], x.shape[0])
    needles = np.abs(smooth_noise(rng, size, 20) - smooth_noise(rng, size, 9))
    ice = np.clip((0.22 - needles) * 6, 0, 1)[..., None] * np.array((0.85, 0.92, 1.0))
    amount = (0.25, 0.38, 0.48, 0.58, 0.68)[level]
    return (1 - 0.6 * amount) * x + amount * ice


def _fog(x: Field, level: int, rng: np.random.Generator) -> Field:
    size, amount = (x.shape[1], x.shape[0]), (0.30, 0.42, 0.54, 0.66, 0.78)[level]
    cloud = sum(smooth_noise(rng, size, cells) / cells for cells in (3, 6, 12)) / (1 / 3 + 1 / 6 + 1 / 12)
    share = amount * np.asarray(0.6 + 0.6 * cloud)[..., None]
    return x * (1 - np.minimum(share, 0.95)) + 0.86 * np.minimum(share, 0.95)


def _brightness(x: Field, level: int, rng: np.random.Generator) -> Field:
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _contrast(x: Field, level: int, rng: np.random.Generator) -> Field:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + (x - mean) * (0.55, 0.40, 0.28, 0.18, 0.10)[level]


def _elastic_transform(x: Field, level: int, rng: np.random.Generator) -> Field:
    size, reach = (x.shape[1], x.shape[0]), (3.0, 5.0, 7.0, 9.0, 12.0)[level]
    shift = np.stack([smooth_noise(rng, size, 9), smooth_noise(rng, size, 9)]) - 0.5
    return _moved(x, shift * reach)


def _pixelate(x: Field, level: int, rng: np.random.Generator) -> Field:
    share = (0.60, 0.48, 0.38, 0.29, 0.22)[level]
    image, size = _image(x), (x.shape[1], x.shape[0])
    small = image.resize([max(1, round(side * share)) for side in size], Image.Resampling.BOX)
    return np.asarray(small.resize(size, Image.Resampling.NEAREST)) / 255


def _jpeg_compression(x: Field, level: int, rng: np.random.Generator) -> Field:
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=(25, 18, 12, 8, 5)[level])
    return np.asarray(Image.open(buffer)) / 255


CORRUPTIONS: dict[str, Callable[[Field, int, np.random.Generator], Field]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}

# The archive that each corruption comes in.
ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


def _image(x: Field) -> Image.Image:
    return Image.fromarray(np.uint8(np.round(np.clip(x, 0, 1) * 255)))


def _filtered(x: Field, kernel: ImageFilter.Filter) -> Field:
    return np.asarray(_image(x).filter(kernel)) / 255


def _mean_of_shifts(x: Field, shifts: list[tuple[int, int]]) -> Field:
    """Mean of copies of x [H, W, C] moved by (down, right); the border repeats its edge."""
    reach = max(max(abs(dy), abs(dx)) for dy, dx in shifts)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = x.shape[:2]
    total = np.zeros_like(x)
    for dy, dx in shifts:
        total += padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return total / len(shifts)


def _moved(x: Field, shift: Field) -> Field:
    """Samples x [H, W, C] bilinearly at each pixel's place plus `shift` [2, H, W] (down, right)."""
    height, width = x.shape[:2]
    place = np.mgrid[0:height, 0:width] + shift
    y, z = np.clip(place[0], 0, height - 1.001), np.clip(place[1], 0, width - 1.001)
    row, column = y.astype(int), z.astype(int)
    down, right = (y - row)[..., None], (z - column)[..., None]
    upper = x[row, column] * (1 - right) + x[row, column + 1] * right
    lower = x[row + 1, column] * (1 - right) + x[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down
