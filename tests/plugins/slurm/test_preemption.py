"""Preempted jobs on a real Slurm: none runs under two ids, whatever the grace time and whether it listens or not.

The campaign: LUAB_PREEMPTIONS=50 pytest -m slurm tests/plugins/slurm/test_preemption.py -k campaign
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from cluster import Cluster
from lanes import WARNED
from project import Project

# A job of some seconds that listens to no signal; its lock shows whether another one makes the same output just now.
DEAF = """
    import fcntl, os, sys, time
    lock = open(f"lock.{sys.argv[1]}", "w")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        open("overlaps.txt", "a").write(f"{sys.argv[1]}\\n")
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ["SLURM_JOB_ID"]
    with open("starts.txt", "a") as file:
        print(sys.argv[1], job, os.environ["SUBMITIT_RESTARTS"], file=file)
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        time.sleep(0.1)
    open(sys.argv[3], "w").write("done")
"""
# The same, but it leaves on the warning, as a training does.
LISTENING = DEAF.replace(
    "end = time", "import signal; signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))\n    end = time"
)


PREEMPTIONS = int(os.environ.get("LUAB_PREEMPTIONS", 0))
SETTINGS = [(kind, grace_s, listens) for kind in ("partition", "qos") for grace_s in (0, 30, 90) for listens in (0, 1)]


def check_made_once(project: Project, option: str, preemptions: int, listens: bool, seed: int) -> tuple[int, int]:
    """Preempts the elements of an array again and again, at random times; each must be made once, under one id.

    Returns:
        How many urgent jobs came while elements ran, and how many times an element was started again.
    """
    rng, elements, came = random.Random(seed), 4, 0
    project.put("job.py", LISTENING if listens else DEAF)
    project.write(f"""
        rule all:
            input: expand("out/{{i}}.txt", i=range({elements}))
        rule work:
            output: "out/{{i}}.txt"
            retries: 2
            resources: mem_mb=100, runtime=60, slurm_nodelist="n1"
            shell: "PYTHON job.py {{wildcards.i}} 20 {{output}}"
    """)
    with project.running() as process:
        for _ in range(preemptions):
            project.until(
                lambda: process.poll() is not None or "RUNNING" in project.cluster.squeue().values(), "a running job"
            )
            time.sleep(rng.uniform(0, 12))
            if process.poll() is not None:
                break
            came += 1
            urgent = project.cluster.submit("sleep 1", option, "--nodelist=n1", "--exclusive", "--mem=0")
            project.cluster.wait_for(urgent, "COMPLETED", timeout_s=400)
        project.until(lambda: process.poll() is not None, "the end of Snakemake", timeout_s=600)
        assert process.wait() == 0, project.screen
    ids = {output: {job for name, job, _ in project.starts if name == output} for output, *_ in project.starts}
    assert len(ids) == elements and all(len(jobs) == 1 for jobs in ids.values()), (seed, ids, project.screen)
    assert not (project.folder / "overlaps.txt").exists(), seed
    assert {record["outcome"] for record in project.history.values()} == {"COMPLETED"}
    return came, sum(len(record["starts"]) - 1 for record in project.history.values())


@WARNED.scenario
def test_preempted_elements_that_do_not_listen_are_made_once(project: Project) -> None:
    assert check_made_once(project, "--partition=urgent", preemptions=2, listens=False, seed=1)[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "grace_s", "listens"), SETTINGS if PREEMPTIONS else [("partition", 0, 0), ("partition", 30, 0)]
)
def test_campaign_of_preemptions(
    kind: Literal["partition", "qos"], grace_s: int, listens: bool, tmp_path: Path, make_slurm: Callable[..., Cluster]
) -> None:
    cluster = make_slurm(preemption=kind, grace_s=grace_s)
    option, urgent, restarts, sweeps = f"--{kind}=urgent", 0, 0, 0
    while sweeps == 0 or urgent < PREEMPTIONS:
        (folder := tmp_path / str(sweeps)).mkdir()
        came, again = check_made_once(Project(folder, cluster), option, 5, bool(listens), seed=sweeps)
        urgent, restarts, sweeps = urgent + came, restarts + again, sweeps + 1
        cluster.reset()
    print(f"{kind}, grace {grace_s} s: {urgent} preemptions of {4 * sweeps} elements, {restarts} restarts, none twice")
    assert restarts > 0
