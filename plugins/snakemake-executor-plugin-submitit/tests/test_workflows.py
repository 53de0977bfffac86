"""Snakemake's own test workflows for executor plugins, with local jobs."""

from pathlib import Path
from typing import Any

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings

# Snakemake itself, run inside this process, leaves files open and uses what its dependencies call deprecated.
pytestmark = pytest.mark.filterwarnings("default")


class TestWorkflows(TestWorkflowsLocalStorageBase):
    """Runs a workflow of single jobs and one with groups."""

    __test__ = True

    def get_executor(self) -> str:
        """Name of the plugin."""
        return "submitit"

    def get_executor_settings(self) -> Any:
        """Quick checks, and a report at the end."""
        return ExecutorSettings(cluster="local", poll_seconds=0.5, queue_seconds=1, efficiency_report="used.csv")


def test_the_report_is_written_at_the_end(tmp_path: Path) -> None:
    TestWorkflows().run_workflow("simple", tmp_path)
    lines = (tmp_path / "simple" / "used.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("id,rule,name,attempt,outcome,elapsed_s,cpus,cpu_s,cpu_used")
    assert len(lines) > 1 and all(",COMPLETED," in line for line in lines[1:])
