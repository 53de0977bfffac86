"""The executor plugin on a real Slurm: what running jobs survive. These tests mostly wait for Slurm."""

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

from lanes import BY_QOS, PLAIN, WARNED
from project import PATIENCE_S, SLEEPER, Project


def check_continued(project: Project, output: str, starts: int, more: bool = False) -> None:
    """Checks that a training started `starts` times under one id, each time from its saved state, and is correct.

    With `more`, its job may have started oftener: a warning can come before the command begins or after its end.
    """
    saved = [(int(step), int(restarts)) for name, step, restarts, _ in project.starts if name == output]
    assert len(project.job_ids) == 1 and len(saved) == starts, project.starts
    assert saved == sorted(saved) and saved[0][0] == 0 and saved[-1][0] > 0
    # Equal if the last warning came at the last step.
    assert int((project.folder / output).read_text(encoding="utf-8")) >= saved[-1][0]
    record = project.history[output]
    restarts = [one["restarts"] for one in record["starts"]]
    assert record["outcome"] == "COMPLETED" and restarts == list(range(len(restarts)))
    assert {number for _, number in saved} <= set(restarts) if more else [number for _, number in saved] == restarts


def check_survives_preemption(project: Project, option: str) -> None:
    """Preempts a training after its first checkpoint and checks that it continues."""
    project.train(steps=10, resources="runtime=20, slurm_nodelist='n1'")
    with project.running() as process:
        project.until(lambda: (project.folder / "state.0").exists(), "the first checkpoint")
        project.preempt(option)
        project.go()
        assert project.wait(process) == 0, project.screen
    check_continued(project, "out/0.txt", starts=2)


# --- warnings, preemption, limits


@WARNED.scenario
def test_a_preempted_job_and_a_requeued_element_continue(project: Project) -> None:
    project.train(steps=10, resources="runtime=20, slurm_nodelist='n1'", count=2)
    with project.running() as process:
        project.until(lambda: (project.folder / "state.1").exists(), "the first checkpoint")
        # Snakemake submits jobs in any order.
        [element] = [entry["id"] for entry in project.live if "out/1.txt" in entry["outputs"]]
        project.cluster.scontrol("requeue", element)
        project.until(lambda: len(project.starts) == 3, "the restart of the element")
        project.until(lambda: (project.folder / "state.0").exists(), "the checkpoint of the other one")
        project.preempt("--partition=urgent")
        project.until(lambda: len(project.starts) == 5, "the restart of both")
        project.go()
        assert project.wait(process) == 0, project.screen
    check_continued(project, "out/0.txt", starts=2)
    check_continued(project, "out/1.txt", starts=3)


@BY_QOS.scenario
def test_preemption_by_qos_without_a_warning_is_survived(project: Project) -> None:
    check_survives_preemption(project, "--qos=urgent")


@PLAIN.scenario
def test_preemption_by_partition_without_a_warning_and_without_accounting_is_survived(project: Project) -> None:
    check_survives_preemption(project, "--partition=urgent")


@PLAIN.scenario
def test_a_time_limit_shorter_than_the_usual_warning_is_survived(project: Project) -> None:
    # Slurm warns up to half a minute early: here soon after a start, or 30 s later.
    project.train(steps=70, resources="runtime=1")
    project.go()
    assert project.run("--submitit-max-timeouts", "10") == 0, project.screen
    [submission] = (project.folder / ".snakemake/submitit").glob("*/*_submission.sh")
    assert "--signal=USR2@30" in submission.read_text(encoding="utf-8"), (
        "not 90 s before the end of a job of one minute"
    )
    assert len(project.starts) >= 2
    check_continued(project, "out/0.txt", starts=len(project.starts), more=True)
    assert (project.folder / "out/0.txt").read_text(encoding="utf-8") == "70"


# --- nodes


@WARNED.scenario
def test_the_job_of_a_killed_node_continues_elsewhere(project: Project) -> None:
    project.train(steps=10, resources="runtime=5")
    with project.running() as process:
        project.until(lambda: (project.folder / "state.0").exists(), "the first checkpoint")
        first = project.starts[0][3]
        project.cluster.kill_node(first)
        project.go()
        assert project.wait(process) == 0, project.screen
    assert project.starts[-1][3] != first and project.history["out/0.txt"]["starts"][-1]["slurm_node"] != first
    check_continued(project, "out/0.txt", starts=2)
    rows = project.cluster.ended(f"--jobs={project.job_ids[0]}", fields="JobID")
    assert "NODE_FAIL" in {row["State"] for row in rows}
    project.cluster.revive_node(first)
    project.cluster.wait_for(project.cluster.submit("true", f"--nodelist={first}"), "COMPLETED")


