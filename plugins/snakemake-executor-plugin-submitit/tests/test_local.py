"""The executor plugin with `cluster: local`, its payload on its own, and the installed plugin."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
PLUGINS = PACKAGE / "src"
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--submitit-cluster", "local", "--jobs", "4"]
SNAKEMAKE += ["--submitit-poll-seconds", "0.5", "--submitit-queue-seconds", "1", "--rerun-incomplete"]


def until(condition: Callable[[], object], timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


def environment(**more: str) -> dict[str, str]:
    source = {} if os.environ.get("SUBMITIT_TESTS_INSTALLED") else {"PYTHONPATH": str(PLUGINS)}
    return {**os.environ, **source, **more}


# --- payload

# Runs a payload as submitit would.
HARNESS = """
    import os, pickle, signal, sys, threading, time
    from snakemake_executor_plugin_submitit.payload import JobCommand
    command, limit_s, timeouts, requeue = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"
    job = JobCommand(command, os.getcwd(), limit_s, warning_s=5, requeue_timeouts=timeouts, requeue=requeue)
    def warn(signum, frame):
        delayed = job.checkpoint()
        print("no continuation" if delayed is None else f"{delayed.function.restarts} {delayed.function.command}")
        os._exit(0)
    signal.signal(signal.SIGUSR2, warn)
    job()
    print("ended")
"""


def payload(
    folder: Path,
    command: str,
    *,
    limit_s: float = 3600,
    requeue: str = "handled",
    cluster: str = "local",
    may_requeue: bool = True,
) -> "subprocess.Popen[str]":
    script = textwrap.dedent(HARNESS)
    environ = environment(SUBMITIT_EXECUTOR=cluster, SUBMITIT_FOLDER=str(folder), SUBMITIT_LOCAL_JOB_ID="7")
    return subprocess.Popen(
        [sys.executable, "-c", script, command, str(limit_s), requeue, str(may_requeue)],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


SAVES = (
    'python3 -c "import signal, sys, time; signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75)); '
    "open('up', 'w'); time.sleep(60)\""
)
STARTING = SAVES.replace("signal.signal(", "open('up', 'w'); time.sleep(1); signal.signal(")
IGNORES = "touch up; sleep 60; touch survived"


@pytest.mark.parametrize(
    ("command", "limit_s", "requeue", "expected"),
    [
        (SAVES, 3600, "handled", "1 " + SAVES),  # preempted
        (SAVES, 10, "handled", "1 " + SAVES),  # at its limit, and it saved
        (STARTING, 10, "handled", "1 " + STARTING),  # warned before it handles the signal: warned again
        (IGNORES, 3600, "handled", "1 " + IGNORES),  # preempted: restarted from the beginning
        (IGNORES, 10, "handled", "no continuation"),  # at its limit: a second attempt would end the same way
        (IGNORES, 10, "always", "1 " + IGNORES),
        (SAVES, 10, "never", "no continuation"),
        (SAVES.replace("sys.exit(75)", "sys.exit(0)"), 10, "handled", "1 true"),  # it had finished
    ],
)
def test_a_warned_job_continues_if_that_helps(
    tmp_path: Path, command: str, limit_s: float, requeue: str, expected: str
) -> None:
    with payload(tmp_path, command, limit_s=limit_s, requeue=requeue) as job:
        until((tmp_path / "up").exists)
        time.sleep(0.2)
        job.send_signal(signal.SIGUSR2)
        assert job.communicate(timeout=20)[0].strip() == expected
    assert not (tmp_path / "survived").exists()


@pytest.mark.parametrize(("status", "expected"), [(0, "ended"), (75, "exit status 75")])
def test_a_job_that_may_not_be_requeued_ends_as_its_command_does(tmp_path: Path, status: int, expected: str) -> None:
    with payload(tmp_path, SAVES.replace("75", str(status)), may_requeue=False) as job:
        until((tmp_path / "up").exists)
        time.sleep(0.2)
        job.send_signal(signal.SIGUSR2)
        out, err = job.communicate(timeout=60)
    assert expected in (err if status else out).splitlines()[-1] and "continuation" not in out


def test_a_short_job_that_was_warned_too_early_warns_itself(tmp_path: Path) -> None:
    with payload(tmp_path, SAVES, limit_s=12, cluster="slurm") as job:
        assert job.communicate(timeout=60)[0].strip() == "1 " + SAVES


def test_an_interrupted_payload_leaves_no_process_behind(tmp_path: Path) -> None:
    with payload(tmp_path, "(sleep 3; touch survived) & touch up; sleep 60") as job:
        until((tmp_path / "up").exists)
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=20)
    time.sleep(3.5)
    assert not (tmp_path / "survived").exists()


def test_a_failed_command_fails_the_payload_and_restarts_are_counted(tmp_path: Path) -> None:
    with payload(tmp_path, "echo restarts $SUBMITIT_RESTARTS; exit 3") as job:
        out, err = job.communicate(timeout=20)
    assert "restarts 0" in out and "exit status 3" in err and "ended" not in out
    assert '"restarts": 0' in (tmp_path / "7_starts.jsonl").read_text(encoding="utf-8")


# --- whole runs


def write(folder: Path, snakefile: str) -> None:
    (folder / "Snakefile").write_text(textwrap.dedent(snakefile), encoding="utf-8")


WAITING = """
    rule all:
        input: expand("out/{i}.txt", i=range(2))
    rule work:
        output: "out/{i}.txt"
        resources: runtime=5
        shell: "echo {wildcards.i} >> starts.txt; while [ ! -e go ]; do sleep 0.1; done; touch {output}"
