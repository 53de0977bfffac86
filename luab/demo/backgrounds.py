"""The demo world's Backgrounds Challenge: foregrounds before their own and each other's backgrounds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luab.data.manifests.labels import IN9_FOLDERS
from luab.demo.classes import CLASSES, FAMILIES
from luab.demo.drawing import (
    Box,
    Field,
    Pixels,
    backdrop,
    choose_backdrop,
    class_sprite,
    over,
    strange_sprite,
    to_pixels,
)
from luab.demo.noise import stream
from luab.demo.packing import Archive, Members, jpeg_bytes, npy_bytes
from luab.demo.photos import PHOTO


@dataclass(frozen=True)
class Cut:
    """One picture taken apart: with its object, without it, and where the object is."""

    stem: str
    super_class: int
    whole: Pixels
    empty: Pixels
    mask: NDArray[np.bool_]
    box: Box


def cuts(seed: int, size_px: int, per_super_class: int) -> list[Cut]:
    """Draws the foregrounds, `per_super_class` for each of the nine, the super-class's classes in turn."""
    made = []
    for super_class, family in enumerate(list(FAMILIES)[: len(IN9_FOLDERS)]):
        items = [item for item in CLASSES if item.family == family]
        for k in range(per_super_class):
            rng = stream(seed, "in9", family, k)
            size, item = (size_px, size_px), items[k % len(items)]
            ground = _ground(family, size, rng)
            sprite = class_sprite(item, size, PHOTO, rng)
            assert sprite.box is not None, f"{item.name}: place() leaves most of an object in the frame"
            whole = to_pixels(over(ground, sprite))
            stem = f"{item.wnid}_{k + 1}"
            made.append(Cut(stem, super_class, whole, to_pixels(ground), sprite.mask, sprite.box))
    return made


def _ground(family: str, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """A backdrop as in the photographs: mostly the family's own, with a little clutter."""
    ground = backdrop(choose_backdrop(family, PHOTO.usual_backdrop, rng), size, rng)
    for _ in range(int(rng.integers(0, 3))):
        ground = over(ground, strange_sprite(size, PHOTO, rng, span=0.14))
    return ground


def in9_archive(seed: int, size_px: int, per_super_class: int) -> Archive:
    """backgrounds_challenge_data.tar.gz: the eight variants and the foreground masks.

    DEVIATES: the demo's only_bg_t shows the true backdrop where the object was; the real one, where nobody knows
    it, fills the object's box with copies of a piece of the surroundings.
    """
    made = cuts(seed, size_px, per_super_class)
    members: Members = {}
    for number, cut in enumerate(made):
        rng = stream(seed, "in9", "mix", number)
        folder = IN9_FOLDERS[cut.super_class]
        for variant, pixels in _variants(cut, made, rng).items():
            members[f"bg_challenge/{variant}/val/{folder}/{cut.stem}.JPEG"] = jpeg_bytes(pixels, quality=95)
        members[f"bg_challenge/fg_mask/val/{folder}/{cut.stem}.npy"] = npy_bytes(cut.mask.astype(np.uint8))
    return Archive("in9", "in9", "backgrounds_challenge_data.tar.gz", "tar.gz", members, "in9")


def _variants(cut: Cut, made: list[Cut], rng: np.random.Generator) -> dict[str, Pixels]:
    x0, y0, x1, y1 = cut.box
    boxed = cut.whole.copy()
    boxed[y0 : y1 + 1, x0 : x1 + 1] = 0
    same = [other for other in made if other.super_class == cut.super_class and other is not cut] or [cut]
    following = [other for other in made if other.super_class == (cut.super_class + 1) % len(IN9_FOLDERS)]
    mask = cut.mask[..., None]
    mixed = {
        name: np.where(mask, cut.whole, choices[int(rng.integers(len(choices)))].empty)
        for name, choices in (("mixed_same", same), ("mixed_rand", made), ("mixed_next", following))
    }
    return {
        "original": cut.whole,
        **mixed,
        "only_fg": np.where(mask, cut.whole, 0).astype(np.uint8),
        "no_fg": np.where(mask, 0, cut.whole).astype(np.uint8),
        "only_bg_b": boxed,
        "only_bg_t": cut.empty,
    }
