"""Generates archives of any size in the layout of imagenet_ab_v1_0.tar.gz, for measurements.

    python speed/archives.py 1274843 /somewhere/with/room/imagenet_ab_v1_0.tar.gz

Equal arguments give equal bytes. Shares, times and sizes follow the release (`_RELEASE`); the pointer's paths are
random walks. Traces are so long that a record takes about as many bytes of the archive as in the release: 420, compared
with 555 MB / 1,274,843 = 435.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import command_line

from luab.byproducts.writing import write_tar
from luab.files import replacing

RELEASED_RECORDS = 1_274_843
_CLASS_RECORDS = 1275
_WORKERS = 1705
_CELL_PX = (324, 340)
_SUBMIT_S = (1639851940, 1641556061)
_JUNK = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(96)
_LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)


class _Release(NamedTuple):
    """Shares of the records; luab.byproducts.imagenet_ab has the counts they come from."""

    without_metadata: float = 1 - 1_271_643 / 1_274_843
    selected: float = 1_106_453 / 1_271_643
    # ASSUME: of the images that were not selected, a third was never under the pointer.
    unseen: float = (1 - 1_106_453 / 1_271_643) / 3
    boxed: float = 544_546 / 1_281_167
    # ASSUME: shares of macOS junk, of hovers left open and of second clicks; none are published.
    junk: float = 0.02
    open_hover: float = 0.04
    second_click: float = 0.02


_RELEASE = _Release()


def write_archive(path: Path, records: int, seed: int = 0) -> None:
    """Writes an archive with this number of records, plus junk files."""
    with replacing(path) as aside:
        write_tar(aside, members(records, seed), compressed=True)


def members(records: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields path in the archive and content, in the archive's order."""
    for first in range(0, records, _CLASS_RECORDS):
        number = first // _CLASS_RECORDS
        # The folders of the release are not sorted either.
        wnid = f"n{1_440_764 + (number * 7919) % 100_003 * 100:08d}"
        yield from _class_members(wnid, min(_CLASS_RECORDS, records - first), np.random.default_rng([seed, number]))


