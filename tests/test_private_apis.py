"""Each private API of another package that luab uses, so that an upgrade which changes one fails here by name.

A failure says which file to look at. Once luab no longer uses an API, remove its test.
"""

import importlib
import importlib.metadata
import inspect
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from luab.provenance.snakemake_records import export_records, import_records, read_records

LONG = "results/runs/" + "a" * 300 + "/run.json"


def check(holds: bool, name: str, advice: str) -> None:
    """Fails with the name of the API and a sentence about what to look at."""
    assert holds, f"{name} has changed or is gone. {advice}"


def test_submitit_requeues_and_runs_jobs_by_these_functions() -> None:
    from submitit.core.submission import process_job
    from submitit.slurm.slurm import SlurmJobEnvironment

    advice = "Look at start.py of the executor plugin, which replaces it, so that a refused requeue is no failure."
    requeue = getattr(SlurmJobEnvironment, "_requeue", None)
    check(callable(requeue), "submitit.slurm.slurm.SlurmJobEnvironment._requeue", advice)
    assert requeue is not None
    name = "submitit.slurm.slurm.SlurmJobEnvironment._requeue"
    check(list(inspect.signature(requeue).parameters) == ["self", "countdown"], name, advice)
    check(list(inspect.signature(process_job).parameters) == ["folder"], "submitit's process_job", advice)


def test_snakemakes_scheduler_keeps_failed_jobs_and_the_wish_to_stop() -> None:
    from snakemake.scheduling.job_scheduler import JobScheduler

    source = inspect.getsource(JobScheduler)
    advice = "Look at _leave_on_sigterm in the executor plugin, and at onerror in the Snakefile."
    check("self._user_kill = " in source, "JobScheduler._user_kill", advice)
    check("self.failed" in source, "JobScheduler.failed", advice)


def test_timm_mixup_draws_its_parameters_by_a_private_method() -> None:
    draw: Any = getattr(timm.data.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0), "_params_per_batch", None)
    advice = "Look at PointMixup in luab/objective.py: it needs the mixing weight and whether CutMix was chosen."
    check(callable(draw), "timm.data.Mixup._params_per_batch", advice)
    np.random.seed(0)
    share, use_cutmix = draw()
    check(isinstance(share, float) and isinstance(use_cutmix, bool), "timm.data.Mixup._params_per_batch", advice)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cutmix_bbox_and_lam", ["img_shape", "lam"]),
        ("mixup_target", ["target", "num_classes", "lam", "smoothing"]),
    ],
)
def test_timm_functions_of_mixup_that_timm_data_does_not_export(name: str, arguments: list[str]) -> None:
    function = getattr(importlib.import_module("timm.data.mixup"), name, None)
    advice = "Look at PointMixup in luab/objective.py, which calls it with these arguments."
    check(function is not None, f"timm.data.mixup.{name}", advice)
    assert function is not None
    check(
        list(inspect.signature(function).parameters)[: len(arguments)] == arguments, f"timm.data.mixup.{name}", advice
    )


def test_timm_crop_parameters_come_from_a_static_method() -> None:
    crop = timm.data.transforms.RandomResizedCropAndInterpolation
    arguments = list(inspect.signature(crop.get_params).parameters)
    advice = "Look at luab/data/images/crops.py, which draws the training crop from an image's size only."
    check(arguments == ["img", "scale", "ratio"], "timm.data.transforms.RandomResizedCropAndInterpolation", advice)


def test_timm_writes_the_hub_config_by_a_private_module() -> None:
    hub = importlib.import_module("timm.models._hub")
    function = getattr(hub, "save_config_for_hf", None)
    advice = "Look at luab/commands/export.py: it writes config.json, which timm's `hf-hub:` loader reads."
    check(function is not None, "timm.models._hub.save_config_for_hf", advice)
    assert function is not None
    arguments = {"model", "config_path", "model_config", "model_args"}
    check(arguments <= set(inspect.signature(function).parameters), "timm.models._hub.save_config_for_hf", advice)


@pytest.mark.parametrize("name", ["blocks", "num_prefix_tokens", "cls_token"])
def test_timm_vit_attributes(name: str) -> None:
    advice = "Look at luab/cam.py: without it a ViT gets no score maps."
    check(hasattr(timm.create_model("test_vit"), name), f"timm VisionTransformer.{name}", advice)


@pytest.mark.parametrize("name", ["attn_drop", "fused_attn"])
def test_timm_attention_attributes(name: str) -> None:
    attention = timm.create_model("test_vit").blocks[0].attn
    advice = "Look at luab/cam.py: without it attention_maps silently returns class_maps instead."
    check(hasattr(attention, name), f"timm Attention.{name}", advice)


def test_timm_width_of_the_pooled_feature() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    width = getattr(model, "head_hidden_size", None)
    advice = "Look at LuabModel in luab/model.py: the byproduct head takes its width from it."
    check(width == model.get_classifier().in_features, "timm head_hidden_size", advice)


def test_timm_resnet_takes_an_output_stride() -> None:
    features = timm.create_model("test_resnet", output_stride=16).forward_features(torch.zeros(1, 3, 64, 64))
    advice = "Look at Predictor in luab/predict.py: wsol_test_stride1 needs a last stage at stride 1."
    check(features.shape[-1] == 4, "timm ResNet(output_stride=16)", advice)


