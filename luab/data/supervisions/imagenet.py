"""Training points for ImageNet, computed from the index of ImageNet-AB.

To make other points, write a function here, and add its name to `MAKERS` of `luab.study.supervisions` and to
`StudyPart.makers`::

    @register
    def last_click(sources: Sources) -> Made:
        table = read_index(sources.index, ["image_id", "click_xy"])
        ...
        return Made(points, {})
"""

from collections import defaultdict
from collections.abc import Container, Hashable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.clicks import click_points, final_states, mean_by_row, recorded_times_ms, samples_of_traces
from luab.byproducts.folder_ab import read_points
from luab.byproducts.imagenet_ab import read_index, read_index_pieces
from luab.byproducts.nested import entries
from luab.data.supervisions.makers import Byproducts, Made, Maker, Sources, Worker, area_of, centre_of
from luab.data.supervisions.point_files import MOMENTS
from luab.errors import ConfigError, DataError
from luab.study.noises import Point, random_pair

LONGEST_STEP_MS = 350
"""A longer step between two trace samples is a rest or an absence; a moving pointer has 47 ms on average."""

MAKERS: dict[str, Maker] = {}


def register(function: Maker) -> Maker:
    """Adds a function to `MAKERS` under its own name."""
    MAKERS[function.__name__] = function
    return function


@register
def click(sources: Sources) -> Made:
    """Returns the click of each image by the rule of the official loader (`click_points`).

    A mean outside [0, 1] is dropped and counted. No crop of the image can contain it, so the official loader gives
    it weight 0 in every step. The release has no such click as far as we saw, but its format allows it.
    """
    table = _counted(read_index(sources.index, _columns(sources, "selected", "click_xy")), sources)
    rows, xy, without = click_points(table)
    image_ids, xy, dropped = _inside(table["image_id"].take(pa.array(rows)), xy)
    return Made(_points(image_ids, xy), {"selected_without_click": without, "out_of_range": dropped})


@register
def box(sources: Sources) -> Made:
    """Returns the centre of the largest ILSVRC box of each image that has one, with or without a click.

    A centre outside the image is dropped and counted.
    ASSUME: of several boxes the largest in pixels counts, since a click is on one object as well; every image with
    a box has a point, clicked or not, since this stands for full supervision.
    """
    table = read_index(sources.index, ["image_id", "boxes", "width", "height"])
    table = table.filter(pc.and_(pc.greater(pc.list_value_length(table["boxes"]), 0), table["width"].is_valid()))
    rows = zip(*(table[name].to_pylist() for name in ("boxes", "width", "height")), strict=True)
    centres = [centre_of(max(boxes, key=area_of), width, height) for boxes, width, height in rows]
    xy = np.array(centres, dtype=np.float64).reshape(-1, 2)
    image_ids, xy, dropped = _inside(table["image_id"], xy)
    return Made(_points(image_ids, xy), {"out_of_range": dropped})


@register
def trace(sources: Sources) -> Made:
    """Returns the mean of the mouse trace over time for each image that has a click, averaged over annotations.

    The weight of a sample is half the time since the previous sample plus half the time to the next (trapezoid rule).
    Steps are clipped to [0, `LONGEST_STEP_MS`], so gaps, repeated time stamps and clocks that were set back do no
    harm; a trace without duration gets its unweighted mean. Samples outside [0, 1] are dropped and counted. Only
    selected annotations count.
    ASSUME: a trace's point is its time-weighted mean; the paper trains on clicks alone.
    """
    columns = _columns(sources, "selected", "click_xy", "trace_xy", "trace_time_ms")
    # Piece by piece: the traces of the whole release take gigabytes of memory.
    pieces = [_mean_traces_of(_counted(piece, sources)) for piece in read_index_pieces(sources.index, columns)]
    notes = {name: sum(piece.notes[name] for piece in pieces) for name in _TRACE_NOTES}
    return Made([point for piece in pieces for point in piece.points], notes)


