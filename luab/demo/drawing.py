"""Paints the demo world's scenes: backdrop, clutter and silhouettes whose masks are known exactly."""

import colorsys
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from luab.demo.backdrops import BACKDROPS
from luab.demo.classes import FAMILIES, Colour, DemoClass
from luab.demo.noise import smooth_noise
from luab.demo.parts import Part, strange_shape
from luab.demo.silhouettes import SILHOUETTES

Pixels = NDArray[np.uint8]
Field = NDArray[np.float64]
Box = tuple[int, int, int, int]

SUPERSAMPLING = 3
_NOT_BODY = ("wood",)
_FIXED = {
    "white": (0.97, 0.96, 0.93),
    "ink": (0.13, 0.13, 0.17),
    "glass": (0.60, 0.80, 0.92),
    "warm": (0.96, 0.57, 0.20),
    "wood": (0.52, 0.37, 0.25),
    "leaf": (0.30, 0.55, 0.32),
    "gold": (0.95, 0.80, 0.35),
    "pale": (0.88, 0.92, 0.96),
    "skin": (0.80, 0.62, 0.50),
}


@dataclass(frozen=True)
class Look:
    """How the scenes of one set are drawn: shares in [0, 1], `span` as share of the shorter side."""

    usual_backdrop: float = 0.85
    span: tuple[float, float] = (0.42, 0.9)
    turn_deg: float = 30.0
    shear: float = 0.12
    hue_shift: float = 0.035
    odd_hue: float = 0.25
    clutter: tuple[int, int] = (0, 3)
    cut_off: float = 0.08
    twins: float = 0.06
    shadow: bool = True


@dataclass(frozen=True)
class Sprite:
    """One painted object on an empty canvas, all in [0, 1].

    Attributes:
        colours: [H, W, 3].
        coverage: [H, W], of all that is painted.
        body: [H, W], of the object alone, without the branch that it may sit on.
    """

    colours: Field
    coverage: Field
    body: Field

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels that belong to the object: covered at least half as much as its best pixel."""
        return (self.body > 0) & (self.body >= self.body.max() / 2)

    @property
    def box(self) -> Box | None:
        """x0, y0, x1, y1 of the mask in pixels, the last two inclusive; None when nothing is in sight."""
        return mask_box(self.mask)


@dataclass(frozen=True)
class Scene:
    """A finished picture [H, W, 3] with the boxes of its objects of the class, the main one first."""

    pixels: Pixels
    boxes: list[Box]
    mask: NDArray[np.bool_]
    backdrop: str
    sprite: Sprite | None = field(default=None, repr=False)


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """Tight box of a mask [H, W]: x0, y0, x1, y1, the last ones inclusive; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def palette(hsv: Colour, accent: Colour) -> dict[str, Colour]:
    """Colours of the roles of a silhouette's parts, from the hue, saturation and value of its body."""
    hue, saturation, value = hsv
    return _FIXED | {
        "body": colorsys.hsv_to_rgb(hue % 1, saturation, value),
        "dark": colorsys.hsv_to_rgb(hue % 1, min(1, saturation * 1.08), value * 0.66),
        "light": colorsys.hsv_to_rgb((hue + 0.015) % 1, saturation * 0.55, min(1.0, value * 1.12 + 0.06)),
        "accent": accent,
    }


def place(
    parts: list[Part], size: tuple[int, int], look: Look, rng: np.random.Generator, span: float | None = None
) -> list[Part]:
    """Turns, mirrors, scales and moves a silhouette into a frame of `size` (width, height), in pixels."""
    width, height = size
    half = (rng.uniform(*look.span) if span is None else span) * min(size) / 2
    turn = np.deg2rad(rng.uniform(-look.turn_deg, look.turn_deg))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    shear, squeeze = rng.uniform(-look.shear, look.shear), rng.uniform(1 - look.shear, 1 + look.shear)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[mirror * squeeze, shear], [0, 1 / squeeze]]) * half
    moved = [replace(part, points=part.points @ matrix.T) for part in parts]
    low, high = _extent(moved)
    slack = np.array([width, height]) - (high - low)
    offset = np.where(slack > 2, rng.uniform(1, np.maximum(slack - 1, 1.01)), slack / 2) - low
    if rng.random() < look.cut_off:
        offset = offset + rng.choice([-1, 1], size=2) * rng.uniform(0.0, 0.22, size=2) * (high - low)
    return [replace(part, points=part.points + offset) for part in moved]


