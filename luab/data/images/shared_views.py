"""One stream of views for several training sets that differ in their points alone."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from luab.data.images.training_images import Index, TrainingImages
from luab.shapes import Batch


class SharedViews(Dataset[dict[str, Any]]):
    """Training sets of the same images, augmentation and seed: each view is read once and has the targets of all.

    Args:
        sets: The training sets.

    An item has the pixels as `images`, and the other parts of the k-th set's item under `<k>.<name>`.
    """

    def __init__(self, sets: Sequence[TrainingImages]) -> None:
        self.sets = list(sets)

    def __getitem__(self, index: Index) -> dict[str, Any]:
        view, i = self.sets[0].view(index), index[0] if isinstance(index, tuple) else index
        parts = {f"{k}.{name}": part for k, one in enumerate(self.sets) for name, part in one.targets(i, view).items()}
        return {"images": view.pixels, **parts}

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the views."""
        self.sets[0].epoch = epoch

    @property
    def source(self) -> Dataset[Any]:
        """What a loader reads: this, or the training set itself if it is the only one."""
        return self if len(self.sets) > 1 else self.sets[0]

    def part(self, batch: Batch, k: int) -> Batch:
        """The batch of the k-th training set, from one that a loader made of `source`."""
        if len(self.sets) == 1:
            return batch
        own = {name.removeprefix(f"{k}."): part for name, part in batch.items() if name.startswith(f"{k}.")}
        return {"images": batch["images"], **own}
