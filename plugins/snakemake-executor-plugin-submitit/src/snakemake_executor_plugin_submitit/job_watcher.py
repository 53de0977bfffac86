"""Finds jobs that ended and their outcomes: from result files first, then with one query of the cluster."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import local_jobs
from .messages import read_result
from .registry import Entry, Registry
from .slurm_states import Slurm, SlurmUnreachable, State

_GROWTH = 1.5
_RUNAWAY_S = 900  # the accounting may list a lost job as running forever, and a broken node one as completing
# fmt: off
_HOPELESS = frozenset((
    "DependencyNeverSatisfied", "BadConstraints", "JobHeldAdmin", "launch failed requeued held", "JobHoldMaxRequeue",
    "PartitionTimeLimit", "PartitionNodeLimit", "InvalidAccount", "InvalidQOS", "QOSNotAllowed", "AccountNotAllowed",
))
# fmt: on


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job that ended.

    Attributes:
        entry: The job.
        success: Whether it succeeded.
        state: Last state in the cluster; None if unknown.
        trace: Traceback of a failure; empty if there is none.
    """

    entry: Entry
    success: bool
    state: State | None = None
    trace: str = ""


@dataclass
class QueryInterval:
    """Time between two queries of the cluster; it grows while nothing changes.

    Attributes:
        first_s: Interval after a change.
        slowest_s: Longest interval.
    """

    first_s: float
    slowest_s: float
    clock: Callable[[], float] = time.monotonic
    _wait_s: float = 0.0
    _next: float = 0.0

    def due(self) -> bool:
        """Whether it is time for a query; if so, schedules the next one after a longer interval."""
        if self.clock() < self._next:
            return False
        self._wait_s = min(max(self.first_s, self._wait_s * _GROWTH), self.slowest_s)
        self._next = self.clock() + self._wait_s
        return True

    def restart(self) -> None:
        """Returns to the first interval, because something changed."""
        self._wait_s = 0.0
        self._next = min(self._next, self.clock() + self.first_s)


