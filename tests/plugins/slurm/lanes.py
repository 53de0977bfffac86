"""Lanes run scenarios that mostly wait, in parallel with the other tests: each is a thread with its own cluster.

    @PLAIN.scenario
    def test_something(project: Project) -> None: ...

The lanes start with the first test of the session that uses Slurm; a decorated test waits for the end of its scenario
and passes or fails with it.
"""

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cluster import Cluster
from project import Project

Scenario = Callable[[Project], None]


class Lane:
    """Runs scenarios one after another on one cluster.

    Args:
        options: Options of the cluster.
    """

    def __init__(self, **options: Any) -> None:
        self._cluster = Cluster(**options)
        self._scenarios: dict[str, Scenario] = {}
        self._outcomes: dict[str, Future[None]] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._over = threading.Event()
        self._folder = Path()
        self._selected: Collection[str] = ()

    def scenario(self, function: Scenario) -> Callable[[Any], None]:
        """Decorator for a test that runs in this lane, with a project on the lane's cluster."""
        name = function.__name__
        self._scenarios[name] = function

        def test(lanes: None) -> None:
            self._outcomes[name].result()

        test.__name__ = name
        test.__module__ = function.__module__
        return test

    def start(self, folder: Path, selected: Collection[str]) -> None:
        """Starts the selected scenarios, if any.

        Args:
            folder: Holds a folder for each project.
            selected: Names of tests.
        """
        self._selected = [name for name in self._scenarios if name in selected]
        self._outcomes = {name: Future() for name in self._selected}
        self._folder = folder
        if self._selected:
            self._thread.start()

    def stop(self) -> None:
        """Stops the scenarios that still run."""
        self._over.set()
        if self._thread.is_alive():
            self._cluster.stop()
            self._thread.join(60)

    def _work(self) -> None:
        started = False
        for name in self._selected:
            try:
                if not started:
                    self._cluster.start()
                    started = True
                self._run(name)
                self._cluster.reset()
            except BaseException as problem:
                self._outcomes[name].set_exception(problem)
                if self._over.is_set():
                    return
                # The cluster may be broken, so the next scenario gets a new one.
                self._cluster.stop()
                started = False
            else:
                self._outcomes[name].set_result(None)
        self._cluster.stop()

    def _run(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir()
        self._scenarios[name](Project(folder, self._cluster, self._over))


WARNED = Lane(grace_s=8)
BY_QOS = Lane(preemption="qos", preempt_signal=False, grace_s=8)
PLAIN = Lane(accounting=False, preempt_signal=False, grace_s=8)
ALL = (WARNED, BY_QOS, PLAIN)
