"""Batches of a dense data set: lists of images and targets, because images may differ in size."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset

from luab.data.images.loader import EpochBatches, worker_options

Images = list[torch.Tensor]
Targets = list[dict[str, Any]]


class DenseImages(Protocol):
    """What a fine-tuning needs of a data set, see `luab.data.dense`."""

    epoch: int
    """Decides, with a seed and the number of the item, how an item is augmented."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, item: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """An image, uint8 [3, h, w], and its target."""


def training_batches(
    images: DenseImages, batches: EpochBatches, epochs: int, workers: int, pinned: bool, used: Sequence[str]
) -> Iterator[tuple[int, Images, Targets] | tuple[int, None, None]]:
    """Yields (epoch, images, targets) from the place of `batches` on, and (epoch, None, None) after each epoch.

    The loader's processes serve all epochs. They end with this generator.

    Args:
        images: The data set; its epoch is set before each epoch.
        batches: Order of the items, and this process's share of them.
        epochs: Number of epochs.
        workers: Number of loader processes; 0 loads in this process.
        pinned: Whether images go to a GPU.
        used: Parts of a target to keep; those that an item does not have are left out.
    """

    def listed(items: list[tuple[torch.Tensor, dict[str, Any]]]) -> tuple[Images, Targets]:
        plain = [_plain(image) for image, _ in items]
        return plain, [{name: _plain(target[name]) for name in used if name in target} for _, target in items]

    options = worker_options(workers) | ({"persistent_workers": True} if workers else {})
    source = cast(Dataset[Any], images)
    loader: DataLoader[Any] = DataLoader(source, batch_sampler=batches, collate_fn=listed, pin_memory=pinned, **options)
    for epoch in range(batches.epoch, epochs):
        images.epoch = batches.epoch = epoch
        for batch, targets in loader:
            yield epoch, batch, targets
        yield epoch, None, None
        batches.start = 0


def _plain(part: torch.Tensor) -> torch.Tensor:
    return part.as_subclass(torch.Tensor)
