"""Counts over the records of a release, as they go into the card of its index."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

_MEANINGS = json.loads(Path(__file__).with_name("counts.json").read_text(encoding="utf-8"))


class RecordTally:
    """Counts by name, explained in counts.json; "distinct" are counts of distinct values. Tallies can be merged."""

    RELEASE: ClassVar[str]

    def __init__(self) -> None:
        names = _MEANINGS[self.RELEASE]
        self._counts: Counter[str] = Counter(dict.fromkeys(names["counts"], 0))
        self._distinct: dict[str, set[Any]] = {name: set() for name in names["distinct"]}

    def skip(self, what: str = "bad_records") -> None:
        """Counts something in the archive that becomes no row."""
        self._counts[what] += 1

    def merge(self, other: "RecordTally") -> None:
        """Adds the counts of another tally."""
        self._counts.update(other._counts)
        for name, values in other._distinct.items():
            self._distinct[name] |= values

    def counts(self) -> dict[str, int]:
        """Returns all counts by name."""
        return dict(self._counts) | {name: len(values) for name, values in self._distinct.items()}
