"""Records of simulated annotators who click the demo's training images, in the XML format of ImageNet-AB."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from luab.byproducts.writing import Content, Tags, element, repeated
from luab.demo.canvas import Box
from luab.demo.randomness import stream

Sample = tuple[int, int, int]  # milliseconds since the pointer entered the image, x and y in displayed pixels

_CELL_PX = (324, 340)
_SUBMIT_S = (1639851940, 1641556061)
_PAGE_IMAGES, _HIT_PAGES = 48, 10
_JUNK = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(96)

# Standard deviation of a click about the middle of the box, as share of the box's side: 90 % fall inside the box.
_CLICK_SPREAD = 0.25
# estimateTime in the official records peaks at 300 to 400 ms and has a long tail.
_TIME_MEDIAN_MS, _TIME_SPREAD = 480.0, 0.72


class Story(Enum):
    """What happened to one image, the share of such images and their smallest number.

    Covers every oddity of the official records.
    """

    CLICKED = ("clicked", 0.0, 0)  # all images that the others leave
    # ASSUME: the demo's shares of the rarer oddities of records are guesses; none are published.
    PASSED_OVER = ("passed over", 0.08, 3)
    UNSEEN = ("unseen", 0.035, 2)
    UNCLICKED = ("clicked, then unclicked", 0.015, 2)
    RECLICKED = ("clicked twice", 0.015, 2)
    UNCLOSED_HOVER = ("unclosed hover", 0.04, 2)
    DUPLICATE_TIMES = ("duplicate times", 0.05, 2)
    GAP = ("gap", 0.02, 2)
    OUTSIDE = ("trace outside the image", 0.01, 2)
    LONG = ("very long time", 0.005, 2)
    INSTANT = ("two milliseconds", 0.005, 2)
    NO_TIME = ("no time", 0.005, 2)
    SEVERAL = ("several annotators", 0.01, 3)
    NO_METADATA = ("no metadata", 0.003, 2)
    NO_XML = ("no XML", 0.005, 2)

    def count(self, images: int) -> int:
        """Number of images with this story among so many."""
        _, share, least = self.value
        return max(least, round(share * images))


_NOT_SELECTED = (Story.PASSED_OVER, Story.UNSEEN, Story.UNCLICKED)


@dataclass(frozen=True)
class TrainImage:
    """A drawn training image as annotators see it; boxes in source pixels, that of the main object first."""

    image_id: str
    wnid: str
    width: int
    height: int
    boxes: list[Box]
    cut_off: bool


def image_ab_members(images: Sequence[TrainImage], seed: int, boxed: float) -> dict[str, bytes]:
    """Returns the members of imagenet_ab_v1_0.tar.gz, unsorted as in the real archive; a share `boxed` has boxes.

    A member is an XML, or macOS junk if its name begins with "._".
    """
    rng = stream(seed, "records", "order")
    stories = deal_stories(images, seed)
    members: dict[str, bytes] = {}
    for position in rng.permutation(len(images)):
        image = images[int(position)]
        story = stories[image.image_id]
        if story is not Story.NO_XML:
            text = record_xml(image, story, seed, int(position), boxed)
            members[f"train_xml/{image.wnid}/{image.image_id}.xml"] = text.encode()
        if rng.random() < 0.02 or len(members) == 1:
            members[f"train_xml/{image.wnid}/._{image.image_id}.xml"] = _JUNK
    wnids = list(dict.fromkeys(image.wnid for image in images))
    rank = {wnids[int(k)]: n for n, k in enumerate(rng.permutation(len(wnids)))}
    return dict(sorted(members.items(), key=lambda item: rank[item[0].split("/")[1]]))


def record_counts(images: Sequence[TrainImage], seed: int, members: dict[str, bytes]) -> dict[str, int]:
    """Returns the counts that an index must find in `members`, which `image_ab_members` returned for these images."""
    stories = Counter(deal_stories(images, seed).values())
    records = len(images) - stories[Story.NO_XML]
    return {
        "records": records,
        "junk_skipped": len(members) - records,
        "without_metadata": stories[Story.NO_METADATA],
        "with_metadata": records - stories[Story.NO_METADATA],
        "several_metadata": stories[Story.SEVERAL],
        "clicked_then_unselected": stories[Story.UNCLICKED],
        "wnids": len({image.wnid for image in images}),
    }


def deal_stories(images: Sequence[TrainImage], seed: int) -> dict[str, Story]:
    """Assigns a story to each image at random: image_id -> story; each oddity occurs at least twice."""
    dealt = [story for story in Story for _ in range(story.count(len(images)))]
    order = stream(seed, "records", "stories").permutation(len(images))
    dealt += [Story.CLICKED] * (len(images) - len(dealt))
    return {images[int(k)].image_id: story for k, story in zip(order, dealt, strict=False)}


def record_xml(image: TrainImage, story: Story, seed: int, position: int, boxed: float) -> str:
    """Returns the XML of one image: with box and size as in ILSVRC, or only with file name and folder."""
    rng = stream(seed, "record", image.image_id)
    shown = story is Story.NO_METADATA or rng.random() < boxed
    content: Tags = _boxed(image) if shown else [("filename", image.image_id), ("folder", image.wnid)]
    count = {Story.NO_METADATA: 0, Story.SEVERAL: int(rng.integers(2, 4))}.get(story, 1)
    for _ in range(count):
        content.append(("metadata", _metadata(image, story, rng, seed, position)))
    return element("annotation", content, 0)


def _boxed(image: TrainImage) -> Tags:
    """The fields of ILSVRC's localisation file."""
    fields: Tags = [
        ("folder", image.wnid),
        ("filename", image.image_id),
        ("source", [("database", "ILSVRC_2012")]),
        ("size", [("width", str(image.width)), ("height", str(image.height)), ("depth", "3")]),
        ("segmented", "0"),
    ]
    for box in image.boxes:
        about: Tags = [("name", image.wnid), ("pose", "Unspecified"), ("truncated", str(int(image.cut_off)))]
        corners: Tags = [(name, str(px)) for name, px in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)]
        fields.append(("object", [*about, ("difficult", "0"), ("bndbox", corners)]))
    return fields