def _class_members(wnid: str, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    stems = [f"{wnid}_{number}" for number in rng.choice(30_000, count, replace=False)]
    for stem, junk in zip(stems, rng.random(count) < _RELEASE.junk, strict=True):
        yield f"train_xml/{wnid}/{stem}.xml", _record(wnid, stem, rng)
        if junk:
            yield f"train_xml/{wnid}/._{stem}.xml", _JUNK


def _record(wnid: str, stem: str, rng: np.random.Generator) -> bytes:
    width, height = (500, 375) if rng.random() < 0.6 else (int(side) for side in rng.integers(96, 640, 2))
    with_metadata = rng.random() >= _RELEASE.without_metadata
    parts = [f"\t<filename>{stem}</filename>\n\t<folder>{wnid}</folder>\n"]
    if not with_metadata or rng.random() < _RELEASE.boxed:
        parts = [_box(wnid, stem, width, height, rng)]
    if with_metadata:
        parts.append(_metadata(wnid, stem, width, height, rng))
    return f"<annotation>\n{''.join(parts)}</annotation>\n".encode()


def _box(wnid: str, stem: str, width: int, height: int, rng: np.random.Generator) -> str:
    x0, x1 = sorted(int(x) for x in rng.integers(0, width, 2))
    y0, y1 = sorted(int(y) for y in rng.integers(0, height, 2))
    return (
        f"\t<folder>{wnid}</folder>\n\t<filename>{stem}</filename>\n"
        "\t<source>\n\t\t<database>ILSVRC_2012</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        "\t<segmented>0</segmented>\n"
        f"\t<object>\n\t\t<name>{wnid}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
        f"\t\t<bndbox>\n\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n"
        f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )


def _metadata(wnid: str, stem: str, width: int, height: int, rng: np.random.Generator) -> str:
    """One submission, with tags in alphabetical order."""
    shrink = min(1.0, _CELL_PX[0] / width, _CELL_PX[1] / height)
    shown_w, shown_h = round(width * shrink), round(height * shrink)
    letters = _LETTERS[rng.integers(36, size=60)].tobytes().decode()
    submit_s = int(rng.integers(*_SUBMIT_S))
    start_ms = submit_s * 1000 - int(rng.integers(10_000, 600_000))
    # A few workers did most of the work.
    worker = int(_WORKERS * rng.random() ** 3)
    chance = rng.random()
    selected, unseen = chance < _RELEASE.selected, chance > 1 - _RELEASE.unseen
    lasted_ms = 0 if unseen else max(2, int(rng.lognormal(6.52, 0.64)))
    trace = [] if unseen else _trace(lasted_ms, shown_w, shown_h, rng)
    clicks = [trace[-1]] * (1 + (rng.random() < _RELEASE.second_click)) if selected else []
    hovers = [] if unseen else [("enter", 0), ("leave", trace[-1][0] + 90)]
    hovers += [("enter", lasted_ms + 900)] if hovers and rng.random() < _RELEASE.open_hover else []
    return (
        f"\t<metadata>\n\t\t<assignment_id>{letters[:30]}</assignment_id>\n"
        f"\t\t<estimateTime>{lasted_ms}</estimateTime>\n\t\t<hit_id>{letters[30:]}</hit_id>\n"
        f"\t\t<hit_submit_time>{submit_s}</hit_submit_time>\n"
        f"\t\t<hoveredCount>{(len(hovers) + 1) // 2}</hoveredCount>\n{_hovers(hovers, start_ms)}"
        f"\t\t<imageHeight>{shown_h}</imageHeight>\n\t\t<imageID>{wnid}/{stem}</imageID>\n"
        f"\t\t<imagePosition>\n\t\t\t<x>{445 + 340 * (worker % 3)}</x>\n\t\t\t<y>{int(rng.integers(240, 5000))}</y>\n"
        f"\t\t</imagePosition>\n\t\t<imageWidth>{shown_h}</imageWidth>\n"
        f"\t\t<image_idx>{int(rng.integers(48))}</image_idx>\n"
        f"\t\t<imagenet_hit_id>{rng.bytes(16).hex()}</imagenet_hit_id>\n"
        f"{_points('mouseTracking', trace, start_ms, shown_w, shown_h)}"
        f"\t\t<originalImageHeight>{height}</originalImageHeight>\n"
        f"\t\t<originalImageWidth>{width}</originalImageWidth>\n\t\t<page_idx>{int(rng.integers(10))}</page_idx>\n"
        f"\t\t<selected>{selected}</selected>\n\t\t<selectedCount>{len(clicks)}</selectedCount>\n"
        f"{_points('selectedRecord', clicks, start_ms, shown_w, shown_h)}"
        f"\t\t<worker_id>{worker * 646_416_907 % 16**10:010X}</worker_id>\n\t</metadata>\n"
    )


def _hovers(hovers: list[tuple[str, int]], start_ms: int) -> str:
    return (
        "".join(
            f"\t\t<hoveredRecord>\n\t\t\t<action>{action}</action>\n"
            f"\t\t\t<time>{start_ms + at}</time>\n\t\t</hoveredRecord>\n"
            for action, at in hovers
        )
        or "\t\t<hoveredRecord>None</hoveredRecord>\n"
    )


_Sample = tuple[int, int, int]  # ms since the pointer entered the image, x and y in displayed pixels


def _trace(lasted_ms: int, width: int, height: int, rng: np.random.Generator) -> list[_Sample]:
    """A random walk with samples at least 16 ms apart, 47 ms on average, over at most 3 s."""
    steps = 16 + rng.exponential(31, size=1 + min(lasted_ms, 3000) // 47)
    times = np.cumsum(steps).astype(int)
    walk = np.cumsum(rng.normal(0, 12, (len(steps), 2)), axis=0) + rng.random(2) * (width, height)
    places = np.clip(walk, 0, (width, height)).astype(int)
    return [(at, x, y) for at, (x, y) in zip(times.tolist(), places.tolist(), strict=True)]


def _points(tag: str, samples: list[_Sample], start_ms: int, width: int, height: int) -> str:
    return (
        "".join(
            f"\t\t<{tag}>\n\t\t\t<time>{start_ms + at}</time>\n\t\t\t<x>{_fraction(x, width)}</x>\n"
            f"\t\t\t<y>{_fraction(y, height)}</y>\n\t\t</{tag}>\n"
            for at, x, y in samples
        )
        or f"\t\t<{tag}>None</{tag}>\n"
    )


@cache
def _fraction(pixels: int, of: int) -> str:
    return repr(pixels / of)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("records", type=int, help=f"the release has {RELEASED_RECORDS}")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_archive(options.archive, options.records, options.seed)
    print(f"{options.archive}: {options.records:,} records, {options.archive.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
