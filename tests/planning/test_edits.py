"""Plausible edits of the configuration: each plans what it can and says in one line what it leaves out."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from luab.errors import ConfigError
from luab.planning.plan import Plan, summary
from luab.render.figures.figures import FIGURES
from luab.render.headline import headline_sheets
from luab.render.products import PRODUCTS, Scored, find_product, products_of
from luab.render.tables import render_table
from luab.study.config import Study, load_study, parse_study

Edit = Callable[[dict[str, Any]], Any]
NO_SWEEP = {"backbones": [], "supervisions": [], "lambdas": []}
SWEEP = {"table lambda_sweep", "figure lambda_sweep"}
COMPARED = {"figure robustness_gain", "figure cam_examples", *SWEEP}
BACKGROUND = {"table background_robustness", "figure background_gap", "figure si_score_factors"}
LOCALIZATION = {"table localization", "figure cam_examples"}
COCO = {f"{product.kind} {product.name}" for product in PRODUCTS if product.dataset == "coco" and not product.optional}
IMAGENET = {
    f"{product.kind} {product.name}" for product in PRODUCTS if product.dataset == "imagenet" and not product.optional
}
EVERYTHING = COCO | IMAGENET


def without(suite: str) -> Edit:
    return lambda config: config.update(suites=[one for one in config["suites"] if one["name"] != suite])


def one_benchmark(name: str) -> Edit:
    return lambda config: config.update(suites=[{"name": "one", "benchmarks": [name]}])


def one_coco_benchmark(name: str) -> Edit:
    return lambda config: config["coco"].update(suites=[{"name": "one", "benchmarks": [name]}])


def supervisions(*names: str) -> Edit:
    return lambda config: config.update(supervisions=list(names), sweep=NO_SWEEP)


def coco_supervisions(*names: str) -> Edit:
    return lambda config: config["coco"].update(supervisions=list(names), sweep=None)


def only_coco(config: dict[str, Any]) -> None:
    config.update(backbones=[], suites=[], sweep=None)
    for recipe in config["recipes"].values():
        recipe["begins_with"] = "random"


def one_backbone(config: dict[str, Any]) -> None:
    config.update(backbones=config["backbones"][:1], coco=None)
    config["sweep"].update(backbones=["resnet18"])


EDITS: dict[str, tuple[Edit, set[str]]] = {
    "nothing changed": (lambda config: None, set()),
    "baseline alone": (supervisions("none"), COMPARED),
    "none and random": (supervisions("none", "random"), SWEEP),
    "none and trace": (supervisions("none", "trace"), SWEEP),
    "none and box": (supervisions("none", "box"), SWEEP),
    "no random control": (supervisions("none", "click"), SWEEP),
    "no accuracy suite": (without("accuracy"), set()),
    "no corruption suite": (without("corruption"), {"figure corruption_severity"}),
    "no background suite": (without("background"), BACKGROUND),
    "no localisation suite": (without("localization"), LOCALIZATION),
    "sweep deleted": (lambda config: config.pop("sweep"), SWEEP),
    "sweep null": (lambda config: config.update(sweep=None), SWEEP),
    "sweep without lambdas": (lambda config: config["sweep"].update(lambdas=[]), SWEEP),
    "sweep with the headline's lambda alone": (lambda config: config["sweep"].update(lambdas=[1.0]), SWEEP),
    "sweep on one backbone": (lambda config: config["sweep"].update(backbones=["resnet18"]), set()),
    "only ImageNet": (lambda config: config.update(coco=None), COCO),
    "only COCO": (only_coco, IMAGENET | {"table interfaces", "figure interfaces"}),
    "COCO: baseline alone": (coco_supervisions("none"), {"figure coco_gain_by_size"}),
    "COCO: no random control": (coco_supervisions("none", "click"), set()),
    "COCO: no sweep": (lambda config: config["coco"].pop("sweep"), set()),
    "COCO: only mAP": (one_coco_benchmark("coco_val"), {"table coco_localization", "figure coco_gain_by_size"}),
    "COCO: only sizes": (one_coco_benchmark("coco_size"), {"table coco_localization"}),
    "COCO: only context": (one_coco_benchmark("coco_context"), {"table coco_localization", "figure coco_gain_by_size"}),
    "COCO: only localisation": (
        one_coco_benchmark("coco_localization"), {"table coco_main", "figure coco_gain_by_size"},
    ),
    "one backbone": (one_backbone, COCO),
    "one seed": (lambda config: config.update(seeds=[0]), set()),
    "only imagenet_val": (
        one_benchmark("imagenet_val"), BACKGROUND | LOCALIZATION | {"figure corruption_severity"},
    ),
    "only imagenet_v2": (
        one_benchmark("imagenet_v2"), BACKGROUND | LOCALIZATION | SWEEP | {"figure corruption_severity"},
    ),
    "only imagenet_c": (one_benchmark("imagenet_c"), BACKGROUND | LOCALIZATION),
    "only in9": (
        one_benchmark("in9"),
        LOCALIZATION | {"table imagenet_main", "figure corruption_severity", "figure si_score_factors"},
    ),
    "only siscore_size": (
        one_benchmark("siscore_size"),
        LOCALIZATION | SWEEP | {"table imagenet_main", "figure corruption_severity", "figure background_gap"},
    ),
    "only wsol_test": (one_benchmark("wsol_test"), BACKGROUND | {"table imagenet_main", "figure corruption_severity"}),
    "an alternative protocol alone": (
        one_benchmark("imagenet_a_1000way"),
        BACKGROUND | LOCALIZATION | SWEEP
        | {"table imagenet_main", "figure robustness_gain", "figure corruption_severity"},
    ),
    "absolute paths": (lambda config: config["paths"].update(data="/else/data", results="/else/results"), set()),
    "a results folder with a blank": (lambda config: config["paths"].update(results="my results"), set()),
    "packed images": (lambda config: config.update(packing={"shard_mb": 10}), set()),
    "exact decoding": (lambda config: config.update(decoding="exact"), set()),
    "own copies": (lambda config: config["paths"].update(imagenet="/in", copies={"objectnet": "/on"}), set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def full(repository: Path) -> dict[str, Any]:
    return load_study(["config/config.yaml"], repository).model_dump(mode="json")


@pytest.fixture
def edited(full: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], Plan]:
    monkeypatch.chdir(repository)

    def build(edit: Edit) -> Plan:
        config = copy.deepcopy(full)
        edit(config)
        return Plan.of(parse_study(config))

    return build


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_plans_what_it_can_and_names_the_rest(name: str, edited: Callable[[Edit], Plan]) -> None:
    edit, omitted = EDITS[name]
    plan = edited(edit)
    planned = {*(f"table {name}" for name in plan.tables), *(f"figure {name}" for name in plan.figures)}
    assert planned == EVERYTHING - omitted - {"section byproduct_browser"}
    line = summary(plan.study).partition("Left out: ")[2]
    assert "\n" not in line and all(product in line for product in omitted)
    assert bool(line) == bool(omitted)
    cards = [*plan.report_inputs(), *plan.crate_inputs(), *plan.tracking_inputs(), *plan.prepared(), *plan.scores()]
    assert len(cards) > 20 and all(cards)


DETAILS = [
    *(("imagenet_c", f"{name}/{s}") for name in ("fog", "snow") for s in (1, 2)),
    *(("siscore_size", "0.1"), ("siscore_size", "0.5"), ("siscore_rotation", "1")),
    *(("siscore_location", f"{x},0.5") for x in (0.25, 0.75)),
    *(("coco_size", name) for name in ("small", "medium", "large")),
]
UNDRAWN = ("absolute paths", "a results folder with a blank", "packed images", "exact decoding", "own copies")
"""Edits that change no score."""
QUICK = ("baseline alone", "no localisation suite", "sweep null", "only imagenet_val", "COCO: only context")
DRAWN = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EDITS if n not in UNDRAWN]


def small(config: dict[str, Any]) -> None:
    """Two seeds, one backbone and two lambdas, which are drawn like any others."""
    config["seeds"] = config["seeds"][:2]
    for part in (config, config["coco"] or {}):
        keep = [one for one in part.get("backbones", []) if one["name"] == "resnet50"]
        part["backbones"] = keep or part.get("backbones", [])[:1]
        if part.get("sweep"):
            part["sweep"]["backbones"] = [one["name"] for one in part["backbones"]]
            part["sweep"]["lambdas"] = part["sweep"].get("lambdas", [])[:2]


def stored_scores(study: Study) -> pd.DataFrame:
    """Scores of every run of a study, as the benchmarks would give them."""
    shown = {q for product in PRODUCTS if isinstance(product.needs, Scored) for q in product.needs.quantities}
    keys = [(q.key, q.needs_point) for q in sorted(shown, key=lambda quantity: quantity.key)]
    keys += [((name, "accuracy", group), False) for name, group in DETAILS]
    draw = np.random.default_rng(0)
    rows = [
        (*run.identity().values(), *key, draw.uniform(0.3, 0.7), 100, "by hand")
        for run in study.runs()
        for key, point in keys
        if key[0] in study.part(run.dataset).benchmarks and not (point and run.supervision == "none")
    ]
    names = ["dataset", "backbone", "supervision", "lambda", "seed", "benchmark", "metric", "group", "value", "n"]
    return pd.DataFrame(rows, columns=[*names, "protocol"])


@pytest.mark.parametrize("name", DRAWN)
def test_an_edit_is_drawn_from_stored_scores(name: str, edited: Callable[[Edit], Plan], tmp_path: Path) -> None:
    """What passes `-n` must not fail after all trainings."""

    def edit(config: dict[str, Any]) -> None:
        EDITS[name][0](config)
        small(config)
        config["paths"]["results"] = str(tmp_path)

    study = edited(edit).study
    scores = study.layout.scores_csv()
    stored_scores(study).to_csv(scores, index=False)
    drawn = []
    for product in [*products_of(study, "table"), *products_of(study, "figure")]:
        if not product.from_scores:
            continue
        inputs = product.inputs(study)
        if product.kind == "table":
            files = [study.layout.table(product.name, suffix) for suffix in ("csv", "md", "tex")]
            render_table(product.name, *files, inputs)
        else:
            FIGURES[product.name](product, inputs)
        drawn.append(product.name)
    assert drawn
    sheets = headline_sheets(study)
    assert len(sheets) <= len(study.parts) and all(sheet.rows for sheet in sheets)


def test_finer_score_maps_are_shown_where_a_suite_has_them(edited: Callable[[Edit], Plan]) -> None:
    def finer(config: dict[str, Any]) -> None:
        next(one for one in config["suites"] if "wsol_test" in one["benchmarks"])["benchmarks"] += ["wsol_test_stride1"]

    for edit, name in ((lambda config: None, "wsol_test"), (finer, "wsol_test_stride1")):
        inputs = find_product("figure", "cam_examples").inputs(edited(edit).study)
        assert [path.stem for _, path in inputs.predictions] == [name] * 2


def test_a_product_that_is_left_out_is_refused_by_name(edited: Callable[[Edit], Plan]) -> None:
    study = edited(without("localization")).study
    with pytest.raises(ConfigError, match=r"figure cam_examples is not part of this study: it requires .*wsol_test"):
        find_product("figure", "cam_examples").inputs(study)


def test_a_study_of_nothing_and_one_without_suites_are_refused(edited: Callable[[Edit], Plan]) -> None:
    with pytest.raises(ConfigError, match="backbones: the study trains nothing"):
        edited(lambda config: config.update(backbones=[], suites=[], sweep=None, coco=None))
    with pytest.raises(ConfigError, match="suites: at least one suite is required"):
        edited(lambda config: config.update(suites=[]))


def test_archives_are_read_from_the_configured_list(edited: Callable[[Edit], Plan], tmp_path: Path) -> None:
    listing = tmp_path / "archives.yaml"
    shutil.copy("config/archives.yaml", listing)
    text = listing.read_text(encoding="utf-8")
    listing.write_text(text.replace("dataset: imagenet_v2", "dataset: imagenet_sketch"), encoding="utf-8")
    plan = edited(lambda config: config["paths"].update(archives=str(listing)))
    assert len(plan.trees("imagenet_sketch")) > 0 and not plan.trees("imagenet_v2")
