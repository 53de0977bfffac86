"""Reads blocks of records in several processes and returns the results in order.

A worker is a plain child process that reads pickled blocks from its standard input and exits when that ends, so no
worker outlives its parent. `multiprocessing` would import the user's own script again, and its workers wait for ever
when their parent is killed.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from importlib.abc import MetaPathFinder
from itertools import chain, islice

from luab.byproducts.reading.columns import BlockReader, ReadBlock
from luab.byproducts.reading.tar import Block
from luab.errors import DataError, JobError

# The parent process decompresses, checks and writes, a third of all work, so more workers than this would idle.
_MAX_PROCESSES = 3
# Blocks that the parent reads before it starts workers: a small archive is read faster than a worker starts.
_FIRST_BLOCKS = 2


def default_processes() -> int:
    """Returns the number of CPU cores available to this process, at most 3."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_PROCESSES)


def read_blocks(
    blocks: Iterator[Block], processes: int, skip_bad: bool, any_names: bool = False
) -> Generator[tuple[ReadBlock, int], None, None]:
    """Yields the result for each block, in order, and the number of bytes of the archive that it took.

    The results do not depend on the number of processes; with 1, this process reads by itself. An error from `blocks`
    comes after the results for all earlier blocks.
    """
    reader = BlockReader(skip_bad, any_names)
    for block in islice(blocks, _FIRST_BLOCKS if processes > 1 else None):
        yield reader.read(block), block.consumed
    for block in blocks:
        with closing(_Pool(processes, skip_bad, any_names)) as pool:
            yield from pool.read(chain([block], blocks))


def serve(skip_bad: bool, any_names: bool) -> None:
    """Main function of a worker: reads blocks from standard input until it ends, writes results to standard output."""
    requests, results = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # in case a library prints
    sys.meta_path.insert(0, _NoPandas())
    reader = BlockReader(skip_bad, any_names)
    try:
        while True:
            pickle.dump(reader.read(pickle.load(requests)), results, pickle.HIGHEST_PROTOCOL)
            results.flush()
    except (EOFError, pickle.UnpicklingError, BrokenPipeError):
        os._exit(0)  # the parent has exited or needs no more results


class _NoPandas(MetaPathFinder):
    """Hides pandas: pyarrow would import it, which takes a second, to check whether a list is a Series."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


class _Pool:
    def __init__(self, processes: int, skip_bad: bool, any_names: bool) -> None:
        code = f"from luab.byproducts.reading.workers import serve; serve({skip_bad}, {any_names})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._children = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
                process_group=0,  # Ctrl-C reaches only the parent, which then stops the workers
            )
            for _ in range(processes)
        ]
        self._idle = deque(self._children)
        # One thread per worker waits for its pipes, so parent and worker never wait for each other.
        self._threads = ThreadPoolExecutor(processes)

    def read(self, blocks: Iterator[Block]) -> Iterator[tuple[ReadBlock, int]]:
        pending: deque[Future[tuple[ReadBlock, int]]] = deque()
        try:
            for block in blocks:
                pending.append(self._threads.submit(self._request, block))
                if len(pending) > 2 * len(self._children):
                    yield pending.popleft().result()
        except DataError:
            yield from (result.result() for result in pending)
            raise
        yield from (result.result() for result in pending)

    def close(self) -> None:
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            with child:  # closes the pipes and waits
                pass

    def _request(self, block: Block) -> tuple[ReadBlock, int]:
        child = self._idle.popleft()  # there are as many children as threads
        assert child.stdin and child.stdout
        try:
            pickle.dump(block, child.stdin, pickle.HIGHEST_PROTOCOL)
            child.stdin.flush()
            result: ReadBlock = pickle.load(child.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise JobError(
                f"index: a worker process died with status {child.wait()} before all records were read. Its last "
                "messages, if any, are printed above; without a message it was probably killed because it ran out of "
                "memory. Run again with more memory or fewer CPU cores."
            ) from error
        finally:
            self._idle.append(child)
        return result, block.consumed