def _metadata(image: TrainImage, story: Story, rng: np.random.Generator, seed: int, position: int) -> Tags:
    """The submission of one annotator, with tags in alphabetical order as in the release."""
    worker = int(rng.integers(12))
    pace = float(stream(seed, "worker", worker).lognormal(0, 0.2))
    shrink = min(1.0, _CELL_PX[0] / image.width, _CELL_PX[1] / image.height)
    shown = (round(image.width * shrink), round(image.height * shrink))
    submit_s = int(rng.integers(*_SUBMIT_S))
    start_ms = submit_s * 1000 - int(rng.integers(10_000, 600_000))
    visit = _visit(image, story, shown, pace, rng)
    page, place = position // _PAGE_IMAGES, position % _PAGE_IMAGES
    hit = stream(seed, "hit", page // _HIT_PAGES)
    top = int(240 + 345 * (place // 3) + rng.integers(0, 40))
    fields: dict[str, Content] = {
        "assignment_id": _token(rng, 30),
        "estimateTime": str(visit.estimate_ms),
        "hit_id": _token(hit, 30),
        "hit_submit_time": str(submit_s),
        "hoveredCount": str(sum(action == "enter" for action, _ in visit.hovers)),
        "imageHeight": str(shown[1]),
        "imageID": f"{image.wnid}/{image.image_id}",
        "imagePosition": [("x", str(445 + 340 * (place % 3) + int(rng.integers(0, 60)))), ("y", str(top))],
        "imageWidth": str(shown[1]),  # a copy of the height: a defect of the release
        "image_idx": str(place),
        "imagenet_hit_id": hit.bytes(16).hex(),
        "originalImageHeight": str(image.height),
        "originalImageWidth": str(image.width),
        "page_idx": str(page % _HIT_PAGES),
        "selected": str(story not in _NOT_SELECTED),
        "selectedCount": str(len(visit.clicks)),
        "worker_id": stream(seed, "worker id", worker).bytes(5).hex().upper(),
    }
    hovers: list[Tags] = [[("action", action), ("time", str(start_ms + at))] for action, at in visit.hovers]
    lists = [
        *repeated("hoveredRecord", hovers),
        *repeated("mouseTracking", [_point(sample, shown, start_ms) for sample in visit.trace]),
        *repeated("selectedRecord", [_point(sample, shown, start_ms) for sample in visit.clicks]),
    ]
    return sorted([*fields.items(), *lists], key=lambda field: field[0])


@dataclass(frozen=True)
class _Visit:
    """Pointer events over one image; times in ms since it first entered, positions in displayed pixels."""

    trace: list[Sample]
    clicks: list[Sample]
    hovers: list[tuple[str, int]]
    estimate_ms: int


def _visit(image: TrainImage, story: Story, shown: tuple[int, int], pace: float, rng: np.random.Generator) -> _Visit:
    """Simulates one story."""
    aim = _aim(image, shown, rng)
    lasted = max(60, round(_TIME_MEDIAN_MS * pace * rng.lognormal(0, _TIME_SPREAD)))
    trace = _approach(aim, shown, min(lasted, 6000), rng)
    click = trace[-1]
    leave = click[0] + int(rng.integers(40, 200))
    hovers = [("enter", 0), ("leave", leave)]
    match story:
        case Story.UNSEEN:
            return _Visit([], [], [], 0)
        case Story.NO_TIME:
            return _Visit([], [(click[0], *aim)], [], 0)
        case Story.PASSED_OVER:
            return _Visit(trace, [], hovers, lasted)
        case Story.INSTANT:
            return _Visit([(0, *aim)], [(2, *aim)], [("enter", 0), ("leave", 90)], 2)
        case Story.LONG:
            lasted = round(np.exp(rng.uniform(np.log(28_000), np.log(18_000_000))))
        case Story.RECLICKED:
            again = (leave + 700, *_aim(image, shown, rng))
            hovers += [("enter", leave + 300), ("leave", leave + 900)]
            return _Visit(trace, [click, again], hovers, lasted)
        case Story.UNCLOSED_HOVER:
            hovers.append(("enter", leave + int(rng.integers(300, 3000))))
        case Story.DUPLICATE_TIMES:
            # Another sample before the last one, with the same time stamp.
            before, after = trace[-2], trace[-1]
            trace.insert(-1, (after[0], (before[1] + after[1]) // 2, (before[2] + after[2]) // 2))
        case Story.GAP:
            pause = int(rng.integers(3000, 7000))
            trace = [trace[0], *[(at + pause, x, y) for at, x, y in trace[1:]]]
            click = trace[-1]
            hovers = [("enter", 0), ("leave", 12), ("enter", pause), ("leave", leave + pause)]
        case Story.OUTSIDE:
            trace = [(trace[0][0], shown[0] + 2, -3), *trace[1:]]
    return _Visit(trace, [click], hovers, lasted)


def _aim(image: TrainImage, shown: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Draws the clicked position: near the middle of the main box, in displayed pixels inside the image."""
    x0, y0, x1, y1 = image.boxes[0]
    middle = np.array([(x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2])
    offset = rng.normal(0, _CLICK_SPREAD, 2) * (x1 - x0 + 1, y1 - y0 + 1)
    size = np.array([image.width, image.height])
    x, y = np.clip(np.round((middle + offset) / size * shown), 0, shown).astype(int)
    return int(x), int(y)


def _approach(aim: tuple[int, int], shown: tuple[int, int], lasted_ms: int, rng: np.random.Generator) -> list[Sample]:
    """Simulates the pointer's path from an edge of the image to `aim`: curved, fast at first, then slower."""
    width, height = shown
    along = rng.random()
    edges = [(0, along * height), (width, along * height), (along * width, 0), (along * width, height)]
    start = np.array(edges[int(rng.integers(4))])
    steps = 16 + rng.exponential(31, size=max(1, lasted_ms // 30))
    times = np.concatenate([[0], np.cumsum(np.round(steps))]).astype(int)
    times = np.append(times[times < lasted_ms - 16], lasted_ms)
    done = (1 - (1 - times / lasted_ms) ** rng.uniform(1.8, 3.0))[:, None]
    direction = np.array(aim) - start
    bend = np.sin(np.pi * done) * rng.normal(0, 0.12) * np.array([-direction[1], direction[0]])
    shake = rng.normal(0, 0.8, (len(times), 2)) * (1 - done)
    places = np.clip(np.round(start + done * direction + bend + shake), 0, shown).astype(int)
    places[-1] = aim
    return [(int(at), int(x), int(y)) for at, (x, y) in zip(times, places, strict=True)]


def _point(sample: Sample, shown: tuple[int, int], start_ms: int) -> Tags:
    at, x, y = sample
    return [("time", str(start_ms + at)), ("x", repr(x / shown[0])), ("y", repr(y / shown[1]))]


def _token(rng: np.random.Generator, length: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "3" + "".join(letters[int(k)] for k in rng.integers(len(letters), size=length - 1))