MEMBER = """
    import os, signal, sys, time
    from pathlib import Path
    node = os.environ["SLURMD_NODENAME"]
    warned = []
    signal.signal(signal.SIGUSR2, lambda *_: warned.append(1))
    with open("members.txt", "a") as file:
        print(node, *(os.environ[name] for name in ("SLURM_PROCID", "SLURM_NTASKS", "CUDA_VISIBLE_DEVICES")), file=file)
    while not Path("go").exists():
        if warned:
            Path(f"warned.{node}").touch()
            sys.exit(75)
        time.sleep(0.1)
"""


@WARNED.scenario
def test_two_nodes_run_one_command_that_reaches_both(project: Project) -> None:
    project.put("member.py", MEMBER)
    project.write("""
        rule both:
            output: "out.txt"
            resources: nodes=2, gpu=1, runtime=20, mem_mb=100
            shell:
                "echo $SLURMD_NODENAME $SUBMITIT_RESTARTS >> starts.txt; "
                "srun --overlap --nodes=2 --ntasks=2 --ntasks-per-node=1 PYTHON member.py && touch {output}"
    """)
    members = project.folder / "members.txt"

    def count() -> int:
        return len(members.read_text(encoding="utf-8").splitlines()) if members.exists() else 0

    with project.running() as process:
        project.until(lambda: count() == 2, "a process on each node")
        assert project.starts == [["n1", "0"]], "the command itself runs only once"
        lines = sorted(line.split() for line in members.read_text(encoding="utf-8").splitlines())
        assert lines == [["n1", "0", "2", "0"], ["n2", "1", "2", "0"]]
        # The signal that Slurm sends before a time limit and a preemption.
        project.cluster.run("scancel", "--signal=USR2", project.job_ids[0])
        project.until(lambda: count() == 4, "the restart of both processes")
        assert (project.folder / "warned.n1").exists() and (project.folder / "warned.n2").exists()
        assert project.starts == [["n1", "0"], ["n1", "1"]]
        process.send_signal(signal.SIGINT)
        assert project.wait(process) == 1
    project.until(lambda: not project.cluster.squeue(), "an empty queue")
    project.until(lambda: not _processes_in(project.folder), "the end of every process of the job")
    project.go()
    assert project.run() == 0, project.screen
    assert len(project.starts) == 3 and count() == 6


def _processes_in(folder: Path) -> list[str]:
    """Command lines of the processes with this working folder."""
    commands = []
    for entry in filter(lambda path: path.name.isdigit(), Path("/proc").iterdir()):
        try:
            if (entry / "cwd").resolve(strict=True) == folder.resolve():
                commands.append((entry / "cmdline").read_text(encoding="utf-8"))
        except OSError:
            continue
    return commands


# --- kills at random times


