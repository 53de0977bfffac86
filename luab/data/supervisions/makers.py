"""From byproducts to training points: controls that every data set has, noise, and the files.

A data set's own module says how its byproducts become points (`Byproducts`).
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from luab.data.supervisions.point_files import write_points
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import file_sha256
from luab.study.noises import Point, Workers, exchanged, random_pair
from luab.study.supervisions import BASELINE, Supervision


@dataclass(frozen=True)
class Sources:
    """What points are made from.

    Attributes:
        index: Byproduct index.
        manifest: Manifest of the training images.
        seed: Seed of the study's points.
        workers: Ids of the workers whose records count; None for all.
        after_ms: Shortest time of an annotation that counts; None for all.
        images: Folder of the training images, which may hold further annotations; None if it is unknown.
        tags: The user's own tags on ImageNet's training images; None if there are none.
    """

    index: Path
    manifest: Path
    seed: int = 0
    workers: frozenset[str] | None = None
    after_ms: int | None = None
    images: Path | None = None
    tags: Path | None = None


class Made(NamedTuple):
    """Training points, at most one per image and label, in any order.

    Attributes:
        points: The points.
        notes: Entries of the card, such as how many points were dropped and why.
    """

    points: list[Point]
    notes: dict[str, int]


def area_of(corners: Sequence[int]) -> int:
    """Area of a box x0 y0 x1 y1 in pixels; the last ones are included."""
    x0, y0, x1, y1 = corners
    return (x1 - x0 + 1) * (y1 - y0 + 1)


def centre_of(corners: Sequence[int], width: int, height: int) -> tuple[float, float]:
    """Centre of a box x0 y0 x1 y1 in pixels, the last ones included, as fractions x, y of the image."""
    x0, y0, x1, y1 = corners
    return (x0 + x1 + 1) / 2 / width, (y0 + y1 + 1) / 2 / height


class Worker(NamedTuple):
    """What one worker did.

    Attributes:
        time_ms: Mean time per image.
        recall: Share of what should have been marked that was marked; None if it is unknown.
    """

    time_ms: float
    recall: float | None


Maker = Callable[[Sources], Made]


@dataclass(frozen=True)
class Byproducts:
    """How the byproducts of a data set become points.

    Attributes:
        makers: Functions that make points, by name; one of them is `click`.
        classes: Returns the class of each image, by image_id; not called for points that have a label.
        workers: Returns what each worker did, by id.
        extras: Functions that return the value of a further column (`Supervision.column`) by image_id, by its name.
        kinds: Returns further makers by name, for kinds of points that the user's own table divides.
    """

    makers: Mapping[str, Maker]
    classes: Callable[[Sources], Mapping[str, Hashable]]
    workers: Callable[[Sources], Mapping[str, Worker]]
    extras: Mapping[str, Callable[[Sources], Mapping[str, Any]]] = field(default_factory=dict)
    kinds: Callable[[Sources], Mapping[str, Maker]] = lambda _: {}


def write_targets(
    byproducts: Byproducts, sources: Sources, supervision: Supervision, parquet: Path, card: Path
) -> dict[str, Any]:
    """Writes the points of one supervision, sorted by image and class, and their card.

    Args:
        byproducts: Those of the data set.
        sources: Index, manifest and seed.
        supervision: Which points, and their noise.
        parquet: Output file for the points.
        card: Output file for the card: supervision (name of the points), noise if there is any, notes, `of` of a
            control unless it is the clicks, tags_sha256 of points from tags, and what `write_points` adds.

    Returns:
        The content of the card.

    Raises:
        ConfigError: There are no such points, or the records cannot choose workers.
        DataError: A source is missing or damaged, or has no such worker.
    """
    made = make_points(byproducts, sources, supervision)
    settings = supervision.noise.settings
    about = {"supervision": supervision.points, "notes": made.notes} | ({"noise": settings} if settings else {})
    about |= {"column": supervision.column} if supervision.column else {}
    about |= {"of": supervision.of} if supervision.of != "click" else {}
    about |= {"tags_sha256": file_sha256(sources.tags)} if sources.tags else {}
    return write_points(made.points, parquet, card, about, supervision.column)


def make_points(byproducts: Byproducts, sources: Sources, supervision: Supervision) -> Made:
    """Returns the points of a supervision, with its noise; errors as for `write_targets`."""
    makers, noise, notes = {**byproducts.makers, **byproducts.kinds(sources)}, supervision.noise, dict[str, int]()
    known_points = {BASELINE, *CONTROLS, *makers}
    for name in (supervision.points, supervision.records):
        if name not in known_points:
            raise ConfigError(f"supervisions: there are no points {name!r}. {did_you_mean(name, known_points)}")
    if supervision.points == BASELINE:
        return Made([], {})
    if noise.workers is not None:
        known = byproducts.workers(sources)
        sources = dataclasses.replace(sources, workers=chosen_workers(known, noise.workers, sources.index))
        notes = {"workers": len(known), "workers_kept": len(sources.workers or ())}
    sources = dataclasses.replace(sources, after_ms=noise.after_ms)
    classes: dict[str, Mapping[str, Hashable]] = {}

    def class_of(point: Point) -> Hashable:
        if point.label is not None:
            return point.label
        if not classes:
            classes["of"] = byproducts.classes(sources)
        if point.image_id not in classes["of"]:
            raise DataError(
                f"{sources.manifest}: the image {point.image_id} has a point but no class. Build the manifest again."
            )
        return classes["of"][point.image_id]

    control = CONTROLS.get(supervision.points)
    made = makers[supervision.records](sources)
    if supervision.column is not None:
        timed = _with_extra(byproducts, sources, supervision, made.points)
        notes |= timed.notes
        made = Made(timed.points, made.notes)
    made = made if control is None else control(made.points, sources.seed, class_of)
    spoilt = noise.spoil(made.points, sources.seed, class_of)
    return Made(spoilt.points, {**made.notes, **notes, **spoilt.notes})


def _with_extra(byproducts: Byproducts, sources: Sources, supervision: Supervision, points: list[Point]) -> Made:
    """Adds the further column of a supervision; points without a value are left out and counted.

    The control `random` has random times, as the control `shuffled` has those of other images.
    """
    column = str(supervision.column)
    values = byproducts.extras[column](sources)
    made = [point._replace(extra=values[point.image_id]) for point in points if point.image_id in values]
    if supervision.points == "random":
        made = [point._replace(extra=random_pair(f"{sources.seed}:{column}:{point.key}")[0]) for point in made]
    return Made(made, {f"without_{column}": len(points) - len(made)})


Control = Callable[[list[Point], int, Callable[[Point], Hashable]], Made]
"""Makes points from the clicks, or those of `Supervision.of`, the seed, and a function that returns a point's class."""


