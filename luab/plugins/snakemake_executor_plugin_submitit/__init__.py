"""Snakemake executor plugin: runs jobs on Slurm through submitit; they survive preemption, time limits and restarts."""

from snakemake_interface_executor_plugins.settings import CommonSettings

from .executor import Executor
from .settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

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