def test_torchrun_starts_from_a_function() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="torchrun")
    advice = "Look at _torchrun in luab/training/processes.py, which calls torchrun in a thread of its own."
    check(entry.value == "torch.distributed.run:main", "torch.distributed.run.main", advice)
    check(list(inspect.signature(entry.load()).parameters) == ["args"], "torch.distributed.run.main", advice)


def test_torchrun_reports_the_first_failure() -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    advice = "Look at _torchrun in luab/training/processes.py, which notes rank and exit status of the failed process."
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=-9, error_file="<N/A>")
    rank, first = ChildFailedError("train", {1: failure}).get_first_failure()
    check((rank, first.exitcode) == (1, -9), "torch ChildFailedError.get_first_failure", advice)


def test_torch_loggers_are_named_after_their_modules() -> None:
    importlib.import_module("torch.distributed.run")
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]
    advice = (
        "Look at _torchrun in luab/training/processes.py: it silences them, or torchrun fills the log of a training."
    )
    check(len(names) > 0, 'Loggers named "torch.distributed..."', advice)


def test_gloo_names_itself_in_its_errors() -> None:
    from torch import distributed

    advice = "Look at _is_lost_process in luab/training/distributed.py: a lost process would be reported as a bug."
    check(issubclass(distributed.DistError, RuntimeError), "torch.distributed.DistError", advice)


@pytest.fixture
def persistence(tmp_path: Path) -> Any:
    """Snakemake's own store of records, in a new folder."""
    module = importlib.import_module("snakemake.persistence.file")
    advice = "Look at luab/provenance/snakemake_records.py, which reads and writes the same files."
    check(hasattr(module, "FilePersistence"), "snakemake.persistence.file.FilePersistence", advice)
    return module.FilePersistence(path=tmp_path / ".snakemake")


@pytest.mark.parametrize("output", ["results/scores.csv", LONG])
def test_snakemake_records_are_json_files_named_by_their_output(persistence: Any, tmp_path: Path, output: str) -> None:
    module = importlib.import_module("snakemake.persistence")
    record = module.MetadataRecord(rule="collect", input=["a"], params=["1"], incomplete=False)
    persistence._write_record(output, record)
    kept, metadata = tmp_path / "provenance.jsonl", tmp_path / ".snakemake" / "metadata"
    advice = "Look at luab/provenance/snakemake_records.py: a clone would retrain instead of using pulled results."
    check(export_records(kept, metadata) == 1, "snakemake's .snakemake/metadata", advice)
    (line,) = read_records(kept)
    check((line["output"], line["rule"]) == (output, "collect"), "snakemake's .snakemake/metadata", advice)
    persistence._delete_record(output)
    check(import_records(kept, metadata) == 1, "snakemake's .snakemake/metadata", advice)
    check(persistence._read_record(output) == record, "snakemake's .snakemake/metadata", advice)


def test_snakemake_record_format() -> None:
    version = importlib.import_module("snakemake.persistence").RECORD_FORMAT_VERSION
    advice = (
        "Look at the changes in its MetadataRecord, then at results/provenance.jsonl: Snakemake ignores the parameters "
        "of records of an older format, so pulled results may be made again."
    )
    check(version == 6, "snakemake.persistence.RECORD_FORMAT_VERSION", advice)


def test_snakemake_locks_are_files(persistence: Any, tmp_path: Path) -> None:
    persistence._write_locks("output", ["results/a"])
    advice = "Look at lock_hint and free_lock in luab/planning/plan.py, and at controller.py of the executor plugin."
    check(any((tmp_path / ".snakemake" / "locks").glob("*.lock")), "snakemake's .snakemake/locks/*.lock", advice)


@pytest.mark.parametrize("name", ["is_main_process", "basedir"])
def test_snakemake_workflow_attributes(name: str) -> None:
    importlib.import_module("snakemake.api")  # first: snakemake.workflow cannot be imported alone
    workflow = importlib.import_module("snakemake.workflow").Workflow
    check(hasattr(workflow, name), f"workflow.{name}", "Look at workflow/rules/common.smk, which reads it.")


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("Job", "attempt is_group jobid resources rules threads wildcards_dict input output params rule"),
        ("GroupJob", "attempt is_group jobid jobs resources rules threads"),
    ],
)
def test_snakemake_jobs_as_the_executor_plugin_reads_them(name: str, members: str) -> None:
    job = getattr(importlib.import_module("snakemake.jobs"), name)
    source = inspect.getsource(job)
    for member in members.split():
        known = hasattr(job, member) or f'"{member}"' in source or f"self.{member} =" in source
        advice = "Look at plugins/snakemake-executor-plugin-submitit, which reads it of every job."
        check(known, f"snakemake.jobs.{name}.{member}", advice)


def test_torch_loader_lists_its_processes() -> None:
    loader: Any = iter(torch.utils.data.DataLoader(list(range(4)), num_workers=1))
    advice = "Look at speed/loader.py, which measures the memory of the loader's processes."
    check(len(getattr(loader, "_workers", [])) == 1, "torch DataLoader iterator._workers", advice)
