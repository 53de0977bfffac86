"""The processes of one training: rank and count, sums over all processes, and errors when one is lost."""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from luab.errors import LostProcess
from luab.training.own_process import rank_variables

_TIMEOUT = datetime.timedelta(minutes=30)  # a slow disk can hold up the first process while it saves


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes of its training. A single process never uses torch.distributed.

    Attributes:
        rank: 0 for the first process, the only one that writes files.
        local: Number of this process on its node, and of its GPU.
        count: Number of processes on all nodes.
    """

    rank: int = 0
    local: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Processes":
        """Reads torchrun's environment variables if luab's launcher started this process; else a single process."""
        return cls(*rank_variables())

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """Replaces values by their sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def sum_later(self, numbers: list[int]) -> Callable[[], list[int]]:
        """Starts to sum numbers over all processes; returns a function that waits for the sums.

        The processes' hosts exchange them, so that no GPU is waited for. All processes must call both.
        """
        if self.count == 1:
            return lambda: numbers
        sums = torch.tensor(numbers)
        work = distributed.all_reduce(sums, async_op=True)

        def wait() -> list[int]:
            work.wait()
            return [int(number) for number in sums]

        return wait

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, ordered by rank, in every process."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits until all processes have called this method."""
        self.add(torch.zeros(1))  # not barrier(), which NCCL would run on the GPU

    def share(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Wraps the model so that processes average its gradients; returns a single process's model unchanged.

        Before each forward pass of a step, the first process's buffers (BatchNorm's running statistics) replace those
        of the others, so the buffers that the first process writes are valid for all.
        """
        if self.count == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def averaged(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
        """Context for a forward and backward pass; only the last one of a step averages gradients over processes."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else contextlib.nullcontext()


@contextlib.contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Context in which the processes can communicate; uses an existing process group and leaves it open.

    Raises:
        LostProcess: Another process ended or cannot be reached.
    """
    if processes.count == 1:
        yield
        return
    new_group = not distributed.is_initialized()
    try:
        if new_group:
            # Objects and barriers use gloo on GPU nodes too: that needs no GPU memory and no kernel.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=_TIMEOUT)
        yield
    except RuntimeError as error:
        if not _is_lost_process(error):
            raise
        raise LostProcess(
            f"Process {processes.rank + 1} of {processes.count} lost contact with another process "
            f"({str(error).strip().splitlines()[0]}). See the log for that process's error; the same command resumes "
            "from the last saved state."
        ) from error
    # Not after an error: destroying the group would wait for processes that no longer exist.
    if new_group:
        distributed.destroy_process_group()


def _is_lost_process(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors whose text contains the path of its source file.
    text = str(error)
    return isinstance(error, distributed.DistError) or "gloo" in text or "NCCL" in text or "Connection " in text
