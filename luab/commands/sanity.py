"""`luab sanity`: evaluates a pretrained model on the user's data and compares with published numbers.

A number that agrees shows that images, class order, preprocessing and formula are right. One that differs reveals a
mistake before weeks of training.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from rich import box
from rich.table import Table
from timm.data import resolve_data_config

from luab.benchmarks.catalogue import BENCHMARKS, find_benchmark, test_sets_of
from luab.benchmarks.score import score
from luab.data.manifests.testsets import TEST_SETS
from luab.errors import ConfigError, DataError, did_you_mean
from luab.files import read_json, read_number, read_percent, read_rows
from luab.model import LuabModel, build_model
from luab.predict import Predictor
from luab.progress import wide_console
from luab.study.config import Recipe, Study
from luab.study.paths import DATASET
from luab.study.recipes import Preprocessing
from luab.training.checkpoint import preprocessing_in, read_card
from luab.training.pretrained import (
    config_of,
    download,
    is_of_luab,
    preprocessing_from,
    preprocessing_of,
    put_into,
    read_backbone,
)


class Expected(NamedTuple):
    """One published number and its tolerance, both in percent."""

    model: str
    benchmark: str
    metric: str
    value: float
    tolerance: float
    source: str


COLUMNS = Expected._fields


class Verdict(NamedTuple):
    """A published number and ours, in percent; ours is None if its data are missing."""

    expected: Expected
    ours: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether ours is within the tolerance; None without ours."""
        expected, ours = self
        return None if ours is None else abs(ours - expected.value) <= expected.tolerance + 1e-9


def sanity(
    study: Study, backbone: str, weights: Path | None, expected: Path, only: Iterable[str] = ()
) -> list[Verdict]:
    """Predicts all test sets that have a manifest with a pretrained model, and scores it like a run.

    Writes predictions and scores to results/sanity/<backbone>/.

    Args:
        study: Only its data paths are used, and for weights of luab the recipe of the backbone.
        backbone: timm name with its tag, for example resnet50.tv_in1k, or a backbone of the study.
        weights: A safetensors file; None for timm's weights from the Hugging Face Hub or its cache. Pickles are never
            loaded.
        expected: Table of published numbers, with the columns COLUMNS.
        only: Names of benchmarks; empty for all that the table has for this model.

    Returns:
        A verdict for each number of this model in the table.

    Raises:
        ConfigError: The table has no number for the model, or the model needs a preprocessing that luab does not have.
        DataError: The weights are missing or belong to another model, or no manifest exists.
    """
    table, chosen = read_expected(expected), set(only)
    rows = [row for row in table if row.model == backbone and (not chosen or row.benchmark in chosen)]
    if not rows:
        near = did_you_mean(backbone, {row.model for row in table})
        raise ConfigError(f"{expected}: no number for {backbone!r}. {near}")
    requested = dict.fromkeys(row.benchmark for row in rows)
    benchmarks = [name for name in requested if has_data(study, name)]
    if not benchmarks:
        raise DataError(
            f"{study.layout.manifest_folder()}: no manifests for {', '.join(requested)}. Set `paths.imagenet` and run "
            "`luab manifest imagenet_val`, then try again."
        )
    file = weights or download(backbone)
    root = study.paths.results / "sanity" / backbone
    recipe, preprocessing = view_of(study, backbone, file)

    def pretrained(recipe: Recipe) -> LuabModel:
        model = build_model(backbone, recipe, outputs=0)
        put_into(model.backbone, read_backbone(file), f"{file}: expected the weights of {backbone}")
        return model

    Predictor(study, recipe, pretrained, preprocessing).write(root / "predictions", test_sets_of(benchmarks))
    identity = {"dataset": DATASET, "backbone": backbone, "supervision": "pretrained", "lambda": 0.0, "seed": 0}
    score(
        benchmarks, root / "predictions", study.layout.manifest_folder(), identity, root / "scores",
        recipe.input_px, recipe.crop_pct, study.compute.threads,
    )  # fmt: skip
    scores = {name: read_json(root / "scores" / f"{name}.json")["metrics"] for name in benchmarks}
    return [Verdict(row, 100 * scores[row.benchmark][row.metric] if row.benchmark in scores else None) for row in rows]


