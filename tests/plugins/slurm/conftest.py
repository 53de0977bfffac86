"""Throwaway Slurm clusters as fixtures; the tests skip where Slurm is not installed, and fail there under CI."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# pytest's importlib mode leaves the tests' own folders off the path.
sys.path.insert(0, str(Path(__file__).parent))

import lanes as lanes_module
from cluster import Cluster, ClusterError, missing_programs
from project import Project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder: `-m 'not slurm'` leaves it out, `-m slurm` runs it alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


def _require_slurm(accounting: bool = True) -> None:
    if missing := missing_programs(accounting):
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the tests on Slurm: {missing}", pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session", autouse=True)
def lanes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lanes, which start with the first test of this folder and run beside all that follow."""
    _require_slurm()
    wanted = {item.name for item in request.session.items}
    folder = tmp_path_factory.mktemp("lanes")
    try:
        for lane in lanes_module.ALL:
            lane.start(folder, wanted)
        yield
    finally:
        for lane in lanes_module.ALL:
            lane.stop()


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _plain_cluster() -> Iterator[Cluster]:
    with Cluster(accounting=False) as cluster:
        yield cluster


def _clean(cluster: Cluster) -> None:
    try:
        cluster.reset()
    except ClusterError:
        # The next test shall not fail for this one.
        cluster.stop()
        cluster.start()
        raise


@pytest.fixture
def slurm(_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with accounting, partition preemption and its warning signal; shared, without jobs of other tests."""
    yield _cluster
    _clean(_cluster)


@pytest.fixture
def slurm_without_accounting(_plain_cluster: Cluster) -> Iterator[Cluster]:
    """The same without slurmdbd: sacct fails; shared, without jobs of other tests."""
    yield _plain_cluster
    _clean(_plain_cluster)


@pytest.fixture
def make_slurm() -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of the test's own, `make_slurm(preemption="qos")`; stopped when the test ends."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Cluster(**options))


@pytest.fixture
def project(tmp_path: Path, slurm: Cluster) -> Project:
    """A tiny workflow on the shared cluster."""
    return Project(tmp_path, slurm)
