"""Estimate of the GPU hours of each part of the study, from published speeds or from your own finished runs."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from luab.benchmarks.catalogue import test_sets_of
from luab.data.manifests.known_counts import KNOWN_COUNTS
from luab.data.manifests.testsets import TEST_SETS
from luab.files import read_json
from luab.study.config import Study
from luab.study.paths import Run
from luab.study.transfers import DenseData, FineTuning
from luab.tasks import task_of

_FORWARD_SHARE = 1 / 3  # a backward pass has about twice the arithmetic of a forward pass
_SWEEP = "lambda sweep: the other lambdas"


@dataclass(frozen=True)
class Speed:
    """Training throughput of a backbone, in images per second and GPU, and the origin of the value."""

    images_per_s: float
    source: str


Speeds = Mapping[tuple[str, str], Speed]
"""By data set and backbone."""
DenseSpeeds = Mapping[str, Speed]
"""Of fine-tunings, by entry of `transfer`."""

_KNOWN = {name: counts["n"] or 0 for name, counts in KNOWN_COUNTS.items()}
# SOURCE: the tables of the challenges' pages, VOC2007/index.html and VOC2012/dbstats.html: trainval of both years and
# test of 2007 for boxes, train and val of 2012 for masks.
_DENSE_IMAGES: dict[DenseData, dict[str, tuple[int, int]]] = {
    "coco": dict.fromkeys(("detection", "segmentation"), (_KNOWN["coco_train"], _KNOWN["coco_val"])),
    "voc": {"detection": (5011 + 11540, 4952), "segmentation": (1464, 1449)},
    "imagenet_points": {"segmentation": (_KNOWN["imagenet_train"], 0)},
}
"""Number of images for training and for evaluation, by data and task of an entry of `transfer`."""


@dataclass
class CostPart:
    """Number of trainings, 0 for predictions, and estimated GPU hours of a part of the study."""

    name: str
    trainings: int = 0
    gpu_hours: float = 0.0


class TransferCost(NamedTuple):
    """Fine-tunings of an entry of `transfer`, and the estimated GPU hours of each, predictions included."""

    transfer: str
    speed: Speed
    epochs: int
    fine_tunings: int
    hours_each: float


class BackboneCost(NamedTuple):
    """Trainings of a backbone on a data set, and the estimated GPU hours of each."""

    dataset: str
    backbone: str
    speed: Speed
    epochs: int
    trainings: int
    hours_each: float


def published_speeds(study: Study) -> Speeds:
    """The speeds in the configuration, whose comments name the source."""
    return {
        (dataset, backbone.name): Speed(backbone.gpu_images_per_s, "config")
        for dataset, part in study.parts.items()
        for backbone in part.backbones
    }


def known_speeds(study: Study) -> Speeds:
    """Median speed of the finished trainings of each backbone, or the configuration's if none has finished."""
    speeds = dict(published_speeds(study))
    for key in speeds:
        paths = [study.layout.run_json(run) for run in study.runs() if _key(run) == key]
        cards = [read_json(path) for path in paths if path.is_file()]
        if measured := [_speed(card) for card in cards if card.get("images_per_s")]:
            speeds[key] = Speed(statistics.median(measured), f"measured, n={len(measured)}")
    return speeds


def training_hours(study: Study, run: Run, speeds: Speeds) -> float:
    """GPU hours of one training: images x epochs / speed."""
    images = (KNOWN_COUNTS[f"{run.dataset}_train"]["n"] or 0) * study.recipe(run.backbone, run.dataset).epochs
    return images / speeds[_key(run)].images_per_s / 3600


def prediction_hours(run: Run, benchmarks: Iterable[str], speeds: Speeds) -> float:
    """GPU hours of one run's predictions for some benchmarks; a forward pass counts as a third of a training step.

    Test sets of unknown size count as zero, and the Backgrounds Challenge as one pass over its images. If loading is
    slower than the GPU, predictions take longer.
    """
    manifests = [name for test_set in test_sets_of(benchmarks) for name in TEST_SETS[test_set].manifests]
    images = sum(KNOWN_COUNTS[name]["n"] or 0 for name in manifests)
    return images * _FORWARD_SHARE / speeds[_key(run)].images_per_s / 3600


