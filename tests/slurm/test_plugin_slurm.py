"""The executor plugin on a real Slurm: what users of clusters lose jobs to."""

import os
import pwd
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster

PLUGINS = Path(__file__).parents[2] / "luab" / "plugins"
QUICK = ["--submitit-poll-seconds", "0.5", "--submitit-queue-seconds", "1", "--submitit-queue-seconds-max", "3"]
QUICK += ["--submitit-result-grace", "5", "--submitit-retry-seconds", "2", "--latency-wait", "5"]

# Counts to STEPS, twice a second, and saves each fifth step and on SIGUSR2: a training in small.
TRAINER = """
    import os, signal, sys, time
    from pathlib import Path
    state, output, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    told = []
    signal.signal(signal.SIGUSR2, lambda *_: told.append("USR2"))
    signal.signal(signal.SIGTERM, lambda *_: told.append("TERM"))
    done = int(state.read_text()) if state.exists() else 0
    with open("starts.txt", "a") as file:
        print(output, done, os.environ["SUBMITIT_RESTARTS"], os.environ["SLURMD_NODENAME"], file=file)
    while done < steps:
        time.sleep(0.5)
        done += 1
        if told or done % 5 == 0:
            state.write_text(str(done))
        if told:
            sys.exit(75)
    output.write_text(str(done))
"""

SLEEPER = """
    rule all:
        input: expand("out/{i}.txt", i=range(3))
    rule work:
        output: "out/{i}.txt"
        resources: runtime=5, mem_mb=100
        shell: "echo {wildcards.i} >> starts.txt; while [ ! -e go ]; do sleep 0.2; done; echo {wildcards.i} > {output}"
"""


class Project:
    """A tiny workflow on a cluster."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        (folder / "trainer.py").write_text(textwrap.dedent(TRAINER))

    def write(self, snakefile: str) -> None:
        (self.folder / "Snakefile").write_text(textwrap.dedent(snakefile).replace("PYTHON", sys.executable))

    def train(self, steps: int, resources: str = "", count: int = 1) -> None:
        """A sweep of trainings."""
        self.write(f"""
            rule all:
                input: expand("out/{{i}}.txt", i=range({count}))
            rule train:
                output: "out/{{i}}.txt"
                resources: mem_mb=100, {resources}
                shell: "PYTHON trainer.py state.{{wildcards.i}} {{output}} {steps}"
        """)

    def command(self, *arguments: str) -> list[str]:
        start = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "20", "--rerun-incomplete"]
        return [*start, *QUICK, *arguments]

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Snakemake in the background, in a session of its own; killed at the end if it still lives."""
        with open(self.folder / "screen.txt", "a") as screen:
            process = subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self._env(), stdout=screen, stderr=screen, text=True
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, *arguments: str, timeout_s: float = 120) -> int:
        with self.running(*arguments) as process:
            return process.wait(timeout_s)

    def unlock(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--unlock"], cwd=self.folder, env=self._env(), capture_output=True
        )
        assert done.returncode == 0

    @property
    def screen(self) -> str:
        return (self.folder / "screen.txt").read_text()

    @property
    def starts(self) -> list[list[str]]:
        path = self.folder / "starts.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.screen[-3000:]}"
            time.sleep(0.1)

    def job_ids(self) -> list[str]:
        """Ids that Snakemake's screen speaks of as submitted; of an array its base."""
        return re.findall(r"Submitted (?:job|array) (\d+)", self.screen)

    def _env(self) -> dict[str, str]:
        return {**self.cluster.env(), "PYTHONPATH": str(PLUGINS)}


@pytest.fixture
def project(tmp_path: Path, slurm: Cluster) -> Project:
    return Project(tmp_path, slurm)


def counted(project: Project, monkeypatch: pytest.MonkeyPatch, *names: str) -> Callable[[], list[str]]:
    """Puts counting wrappers of Slurm's commands first on PATH; returns the calls so far."""
    folder = project.folder / "bin"
    folder.mkdir()
    for name in names:
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {folder}/calls\nexec {real} "$@"\n')
        (folder / name).chmod(0o755)
    env = project._env()
    monkeypatch.setattr(project, "_env", lambda: {**env, "PATH": f"{folder}:{env['PATH']}"})
    calls = folder / "calls"
    return lambda: calls.read_text().splitlines() if calls.exists() else []


