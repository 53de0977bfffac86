"""Counts of what the records hold, batch by batch."""

from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luab.byproducts.nested import entries, inner_entries, points
from luab.byproducts.reading.xml import INTEGERS, TEXTS

USABLE_TRACE_MS = 3000


class Tally:
    """Counts what the records hold, one `add` per batch; tallies of parts add up.

    records: files. junk_skipped: macOS leftovers. bad_records: left out under `on_bad="count"`.
    without_metadata, with_metadata, several_metadata, with_box: records. wnids: distinct.
    All others count metadata elements, unless they say points:
    metadata: all. selected: final state True; of those selected_with_time (estimateTime > 0) and
    selected_without_click. clicked_then_unselected: state False, but with a recorded click.
    empty_trace, empty_hover: no sample, no action. usable_trace: 0 < estimateTime < 3000 ms.
    hover_closed: enters followed by a leave; hover_unclosed: the other enters.
    trace_duplicate_times, trace_backward_times: samples stamped as, or before, the one before them.
    clicks_out_of_range, trace_out_of_range: points with x or y outside [0, 1].
    missing_values: identifiers, numbers and click times that are absent (null in the table).
    workers, workers_selected_with_time: distinct, over all metadata and over those of that name.
    """

    _NAMES = (
        "records",
        "junk_skipped",
        "bad_records",
        "without_metadata",
        "with_metadata",
        "several_metadata",
        "with_box",
        "metadata",
        "selected",
        "selected_with_time",
        "selected_without_click",
        "clicked_then_unselected",
        "empty_trace",
        "empty_hover",
        "usable_trace",
        "hover_closed",
        "hover_unclosed",
        "trace_duplicate_times",
        "trace_backward_times",
        "clicks_out_of_range",
        "trace_out_of_range",
        "missing_values",
    )
    _DISTINCT = ("wnids", "workers", "workers_selected_with_time")

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._distinct: dict[str, set[str]] = {name: set() for name in self._DISTINCT}

    def skip(self, what: Literal["junk_skipped", "bad_records"]) -> None:
        """Counts a member that gives no row."""
        self._counts[what] += 1

    def merge(self, other: "Tally") -> None:
        """Adds what another one counted."""
        self._counts.update(other._counts)
        for name, values in other._distinct.items():
            self._distinct[name] |= values

    def counts(self) -> dict[str, int]:
        """All counts, the distinct ones included."""
        counted = {name: self._counts[name] for name in self._NAMES}
        return counted | {name: len(values) for name, values in self._distinct.items()}

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts the rows of a batch of the index."""
        annotators = batch["annotators"].to_numpy()
        self._count("records", batch.num_rows)
        self._count("without_metadata", annotators == 0)
        self._count("with_metadata", annotators > 0)
        self._count("several_metadata", annotators > 1)
        self._count("with_box", pc.sum(batch["has_box"]).as_py() or 0)
        self._distinct["wnids"].update(pc.unique(batch["wnid"]).to_pylist())
        self._add_states(batch)
        self._add_clicks(batch)
        self._add_traces(batch)
        self._add_hovers(batch)
        self._add_missing(batch)

    def _count(self, name: str, what: "int | NDArray[np.bool_]") -> None:
        self._counts[name] += int(np.sum(what))

    def _add_states(self, batch: pa.RecordBatch) -> None:
        selected, times_ms = _selected(batch), _times_ms(batch)
        timed = selected & (times_ms > 0)
        self._count("metadata", len(selected))
        self._count("selected", selected)
        self._count("selected_with_time", timed)
        self._count("usable_trace", (times_ms > 0) & (times_ms < USABLE_TRACE_MS))
        workers = entries(batch["worker_id"])[0]
        for name, some in (("workers", workers), ("workers_selected_with_time", workers.filter(pa.array(timed)))):
            self._distinct[name].update(pc.unique(some.drop_null()).to_pylist())

    def _add_clicks(self, batch: pa.RecordBatch) -> None:
        selected = _selected(batch)
        xy, _, lengths = points(batch["click_xy"])
        self._count("selected_without_click", selected & (lengths == 0))
        self._count("clicked_then_unselected", ~selected & (lengths > 0))
        self._count("clicks_out_of_range", _outside(xy))

    def _add_traces(self, batch: pa.RecordBatch) -> None:
        xy, _, lengths = points(batch["trace_xy"])
        self._count("empty_trace", lengths == 0)
        self._count("trace_out_of_range", _outside(xy))
        times, owner = inner_entries(batch["trace_time_ms"])
        steps = np.diff(times.to_numpy())[owner[:-1] == owner[1:]]
        self._count("trace_duplicate_times", steps == 0)
        self._count("trace_backward_times", steps < 0)

    def _add_hovers(self, batch: pa.RecordBatch) -> None:
        actions, owner = inner_entries(batch["hover_action"])
        enters = pc.equal(actions, "enter").to_numpy(zero_copy_only=False).astype(bool)
        closed = enters[:-1] & ~enters[1:] & (owner[:-1] == owner[1:])
        lengths = pc.list_value_length(entries(batch["hover_action"])[0]).to_numpy()
        self._count("empty_hover", lengths == 0)
        self._count("hover_closed", closed)
        self._count("hover_unclosed", int(enters.sum()) - int(closed.sum()))

    def _add_missing(self, batch: pa.RecordBatch) -> None:
        absent = sum(entries(batch[name])[0].null_count for name in (*TEXTS, *INTEGERS))
        absent += inner_entries(batch["click_time_ms"])[0].null_count
        self._count("missing_values", absent)
        position = entries(batch["position_xy"])[0].flatten().to_numpy(zero_copy_only=False)
        self._count("missing_values", np.isnan(position[::2]))


def _selected(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    return entries(batch["selected"])[0].to_numpy(zero_copy_only=False).astype(bool)


def _times_ms(batch: pa.RecordBatch) -> NDArray[np.int64]:
    return entries(batch["estimate_time_ms"])[0].fill_null(0).to_numpy()


def _outside(xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.any((xy < 0) | (xy > 1), axis=1)
