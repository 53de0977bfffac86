"""`luab status --watch` on a real queue: one squeue for all jobs, none while Snakemake is running."""

import os
import time
from pathlib import Path

import pytest
from cluster import Cluster

from luab.commands import watch
from snakemake_executor_plugin_submitit.registry import CHECKED, Entry, Registry


@pytest.fixture
def calls(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process use the cluster, with a squeue that logs each call to the returned file."""
    for name, value in slurm.env().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "bin"
    folder.mkdir()
    real = next(f"{place}/squeue" for place in os.environ["PATH"].split(":") if os.access(f"{place}/squeue", os.X_OK))
    (folder / "squeue").write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexec {real} "$@"\n', encoding="utf-8")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (folder / "calls").touch()
    return folder / "calls"


def test_one_squeue_for_all_jobs_and_only_if_the_records_are_old(slurm: Cluster, calls: Path, tmp_path: Path) -> None:
    running = slurm.submit("sleep 600", "--mem=100")
    waiting = slurm.submit("sleep 600", "--mem=100", "--hold")
    ended = slurm.submit("true", "--mem=100")
    slurm.wait_for(running, "RUNNING")
    slurm.wait_for(ended, "COMPLETED")
    registry = Registry(tmp_path / "live")
    for job in (running, waiting, ended):
        registry.write(Entry({f"{job}.json": "digest"}, "folder", "slurm", f"train run={job}", id=job, state="NOTED"))

    jobs = watch.live_jobs(tmp_path / "live")
    assert set(jobs) == {f"{running}.json", f"{waiting}.json"}
    assert (jobs[f"{running}.json"].state, jobs[f"{running}.json"].node) == ("running", slurm.job(running)["NodeList"])
    assert (jobs[f"{waiting}.json"].state, jobs[f"{waiting}.json"].reason) == ("pending", "JobHeldUser")
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 1

    registry.stamp()
    assert {job.state for job in watch.live_jobs(tmp_path / "live").values()} == {"noted"}
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 1

    old = time.time() - 2 * watch.CURRENT_S
    os.utime(tmp_path / "live" / CHECKED, (old, old))
    assert watch.live_jobs(tmp_path / "live")[f"{running}.json"].state == "running"
    assert len(calls.read_text(encoding="utf-8").splitlines()) == 2