@register
def browsed(sources: Sources) -> Made:
    """Returns the click of each image that has a tag, too; see `tagged`."""
    clicks, tags, notes = _clicked_and_tagged(sources)
    return Made([clicks[name] for name in clicks if name in tags], notes)


@register
def tagged(sources: Sources) -> Made:
    """Returns the tag of each image that has a click, too, so that `browsed` and `both` have the same images.

    A tag is a row of the user's own table (`Sources.tags`), whose `image` is a path or the name of an image of the
    manifest. Tags outside [0, 1] are dropped and counted, as clicks are.
    ASSUME: of several tags on one image the last one counts, as for the icons of COCO-AB.
    """
    clicks, tags, notes = _clicked_and_tagged(sources)
    return Made([tags[name] for name in clicks if name in tags], notes)


@register
def both(sources: Sources) -> Made:
    """Returns, for each image that has a click and a tag, one of the two.

    The choice is a hash of seed and image_id (`random_pair`), so it does not depend on other images.
    ASSUME: each image has one point, so that the number of points is that of `browsed` and of `tagged`.
    """
    clicks, tags, notes = _clicked_and_tagged(sources)
    names = [name for name in clicks if name in tags]
    is_click = {name: random_pair(f"{sources.seed}:both:{name}")[0] < 0.5 for name in names}
    points = [clicks[name] if is_click[name] else tags[name] for name in names]
    return Made(points, {**notes, "seed": sources.seed, "clicks": sum(is_click.values())})


def _clicked_and_tagged(sources: Sources) -> tuple[dict[str, Point], dict[str, Point], dict[str, int]]:
    """Clicks and tags by image_id, and how many images have which; DataError if there are no tags on these images."""
    if sources.tags is None:
        raise ConfigError("The points browsed, tagged and both need tags on ImageNet's images; set `paths.tags`.")
    clicks = {point.image_id: point for point in click(sources).points}
    table, _ = read_points(sources.tags)
    rows = zip(*(table[name].to_pylist() for name in ("image", "x", "y")), strict=True)
    last = {Path(image).stem: (x, y) for image, x, y in rows}
    tags = {name: Point(name, None, *xy) for name, xy in last.items() if min(xy) >= 0 and max(xy) <= 1}
    common = len(clicks.keys() & tags.keys())
    if not common:
        raise DataError(
            f"{sources.tags}: none of its {len(last):,} images has a click in {sources.index}. Expected names of "
            "ImageNet's training images, such as n01440764_10026.JPEG."
        )
    notes = {
        "clicked": len(clicks),
        "tagged": len(tags),
        "with_both": common,
        "tags_out_of_range": len(last) - len(tags),
    }
    return clicks, tags, notes


def classes(sources: Sources) -> Mapping[str, Hashable]:
    """Returns the wnid of each image of the index."""
    table = read_index(sources.index, ["image_id", "wnid"])
    return dict(zip(table["image_id"].to_pylist(), table["wnid"].to_pylist(), strict=True))


def workers(sources: Sources) -> Mapping[str, Worker]:
    """Returns the time and recall of each worker.

    The time is the mean of the recorded times per image; those of 0 ms, which have no hover, do not count. Every image
    of the index shows the class that was searched for, so the recall is the share of a worker's images that were
    selected.
    """
    columns = ["worker_id", "selected", "estimate_time_ms"]
    times: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])  # annotations, selected, timed, ms
    for piece in read_index_pieces(sources.index, columns):
        ids = entries(piece["worker_id"])[0].to_pylist()
        for name, selected, time in zip(ids, final_states(piece)[0], recorded_times_ms(piece).tolist(), strict=True):
            if name:
                sums = times[name]
                sums[0] += 1
                sums[1] += bool(selected)
                sums[2] += time > 0
                sums[3] += max(time, 0)
    return {name: Worker(ms / timed if timed else 0.0, right / n) for name, (n, right, timed, ms) in times.items()}