# --- submitting


def test_a_sweep_is_one_array_with_its_resources_and_a_name(project: Project) -> None:
    project.write("""
        rule all:
            input: expand("out/vit-{i}.txt", i=range(4)), "out/other.txt"
        rule work:
            output: "out/{net}-{i}.txt"
            threads: 2
            resources: runtime=7, mem_mb=300, gpu=1, slurm_account="luab", slurm_comment="as it is"
            shell: "echo $CUDA_VISIBLE_DEVICES $SLURM_CPUS_PER_TASK > {output}"
        rule other:
            output: "out/other.txt"
            resources: runtime=1, mem_mb=100
            shell: "echo plain > {output}"
    """)
    assert project.run() == 0, project.screen
    assert len(project.job_ids()) == 2, "one sbatch for the sweep, one for the other rule"
    fields = "JobID,JobName,Timelimit,ReqMem,AllocCPUS,AllocTRES,Account,State"
    rows = [row for row in project.cluster.sacct("--allocations", fields=fields) if row["JobName"].startswith("work")]
    rows = [row for row in rows if row["JobID"].partition("_")[0] in project.job_ids()]
    assert len({row["JobID"] for row in rows}) == 4 and len({row["JobID"].partition("_")[0] for row in rows}) == 1
    for row in rows:
        assert row["JobName"] == "work net=vit" and row["Timelimit"] == "00:07:00" and row["Account"] == "luab"
        assert row["ReqMem"] == "700M", "mem_mb and the nested Snakemake's 400 MB"
        assert row["AllocCPUS"] == "2" and "gres/gpu=1" in row["AllocTRES"] and row["State"] == "COMPLETED"
    device, cpus = (project.folder / "out/vit-0.txt").read_text().split()
    assert device in ("0", "1") and cpus == "2"


def test_a_group_is_one_job(project: Project) -> None:
    project.write("""
        rule all:
            input: "b.txt"
        rule a:
            output: "a.txt"
            group: "both"
            resources: runtime=2, mem_mb=100
            shell: "echo $SLURM_JOB_ID > {output}"
        rule b:
            input: "a.txt"
            output: "b.txt"
            group: "both"
            resources: runtime=3, mem_mb=200
            shell: "cat {input} > {output}; echo $SLURM_JOB_ID >> {output}"
    """)
    assert project.run() == 0, project.screen
    [job] = project.job_ids()
    assert (project.folder / "b.txt").read_text().split() == [job, job]


# --- Ctrl-C, SIGKILL


def test_ctrl_c_cancels_everything_with_one_call(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(project, monkeypatch, "scancel")
    project.write(
        SLEEPER
        + """
    rule alone:
        output: "out/2.txt"
        resources: runtime=4, mem_mb=100
        shell: "echo alone >> starts.txt; sleep 100"
    ruleorder: alone > work
    """
    )
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "all jobs run")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    assert len(calls()) == 1 and len(calls()[0].split()) == 3, "one call, the array and the single job"
    project.until(lambda: not project.cluster.squeue(), "an empty queue", 30)


def test_after_sigkill_running_jobs_are_taken_over(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "all jobs run")
    # As if it had been killed between sbatch and the note of the id.
    path = next((project.folder / ".snakemake/submitit/live").glob("*.json"))
    path.write_text(re.sub(r'"id": "[^"]+"', '"id": ""', path.read_text()))
    project.unlock()
    with project.running() as process:
        project.until(lambda: project.screen.count("Taking over") == 3, "the jobs are taken over")
        (project.folder / "go").touch()
        assert process.wait(60) == 0, project.screen
    assert len(project.job_ids()) == 1 and len(project.starts) == 3, "nothing submitted, nothing started twice"


