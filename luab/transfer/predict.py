"""Boxes or masks that a finished fine-tuning predicts for the validation images of its data set."""

import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from luab.data.dense.dense_set import DenseSet
from luab.data.dense.dense_sets import dense_set
from luab.data.images.loader import plain_errors, to_device, worker_options
from luab.errors import ConfigError
from luab.files import file_sha256, read_fields, replacing, write_json
from luab.metrics.segmentation import confusion_triples
from luab.progress import progress
from luab.study.config import Study
from luab.study.paths import card
from luab.study.transfer_recipes import TransferRecipe
from luab.study.transfers import FineTuning
from luab.training.device import choose_device
from luab.transfer.networks import resized
from luab.transfer.setup import Setup, setup_of

Row = dict[str, Any]

BOXES = pa.schema(
    {
        "image_id": pa.string(),
        "boxes": pa.list_(pa.list_(pa.float32(), 4)),
        "labels": pa.list_(pa.int16()),
        "scores": pa.list_(pa.float32()),
        "width": pa.int32(),
        "height": pa.int32(),
    }
)
"""Detections of each image, best first, at most 100: x0 y0 x1 y1 in pixels of the original, and classes from 1."""

MASKS = pa.schema(
    {
        "image_id": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "mask": pa.binary(),
        "confusion": pa.list_(pa.int32()),
    }
)
"""Mask of each image as a PNG of its original size, 0 = background; and (true class, predicted class, pixels) of every
pair of classes that occurs, one after the other."""

_ROWS_PER_GROUP = 500


def predict(study: Study, fine_tuning: FineTuning, code: str = "") -> dict[str, Any]:
    """Writes predictions.parquet of a finished fine-tuning and, last, its card, which it returns.

    Args:
        study: The configuration.
        fine_tuning: A finished one.
        code: Digest of the prediction code, for the card.

    Raises:
        ConfigError: The data set of the transfer has no boxes or masks to compare with.
        DataError: The fine-tuning is not finished, or images or annotations are missing or damaged.
    """
    setup, transfer = setup_of(study, fine_tuning), study.transfer[fine_tuning.transfer]
    if not transfer.scored:
        raise ConfigError(
            f"{fine_tuning.folder}: {transfer.data} has no masks to compare predictions with. Export the network, or "
            "choose other data for the transfer."
        )
    images = dense_set(study, transfer.data, "val", transfer.task)
    path = study.layout.fine_tuning_predictions(fine_tuning)
    predict_setup(study, setup, images)
    content = {
        "fine_tuning": setup.identity,
        "rows": pq.read_metadata(path).num_rows,
        "sha256": file_sha256(path),
        "model_sha256": read_fields(setup.folder / "run.json", ["model_sha256"])["model_sha256"],
        "code": code,
    }
    write_json(card(path), content)
    return content


def predict_setup(study: Study, setup: Setup, images: DenseSet) -> None:
    """Like `predict`, for any images with their ground truth, without the card.

    Each image is predicted by itself, so that its result does not depend on the others.

    Args:
        study: Gives device and loader processes.
        setup: A finished fine-tuning.
        images: The originals, without transforms.
    """
    device = choose_device(study)
    if device.type == "cpu":
        torch.set_num_threads(study.compute.threads)
    network = setup.trained_network().to(device)
    schema, row_of = (BOXES, _boxes) if setup.task == "detection" else (MASKS, _mask)
    with replacing(setup.folder / "predictions.parquet") as aside, pq.ParquetWriter(aside, schema) as writer:
        rows = _rows(study, setup, network, images, device, row_of)
        while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _rows(
    study: Study,
    setup: Setup,
    network: nn.Module,
    images: DenseSet,
    device: torch.device,
    row_of: Callable[[nn.Module, torch.Tensor, Row, Setup], Row],
) -> Iterator[Row]:
    """Yields the row of each image, in the order of their ids."""
    order = sorted(range(len(images)), key=lambda i: images.image_ids[i])
    loader: DataLoader[Any] = DataLoader(
        images, batch_size=None, sampler=order, collate_fn=_unchanged, **worker_options(study.compute.workers)
    )
    with plain_errors(), progress(setup.name, len(images), "images") as advance, torch.inference_mode():
        for image, target in loader:
            pixels = to_device(image.as_subclass(torch.Tensor), device).float() / 255
            yield {"image_id": target["image_id"], **row_of(network, pixels, target, setup)}
            advance(1)


def _boxes(network: nn.Module, image: torch.Tensor, _: Row, __: Setup) -> Row:
    height, width = image.shape[-2:]
    (detected,) = network([image])
    return {
        "boxes": detected["boxes"].float().cpu().numpy().tolist(),
        "labels": detected["labels"].cpu().numpy().tolist(),
        "scores": detected["scores"].float().cpu().numpy().tolist(),
        "width": width,
        "height": height,
    }


def _mask(network: nn.Module, image: torch.Tensor, target: Row, setup: Setup) -> Row:
    classes = predicted_mask(network, image, setup.recipe).cpu().numpy().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(classes).save(content, format="PNG")
    height, width = classes.shape
    triples = confusion_triples(target["mask"].numpy(), classes, setup.classes + 1)
    return {"height": height, "width": width, "mask": content.getvalue(), "confusion": triples}


def predicted_mask(network: nn.Module, image: torch.Tensor, recipe: TransferRecipe) -> torch.Tensor:
    """Returns the class of each pixel [h, w] of an image [3, h, w], float in 0..1, seen at the recipe's size."""
    seen = resized(image, recipe.shorter_px, recipe.longest_px)
    logits = network(seen[None])["out"]
    return functional.interpolate(logits, image.shape[-2:], mode="bilinear")[0].argmax(dim=0)


def _unchanged(item: Any) -> Any:
    return item
