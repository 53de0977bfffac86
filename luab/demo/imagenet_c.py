"""The demo world's ImageNet-C: the fifteen corruptions for small pictures, each in five severities.

DEVIATES: ImageNet-C's own corruptions are tuned for 224 px and need ImageMagick and photographs of frost; the demo's
keep the nature of each corruption, with numpy and Pillow, at strengths that suit a few dozen pixels.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageFilter

from luab.data.manifests.labels import CORRUPTION_FAMILIES
from luab.demo.canvas import Field, Pixels, to_pixels
from luab.demo.classes import CLASSES
from luab.demo.packing import Archive, Members, jpeg_bytes
from luab.demo.photos import ValImage
from luab.demo.randomness import smooth_noise, stream


def imagenet_c(seed: int, size_px: int, images: list[ValImage], per_class: int) -> Iterator[Archive]:
    """The four tars of ImageNet-C, made of the first clear validation images of each class, cropped to `size_px`."""
    clear = [[image for image in images if image.item is item and image.clear] for item in CLASSES]
    chosen = [image for of_class in clear for image in of_class[:per_class]]
    crops = {image.name: _centre_crop(image.scene.pixels, size_px) for image in chosen}
    for family, corruptions in CORRUPTION_FAMILIES.items():
        members: Members = {}
        for corruption in corruptions:
            for severity in range(1, 6):
                for image in chosen:
                    rng = stream(seed, "c", corruption, severity, image.name)
                    path = f"{corruption}/{severity}/{image.item.wnid}/{image.name}.JPEG"
                    members[path] = jpeg_bytes(corrupt(crops[image.name], corruption, severity, rng), quality=85)
        yield Archive(f"imagenet_c_{family}", "imagenet_c", f"imagenet-c-{family}.tar", "tar", members)


def _centre_crop(pixels: Pixels, size_px: int) -> Pixels:
    """Resizes the shorter side to 256/224 of `size_px` and crops the middle, as ImageNet-C was made."""
    image = Image.fromarray(pixels)
    scale = size_px * 256 / 224 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (image.width - size_px) // 2, (image.height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px)))


def corrupt(pixels: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """Applies one of `luab.data.manifests.labels.CORRUPTIONS` to a picture [H, W, 3]; `severity` is 1 to 5."""
    return to_pixels(_FUNCTIONS[name](pixels / 255, severity - 1, rng))


def gaussian_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Adds normal noise."""
    return x + rng.normal(0, (0.06, 0.10, 0.15, 0.22, 0.32)[level], x.shape)


def shot_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Adds Poisson noise, as of few photons."""
    photons = (80, 40, 20, 10, 5)[level]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Sets single values to black or white."""
    share, draw = (0.02, 0.05, 0.08, 0.14, 0.22)[level], rng.random(x.shape)
    return np.where(draw < share / 2, 0.0, np.where(draw > 1 - share / 2, 1.0, x))


def defocus_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Averages over a disc."""
    radius = (1.0, 1.5, 2.0, 2.9, 3.7)[level]
    reach = range(-int(radius), int(radius) + 1)
    return _mean_of_shifts(x, [(dy, dx) for dy in reach for dx in reach if dx**2 + dy**2 <= radius**2])


def glass_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Moves each pixel at random, then smooths."""
    reach = (0.8, 1.2, 1.6, 2.2, 3.0)[level]
    moved = _moved(x, rng.uniform(-reach, reach, (2, *x.shape[:2])))
    return np.asarray(_image(moved).filter(ImageFilter.GaussianBlur(0.4))) / 255


def motion_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Averages along a line."""
    half, angle = (1.5, 2.5, 3.5, 5, 7)[level], rng.uniform(-np.pi / 4, np.pi / 4)
    steps = np.linspace(-half, half, 2 * int(half) + 3)
    return _mean_of_shifts(x, [(round(s * np.sin(angle)), round(s * np.cos(angle))) for s in steps])


def zoom_blur(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Averages over several zooms."""
    y, z = np.mgrid[0 : x.shape[0], 0 : x.shape[1]]
    middle = np.array(x.shape[:2]).reshape(2, 1, 1) / 2
    zooms = np.linspace(1, (1.08, 1.14, 1.20, 1.27, 1.35)[level], 7)
    return np.mean([_moved(x, (np.stack([y, z]) - middle) * (1 / zoom - 1)) for zoom in zooms], axis=0)