def parts(study: Study, speeds: Speeds, dense: DenseSpeeds | None = None) -> list[CostPart]:
    """Costs of the trainings by supervision, of the rest of the lambda sweep, of the predictions by suite, and of the
    fine-tunings, predictions included, with the speeds `dense` (None: those in the configuration).
    """
    costs: dict[str, CostPart] = {}
    for run in study.runs():
        name = _part_of(study, run)
        part = costs.setdefault(name, CostPart(name))
        part.trainings += 1
        part.gpu_hours += training_hours(study, run, speeds)
    costs = dict(sorted(costs.items(), key=lambda item: item[0].endswith(_SWEEP)))  # the sweep last
    for dataset, measured in study.parts.items():
        runs = [run for run in study.runs() if run.dataset == dataset]
        for suite in measured.suites:
            hours = sum(prediction_hours(run, suite.benchmarks, speeds) for run in runs)
            costs[suite.name] = CostPart(f"predictions: {suite.name}", 0, hours)
    for cost in by_transfer(study, published_dense_speeds(study) if dense is None else dense):
        name = f"fine-tunings: {cost.transfer}"
        costs[name] = CostPart(name, cost.fine_tunings, cost.fine_tunings * cost.hours_each)
    return list(costs.values())


def published_dense_speeds(study: Study) -> DenseSpeeds:
    """The speeds of fine-tunings in the configuration, whose comments name the source."""
    return {name: Speed(entry.gpu_images_per_s, "config") for name, entry in study.transfer.items()}


def known_dense_speeds(study: Study) -> DenseSpeeds:
    """Median speed of the finished fine-tunings of each entry, or the configuration's if none has finished."""
    speeds = dict(published_dense_speeds(study))
    cards: dict[str, list[dict[str, Any]]] = {}
    for one in study.fine_tunings():
        if (path := study.layout.fine_tuning_json(one)).is_file():
            cards.setdefault(one.transfer, []).append(read_json(path))
    for name, of_name in cards.items():
        if measured := [_speed(card) for card in of_name if card.get("images_per_s")]:
            speeds[name] = Speed(statistics.median(measured), f"measured, n={len(measured)}")
    return speeds


def fine_tuning_hours(study: Study, transfer: str, speeds: DenseSpeeds) -> float:
    """GPU hours of one fine-tuning: images x epochs / speed."""
    entry = study.transfer[transfer]
    images = _dense_images(study, transfer)[0] * study.transfer_recipes[entry.recipe].epochs
    return images / speeds[transfer].images_per_s / 3600


def fine_tuning_prediction_hours(study: Study, transfer: str, speeds: DenseSpeeds) -> float:
    """GPU hours of one fine-tuning's predictions; a forward pass counts as a third of a training step."""
    return _dense_images(study, transfer)[1] * _FORWARD_SHARE / speeds[transfer].images_per_s / 3600


def by_transfer(study: Study, speeds: DenseSpeeds) -> list[TransferCost]:
    """Costs of one fine-tuning of each entry of `transfer`, in the order of the configuration."""
    every: dict[str, list[FineTuning]] = {name: [] for name in study.transfer}
    for one in study.fine_tunings():
        every[one.transfer].append(one)
    return [
        TransferCost(
            name,
            speeds[name],
            study.transfer_recipes[study.transfer[name].recipe].epochs,
            len(of_name),
            fine_tuning_hours(study, name, speeds) + fine_tuning_prediction_hours(study, name, speeds),
        )
        for name, of_name in every.items()
    ]


def _dense_images(study: Study, transfer: str) -> tuple[int, int]:
    """Number of images that a fine-tuning is trained on, and of those that it predicts."""
    entry = study.transfer[transfer]
    return _DENSE_IMAGES[entry.data][entry.task]


def by_backbone(study: Study, speeds: Speeds) -> list[BackboneCost]:
    """Costs of one training of each backbone, in the order of the speeds."""
    costs = []
    for (dataset, backbone), speed in speeds.items():
        runs = [run for run in study.runs() if _key(run) == (dataset, backbone)]
        epochs = study.recipe(backbone, dataset).epochs
        costs.append(BackboneCost(dataset, backbone, speed, epochs, len(runs), training_hours(study, runs[0], speeds)))
    return costs


def _speed(card: dict[str, Any]) -> float:
    """Images per second of one process, over all trainings of its cohort."""
    return float(card["images_per_s"]) * card.get("cohort", 1) / card["processes"]


def _key(run: Run) -> tuple[str, str]:
    return run.dataset, run.backbone


def _part_of(study: Study, run: Run) -> str:
    swept = run.weight not in (0.0, study.part(run.dataset).luab_lambda)
    name = _SWEEP if swept else study.supervision(run).title
    short = task_of(run.dataset).short
    return f"{short}: {name}" if short else name