@BY_QOS.scenario
def test_snakemake_killed_again_and_again_runs_every_job_once(project: Project) -> None:
    """LUAB_KILLS is the number of kills, LUAB_KILLS_SEED the seed of their times."""
    rng = random.Random(int(os.environ.get("LUAB_KILLS_SEED", 0)))
    kills = int(os.environ.get("LUAB_KILLS", 6))
    count = 3 * max(1, kills // 6)
    project.write(f"""
        rule all:
            input: expand("c/{{i}}.txt", i=range({count}))
        rule a:
            output: "a/{{i}}.txt"
            resources: runtime=60, mem_mb=100
            shell: "echo {{output}} >> starts.txt; sleep {{wildcards.i}}; touch {{output}}"
        use rule a as b with:
            input: "a/{{i}}.txt"
            output: "b/{{i}}.txt"
        rule c:
            input: "b/{{i}}.txt"
            output: "c/{{i}}.txt"
            resources: runtime=60, mem_mb=100
            shell: "echo {{output}} >> starts.txt; while [ ! -e go ]; do sleep 0.2; done; touch {{output}}"
    """)
    delays: list[float] = []
    for _ in range(kills):
        Path(project.folder / "screen.txt").write_text("", encoding="utf-8")
        with project.running() as process:
            project.until(lambda: "Building DAG of jobs" in project.screen, "the start of Snakemake")
            delays.append(round(rng.uniform(0, 5), 2))
            time.sleep(delays[-1])
            assert process.poll() is None, project.screen
        project.unlock()
    project.go()
    assert project.run(timeout_s=PATIENCE_S + 10 * kills) == 0, project.screen
    outputs = [line[0] for line in project.starts]
    assert len(outputs) == len(set(outputs)) == 3 * count, (delays, sorted(outputs))
    rows = project.cluster.ended(fields="JobID,JobName")
    states = [row["State"].split()[0] for row in rows if row["JobName"].split()[0] in ("a", "b", "c")]
    print(f"{kills} kills: {len(outputs)} outputs, each made once; jobs: {dict(Counter(states))}")
    assert states.count("COMPLETED") == 3 * count and set(states) <= {"COMPLETED", "CANCELLED"}, (delays, states)
    assert {record["outcome"] for record in project.history.values()} == {"COMPLETED"}


# Snakemake sets its marker of an unfinished output when the job has just ended, and dies before it removes it. Jobs
# themselves run Snakemake, too.
DEATH_BETWEEN = """
    import os, signal, time
    from pathlib import Path
    from snakemake.jobs import Job
    register = Job.register
    def register_late(job, external_jobid=None):
        while not list(Path(".snakemake/submitit").glob("*/*_result.pkl")):
            time.sleep(0.1)
        register(job, external_jobid)
    async def die(job, **_):
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "SLURM_JOB_ID" not in os.environ and not Path("killed").exists():
        Job.register, Job.postprocess = register_late, die
"""


@PLAIN.scenario
def test_snakemake_killed_before_it_notes_a_success_down_does_not_run_the_job_again(project: Project) -> None:
    project.write(
        DEATH_BETWEEN
        + """
    rule one:
        output: "out.txt"
        resources: runtime=5, mem_mb=100
        shell: "echo start >> starts.txt; touch {output}"
    """
    )
    assert project.run() == -signal.SIGKILL and (project.folder / "out.txt").exists()
    project.unlock()
    assert project.run() == 0, project.screen
    assert "Taking over job" in project.screen and len(project.starts) == 1
    assert project.history["out.txt"]["outcome"] == "COMPLETED"
    # A job that is wanted anew runs again.
    assert project.run("--forcerun", "one") == 0, project.screen
    assert len(project.starts) == 2


@PLAIN.scenario
def test_jobs_that_end_before_snakemake_asks_for_them_do_not_run_again(project: Project) -> None:
    project.write(SLEEPER)
    with project.running():
        project.until(lambda: len(project.starts) == 3, "the start of all jobs")
    project.unlock()
    with project.running("--jobs", "1") as process:
        project.until(lambda: "Taking over job" in project.screen, "one job to be taken over")
        project.go()
        assert project.wait(process) == 0, project.screen
    assert project.screen.count("Taking over job") == 3 and len(project.starts) == 3
    assert {record["outcome"] for record in project.history.values()} == {"COMPLETED"}


# --- a slow shared file system

# Runs the job in a separate folder and moves its result into the shared one some seconds after Slurm lists it as ended.
LATE_RESULT = """
    srun() {
        shared="${@: -1}"
        hidden="$shared/hidden-$SLURM_JOB_ID"
        mkdir "$hidden"
        while [ ! -e "$shared/${SLURM_JOB_ID}_submitted.pkl" ]; do sleep 0.1; done
        cp "$shared/${SLURM_JOB_ID}_submitted.pkl" "$hidden"
        command srun "${@:1:$#-1}" "$hidden"
        seconds=$(cat late.$SLURM_JOB_NAME)
        setsid bash -c "while squeue -h -t R -j $SLURM_JOB_ID | grep -q .; do sleep 0.5; done; sleep $seconds; \\
            mv $hidden/*_result.pkl $shared" > /dev/null 2>&1 < /dev/null &
    }
"""


@PLAIN.scenario
def test_late_files_are_waited_for_but_not_forever(project: Project) -> None:
    project.put("late.sh", LATE_RESULT)
    project.put("late.late", "3")
    project.put("late.never", "3600")
    project.write("""
        rule all:
            input: "late.txt", "never.txt"
        rule late:
            output: "late.txt"
            resources: runtime=5, mem_mb=100
            # The output, too, appears after the end of the command.
            shell: "echo start >> starts.txt; (sleep 2; echo late > {output}.part; mv {output}.part {output}) &"
        rule never:
            output: "never.txt"
            resources: runtime=5, mem_mb=100
            shell: "touch {output}"
    """)
    setup = ["--submitit-setup", f"cd {project.folder}; source late.sh", "--submitit-result-grace", "30"]
    assert project.run(*setup, "--keep-going", "--latency-wait", "60") == 1
    assert re.search(r"\(never\).* failed: Slurm reports COMPLETED, but the result file is missing", project.screen)
    assert (project.folder / "late.txt").read_text(encoding="utf-8") == "late\n" and len(project.starts) == 1
    assert project.history["late.txt"]["outcome"] == "COMPLETED"
    assert project.history["never.txt"]["outcome"] == "FAILED"


# --- without accounting


@PLAIN.scenario
def test_ended_jobs_are_detected_without_accounting(project: Project) -> None:
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
            shell: "echo started >> starts.txt; sleep 1000"
    """)
    with project.running("--keep-going") as process:
        project.until(lambda: project.starts, "the start of the job to cancel")
        project.cluster.run("scancel", "--name=cancelled")
        assert project.wait(process) == 1
    assert "Finished jobid" in project.screen and "exit status 42" in project.screen
    assert re.search(r"\(cancelled\).* failed: cancelled\.", project.screen)
    assert project.history["cancelled.txt"]["outcome"] == "CANCELLED"
