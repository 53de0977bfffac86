"""Snakemake executor plugin: runs jobs on Slurm through submitit; they survive preemption, time limits and restarts."""

import os
import tempfile
from pathlib import Path

from snakemake_interface_executor_plugins.settings import CommonSettings

from .executor import Executor
from .settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]


def _ensure_cache() -> None:
    """Moves Snakemake's cache into the working folder if the home folder cannot be written to.

    Containers, CI and a full quota make such homes, and Snakemake would end in a traceback before it reads a file of
    the workflow. Snakemake imports its plugins before that.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    try:
        (cache / "snakemake").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache / "snakemake"):
            pass
    except (OSError, RuntimeError):
        os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())


_ensure_cache()
common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,  # sbatch passes the environment on; this keeps secrets out of files
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)