def snow(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Adds streaks of flakes and pales the picture."""
    share = (0.02, 0.035, 0.05, 0.07, 0.10)[level]
    flakes = (rng.random(x.shape[:2]) < share).astype(np.float64)[..., None]
    streaks = _mean_of_shifts(flakes, [(s, s // 2) for s in range(4)]) * 3
    pale = (0.08, 0.14, 0.20, 0.26, 0.32)[level]
    return (1 - pale) * x + pale * np.maximum(x, 0.9) + np.minimum(streaks, 1) * 0.8


def frost(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Lays bright needles over the picture."""
    size = (x.shape[1], x.shape[0])
    needles = np.abs(smooth_noise(rng, size, 20) - smooth_noise(rng, size, 9))
    ice = np.clip((0.22 - needles) * 6, 0, 1)[..., None] * np.array((0.85, 0.92, 1.0))
    amount = (0.25, 0.38, 0.48, 0.58, 0.68)[level]
    return (1 - 0.6 * amount) * x + amount * ice


def fog(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Mixes in a bright cloud."""
    size, amount = (x.shape[1], x.shape[0]), (0.30, 0.42, 0.54, 0.66, 0.78)[level]
    cloud = sum(smooth_noise(rng, size, cells) / cells for cells in (3, 6, 12)) / (1 / 3 + 1 / 6 + 1 / 12)
    share = amount * np.asarray(0.6 + 0.6 * cloud)[..., None]
    return x * (1 - np.minimum(share, 0.95)) + 0.86 * np.minimum(share, 0.95)


def brightness(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Adds a constant."""
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def contrast(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Pulls all values towards the mean."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + (x - mean) * (0.55, 0.40, 0.28, 0.18, 0.10)[level]


def elastic_transform(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Moves pixels by a smooth random field."""
    size, reach = (x.shape[1], x.shape[0]), (3.0, 5.0, 7.0, 9.0, 12.0)[level]
    shift = np.stack([smooth_noise(rng, size, 9), smooth_noise(rng, size, 9)]) - 0.5
    return _moved(x, shift * reach)


def pixelate(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Shrinks and enlarges without smoothing."""
    share = (0.60, 0.48, 0.38, 0.29, 0.22)[level]
    image, size = _image(x), (x.shape[1], x.shape[0])
    small = image.resize([max(1, round(side * share)) for side in size], Image.Resampling.BOX)
    return np.asarray(small.resize(size, Image.Resampling.NEAREST)) / 255


def jpeg_compression(x: Field, level: int, rng: np.random.Generator) -> Field:
    """Saves at low quality."""
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=(25, 18, 12, 8, 5)[level])
    return np.asarray(Image.open(buffer)) / 255


Corruption = Callable[[Field, int, np.random.Generator], Field]
# Name of a corruption -> its function; `level` is the severity minus one.
_FUNCTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise,
        defocus_blur, glass_blur, motion_blur, zoom_blur,
        snow, frost, fog, brightness,
        contrast, elastic_transform, pixelate, jpeg_compression,
    )
}  # fmt: skip


def _image(x: Field) -> Image.Image:
    return Image.fromarray(to_pixels(x))


def _mean_of_shifts(x: Field, shifts: list[tuple[int, int]]) -> Field:
    """Averages copies of x [H, W, C] moved by (down, right); pixels beyond the border repeat the edge."""
    reach = max(max(abs(dy), abs(dx)) for dy, dx in shifts)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = x.shape[:2]
    total = np.zeros_like(x)
    for dy, dx in shifts:
        total += padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return total / len(shifts)


def _moved(x: Field, shift: Field) -> Field:
    """Samples x [H, W, C] bilinearly at the position of each pixel plus `shift` [2, H, W] (down, right)."""
    height, width = x.shape[:2]
    place = np.mgrid[0:height, 0:width] + shift
    y, z = np.clip(place[0], 0, height - 1.001), np.clip(place[1], 0, width - 1.001)
    row, column = y.astype(int), z.astype(int)
    down, right = (y - row)[..., None], (z - column)[..., None]
    upper = x[row, column] * (1 - right) + x[row, column + 1] * right
    lower = x[row + 1, column] * (1 - right) + x[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down
