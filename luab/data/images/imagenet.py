"""ImageNet training images with labels and points."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from luab.data.images.crops import CropFlip
from luab.data.images.pack import Pack
from luab.data.images.training_images import TrainingImages, View, augmentation_of, manifest_rows
from luab.data.supervisions.point_files import read_any_points, read_extra
from luab.study.config import Decoding, Recipe


class ImageNetAB(TrainingImages):
    """ImageNet training images with the points of one supervision.

    Args:
        root: Folder that the manifest's paths start from.
        manifest: data/manifests/imagenet_train.parquet, or its rows.
        targets: A file of data/targets/imagenet/; or a DataFrame with image_id, x and y, or a Parquet file that
            pandas wrote of one; None for no points.
        recipe: Crop, interpolation and augmentation; None for those of the official loader.
        seed: The augmentation of image i in epoch e depends on (seed, e, i) alone, once `epoch` is set; by default
            every read draws a fresh one, see `TrainingImages`.
        decoding: "exact" or "fast", see `TrainingImages`.
        pack: The packed images, in the order of the manifest; None to read single files.
        column: Further column of the file of points (`Supervision.column`); None for none.

    An item is a dict that a loader collates to a batch: images, uint8 [3, side, side]; labels, 0..999; points, float32
    [2]; weights. The point is x, y in fractions of the crop. Its weight is 1 if it is visible; else the weight is 0 and
    the point is (-1, -1), as in the official loader (naver-ai/NeglectedFreeLunch:imagenet_dataloader.ipynb).

    With the column "time_ms", an item has ranks too: the rank of the image's time among those of all training images,
    scaled to 0..1 (equal times have their mean rank); -1 for images without a time. With "moments", it has moments,
    float32 [k, 2]: the points of the trace in the crop, (-1, -1) for those outside; the weight is then 1 if any of them
    is inside.

    Raises:
        DataError: An image is missing or damaged; the message names the file and its row in the manifest.
    """

    def __init__(
        self,
        root: Path | str,
        manifest: Path | str | pd.DataFrame,
        targets: Path | str | pd.DataFrame | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        decoding: Decoding = "exact",
        pack: Pack | None = None,
        column: str | None = None,
    ) -> None:
        rows = manifest_rows(manifest)
        super().__init__(root, rows, augmentation_of(recipe, (CropFlip(), None)), seed, decoding, pack)
        self.labels = np.array([labels[0] for labels in rows["labels"]], dtype=np.int64)
        image_ids = rows["image_id"].to_numpy()
        self.points = points_of(image_ids, targets)
        self.ranks = self.moments = None
        if column is not None:
            ids, values = read_extra(Path(str(targets)), column)
            position = pd.Index(ids).get_indexer(pd.Index(image_ids))
            if column == "time_ms":
                self.ranks = _ranks(np.where(position >= 0, values[position], np.nan))
            else:
                self.moments = np.where((position >= 0)[:, None, None], values[position], np.nan)

    @property
    def taught_points(self) -> int:
        """Number of images that have a point."""
        return int(np.isfinite(self.points[:, 0]).sum())

    def targets(self, i: int, view: View) -> dict[str, Any]:
        """Label, point and weight of a view of image i."""
        x, y = self.points[i].tolist()
        point = None if math.isnan(x) else view.place((x, y))
        target = torch.tensor((-1.0, -1.0) if point is None else point, dtype=torch.float32)
        weight = float(point is not None)
        item: dict[str, Any] = {"labels": int(self.labels[i]), "points": target, "weights": weight}
        if self.ranks is not None:
            item["ranks"] = float(self.ranks[i])
        if self.moments is not None:
            moments = view.places(self.moments[i])
            item |= {"moments": torch.from_numpy(moments), "weights": float((moments[:, 0] >= 0).any())}
        return item


def _ranks(times: np.ndarray) -> np.ndarray:
    """Mean ranks of times [n] on 0..1, whose mean is 1/2; -1 for NaN."""
    ranks = pd.Series(times).rank()
    return ((ranks - 0.5) / max(1, ranks.count())).fillna(-1).to_numpy(np.float32)


def points_of(image_ids: np.ndarray, targets: Path | str | pd.DataFrame | None) -> np.ndarray:
    """Returns the points in the order of the ids: float32 [n, 2], NaN for images without a point.

    Raises:
        DataError: The file is damaged; or the table lacks image_id, x or y, repeats an image, or has a point that is
            not in [0, 1].
    """
    points = np.full((len(image_ids), 2), np.nan, dtype=np.float32)
    if targets is not None:
        ids, xy = read_any_points(targets)
        position = pd.Index(ids).get_indexer(pd.Index(image_ids))
        points[position >= 0] = xy[position[position >= 0]]
    return points
