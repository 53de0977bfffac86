"""`luab sanity`: a pretrained model on the user's own data, ours beside the published numbers.

A number that agrees says that images, class order, preprocessing and formula are right; one that does not agree says so
before weeks of training.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import timm
from rich import box
from rich.console import Console
from rich.table import Table
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from luab.benchmarks.catalogue import find_benchmark, test_sets_of
from luab.benchmarks.score import score
from luab.data.manifests.testsets import TEST_SETS
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import read_json
from luab.model import LuabModel, build_model
from luab.predict import Predictor
from luab.study.config import Recipe, Study
from luab.study.paths import DATASET
from luab.training.pretrained import download, put_into, read_backbone

EXPECTED = Path("config/expected.csv")
COLUMNS = ("model", "benchmark", "metric", "value", "tolerance", "source")


class Expected(NamedTuple):
    """One published number, in percent, and how far from it ours may lie."""

    model: str
    benchmark: str
    metric: str
    value: float
    tolerance: float
    source: str


class Verdict(NamedTuple):
    """A published number with ours; None where the data for it are not at hand."""

    expected: Expected
    ours: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether ours lies within the tolerance."""
        if self.ours is None:
            return None
        return abs(self.ours - self.expected.value) <= self.expected.tolerance + 1e-9


def sanity(
    study: Study, backbone: str, weights: Path | None = None, expected: Path = EXPECTED, only: Iterable[str] = ()
) -> list[Verdict]:
    """Predicts with a pretrained model whatever test sets have a manifest, and scores it like any run.

    Predictions and scores are kept below results/sanity/<backbone>/.

    Args:
        study: Its data paths are used; its runs are not.
        backbone: timm name with its tag, for example resnet50.tv_in1k, or a name from the study's backbones, which
            then is seen by its recipe.
        weights: A safetensors file; without it that of timm's collection on the Hugging Face hub, from the cache
            where it is there. Nothing is ever unpickled.
        expected: Table of published numbers, see COLUMNS.
        only: Benchmarks; all that the table has for this model by default.

    Returns:
        A verdict for each number of the table for this model.

    Raises:
        ConfigError: The table has nothing for the model, or the model wants another view of images than luab gives.
        DataError: The weights are not at hand or another model's, or no manifest is there at all.
    """
    table, chosen = read_expected(expected), set(only)
    wanted = [row for row in table if row.model == backbone and (not chosen or row.benchmark in chosen)]
    if not wanted:
        near = did_you_mean(backbone, {row.model for row in table})
        raise ConfigError(f"{expected}: expected a number for {backbone!r}, found none. {near}")
    there = [name for name in dict.fromkeys(row.benchmark for row in wanted) if _has_data(study, name)]
    if not there:
        names = ", ".join(dict.fromkeys(row.benchmark for row in wanted))
        raise DataError(
            f"{study.layout.manifest_folder()}: expected manifests for any of {names}, found none. Set "
            "`paths.imagenet` and run `luab manifest imagenet_val`, then try again."
        )
    file = weights or download(backbone)
    root = study.paths.results / "sanity" / backbone
    recipe = view_of(study, backbone)
    predictor = Predictor(study, recipe, lambda recipe: _pretrained(backbone, recipe, file))
    predictor.write(root / "predictions", test_sets_of(there))
    identity = {"dataset": DATASET, "backbone": backbone, "supervision": "pretrained", "lambda": 0.0, "seed": 0}
    score(
        there, root / "predictions", study.layout.manifest_folder(), identity, root / "scores",
        recipe.input_px, recipe.crop_pct, study.compute.threads,
    )  # fmt: skip
    found = {name: read_json(root / "scores" / f"{name}.json")["metrics"] for name in there}
    return [Verdict(row, 100 * found[row.benchmark][row.metric] if row.benchmark in found else None) for row in wanted]


