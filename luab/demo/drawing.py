"""Scenes of the demo world: a backdrop, clutter and silhouettes whose masks are known exactly."""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from luab.demo.backdrops import BACKDROPS
from luab.demo.canvas import Box, Field, Mask, Pixels, Size, mask_box, to_pixels
from luab.demo.classes import FAMILIES, Colour, DemoClass
from luab.demo.polygons import SILHOUETTES, FilledPolygon, extent, shifted, strange_shape, transformed
from luab.demo.randomness import smooth_noise

SUPERSAMPLING = 3
_BRANCH = "wood"  # colour of the branch that an animal sits on, which is not part of the object
_HUE_SHIFT = 0.035  # largest change of a class's hue, of a full circle
_TWINS = 0.06  # share of scenes with a second object of the same class
_FIXED_COLOURS = {
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
    """How the scenes of one set are drawn."""

    usual_backdrop: float = 0.5  # share of scenes with the backdrop of the class's family
    plain: float = 0.3  # share of scenes with an even backdrop, as in a studio, from black to white
    span: tuple[float, float] = (0.4, 0.72)  # smallest and largest main object, as share of the shorter side
    towards_edges: float = 0.5  # both parameters of the beta distribution of places: 1 = uniform, less = off the centre
    turn_deg: float = 30.0  # largest rotation of an object to either side
    shear: float = 0.12  # largest shear, and largest change of the aspect ratio
    odd_hue: float = 0.1  # share of objects with a random hue
    clutter: tuple[int, int] = (0, 2)  # fewest and most small objects of no class
    cut_off: float = 0.08  # share of objects that may reach over the picture's border


@dataclass(frozen=True)
class Sprite:
    """One painted object on an empty canvas; all values in [0, 1]."""

    colours: Field  # [H, W, 3]
    coverage: Field  # [H, W], of everything that is painted
    body: Field  # [H, W], of the object without the branch that it may sit on

    @property
    def mask(self) -> Mask:
        """Pixels of the object: those covered at least half as much as its best-covered pixel."""
        return (self.body > 0) & (self.body >= self.body.max() / 2)

    @property
    def box(self) -> Box | None:
        """Tight box of the mask; None if the object is out of sight."""
        return mask_box(self.mask)


@dataclass(frozen=True)
class Scene:
    """A finished picture."""

    pixels: Pixels  # [H, W, 3]
    boxes: list[Box]  # of the objects of the scene's class, the main one first
    backdrop: str  # its name
    mask: Mask  # [H, W] of the main object

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def palette(hsv: Colour, accent: Colour) -> dict[str, Colour]:
    """Returns the colour of each role of a silhouette, derived from hue, saturation and value of its body."""
    hue, saturation, value = hsv
    return _FIXED_COLOURS | {
        "body": colorsys.hsv_to_rgb(hue % 1, saturation, value),
        "dark": colorsys.hsv_to_rgb(hue % 1, min(1, saturation * 1.08), value * 0.66),
        "light": colorsys.hsv_to_rgb((hue + 0.015) % 1, saturation * 0.55, min(1.0, value * 1.12 + 0.06)),
        "accent": accent,
    }


def place(
    silhouette: list[FilledPolygon], size: Size, look: Look, rng: np.random.Generator, span: float | None = None
) -> list[FilledPolygon]:
    """Turns, mirrors, shears, scales and moves a silhouette at random into a frame of `size`; returns pixels."""
    half = (rng.uniform(*look.span) if span is None else span) * min(size) / 2
    turn = np.deg2rad(rng.uniform(-look.turn_deg, look.turn_deg))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    shear, squeeze = rng.uniform(-look.shear, look.shear), rng.uniform(1 - look.shear, 1 + look.shear)
    matrix = _rotation(turn) @ np.array([[mirror * squeeze, shear], [0, 1 / squeeze]]) * half
    turned = transformed(silhouette, matrix)
    low, high = extent(turned)
    slack = np.array(size) - (high - low)
    free = rng.beta(look.towards_edges, look.towards_edges, size=2) * np.maximum(slack - 2, 0.01)
    offset = np.where(slack > 2, 1 + free, slack / 2) - low
    if rng.random() < look.cut_off:
        offset = offset + rng.choice([-1, 1], size=2) * rng.uniform(0.0, 0.22, size=2) * (high - low)
    return shifted(turned, offset)


def place_at(
    silhouette: list[FilledPolygon], centre: tuple[float, float], half: float, turn_deg: float = 0.0
) -> list[FilledPolygon]:
    """Puts the middle of a silhouette at `centre` (x, y), with `half` pixels per unit, turned clockwise."""
    turned = transformed(silhouette, _rotation(np.deg2rad(turn_deg)) * half)
    low, high = extent(turned)
    return shifted(turned, np.array(centre) - (low + high) / 2)


def _rotation(angle: float) -> Field:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def paint(placed: list[FilledPolygon], colours: dict[str, Colour], size: Size, rng: np.random.Generator) -> Sprite:
    """Fills placed polygons with their colours, softly lit from above and lightly grained."""
    big = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    canvas = Image.new("RGB", big, _rgb(colours["dark"]))
    covers = {"all": Image.new("L", big, 0), "body": Image.new("L", big, 0)}
    pen, stamp, body_stamp = ImageDraw.Draw(canvas), *map(ImageDraw.Draw, covers.values())
    for one in placed:
        corners = (one.points * SUPERSAMPLING).ravel().tolist()
        pen.polygon(corners, fill=_rgb(colours[one.role]))
        stamp.polygon(corners, fill=255)
        if one.role != _BRANCH:
            body_stamp.polygon(corners, fill=255)
    painted, coverage, body = map(_reduced, (canvas, *covers.values()))
    low, high = extent(placed)
    down = (np.arange(size[1]) - low[1]) / max(high[1] - low[1], 1.0)
    light = 1.12 - 0.28 * np.clip(down, 0, 1)[:, None] + 0.12 * (smooth_noise(rng, size, 7) - 0.5)
    return Sprite(np.clip(painted * light[..., None], 0, 1), coverage, body)


def line_drawing(placed: list[FilledPolygon], size: Size, ink: float, paper: float, width_px: float = 1.3) -> Field:
    """Draws the outlines of placed polygons as lines of grey `ink` on `paper`, both in [0, 1]; returns [H, W]."""
    canvas = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), round(255 * paper))
    pen = ImageDraw.Draw(canvas)
    for one in placed:
        corners = [(float(x), float(y)) for x, y in one.points * SUPERSAMPLING]
        pen.polygon(corners, fill=round(255 * (paper if one.role != "ink" else ink)))
        pen.line([*corners, corners[0]], fill=round(255 * ink), width=max(1, round(width_px * SUPERSAMPLING)))
    return _reduced(canvas)


