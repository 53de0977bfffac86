"""Noise: the ways to spoil recorded points on purpose, to measure how much their quality matters.

To add a kind of noise, add a field to `Noise` and, under the same name, a function from points to spoilt points. The
module is light, because every start of the workflow reads the configuration.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from luab.study.recipes import Closed, Fraction

ChosenBy = Literal["fastest", "slowest", "most_accurate", "least_accurate"]


class Point(NamedTuple):
    """A training point.

    Attributes:
        image_id: As in the manifest.
        label: Class of the point; None where an image has one point for all classes.
        x: To the right, in fractions of the whole image.
        y: Downwards, likewise.
        extra: Value of the further column that some uses need (`Supervision.column`); it changes places with the point.
    """

    image_id: str
    label: int | None
    x: float
    y: float
    extra: Any = None

    @property
    def key(self) -> str:
        """What random draws for this point depend on, besides the seed."""
        return self.image_id if self.label is None else f"{self.image_id}:{self.label}"


class Spoilt(NamedTuple):
    """Points after noise, and entries of the card that count what it did."""

    points: list[Point]
    notes: dict[str, int]


Group = Callable[[Point], Hashable]
"""Returns the class of a point, within which points are exchanged."""


class Workers(Closed):
    """The annotators whose records count; exactly one of the keys."""

    fastest: Fraction | None = Field(None, gt=0, description="This share of the workers, those with the least time.")
    slowest: Fraction | None = Field(None, gt=0, description="This share of the workers, those with the most time.")
    most_accurate: Fraction | None = Field(
        None, gt=0, description="This share of the workers, those who marked most of what they should have marked."
    )
    least_accurate: Fraction | None = Field(
        None, gt=0, description="This share of the workers, those who marked least of it."
    )
    listed: list[str] | None = Field(None, min_length=1, description="Worker ids, as in the byproduct index.")

    @model_validator(mode="after")
    def _one_key(self) -> "Workers":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of {', '.join(type(self).model_fields)}; found {', '.join(given) or 'none of them'}"
            )
        return self

    @property
    def chosen_by(self) -> tuple[ChosenBy, float] | None:
        """The property that chooses workers and their share; None for listed workers."""
        names: tuple[ChosenBy, ...] = ("fastest", "slowest", "most_accurate", "least_accurate")
        return next(((name, share) for name in names if (share := getattr(self, name)) is not None), None)


class Noise(Closed):
    """How points are spoilt when their file is made; several kinds are applied in the order of the keys."""

    workers: Workers | None = Field(
        None,
        description="Use the records of some workers only: {fastest: 0.5}, {slowest: 0.5}, {most_accurate: 0.5}, "
        "{least_accurate: 0.5} (shares of the workers), or a list of worker ids.",
    )
    after_ms: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="ImageNet: use only annotations on which at least so many milliseconds were spent (estimateTime).",
    )
    keep: Fraction = Field(
        1.0, description="Share of the points that is kept; the points of a smaller share are among those of a larger."
    )
    wrong: Fraction = Field(0.0, description="Share of the points that change places with others of the same class.")
    centre_bias: Fraction = Field(
        0.0, description="Share of the way that every point is moved towards the centre of the image."
    )
    jitter: Fraction = Field(
        0.0,
        description="Standard deviation of a Gaussian shift in x and in y, as a share of the image's side; a point "
        "beyond the border is reflected back into the image.",
    )
    seed: int | None = Field(
        None, ge=0, description="Seed of the noise; null uses `random_points_seed`. Each kind draws for itself."
    )

    @field_validator("workers", mode="before")
    @classmethod
    def _list_of_ids(cls, given: Any) -> Any:
        return {"listed": given} if isinstance(given, list) else given

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that have an effect, with their values; empty without noise."""
        kinds = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        return kinds if kinds.keys() - {"seed"} else {}

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that identify the noise; empty without noise."""
        if not self.settings:
            return ""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]

    def spoil(self, points: Iterable[Point], seed: int, group: Group) -> Spoilt:
        """Applies every kind of noise but `workers` and `after_ms`, which choose the records that points are made from.

        Args:
            points: At most one per image and label.
            seed: Seed of the study's points; the noise's own takes precedence.
            group: Class of a point; only asked for by `wrong`.
        """
        spoilt, notes = list(points), dict[str, int]()
        for name, kind in _KINDS.items():
            if name in self.settings:
                text = f"{seed if self.seed is None else self.seed}:{name}"
                spoilt, counts = kind(spoilt, self.settings[name], text, group)
                notes |= {f"{name}_{what}": count for what, count in counts.items()}
        return Spoilt(spoilt, notes)


def random_pair(text: str) -> tuple[float, float]:
    """Returns two independent uniform numbers in [0, 1) that depend on the text alone.

    They are the BLAKE2b hash of the text, 24 bits for each, so both are exact as 32-bit floats.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return int.from_bytes(digest[:3], "little") / 2**24, int.from_bytes(digest[3:], "little") / 2**24