def random(clicks: list[Point], seed: int, class_of: Callable[[Point], Hashable]) -> Made:
    """Returns one uniform point for each click; the seed fixes it for the whole study.

    The point is a hash of seed, image_id and label (`random_pair`), so it does not depend on other images.
    ASSUME: random points are uniform over the whole image and the same in every epoch, on every data set.
    """
    points = [Point(*click[:2], *random_pair(f"{seed}:{click.key}"), click.extra) for click in clicks]
    return Made(points, {"seed": seed})


def shuffled(clicks: list[Point], seed: int, class_of: Callable[[Point], Hashable]) -> Made:
    """Returns, for each click, the click of another image of the same class; the seed fixes it for the whole study.

    No image keeps its own click. Clicks that are alone in their class are left out and counted.
    """
    places = exchanged(clicks, f"{seed}:shuffled", class_of)
    points = [Point(*click[:2], *places[click.key]) for click in clicks if click.key in places]
    return Made(points, {"seed": seed, "alone_in_class": len(clicks) - len(points)})


def centre(clicks: list[Point], seed: int, class_of: Callable[[Point], Hashable]) -> Made:
    """Returns the centre of the image for each click: what a model can learn without any byproduct."""
    return Made([Point(*click[:2], 0.5, 0.5, click.extra) for click in clicks], {})


CONTROLS: dict[str, Control] = {"random": random, "shuffled": shuffled, "centre": centre}
"""Points that are made from clicks alike on every data set."""


def chosen_workers(known: Mapping[str, Worker], chosen: Workers, index: Path) -> frozenset[str]:
    """Returns the ids of the workers whose records count: of a share, at least one; equal workers in order of id.

    Raises:
        ConfigError: The most accurate are chosen, but the index does not show who was right.
        DataError: The index has none of these workers, or lacks a listed one.
    """
    if not known:
        raise DataError(f"{index}: expected records with worker ids, found none; remove `noise.workers`.")
    if chosen.chosen_by is None:
        listed = frozenset(chosen.listed or ())
        if unknown := sorted(listed - known.keys()):
            more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
            raise DataError(f"{index}: has no record of the listed workers {', '.join(unknown[:20])}{more}.")
        return listed
    by, share = chosen.chosen_by
    if by in ("most_accurate", "least_accurate"):
        sign = -1 if by == "most_accurate" else 1
        rank = {name: sign * worker.recall for name, worker in known.items() if worker.recall is not None}
        if not rank:
            raise ConfigError(f"{index}: does not show which workers were right; choose the fastest or list them.")
    else:
        rank = {name: worker.time_ms * (1 if by == "fastest" else -1) for name, worker in known.items()}
    order = sorted(rank, key=lambda name: (rank[name], name))
    return frozenset(order[: max(1, math.floor(share * len(order) + 0.5))])
