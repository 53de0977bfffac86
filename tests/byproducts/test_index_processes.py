"""The index in several processes: the same result, and no leftovers when a process dies or is interrupted."""

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from luab.byproducts.imagenet_ab import index, read_index
from luab.byproducts.reading import tar as members
from luab.byproducts.reading import workers
from luab.errors import DataError, JobError

CHILDREN = list(Path("/proc/self/task").glob("*/children"))
pytestmark = [pytest.mark.faults, pytest.mark.skipif(not CHILDREN, reason="needs /proc to find child processes")]


def record(number: int) -> bytes:
    trace = "".join(
        f"<mouseTracking><time>{k}</time><x>{k / 99}</x><y>{number / 9999}</y></mouseTracking>" for k in range(20)
    )
    return f"<annotation><metadata>{trace}<selected>True</selected></metadata></annotation>".encode()


def pack(path: Path, count: int, bad: dict[int, bytes] | None = None) -> Path:
    files = {n: record(n) for n in range(count)} | (bad or {})
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number, data in files.items():
            info = tarfile.TarInfo(f"n01440764/n01440764_{number}.xml")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "BLOCK_BYTES", 32 << 10)


def children() -> set[int]:
    """Returns the ids of the running child processes."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text(encoding="utf-8").split()
    }


def test_the_number_of_processes_changes_nothing(tmp_path: Path, small_blocks: None) -> None:
    archive = pack(tmp_path / "ab.tar.gz", 400)
    before = children()
    cards = [index(archive, tmp_path / f"{n}.parquet", tmp_path / f"{n}.json", processes=n) for n in (1, 2, 3)]
    assert cards[0] == cards[1] == cards[2]
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "3.parquet").read_bytes()
    assert read_index(tmp_path / "1.parquet", ["image_id"])["image_id"].to_pylist() == [
        f"n01440764_{n}" for n in range(400)
    ]
    assert children() == before


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_fault_is_reported_first(tmp_path: Path, small_blocks: None, processes: int) -> None:
    archive = pack(tmp_path / "ab.tar.gz", 400, {300: b"<html/>", 350: b""})
    cut = gzip.decompress(archive.read_bytes())[:-40_000]  # after the bad records
    archive.write_bytes(gzip.compress(cut))
    before = children()
    with pytest.raises(DataError, match=r"n01440764_300\.xml .*: expected <annotation>"):
        index(archive, tmp_path / "i.parquet", tmp_path / "i.json", processes=processes)
    assert list(tmp_path.iterdir()) == [archive]
    with pytest.raises(DataError, match="damaged or truncated after n01440764/n01440764_3"):
        index(archive, tmp_path / "i.parquet", tmp_path / "i.json", on_bad="count", processes=processes)
    assert list(tmp_path.iterdir()) == [archive]
    assert children() == before


def test_a_worker_that_dies_is_reported(tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_then_request(pool: workers._Pool, block: members.Block) -> tuple[workers.ReadBlock, int]:
        for child in pool._children:
            child.kill()
        return original(pool, block)

    original = workers._Pool._request
    monkeypatch.setattr(workers._Pool, "_request", kill_then_request)
    archive = pack(tmp_path / "ab.tar.gz", 400)
    before = children()
    with pytest.raises(JobError, match="status -9"):
        index(archive, tmp_path / "i.parquet", tmp_path / "i.json", processes=2)
    assert list(tmp_path.iterdir()) == [archive]
    assert children() == before


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """An index in two processes that never ends, and its workers, once they are running."""
    code = (
        "import itertools, sys; from pathlib import Path; from luab.byproducts import imagenet_ab\n"
        "from luab.byproducts.reading import imagenet\n"
        "real = imagenet.archive_blocks\n"
        # The same blocks again and again: an endless archive.
        "imagenet.archive_blocks = lambda archive: itertools.cycle(list(real(archive)))\n"
        "imagenet_ab.index(*map(Path, sys.argv[1:]), processes=2)"
    )
    archive = pack(tmp_path / "ab.tar.gz", 400)
    paths = [str(archive), str(tmp_path / "out" / "i.parquet"), str(tmp_path / "out" / "i.json")]
    with subprocess.Popen([sys.executable, "-c", code, *paths], stderr=subprocess.DEVNULL) as parent:
        try:
            yield parent, wait_for_children(parent)
        finally:
            parent.kill()


def wait_for_children(parent: "subprocess.Popen[bytes]") -> set[int]:
    for _ in range(1200):
        tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")
        found = {int(pid) for task in tasks for pid in task.read_text(encoding="utf-8").split()}
        if len(found) == 2 and all(b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found):
            return found
        assert parent.poll() is None
        time.sleep(0.05)
    raise AssertionError("no workers within a minute")


def gone(pids: set[int]) -> bool:
    for _ in range(1200):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_leaves_no_process_and_no_file(
    tmp_path: Path, long_run: tuple["subprocess.Popen[bytes]", set[int]]
) -> None:
    parent, children_of_run = long_run
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) == -signal.SIGINT
    assert gone(children_of_run)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_parent_leaves_no_process(long_run: tuple["subprocess.Popen[bytes]", set[int]]) -> None:
    parent, children_of_run = long_run
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(60)
    assert gone(children_of_run)
