"""The section `transfer`: which trained backbones are fine-tuned for detection or segmentation, on what, and where.

Paths of fine-tunings are here, not in `luab.study.paths`, which the digests of code of a study without them cover.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from luab.errors import did_you_mean
from luab.study.paths import DATASET, Layout, Run
from luab.study.recipes import Closed, Positive

if TYPE_CHECKING:
    from luab.study.config import Study, StudyPart

DenseTask = Literal["detection", "segmentation"]
DenseData = Literal["coco", "voc", "imagenet_points"]
Network = Literal["faster_rcnn", "fcn", "deeplabv3"]

VOC = "voc"
"""The tree that the archives of PASCAL VOC unpack to; without manifest, since `luab.data.dense.voc` reads its lists."""
TRANSFER_RECIPES = "transfer"
"""Folder below `paths.recipes` that holds the recipes of fine-tunings."""
NETWORKS: dict[str, tuple[Network, ...]] = {"detection": ("faster_rcnn",), "segmentation": ("fcn", "deeplabv3")}
POINTS_OF = {"coco": "coco", "imagenet_points": DATASET}
"""Data with recorded points that can supervise segmentation, and the data set of classification that has them."""
POINTS = "click"
"""These points: tags of COCO-AB, clicks of ImageNet-AB."""


@dataclass(frozen=True, order=True)
class FineTuning:
    """One fine-tuning for detection or segmentation.

    Attributes:
        transfer: Name of an entry of `transfer`.
        run: The finished run that its backbone comes from; its seed is the seed of the fine-tuning too.
    """

    transfer: str
    run: Run

    @property
    def folder(self) -> str:
        """Path below results/transfer, such as "voc_detection/resnet50/click-1/seed0"."""
        return f"{self.transfer}/{self.run.folder.partition('/')[2]}"

    def identity(self) -> dict[str, str | float | int]:
        """The fine-tuning as recorded in run.json and scores.csv."""
        return {"transfer": self.transfer, **self.run.identity()}


@dataclass(frozen=True)
class TransferLayout(Layout):
    """Paths of a study, those of its fine-tunings included."""

    def fine_tuning(self, one: FineTuning) -> Path:
        """Folder of one fine-tuning."""
        return self.results / "transfer" / one.folder

    def fine_tuning_json(self, one: FineTuning) -> Path:
        """Card of a finished fine-tuning."""
        return self.fine_tuning(one) / "run.json"

    def fine_tuning_model(self, one: FineTuning) -> Path:
        """Weights of a finished fine-tuning."""
        return self.fine_tuning(one) / "model.safetensors"

    def fine_tuning_log(self, one: FineTuning) -> Path:
        """Losses of each epoch of a finished fine-tuning."""
        return self.fine_tuning(one) / "log.csv"

    def fine_tuning_predictions(self, one: FineTuning) -> Path:
        """Boxes or masks that a fine-tuning predicts; their card has the same stem."""
        return self.fine_tuning(one) / "predictions.parquet"

    def fine_tuning_scores(self, one: FineTuning) -> Path:
        """Scores of a fine-tuning."""
        return self.fine_tuning(one) / "scores.csv"

    def fine_tuning_images(self, one: FineTuning) -> Path:
        """Results of a fine-tuning for each image, which the bootstrap resamples."""
        return self.fine_tuning(one) / "per_image.parquet"

    def transfer_scores_csv(self) -> Path:
        """Scores of all fine-tunings, tidy."""
        return self.shown / "transfer.csv"


class Transfer(Closed):
    """One kind of fine-tuning: a network on one dense data set, beginning with the backbones of finished runs."""

    task: DenseTask = Field(description="detection finds boxes, segmentation labels pixels.")
    data: DenseData = Field(
        description="Images and annotations: coco = COCO 2014; voc = PASCAL VOC, 2007 and 2012 for detection, 2012 for "
        "segmentation; imagenet_points = ImageNet's images with their clicks, which have no masks to score on."
    )
    network: Network = Field(description="faster_rcnn for detection; fcn or deeplabv3 for segmentation.")
    recipe: str = Field(
        pattern=r"^[A-Za-z0-9_.]+$", description="File name, without .yaml, in the folder `transfer` of the recipes."
    )
    gpu_images_per_s: Positive = Field(
        description="Training throughput in images per second and GPU, for the GPU-hour estimate and time limits."
    )
    on: str = Field(DATASET, description="Data set of the runs whose backbones are fine-tuned.")
    backbones: list[str] | None = Field(None, description="Their backbones; null for all of that data set.")
    supervisions: list[str] | None = Field(None, description="Their supervisions; null for all of that data set.")
    lambdas: list[Positive] | None = Field(
        None, description="Their lambdas, of those that are trained; null for that of the main tables."
    )
    supervised_by: Literal["labels", "points"] = Field(
        "labels",
        description="labels = boxes or masks; points = one recorded point per class of an image and its labels, "
        "for segmentation of coco and imagenet_points.",
    )
    title: str = Field("", description="Name in tables; empty for the name of the entry.")

    @property
    def scored(self) -> bool:
        """Whether the data have boxes or masks to score predictions on."""
        return self.data != "imagenet_points"

    @property
    def mode(self) -> Literal["detection", "segmentation", "points"]:
        """What a training reads of the data: boxes, masks or points."""
        return "points" if self.supervised_by == "points" else self.task

    @model_validator(mode="after")
    def _fits(self) -> "Transfer":
        if self.network not in NETWORKS[self.task]:
            raise ValueError(f"network {self.network!r} is not for {self.task}; use {' or '.join(NETWORKS[self.task])}")
        if self.supervised_by == "points" and (self.task != "segmentation" or self.data not in POINTS_OF):
            raise ValueError(
                "supervised_by: points is for segmentation of coco (tags) or imagenet_points (clicks); set it to labels"
            )
        if self.data == "imagenet_points" and self.supervised_by != "points":
            raise ValueError("imagenet_points has no boxes and masks; set supervised_by to points")
        return self

    def begins(self, part: "StudyPart", seeds: Sequence[int]) -> Iterator[Run]:
        """Yields the runs whose backbones are fine-tuned, in the order of the configuration."""
        for backbone in part.backbone_names if self.backbones is None else self.backbones:
            for supervision in part.supervisions if self.supervisions is None else self.supervisions:
                for weight in self._weights(part, backbone, supervision):
                    for seed in seeds:
                        yield Run(self.on, backbone, supervision, weight, seed)

    def _weights(self, part: "StudyPart", backbone: str, supervision: str) -> list[float]:
        trained = part.weights(backbone, supervision)
        if 0.0 in trained:  # the baseline
            return trained
        return [weight for weight in trained if weight in (self.lambdas or [part.luab_lambda])]


def fine_tunings(study: "Study") -> list[FineTuning]:
    """Every fine-tuning of a study."""
    return [
        FineTuning(name, run)
        for name, entry in study.transfer.items()
        for run in entry.begins(study.part(entry.on), study.seeds)
    ]


def transfer_recipes_named(config: Mapping[str, Any]) -> list[str]:
    """Names of the recipes of fine-tunings in a configuration that was not checked yet."""
    section = config.get("transfer")
    entries = section.values() if isinstance(section, dict) else ()
    return list(dict.fromkeys(str(entry.get("recipe")) for entry in entries if isinstance(entry, dict)))


def wrong_transfers(study: "Study", recipes: Sequence[str]) -> Iterator[str]:
    """Yields the mistakes in `transfer` that depend on other sections.

    Args:
        study: The configuration.
        recipes: Names of the recipes that exist, for suggestions.
    """
    for name, entry in study.transfer.items():
        at = f"transfer.{name}"
        if entry.recipe not in study.transfer_recipes:
            folder = study.paths.recipes / TRANSFER_RECIPES
            yield f"{at}.recipe: {folder}/{entry.recipe}.yaml does not exist. {did_you_mean(entry.recipe, recipes)}"
        if entry.supervised_by == "points" and POINTS_OF[entry.data] not in study.parts:
            yield (
                f"{at}.supervised_by: points of {entry.data} come with the data set {POINTS_OF[entry.data]}, which the "
                "study leaves out."
            )
        if entry.on not in study.parts:
            yield f"{at}.on: the study does not train on {entry.on!r}, only on {', '.join(study.parts)}."
            continue
        part = study.parts[entry.on]
        known = {"backbones": part.backbone_names, "supervisions": list(part.supervisions)}
        for key, names in known.items():
            for i, given in enumerate(getattr(entry, key) or []):
                if given not in names:
                    yield f"{at}.{key}[{i}]: {given!r} is not in `{key}` of {entry.on}. {did_you_mean(given, names)}"
        trained = {w for b in part.backbone_names for s in part.supervisions for w in part.weights(b, s) if w}
        for i, weight in enumerate(entry.lambdas or []):
            if weight not in trained:
                yield f"{at}.lambdas[{i}]: no run of {entry.on} has lambda {weight:g}."
