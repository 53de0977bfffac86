# The study as one graph. `snakemake -n` shows the plan; any file below results/ is a target.
#
#   config/*.yaml ─┬─ fetch ── unpack ── manifest ─┐
#                  │                     └── pack ─┤   (pack: only if the config has `packing`)
#                  └─ fetch ── index ─── targets ──┴─ train ── predict ── score ── collect ─┬─ tables
#                                                                                           └─ figures
#   results/
#     runs/imagenet/<backbone>/<supervision>-<lambda>/seed<k>/
#       model.safetensors  log.csv  run.json
#       predictions/<test set>.parquet  predictions/<suite>.json
#       scores/<benchmark>.json
#     transfer/<transfer>/<backbone>/<supervision>-<lambda>/seed<k>/    only if the config has `transfer`
#       model.safetensors  log.csv  run.json  predictions.{parquet,json}  scores.csv  per_image.parquet
#     scores.csv  transfer.csv        every number, tidy
#     tables/<name>.{csv,md,tex}      figures/<name>.{pdf,png}      report.html
#     dvc.yaml  metrics/  plots/      for DVC      ro-crate-metadata.json
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")

if Path.cwd() != Path(workflow.basedir).resolve():
    raise WorkflowError(
        f"Expected to run in the checkout, {workflow.basedir}, found the working folder {Path.cwd()}. Call Snakemake "
        "there, without --directory, and name the folders for data and results in a configuration file: "
        "paths: {data: ..., results: ...}."
    )


configfile: "config/config.yaml"


# Predictions of one run, and its scores, may share a job on a cluster (group-components in the profile), where they run
# one after another.
resource_scopes:
    one_at_a_time="local",


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/transfer.smk"
include: "workflow/rules/render.smk"
include: "workflow/rules/track.smk"


onstart:
    NEEDED = [(job.rule.name, dict(job.wildcards.items())) for job in workflow.dag.needrun_jobs()]
    try:
        PLAN.preflight(
            [wildcards["dataset"] for name, wildcards in NEEDED if name == "manifest"],
            [wildcards["archive"] for name, wildcards in NEEDED if name == "fetch"],
        )
    except AnyLuabError as mistake:
        raise WorkflowError(str(mistake))


onsuccess:
    luab_records.export_records(RECORDS)


# With --quiet, Snakemake does not say why a job failed.
onerror:
    if workflow.output_settings.quiet:
        print(luab_plan.failed_logs(workflow.scheduler.failed), file=sys.stderr)


rule prepared:
    input:
        PLAN.prepared(),


rule all:
    default_target: True
    input:
        all_tables(),
        all_figures(),
        f"{SHOWN}/report.html",
        PLAN.transfers.finished(),
        PLAN.descriptions(),