def place_at(parts: list[Part], centre: tuple[float, float], half: float, turn_deg: float = 0.0) -> list[Part]:
    """Puts a silhouette's middle at `centre` (x, y), `half` pixels for one unit, turned clockwise."""
    turn = np.deg2rad(turn_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * half
    moved = [replace(part, points=part.points @ matrix.T) for part in parts]
    low, high = _extent(moved)
    offset = np.array(centre) - (low + high) / 2
    return [replace(part, points=part.points + offset) for part in moved]


def _extent(parts: list[Part]) -> tuple[Field, Field]:
    points = np.concatenate([part.points for part in parts])
    return points.min(axis=0), points.max(axis=0)


def paint(parts: list[Part], colours: dict[str, Colour], size: tuple[int, int], rng: np.random.Generator) -> Sprite:
    """Fills placed parts with their colours, softly lit from above and lightly grained."""
    width, height = size
    big = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    canvas = Image.new("RGB", big, _rgb(colours["dark"]))
    covers = {"all": Image.new("L", big, 0), "body": Image.new("L", big, 0)}
    pen, stamp, body_stamp = ImageDraw.Draw(canvas), *map(ImageDraw.Draw, covers.values())
    for part in parts:
        corners = (part.points * SUPERSAMPLING).ravel().tolist()
        pen.polygon(corners, fill=_rgb(colours[part.role]))
        stamp.polygon(corners, fill=255)
        if part.role not in _NOT_BODY:
            body_stamp.polygon(corners, fill=255)
    painted = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255
    coverage, body = (np.asarray(cover.reduce(SUPERSAMPLING), dtype=np.float64) / 255 for cover in covers.values())
    low, high = _extent(parts)
    down = (np.arange(height) - low[1]) / max(high[1] - low[1], 1.0)
    light = 1.12 - 0.28 * np.clip(down, 0, 1)[:, None] + 0.12 * (smooth_noise(rng, size, 7) - 0.5)
    return Sprite(np.clip(painted * light[..., None], 0, 1), coverage, body)


def outline(parts: list[Part], size: tuple[int, int], ink: float, paper: float, width_px: float = 1.3) -> Field:
    """Draws placed parts as lines of grey `ink` on `paper` (both in [0, 1]); returns [H, W]."""
    canvas = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), round(255 * paper))
    pen = ImageDraw.Draw(canvas)
    for part in parts:
        corners = [(float(x), float(y)) for x, y in part.points * SUPERSAMPLING]
        pen.polygon(corners, fill=round(255 * (paper if part.role != "ink" else ink)))
        pen.line([*corners, corners[0]], fill=round(255 * ink), width=max(1, round(width_px * SUPERSAMPLING)))
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def over(ground: Field, sprite: Sprite, shadow: bool = False) -> Field:
    """Lays a sprite over a ground [H, W, 3], with a soft shadow under it if wanted."""
    if shadow:
        dark = Image.fromarray(np.uint8(np.round(sprite.coverage * 255)))
        soft = np.asarray(dark.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64) / 255
        ground = ground * (1 - 0.35 * np.roll(soft, (3, 1), axis=(0, 1)))[..., None]
    cover = sprite.coverage[..., None]
    return ground * (1 - cover) + sprite.colours * cover


def backdrop(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Paints one of the world's backdrops for a frame of `size` (width, height); returns [H, W, 3]."""
    ground = BACKDROPS[kind](size, rng)
    tint = 1 + rng.uniform(-0.08, 0.08, size=3)
    return np.clip(ground * tint * rng.uniform(0.88, 1.08) + rng.normal(0, 0.012, ground.shape), 0, 1)


def choose_backdrop(family: str, usual: float, rng: np.random.Generator) -> str:
    """The family's own backdrop with probability `usual`, otherwise any of the others."""
    own = FAMILIES[family]
    others = [kind for kind in FAMILIES.values() if kind != own]
    return own if rng.random() < usual else others[int(rng.integers(len(others)))]


def class_palette(item: DemoClass, look: Look, rng: np.random.Generator) -> dict[str, Colour]:
    """The class's colours with this object's own variation of hue, saturation and value."""
    hue, saturation, value = item.hsv
    spread = 0.5 if rng.random() < look.odd_hue else look.hue_shift
    hue += rng.uniform(-spread, spread)
    saturation = float(np.clip(saturation * rng.uniform(0.85, 1.1), 0, 1))
    return palette((hue, saturation, float(np.clip(value * rng.uniform(0.88, 1.08), 0, 1))), item.accent)


def class_sprite(
    item: DemoClass, size: tuple[int, int], look: Look, rng: np.random.Generator, span: float | None = None
) -> Sprite:
    """One object of the class somewhere in the frame."""
    parts = place(SILHOUETTES[item.name](), size, look, rng, span)
    return paint(parts, class_palette(item, look, rng), size, rng)


def strange_sprite(size: tuple[int, int], look: Look, rng: np.random.Generator, span: float | None = None) -> Sprite:
    """One object of no class, in any colour."""
    hsv = (rng.random(), rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.95))
    return paint(place(strange_shape(rng), size, look, rng, span), palette(hsv, _FIXED["gold"]), size, rng)


def draw_scene(
    item: DemoClass | None,
    size: tuple[int, int],
    look: Look,
    rng: np.random.Generator,
    second: DemoClass | None = None,
    span: float | None = None,
) -> Scene:
    """Draws one picture: backdrop, clutter, a second object if given, then the main one on top.

    Args:
        item: The class shown; None for an object of no class.
        size: Width and height in pixels.
        look: How the set is drawn.
        rng: Source of all variation.
        second: Another class that is in the picture too; its box is not among the scene's boxes.
        span: Size of the main object as share of the shorter side; drawn from `look` when None.

    Returns:
        The scene; its boxes hold what is in sight of the class's objects before later ones cover them.
    """
    families = list(FAMILIES)
    family = item.family if item else families[int(rng.integers(len(families)))]
    kind = choose_backdrop(family, look.usual_backdrop, rng)
    ground = backdrop(kind, size, rng)
    for _ in range(int(rng.integers(look.clutter[0], look.clutter[1] + 1))):
        ground = over(ground, strange_sprite(size, look, rng, span=rng.uniform(0.1, 0.28)))
    boxes: list[Box] = []
    if second is not None:
        ground = over(ground, class_sprite(second, size, look, rng, span=rng.uniform(0.45, 0.6)), look.shadow)
    elif item is not None and rng.random() < look.twins:
        twin = class_sprite(item, size, look, rng, span=rng.uniform(0.35, 0.5))
        ground = over(ground, twin, look.shadow)
        boxes = [twin.box] if twin.box else []
    main = class_sprite(item, size, look, rng, span) if item else strange_sprite(size, look, rng, span)
    if main.box is not None:
        boxes = [main.box, *boxes]
    return Scene(to_pixels(over(ground, main, look.shadow)), boxes, main.mask, kind, main)


def to_pixels(picture: Field) -> Pixels:
    """Fractions to 8 bit, rounded."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue
