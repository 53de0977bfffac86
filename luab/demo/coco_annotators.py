"""Invented annotators drag icons onto the demo's COCO pictures; their records, in the JSON of COCO-AB."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luab.byproducts.coco_classes import COCO_CLASSES, PANES
from luab.demo.noise import stream

_SHOWN_PX = (676, 450)  # the largest width and height of an image on the page
_WORKERS = 9
_HIT_PAGES = 20
_SPREAD = 0.14  # of an icon about the middle of its object, as share of the object's sides

# ASSUME: the demo's shares of what annotators of COCO get wrong are guesses; none are published.
_MISSED, _OFF_OBJECT, _MOVED, _REMOVED, _BACK_AGAIN, _INVENTED = 0.12, 0.07, 0.12, 0.06, 0.5, 0.04
_NO_RECORD, _ZERO_SIZE, _TWICE = 2, 2, 1

Place = tuple[int, int]


@dataclass(frozen=True)
class Pictured:
    """A drawn picture as annotators meet it: official number, size, the largest mask [H, W] of each class."""

    number: int
    width: int
    height: int
    masks: dict[int, NDArray[Any]]


def coco_ab_json(pictures: Sequence[Pictured], seed: int) -> bytes:
    """coco_ab_v1_0.json: a record for nearly every picture, in an order of its own.

    A few pictures have none, a few were not loaded when they were tagged (sizes 0), and one was tagged twice.
    """
    order = stream(seed, "coco records", "order").permutation(len(pictures))
    odd = [pictures[int(k)].number for k in stream(seed, "coco records", "odd").permutation(len(pictures))]
    without, unloaded = set(odd[:_NO_RECORD]), set(odd[_NO_RECORD : _NO_RECORD + _ZERO_SIZE])
    tagged = [pictures[int(k)] for k in order if pictures[int(k)].number not in without]
    tagged += [picture for picture in tagged if picture.number not in unloaded][:_TWICE]
    records = [_record(picture, place, seed, picture.number in unloaded) for place, picture in enumerate(tagged)]
    return json.dumps(records).encode()


def _record(picture: Pictured, place: int, seed: int, unloaded: bool) -> dict[str, Any]:
    """One page: all panes one after the other, the icons of each pane dragged to where their objects are."""
    rng = stream(seed, "coco record", picture.number, place)
    hit = stream(seed, "coco hit", place // _HIT_PAGES)
    worker = int(hit.integers(_WORKERS))
    pace = float(stream(seed, "coco worker", worker).lognormal(0, 0.3))
    scale = min(_SHOWN_PX[0] / picture.width, _SHOWN_PX[1] / picture.height)
    page = _Page(rng, pace, (round(picture.width * scale), round(picture.height * scale)))
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
        "imageWidth": shown,  # a copy of the height: the release's own defect
        "timeSpent": page.now + int(rng.integers(300, 3000)),
        "actionHistories": page.actions,
        "categoryHistories": page.panes,
        "mouseTracking": page.trace,
        "hit_id": hit.bytes(16).hex(),
        "page_id": place % _HIT_PAGES,
        "worker_id": stream(seed, "coco worker id", worker).bytes(5).hex().upper(),
    }


class _Page:
    """What one annotator did on one page; times in ms since it opened, places in displayed pixels."""

    def __init__(self, rng: np.random.Generator, pace: float, shown: tuple[int, int]) -> None:
        self.rng, self.pace, self.shown = rng, pace, shown
        self.now, self.pointer = 0, self.anywhere()
        self.actions: list[dict[str, Any]] = []
        self.panes: list[dict[str, Any]] = []
        self.trace: list[dict[str, Any]] = []
        self._keyboard = bool(rng.random() < 0.2)

    def open(self, pane: int) -> None:
        """Turns to a pane; the first one is open at the start and not logged."""
        self._wait(900)
        if pane:
            name = PANES[pane]
            self.panes.append(
                {"categoryIndex": pane, "categoryName": name, "timeAt": self.now, "usingKeyboard": self._keyboard}
            )

    def tag(self, icon: str, aim: Place) -> None:
        """Drags an icon to its object, and sometimes thinks better of it."""
        self._look_around(aim)
        self._act("add", icon, to=aim)
        if self.rng.random() < _MOVED:
            nearer = self._near(aim, 12)
            self._act("move", icon, start=aim, to=nearer)
            aim = nearer
        if self.rng.random() < _REMOVED:
            self._act("remove", icon, start=aim)
            if self.rng.random() < _BACK_AGAIN:
                self._act("add", icon, to=self._near(aim, 12))

    def aim(self, share: NDArray[np.float64]) -> Place:
        """Near the middle of an object, whose mask [H, W] sums to 1; now and then beside it."""
        if self.rng.random() < _OFF_OBJECT:
            return self.anywhere()
        height, width = share.shape
        grid = np.stack(np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height), axis=-1)
        middle = (grid * share[..., None]).sum(axis=(0, 1))
        spread = np.sqrt(((grid - middle) ** 2 * share[..., None]).sum(axis=(0, 1))) * 4 * _SPREAD
        x, y = np.clip(middle + self.rng.normal(0, spread), 0, 1) * self.shown
        return round(float(x)), round(float(y))

    def anywhere(self) -> Place:
        """Any place on the picture, borders included."""
        return int(self.rng.integers(self.shown[0] + 1)), int(self.rng.integers(self.shown[1] + 1))

    def _near(self, place: Place, px: float) -> Place:
        x, y = np.clip(np.round(np.array(place) + self.rng.normal(0, px, 2)), 0, self.shown).astype(int)
        return int(x), int(y)

    def _look_around(self, aim: Place) -> None:
        """Moves the pointer towards the next object; none of it is recorded while an icon is dragged."""
        steps = int(self.rng.integers(4, 14))
        for step in range(1, steps + 1):
            self.now += int(self.rng.integers(8, 60))
            on_the_way = np.array(self.pointer) + (np.array(aim) - self.pointer) * step / steps
            place = self._near((int(on_the_way[0]), int(on_the_way[1])), 6)
            self.trace.append(self._fractions(place) | {"timeAt": self.now})
        self.pointer = aim

    def _act(self, kind: str, icon: str, to: Place | None = None, start: Place | None = None) -> None:
        self._wait(700)
        action: dict[str, Any] = {"actionType": kind, "iconType": icon}
        if start is not None:
            action["pointFrom"] = self._fractions(start)
        if to is not None:
            action["pointTo"] = self._fractions(to)
        self.actions.append(action | {"timeAt": self.now})

    def _fractions(self, place: Place) -> dict[str, Any]:
        return {"x": place[0] / self.shown[0], "y": place[1] / self.shown[1]}

    def _wait(self, median_ms: float) -> None:
        self.now += max(1, round(median_ms * self.pace * float(self.rng.lognormal(0, 0.5))))
