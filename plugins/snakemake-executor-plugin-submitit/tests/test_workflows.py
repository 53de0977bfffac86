"""Snakemake's own test workflows for executor plugins, with local jobs; each ends with an efficiency report."""

import csv
from pathlib import Path
from typing import Any

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings

# Snakemake inside this process leaves files open, and submitit forgets the processes that it started.
pytestmark = pytest.mark.filterwarnings("ignore")


class TestWorkflows(TestWorkflowsLocalStorageBase):
    """Runs a workflow of single jobs and one with groups."""

    __test__ = True

    def get_executor(self) -> str:
        """Name of the plugin."""
        return "submitit"

    def get_executor_settings(self) -> Any:
        """Quick checks."""
        return ExecutorSettings(cluster="local", poll_seconds=0.5, queue_seconds=1, efficiency_report="used.csv")

    def run_workflow(self, test_name: str, tmp_path: Path, **more: Any) -> None:
        """Runs one of them, and checks the report."""
        super().run_workflow(test_name, tmp_path, **more)
        with open(Path(tmp_path) / test_name / "used.csv", encoding="utf-8", newline="") as file:
            jobs = list(csv.DictReader(file))
        assert jobs and {job["outcome"] for job in jobs} == {"COMPLETED"}
        assert all(float(job["cpu_s"]) > 0 and float(job["elapsed_s"]) > 0 for job in jobs), jobs
