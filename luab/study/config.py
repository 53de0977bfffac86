"""The study's configuration: one typed, immutable field for every key of config/config.yaml."""

import functools
import hashlib
import importlib.util
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import pydantic
import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from luab.errors import ConfigError, did_you_mean
from luab.files import read_json
from luab.study.drawn_world import Demo, WorldSizes
from luab.study.noises import Noise, Workers
from luab.study.paths import DATASET, Run
from luab.study.question import Question
from luab.study.recipes import BeginsWith, Closed, Positive, Preprocessing, Recipe
from luab.study.supervisions import BASELINE, CONTROLS, FROM_TAGS, RESERVED, Supervision, entries, mistakes
from luab.study.transfer_recipes import TransferRecipe
from luab.study.transfers import (
    TRANSFER_RECIPES,
    FineTuning,
    Transfer,
    TransferLayout,
    fine_tunings,
    transfer_recipes_named,
    wrong_transfers,
)
from luab.study.yaml_files import read_yaml

Decoding = Literal["exact", "fast"]
OWN_TESTS = "folder_tests"
"""Benchmark, test set and manifest of the test sets of the user's own (`folder.tests`)."""
LABELLING = "click"
"""Points of COCO that decide, in every run, which labels a crop keeps."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
SupervisionName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Paths(Closed):
    """Files and folders that the study reads and writes."""

    data: Path = Field(Path("data"), description="Archives, byproduct index, manifests, targets.")
    results: Path = Field(Path("results"), description="Runs, scores, tables, figures, report.")
    archives: Path = Field(Path("config/archives.yaml"), description="List of every download.")
    recipes: Path = Field(Path("config/recipes"), description="Folder of the training recipes.")
    published: Path = Field(Path("config/published.csv"), description="Published values, shown next to ours.")
    imagenet: Path | None = Field(
        None, description="Your own ImageNet with train/<wnid>/*.JPEG and val/; luab does not download it."
    )
    tags: Path | None = Field(
        None,
        description="Your own tags on ImageNet's training images, for the points browsed, tagged and both: a table "
        "image, x, y [, ...] (CSV or Parquet), as `luab annotate` writes it.",
    )
    copies: dict[str, Path] = Field(
        {}, description="Your own copies of other data sets, by manifest name; luab does not download these."
    )
    partial: bool = Field(
        False, description="Accept trees that lack classes or images, with a warning (demo world, samples)."
    )

    @field_validator("data", "results", "archives", "recipes", "published", "imagenet", "tags", "copies")
    @classmethod
    def _expanded(cls, given: Any) -> Any:
        return {name: _expand(path) for name, path in given.items()} if isinstance(given, dict) else _expand(given)

    @model_validator(mode="after")
    def _no_patterns(self) -> "Paths":
        named = [self.data, self.results, self.archives, self.recipes, self.published]
        for path in filter(None, [*named, self.imagenet, self.tags, *self.copies.values()]):
            if set(str(path)) & set("{}\n\0"):
                raise ValueError(f"{str(path)!r} contains braces, which mark wildcards in Snakemake, or a line break")
        return self


class Backbone(Closed):
    """One architecture."""

    name: Name = Field(description="timm model name, e.g. resnet50.")
    recipe: Name = Field(description="File name, without .yaml, in the folder of recipes.")
    gpu_images_per_s: Positive = Field(
        description="Training throughput in images per second and GPU, for the GPU-hour estimate and time limits."
    )

    @field_validator("name")
    @classmethod
    def _timm_has_it(cls, name: str) -> str:
        known = known_backbones()
        if known and name.partition(".")[0] not in known:
            raise ValueError(f"timm has no model {name!r}. {did_you_mean(name, known)}")
        return name


class Sweep(Closed):
    """The lambda grid: the supervisions and backbones that are trained with every lambda."""

    backbones: list[Name] = Field([], description="Names from `backbones` that are trained with every lambda.")
    supervisions: list[Name] = Field(
        [], description="Supervisions that are trained with every lambda; the others use `luab_lambda`."
    )
    lambdas: list[Positive] = Field([], description="Weights of the byproduct loss; 0 is the baseline.")


class Suite(Closed):
    """Benchmarks whose test sets one prediction job covers."""

    name: Name = Field(description="Name of the suite, and stem of its prediction card.")
    benchmarks: list[Name] = Field(min_length=1, description="Names of benchmarks (docs/protocols.md).")


class Compute(Closed):
    """Resources of a job.

    On the CPU, loader processes and the batch size of predictions do not change results. The number of training
    processes and the split into accumulation steps change them within rounding error. The change is larger with
    BatchNorm, whose statistics come from one forward pass of one process unless the recipe sets sync_batchnorm, and
    with dropout and mixup, which each process draws for itself.
    """

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto uses a GPU if one is available.")
    gpus: int = Field(
        1,
        ge=1,
        description="Processes per node of one training, each with its own GPU if the device is a GPU. Predictions "
        "use one.",
    )
    nodes: int = Field(1, ge=1, description="Nodes of one training; more than 1 only in a Slurm job.")
    images_per_process: int | None = Field(
        None,
        ge=1,
        description="Maximum number of images in one forward pass; a larger share of the batch is split into "
        "accumulation steps. null: no maximum.",
    )
    workers: int = Field(
        8,
        ge=0,
        description="Loader processes of a train or predict job per node, divided among its processes (at least one "
        "each); 0 loads in the main process.",
    )
    threads: int = Field(
        8, ge=1, description="CPU threads that a train or predict job requests per node, divided among its processes."
    )
    predict_batch: int = Field(256, ge=1, description="Images per forward pass in prediction.")
    cohort: int | None = Field(
        1,
        ge=1,
        description="Maximum number of trainings (and predictions) that one job does together. They have the same data "
        "set, backbone, recipe and seed, so they see the same images, which are read once; on the CPU, each has the "
        "same bytes as alone. Such a job runs again as a whole: adding a supervision to it trains its others again. "
        "null: all of a seed.",
    )
    longest_job_hours: Positive = Field(
        24, description="Longest time limit that a job requests; a longer training continues after it in the same job."
    )

    @property
    def processes(self) -> int:
        """Processes of one training, over all nodes."""
        return self.gpus * self.nodes

    @property
    def workers_each(self) -> int:
        """Loader processes of each training process."""
        return max(1, self.workers // self.gpus) if self.workers else 0

    @property
    def threads_each(self) -> int:
        """CPU threads of each training process."""
        return max(1, self.threads // self.gpus)


class Packing(Closed):
    """Copy of the training images in a few large files, for file systems that are slow with many small files."""

    shorter_side_px: int | None = Field(
        None, ge=16, description="Shorter side to which larger images are resized; null copies the files unchanged."
    )
    quality: int = Field(90, ge=1, le=95, description="JPEG quality of resized images.")
    shard_mb: int = Field(1000, ge=1, description="Approximate size of one file.")


@dataclass(frozen=True)
class Split:
    """Composition of a total batch.

    Attributes:
        processes: Processes that share the batch equally.
        images: Images of one forward pass in one process.
        steps: Forward passes of each process per weight update.
    """

    processes: int
    images: int
    steps: int

    @classmethod
    def of(cls, recipe: Recipe, compute: Compute) -> "Split":
        """The split of a recipe's batch, which was checked when the study was read."""
        share = recipe.batch_size // compute.processes
        images = min(share, compute.images_per_process or share)
        return cls(compute.processes, images, share // images)

    def __str__(self) -> str:
        counts = {"process": self.processes, "image": self.images, "step": self.steps}
        words = [f"{n} {name}{'' if n == 1 else 'es' if name == 'process' else 's'}" for name, n in counts.items()]
        return f"batch {math.prod(counts.values())} = {' x '.join(words)}"


def _or_list(schema: dict[str, Any]) -> None:
    """Adds to the JSON schema of `supervisions` what `entries` accepts besides a section: a list, and null entries."""
    named = {name: {"anyOf": [entry, {"type": "null"}]} for name, entry in schema.pop("patternProperties").items()}
    section = {"type": schema.pop("type"), "patternProperties": named, "additionalProperties": False}
    schema["anyOf"] = [section, {"type": "array", "items": {"type": "string"}}]


def _or_null(schema: dict[str, Any]) -> None:
    """Adds to the JSON schema of `transfer` the null entries that remove those of an earlier file."""
    patterns = schema["patternProperties"]
    schema["patternProperties"] = {name: {"anyOf": [entry, {"type": "null"}]} for name, entry in patterns.items()}


class StudyPart(Closed):
    """What is trained and measured on one data set.

    Attributes:
        makers: Names of the points that can be made for it.
        several_heads: Whether a model can have a point head per class.
    """

    makers: ClassVar[tuple[str, ...]] = ("none", *CONTROLS, "click", "trace", "box", *FROM_TAGS)
    several_heads: ClassVar[bool] = False

    @property
    def kinds_of_points(self) -> tuple[str, ...]:
        """Names of further points, which the user's own table divides."""
        return ()

    backbones: list[Backbone] = Field(min_length=1, description="Architectures, with recipe and speed.")
    supervisions: dict[SupervisionName, Supervision] = Field(
        json_schema_extra=_or_list,
        description="What models learn besides labels, by name, in the order of the tables: none = baseline, random "
        "and shuffled = controls, click = LUAB. A list of names is short for entries without keys; null removes an "
        "entry of an earlier file.",
    )
    luab_lambda: Positive = Field(1.0, description="Lambda of the main tables.")
    sweep: Sweep = Field(
        Sweep.model_validate({}), description="The lambda grid; leave it out, or set it to null, to train no sweep."
    )
    suites: list[Suite] = Field(min_length=1, description="Benchmarks, by predict job.")

    @field_validator("sweep", mode="before")
    @classmethod
    def _null_is_no_sweep(cls, sweep: Any) -> Any:
        return {} if sweep is None else sweep  # an overlay cannot delete a key, but it can set it to null

    @field_validator("supervisions", mode="before")
    @classmethod
    def _entries(cls, supervisions: Any) -> Any:
        return entries(supervisions)

    def backbone(self, name: str) -> Backbone:
        """The entry of a backbone.

        Raises:
            ConfigError: The study does not have it; the message lists similar names.
        """
        backbones = {backbone.name: backbone for backbone in self.backbones}
        if name not in backbones:
            raise ConfigError(f"Backbone {name!r} is not in the study. {did_you_mean(name, backbones)}")
        return backbones[name]

    @property
    def backbone_names(self) -> list[str]:
        """Names of the backbones, in the order of the config."""
        return [backbone.name for backbone in self.backbones]

    @property
    def benchmarks(self) -> list[str]:
        """Names of all benchmarks, in the order of the suites."""
        return [name for suite in self.suites for name in suite.benchmarks]

    def weights(self, backbone: str, supervision: str) -> list[float]:
        """Lambdas of a backbone and supervision, ascending."""
        if supervision == BASELINE:
            return [0.0]
        swept = backbone in self.sweep.backbones and supervision in self.sweep.supervisions
        return sorted({self.luab_lambda, *(self.sweep.lambdas if swept else [])})


class Coco(StudyPart):
    """COCO and COCO-AB: several labels per image, each with a point."""

    makers = ("none", "random", "shuffled", "click", "replayed", "centre", "box", "mask")
    several_heads = True

    keep_labels: bool = Field(
        False, description="Keep a label if the crop cut off its tagged point; false follows the official loader."
    )


class Folder(StudyPart):
    """Your own images, one label each, with points from any source."""

    makers = ("none", "random", "shuffled", "click", "centre", "box")

    images: Path = Field(description="Folder with <class>/*.jpg, or with train/<class>/*.jpg and val/<class>/*.jpg.")
    labels: Path | None = Field(
        None,
        description="Table image, label [, split, x0, y0, x1, y1] (CSV), instead of folders by class; one row per box.",
    )
    held_out: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Share of each class that is held out to evaluate on, where no split is given."
    )
    byproducts: Path = Field(
        description="Table image, x, y [, time_ms, worker, class, kind] (CSV or Parquet), or an archive as "
        "ImageNet-AB's or COCO-AB's, as `luab annotate` writes them."
    )
    points: Literal["fractions", "pixels"] = Field(
        "fractions", description="Unit of x and y in the table: fractions of the image, or pixels of the file."
    )
    kinds: dict[SupervisionName, Annotated[list[str], Field(min_length=1)]] = Field(
        {},
        description="Points of some rows only, by name: {fixated: [fixation]} makes the points `fixated` of the rows "
        "with this text in the column kind. `click` has all rows.",
    )
    tests: dict[SupervisionName, Path] = Field(
        {},
        description="Further test sets by name, each a folder with <class>/*.jpg for some or all of the classes; the "
        "benchmark folder_tests scores them.",
    )

    @field_validator("images", "labels", "byproducts", "tests")
    @classmethod
    def _expanded(cls, given: Any) -> Any:
        return {name: _expand(path) for name, path in given.items()} if isinstance(given, dict) else _expand(given)

    @field_validator("kinds")
    @classmethod
    def _new_names(cls, kinds: dict[str, list[str]]) -> dict[str, list[str]]:
        if taken := sorted(set(kinds) & set(RESERVED)):
            raise ValueError(f"luab makes points of the name {', '.join(taken)} itself; choose another name")
        return kinds

    @model_serializer(mode="wrap")
    def _without_unused(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out kinds and test sets if there are none, so that such studies keep their digest."""
        content: dict[str, Any] = rest(self)
        return {key: value for key, value in content.items() if value or key not in ("kinds", "tests")}

    @property
    def kinds_of_points(self) -> tuple[str, ...]:
        """Names of the points that the table's column kind divides."""
        return tuple(self.kinds)


class Study(StudyPart):
    """The whole configuration; built by `load_study` or `parse_study`.

    Its own backbones, supervisions, lambdas and suites are those of ImageNet.
    """

    label: str = Field("", description="Words printed on every table and figure; empty for the real study.")
    study: Question | None = Field(
        None, description="The question of a study beside the main one (config/studies/*.yaml); null: the main study."
    )
    backbones: list[Backbone] = Field(
        description="Architectures, with recipe and speed; an empty list leaves ImageNet out."
    )
    suites: list[Suite] = Field(description="Benchmarks, by predict job.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="One training per seed.")
    random_points_seed: int = Field(
        0, ge=0, description="Seed of the controls random and shuffled and of noise, which are drawn once for all runs."
    )
    coco: Coco | None = Field(None, description="The same keys for COCO; null leaves COCO out.")
    folder: Folder | None = Field(None, description="The same keys for your own images; `luab init` writes them.")
    transfer: dict[SupervisionName, Transfer] = Field(
        {},
        json_schema_extra=_or_null,
        description="Fine-tunings of trained backbones for detection and segmentation, by name (docs/transfer.md); "
        "null removes an entry of an earlier file.",
    )
    decoding: Decoding = Field(
        "exact",
        description="Decoding of ImageNet's training images: exact = Pillow, like the official loader; fast = twice as "
        "fast, with the same crops and points and pixels that rarely differ by more than 1 of 255. Evaluation is "
        "always exact.",
    )
    on_bad: Literal["raise", "count"] = Field(
        "raise",
        description="Byproduct records that do not have the format of the release: raise stops at the first; count "
        "leaves them out and counts them.",
    )
    held_out_byproducts: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of ImageNet's training images that no training sees, chosen by a hash of the image id; the "
        "benchmark trace_alignment compares score maps with the mouse traces of these images.",
    )
    packing: Packing | None = Field(
        None, description="Pack ImageNet's training images into large files; null reads single files."
    )
    compute: Compute = Field(Compute.model_validate({}), description="Resources of a job.")
    paths: Paths = Field(Paths.model_validate({}), description="Files and folders that the study reads and writes.")
    demo: Demo | None = Field(None, description="Draw the demo world instead of downloading data.")
    recipes: dict[str, Recipe] = Field({}, description="Filled in from `paths.recipes`; do not write it by hand.")
    transfer_recipes: dict[str, TransferRecipe] = Field(
        {}, description="Filled in from the folder `transfer` of `paths.recipes`; do not write it by hand."
    )

    @field_validator("transfer", mode="before")
    @classmethod
    def _without_removed(cls, entries: Any) -> Any:
        return {k: v for k, v in entries.items() if v is not None} if isinstance(entries, dict) else entries

    @model_serializer(mode="wrap")
    def _without_transfers(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the sections of fine-tunings if there are none, so that such studies keep their digest."""
        content: dict[str, Any] = rest(self)
        return {k: v for k, v in content.items() if self.transfer or k not in ("transfer", "transfer_recipes")}

    @model_validator(mode="after")
    def _names_agree(self, info: ValidationInfo) -> "Study":
        context = info.context or {}
        mistakes = list(_disagreements(self, context.get("recipes", [])))
        mistakes += wrong_transfers(self, context.get("transfer_recipes", []))
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def layout(self) -> TransferLayout:
        """Paths of every artefact."""
        return TransferLayout(
            self.paths.data, self.paths.results, self.study.name if self.study and self.shares else ""
        )

    @property
    def shares(self) -> bool:
        """Whether this study is beside a main one and shares its equal trainings."""
        return self.study is not None and bool(self.study.over)

    @property
    def parts(self) -> dict[str, StudyPart]:
        """What is trained and measured, by data set, ImageNet first; data sets that the study leaves out are absent."""
        others = {"coco": self.coco, "folder": self.folder}
        return ({DATASET: self} if self.backbones else {}) | {name: part for name, part in others.items() if part}

    def part(self, dataset: str) -> StudyPart:
        """What is trained and measured on one data set.

        Raises:
            ConfigError: The study does not have this data set.
        """
        if dataset not in self.parts:
            raise ConfigError(
                f"The study does not train on {dataset!r}, only on {', '.join(self.parts)}; see `backbones`, `coco` "
                "and `folder`."
            )
        return self.parts[dataset]

    def suite(self, name: str) -> Suite:
        """A suite of any data set.

        Raises:
            ConfigError: There is none of that name; the message lists similar names.
        """
        suites = {suite.name: suite for part in self.parts.values() for suite in part.suites}
        if name not in suites:
            raise ConfigError(f"There is no suite {name!r}. {did_you_mean(name, suites)}")
        return suites[name]

    def recipe(self, backbone: str, dataset: str = DATASET) -> Recipe:
        """The recipe of a backbone on a data set."""
        return self.recipes[self.part(dataset).backbone(backbone).recipe]

    def supervision(self, run: Run) -> Supervision:
        """The supervision of a run; ConfigError, which lists similar names, if the study does not have it."""
        known = self.part(run.dataset).supervisions
        if run.supervision not in known:
            hint = did_you_mean(run.supervision, known)
            raise ConfigError(f"{run.folder}: `supervisions` has no entry {run.supervision!r}. {hint}")
        return known[run.supervision]

    def of_target(self, target: str, dataset: str) -> Supervision:
        """The supervision whose points are in the file of this stem.

        Names of points that no entry uses, and names of entries, are accepted too.

        Raises:
            ConfigError: There is none; the message lists similar names.
        """
        part = self.part(dataset)
        stems = {entry.target: entry for entry in part.supervisions.values()}
        names = (*part.makers, *part.kinds_of_points)
        bare = {name: Supervision.model_validate({"points": name}) for name in names}
        known = {**part.supervisions, **bare, **{stem: entry for stem, entry in stems.items() if stem}}
        if target not in known:
            raise ConfigError(f"targets: there are no points {target!r}. {did_you_mean(target, known)}")
        return known[target]

    def predicted_with(self, run: Run) -> Recipe:
        """The recipe of a run with the input size and crop of its predictions, as their cards record them."""
        recipe = self.recipe(run.backbone, run.dataset)
        for path in sorted(self.layout.prediction_folder(run).glob("*.json")):
            return recipe.seen_with(Preprocessing.model_validate(read_json(path).get("preprocessing", {})))
        return recipe

    def first_run(self, run: Run) -> Run | None:
        """The run whose weights a run begins with; None if it begins with other weights."""
        return self.recipe(run.backbone, run.dataset).begins_with.first_run(run)

    def split(self, backbone: str, dataset: str = DATASET) -> Split:
        """Composition of a backbone's training batches."""
        return Split.of(self.recipe(backbone, dataset), self.compute)

    def runs(self) -> list[Run]:
        """Every training of the study."""
        return [
            Run(dataset, backbone, supervision, weight, seed)
            for dataset, part in self.parts.items()
            for backbone in part.backbone_names
            for supervision in part.supervisions
            for weight in part.weights(backbone, supervision)
            for seed in self.seeds
        ]

    def fine_tunings(self) -> list[FineTuning]:
        """Every fine-tuning of the study, in the order of the configuration."""
        return fine_tunings(self)

    def fine_tuning(self, folder: str) -> FineTuning:
        """The fine-tuning of a folder name, such as "voc_detection/resnet50/click-1/seed0".

        It need not be one of `fine_tunings`, but its entry of `transfer` must exist.

        Raises:
            ConfigError: The name does not have this form, or `transfer` has no such entry.
        """
        name, _, below = folder.strip("/").partition("/")
        if name not in self.transfer:
            raise ConfigError(f"{folder}: `transfer` has no entry {name!r}. {did_you_mean(name, self.transfer)}")
        try:
            return FineTuning(name, Run.parse(f"{self.transfer[name].on}/{below}"))
        except ValueError as error:
            raise ConfigError(
                f"{folder!r} is not <transfer>/<backbone>/<supervision>-<lambda>/seed<k>, for example "
                f"{name}/resnet50/click-1/seed0."
            ) from error

    def transfer_recipe(self, one: FineTuning) -> TransferRecipe:
        """The recipe of a fine-tuning."""
        return self.transfer_recipes[self.transfer[one.transfer].recipe]

    def cohorts(self, first: Sequence[Sequence[Run]] = ()) -> list[list[Run]]:
        """The trainings by job: those in `first`, then at most `compute.cohort` of one data set, backbone and seed.

        A study that shares trainings with the main one trains its own one by one, so that several can share them.
        """
        taken = {run for runs in first for run in runs}
        alike: dict[tuple[str, str, int], list[Run]] = {}
        for run in self.runs():
            if run not in taken:
                alike.setdefault((run.dataset, run.backbone, run.seed), []).append(run)
        size = 1 if self.shares else self.compute.cohort or len(self.runs())
        others = [runs[i : i + size] for runs in alike.values() for i in range(0, len(runs), size)]
        return [*map(list, first), *others]

    def headline_runs(self) -> list[Run]:
        """The trainings of the main tables: every backbone and supervision at `luab_lambda`."""
        return [
            run for run in self.runs() if run.supervision == "none" or run.weight == self.part(run.dataset).luab_lambda
        ]

    def digest(self) -> str:
        """Digest of this configuration, 12 hexadecimal digits."""
        return hashlib.sha256(self.dump().encode()).hexdigest()[:12]

    def dump(self) -> str:
        """The whole study with its recipes, as YAML that `load_study` can read."""
        content = json.loads(self.model_dump_json())
        for name, recipe in self.recipes.items():
            for key in recipe.left_to_weights:
                del content["recipes"][name][key]
        return yaml.safe_dump(content, sort_keys=False)


def load_study(files: Sequence[Path | str], root: Path = Path()) -> Study:
    """Reads configuration files. Later files override earlier ones key by key; lists are replaced as a whole.

    Args:
        files: YAML files, such as config/config.yaml and config/demo.yaml.
        root: Folder that the paths of files and recipes are relative to.

    Raises:
        ConfigError: A file is missing or is not YAML, or the configuration has mistakes; all are listed.
    """
    merged: dict[str, Any] = {}
    for file in files:
        _update(merged, read_yaml(root / file))
    return parse_study(merged, root)


def parse_study(config: Mapping[str, Any], root: Path = Path()) -> Study:
    """Checks a configuration and reads its recipes.

    Raises:
        ConfigError: The configuration or a recipe has mistakes; all are listed with their keys.
    """
    merged = json.loads(json.dumps(config, default=str))
    _apply_drawn_world(merged)
    paths = merged.get("paths")
    named = str((paths if isinstance(paths, dict) else {}).get("recipes", "config/recipes"))
    folder = root / os.path.expanduser(os.path.expandvars(named))
    files = {file.stem: file for file in folder.glob("*.yaml")}
    if not merged.get("recipes"):
        merged["recipes"] = {name: read_yaml(files[name]) for name in _recipes_named(merged) if name in files}
    dense = {file.stem: file for file in (folder / TRANSFER_RECIPES).glob("*.yaml")}
    named_dense = transfer_recipes_named(merged)
    if named_dense and not merged.get("transfer_recipes"):
        merged["transfer_recipes"] = {name: read_yaml(dense[name]) for name in named_dense if name in dense}
    try:
        return Study.model_validate(merged, context={"recipes": list(files), "transfer_recipes": list(dense)})
    except pydantic.ValidationError as error:
        mistakes = [line for detail in error.errors() for line in _describe(detail)]
        count, them = (f"{len(mistakes)} mistakes", "them") if len(mistakes) > 1 else ("1 mistake", "it")
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        raise ConfigError(
            f"The configuration has {count}:\n{listed}\nCorrect {them} in config/ and run again; docs/config.md lists "
            "every key."
        ) from error


def _apply_drawn_world(merged: dict[str, Any]) -> None:
    """Lays `study.drawn_world` over a configuration that has a drawn world, and removes it."""
    question = merged.get("study")
    if isinstance(question, dict) and isinstance(question.get("drawn_world"), dict):
        keys = question.pop("drawn_world")
        if merged.get("demo"):
            _update(question, {name: keys.pop(name) for name in ("over",) if name in keys})
            _update(merged, keys)


def own_folder(given: Mapping[str, Any], backbone: str) -> Folder:
    """The section of your own images with the given keys and one backbone; ConfigError lists all mistakes."""
    tests = [OWN_TESTS] if given.get("tests") else []
    suites = [{"name": "own", "benchmarks": ["folder_val", "folder_points", *tests]}]
    backbones = [{"name": backbone, "recipe": "own_scratch", "gpu_images_per_s": 1000}]
    try:
        return Folder.model_validate(
            {"backbones": backbones, "supervisions": ["none", "click"], "suites": suites, **given}
        )
    except pydantic.ValidationError as error:
        lines = [line for detail in error.errors() for line in _describe(detail)]
        raise ConfigError("\n".join(lines)) from error


def check_files(files: Iterable[Path | str]) -> None:
    """Checks configuration files that Snakemake has merged; ConfigError for what `read_yaml` refuses."""
    for file in files:
        read_yaml(file)


def schema_json() -> str:
    """config/schema.json: the JSON schema of the configuration."""
    return json.dumps(Study.model_json_schema(), indent=2, sort_keys=True) + "\n"


def keys_table() -> str:
    """docs/config.md: one Markdown table of keys for each section of the configuration."""
    tables = []
    for name, model in _SECTIONS.items():
        heading = f"## `{name}`" if name else "## Top level"
        rows = [
            f"| `{key}` | `{_plain_type(field.annotation)}` | {_default(field)} | {field.description} |"
            for key, field in model.model_fields.items()
        ]
        tables.append("\n".join([heading, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows]))
    return "# Every key of the configuration\n\nGenerated by `luab docs`.\n\n" + "\n\n".join(tables) + "\n"


@functools.cache
def known_backbones() -> frozenset[str]:
    """Names of timm's models, read from its source because importing timm takes seconds."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
    models = Path(spec.submodule_search_locations[0]) / "models"
    return frozenset(name for file in models.glob("*.py") for name in pattern.findall(file.read_text(encoding="utf-8")))


_SECTIONS: dict[str, type[BaseModel]] = {
    "": Study,
    "study": Question,
    "paths": Paths,
    "backbones[]": Backbone,
    "supervisions.*": Supervision,
    "supervisions.*.noise": Noise,
    "supervisions.*.noise.workers": Workers,
    "sweep": Sweep,
    "suites[]": Suite,
    "coco": Coco,
    "folder": Folder,
    "transfer.*": Transfer,
    "compute": Compute,
    "packing": Packing,
    "demo": Demo,
    "demo.sizes": WorldSizes,
    "recipes/*.yaml": Recipe,
    "begins_with": BeginsWith,
    "recipes/transfer/*.yaml": TransferRecipe,
}


def _disagreements(study: Study, recipes: Sequence[str]) -> Iterator[str]:
    if not study.parts:
        yield "backbones: the study trains nothing; list at least one here, in `coco.backbones` or `folder.backbones`."
    if study.backbones and not study.suites:
        yield "suites: at least one suite is required to score the trainings on ImageNet."
    for dataset, part in study.parts.items():
        at = "" if part is study else f"{dataset}."
        yield from (f"{at}{mistake}" for mistake in _wrong_names(part, study, recipes))
    yield from _twice("seeds", study.seeds)
    yield from _twice("suites", [suite.name for part in study.parts.values() for suite in part.suites])
    for name, recipe in study.recipes.items():
        yield from _splits_badly(name, recipe, study.compute)
    if study.compute.cohort != 1 and study.compute.processes > 1:
        yield (
            f"compute.cohort: {study.compute.cohort or 'null'} needs one process per job, but compute.gpus and "
            f"compute.nodes set {study.compute.processes}; set it to 1."
        )
    if study.coco:
        yield from _unfit_for_coco(study, study.coco)
    if study.folder:
        yield from _unscored_tests(study.folder)
    from_tags = [name for name, entry in study.supervisions.items() if entry.records in FROM_TAGS]
    if from_tags and study.backbones and study.paths.tags is None:
        yield (
            f"supervisions: {', '.join(from_tags)} need tags on ImageNet's training images, which are not published. "
            "Set `paths.tags` to your own, or draw a world that has some (docs/studies.md)."
        )
    if study.study:
        known = {name for part in study.parts.values() for name in part.supervisions}
        for key, names in (("against", study.study.against), ("compared", study.study.compared or [])):
            for i, name in enumerate(names):
                if name not in known:
                    yield f"study.{key}[{i}]: {name!r} is not in `supervisions`. {did_you_mean(name, known)}"
    yield from _wrong_beginnings(study)


def _wrong_names(part: StudyPart, study: Study, recipes: Sequence[str]) -> Iterator[str]:
    names = part.backbone_names
    for i, backbone in enumerate(part.backbones):
        if backbone.recipe not in study.recipes:
            yield (
                f"backbones[{i}].recipe: {study.paths.recipes}/{backbone.recipe}.yaml does not exist."
                f" {did_you_mean(backbone.recipe, recipes)}"
            )
    for i, name in enumerate(part.sweep.backbones):
        if name not in names:
            yield f"sweep.backbones[{i}]: {name!r} is not in `backbones`. {did_you_mean(name, names)}"
    for i, supervision in enumerate(part.sweep.supervisions):
        if supervision not in part.supervisions or part.supervisions[supervision].points == BASELINE:
            yield (
                f"sweep.supervisions[{i}]: {supervision!r} is not in `supervisions`, or has no lambda."
                f" {did_you_mean(supervision, [name for name in part.supervisions if name != 'none'])}"
            )
    for weight in [part.luab_lambda, *part.sweep.lambdas]:
        if float(f"{weight:g}") != weight:
            yield f"lambda {weight!r}: run folders keep six digits; round it to {weight:g}."
    yield from _twice("backbones", names)
    kinds = part.kinds_of_points
    yield from mistakes(part.supervisions, (*part.makers, *kinds), part.several_heads, kinds)
    yield from _twice("suites[].benchmarks", part.benchmarks)


def _twice(key: str, values: Sequence[Any]) -> Iterator[str]:
    if twice := sorted({str(value) for value in values if values.count(value) > 1}):
        yield f"{key}: {', '.join(twice)} is listed twice."


def _unscored_tests(folder: Folder) -> Iterator[str]:
    scored = OWN_TESTS in folder.benchmarks
    if folder.tests and not scored:
        yield (
            f"folder.tests: {', '.join(folder.tests)} would not be scored; add the benchmark {OWN_TESTS} to a suite of "
            "`folder.suites`."
        )
    if scored and not folder.tests:
        yield (
            f"folder.suites: the benchmark {OWN_TESTS} scores test sets of your own, and `folder.tests` names none. "
            "Add some, or remove the benchmark."
        )


def _unfit_for_coco(study: Study, coco: Coco) -> Iterator[str]:
    for backbone in coco.backbones:
        recipe = study.recipes.get(backbone.recipe)
        if recipe is None:
            continue
        for key in ("mixup", "cutmix", "label_smoothing"):
            if getattr(recipe, key):
                yield f"recipes.{backbone.recipe}.{key}: not supported for multi-label data; set it to 0."


def _wrong_beginnings(study: Study) -> Iterator[str]:
    folders = [run.folder for run in study.runs()]
    for dataset, part in study.parts.items():
        for i, backbone in enumerate(part.backbones):
            at = f"{'' if part is study else f'{dataset}.'}backbones[{i}]: {backbone.recipe}"
            chain = [Run(dataset, backbone.name, "none", 0.0, study.seeds[0])]
            while (name := study.part(chain[-1].dataset).backbone(chain[-1].backbone).recipe) in study.recipes:
                first = study.recipes[name].begins_with.first_run(chain[-1])
                if first is None:
                    break
                if first.folder not in folders:
                    yield (
                        f"{at} begins with the run {first.folder}, which this study does not train. "
                        f"{did_you_mean(first.folder, folders)} Add it to the study, or set `begins_with` in the "
                        "recipe to other weights."
                    )
                    break
                if (first.dataset, first.backbone) in [(run.dataset, run.backbone) for run in chain]:
                    yield (
                        f"{at} begins with {first.folder}, which has the same recipe and would begin with itself. "
                        "`begins_with: {file: ...}` begins with a finished run's model.safetensors."
                    )
                    break
                chain.append(first)


def _splits_badly(name: str, recipe: Recipe, compute: Compute) -> Iterator[str]:
    share, rest = divmod(recipe.batch_size, compute.processes)
    by = f"compute.gpus {compute.gpus} x compute.nodes {compute.nodes}"
    if rest:
        yield (
            f"recipes.{name}.batch_size: {recipe.batch_size} is not divisible by {by} = {compute.processes} processes."
        )
    elif compute.images_per_process and share > compute.images_per_process and share % compute.images_per_process:
        yield (
            f"recipes.{name}.batch_size: {recipe.batch_size} gives each of {compute.processes} processes {share} "
            f"images, which is not divisible by compute.images_per_process {compute.images_per_process}."
        )
    elif (recipe.mixup or recipe.cutmix) and compute.processes > 1 and share % 2:
        yield (
            f"recipes.{name}.batch_size: mixup and cutmix mix pairs of images within a process, but "
            f"{recipe.batch_size} gives each of {compute.processes} processes an odd number, {share}."
        )
    if recipe.sync_batchnorm and compute.device == "cpu" and compute.processes > 1:
        yield (
            f"recipes.{name}.sync_batchnorm: torch synchronises BatchNorm only on GPUs, but compute.device is 'cpu'; "
            "set it to false or train with one process."
        )


def _describe(detail: Any) -> list[str]:
    where = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return [f"{where}: unknown key. {did_you_mean(str(detail['loc'][-1]), _siblings(detail['loc']))}"]
    if detail["type"] == "missing":
        return [f"{where}: this required key is missing."]
    if detail["type"] == "value_error":
        lines = str(detail["ctx"]["error"]).splitlines()
        return [f"{where}: {line}" if where else line for line in lines]
    found = detail.get("ctx", {}).get("value", detail["input"])
    hint = f' For text, write "{found}" in quotes.' if detail["type"] == "string_type" and found is not None else ""
    if isinstance(found, bool):
        hint = (
            f" YAML reads {'yes, on' if found else 'no, off'} and {str(found).lower()} like this; put text in quotes."
        )
    return [f"{where}: {detail['msg']} (found {found!r}).{hint}"]


def _place(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _siblings(loc: Sequence[int | str]) -> list[str]:
    """Keys of the section in which a key was found."""
    if issubclass(_SECTIONS.get(str(loc[0]), BaseModel), StudyPart) and len(loc) > 2:
        return _siblings(loc[1:])
    named = loc[0] in ("supervisions", "transfer")
    place = ".".join("*" if i == 1 and named else str(part) for i, part in enumerate(loc[:-1]))
    if "begins_with" in loc[:-1]:
        place = "begins_with"
    keys = {re.split(r"[\[/]", name)[0]: list(model.model_fields) for name, model in _SECTIONS.items()}
    keys |= {"recipes": list(Recipe.model_fields), "transfer_recipes": list(TransferRecipe.model_fields)}
    return keys.get(place, keys.get(place.split(".")[0], []))


def _expand(path: Path | str | None) -> Path | None:
    """A path with ~ and environment variables replaced; ValueError for a variable or user that does not exist."""
    if path is None:
        return None
    expanded = os.path.expanduser(os.path.expandvars(path))
    if unset := re.search(r"\$(\w+|\{[^}]*\})", expanded):
        raise ValueError(f"{str(path)!r}: the environment variable {unset[0]} is not set")
    if expanded.startswith("~"):
        raise ValueError(f"{str(path)!r}: there is no user {expanded.split('/')[0]!r} whose home folder this could be")
    return Path(expanded)


def _recipes_named(config: Mapping[str, Any]) -> list[str]:
    """Names of the recipes in a configuration that was not checked yet."""
    parts = (config, config.get("coco"), config.get("folder"))
    lists = [part.get("backbones") for part in parts if isinstance(part, dict)]
    backbones = [backbone for several in lists if isinstance(several, list) for backbone in several]
    return list(dict.fromkeys(str(one.get("recipe")) for one in backbones if isinstance(one, dict)))


def _update(base: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _update(base[key], value)
        else:
            base[key] = value


def _plain_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_type(arguments[0])
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (UnionType, Union):
        return " or ".join(_plain_type(part).replace("NoneType", "null") for part in arguments)
    if origin is not None:
        parts = ", ".join(_plain_type(part) for part in arguments if part is not Ellipsis)
        return f"{origin.__name__} of {parts}"
    return str(annotation.__name__)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{json.dumps(json.loads(json.dumps(field.default, default=str)))}`"
