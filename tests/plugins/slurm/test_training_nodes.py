"""A training on two nodes: one command starts it on the first, a warning stops it, it resumes to the same bytes."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import Cluster

import luab
from luab.files import file_sha256
from luab.study.config import Study
from luab.study.paths import Run
from luab.training.heartbeat import read_attempts, read_progress

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)
LIMIT_S = 240
# As the submitit plugin starts a rule's command in a job of several nodes.
COMMAND = f"trap '' USR2; trap 'exit 143' TERM; {sys.executable} -m luab train {RUN.folder}; exit \\$?"
SCRIPT = f'srun --overlap --nodes=1 --ntasks=1 bash -c "{COMMAND}"'


def _submit(cluster: Cluster, study: Study, folder: Path) -> str:
    config = folder / "study.yaml"
    config.write_text(study.dump(), encoding="utf-8")
    checkout = Path(luab.__file__).parents[1]
    script = f"export LUAB_CONFIG={config} PYTHONPATH={checkout}\n{SCRIPT}"
    return cluster.submit(script, "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem=3000")


def _until_it_trains(cluster: Cluster, study: Study, job: str) -> None:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        progress = read_progress(study.layout.run(RUN))
        if progress is not None and (progress.job, progress.state) == (job, "training") and progress.done > 0:
            return
        time.sleep(0.2)
    raise AssertionError(cluster.output(job) + cluster.logs())


def test_two_nodes_train_one_model(
    slurm_without_accounting: Cluster, toy_study: Callable[..., Study], trainings: Any, tmp_path: Path
) -> None:
    cluster, recipe = slurm_without_accounting, {"epochs": 60, "ema_decay": 0.9}
    study = toy_study(recipe=recipe, compute={"nodes": 2})
    folder = study.layout.run(RUN)
    job = _submit(cluster, study, tmp_path)
    _until_it_trains(cluster, study, job)
    cluster.run("scancel", "--signal=USR2", job)
    cluster.wait_for(job, "FAILED", LIMIT_S)
    output = cluster.output(job)
    assert "batch 8 = 2 processes x 4 images x 1 step" in output
    assert f"JobError: {RUN.folder}: stopped by SIGUSR2 at epoch" in output and "Traceback" not in output, output
    assert (folder / "state.pt").is_file()
    again = _submit(cluster, study, tmp_path)
    cluster.wait_for(again, "COMPLETED", LIMIT_S)
    progress = read_progress(folder)
    assert progress is not None and (progress.state, progress.processes, progress.job) == ("finished", 2, again)
    assert [line["outcome"] for line in read_attempts(folder) if line["event"] == "end"] == ["stopped", "finished"]
    unbroken = toy_study(recipe=recipe, compute={"gpus": 2}, paths={"results": str(tmp_path / "unbroken")})
    assert trainings(unbroken, RUN).fine
    for name in ("model.safetensors", "log.csv"):
        assert file_sha256(folder / name) == file_sha256(unbroken.layout.run(RUN) / name)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
