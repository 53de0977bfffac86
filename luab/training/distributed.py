"""The processes that train one model together: who is there, sums over all, and what happens when one is lost."""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from luab.errors import LostProcess

_PATIENCE = datetime.timedelta(minutes=30)  # a slow disk may hold up the first process while it saves


@dataclass(frozen=True)
class Processes:
    """This process among those of one training. Alone, it never touches torch.distributed.

    Attributes:
        rank: 0 is the first, the only one that writes.
        local: Number on its node, and of its GPU.
        count: Of all processes.
    """

    rank: int = 0
    local: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Processes":
        """What torchrun's environment says; one process where there is none."""
        return cls(*(int(os.environ.get(name) or default) for name, default in _VARIABLES))

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """Replaces values by their sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of ranks, known to all."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Returns when all processes came here."""
        self.add(torch.zeros(1))  # not barrier(): that would take NCCL's detour over the GPU

    def share(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as one of several copies whose gradients are averaged; alone, the model itself.

        Before each forward pass of a step the copies take over the first one's buffers (BatchNorm's running
        statistics), so what the first process keeps and writes is what all would.
        """
        if self.count == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def averaged(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a forward and backward pass: only the last one of a step averages the gradients over the copies."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else contextlib.nullcontext()


_VARIABLES = (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))


@contextlib.contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """The time in which the processes can talk; a group that is there already is used and left.

    Raises:
        LostProcess: Another process ended or cannot be reached.
    """
    if processes.count == 1:
        yield
        return
    made = not distributed.is_initialized()
    try:
        if made:
            # Objects and barriers go through gloo also on GPUs: they then need no GPU memory and no kernel.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=_PATIENCE)
        yield
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise LostProcess(
            f"Process {processes.rank + 1} of {processes.count} lost contact with another one "
            f"({str(error).strip().splitlines()[0]}). See the log for the reason of that one; the same command goes "
            "on from the last kept state."
        ) from error
    # Not after an error: the farewell would wait for processes that are gone.
    if made:
        distributed.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors that name its source file.
    text = str(error)
    return isinstance(error, distributed.DistError) or "gloo" in text or "NCCL" in text or "Connection " in text