def read_expected(path: Path) -> list[Expected]:
    """The table of published numbers.

    Raises:
        DataError: It is missing, has other columns, an unknown benchmark, or a cell that is no number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {reader.fieldnames}.")
            rows = [_expected(row) for row in reader]
    except OSError as error:
        raise DataError(f"{path}: expected a table of published numbers; {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path}: expected numbers in value and tolerance; {error}.") from error
    for row in rows:
        find_benchmark(row.benchmark)
    return rows


def _expected(row: dict[str, str]) -> Expected:
    value, tolerance = float(row["value"]), float(row["tolerance"])
    return Expected(row["model"], row["benchmark"], row["metric"], value, tolerance, row["source"])


def view_of(study: Study, backbone: str) -> Recipe:
    """How the model sees images: by the study's recipe if it is one of its backbones, else as timm evaluates it.

    That is at its test size where it has one: torchvision's second weights were trained at 176 px and judged at 224.

    Raises:
        ConfigError: timm does not know the model, or it wants another normalisation or interpolation than luab has.
    """
    if backbone in study.backbone_names:
        return study.recipe(backbone)
    try:
        config = timm.get_pretrained_cfg(backbone)
    except RuntimeError:  # of a model that it knows, and of one that it does not
        config = None
    if config is None:
        raise ConfigError(f"{backbone!r}: timm {timm.__version__} knows no such weights. Try resnet50.tv_in1k.")
    input_size, crop_pct = config.test_input_size or config.input_size, config.test_crop_pct or config.crop_pct
    usual = (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD), "bilinear")
    if (tuple(config.mean), tuple(config.std), config.interpolation) != usual:
        raise ConfigError(
            f"{backbone}: its images are resized by {config.interpolation} interpolation and normalised by mean "
            f"{config.mean}, deviation {config.std}; luab evaluates by bilinear interpolation with ImageNet's mean and "
            "deviation, so the published numbers would not come out. Take torchvision's weights (tv_in1k)."
        )
    return Recipe.model_construct(input_px=input_size[-1], crop_pct=crop_pct, model_kwargs={})


def _pretrained(backbone: str, recipe: Recipe, file: Path) -> LuabModel:
    """The classifier with weights from a file of timm, or of luab, whose point head is left out."""
    model = build_model(backbone, recipe, outputs=0)
    put_into(model.backbone, read_backbone(file), f"{file}: expected the weights of {backbone}")
    return model


def _has_data(study: Study, benchmark: str) -> bool:
    entry = find_benchmark(benchmark)
    manifests = {name for test_set in entry.test_sets for name in TEST_SETS[test_set].manifests} | set(entry.manifests)
    return all(study.layout.manifest(name).is_file() for name in manifests)


def print_verdicts(verdicts: Sequence[Verdict], label: str = "") -> bool:
    """The table for a terminal; whether every number that could be had agrees."""
    title = f"{verdicts[0].expected.model}{f' ({label})' if label else ''}, %"
    table = Table(title=title, box=box.HORIZONTALS, collapse_padding=True, pad_edge=False, show_edge=False)
    for heading in ("benchmark", "metric", "published", "ours", "differs by", "verdict"):
        table.add_column(heading, no_wrap=True, justify="right" if heading not in ("benchmark", "metric") else "left")
    words = {True: "[green]agrees[/]", False: "[red]DIFFERS[/]", None: "[dim]no data[/]"}
    for verdict in verdicts:
        expected, ours = verdict
        numbers = ("–", "–") if ours is None else (f"{ours:.2f}", f"{ours - expected.value:+.2f}")
        published = f"{expected.value:.2f} ± {expected.tolerance:g}"
        table.add_row(expected.benchmark, expected.metric, published, *numbers, words[verdict.agrees])
    console = Console()
    console.print(table)
    console.print("Sources: " + "; ".join(dict.fromkeys(v.expected.source for v in verdicts)), style="dim")
    return all(verdict.agrees is not False for verdict in verdicts)
