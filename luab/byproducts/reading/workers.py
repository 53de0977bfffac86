"""Blocks of records read by several processes, in order.

A process is a plain child that reads pickled blocks from its standard input and ends with it: whatever becomes
of the parent, no child stays. `multiprocessing` would import the user's own script again, and its children wait
for ever when their parent is killed.
"""

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from itertools import chain, islice

from luab.byproducts.reading.columns import BlockReader, ReadBlock
from luab.byproducts.reading.tar import Block
from luab.errors import DataError, JobError

# Besides, one process unpacks, checks and writes, a third of all work: more readers than these would wait for it.
_MOST_PROCESSES = 3
# Read before any process is started: what a small archive holds takes less time than a start.
_FEW_BLOCKS = 2


def default_processes() -> int:
    """One process for each core that this one may use, at most 3."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_PROCESSES)


def read_blocks(
    blocks: Iterator[Block], processes: int, skip_bad: bool
) -> Generator[tuple[ReadBlock, int], None, None]:
    """Reads every block; the result does not depend on the number of processes.

    Args:
        blocks: From `luab.byproducts.reading.tar`.
        processes: How many read; this one only unpacks then, unless it is the only one.
        skip_bad: As `BlockReader` takes it.

    Yields:
        What became of each block, in order, and how many bytes of the archive it took.

    Raises:
        DataError: What the source of the blocks raises, after all blocks before it.
        JobError: A process ended before its time.
    """
    reader = BlockReader(skip_bad)
    for block in islice(blocks, _FEW_BLOCKS if processes > 1 else None):
        yield reader.read(block), block.consumed
    for block in blocks:
        with _crew(processes, skip_bad) as crew:
            yield from crew.read(chain([block], blocks))


def serve(skip_bad: bool) -> None:
    """What a child process does: reads blocks from standard input until it ends, answers on standard output."""
    inlet, outlet = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # for whatever a library prints
    sys.meta_path.insert(0, _NoPandas())
    reader = BlockReader(skip_bad)
    try:
        while True:
            pickle.dump(reader.read(pickle.load(inlet)), outlet, pickle.HIGHEST_PROTOCOL)
            outlet.flush()
    except (EOFError, pickle.UnpicklingError, BrokenPipeError):
        os._exit(0)  # the parent has ended, or wants no more


class _NoPandas(MetaPathFinder):
    """Says that pandas is absent: pyarrow would import it, a second of work, to ask whether a list is a Series."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


@contextmanager
def _crew(processes: int, skip_bad: bool) -> Iterator["_Crew"]:
    crew = _Crew(processes, skip_bad)
    try:
        yield crew
    finally:
        crew.dismiss()


class _Crew:
    def __init__(self, processes: int, skip_bad: bool) -> None:
        code = f"from luab.byproducts.reading.workers import serve; serve({skip_bad})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._children = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
                process_group=0,  # Ctrl-C is for the parent, who then ends them
            )
            for _ in range(processes)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        # A thread for each child: it waits for the pipes, so that the two ends never wait for each other.
        self._threads = ThreadPoolExecutor(processes)

    def read(self, blocks: Iterator[Block]) -> Iterator[tuple[ReadBlock, int]]:
        waiting: deque[Future[tuple[ReadBlock, int]]] = deque()
        try:
            for block in blocks:
                waiting.append(self._threads.submit(self._ask, block))
                if len(waiting) > 2 * len(self._children):
                    yield waiting.popleft().result()
        except DataError:
            yield from (answer.result() for answer in waiting)
            raise
        yield from (answer.result() for answer in waiting)

    def dismiss(self) -> None:
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            with child:  # closes the pipes and waits
                pass

    def _ask(self, block: Block) -> tuple[ReadBlock, int]:
        child = self._idle.get()
        assert child.stdin and child.stdout
        try:
            pickle.dump(block, child.stdin, pickle.HIGHEST_PROTOCOL)
            child.stdin.flush()
            answer: ReadBlock = pickle.load(child.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise JobError(
                f"index: expected a process to read records to the end, found it gone with status {child.wait()}. "
                "Its last words, if any, stand above; without any it was probably killed for lack of memory. "
                "Run again with more memory or fewer cores."
            ) from error
        finally:
            self._idle.put(child)
        return answer, block.consumed
