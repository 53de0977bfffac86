"""Counts over the records of a release, as they go into the card of its index."""

from collections import Counter
from typing import Any, ClassVar


class RecordTally:
    """Counts by name; tallies of parts can be merged.

    COUNTS: meaning of each count. DISTINCT: meaning of each count of distinct values.
    """

    COUNTS: ClassVar[dict[str, str]]
    DISTINCT: ClassVar[dict[str, str]]

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(self.COUNTS, 0))
        self._distinct: dict[str, set[Any]] = {name: set() for name in self.DISTINCT}

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
