"""The executor plugin on a real Slurm: whole nodes, names, set-up lines, no requeueing, the report and the status."""

import csv
import json
import subprocess
import sys

from lanes import PLAIN, WARNED
from project import SLEEPER, Project

BURNER = """
    import sys, time
    held = bytearray(150_000_000)
    held[::4096] = b"x" * len(held[::4096])
    while time.process_time() < 12:
        pass
    open(sys.argv[1], "w").write("done")
"""


def status(project: Project) -> str:
    """What `snakemake-submitit status` prints where no program of Slurm can be found."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake_executor_plugin_submitit.cli", "status"],
        cwd=project.folder,
        env={**project.environment, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def test_whole_nodes_names_comments_and_lines_of_the_set_up(project: Project) -> None:
    project.write("""
        rule all:
            input: "whole.txt", "named.txt"
        rule whole:
            output: "whole.txt"
            resources: runtime=2, mem_mb=100, exclusive=True, submitit_setup="export SECOND=${FIRST}2"
            shell: "echo $SECOND > {output}"
        rule named:
            output: "named.txt"
            resources: runtime=2, mem_mb=100, slurm_job_name="my own", slurm_comment="mine"
            shell: "echo $FIRST$THIRD > {output}"
    """)
    templates = ["--submitit-job-name", "{rule} of {workdir}", "--submitit-comment", "{workdir}: {outputs}"]
    assert project.run("--submitit-setup", "export FIRST=1\nexport THIRD=3", *templates) == 0, project.screen
    assert (project.folder / "whole.txt").read_text(encoding="utf-8") == "12\n"
    assert (project.folder / "named.txt").read_text(encoding="utf-8") == "13\n"
    jobs = {name: project.cluster.scontrol("show", "job", record["id"]) for name, record in project.history.items()}
    name = project.folder.name
    assert f"JobName=whole of {name}\n" in jobs["whole.txt"] and f"Comment={name}: whole.txt" in jobs["whole.txt"]
    assert "JobName=my own\n" in jobs["named.txt"] and "Comment=mine" in jobs["named.txt"]
    assert "OverSubscribe=NO" in jobs["whole.txt"] and "OverSubscribe=OK" in jobs["named.txt"]


@WARNED.scenario
def test_a_preempted_job_that_must_not_be_requeued_fails_and_its_retry_continues(project: Project) -> None:
    project.train(steps=10, resources="runtime=20, slurm_nodelist='n1'")
    with project.running("--submitit-no-requeue", "--retries", "1") as process:
        project.until(lambda: (project.folder / "state.0").exists(), "the first checkpoint")
        project.preempt("--partition=urgent")
        project.until(lambda: len(project.starts) == 2, "the start of the retry")
        project.go()
        assert project.wait(process) == 0, project.screen
    (_, first, *_), (_, second, *_) = project.starts
    assert int(first) == 0 < int(second), "the retry did not continue from the saved state"
    assert [restarts for _, _, restarts, _ in project.starts] == ["0", "0"]
    lines = (project.folder / ".snakemake/submitit/history.jsonl").read_text(encoding="utf-8").splitlines()
    records = list(map(json.loads, lines))
    assert [record["id"] for record in records] == project.job_ids and len(set(project.job_ids)) == 2
    assert [record["attempt"] for record in records] == [1, 2]
    assert records[0]["outcome"] != "COMPLETED" == records[1]["outcome"]


def test_the_report_tells_what_was_used_of_what_was_requested(project: Project) -> None:
    project.put("burner.py", BURNER)
    project.write("""
        rule all:
            input: "burn.txt", "idle.txt"
        rule burn:
            output: "burn.txt"
            threads: 2
            resources: runtime=5, mem_mb=400
            shell: "PYTHON burner.py {output}"
        rule idle:
            output: "idle.txt"
            resources: runtime=5, mem_mb=400
            shell: "sleep 5; echo > {output}"
    """)
    assert project.run("--submitit-efficiency-report", "used.csv") == 0, project.screen
    with open(project.folder / "used.csv", encoding="utf-8", newline="") as file:
        jobs = {row["rule"]: row for row in csv.DictReader(file)}
    burn, idle = jobs["burn"], jobs["idle"]
    assert (burn["cpus"], burn["requested_mb"], burn["outcome"]) == ("2", "800", "COMPLETED")
    # Both jobs also pay for their Snakemake, which takes 2 to 4 s of processor time.
    assert float(burn["cpu_s"]) > 12 and float(burn["cpu_s"]) > float(idle["cpu_s"]) + 8
    # Two CPUs were requested, and one process at a time used one.
    assert 0 < float(burn["cpu_used"]) < 0.7
    assert 150 < int(burn["peak_mb"]) < 500 and int(burn["peak_mb"]) > int(idle["peak_mb"]) + 80
    [line] = [line for line in project.screen.splitlines() if line.startswith("burn ") and "800 MB" in line]
    assert f"{burn['peak_mb']} MB" in line


@PLAIN.scenario
def test_the_status_needs_no_slurm_and_says_when_nobody_follows_the_jobs(project: Project) -> None:
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        project.until(lambda: {entry["state"] for entry in project.live} == {"RUNNING"}, "the state RUNNING")
        shown = status(project)
        assert "3 live jobs: 3 running" in shown and "No Snakemake" not in shown
        lines = [line.split() for line in shown.splitlines() if line.startswith("work")]
        assert len(lines) == 3 and all({"running"} <= set(words) and {"n1", "n2"} & set(words) for words in lines)
        process.kill()
        process.wait()
        assert "No Snakemake has followed the 3 live jobs" in status(project)
    project.unlock()
    project.go()
    assert project.run() == 0, project.screen
    assert status(project) == "No live jobs.\n" and len(project.job_ids) == 1
