"""The executor plugin on a real Slurm: faults of users, sites and disks."""

import json
import os
import re
import shlex
import signal
import subprocess
import textwrap
import time

import pytest
from project import SLEEPER, Project

pytestmark = pytest.mark.faults


def test_damaged_and_deleted_records_are_restored_from_the_submission(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
    live = project.folder / ".snakemake/submitit/live"
    first, second, third = sorted(live.glob("*.json"))
    first.write_text("null", encoding="utf-8")
    second.write_text(json.dumps({**json.loads(second.read_text(encoding="utf-8")), "outputs": 7}), encoding="utf-8")
    third.unlink()
    project.unlock()
    with project.running() as process:
        project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of all jobs")
        project.go()
        assert project.wait(process) == 0, project.screen
    assert len(project.starts) == 3 and len(project.job_ids) == 1
    assert project.screen.count("expected the record of a job") == 2 and len(list(live.glob("*.damaged"))) == 2


def test_jobs_without_any_record_are_cancelled_before_their_outputs_are_made_again(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
    for file in (project.folder / ".snakemake/submitit").glob("*/*.json"):
        file.write_text("[]", encoding="utf-8")
    project.unlock()
    with project.running() as process:
        project.until(lambda: "whose records are lost" in project.screen, "the end of the lost jobs")
        project.until(lambda: len(project.starts) == 6, "the start of the new jobs")
        project.go()
        assert project.wait(process) == 0, project.screen
    rows = project.cluster.ended(f"--jobs={project.job_ids[0]}", fields="JobID")
    assert {row["State"].split()[0] for row in rows} == {"CANCELLED"}


def test_an_input_removed_after_the_submission_fails_the_job_by_name(project: Project) -> None:
    project.put("input.txt", "1")
    project.write("""
        rule work:
            input: "input.txt"
            output: "out.txt"
            resources: runtime=5, mem_mb=100
            shell: "cp {input} {output}"
    """)
    blockers = project.cluster.fill()
    with project.running() as process:
        project.until(lambda: project.live and project.live[0]["id"], "the submission")
        (project.folder / "input.txt").unlink()
        project.cluster.run("scancel", *blockers)
        assert project.wait(process) == 1
    assert re.search(r"input.txt: expected this input on .*, found none after 5 s", project.screen), project.screen
    rows = project.cluster.ended(f"--jobs={project.job_ids[0]}", fields="JobID")
    assert {row["State"] for row in rows} == {"FAILED"}, "a success that is none"


def test_sigterm_ends_snakemake_at_once_and_its_jobs_are_taken_over(project: Project) -> None:
    blockers = project.cluster.fill()
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.live) == 3 and all(entry["id"] for entry in project.live), "the submission")
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert project.wait(process) == 1 and time.monotonic() - before < 20
    assert "Ended by SIGTERM. 3 jobs stay in the queue" in project.screen
    with project.running() as process:
        project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of all jobs")
        project.cluster.run("scancel", *blockers)
        project.go()
        assert project.wait(process) == 0, project.screen
    assert len(project.starts) == 3


def test_a_submission_cancelled_as_a_whole_is_not_repeated(project: Project) -> None:
    project.write(SLEEPER)
    with project.running("--retries", "2") as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        project.cluster.run("scancel", project.job_ids[0])
        assert project.wait(process) == 1
    assert "was cancelled as a whole" in project.screen and len(project.job_ids) == 1
    assert {record["outcome"] for record in project.history.values()} == {"CANCELLED"}


@pytest.mark.parametrize("cancelled", [[0], [0, 1]])
def test_single_elements_cancelled_by_hand_are_repeated(project: Project, cancelled: list[int]) -> None:
    project.write(SLEEPER)
    with project.running("--retries", "1") as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        project.cluster.run("scancel", *(f"{project.job_ids[0]}_{index}" for index in cancelled))
        project.until(lambda: len(project.starts) == 3 + len(cancelled), "the second attempt")
        project.go()
        assert project.wait(process) == 0, project.screen


def test_variables_of_the_site_do_not_overrule_a_job(project: Project) -> None:
    site = {"SBATCH_TIMELIMIT": "30", "SBATCH_NO_REQUEUE": "1", "SBATCH_EXPORT": "NONE", "SQUEUE_PARTITION": "urgent"}
    site |= {"SQUEUE_FORMAT": "%i", "SBATCH_PARTITION": "urgent", "SACCT_FORMAT": "JobID"}
    project.environment |= site
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        job = project.cluster.job(f"{project.job_ids[0]}_0")
        time.sleep(5)  # some polls
        project.go()
        assert project.wait(process) == 0, project.screen
    assert (job["TimeLimit"], job["Partition"], job["Requeue"]) == ("00:05:00", "gpu", "1")
    assert "SBATCH_EXPORT, SBATCH_NO_REQUEUE, SBATCH_PARTITION, SBATCH_TIMELIMIT: these variables" in project.screen
    assert len(project.job_ids) == 1 and len(project.starts) == 3
    project.environment["SLURM_CLUSTERS"] = "other"
    (project.folder / "out/0.txt").unlink()
    assert project.run() == 1 and "SLURM_CLUSTERS=other: expected one cluster" in project.screen


