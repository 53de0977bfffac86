"""The only place that builds a DataLoader: seeded order, resumable at any batch."""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from luab.errors import DataError, JobError

_AHEAD = 1024  # images that a loader process may have read ahead: 150 MB at 224 px


class EpochBatches(Sampler[list[int]]):
    """Batches of one epoch, in an order that depends on (seed, epoch) alone.

    Args:
        images: Size of the training set; the last, smaller batch is dropped.
        batch_size: Images per batch.
        seed: Of the order.
        epoch: Which pass.
        start: First batch to give; a resumed epoch sees exactly the remaining samples.
        share: (r, n) gives the r-th of n equal parts of each batch; all parts in order are the batch.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, epoch: int, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.images, self.batch_size, self.seed, self.epoch, self.start = (
            images,
            batch_size,
            seed,
            epoch,
            start,
        )
        self.share = share

    def __len__(self) -> int:
        return self.images // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        for batch in range(self.start, self.images // self.batch_size):
            first = batch * self.batch_size + self.share[0] * self.share_size
            yield order[first : first + self.share_size].tolist()

    @property
    def share_size(self) -> int:
        """Images of each batch that this share holds."""
        return self.batch_size // self.share[1]


class InPlace(Dataset[Any]):
    """Batches of a dataset of tensors and numbers, each item written to its place as soon as it is read.

    The usual way, a list of items that is stacked at the end, holds every batch twice: 300 MB per process at 1024
    images of 224 px.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        """The items of one batch, stacked; numbers become int64 and float64, as in torch's own collation."""
        batch: list[torch.Tensor] = []
        for place, i in enumerate(indices):
            item = self.dataset[i]
            if not place:
                batch = [_room(torch.as_tensor(part, dtype=_wide(part)), len(indices)) for part in item]
            for room, part in zip(batch, item, strict=True):
                room[place] = part
        return batch


def training_loader(dataset: Dataset[Any], batches: EpochBatches, workers: int, pinned: bool) -> DataLoader[Any]:
    """One epoch's loader; items are (images, labels, points, weights) stacked."""
    how = _processes(workers)
    if workers:
        how["prefetch_factor"] = min(4, max(1, _AHEAD // batches.share_size))
    return DataLoader(InPlace(dataset), batch_sampler=batches, collate_fn=_as_it_is, pin_memory=pinned, **how)


def evaluation_loader(dataset: Dataset[Any], batch_size: int, workers: int, pinned: bool) -> DataLoader[Any]:
    """Every item once, in order."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, pin_memory=pinned, **_processes(workers))


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Around a loop over a loader: gives back the sentence of an error that torch wrapped in its traceback.

    Raises:
        DataError: An image could not be read, here or in a loader process.
        JobError: A loader process was killed.
    """
    try:
        yield
    except DataError as error:
        # torch's frames hold error and loader in a circle; until that is collected its processes wait, 10 s each.
        traceback.clear_frames(error.__traceback__)
        raise DataError(str(error).rpartition("luab.errors.DataError: ")[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise JobError(
            f"A loader process died ({str(error).splitlines()[0]}); mostly the memory ran out. Ask for more "
            "memory, or lower compute.workers; the same command goes on from the last kept state."
        ) from error


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 [batch, 3, h, w] on the device, copied while the device works."""
    return images.to(device, non_blocking=True)


def _as_it_is(batch: list[torch.Tensor]) -> list[torch.Tensor]:
    return batch


def _wide(part: Any) -> torch.dtype | None:
    return torch.float64 if isinstance(part, float) else None


def _room(part: torch.Tensor, items: int) -> torch.Tensor:
    room = torch.empty((items, *part.shape), dtype=part.dtype)
    # In a loader process: memory that the training process sees as well, so that the batch is not copied once more.
    return room if get_worker_info() is None else room.share_memory_()


def _processes(workers: int) -> dict[str, Any]:
    # A generator of its own: the loader would otherwise draw from the one that feeds dropout, and a
    # resumed epoch would draw once more than the unbroken one.
    alone: dict[str, Any] = {"generator": torch.Generator(), "num_workers": workers}
    if not workers:
        return alone
    # fork on Linux: workers start in milliseconds and share the manifest's pages.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return {**alone, "multiprocessing_context": method, "prefetch_factor": 4, "worker_init_fn": _deaf_worker}


def _deaf_worker(_: int) -> None:
    # A warning goes to the whole process group. The trainer answers it after the next batch, so its
    # loaders must outlive it; they end with the trainer.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
