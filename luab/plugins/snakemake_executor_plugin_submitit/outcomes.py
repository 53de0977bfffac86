"""Which jobs ended, and how: result files first, then one question to the cluster for all the others."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import local
from .messages import read_result
from .registry import Entry, Registry
from .slurm_states import Slurm, SlurmUnreachable, State

_GROWTH = 1.5
_RUNAWAY_S = 900  # the accounting may call a lost job running for ever
# fmt: off
_HOPELESS = frozenset((
    "DependencyNeverSatisfied", "BadConstraints", "JobHeldAdmin", "launch failed requeued held", "JobHoldMaxRequeue",
    "PartitionTimeLimit", "PartitionNodeLimit", "InvalidAccount", "InvalidQOS", "QOSNotAllowed", "AccountNotAllowed",
))
# fmt: on


@dataclass(frozen=True)
class Outcome:
    """End of a job.

    Attributes:
        entry: The job.
        success: Whether it did what it should.
        state: What the cluster said last; None where it knows nothing.
        trace: Traceback of a failure, if there is one.
    """

    entry: Entry
    success: bool
    state: State | None = None
    trace: str = ""


@dataclass
class Pace:
    """Growing time between two calls.

    Attributes:
        first_s: Time after a change.
        slowest_s: Time when nothing changes.
    """

    first_s: float
    slowest_s: float
    clock: Callable[[], float] = time.monotonic
    _wait_s: float = 0.0
    _next: float = 0.0

    def due(self) -> bool:
        """Whether it is time; the next time is then later than this one was."""
        if self.clock() < self._next:
            return False
        self._wait_s = min(max(self.first_s, self._wait_s * _GROWTH), self.slowest_s)
        self._next = self.clock() + self._wait_s
        return True

    def restart(self) -> None:
        """Something changed: ask often again, but not at once."""
        self._wait_s = 0.0
        self._next = min(self._next, self.clock() + self.first_s)


class Watch:
    """Follows jobs, each where it was submitted.

    Args:
        slurm: Whom to ask.
        registry: Where states are kept for those who watch.
        pace: Time between two questions.
        grace_s: Time that the result file of an ended job may take to become visible.
        say: Told once of each thing that a user should know.
    """

    def __init__(
        self,
        slurm: Slurm,
        registry: Registry,
        pace: Pace,
        grace_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._slurm = slurm
        self._registry = registry
        self.pace = pace
        self._grace_s = grace_s
        self._say = say
        self._said: set[str] = set()
        self._gone_since: dict[str, float] = {}

    def poll(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Looks at all jobs; returns those that ended."""
        ended = finished(entries)
        open_ones = [entry for entry in entries if entry.key not in {outcome.entry.key for outcome in ended}]
        if open_ones and (self.pace.due() or self._overdue()):
            ended += self._ask(open_ones)
        for outcome in ended:
            self._gone_since.pop(outcome.entry.key, None)
            self.pace.restart()
        return ended

    def states(self, entries: Sequence[Entry]) -> dict[str, State]:
        """What the cluster says of each job, by id; jobs it has forgotten are absent.

        Raises:
            SlurmUnreachable: It did not answer.
        """
        here = local.states(entry for entry in entries if entry.cluster == "local")
        return here | self._slurm.queue(entry.id for entry in entries if entry.cluster == "slurm" and entry.id)

    def _ask(self, entries: Sequence[Entry]) -> list[Outcome]:
        try:
            found = self.states(entries)
        except SlurmUnreachable as problem:
            self._once(f"Slurm does not answer ({problem}); jobs are taken to live, asking again.")
            return []
        for entry in entries:
            self._note(entry, found.get(entry.id))
        self._registry.stamp()
        return self._verdicts([entry for entry in entries if entry.key in self._gone_since], found)

    def _note(self, entry: Entry, state: State | None) -> None:
        """Keeps a job's state, and since when it is gone."""
        if state is None or not state.alive:
            self._gone_since.setdefault(entry.key, self.pace.clock())
        elif self._gone_since.pop(entry.key, None) is not None:
            self._once(f"job {entry.id} ({entry.name}) is back in the queue and continues.")
        now = (state.name, state.reason, state.node) if state else ("GONE", "", entry.node)
        if now == (entry.state, entry.reason, entry.node):
            return
        entry.state, entry.reason, entry.node = now
        self._registry.write(entry)
        self.pace.restart()
        if entry.reason.strip("()") in _HOPELESS:
            self._once(f"job {entry.id} ({entry.name}) waits for something that may never come: {entry.reason}")

    def _verdicts(self, gone: Sequence[Entry], found: dict[str, State]) -> list[Outcome]:
        """Failures among jobs that ended without a result file and whose time of grace is over."""
        over = [entry for entry in gone if self._age(entry) >= self._grace_s]
        late = {outcome.entry.key: outcome for outcome in finished(over)}
        rest = [entry for entry in over if entry.key not in late]
        known = self._slurm.accounts(entry.id for entry in rest if entry.cluster == "slurm")
        verdicts = list(late.values())
        for entry in rest:
            state = known.get(entry.id) or self._last_word(entry, found.get(entry.id))
            if state and state.alive and self._age(entry) < _RUNAWAY_S:
                continue
            verdicts.append(Outcome(entry, False, state))
        return verdicts

    def _last_word(self, entry: Entry, state: State | None) -> State | None:
        if entry.cluster == "local" or state is None:
            return state
        return self._slurm.details(entry.id) or state

    def _overdue(self) -> bool:
        return any(self.pace.clock() - since >= self._grace_s for since in self._gone_since.values())

    def _age(self, entry: Entry) -> float:
        return self.pace.clock() - self._gone_since[entry.key]

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def finished(entries: Iterable[Entry]) -> list[Outcome]:
    """Jobs whose result file is visible. Listing the folder makes network file systems look anew."""
    listings: dict[str, set[str]] = {}
    ended = []
    for entry in entries:
        if entry.folder not in listings:
            listings[entry.folder] = _listing(entry.folder)
        result = read_result(entry.result) if entry.result.name in listings[entry.folder] else None
        if result is not None:
            ended.append(Outcome(entry, result[0], None, result[1]))
    return ended


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
