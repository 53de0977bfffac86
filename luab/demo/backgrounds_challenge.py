"""The demo world's Backgrounds Challenge: foregrounds on their own and on each other's backgrounds."""

from dataclasses import dataclass, replace

import numpy as np

from luab.data.manifests.labels import IN9_FOLDERS
from luab.demo.canvas import Box, Field, Mask, Pixels, Size, to_pixels
from luab.demo.classes import CLASSES, FAMILIES
from luab.demo.drawing import backdrop, choose_backdrop, class_sprite, over, strange_sprite
from luab.demo.packing import Archive, Members, jpeg_bytes, npy_bytes
from luab.demo.photos import PHOTO
from luab.demo.randomness import stream


@dataclass(frozen=True)
class _CutOut:
    """One picture with its object, the same without it, and where the object is."""

    stem: str
    super_class: int
    whole: Pixels
    empty: Pixels
    mask: Mask
    box: Box


def in9_archive(seed: int, size_px: int, per_super_class: int) -> Archive:
    """backgrounds_challenge_data.tar.gz: the eight variants and the foreground masks.

    DEVIATES: the demo's only_bg_t shows the true backdrop where the object was; the real set, for which it is unknown,
    fills the object's box with copies of a piece of the surroundings.
    """
    pictures = _cut_outs(seed, size_px, per_super_class)
    members: Members = {}
    for number, picture in enumerate(pictures):
        rng = stream(seed, "in9", "mix", number)
        folder = IN9_FOLDERS[picture.super_class]
        for variant, pixels in _variants(picture, pictures, rng).items():
            members[f"bg_challenge/{variant}/val/{folder}/{picture.stem}.JPEG"] = jpeg_bytes(pixels, quality=95)
        members[f"bg_challenge/fg_mask/val/{folder}/{picture.stem}.npy"] = npy_bytes(picture.mask.astype(np.uint8))
    return Archive("in9", "in9", "backgrounds_challenge_data.tar.gz", "tar.gz", members)


def _cut_outs(seed: int, size_px: int, per_super_class: int) -> list[_CutOut]:
    """Draws the foregrounds of the nine super-classes, taking turns between the classes of each."""
    pictures = []
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
            pictures.append(_CutOut(stem, super_class, whole, to_pixels(ground), sprite.mask, sprite.box))
    return pictures


def _ground(family: str, size: Size, rng: np.random.Generator) -> Field:
    """A backdrop as in the photographs, but never plain: mostly the family's own, with a little clutter."""
    ground = backdrop(choose_backdrop(family, replace(PHOTO, usual_backdrop=0.85, plain=0), rng), size, rng)
    for _ in range(int(rng.integers(0, 3))):
        ground = over(ground, strange_sprite(size, PHOTO, rng, span=0.14))
    return ground


def _variants(picture: _CutOut, pictures: list[_CutOut], rng: np.random.Generator) -> dict[str, Pixels]:
    x0, y0, x1, y1 = picture.box
    boxed = picture.whole.copy()
    boxed[y0 : y1 + 1, x0 : x1 + 1] = 0
    same = [one for one in pictures if one.super_class == picture.super_class and one is not picture] or [picture]
    following = [one for one in pictures if one.super_class == (picture.super_class + 1) % len(IN9_FOLDERS)]
    mask = picture.mask[..., None]
    mixed = {
        name: np.where(mask, picture.whole, choices[int(rng.integers(len(choices)))].empty)
        for name, choices in (("mixed_same", same), ("mixed_rand", pictures), ("mixed_next", following))
    }
    return {
        "original": picture.whole,
        **mixed,
        "only_fg": np.where(mask, picture.whole, 0).astype(np.uint8),
        "no_fg": np.where(mask, 0, picture.whole).astype(np.uint8),
        "only_bg_b": boxed,
        "only_bg_t": picture.empty,
    }