class JobWatcher:
    """Follows jobs on Slurm and on this machine.

    A result of success ends a job. A failure ends a job on Slurm only if Slurm, too, says that it is over, and still
    says so `requeue_s` later: a preempted or lost job leaves a failure behind and comes back under the same id.
    Jobs of one submission that were cancelled are reported together, once none of the others is ending.

    Args:
        slurm: Runs Slurm's commands.
        registry: Where the states are stored.
        interval: Time between two queries.
        grace_s: Seconds that the result file of an ended job may take to become visible.
        requeue_s: Seconds that a failed job must be over before Slurm is believed not to requeue it.
        warn: Prints a warning; called once for each text.
    """

    def __init__(
        self,
        slurm: Slurm,
        registry: Registry,
        interval: QueryInterval,
        grace_s: float,
        requeue_s: float,
        warn: Callable[[str], None],
    ) -> None:
        self._slurm = slurm
        self._registry = registry
        self.interval = interval
        self._grace_s = grace_s
        self._requeue_s = requeue_s
        self._warn = warn
        self._warned: set[str] = set()
        self._gone_since: dict[str, float] = {}
        self._failed: dict[str, Outcome] = {}

    def poll(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Checks all jobs and returns the outcomes of those that ended."""
        results = finished(entries)
        ended = [outcome for outcome in results if outcome.success or outcome.entry.cluster == "local"]
        ended_keys = {outcome.entry.key for outcome in ended}
        failed = {outcome.entry.key: outcome for outcome in results if outcome.entry.key not in ended_keys}
        if failed.keys() - self._failed.keys():
            self.interval.restart()
        self._failed = failed
        others = [entry for entry in entries if entry.key not in ended_keys]
        if others and (self.interval.due() or self._overdue()):
            ended += self._query(others)
        for outcome in ended:
            self._gone_since.pop(outcome.entry.key, None)
            self.interval.restart()
        return ended

    def states(self, entries: Sequence[Entry]) -> dict[str, State]:
        """Queries the cluster for the states of all jobs.

        Returns:
            Id -> state; jobs that the cluster no longer has are absent.

        Raises:
            SlurmUnreachable: Slurm did not answer.
        """
        local = local_jobs.states(entry for entry in entries if entry.cluster == "local")
        return local | self._slurm.queue(entry.id for entry in entries if entry.cluster == "slurm" and entry.id)

    def _query(self, entries: Sequence[Entry]) -> list[Outcome]:
        try:
            states = self.states(entries)
        except SlurmUnreachable as problem:
            self._warn_once(f"Slurm does not answer ({problem}). Jobs are assumed to be alive; trying again.")
            return []
        try:
            for entry in entries:
                self._update(entry, states.get(entry.id))
            self._registry.stamp()
        except OSError as problem:
            self._warn_once(f"Cannot write the records of jobs ({problem}). The jobs go on; free some space.")
        outcomes = self._failures([entry for entry in entries if entry.key in self._gone_since], states)
        reported = {outcome.entry.key for outcome in outcomes}
        ending = {entry.folder for entry in entries if entry.key not in reported and self._is_ending(entry)}
        return [outcome for outcome in outcomes if outcome.entry.folder not in ending or not self._waits(outcome)]

    def _update(self, entry: Entry, state: State | None) -> None:
        """Stores a job's state, and since when it has been gone."""
        if state is None or not state.alive:
            self._gone_since.setdefault(entry.key, self.interval.clock())
        elif self._gone_since.pop(entry.key, None) is not None:
            self._warn_once(f"job {entry.id} ({entry.name}) is back in the queue and continues.")
        current = (state.name, state.reason, state.node) if state else ("GONE", "", entry.node)
        if current == (entry.state, entry.reason, entry.node):
            return
        entry.state, entry.reason, entry.node = current
        self._registry.write(entry)
        self.interval.restart()
        if entry.reason.strip("()") in _HOPELESS:
            self._warn_once(f"job {entry.id} ({entry.name}) may never start, because of: {entry.reason}")

    def _failures(self, gone: Sequence[Entry], states: dict[str, State]) -> list[Outcome]:
        """Outcomes of the jobs that ended longer than the grace time ago: failures unless a result appeared late."""
        overdue = [entry for entry in gone if self._is_overdue(entry.key)]
        late = {outcome.entry.key: outcome for outcome in finished(overdue)}
        outcomes = [outcome for outcome in late.values() if outcome.success]
        failed = [entry for entry in overdue if not (entry.key in late and late[entry.key].success)]
        accounts = self._slurm.accounts(entry.id for entry in failed if entry.cluster == "slurm")
        for entry in failed:
            known, account = states.get(entry.id), accounts.get(entry.id)
            # The accounting lags: where the controller knows the job, an account that calls it alive does not count.
            is_newer = account is not None and (known is None or not account.alive)
            state = account if is_newer else self._state_without_accounting(entry, known)
            if state and state.alive and self._age(entry.key) < _RUNAWAY_S:
                continue
            outcomes.append(Outcome(entry, False, state, late[entry.key].trace if entry.key in late else ""))
        return outcomes

    def _is_ending(self, entry: Entry) -> bool:
        return entry.key in self._gone_since or entry.state == "COMPLETING"

    def _waits(self, outcome: Outcome) -> bool:
        """Whether an outcome waits for jobs of its submission that are ending.

        scancel of a whole array ends its jobs over several polls. Reported one by one, they would look like jobs that
        were cancelled singly.
        """
        cancelled = outcome.state is not None and outcome.state.name == "CANCELLED"
        return cancelled and self._age(outcome.entry.key) < _RUNAWAY_S

    def _state_without_accounting(self, entry: Entry, state: State | None) -> State | None:
        if entry.cluster == "local" or state is None:
            return state
        try:
            return self._slurm.details(entry.id) or state
        except SlurmUnreachable:
            return state

    def _overdue(self) -> bool:
        return any(self._is_overdue(key) for key in self._gone_since)

    def _is_overdue(self, key: str) -> bool:
        return self._age(key) >= (self._requeue_s if key in self._failed else self._grace_s)

    def _age(self, key: str) -> float:
        return self.interval.clock() - self._gone_since[key]

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


def finished(entries: Iterable[Entry]) -> list[Outcome]:
    """Returns the outcomes of jobs with a result file. Listing the folder makes network file systems refresh it."""
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
