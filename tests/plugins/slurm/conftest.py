"""Throwaway Slurm clusters as fixtures; without Slurm the tests are skipped, or fail if the variable CI is set."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# In importlib mode, pytest does not put the folders of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))

import lanes as lanes_module
from cluster import Cluster, ClusterError, missing_programs
from project import Project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests of this folder: `-m 'not slurm'` leaves them out, `-m slurm` runs only them."""
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
    """Starts the lanes with the first test of this folder; they run in parallel with the following tests."""
    _require_slurm()
    selected = {item.name for item in request.session.items}
    folder = tmp_path_factory.mktemp("lanes")
    try:
        for lane in lanes_module.ALL:
            lane.start(folder, selected)
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
        # The next test must not fail because of this one.
        cluster.stop()
        cluster.start()
        raise


@pytest.fixture
def slurm(_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with accounting, partition preemption and its warning signal; shared, but free of other tests' jobs."""
    yield _cluster
    _clean(_cluster)


@pytest.fixture
def slurm_without_accounting(_plain_cluster: Cluster) -> Iterator[Cluster]:
    """The same without slurmdbd, so that sacct fails; shared, but free of other tests' jobs."""
    yield _plain_cluster
    _clean(_plain_cluster)


@pytest.fixture
def make_slurm() -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster for one test, `make_slurm(preemption="qos")`; it is stopped when the test ends."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Cluster(**options))


@pytest.fixture
def project(tmp_path: Path, slurm: Cluster) -> Project:
    """A tiny workflow on the shared cluster."""
    return Project(tmp_path, slurm)
