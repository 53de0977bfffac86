"""The executor plugin on a real Slurm: submitting, stopping, restarting, failing."""

import itertools
import os
import pwd
import signal

from lanes import BY_QOS, PLAIN, WARNED
from project import SLEEPER, Project


def elements(project: Project, *fields: str) -> list[dict[str, str]]:
    """Returns the accounting's rows of all jobs and array elements of a project."""
    rows = project.cluster.ended(f"--jobs={','.join(project.job_ids)}", fields=",".join(fields))
    return [row for row in rows if row["JobID"].partition("_")[0] in project.job_ids]


# --- submitting


def test_a_sweep_is_one_array_with_its_resources_and_a_group_is_one_job(project: Project) -> None:
    project.write("""
        rule all:
            input: expand("out/vit-{i}.txt", i=range(4)), "b.txt"
        rule work:
            output: "out/{net}-{i}.txt"
            threads: 2
            resources: runtime=7, mem_mb=300, gpu=1, slurm_account="luab"
            shell: "echo $CUDA_VISIBLE_DEVICES $SLURM_CPUS_PER_TASK > {output}"
        rule a:
            output: "a.txt"
            group: "both"
            resources: runtime=2, mem_mb=100
            shell: "echo $SLURM_JOB_ID > {output}"
        rule b:
            input: "a.txt"
            output: "b.txt"
            group: "both"
            resources: runtime=3, mem_mb=200, slurm_comment="as it is"
            shell: "cat {input} > {output}; echo $SLURM_JOB_ID >> {output}"
    """)
    assert project.run() == 0, project.screen
    assert len(project.job_ids) == 2, "not one sbatch for the sweep and one for the group"
    rows = elements(project, "JobID", "JobName", "Timelimit", "ReqMem", "AllocCPUS", "AllocTRES", "Account")
    sweep = [row for row in rows if row["JobName"].startswith("work")]
    assert len({row["JobID"] for row in sweep}) == 4 and len({row["JobID"].partition("_")[0] for row in sweep}) == 1
    for row in sweep:
        assert row["JobName"] == "work net=vit" and row["Timelimit"] == "00:07:00" and row["Account"] == "luab"
        assert row["ReqMem"] == "700M", "not mem_mb plus the nested Snakemake's 400 MB"
        assert row["AllocCPUS"] == "2" and "gres/gpu=1" in row["AllocTRES"]
    device, cpus = (project.folder / "out/vit-0.txt").read_text(encoding="utf-8").split()
    assert device in ("0", "1") and cpus == "2"
    [group] = {row["JobID"] for row in rows} - {row["JobID"] for row in sweep}
    assert (project.folder / "b.txt").read_text(encoding="utf-8").split() == [group, group]

    comments = {job: project.cluster.scontrol("show", "job", job) for job in (sweep[0]["JobID"], group)}
    assert "Comment=0: out/vit-" in comments[sweep[0]["JobID"]] and "3: out/vit-" in comments[sweep[0]["JobID"]]
    assert "Comment=as it is" in comments[group]
    assert sorted(project.history) == ["a.txt", "b.txt", *(f"out/vit-{i}.txt" for i in range(4))]
    for record in project.history.values():
        assert record["outcome"] == "COMPLETED" and record["starts"][0]["slurm_node"] in ("n1", "n2")
        assert record["submitted"] <= record["started"] + 1 <= record["ended"] + 1 and record["elapsed_s"] > 0
    assert project.live == []


# --- Ctrl-C, SIGKILL