def test_after_sigkill_pending_jobs_are_taken_over_and_ended_ones_are_done(project: Project) -> None:
    blockers = project.cluster.fill()
    project.write(SLEEPER)
    (project.folder / "go").touch()
    with project.running():
        project.until(lambda: project.job_ids(), "the jobs are submitted")
        project.until(lambda: len(project.cluster.squeue("--states=PENDING")) == 3, "they wait")
    project.unlock()
    with project.running():
        project.until(lambda: project.screen.count("Taking over") == 3, "the waiting jobs are taken over")
    project.unlock()
    project.cluster.run("scancel", *blockers)
    project.until(lambda: not project.cluster.squeue(), "the jobs ran while nobody looked")
    assert project.run() == 0, project.screen
    assert len(project.job_ids()) == 1 and len(project.starts) == 3
    (project.folder / "out/1.txt").unlink()
    assert project.run() == 0, project.screen
    assert len(project.job_ids()) == 2 and len(project.starts) == 4, "an old result does not stand for a missing file"


def test_a_job_whose_code_changed_is_cancelled_and_its_successor_waits_for_its_end(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "all jobs run")
    project.unlock()
    project.write(
        SLEEPER.replace("while [ ! -e go ]; do sleep 0.2; done; echo {wildcards.i}", "echo new {wildcards.i}")
    )
    assert project.run() == 0, project.screen
    assert "has changed since" in project.screen and len(project.job_ids()) == 2
    assert (project.folder / "out/1.txt").read_text() == "new 1\n"
    old, new = project.job_ids()
    rows = project.cluster.sacct("--allocations", f"--jobs={old},{new}", fields="JobID,State,Start,End")
    ended = max(row["End"] for row in rows if row["JobID"].startswith(old))
    assert all(row["Start"] >= ended for row in rows if row["JobID"].startswith(f"{new}_"))


# --- surviving


def test_a_real_time_limit_is_survived(project: Project) -> None:
    project.train(steps=110, resources="runtime=1")
    assert project.run("--submitit-warning-seconds", "30", timeout_s=200) == 0, project.screen
    saved = [int(start[1]) for start in project.starts]
    assert len(project.job_ids()) == 1 and len(saved) >= 2 and saved == sorted(saved) and saved[-1] > 20
    assert [int(start[2]) for start in project.starts] == list(range(len(saved)))
    assert (project.folder / "out/0.txt").read_text() == "110"


def test_a_preempted_job_and_a_requeued_element_continue(project: Project) -> None:
    project.train(steps=40, resources="runtime=20, slurm_nodelist='n1'", count=2)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 2, "both train")
        time.sleep(3)
        [array] = project.job_ids()
        project.cluster.scontrol("requeue", f"{array}_1")
        project.until(lambda: len(project.starts) == 3, "the element starts again", 60)
        time.sleep(2)
        urgent = project.cluster.submit("sleep 5", "--partition=urgent", "--nodelist=n1", "--exclusive", "--mem=0")
        project.cluster.wait_for(urgent, "COMPLETED", 90)
        assert process.wait(120) == 0, project.screen
    assert len(project.job_ids()) == 1
    for i in range(2):
        saved = [int(start[1]) for start in project.starts if start[0] == f"out/{i}.txt"]
        assert len(saved) == 2 + i and saved == sorted(saved) and saved[-1] > 0
        assert (project.folder / f"out/{i}.txt").read_text() == "40"


def test_the_job_of_a_killed_node_continues_elsewhere(project: Project) -> None:
    project.train(steps=30, resources="runtime=5")
    with project.running() as process:
        project.until(lambda: (project.folder / "state.0").exists(), "the first checkpoint")
        first = project.starts[0][3]
        project.cluster.kill_node(first)
        project.cluster.scontrol("update", f"NodeName={first}", "State=DOWN", "Reason=killed")
        assert process.wait(120) == 0, project.screen
    assert len(project.job_ids()) == 1 and project.starts[-1][3] != first and int(project.starts[-1][1]) >= 5