def keep(points: Sequence[Point], share: float, text: str, group: Group) -> Spoilt:
    """Keeps the points whose random number is below the share."""
    kept = [point for point in points if random_pair(f"{text}:{point.key}")[0] < share]
    return Spoilt(kept, {"dropped": len(points) - len(kept)})


def wrong(points: Sequence[Point], share: float, text: str, group: Group) -> Spoilt:
    """Exchanges a random share of the points within their class; a chosen point that is alone there stays."""
    chosen = {point.key for point in points if random_pair(f"{text}:{point.key}")[0] < share}
    places = exchanged([point for point in points if point.key in chosen], text, group)
    moved = [Point(*point[:2], *place) if (place := places.get(point.key)) else point for point in points]
    return Spoilt(moved, {"exchanged": len(places), "alone": len(chosen) - len(places)})


def exchanged(points: Iterable[Point], text: str, group: Group) -> dict[str, tuple[Any, ...]]:
    """Returns, by key, x, y and extra of another point of the same class; those that are alone there are left out.

    The points of a class are put in a random order, and each gets the place of the next, the last that of the first.
    """
    classes: dict[Hashable, list[Point]] = defaultdict(list)
    for point in points:
        classes[group(point)].append(point)
    places: dict[str, tuple[Any, ...]] = {}
    for members in classes.values():
        order = sorted(members, key=lambda point: (random_pair(f"{text}:order:{point.key}"), point.key))
        if len(order) > 1:
            places |= {point.key: other[2:] for point, other in zip(order, [*order[1:], order[0]], strict=True)}
    return places


def centre_bias(points: Sequence[Point], share: float, text: str, group: Group) -> Spoilt:
    """Moves every point towards the centre of the image."""
    moved = [point._replace(x=_between(point.x, share), y=_between(point.y, share)) for point in points]
    return Spoilt(moved, {"moved": len(moved)})


def jitter(points: Sequence[Point], share: float, text: str, group: Group) -> Spoilt:
    """Shifts every point by a Gaussian of this standard deviation, reflected at the border of the image."""
    shifted, reflected = [], 0
    for point in points:
        u, v = random_pair(f"{text}:{point.key}")
        radius, angle = share * math.sqrt(-2 * math.log(1 - u)), 2 * math.pi * v  # Box-Muller
        x, y = point.x + radius * math.cos(angle), point.y + radius * math.sin(angle)
        reflected += not (0 <= x <= 1 and 0 <= y <= 1)
        shifted.append(point._replace(x=_reflected(x), y=_reflected(y)))
    return Spoilt(shifted, {"moved": len(shifted), "reflected": reflected})


_KINDS: dict[str, Callable[[Sequence[Point], Any, str, Group], Spoilt]] = {
    name: globals()[name] for name in Noise.model_fields if name not in ("workers", "after_ms", "seed")
}


def _between(value: float, share: float) -> float:
    return value + share * (0.5 - value)


def _reflected(value: float) -> float:
    """A number folded into [0, 1] as between two mirrors."""
    value %= 2
    return 2 - value if value > 1 else value