def test_ctrl_c_cancels_all_jobs_with_one_call_and_a_restart_starts_from_scratch(project: Project) -> None:
    project.wrap("scancel", 'echo "$@" >> scancelled.txt; exec REAL "$@"')
    project.write(
        SLEEPER
        + """
    rule alone:
        output: "out/2.txt"
        resources: runtime=4, mem_mb=100
        shell: "echo alone >> starts.txt; while [ ! -e go ]; do sleep 0.2; done; echo alone > {output}"
    ruleorder: alone > work
    """
    )
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        process.send_signal(signal.SIGINT)
        assert project.wait(process) == 1
    first = project.job_ids
    [call] = (project.folder / "scancelled.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(call.split()) == sorted(first), "not one call for the array and the single job"
    assert [record["outcome"] for record in project.history.values()] == ["CANCELLED"] * 3

    project.go()
    assert project.run() == 0, project.screen
    assert "Taking over" not in project.screen and len(project.job_ids) == 4 and len(project.starts) == 6
    assert (project.folder / "out/2.txt").read_text(encoding="utf-8") == "alone\n"
    rows = elements(project, "JobID", "Start", "End")
    cancelled = [row for row in rows if row["JobID"].partition("_")[0] in first]
    assert len(cancelled) == 3 and all(row["State"].startswith("CANCELLED") for row in cancelled)
    ended = max(row["End"] for row in cancelled)
    assert all(row["Start"] >= ended for row in rows if row not in cancelled), (
        "two jobs wrote one file at the same time"
    )


@PLAIN.scenario
def test_after_sigkill_running_jobs_are_taken_over(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        project.until(
            lambda: all(entry["state"] == "RUNNING" for entry in project.live), "the state RUNNING in all records"
        )
    assert {entry["node"] for entry in project.live} <= {"n1", "n2"}
    # As if Snakemake had been killed between sbatch and writing the id.
    path = next((project.folder / ".snakemake/submitit/live").glob("*.json"))
    path.write_text(
        path.read_text(encoding="utf-8").replace(f'"id": "{project.live[0]["id"]}"', '"id": ""'), encoding="utf-8"
    )
    assert project.run() == 1
    assert "--unlock" in project.screen and str(project.folder) in project.screen
    project.unlock()
    with project.running() as process:
        project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of the jobs")
        project.go()
        assert project.wait(process) == 0, project.screen
    assert len(project.job_ids) == 1 and len(project.starts) == 3, "a job was submitted or started twice"


def test_after_sigkill_pending_jobs_are_taken_over_and_ended_ones_are_done(project: Project) -> None:
    blockers = project.cluster.fill()
    project.write(SLEEPER)
    project.go()
    with project.running():
        project.until(
            lambda: [entry["state"] for entry in project.live] == ["PENDING"] * 3, "the state PENDING in all records"
        )
        project.until(
            lambda: {entry["reason"] for entry in project.live} <= {"Resources", "Priority"},
            "the reason in all records",
        )
        checked = project.folder / ".snakemake/submitit/live/checked"
        project.until(checked.exists, "the time of the first query")
        before = checked.stat().st_mtime_ns
        project.until(lambda: checked.stat().st_mtime_ns > before, "the next query")
    project.unlock()
    with project.running():
        project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of the waiting jobs")
    project.unlock()
    project.cluster.run("scancel", *blockers)
    project.until(lambda: not project.cluster.squeue(), "the end of the jobs while Snakemake is not running")
    assert project.run() == 0, project.screen
    assert len(project.job_ids) == 1 and len(project.starts) == 3
    (project.folder / "out/1.txt").unlink()
    assert project.run() == 0, project.screen
    assert len(project.job_ids) == 2 and len(project.starts) == 4, "an old result was taken for a missing file"


def test_a_kill_between_sbatch_and_its_answer_leaves_no_second_job(project: Project) -> None:
    blockers = project.cluster.fill()
    project.write(SLEEPER)
    project.wrap("sbatch", 'answer=$(REAL "$@"); kill -9 $PPID; echo "$answer"')
    with project.running() as process:
        assert project.wait(process) == -signal.SIGKILL
    [lost] = {job.partition("_")[0] for job in project.cluster.squeue()} - set(blockers)
    project.wrap("sbatch", 'exec REAL "$@"')
    project.unlock()
    project.go()
    with project.running() as process:
        project.until(lambda: f"Cancelling {lost}" in project.screen, "the discovery of the lost array")
        project.cluster.run("scancel", *blockers)
        assert project.wait(process) == 0, project.screen
    assert len(project.job_ids) == 1 and len(project.starts) == 3
    states = {row["State"] for row in project.cluster.ended(f"--jobs={lost}", fields="JobID")}
    assert all(state.startswith("CANCELLED") for state in states)


def test_a_job_whose_code_changed_is_cancelled_and_the_new_one_waits_for_its_end(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
    project.unlock()
    project.write(
        SLEEPER.replace("while [ ! -e go ]; do sleep 0.2; done; echo {wildcards.i}", "echo new {wildcards.i}")
    )
    assert project.run() == 0, project.screen
    assert "have changed since" in project.screen and len(project.job_ids) == 2
    assert (project.folder / "out/1.txt").read_text(encoding="utf-8") == "new 1\n"
    old, new = project.job_ids
    rows = elements(project, "JobID", "Start", "End")
    ended = max(row["End"] for row in rows if row["JobID"].startswith(f"{old}_"))
    assert all(row["Start"] >= ended for row in rows if row["JobID"].startswith(f"{new}_"))


# --- failures of the scheduler


@BY_QOS.scenario
def test_a_controller_that_dies_loses_no_job(project: Project) -> None:
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        project.cluster.kill("slurmctld")
        project.until(lambda: "does not answer" in project.screen, "the warning that the controller does not answer")
        project.cluster.revive("slurmctld")
        assert set(project.cluster.squeue().values()) == {"RUNNING"}
        project.go()
        assert project.wait(process) == 0, project.screen


@WARNED.scenario
def test_a_submission_without_an_answer_is_repeated(project: Project) -> None:
    project.write(SLEEPER)
    project.go()
    with project.running() as process:
        with project.cluster.frozen("slurmctld"):
            project.until(
                lambda: "accepts no more jobs at the moment" in project.screen,
                "the warning that the controller does not answer",
            )
        # The controller now accepts the submission, but too late: Snakemake has given up waiting for the answer.
        assert project.wait(process) == 0, project.screen
    assert len(project.starts) == 3


@BY_QOS.scenario
def test_a_full_queue_is_waited_for_but_not_forever(project: Project) -> None:
    project.cluster.limit_submissions(0)
    project.write(SLEEPER.replace("range(3)", "range(5)"))
    project.go()
    assert project.run("--submitit-patience-minutes", "0.05") == 1
    assert (
        "The scheduler refused this job for" in project.screen and "raise submitit-patience-minutes" in project.screen
    )
    project.cluster.limit_submissions(2)
    assert project.run() == 0, project.screen
    assert "accepts no more jobs at the moment" in project.screen and len(project.starts) == 5


# --- failing jobs


@WARNED.scenario
def test_out_of_memory_is_reported_and_the_retry_requests_more(project: Project) -> None:
    project.write("""
        rule eat:
            output: "out.txt"
            resources: runtime=2, mem_mb=lambda wildcards, attempt: 1000 * attempt - 900
            shell: "PYTHON -c 'x = bytearray(900_000_000); import time; time.sleep(6)'; touch {output}"
    """)
    assert project.run("--retries", "1") == 0, project.screen
    assert "failed: out of memory" in project.screen and "exceeded memory limit" in project.screen
    assert {row["ReqMem"] for row in elements(project, "JobID", "ReqMem")} == {"500M", "1500M"}


@WARNED.scenario
def test_failures_are_explained_and_show_the_log(project: Project) -> None:
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
            shell: "echo started >> starts.txt; sleep 1000"
    """)
    with project.running("--keep-going") as process:
        project.until(lambda: project.starts, "the start of the job to cancel")
        project.cluster.run("scancel", "--name=cancelled")
        assert project.wait(process) == 1
    assert "refused the submission" in project.screen and "invalid partition" in project.screen
    assert "(bad) on" in project.screen and "exit status 42" in project.screen
    assert "| the reason in words" in project.screen, "the end of the log is missing"
    assert f"cancelled by {pwd.getpwuid(os.getuid()).pw_name}" in project.screen
    assert sorted(project.history) == ["bad.txt", "cancelled.txt"]
    assert project.history["bad.txt"]["outcome"] == "FAILED"
    assert project.history["bad.txt"]["reason"] == "exit status 42"
    assert project.history["cancelled.txt"]["outcome"] == "CANCELLED"


def test_members_of_a_group_without_dependencies_run_one_after_another_in_one_job_per_run(project: Project) -> None:
    project.write("""
        resource_scopes:
            one_at_a_time="local"
        rule all:
            input: expand("{run}/{suite}.txt", run=["a/1", "b/1"], suite=["x", "y", "z"])
        for suite in "xyz":
            rule:
                name: f"score_{suite}"
                output: f"{{run}}/{suite}.txt"
                group: "scores_{run}"
                threads: 2
                resources: runtime=3, mem_mb=200, one_at_a_time=1
                shell: "echo $SLURM_JOB_ID $(date +%s.%N) > {output}; sleep 1; date +%s.%N >> {output}"
    """)
    options = ["--group-components", "scores_{run}=8", "--resources", "one_at_a_time=1"]
    assert project.run(*options, "--submitit-array-parallel", "1", "--submitit-memory-factor", "2") == 0, project.screen
    [array] = project.job_ids
    rows = elements(project, "JobID", "Timelimit", "ReqMem", "AllocCPUS", "Start", "End")
    assert len(rows) == 2 and {(row["Timelimit"], row["ReqMem"], row["AllocCPUS"]) for row in rows} == {
        ("00:09:00", "600M", "2")
    }
    first, second = sorted(rows, key=lambda row: row["Start"])
    assert second["Start"] >= first["End"], "two elements at a time"
    for run in ("a/1", "b/1"):
        words = [(project.folder / f"{run}/{suite}.txt").read_text(encoding="utf-8").split() for suite in "xyz"]
        assert len({job for job, _, _ in words}) == 1
        times = sorted((float(start), float(end)) for _, start, end in words)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    # What they used is requested the next time.
    peak = max(record["peak_mb"] for record in project.history.values())
    assert 20 < peak < 300, "MB, of Snakemake and the command"
    for suite in "xyz":
        (project.folder / f"a/1/{suite}.txt").unlink()
    assert project.run(*options, "--submitit-memory-factor", "2") == 0, project.screen
    rows = project.cluster.ended(f"--jobs={project.job_ids[1]}", fields="JobID,ReqMem")
    assert {row["ReqMem"] for row in rows} == {f"{max(401, min(600, -(-2 * peak // 100) * 100))}M"}, (peak, array)
