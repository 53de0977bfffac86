"""The throwaway Slurm cluster behaves as the other tests expect, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError

DETACHED = f"4{os.getpid()}.25"  # seconds; different in each session
OWNER = """
import sys, time
sys.path.insert(0, {folder!r})
from cluster import Cluster
cluster = Cluster().start()
job = cluster.submit("env -i setsid sleep {marker} & wait")
cluster.wait_for(job, "RUNNING")
print(cluster.folder, flush=True)
time.sleep(600)
"""


def processes_with(text: str) -> list[int]:
    """Returns the ids of processes with the text in their command line or environment."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            pids += [int(entry.name)] if text.encode() in content else []
    return pids


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def states(cluster: Cluster, job: str) -> set[str]:
    """Returns the states of a job in the accounting, which lags a little behind the controller."""
    return {row["State"] for row in cluster.sacct(f"--jobs={job}") if row["JobID"] == job}


def test_stop_leaves_no_process_or_file_and_does_not_affect_another_cluster(
    slurm: Cluster, make_slurm: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = slurm.submit("sleep 300")
    slurm.wait_for(other, "RUNNING")
    # As on a machine that already uses a cluster.
    monkeypatch.setenv("SLURM_CONF", str(slurm.folder / "slurm.conf"))
    cluster = make_slurm()
    folder = cluster.folder
    job = cluster.submit(f"env -i setsid sleep {DETACHED} & wait")
    assert wait_until(lambda: bool(processes_with(DETACHED)), 60), cluster.logs()
    cluster.wait_for(job, "RUNNING")
    assert len(processes_with(str(folder))) > 8
    cluster.reset()
    assert cluster.squeue() == {}

    cluster.stop()
    assert processes_with(str(folder)) == []
    assert processes_with(DETACHED) == []
    assert not folder.exists()
    cluster.stop()
    assert slurm.squeue() == {other: "RUNNING"}


def test_sigkill_of_the_owner_leaves_no_process_or_file() -> None:
    script = OWNER.format(folder=str(Path(__file__).parent), marker=DETACHED)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as owner:
        assert owner.stdout is not None
        folder = owner.stdout.readline().strip()
        assert folder
        assert wait_until(lambda: bool(processes_with(DETACHED)), 60)
        assert len(processes_with(folder)) > 8
        owner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not Path(folder).exists() and not processes_with(folder), 60)
    assert processes_with(DETACHED) == []


def test_a_failed_start_is_explained_and_leaves_nothing() -> None:
    class Broken(Cluster):
        def _slurm_conf(self) -> str:
            return super()._slurm_conf() + "NoSuchKey=1\n"

    cluster = Broken(accounting=False)
    with pytest.raises(ClusterError, match="NoSuchKey"):
        cluster.start()
    assert processes_with(str(cluster.folder)) == []
    assert not cluster.folder.exists()


def test_a_job_sees_the_requested_gpus(slurm: Cluster) -> None:
    for gpus, devices in ((1, "0"), (2, "0,1")):
        job = slurm.submit("echo devices=$CUDA_VISIBLE_DEVICES.", f"--gpus-per-node={gpus}")
        slurm.wait_for(job, "COMPLETED")
        assert slurm.output(job) == f"devices={devices}.\n"
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        slurm.submit("true", "--gpus-per-node=3")


def test_two_jobs_of_one_gpu_share_a_node_but_no_gpu(slurm: Cluster) -> None:
    jobs = [slurm.submit("echo $CUDA_VISIBLE_DEVICES; sleep 60", "--gpus-per-node=1", "--nodelist=n1") for _ in "12"]
    for job in jobs:
        slurm.wait_for_output(job, "\n")
    assert sorted(slurm.output(job) for job in jobs) == ["0\n", "1\n"]


def test_sacct_has_state_exit_code_and_gpus(slurm: Cluster) -> None:
    job = slurm.submit("exit 3", "--gpus-per-node=1")
    slurm.wait_for(job, "FAILED")
    assert wait_until(lambda: "FAILED" in states(slurm, job), 60)
    row = slurm.sacct(f"--jobs={job}")[0]
    assert row["ExitCode"] == "3:0"
    assert "gres/gpu=1" in row["AllocTRES"]
    assert (slurm.job(job)["Account"], slurm.job(job)["QOS"]) == ("luab", "scavenge")


def test_without_accounting_jobs_run_and_sacct_fails(slurm_without_accounting: Cluster) -> None:
    cluster = slurm_without_accounting
    job = cluster.submit("echo done", "--gpus-per-node=1")
    cluster.wait_for(job, "COMPLETED")
    assert cluster.output(job) == "done\n"
    with pytest.raises(ClusterError, match="accounting storage is disabled"):
        cluster.sacct()
    with pytest.raises(ClusterError, match="accounting"):
        cluster.limit_submissions(1)


def test_a_job_that_exceeds_its_memory_is_killed_and_the_log_says_so(slurm: Cluster) -> None:
    job = slurm.submit(f"{sys.executable} -c 'import time; x = bytearray(300_000_000); time.sleep(30)'", "--mem=100")
    slurm.wait_for(job, {"FAILED", "OUT_OF_MEMORY"})
    assert "exceeded memory limit" in slurm.output(job)


def test_a_full_queue_refuses_jobs_and_reset_empties_it(slurm: Cluster) -> None:
    jobs = slurm.fill()
    assert sorted(slurm.job(job)["NodeList"] for job in jobs) == ["n1", "n2"]
    slurm.limit_submissions(2)
    with pytest.raises(ClusterError, match="AssocMaxSubmitJobLimit"):
        slurm.submit("true")
    slurm.reset()
    assert slurm.squeue() == {}
    slurm.wait_for(slurm.submit("true"), "COMPLETED")


def test_wait_for_explains_a_job_that_ended_in_another_state(slurm: Cluster) -> None:
    job = slurm.submit("echo no such luck; exit 1")
    with pytest.raises(ClusterError, match=r"should be COMPLETED, but is FAILED(.|\n)*no such luck"):
        slurm.wait_for(job, "COMPLETED")


def test_the_environment_hides_the_machines_own_cluster(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    env = slurm.env()
    assert env["SLURM_CONF"] == str(slurm.folder / "slurm.conf")
    assert "SLURM_JOB_ID" not in env
    slurm.wait_for(slurm.submit("true"), "COMPLETED")


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_runs_as_an_ordinary_user(make_slurm: Callable[..., Cluster]) -> None:
    cluster = make_slurm(user="nobody")
    job = cluster.submit("id -un; echo $CUDA_VISIBLE_DEVICES", "--gpus-per-node=2")
    cluster.wait_for(job, "COMPLETED")
    assert cluster.output(job) == "nobody\n0,1\n"
    assert wait_until(lambda: "COMPLETED" in states(cluster, job), 60)
    daemons = [
        name for name in ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd") if _runs_as_root(cluster, name)
    ]
    assert daemons == []


def _runs_as_root(cluster: Cluster, daemon: str) -> bool:
    pids = [pid for pid in processes_with(str(cluster.folder)) if _name(pid) == daemon]
    assert pids, f"{daemon} is not running"
    return any(Path(f"/proc/{pid}").stat().st_uid == 0 for pid in pids)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
