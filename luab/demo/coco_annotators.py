"""Simulated annotators who drag icons onto the demo's pictures; for COCO, in the JSON format of COCO-AB."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luab.byproducts.coco_classes import COCO_CLASSES, PANES
from luab.demo.canvas import Mask
from luab.demo.randomness import stream

_SHOWN_PX = (676, 450)  # the largest width and height of an image on the page
_WORKERS = 9
_HIT_PAGES = 20
_SPREAD = 0.14  # standard deviation of an icon about the middle of its object, as share of the object's sides

# ASSUME: the demo's shares of what annotators of COCO get wrong are guesses; none are published.
_MISSED, _OFF_OBJECT, _MOVED, _REMOVED, _BACK_AGAIN, _INVENTED = 0.12, 0.07, 0.12, 0.06, 0.5, 0.04
_NO_RECORD, _ZERO_SIZE, _TWICE = 2, 2, 1

Position = tuple[int, int]  # x and y in displayed pixels


@dataclass(frozen=True)
class TagImage:
    """A drawn picture as annotators see it."""

    number: int  # in COCO
    width: int
    height: int
    masks: dict[int, Mask]  # index of the class -> largest mask [H, W] of that class


def coco_ab_json(pictures: Sequence[TagImage], seed: int) -> bytes:
    """coco_ab_v1_0.json: a record for nearly every picture, in random order.

    A few pictures have no record, a few were not loaded when they were tagged (sizes 0), and one was tagged twice.
    """
    order = stream(seed, "coco records", "order").permutation(len(pictures))
    odd = [pictures[int(k)].number for k in stream(seed, "coco records", "odd").permutation(len(pictures))]
    without, unloaded = set(odd[:_NO_RECORD]), set(odd[_NO_RECORD : _NO_RECORD + _ZERO_SIZE])
    tagged = [pictures[int(k)] for k in order if pictures[int(k)].number not in without]
    tagged += [picture for picture in tagged if picture.number not in unloaded][:_TWICE]
    records = [_record(picture, place, seed, picture.number in unloaded) for place, picture in enumerate(tagged)]
    return json.dumps(records).encode()


def _record(picture: TagImage, place: int, seed: int, unloaded: bool) -> dict[str, Any]:
    """Simulates one page: pane after pane, the icons of each are dragged onto their objects."""
    rng = stream(seed, "coco record", picture.number, place)
    hit = stream(seed, "coco hit", place // _HIT_PAGES)
    worker = int(hit.integers(_WORKERS))
    page = _opened(rng, seed, worker, picture.width, picture.height)
    shares = {label: mask / mask.sum() for label, mask in picture.masks.items()}
    invented = int(rng.integers(len(COCO_CLASSES))) if rng.random() < _INVENTED else None
    for pane in range(len(PANES)):
        page.open(pane)
        for label, item in enumerate(COCO_CLASSES):
            if item.pane != pane:
                continue
            if label in shares and rng.random() >= _MISSED:
                page.tag(item.name, page.aim(shares[label]))
            elif label not in shares and label == invented:
                page.tag(item.name, page.anywhere())
    shown = 0 if unloaded else page.shown[1]
    return {
        "image_id": picture.number,
        "originalImageHeight": 0 if unloaded else picture.height,
        "originalImageWidth": 0 if unloaded else picture.width,
        "imageHeight": shown,
        "imageWidth": shown,  # a copy of the height: a defect of the release
        "timeSpent": page.now + int(rng.integers(300, 3000)),
        "actionHistories": page.actions,
        "categoryHistories": page.panes,
        "mouseTracking": page.trace,
        "hit_id": hit.bytes(16).hex(),
        "page_id": place % _HIT_PAGES,
        "worker_id": _worker_id(seed, worker),
    }


class Tag(NamedTuple):
    """Where the icon of a picture was last added: fractions of the picture; who did it, and in which time."""

    x: float
    y: float
    time_ms: int
    worker_id: str


def tag_one(name: str, icon: str, mask: Mask, seed: int) -> Tag | None:
    """Simulates the page of a picture with one object, by the same rules as those of COCO's pictures.

    Args:
        name: Of the picture; the random stream depends on it.
        icon: Name of the object's class.
        mask: [H, W] of the object.
        seed: Seed of the world.

    Returns:
        None if the annotator missed the object.
    """
    rng = stream(seed, "tag", name)
    worker = int(rng.integers(_WORKERS))
    if rng.random() < _MISSED:
        return None
    page = _opened(rng, seed, worker, *mask.shape[::-1])
    page.open(0)
    page.tag(icon, page.aim(mask / mask.sum()))
    place = [action["pointTo"] for action in page.actions if action["actionType"] == "add"][-1]
    return Tag(place["x"], place["y"], page.now, _worker_id(seed, worker))


def _opened(rng: np.random.Generator, seed: int, worker: int, width: int, height: int) -> "_Page":
    """The page of a picture of this size, before this worker did anything."""
    pace = float(stream(seed, "coco worker", worker).lognormal(0, 0.3))
    scale = min(_SHOWN_PX[0] / width, _SHOWN_PX[1] / height)
    return _Page(rng, pace, (round(width * scale), round(height * scale)))


def _worker_id(seed: int, worker: int) -> str:
    return stream(seed, "coco worker id", worker).bytes(5).hex().upper()


class _Page:
    """Actions of one annotator on one page; times in ms since it opened, positions in displayed pixels."""

    def __init__(self, rng: np.random.Generator, pace: float, shown: tuple[int, int]) -> None:
        self.rng, self.pace, self.shown = rng, pace, shown
        self.now, self.pointer = 0, self.anywhere()
        self.actions: list[dict[str, Any]] = []
        self.panes: list[dict[str, Any]] = []
        self.trace: list[dict[str, Any]] = []
        self._keyboard = bool(rng.random() < 0.2)

    def open(self, pane: int) -> None:
        """Opens a pane; the first one is open at the start and not logged."""
        self._wait(900)
        if pane:
            entry = {"categoryIndex": pane, "categoryName": PANES[pane], "timeAt": self.now}
            self.panes.append(entry | {"usingKeyboard": self._keyboard})

    def tag(self, icon: str, aim: Position) -> None:
        """Drags an icon onto its object, and sometimes moves or removes it again."""
        self._approach(aim)
        self._act("add", icon, to=aim)
        if self.rng.random() < _MOVED:
            nearer = self._near(aim, 12)
            self._act("move", icon, start=aim, to=nearer)
            aim = nearer
        if self.rng.random() < _REMOVED:
            self._act("remove", icon, start=aim)
            if self.rng.random() < _BACK_AGAIN:
                self._act("add", icon, to=self._near(aim, 12))

    def aim(self, share: NDArray[np.float64]) -> Position:
        """Draws a position near the middle of an object, whose mask [H, W] sums to 1; sometimes anywhere else."""
        if self.rng.random() < _OFF_OBJECT:
            return self.anywhere()
        height, width = share.shape
        grid = np.stack(np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height), axis=-1)
        middle = (grid * share[..., None]).sum(axis=(0, 1))
        spread = np.sqrt(((grid - middle) ** 2 * share[..., None]).sum(axis=(0, 1))) * 4 * _SPREAD
        x, y = np.clip(middle + self.rng.normal(0, spread), 0, 1) * self.shown
        return round(float(x)), round(float(y))

    def anywhere(self) -> Position:
        """Draws a position on the picture, borders included."""
        return int(self.rng.integers(self.shown[0] + 1)), int(self.rng.integers(self.shown[1] + 1))

    def _near(self, position: Position, px: float) -> Position:
        x, y = np.clip(np.round(np.array(position) + self.rng.normal(0, px, 2)), 0, self.shown).astype(int)
        return int(x), int(y)

    def _approach(self, aim: Position) -> None:
        """Moves the pointer towards the next object; the tool records no movement while an icon is dragged."""
        steps = int(self.rng.integers(4, 14))
        for step in range(1, steps + 1):
            self.now += int(self.rng.integers(8, 60))
            on_the_way = np.array(self.pointer) + (np.array(aim) - self.pointer) * step / steps
            position = self._near((int(on_the_way[0]), int(on_the_way[1])), 6)
            self.trace.append(self._fractions(position) | {"timeAt": self.now})
        self.pointer = aim

    def _act(self, kind: str, icon: str, to: Position | None = None, start: Position | None = None) -> None:
        self._wait(700)
        action: dict[str, Any] = {"actionType": kind, "iconType": icon}
        if start is not None:
            action["pointFrom"] = self._fractions(start)
        if to is not None:
            action["pointTo"] = self._fractions(to)
        self.actions.append(action | {"timeAt": self.now})

    def _fractions(self, position: Position) -> dict[str, Any]:
        return {"x": position[0] / self.shown[0], "y": position[1] / self.shown[1]}

    def _wait(self, median_ms: float) -> None:
        self.now += max(1, round(median_ms * self.pace * float(self.rng.lognormal(0, 0.5))))
