# The checked study, its paths and its dependencies, for the rules. Contains no rules.
import sys
from pathlib import Path

import luab.study.config as luab_config
import luab.study.paths as luab_paths
import luab.planning.plan as luab_plan
import luab.provenance.code as luab_provenance
import luab.provenance.snakemake_records as luab_records
import luab.tasks as luab_tasks
from luab.errors import LuabError as AnyLuabError

try:
    luab_config.check_files(workflow.configfiles)
    STUDY = luab_config.parse_study(config)
    PLAN = luab_plan.Plan.of(STUDY)
except AnyLuabError as mistake:
    raise WorkflowError(str(mistake))

DATA, RESULTS, SHOWN = (str(path) for path in (STUDY.paths.data, STUDY.paths.results, STUDY.layout.shown))
CODE = luab_provenance.code_digest

RECORDS = STUDY.paths.results / luab_records.PROVENANCE

if workflow.is_main_process:
    try:
        luab_records.import_records(RECORDS)
    except AnyLuabError as mistake:
        raise WorkflowError(str(mistake))
    logger.info(luab_plan.summary(STUDY))
    if freed := luab_plan.free_lock(sys.argv):
        logger.info(freed)
    if hint := luab_plan.lock_hint(sys.argv):
        logger.error(hint)
luab_plan.prepare_jobs(STUDY, checkout=Path(workflow.basedir))


# Part of shell commands, so no character here may have a meaning in a shell.
TASKS = "|".join(luab_tasks.NAMES)
BELOW_DATASET = r"[A-Za-z0-9_][A-Za-z0-9_.]*/[a-z0-9_]+-[0-9][0-9.e+-]*/seed[0-9]+"


wildcard_constraints:
    run=f"({TASKS})/{BELOW_DATASET}",
    dataset=r"[a-z0-9_]+",
    byproducts="|".join(luab_tasks.task_of(name).byproducts for name in luab_tasks.NAMES),
    taught=TASKS,
    fine_tuning=f"[a-z0-9_]+/{BELOW_DATASET}",
    archive=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    target=r"[a-z0-9_]+",
    name=r"[a-z0-9_]+",


def run_of(wildcards):
    return luab_paths.Run.parse(wildcards.run)


def files_of(runs, *names):
    return [f"{RESULTS}/runs/{run.folder}/{name}" for run in runs for name in names]


def images_of(run):
    return PLAN.own_copy(f"{run.dataset}_train")


def dense_files(ones, *names):
    return [f"{RESULTS}/transfer/{one.folder}/{name}" for one in ones for name in names]


def dense_job(wildcards):
    return PLAN.transfers.named(wildcards.fine_tuning)


def all_tables():
    return [f"{SHOWN}/tables/{name}.{suffix}" for name in PLAN.tables for suffix in ("csv", "md", "tex")]


def all_figures():
    return [f"{SHOWN}/figures/{name}.{suffix}" for name in PLAN.figures for suffix in ("pdf", "png")]
