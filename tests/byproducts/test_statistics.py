"""Statistics of the byproducts, worked out by hand on four records."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from luab.byproducts.clicks import click_points, mean_by_row, samples_of_traces
from luab.byproducts.imagenet_ab import SCHEMA, index, read_index
from luab.byproducts.statistics.imagenet import (
    COLUMNS,
    WORKER_COLUMNS,
    byproduct_statistics,
    hover_times_ms,
    inside_a_box,
    per_worker,
    trace_times_ms,
)

PER_METADATA = SCHEMA.names[7:]


def entry(
    selected: bool = True,
    clicks: list[list[float]] | None = None,
    trace: list[list[float]] | None = None,
    hovers: str = "",
    time_ms: int | None = 100,
    worker: str | None = "W",
) -> dict[str, Any]:
    """One annotation; hovers as "e10 l30": enter at 10 ms, leave at 30 ms; trace as x, y, ms."""
    given: dict[str, Any] = dict.fromkeys(PER_METADATA)
    given |= {"selected": selected, "estimate_time_ms": time_ms, "worker_id": worker, "position_xy": [0, 0]}
    given |= {"click_xy": clicks or [], "click_time_ms": [0] * len(clicks or [])}
    given |= {"trace_xy": [sample[:2] for sample in trace or []]}
    given |= {"trace_time_ms": [int(sample[2]) for sample in trace or []]}
    given["hover_action"] = [{"e": "enter", "l": "leave"}[hover[0]] for hover in hovers.split()]
    given["hover_time_ms"] = [int(hover[1:]) for hover in hovers.split()]
    return given


def row(
    image_id: str, *entries: dict[str, Any], boxes: list[list[int]] | None = None, size: Any = (100, 50)
) -> dict[str, Any]:
    made: dict[str, Any] = {"image_id": image_id, "wnid": "n01440764", "annotators": len(entries)}
    made |= {"has_box": bool(boxes), "boxes": boxes or [], "width": size[0], "height": size[1]}
    return made | {name: [one[name] for one in entries] for name in PER_METADATA}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


FOUR = table(
    row(
        "a",
        entry(clicks=[[0.2, 0.5], [0.9, 0.9]], trace=[[0.1, 0.1, 5], [0.3, 1.5, 9]], hovers="e10 l30 e40"),
        entry(clicks=[[0.4, 0.9]], time_ms=300, worker="V", hovers="e10 l5"),
        entry(False, clicks=[[0.0, 0.0]], time_ms=7, hovers="e1 e2 l102"),
        boxes=[[0, 0, 10, 10], [29, 34, 31, 36]],
    ),
    row("b", boxes=[[0, 0, 99, 49]]),
    row("c", entry(time_ms=0), entry(False, time_ms=None, worker=None)),
    row("d", entry(clicks=[[1.0, -0.1]], time_ms=100_000), boxes=[[99, 0, 99, 9]]),
)


def values(frame: Any) -> dict[str, tuple[float, int]]:
    return {name: (value, n) for name, value, _, n in frame.itertuples(index=False)}


def test_the_first_click_of_each_selected_annotation_then_the_mean() -> None:
    rows, xy, without = click_points(FOUR)
    assert rows.tolist() == [0, 3]
    np.testing.assert_allclose(xy, [[0.3, 0.7], [1.0, -0.1]], rtol=0, atol=1e-15)
    assert without == 1  # in record c


def test_a_single_click_is_kept_bit_for_bit() -> None:
    point = [0.5401234567901234, 0.4732510288065844]
    assert click_points(table(row("a", entry(clicks=[point])))).xy.tolist() == [point]


def test_four_records_by_hand() -> None:
    found = values(byproduct_statistics(FOUR))
    hand = {
        "records": (4, 4),
        "with_metadata": (3 / 4, 4),
        "selected": (3 / 4, 4),
        "selected_with_time": (2 / 4, 4),
        "with_box": (3 / 4, 4),
        "annotations_per_record_max": (3, 4),
        "images_with_click": (2, 4),
        "with_click": (2 / 4, 4),
        "selected_without_click": (1, 3),
        # a: pixel (30, 35) is in the second box; d: x = 1 is the last pixel, 99, but y is above the image.
        "click_in_box": (1 / 2, 2),
        "centre_in_box": (0, 2),
        "clicks_out_of_range": (1 / 5, 5),
        # Only the mean click of a lies in its image: (.3, .7).
        "click_x_mean": (0.3, 1),
        "click_x_std": (0, 1),
        "click_y_mean": (0.7, 1),
        "click_y_std": (0, 1),
        # Recorded times of all annotations: 100, 300, 7, 0, 100 000.
        "time_zero": (1 / 5, 5),
        "time_above_3_s": (1 / 5, 5),
        # W selected two of the three images.
        "images_of_busiest_tenth": (2 / 3, 3),
        "estimate_time_quartile_1": (200, 3),
        "estimate_time_median": (300, 3),
        "estimate_time_quartile_3": (50_150, 3),
        "estimate_time_mean": (100_400 / 3, 3),
        "estimate_time_mean_clipped": (60_400 / 3, 3),
        "estimate_time_max": (100_000, 3),
        "hover_closed": (3, 5),
        "hover_unclosed": (2, 5),
        "hover_time_quartile_1": (40, 2),
        "hover_time_median": (60, 2),
        "hover_time_quartile_3": (80, 2),
        "trace_points_mean": (2 / 6, 6),
        "trace_points_median": (0, 6),
        "trace_empty": (5 / 6, 6),
        "trace_out_of_range": (1 / 2, 2),
        "trace_time_quartile_1": (4, 1),
        "trace_time_median": (4, 1),
        "trace_time_quartile_3": (4, 1),
        "workers": (2, 3),
        "images_per_worker_min": (1, 2),
        "images_per_worker_median": (1.5, 2),
        "images_per_worker_max": (2, 2),
        # V: 300 ms; W: 100 ms and, clipped, 60 s.
        "worker_time_min": (300, 2),
        "worker_time_quartile_1": (300 + 0.25 * 29_750, 2),
        "worker_time_median": (300 + 0.5 * 29_750, 2),
        "worker_time_quartile_3": (300 + 0.75 * 29_750, 2),
        "worker_time_max": (30_050, 2),
        "click_to_centre_mean": ((math.hypot(0.2, 0.2) + math.hypot(0.5, 0.6)) / 2, 2),
        "click_to_centre_median": ((math.hypot(0.2, 0.2) + math.hypot(0.5, 0.6)) / 2, 2),
    }
    assert set(found) == set(hand)
    for name, (value, n) in hand.items():
        assert found[name] == (pytest.approx(value), n), name


def test_the_card_adds_the_junk() -> None:
    card = {"rows": 4, "counts": {"junk_skipped": 9}}
    assert values(byproduct_statistics(FOUR, card))["junk_skipped"] == (9, 4)


def test_shares_of_nothing_are_nan_and_counts_are_zero() -> None:
    for empty in (table(row("a")), FOUR.slice(0, 0), SCHEMA.empty_table()):
        found = values(byproduct_statistics(empty))
        for name in ("click_in_box", "estimate_time_median", "hover_time_median", "images_per_worker_max"):
            assert math.isnan(found[name][0]) and found[name][1] == 0, name
        assert (found["workers"], found["hover_closed"], found["images_with_click"][0]) == ((0, 0), (0, 0), 0)


def test_chunks_and_slices_change_nothing() -> None:
    chunked = pa.concat_tables([FOUR.slice(0, 1), FOUR.slice(1, 2), FOUR.slice(3)])
    assert byproduct_statistics(chunked).equals(byproduct_statistics(FOUR))
    assert click_points(FOUR.slice(2)).rows.tolist() == [1]
    assert hover_times_ms(FOUR.slice(1)).tolist() == []


def test_pieces_give_the_same_statistics_as_the_whole() -> None:
    pieces = (FOUR.slice(start, 1).select(COLUMNS) for start in range(4))
    assert byproduct_statistics(pieces).equals(byproduct_statistics(FOUR))
    assert byproduct_statistics([]).equals(byproduct_statistics(FOUR.slice(0, 0)))


def test_a_trace_lasts_from_its_first_sample_to_its_last() -> None:
    some = table(
        row("a", entry(trace=[[0.1, 0.2, 3], [0.3, 0.4, 5], [0.3, 0.4, 9]]), entry(trace=[[0.1, 0.1, 7]])),
        row("b", entry(trace=[[0.1, 0.2, 9], [0.3, 0.4, 5]]), entry(trace=[[0.1, 0.2, 9], [0.3, 0.4, 9]])),
    )
    assert trace_times_ms(some).tolist() == [6, 0]


def test_images_and_mean_time_of_each_worker() -> None:
    images, means_ms = per_worker(FOUR.slice(n, 1).select(WORKER_COLUMNS) for n in range(4))
    assert sorted(zip(images.tolist(), means_ms.tolist(), strict=True)) == [(1, 300), (2, 30_050)]
    assert [len(values) for values in per_worker([])] == [0, 0]


def test_only_an_enter_directly_followed_by_its_leave_has_a_duration() -> None:
    assert hover_times_ms(FOUR).tolist() == [20, 100]
    # A leave in the next annotation does not close an enter.
    assert hover_times_ms(table(row("a", entry(hovers="e1"), entry(hovers="l9 e10")))).tolist() == []


def test_box_borders_belong_to_the_box() -> None:
    boxed = table(*(row(str(n), boxes=[[10, 10, 19, 19]]) for n in range(5)))
    xy = np.array([[0.1, 0.2], [0.1999, 0.3999], [0.2, 0.2], [0.1, 0.4], [0.0999, 0.2]])
    assert inside_a_box(boxed, np.arange(5), xy).tolist() == [True, True, False, False, False]


def test_images_without_a_box_or_a_size_are_ignored() -> None:
    some = table(row("a"), row("b", boxes=[[0, 0, 1, 1]], size=(None, None)), row("c", boxes=[[0, 0, 99, 49]]))
    assert inside_a_box(some, np.arange(3), np.full((3, 2), 0.5)).tolist() == [True]


def test_weighted_means_by_row() -> None:
    xy = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    rows, means = mean_by_row(np.array([4, 4, 1]), xy, 6, np.array([1.0, 3.0, 0.0]))
    assert (rows.tolist(), means.tolist()) == ([4], [[0.75, 0.25]])


def test_trace_samples_have_their_image_and_annotation() -> None:
    some = table(
        row("a"),
        row("b", entry(False), entry(trace=[[0.1, 0.2, 3], [0.3, 0.4, 5]])),
        row("c", entry(False, trace=[[0.5, 0.6, 7]])),
    )
    samples = samples_of_traces(some)
    assert samples.rows.tolist() == [1, 1, 2]
    assert samples.annotations.tolist() == [1, 1, 2]
    assert samples.selected.tolist() == [True, True, False]
    assert samples.xy.tolist() == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    assert samples.times_ms.tolist() == [3, 5, 7]


def test_real_records(samples: Path, tmp_path: Path) -> None:
    index(samples / "imagenet_ab", tmp_path / "i.parquet", tmp_path / "i.json")
    card = json.loads((tmp_path / "i.json").read_text(encoding="utf-8"))
    found = values(byproduct_statistics(read_index(tmp_path / "i.parquet"), card))
    assert found["click_in_box"] == (1.0, 1)
    assert found["estimate_time_median"] == (560.0, 2)
    assert (found["hover_unclosed"], found["junk_skipped"]) == ((1, 5), (1, 4))
    assert 658 in hover_times_ms(read_index(tmp_path / "i.parquet")).tolist()
