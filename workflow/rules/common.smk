# What the rules ask: the checked study, its paths, and which file depends on which. No rules here.
import sys
from pathlib import Path

import luab.config as luab_config
import luab.paths as luab_paths
import luab.plan as luab_plan
import luab.provenance as luab_provenance
from luab.errors import LuabError as AnyLuabError

try:
    STUDY = luab_config.parse_study(config)
    PLAN = luab_plan.Plan.of(STUDY)
except AnyLuabError as mistake:
    raise WorkflowError(str(mistake))

DATA, RESULTS = str(STUDY.paths.data), str(STUDY.paths.results)
CODE = luab_provenance.code_digest

if workflow.is_main_process:
    logger.info(luab_plan.summary(STUDY))
    if hint := luab_plan.lock_hint(sys.argv):
        logger.error(hint)
luab_plan.prepare_jobs(STUDY, checkout=Path(workflow.basedir))


wildcard_constraints:
    run=r"imagenet/[^/]+/[a-z]+-[^/]+/seed\d+",
    dataset=r"\w+",
    byproducts=r"imagenet_ab|coco_ab",
    taught=r"imagenet|coco",
    archive=r"[\w.-]+",
    supervision=r"[a-z]+",
    name=r"\w+",


def run_of(wildcards):
    return luab_paths.Run.parse(wildcards.run)


def recipe_of(wildcards):
    recipe = STUDY.recipe(run_of(wildcards).backbone).model_dump_json()
    return recipe if STUDY.decoding == "exact" else f"{recipe} {STUDY.decoding}"


def training_inputs(wildcards):
    supervision = run_of(wildcards).supervision
    targets = [] if supervision == "none" else [f"{DATA}/targets/imagenet/{supervision}.json"]
    return [*images_for_training(), *targets]


def images_for_training():
    packs = [f"{DATA}/packs/imagenet_train.json"] if STUDY.packing else []
    return [f"{DATA}/manifests/imagenet_train.json", *packs]


def all_prepared():
    manifests = [card for suite in STUDY.suites for card in PLAN.suite_manifests(suite.name)]
    targets = [f"{DATA}/targets/imagenet/{name}.json" for name in STUDY.supervisions if name != "none"]
    return [*images_for_training(), *dict.fromkeys(manifests), *targets]


def all_scores():
    return [f"{RESULTS}/runs/{run.folder}/scores/{name}.json" for run in STUDY.runs() for name in STUDY.benchmarks]


def all_tables():
    return [f"{RESULTS}/tables/{name}.{suffix}" for name in PLAN.tables for suffix in ("csv", "md", "tex")]


def all_figures():
    return [f"{RESULTS}/figures/{name}.{suffix}" for name in PLAN.figures for suffix in ("pdf", "png")]