def time_ms(sources: Sources) -> Mapping[str, float]:
    """Returns the time spent on each image: the mean recorded time (estimateTime) of its selected annotations.

    Times of 0 ms, which have no hover, do not count; an image without any other has none.
    """
    times: dict[str, float] = {}
    columns = _columns(sources, "selected", "estimate_time_ms")
    for piece in (_counted(piece, sources) for piece in read_index_pieces(sources.index, columns)):
        selected, owner = final_states(piece)
        recorded = recorded_times_ms(piece)
        used = selected & (recorded > 0)
        sums, counts = (np.bincount(owner[used], of, piece.num_rows) for of in (recorded[used], None))
        names = piece["image_id"].to_pylist()
        times |= {names[row]: float(sums[row] / counts[row]) for row in np.flatnonzero(counts)}
    return times


def moments(sources: Sources) -> Mapping[str, NDArray[np.float32]]:
    """Returns where the pointer was at `MOMENTS` equal intervals of time, for each image: x, y, x, y, ...

    So the density of these points is that of the time spent. Samples and steps count as for `trace`: only those of
    selected annotations and in [0, 1], steps clipped to [0, `LONGEST_STEP_MS`], and a trace without duration has equal
    steps. Between two samples the pointer moves evenly. All annotations of an image have equal shares of the time.
    """
    return {name: _moments(annotations, xy, times) for name, annotations, xy, times in _traced(sources)}


def traces(sources: Sources, held_out: Container[str]) -> Mapping[str, list[NDArray[np.float32]]]:
    """Returns the moments of each annotation alone, of images that are held out or have several traced annotations.

    Args:
        sources: The index; all workers count.
        held_out: Ids of the images that no training sees.

    Returns:
        For each image the moments of its annotations, as `moments` returns them for the image.
    """
    found: dict[str, list[NDArray[np.float32]]] = {}
    for name, annotations, xy, times in _traced(sources):
        people = [annotations == one for one in np.unique(annotations)]
        if len(people) > 1 or name in held_out:
            found[name] = [_moments(annotations[own], xy[own], times[own]) for own in people]
    return found


def _traced(sources: Sources) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
    """Yields each image with its samples that count: annotation, place and time of each; see `moments`."""
    columns = _columns(sources, "selected", "trace_xy", "trace_time_ms")
    for piece in (_counted(piece, sources) for piece in read_index_pieces(sources.index, columns)):
        samples, names = samples_of_traces(piece), piece["image_id"].to_pylist()
        used = samples.selected & ((samples.xy >= 0) & (samples.xy <= 1)).all(axis=1)
        rows, annotations = samples.rows[used], samples.annotations[used]
        xy, times = samples.xy[used], samples.times_ms[used]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(rows)]):
            yield names[rows[start]], annotations[start:end], xy[start:end], times[start:end]


BYPRODUCTS = Byproducts(MAKERS, classes, workers, {"time_ms": time_ms, "moments": moments})


def _columns(sources: Sources, *names: str) -> list[str]:
    chosen_by = {"worker_id": sources.workers, "estimate_time_ms": sources.after_ms}
    return list(dict.fromkeys(["image_id", *names, *(name for name, by in chosen_by.items() if by is not None)]))


def _counted(table: pa.Table, sources: Sources) -> pa.Table:
    """The table with annotations of other workers, and those that took too little time, marked as not selected."""
    if sources.workers is None and sources.after_ms is None:
        return table
    selected = entries(table["selected"])[0]
    if sources.workers is not None:
        ours = pc.is_in(entries(table["worker_id"])[0], pa.array(sorted(sources.workers), pa.string()))
        selected = pc.and_(selected, ours)
    if sources.after_ms is not None:
        selected = pc.and_(selected, pa.array(recorded_times_ms(table) >= sources.after_ms))
    counts = pc.list_value_length(table["selected"]).to_numpy()
    starts = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    column = pa.ListArray.from_arrays(starts, selected)
    return table.set_column(table.schema.get_field_index("selected"), "selected", column)


