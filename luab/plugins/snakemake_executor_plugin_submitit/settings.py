"""Settings of the plugin: what `snakemake --help` lists as --submitit-..."""

# No `from __future__ import annotations` here: Snakemake calls the fields' types.
from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


def _setting(default, help_text, **metadata):  # type: ignore[no-untyped-def]
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings; each has a default that suits a busy cluster."""

    cluster: str = _setting(
        "slurm", "Where jobs run: slurm, or local (processes on this machine).", choices=["slurm", "local"]
    )
    folder: str = _setting(
        ".snakemake/submitit", "Folder for logs and the records of live jobs; must be shared with the nodes."
    )
    array_max: int = _setting(500, "Most jobs of one array; 1 submits each job alone.")
    memory_overhead_mb: int = _setting(
        400, "Added to mem_mb of each job, for the Snakemake process that runs the job on the node."
    )
    default_runtime: int = _setting(60, "Time limit in minutes of a job without `runtime`.")
    warning_seconds: int = _setting(90, "How long before the time limit a job is sent SIGUSR2.")
    max_timeouts: int = _setting(3, "How often a job is continued after its time limit.")
    requeue_timeouts: str = _setting(
        "handled",
        "Which jobs continue after a time limit: those that end by themselves on the warning, all, none.",
        choices=["handled", "always", "never"],
    )
    poll_seconds: float = _setting(5.0, "How often result files are looked for; no call of Slurm.")
    queue_seconds: float = _setting(10.0, "Time between two squeue calls after something changed.")
    queue_seconds_max: float = _setting(60.0, "Time between two squeue calls when nothing changes for long.")
    result_grace: float = _setting(
        30.0, "Seconds to wait for the result file of a job that ended; raise it on a slow shared file system."
    )
    retry_seconds: float = _setting(5.0, "First wait after the scheduler refused a submission; doubles each time.")
    retry_seconds_max: float = _setting(300.0, "Longest wait between two tries of a submission.")
    patience_minutes: float = _setting(60.0, "How long a busy scheduler is asked again before jobs are given up.")
    wckey: str = _setting("", "Slurm's wckey; none by default.")
    setup: str = _setting("", "Shell line that runs on the node before the job, e.g. `module load cuda`.")
    tail_lines: int = _setting(20, "Lines of the log that are shown when a job fails.")
