"""Settings of the plugin: the options --submitit-... of `snakemake --help`."""

# No `from __future__ import annotations` here: Snakemake calls the types of the fields.
from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

from .resources import COMMENT_FIELDS, COMMENT_TEMPLATE, GPU_OPTIONS, NAME_FIELDS, NAME_TEMPLATE, template_problem

_LEAST_S = {"poll_seconds": 0.2, "queue_seconds": 1, "retry_seconds": 1, "submit_seconds": 0}


def _setting(default, help_text, **metadata):  # type: ignore[no-untyped-def]
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings of the executor; the defaults suit a busy cluster."""

    cluster: str = _setting(
        "slurm",
        "Where jobs run: slurm, or local (processes on this machine, which all see the same GPUs; limit those that run "
        "at the same time with `--resources gpu=1`).",
        choices=["slurm", "local"],
    )
    folder: str = _setting(
        ".snakemake/submitit", "Folder for logs and the records of live jobs; must be shared with the nodes."
    )
    array_max: int = _setting(500, "Maximum number of jobs in one array; 1 submits each job separately.")
    array_parallel: int = _setting(
        0, "Maximum number of elements of one array that run at the same time; 0: no limit but Slurm's."
    )
    gpu_option: str = _setting(
        "gpus-per-node",
        "Option of sbatch that requests GPUs on this cluster; gpus counts those of the whole job.",
        choices=list(GPU_OPTIONS),
    )
    gpu_partition: str = _setting(
        "", "Partition of jobs that request GPUs, unless they have `slurm_partition`; the default one if empty."
    )
    cpu_partition: str = _setting(
        "", "Partition of jobs that request no GPUs, unless they have `slurm_partition`; the default one if empty."
    )
    memory_overhead_mb: int = _setting(
        400, "Memory added to mem_mb of each job for the Snakemake process that runs it on the node."
    )
    memory_factor: float = _setting(
        0.0,
        "Request this multiple of the peak memory that completed jobs of the same rule, threads and mem_mb had, but at "
        "most mem_mb; retries request mem_mb. 0: always mem_mb.",
    )
    default_runtime: int = _setting(60, "Time limit, in minutes, of jobs without `runtime`.")
    warning_seconds: int = _setting(
        90, "Seconds before the time limit at which a job receives SIGUSR2; never before half of its time."
    )
    max_timeouts: int = _setting(3, "How often a job is continued after reaching its time limit.")
    requeue_timeouts: str = _setting(
        "handled",
        "Which jobs continue after a time limit: handled (those that exit by themselves on the warning), always or "
        "never.",
        choices=["handled", "always", "never"],
    )
    no_requeue: bool = _setting(
        False,
        "Slurm does not restart jobs, neither after a preemption nor after a time limit; they fail, and Snakemake's "
        "retries start them again. `slurm_requeue=True` and `slurm_no_requeue=True` decide for one rule.",
    )
    poll_seconds: float = _setting(
        5.0, "Seconds between two checks for result files, at least 0.2; these do not call Slurm."
    )
    queue_seconds: float = _setting(10.0, "Seconds between two squeue calls after a job changed its state; at least 1.")
    queue_seconds_max: float = _setting(60.0, "Seconds between two squeue calls when nothing changes for a long time.")
    result_grace: float = _setting(
        30.0, "Seconds to wait for the result file of a job that ended; increase it on a slow shared file system."
    )
    requeue_grace: float = _setting(
        10.0,
        "Seconds that Slurm has to requeue a failed job before it counts as failed; preemption can take that long.",
    )
    submit_seconds: float = _setting(0.25, "Seconds between two sbatch calls; each submits one array.")
    retry_seconds: float = _setting(5.0, "First wait after a refused submission; doubles each time. At least 1.")
    retry_seconds_max: float = _setting(300.0, "Longest wait between two attempts at a submission.")
    patience_minutes: float = _setting(
        60.0,
        "How long refused submissions are retried before the jobs fail; no limit while your own jobs fill the queue.",
    )
    keep_days: int = _setting(90, "Days after which logs and other files of ended submissions are removed.")
    wckey: str = _setting("", "Slurm's wckey.")
    job_name: str = _setting(
        NAME_TEMPLATE,
        "Name of the jobs in squeue. Fields: {rule}, {wildcards} (those that the array shares), {workdir}.",
    )
    comment: str = _setting(
        COMMENT_TEMPLATE, "Comment of the jobs in squeue. Fields: {outputs}, and those of the name."
    )
    setup: str = _setting(
        "",
        "Shell lines that run on the node before the job, e.g. `module load cuda`; the resource `submitit_setup` adds "
        "lines for one rule.",
    )
    efficiency_report: str = _setting(
        "",
        "CSV file for CPU time and memory that each job used and requested; a table of rules is printed, too.",
    )
    tail_lines: int = _setting(20, "Number of log lines shown when a job fails.")


def problems(settings: ExecutorSettings) -> list[str]:
    """Returns one sentence for each wrong setting, among them those that would call Slurm too often."""
    found = [
        f"submitit-{name.replace('_', '-')}: expected at least {least} s, found {getattr(settings, name)}"
        for name, least in _LEAST_S.items()
        if getattr(settings, name) < least
    ]
    if settings.queue_seconds_max < settings.queue_seconds:
        found.append(
            f"submitit-queue-seconds-max: expected at least submitit-queue-seconds, which is {settings.queue_seconds}, "
            f"found {settings.queue_seconds_max}"
        )
    for name, fields in (("job_name", NAME_FIELDS), ("comment", COMMENT_FIELDS)):
        if problem := template_problem(getattr(settings, name), fields):
            found.append(f"submitit-{name.replace('_', '-')}: {problem}")
    return found