def _points(image_ids: pa.Array | pa.ChunkedArray, xy: NDArray[np.float64]) -> list[Point]:
    return [Point(name, None, x, y) for name, (x, y) in zip(image_ids.to_pylist(), xy.tolist(), strict=True)]


def _inside(image_ids: pa.ChunkedArray, xy: NDArray[np.float64]) -> tuple[pa.ChunkedArray, NDArray[np.float64], int]:
    """The images whose point is in [0, 1], their points, and the number of the others."""
    inside = ((xy >= 0) & (xy <= 1)).all(axis=1)
    return image_ids.filter(pa.array(inside)), xy[inside], int((~inside).sum())


def _moments(
    annotations: NDArray[np.int64], xy: NDArray[np.float64], times_ms: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The moments of one image, whose annotations are in ascending order."""
    _, number = np.unique(annotations, return_inverse=True)
    steps = np.where(np.diff(number) == 0, np.clip(np.diff(times_ms), 0, LONGEST_STEP_MS), 0).astype(np.float64)
    owner = number[1:]
    durations = np.bincount(owner, steps, number[-1] + 1)
    steps = np.where(durations[owner] > 0, steps, np.diff(number) == 0)  # equal steps if there is no duration
    durations = np.bincount(owner, steps, number[-1] + 1)
    passed = np.concatenate([[0], np.cumsum(steps)]) - np.concatenate([[0], np.cumsum(durations)])[number]
    clock = number + passed / np.where(durations > 0, durations, 1)[number]
    asked = (np.arange(MOMENTS) + 0.5) / MOMENTS * (number[-1] + 1)
    # Within its own annotation: from its last sample to the first of the next one the pointer does not move.
    places = np.empty((MOMENTS, 2), dtype=np.float32)
    for annotation in range(number[-1] + 1):
        own, now = number == annotation, asked.astype(int) == annotation
        places[now] = np.stack([np.interp(asked[now], clock[own], xy[own, axis]) for axis in (0, 1)], axis=1)
    return places.ravel()


_TRACE_NOTES = ("clicked_without_trace", "samples_out_of_range")


def _mean_traces_of(table: pa.Table) -> Made:
    clicked = np.zeros(table.num_rows, dtype=bool)
    clicked[click_points(table).rows] = True
    samples = samples_of_traces(table)
    inside = ((samples.xy >= 0) & (samples.xy <= 1)).all(axis=1)
    used = inside & samples.selected & clicked[samples.rows]
    rows, xy = _mean_traces(samples.rows[used], samples.annotations[used], samples.xy[used], samples.times_ms[used])
    notes = dict(zip(_TRACE_NOTES, (int(clicked.sum()) - len(rows), int((~inside).sum())), strict=True))
    return Made(_points(table["image_id"].take(pa.array(rows)), xy), notes)


def _mean_traces(
    rows: NDArray[np.int64],
    annotations: NDArray[np.int64],
    xy: NDArray[np.float64],
    times_ms: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The mean of each annotation's samples over time, then the mean of each row's annotations."""
    if len(rows) == 0:
        return rows, xy
    # Annotations are in ascending order; renumber the remaining ones from 0.
    _, first, number = np.unique(annotations, return_index=True, return_inverse=True)
    step = np.where(np.diff(number) == 0, np.clip(np.diff(times_ms), 0, LONGEST_STEP_MS), 0) / 2
    weights = np.concatenate([[0], step]) + np.concatenate([step, [0]])
    duration = np.bincount(number, weights)
    weights = np.where(duration[number] > 0, weights, 1.0)
    _, means = mean_by_row(number, xy, len(first), weights)
    return mean_by_row(rows[first], means, int(rows.max()) + 1)
