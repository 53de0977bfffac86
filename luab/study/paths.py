"""Path of every artefact of a study; rules, commands and tests take paths from here."""

import math
from dataclasses import dataclass
from pathlib import Path

DATASET = "imagenet"


@dataclass(frozen=True, order=True)
class Run:
    """One training, identified by everything that distinguishes it within the study.

    Attributes:
        dataset: "imagenet" or "coco".
        backbone: timm name.
        supervision: Name of an entry of `supervisions`: "none" (baseline), "random" (control), "click" (LUAB), ...
        weight: lambda, the weight of the byproduct loss; 0 for "none".
        seed: Seed of initialisation, sample order and augmentation.
    """

    dataset: str
    backbone: str
    supervision: str
    weight: float
    seed: int

    @property
    def folder(self) -> str:
        """Path below results/runs, such as "imagenet/resnet50/click-1/seed0"."""
        return f"{self.dataset}/{self.backbone}/{self.supervision}-{self.weight:g}/seed{self.seed}"

    def identity(self) -> dict[str, str | float | int]:
        """The run as recorded in run.json, score files and scores.csv."""
        return {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "supervision": self.supervision,
            "lambda": self.weight,
            "seed": self.seed,
        }

    @classmethod
    def parse(cls, folder: str) -> "Run":
        """The inverse of `folder`.

        Raises:
            ValueError: The text does not have this form.
        """
        dataset, backbone, supervised, seed = folder.split("/")
        supervision, _, weight = supervised.partition("-")
        if not seed.startswith("seed") or not weight:
            raise ValueError(f"{folder!r} is not <dataset>/<backbone>/<supervision>-<lambda>/seed<k>")
        run = cls(dataset, backbone, supervision, float(weight), int(seed.removeprefix("seed")))
        if not math.isfinite(run.weight) or (run.weight != 0 if supervision == "none" else run.weight <= 0):
            raise ValueError(f"{folder!r}: lambda must be 0 for none and above 0 otherwise, found {weight}")
        return run


@dataclass(frozen=True)
class Layout:
    """Paths below the study's two folders, data/ and results/.

    A card is a small JSON file that identifies a large artefact by content; the workflow depends on cards.
    """

    data: Path
    results: Path
    study: str = ""
    """Name of a study that shares trainings with the main one; its tables, figures and report have their own folder."""

    @property
    def shown(self) -> Path:
        """Folder of the scores, tables, figures and report: results/, or results/studies/<name>/."""
        return self.results / "studies" / self.study if self.study else self.results

    def archive_folder(self) -> Path:
        """Verified downloads."""
        return self.data / "archives"

    def archive_card(self, name: str) -> Path:
        """Card of one verified download."""
        return self.data / "archives" / f"{name}.json"

    def raw_folder(self, dataset: str) -> Path:
        """Unpacked tree of one dataset."""
        return self.data / "raw" / dataset

    def raw_card(self, dataset: str) -> Path:
        """Card of one unpacked dataset."""
        return self.data / "raw" / f"{dataset}.json"

    def index(self, byproducts: str = "imagenet_ab") -> Path:
        """Byproduct index of ImageNet-AB, or of COCO-AB ("coco_ab")."""
        return self.data / "byproducts" / f"{byproducts}.parquet"

    def manifest_folder(self) -> Path:
        """All manifests."""
        return self.data / "manifests"

    def manifest(self, dataset: str) -> Path:
        """Manifest of one dataset."""
        return self.manifest_folder() / f"{dataset}.parquet"

    def pack(self, dataset: str) -> Path:
        """Index of one data set's packed images; its card and its folder of shards have the same stem."""
        return self.data / "packs" / f"{dataset}.parquet"

    def target_folder(self, dataset: str = DATASET) -> Path:
        """All files of training points of a data set."""
        return self.data / "targets" / dataset

    def target(self, target: str, dataset: str = DATASET) -> Path:
        """Training points; `target` is that of a supervision, such as "click", or "click_1a2b3c4d" with noise."""
        return self.target_folder(dataset) / f"{target}.parquet"

    def run(self, run: Run) -> Path:
        """Folder of one run."""
        return self.results / "runs" / run.folder

    def run_json(self, run: Run) -> Path:
        """Card of a finished training."""
        return self.run(run) / "run.json"

    def model(self, run: Run) -> Path:
        """Weights of a finished training."""
        return self.run(run) / "model.safetensors"

    def log_csv(self, run: Run) -> Path:
        """Losses of each epoch of a finished training."""
        return self.run(run) / "log.csv"

    def prediction_folder(self, run: Run) -> Path:
        """Predictions of one run, one Parquet file per test set."""
        return self.run(run) / "predictions"

    def prediction_card(self, run: Run, suite: str) -> Path:
        """Card of one suite's predictions."""
        return self.prediction_folder(run) / f"{suite}.json"

    def score(self, run: Run, benchmark: str) -> Path:
        """Scores of one benchmark."""
        return self.run(run) / "scores" / f"{benchmark}.json"

    def scores_csv(self) -> Path:
        """All scores of the study, tidy."""
        return self.shown / "scores.csv"

    def table(self, name: str, suffix: str) -> Path:
        """One rendered table."""
        return self.shown / "tables" / f"{name}.{suffix}"

    def figure(self, name: str, suffix: str) -> Path:
        """One rendered figure."""
        return self.shown / "figures" / f"{name}.{suffix}"

    def metrics(self, run: Run) -> Path:
        """Headline numbers of one backbone and supervision for DVC: means over the seeds."""
        return self.results / "metrics" / run.dataset / run.backbone / f"{run.supervision}.json"

    def curves_csv(self) -> Path:
        """Training losses of the headline runs, plotted by DVC."""
        return self.results / "plots" / "training.csv"

    def dvc_file(self) -> Path:
        """Artifacts, metrics and plots for DVC."""
        return self.results / "dvc.yaml"

    def crate(self) -> Path:
        """RO-Crate of all results."""
        return self.results / "ro-crate-metadata.json"

    def report(self) -> Path:
        """The report of the whole study."""
        return self.shown / "report.html"


def card(artefact: Path) -> Path:
    """The card of a Parquet artefact: the JSON file of the same stem."""
    return artefact.with_suffix(".json")