"""


def start(folder: Path) -> "subprocess.Popen[bytes]":
    with open(folder / "screen.txt", "a", encoding="utf-8") as screen:
        return subprocess.Popen(SNAKEMAKE, cwd=folder, env=environment(), stdout=screen, stderr=screen)


def started(folder: Path) -> int:
    path = folder / "starts.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_a_restarted_snakemake_takes_over_the_jobs_of_a_killed_one(tmp_path: Path) -> None:
    write(tmp_path, WAITING)
    with start(tmp_path) as first:
        until(lambda: started(tmp_path) == 2)
        first.kill()
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=tmp_path, check=True, capture_output=True)
    with start(tmp_path) as second:
        until(lambda: (tmp_path / "screen.txt").read_text(encoding="utf-8").count("Taking over") == 2)
        (tmp_path / "go").touch()
        assert second.wait(180) == 0
    assert started(tmp_path) == 2


def test_the_lock_of_a_killed_snakemake_is_removed_by_the_next_but_not_that_of_a_live_one(tmp_path: Path) -> None:
    free = "from snakemake_executor_plugin_submitit.controller import free_lock; from pathlib import Path"
    free += "\nif workflow.is_main_process: logger.info(free_lock(Path('.snakemake/submitit')))\n"
    write(tmp_path, free + textwrap.dedent(WAITING))
    screen = tmp_path / "screen.txt"
    with start(tmp_path) as first:
        until(lambda: started(tmp_path) == 2)
        notice = [sys.executable, "-c", "from snakemake_executor_plugin_submitit.controller import notice as n; "]
        notice[-1] += "from pathlib import Path; print(n(Path('.snakemake/submitit')), end='')"
        run = {"cwd": tmp_path, "env": environment(), "text": True, "encoding": "utf-8", "errors": "replace"}
        assert subprocess.run(notice, check=True, capture_output=True, **run).stdout == ""
        with start(tmp_path) as second:
            assert second.wait(180) == 1 and "LockException" in screen.read_text(encoding="utf-8")
        first.kill()
    said = subprocess.run(notice, check=True, capture_output=True, **run).stdout
    assert "No Snakemake has followed the 2 live jobs since" in said and f"process {first.pid} on" in said
    assert said.splitlines()[1].startswith(f"    cd {tmp_path} && snakemake --executor submitit")
    with start(tmp_path) as third:
        until(lambda: screen.read_text(encoding="utf-8").count("Taking over") == 2)
        (tmp_path / "go").touch()
        assert third.wait(180) == 0
    text = screen.read_text(encoding="utf-8")
    assert f"Removed the lock of a Snakemake that is gone: process {first.pid}" in text and started(tmp_path) == 2
    assert subprocess.run(notice, check=True, capture_output=True, **run).stdout == ""


def test_files_of_old_submissions_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / ".snakemake" / "submitit"
    old, new = folder / "20200101-000000-work-1a2b3c4d", folder / "20260101-000000-work-1a2b3c4d"
    for path in (old, new, folder / "locks"):
        path.mkdir(parents=True)
    (folder / "locks" / "0.lock").touch()
    for path in (old, folder / "locks" / "0.lock"):
        os.utime(path, (time.time() - 91 * 86_400,) * 2)
    write(tmp_path, WAITING)
    (tmp_path / "go").touch()
    with start(tmp_path) as process:
        assert process.wait(180) == 0
    assert not old.exists() and new.exists() and not (folder / "locks" / "0.lock").exists()


def test_ctrl_c_ends_local_jobs(tmp_path: Path) -> None:
    write(tmp_path, WAITING)
    with start(tmp_path) as process:
        until(lambda: started(tmp_path) == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    (tmp_path / "go").touch()
    time.sleep(1)
    assert not (tmp_path / "out" / "0.txt").exists(), "the jobs were not cancelled"
    assert not list((tmp_path / ".snakemake").glob("locks/*"))


def test_a_failure_shows_its_reason_and_log(tmp_path: Path) -> None:
    write(tmp_path, "rule bad:\n    output: 'x'\n    shell: 'echo the reason in words; exit 42'\n")
    with start(tmp_path) as process:
        assert process.wait(180) == 1
    screen = (tmp_path / "screen.txt").read_text(encoding="utf-8")
    assert "exit status 42" in screen and "| the reason in words" in screen


# --- installed


@pytest.mark.parametrize("kind", ["standard", "editable"])
def test_snakemake_sees_the_installed_plugin(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the package")
    site = tmp_path / "site"
    build = (
        "import sys; from hatchling.builders.wheel import WheelBuilder;"
        f"print(*WheelBuilder({str(PACKAGE)!r}).build(directory={str(tmp_path)!r}, versions=[{kind!r}]))"
    )
    wheel = subprocess.run(
        [sys.executable, "-c", build], capture_output=True, text=True, check=True, encoding="utf-8", errors="replace"
    ).stdout.strip()
    zipfile.ZipFile(wheel).extractall(site)
    script = f"""if True:
        import site, sys
        sys.path = [one for one in sys.path if one != {str(PLUGINS)!r}]
        site.addsitedir({str(site)!r})
        from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
        print(ExecutorPluginRegistry().get_plugin("submitit").executor.__module__)
        print("submitit" in sys.modules)
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
        cwd=tmp_path,
        encoding="utf-8",
        errors="replace",
    )
    module, loaded = done.stdout.split()
    assert module == "snakemake_executor_plugin_submitit.executor"
    assert loaded == "False", "every snakemake call loads the plugin, so it must not import submitit"