def test_preemption_without_the_clusters_warning_is_survived(
    tmp_path: Path, make_slurm: Callable[..., Cluster]
) -> None:
    project = Project(tmp_path, make_slurm(preempt_signal=False, accounting=False, grace_s=8))
    project.train(steps=30, resources="runtime=20, slurm_nodelist='n1'")
    with project.running() as process:
        project.until(lambda: (tmp_path / "state.0").exists(), "the first checkpoint")
        urgent = project.cluster.submit("sleep 3", "--partition=urgent", "--nodelist=n1", "--exclusive", "--mem=0")
        project.cluster.wait_for(urgent, "COMPLETED", 90)
        assert process.wait(120) == 0, project.screen
    assert len(project.job_ids()) == 1 and [start[2] for start in project.starts] == ["0", "1"]
    assert int(project.starts[1][1]) >= 5, "saved on SIGTERM, or before"


def test_a_controller_that_sleeps_loses_no_job(project: Project) -> None:
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "all jobs run")
        project.cluster.kill("slurmctld")
        (project.folder / "go").touch()
        project.until(lambda: "does not answer" in project.screen or process.poll() is not None, "the silence is noted")
        project.cluster.revive("slurmctld")
        assert process.wait(60) == 0, project.screen


# --- failing


def test_out_of_memory_is_named_and_the_retry_asks_for_more(project: Project) -> None:
    project.write("""
        rule eat:
            output: "out.txt"
            resources: runtime=2, mem_mb=lambda wildcards, attempt: 1000 * attempt - 900
            shell: "PYTHON -c 'x = bytearray(900_000_000); import time; time.sleep(6)'; touch {output}"
    """)
    assert project.run("--retries", "1") == 0, project.screen
    assert "failed: out of memory" in project.screen and "exceeded memory limit" in project.screen
    memory = {row["ReqMem"] for row in project.cluster.sacct("-X", f"-j{','.join(project.job_ids())}", fields="ReqMem")}
    assert memory == {"500M", "1500M"}


def test_failures_say_why_and_show_the_log(project: Project) -> None:
    project.write("""
        rule all:
            input: "bad.txt", "cancelled.txt", "wrong.txt"
        rule wrong:
            output: "wrong.txt"
            resources: slurm_partition="nowhere"
            shell: "touch {output}"
        rule bad:
            output: "bad.txt"
            resources: runtime=2, mem_mb=100
            shell: "echo the reason in words; exit 42"
        rule cancelled:
            output: "cancelled.txt"
            resources: runtime=2, mem_mb=100
            shell: "echo started >> starts.txt; sleep 100"
    """)
    with project.running("--keep-going") as process:
        project.until(lambda: project.starts, "the job to cancel runs")
        project.cluster.run("scancel", "--name=cancelled")
        assert process.wait(60) == 1
    assert "submission was refused" in project.screen and "invalid partition" in project.screen
    assert "(bad) on" in project.screen and "exit status 42" in project.screen
    assert "| the reason in words" in project.screen, "the end of the log"
    assert f"cancelled by {pwd.getpwuid(os.getuid()).pw_name}" in project.screen


def test_a_full_queue_is_waited_for(project: Project) -> None:
    project.cluster.limit_submissions(2)
    project.write(SLEEPER.replace("range(3)", "range(5)"))
    (project.folder / "go").touch()
    assert project.run() == 0, project.screen
    assert "takes no more jobs now" in project.screen and len(project.starts) == 5


# --- without accounting


def test_without_accounting_ends_are_still_seen(tmp_path: Path, slurm_without_accounting: Cluster) -> None:
    project = Project(tmp_path, slurm_without_accounting)
    project.write("""
        rule all:
            input: "good.txt", "bad.txt", "cancelled.txt"
        rule good:
            output: "good.txt"
            resources: runtime=2, mem_mb=100
            shell: "touch {output}"
        rule bad:
            output: "bad.txt"
            resources: runtime=2, mem_mb=100
            shell: "exit 42"
        rule cancelled:
            output: "cancelled.txt"
            resources: runtime=2, mem_mb=100
            shell: "echo started >> starts.txt; sleep 100"
    """)
    with project.running("--keep-going") as process:
        project.until(lambda: project.starts, "the job to cancel runs")
        project.cluster.run("scancel", "--name=cancelled")
        assert process.wait(60) == 1
    assert "Finished jobid" in project.screen and "exit status 42" in project.screen
    assert re.search(r"\(cancelled\).* failed: cancelled\.", project.screen)
