"""Image files: checking that they exist, and decoding them with errors that name the file."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from luab.errors import DataError


def open_image(file: Path, where: str, data: bytes | None = None) -> Image.Image:
    """Decodes an image to RGB; like torchvision's loaders, it ignores the EXIF orientation.

    Args:
        file: The image.
        where: Row of the list that names the image, for the error message.
        data: Content of the file if it is already in memory.

    Raises:
        DataError: The file is missing, empty or damaged.
    """
    with readable(file, where), Image.open(file if data is None else io.BytesIO(data)) as image:
        return image.convert("RGB")


@contextlib.contextmanager
def readable(file: Path, where: str) -> Iterator[None]:
    """Context for reading an image: turns every failure into a DataError that names the file and its row."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{file} ({where}): expected an image, found no file. Restore the file, or rebuild the manifest with "
            "`luab manifest`."
        ) from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} ({where}): expected an image, found a damaged file ({error}). Download or copy this file again."
        ) from error


def check_images(root: Path, paths: np.ndarray, most: int = 20_000) -> None:
    """Checks that images exist, before the first step: all of them, or `most` evenly spaced ones.

    Raises:
        DataError: Images are missing; the message counts them and names the first.
    """
    step = max(1, len(paths) // most)
    checked = paths[::step]
    missing = [path for path in checked if not os.path.isfile(root / path)]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of the {len(checked)} images checked are missing, first {missing[0]}. The "
            "manifest lists images of another folder: correct `paths` in the config, or rebuild the manifest with "
            "`luab manifest`."
        )
