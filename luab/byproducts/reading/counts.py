"""Counts over the records of ImageNet-AB, batch by batch."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.byproducts.clicks import final_states, hovers, recorded_times_ms
from luab.byproducts.nested import Bools, entries, inner_entries, outside, points
from luab.byproducts.reading.xml import INTEGERS, TEXTS
from luab.byproducts.tally import RecordTally

USABLE_TRACE_MS = 3000


class Tally(RecordTally):
    """Counts over records of ImageNet-AB."""

    RELEASE = "ImageNet-AB"

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

    def _count(self, name: str, what: int | Bools) -> None:
        self._counts[name] += int(np.sum(what))

    def _add_states(self, batch: pa.RecordBatch) -> None:
        (selected, _), times_ms = final_states(batch), recorded_times_ms(batch)
        timed = selected & (times_ms > 0)
        self._count("metadata", len(selected))
        self._count("selected", selected)
        self._count("selected_with_time", timed)
        self._count("usable_trace", (times_ms > 0) & (times_ms < USABLE_TRACE_MS))
        workers = entries(batch["worker_id"])[0]
        for name, some in (("workers", workers), ("workers_selected_with_time", workers.filter(pa.array(timed)))):
            self._distinct[name].update(pc.unique(some.drop_null()).to_pylist())

    def _add_clicks(self, batch: pa.RecordBatch) -> None:
        selected, _ = final_states(batch)
        xy, _, lengths = points(batch["click_xy"])
        self._count("selected_without_click", selected & (lengths == 0))
        self._count("clicked_then_unselected", ~selected & (lengths > 0))
        self._count("clicks_out_of_range", outside(xy))

    def _add_traces(self, batch: pa.RecordBatch) -> None:
        xy, _, lengths = points(batch["trace_xy"])
        self._count("empty_trace", lengths == 0)
        self._count("trace_out_of_range", outside(xy))
        times, owner = inner_entries(batch["trace_time_ms"])
        steps = np.diff(times.to_numpy())[owner[:-1] == owner[1:]]
        self._count("trace_duplicate_times", steps == 0)
        self._count("trace_backward_times", steps < 0)

    def _add_hovers(self, batch: pa.RecordBatch) -> None:
        enters, closed, _ = hovers(batch)
        self._count("empty_hover", pc.list_value_length(entries(batch["hover_action"])[0]).to_numpy() == 0)
        self._count("hover_closed", closed)
        self._count("hover_unclosed", int(enters.sum()) - int(closed.sum()))

    def _add_missing(self, batch: pa.RecordBatch) -> None:
        absent = sum(entries(batch[name])[0].null_count for name in (*TEXTS, *INTEGERS))
        absent += inner_entries(batch["click_time_ms"])[0].null_count
        self._count("missing_values", absent)
        position = entries(batch["position_xy"])[0].flatten().to_numpy(zero_copy_only=False)
        self._count("missing_values", np.isnan(position[::2]))