def read_expected(path: Path) -> list[Expected]:
    """Reads the table of published numbers.

    Raises:
        DataError: The table is missing or malformed, has an unknown benchmark or metric, or a value is not in percent.
    """
    rows = []
    for place, row in read_rows(path, COLUMNS, COLUMNS[:3]):
        name = row["benchmark"]
        if name not in BENCHMARKS:
            raise DataError(f"{place}: there is no benchmark {name!r}. {did_you_mean(name, BENCHMARKS)}")
        value, tolerance = read_percent(row["value"], place, row["metric"]), read_number(row["tolerance"], place)
        rows.append(Expected(row["model"], name, row["metric"], value, tolerance, row["source"]))
    return rows


def view_of(
    study: Study, backbone: str, weights: Path | None = None, described: Mapping[str, Any] | None = None
) -> tuple[Recipe, Preprocessing]:
    """Evaluation preprocessing that pretrained weights need: that of timm's tag, or of the run that luab trained.

    timm's test size is used if there is one: torchvision's second weights are trained at 176 px, evaluated at 224 px.

    Args:
        study: Its recipe of the backbone is used for weights that luab trained and whose card has no recipe.
        backbone: timm name, with or without its tag.
        weights: A safetensors file; None for timm's.
        described: Content of config.json in timm's format, which then takes the place of the tag.

    Raises:
        ConfigError: timm has no such weights, they need a preprocessing that luab does not have, or luab trained them
            in another study.
        DataError: The card of weights that luab trained is damaged.
    """
    if weights is not None and is_of_luab(weights):
        card = read_card(weights)
        preprocessing = preprocessing_in(card, weights)
        return _recipe_of(study, backbone, card, weights).seen_with(preprocessing), preprocessing
    config = (described or {}).get("pretrained_cfg") or config_of(backbone).to_dict()
    if described:
        preprocessing = preprocessing_from(resolve_data_config(pretrained_cfg=config), backbone, "config.json")
    else:
        preprocessing = preprocessing_of(backbone)
    needed = resolve_data_config(pretrained_cfg=config, use_test_size=True)
    if needed["crop_mode"] != "center":
        raise ConfigError(
            f"{backbone} needs the crop mode {needed['crop_mode']!r}; luab crops the centre, so its numbers would "
            "differ from the published ones. Choose other weights."
        )
    kept = {"input_px": needed["input_size"][-1], "crop_pct": needed["crop_pct"]}
    return Recipe.model_construct(**kept, model_kwargs=(described or {}).get("model_args", {})), preprocessing


def _recipe_of(study: Study, backbone: str, card: Mapping[str, Any], weights: Path) -> Recipe:
    """The recipe that weights of luab were trained with, from their card or else from the study."""
    if "recipe" in card:
        try:
            return Recipe.model_validate(card["recipe"])
        except ValidationError as error:
            raise DataError(
                f"{weights}: this version of luab cannot read its recipe ({error.errors()[0]['msg']})."
            ) from error
    if backbone not in study.backbone_names:
        raise ConfigError(
            f"{weights}: luab trained these weights, but {backbone} is not in `backbones`, whose recipe gives "
            "their input size. Pass the study's configuration with --config."
        )
    return study.recipe(backbone)


def manifests_of(benchmark: str) -> set[str]:
    """Names of the manifests that a benchmark needs."""
    entry = find_benchmark(benchmark)
    return {name for test_set in entry.test_sets for name in TEST_SETS[test_set].manifests} | set(entry.manifests)


def has_data(study: Study, benchmark: str) -> bool:
    """Whether all manifests that a benchmark needs exist."""
    return all(study.layout.manifest(name).is_file() for name in manifests_of(benchmark))


def print_verdicts(verdicts: Sequence[Verdict], label: str = "") -> bool:
    """Prints the verdicts as a table; returns whether all numbers with data agree."""
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
    console = wide_console()
    console.print(table)
    console.print("Sources: " + "; ".join(dict.fromkeys(v.expected.source for v in verdicts)), style="dim")
    return all(verdict.agrees is not False for verdict in verdicts)
