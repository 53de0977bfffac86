"""Throwaway Slurm clusters as fixtures; the tests skip where Slurm is not installed, and fail there under CI."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

# pytest's importlib mode leaves the tests' own folders off the path.
sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, missing_programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder, so that it runs only when asked for: it takes minutes and a quiet machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


def _require_slurm(accounting: bool) -> None:
    if missing := missing_programs(accounting):
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the tests on Slurm: {missing}", pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def _accounting_cluster() -> Iterator[Cluster]:
    _require_slurm(accounting=True)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _plain_cluster() -> Iterator[Cluster]:
    _require_slurm(accounting=False)
    with Cluster(accounting=False) as cluster:
        yield cluster


@pytest.fixture
def slurm(_accounting_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with accounting, partition preemption and its warning signal; shared, without jobs of other tests."""
    yield _accounting_cluster
    _accounting_cluster.reset()


@pytest.fixture
def slurm_without_accounting(_plain_cluster: Cluster) -> Iterator[Cluster]:
    """The same without slurmdbd: sacct fails; shared, without jobs of other tests."""
    yield _plain_cluster
    _plain_cluster.reset()


@pytest.fixture
def make_slurm() -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of the test's own, `make_slurm(preemption="qos")`; stopped when the test ends."""
    with ExitStack() as stack:

        def make(**options: Any) -> Cluster:
            _require_slurm(options.get("accounting", True))
            return stack.enter_context(Cluster(**options))

        yield make
