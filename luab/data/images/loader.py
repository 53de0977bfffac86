"""DataLoaders for training and evaluation, with a seeded order that can resume at any batch."""

import contextlib
import multiprocessing
import re
import signal
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from luab.errors import DataError, JobError
from luab.shapes import Batch

_MAX_PREFETCHED_IMAGES = 1024  # per loader process: 150 MB at 224 px


class EpochBatches(Sampler[list[Any]]):
    """The batches of one epoch, in an order that depends on (seed, epoch) alone.

    Args:
        images: Size of the training set. The last batch is dropped if it is not full.
        batch_size: Images per batch.
        seed: Seed of the order.
        epoch: Number of the epoch.
        start: First batch to yield; a resumed epoch yields exactly the remaining samples.
        share: (r, n) yields the r-th of n equal parts of each batch; the n parts in order are the batch.
        repeats: Views of each image in a batch: timm's repeated augmentation. A batch then has pairs (image, number of
            the view), first views first, so that different processes see the views of an image, and an epoch has one
            n-th of the images. A batch that n does not divide shares its last image with the next one.

    Source:
        timm.data.distributed_sampler.RepeatAugSampler, of facebookresearch/deit:samplers.py.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        epoch: int,
        start: int = 0,
        share: tuple[int, int] = (0, 1),
        repeats: int = 1,
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.epoch, self.start, self.share, self.repeats = epoch, start, share, repeats

    def __len__(self) -> int:
        return self.images // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[Any]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        for batch in range(self.start, self.images // self.batch_size):
            images, numbers = np.divmod(np.arange(self.batch_size) + batch * self.batch_size, self.repeats)
            in_order = np.argsort(numbers, kind="stable")[self.share[0] * self.share_size :][: self.share_size]
            part = order[images[in_order]].tolist()
            yield part if self.repeats == 1 else list(zip(part, numbers[in_order].tolist(), strict=True))

    @property
    def share_size(self) -> int:
        """Images of each batch in this share."""
        return self.batch_size // self.share[1]


class InPlace(Dataset[Any]):
    """Collates items, which are dicts, by writing each part straight into the batch's tensor of the same name.

    torch's default, a list of items stacked at the end, holds every batch twice in memory: 300 MB per process at 1024
    images of 224 px.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> Batch:
        """Returns one batch; numbers become int64 and float64, as in torch's default collation.

        Raises:
            DataError: The items of a batch have different parts.
        """
        batch: Batch = {}
        for row, i in enumerate(indices):
            item = self.dataset[i]
            if not row:
                batch = {name: _empty_batch(part, len(indices)) for name, part in item.items()}
            if item.keys() != batch.keys():
                raise DataError(
                    f"{type(self.dataset).__name__}: expected items with {', '.join(batch)}, found "
                    f"{', '.join(item)} in item {i}. Return the same parts for every image."
                )
            for name, part in item.items():
                batch[name][row] = part
        return batch


def training_loader(dataset: Dataset[Any], batches: EpochBatches, workers: int, pinned: bool) -> DataLoader[Any]:
    """Returns a loader that yields batches: images, labels, points and weights by name.

    Its processes stay for further epochs: set `batches.epoch` and `batches.start` before each.
    """
    options = worker_options(workers)
    if workers:
        options["persistent_workers"] = True
        options["prefetch_factor"] = min(4, max(1, _MAX_PREFETCHED_IMAGES // batches.share_size))
    return DataLoader(InPlace(dataset), batch_sampler=batches, collate_fn=_unchanged, pin_memory=pinned, **options)


def evaluation_loader(dataset: Dataset[Any], batch_size: int, workers: int, pinned: bool) -> DataLoader[Any]:
    """Returns a loader that yields every item once, in order."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, pin_memory=pinned, **worker_options(workers))


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Context for a loop over a loader: raises errors of loader processes without torch's traceback in the message.

    Raises:
        DataError: An image could not be read, in this process or in a loader process.
        JobError: A loader process was killed, or an error was raised in one; the message has its text.
    """
    try:
        yield
    except DataError as error:
        # torch's frames keep error and loader alive in a reference cycle; until it is collected, each loader process
        # waits 10 s.
        traceback.clear_frames(error.__traceback__)
        raise DataError(str(error).rpartition("luab.errors.DataError: ")[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        traceback.clear_frames(error.__traceback__)  # or this process would wait for the other loader processes
        raise JobError(_loader_failure(str(error))) from error


def _loader_failure(text: str) -> str:
    """Returns the message of a failed loader process.

    Args:
        text: torch's message. For an error raised in a loader process it starts with "Caught <type> in DataLoader
            worker process <n>." and ends with that process's traceback.
    """
    again = "then run the same command again; a training resumes from its last checkpoint."
    raised = re.match(r"Caught (\S+) in DataLoader worker process", text)
    reason = text.splitlines()[0]
    if raised:
        lines = text.rpartition(f"\n{raised[1]}: ")[2].strip().splitlines()
        reason = f"{raised[1]}: {lines[0]}" if lines else raised[1]
    if "shared memory" in text or ("/torch_" in reason and "No space left" in reason):
        return (
            f"A loader process could not use shared memory ({reason}). Give the container more (`docker run "
            f"--shm-size=8g`, or --ipc=host), or lower compute.workers (0 needs none), {again}"
        )
    if raised:
        return (
            f"A loader process failed ({reason}). If this does not name the cause, set compute.workers to 0 to see "
            f"where it was raised. Correct it, {again}"
        )
    return (
        f"A loader process died ({reason}), probably out of memory. Request more memory or lower compute.workers, "
        f"{again}"
    )


def ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches; copies each to a GPU during the step before it, on a stream of its own."""
    if device.type != "cuda":
        yield from batches
        return
    copies, ready = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = {name: to_device(part, device) for name, part in batch.items()}
        if ready is not None:
            yield ready
        steps = torch.cuda.current_stream(device)
        steps.wait_stream(copies)
        for part in copied.values():
            part.record_stream(steps)  # or its memory could be used for the next copy before the step has read it
        ready = copied
    if ready is not None:
        yield ready


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to the device; from pinned memory the host does not wait for the copy."""
    return images.to(device, non_blocking=True)


def _unchanged(batch: Any) -> Any:
    return batch


def _empty_batch(part: Any, items: int) -> torch.Tensor:
    part = torch.as_tensor(part, dtype=torch.float64 if isinstance(part, float) else None)
    batch = torch.empty((items, *part.shape), dtype=part.dtype)
    # In a loader process, use memory that the training process can see, which saves one copy of the batch.
    return batch if get_worker_info() is None else batch.share_memory_()


def worker_options(workers: int) -> dict[str, Any]:
    """Options of a DataLoader with its own generator, whose processes outlive warning signals."""
    # Its own generator: otherwise the loader draws from the one that feeds dropout, and a resumed epoch would draw
    # once more than an uninterrupted one.
    options: dict[str, Any] = {"generator": torch.Generator(), "num_workers": workers}
    if not workers:
        return options
    # fork (Linux): workers start in milliseconds and share the memory of the manifest.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return {**options, "multiprocessing_context": method, "prefetch_factor": 4, "worker_init_fn": _ignore_signals}


def _ignore_signals(_: int) -> None:
    # The whole process group receives SIGTERM or SIGUSR2. The trainer reacts after the next batch, so its loader
    # processes must outlive the signal; they end with the trainer.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