def _reduced(canvas: Image.Image) -> Field:
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def over(ground: Field, sprite: Sprite, shadow: bool = False) -> Field:
    """Lays a sprite over a ground [H, W, 3], with a soft shadow under it if `shadow` is set."""
    if shadow:
        dark = Image.fromarray(np.uint8(np.round(sprite.coverage * 255)))
        soft = np.asarray(dark.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64) / 255
        ground = ground * (1 - 0.35 * np.roll(soft, (3, 1), axis=(0, 1)))[..., None]
    cover = sprite.coverage[..., None]
    return ground * (1 - cover) + sprite.colours * cover


def backdrop(kind: str, size: Size, rng: np.random.Generator) -> Field:
    """Paints one of BACKDROPS with a random tint and brightness; returns [H, W, 3]."""
    ground = BACKDROPS[kind](size, rng)
    tint = 1 + rng.uniform(-0.08, 0.08, size=3)
    return np.clip(ground * tint * rng.uniform(0.88, 1.08) + rng.normal(0, 0.012, ground.shape), 0, 1)


def choose_backdrop(family: str, look: Look, rng: np.random.Generator) -> str:
    """Returns the family's own backdrop or the plain one, each with the look's probability, else that of any other."""
    own, chance = FAMILIES[family], rng.random()
    others = [kind for kind in FAMILIES.values() if kind != own]
    if chance < look.usual_backdrop:
        return own
    return "plain" if chance < look.usual_backdrop + look.plain else others[int(rng.integers(len(others)))]


def class_palette(item: DemoClass, look: Look, rng: np.random.Generator) -> dict[str, Colour]:
    """Returns the class's palette with a random variation of hue, saturation and value."""
    hue, saturation, value = item.hsv
    spread = 0.5 if rng.random() < look.odd_hue else _HUE_SHIFT
    hue += rng.uniform(-spread, spread)
    saturation = float(np.clip(saturation * rng.uniform(0.85, 1.1), 0, 1))
    return palette((hue, saturation, float(np.clip(value * rng.uniform(0.88, 1.08), 0, 1))), item.accent)


def class_sprite(
    item: DemoClass, size: Size, look: Look, rng: np.random.Generator, span: float | None = None
) -> Sprite:
    """Paints one object of the class at a random place in the frame."""
    placed = place(SILHOUETTES[item.name], size, look, rng, span)
    return paint(placed, class_palette(item, look, rng), size, rng)


def strange_sprite(size: Size, look: Look, rng: np.random.Generator, span: float | None = None) -> Sprite:
    """Paints one object of no class, in any colour."""
    hsv = (rng.random(), rng.uniform(0.35, 0.8), rng.uniform(0.5, 0.95))
    return paint(place(strange_shape(rng), size, look, rng, span), palette(hsv, _FIXED_COLOURS["gold"]), size, rng)


def draw_scene(
    item: DemoClass | None, size: Size, look: Look, rng: np.random.Generator, second: DemoClass | None = None
) -> Scene:
    """Draws one picture: backdrop, clutter, an object of the class `second` if given, then the main one on top.

    The main object is of no class if `item` is None. The scene has no box for `second`; a box is that of the object
    before later objects cover it.
    """
    families = list(FAMILIES)
    family = item.family if item else families[int(rng.integers(len(families)))]
    kind = choose_backdrop(family, look, rng)
    ground = backdrop(kind, size, rng)
    for _ in range(int(rng.integers(look.clutter[0], look.clutter[1] + 1))):
        ground = over(ground, strange_sprite(size, look, rng, span=rng.uniform(0.1, 0.28)))
    boxes: list[Box] = []
    if second is not None:
        ground = over(ground, class_sprite(second, size, look, rng, span=rng.uniform(0.45, 0.6)), shadow=True)
    elif item is not None and rng.random() < _TWINS:
        twin = class_sprite(item, size, look, rng, span=rng.uniform(0.35, 0.5))
        ground = over(ground, twin, shadow=True)
        boxes = [twin.box] if twin.box else []
    main = class_sprite(item, size, look, rng) if item else strange_sprite(size, look, rng)
    if main.box is not None:
        boxes = [main.box, *boxes]
    return Scene(to_pixels(over(ground, main, shadow=True)), boxes, kind, main.mask)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in colour)
    return red, green, blue