def test_a_deleted_folder_is_named(project: Project) -> None:
    project.write(SLEEPER)
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        [folder] = {entry["folder"] for entry in project.live}
        subprocess.run(["rm", "-r", folder], check=True)
        project.go()
        assert project.wait(process) == 1
    assert f"its folder {folder}, which holds its command, log and result, was deleted" in project.screen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_for_records_is_said_and_jobs_go_on(project: Project) -> None:
    records = project.folder / "records"
    records.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", records], check=True)
    try:
        (filler := records / "filler").write_bytes(b"\0" * 2**19)
        project.write(SLEEPER)
        option = ["--submitit-folder", str(records)]
        with project.running(*option) as process:
            project.until(lambda: len(project.starts) == 3, "the start of all jobs")
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"\0" * 2**21)
            time.sleep(3)
            filler.unlink()
            project.go()
            assert project.wait(process) == 0, project.screen
        assert len(project.starts) == 3
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"\0" * 2**21)
        (project.folder / "out/0.txt").unlink()
        assert project.run(*option) == 1
        assert "the record of this job cannot be written" in project.screen and "No space left" in project.screen
        assert len(project.job_ids) == 1
    finally:
        subprocess.run(["umount", "-l", records], check=True)


def test_jobs_that_scancel_could_not_reach_are_taken_over(project: Project) -> None:
    project.write(SLEEPER)
    project.wrap(
        "scancel", '[ -e broken ] && { echo "scancel: error: Unable to contact" >&2; exit 1; }; exec REAL "$@"'
    )
    (project.folder / "broken").touch()
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        process.send_signal(signal.SIGINT)
        assert project.wait(process) == 1
    assert f"These jobs may still run; stop them: scancel {project.job_ids[0]}" in project.screen
    (project.folder / "broken").unlink()
    with project.running() as process:
        project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of all jobs")
        project.go()
        assert project.wait(process) == 0, project.screen
    assert len(project.starts) == 3


def test_a_snakemake_in_a_slurm_job_continues_after_its_requeue(project: Project) -> None:
    free = "from pathlib import Path; from snakemake_executor_plugin_submitit.controller import free_lock"
    free += "\nif workflow.is_main_process: logger.info(free_lock(Path('.snakemake/submitit')))\n"
    project.write(free + textwrap.dedent(SLEEPER))
    variables = ("PYTHONPATH", "PYTHONPYCACHEPREFIX")
    exports = " ".join(f"{name}={shlex.quote(project.environment[name])}" for name in variables)
    command = f"cd {project.folder}; export {exports}; {shlex.join(project.command())} >> screen.txt 2>&1"
    job = project.cluster.submit(command, "--requeue", "--mem=1500", "--time=20")
    project.until(lambda: len(project.starts) == 3 and len(project.live) == 3, "the start of all jobs")
    project.cluster.scontrol("requeue", job)
    project.until(lambda: project.screen.count("Taking over") == 3, "the takeover of all jobs")
    project.go()
    project.cluster.wait_for(job, "COMPLETED")
    assert len(project.starts) == 3 and len(project.job_ids) == 1
    assert f"in Slurm job {job}." in project.screen or "Ended by SIGTERM" in project.screen


def test_ctrl_c_does_not_wait_for_a_squeue_that_hangs(project: Project) -> None:
    project.write(SLEEPER)
    project.wrap("squeue", '[ -e hang ] && { touch asked; sleep 300; }; exec REAL "$@"')
    with project.running() as process:
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
        (project.folder / "hang").touch()
        project.until(lambda: (project.folder / "asked").exists(), "a squeue that hangs", timeout_s=30)
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert project.wait(process) == 1 and time.monotonic() - before < 20
    project.until(lambda: not project.cluster.squeue(), "an empty queue")


def test_a_full_queue_is_asked_few_times(project: Project) -> None:
    project.write("""
        rule all:
            input: expand("out/{i}.txt", i=range(40))
        rule work:
            output: "out/{i}.txt"
            resources: runtime=5, mem_mb=100
            shell: "touch {output}"
    """)
    project.wrap("sbatch", 'echo x >> calls.txt; exec REAL "$@"')
    project.cluster.limit_submissions(8)
    assert project.run("--jobs", "40", "--submitit-retry-seconds-max", "4") == 0, project.screen
    calls = len((project.folder / "calls.txt").read_text(encoding="utf-8").splitlines())
    assert len(project.history) == 40 and calls <= 36, calls
