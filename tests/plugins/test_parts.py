"""The executor plugin without a cluster: what is asked for, what is read, what is remembered, what is said."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PLUGINS = Path(__file__).parents[2] / "luab" / "plugins"
sys.path.insert(0, str(PLUGINS))

from snakemake_executor_plugin_submitit import history, local  # noqa: E402
from snakemake_executor_plugin_submitit.executor import Waiting  # noqa: E402
from snakemake_executor_plugin_submitit.messages import explain, reason, tail  # noqa: E402
from snakemake_executor_plugin_submitit.outcomes import Pace, Watch  # noqa: E402
from snakemake_executor_plugin_submitit.registry import Entry, Registry  # noqa: E402
from snakemake_executor_plugin_submitit.resources import (  # noqa: E402
    ResourceError,
    job_comment,
    job_name,
    local_parameters,
    slurm_parameters,
)
from snakemake_executor_plugin_submitit.slurm_states import (  # noqa: E402
    Slurm,
    SlurmUnreachable,
    State,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from snakemake_executor_plugin_submitit.submission import outside_of_job, refusal_kind  # noqa: E402

# --- resources


def test_resources_become_options_and_the_rest_goes_verbatim() -> None:
    found = slurm_parameters(
        {
            "mem_mb": 8000,
            "runtime": 90,
            "gpu": 2,
            "slurm_partition": "gpu",
            "slurm_account": "lab",
            "slurm_qos": "high",
            "slurm_constraint": "a100&nvlink",
            "slurm_exclude": "n3",
            "slurm_mail_type": "END",
            "slurm_exclusive": "true",
            "slurm_extra": "--reservation=maintenance --spread-job",
            "tmpdir": "/tmp",
            "unknown": 3,
        },
        threads=6,
        overhead_mb=400,
        default_minutes=60,
    )
    assert found == {
        "time": 90,
        "cpus_per_task": 6,
        "mem": "8400M",
        "gpus_per_node": 2,
        "partition": "gpu",
        "account": "lab",
        "qos": "high",
        "constraint": "a100&nvlink",
        "additional_parameters": {
            "exclude": "n3",
            "mail-type": "END",
            "exclusive": True,
            "reservation": "maintenance",
            "spread-job": True,
        },
    }


def test_parameters_are_such_that_submitit_writes_them(tmp_path: Path) -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    asked = {"mem_mb": 100, "gpus": 1, "gpu_model": "a100", "nodes": 2, "slurm_exclusive": "", "slurm_nice": 5}
    text = _make_sbatch_string("true", tmp_path, **slurm_parameters(asked, 1, 400, 60))
    lines = text.splitlines()
    for line in ("--mem=500M", "--gpus-per-node=a100:1", "--nodes=2", "--exclusive", "--nice=5", "--time=60"):
        assert f"#SBATCH {line}" in lines
    assert any(line.startswith("srun") and "--ntasks=1" in line for line in lines), "the command runs once"


def test_memory_per_cpu_is_left_alone() -> None:
    found = slurm_parameters({"mem_mb": 1000, "slurm_mem_per_cpu": "2G"}, 1, 400, 60)
    assert "mem" not in found and found["additional_parameters"] == {"mem-per-cpu": "2G"}


@pytest.mark.parametrize(
    ("resources", "named"),
    [({"mem_mb": "much"}, "mem_mb"), ({"runtime": -1}, "runtime"), ({"slurm_extra": "-p gpu"}, "-p")],
)
def test_a_meaningless_resource_is_named(resources: dict[str, Any], named: str) -> None:
    with pytest.raises(ResourceError, match=named):
        slurm_parameters(resources, 1, 400, 60)


def test_local_jobs_get_time_and_gpus() -> None:
    assert local_parameters({"runtime": 5, "gpu": 1, "mem_mb": 9}, 60) == {"timeout_min": 5, "gpus_per_node": 1}


def test_a_name_says_the_rule_and_what_all_jobs_share() -> None:
    assert job_name(["train"], [{"net": "vit", "seed": "1"}, {"net": "vit", "seed": "2"}]) == "train net=vit"
    assert job_name(["train"], [{"net": "vit", "seed": "1"}]) == "train net=vit,seed=1"
    assert job_name(["b", "a", "b"], [{}, {}]) == "a+b"
    assert "/" not in job_name(["get"], [{"path": "a/b%j"}]) and len(job_name(["x" * 500], [{}])) <= 120


def test_a_comment_lists_the_outputs_of_each_element() -> None:
    assert job_comment([["a.pt", "a.csv"]]) == "a.pt a.csv"
    assert job_comment([["a.pt"], ["b.pt"]]) == "0: a.pt 1: b.pt"
    assert len(job_comment([["x" * 90]] * 20)) == 1000


# --- what Slurm says


def test_squeue_sacct_and_scontrol_are_read() -> None:
    queue = parse_squeue("12_3|RUNNING|None|n1|1:02\n13|PENDING|Resources||0:00\n\nnoise\n")
    assert queue["12_3"] == State("RUNNING", "", "n1", "", "1:02") and queue["13"].reason == "Resources"
    accounts = parse_sacct(
        "12_3|CANCELLED by 1000|0:15|n1|00:01:02\n12_3.batch|FAILED|1:0|n1|00:01:02\n13|TIMEOUT|0:0|None assigned|0\n"
    )
    assert accounts["12_3"].by == "1000" and not accounts["12_3"].alive
    assert accounts["13"] == State("TIMEOUT", "", "", "0:0", "0") and len(accounts) == 2
    found = parse_scontrol(
        "JobId=5 JobName=x JobState=FAILED Reason=NonZeroExitCode RunTime=00:00:07 ExitCode=3:0 NodeList=n2"
    )
    assert found == State("FAILED", "NonZeroExitCode", "n2", "3:0", "00:00:07")
    assert parse_scontrol("slurm_load_jobs error: Invalid job id specified") is None


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_an_unknown_job_is_gone_but_a_silent_slurm_is_an_error(tools: Path) -> None:
    tool(tools, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Slurm().queue(["7"]) == {}
    tool(tools, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnreachable, match="Unable to contact"):
        Slurm().queue(["7"])


def test_jobs_whose_submission_was_never_answered_are_found_by_their_script(tools: Path) -> None:
    tool(tools, "squeue", "echo '12|/w/one/.submission_file_1.sh'; echo '14|/w/two/.submission_file_2.sh'; echo '15|'")
    slurm = Slurm()
    assert slurm.strays(["/w/two", "/w/three"]) == {"/w/two": "14"}
    assert slurm.calls == {"squeue": 1} and slurm.strays([]) == {} and slurm.calls == {"squeue": 1}
    tool(tools, "squeue", "exit 1")
    with pytest.raises(SlurmUnreachable):
        slurm.strays(["/w/two"])


def test_many_jobs_are_one_call_and_sacct_is_not_asked_again_without_accounting(tools: Path) -> None:
    tool(tools, "squeue", "echo \"$@\" >> $0.calls; echo '1|RUNNING|None|n1|0:01'")
    tool(tools, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    slurm = Slurm()
    found = slurm.queue([str(number) for number in range(300)])
    assert set(found) == {"1"} and slurm.calls == {"squeue": 1}
    assert slurm.accounts(["1"]) == slurm.accounts(["1"]) == {} and slurm.calls["sacct"] == 1


# --- refusals; the sentences are sbatch's own


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", "busy"),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "busy"),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit / Job violates accounting/QOS policy (job submit limit, ...)",
            "full",
        ),
        ("sbatch: error: AssocMaxSubmitJobLimit / sbatch: error: Batch job submission failed: Job violates", "full"),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", "array"),
        (
            "sbatch: error: QOSMaxWallDurationPerJobLimit / Job violates accounting/QOS policy (job submit limit, ...)",
            "final",
        ),
        ("sbatch: error: invalid partition specified: nowhere", "final"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "final"),
    ],
)
def test_refusals_are_told_apart(text: str, kind: str) -> None:
    assert refusal_kind(text) == kind


def test_refused_jobs_wait_longer_each_time_and_start_anew_when_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("snakemake_executor_plugin_submitit.executor.time.monotonic", lambda: now[0])
    waiting = Waiting(first_s=5, slowest_s=15)
    delays = []
    for _ in range(4):
        waited = waiting.refused(["job"], lively=False)
        delays.append(waiting.delay_s)
        assert not waiting.due()
        now[0] += waiting.delay_s
        assert waiting.due() and waiting.take() == ["job"]
    assert delays == [5, 10, 15, 15] and waited == 30
    assert waiting.refused(["job"], lively=True) == 0, "a queue full of our own jobs is no reason to give up"
    waiting.take()
    waiting.accepted()
    waiting.refused(["job"], lively=False)
    assert waiting.delay_s == 5


def test_the_job_that_snakemake_runs_in_is_hidden_from_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    monkeypatch.setenv("SLURM_CONF", "/etc/some.conf")
    with outside_of_job():
        assert "SLURM_JOB_ID" not in os.environ and "SLURM_MEM_PER_NODE" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/some.conf"
    assert os.environ["SLURM_MEM_PER_NODE"] == "100"


# --- registry


def entry(folder: Path, **more: Any) -> Entry:
    return Entry(outputs={"out/a": "1", "out/b": "2"}, folder=str(folder), cluster="slurm", name="train", **more)


def test_an_entry_is_found_by_any_output_until_it_is_removed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "live")
    kept = entry(tmp_path, id="12_3", index=3, size=5, attempt=2)
    registry.write(kept)
    assert registry.making(["out/b", "out/z"]) == [kept] and registry.making(["out/z"]) == []
    registry.remove(kept)
    assert list(registry) == []


def test_a_half_written_entry_is_dropped_and_fields_of_later_versions_are_ignored(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    (tmp_path / "broken.json").write_text('{"outputs": ')
    registry.write(kept := entry(tmp_path, id="7"))
    path = tmp_path / f"{kept.key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert list(registry) == [kept]
    assert not (tmp_path / "broken.json").exists()


def test_content_decides_whether_a_live_job_is_the_one_wanted(tmp_path: Path) -> None:
    kept = entry(tmp_path)
    assert kept.agrees({"out/a": "1"}) and kept.agrees({"out/a": "1", "out/b": "2"})
    assert not kept.agrees({"out/a": "other"}) and not kept.agrees({"out/a": "1", "out/c": "3"})


def test_an_id_that_nobody_wrote_down_is_read_from_the_folder(tmp_path: Path) -> None:
    assert entry(tmp_path, index=1, size=3).recovered_id() == ""
    for name in ("44_0_submitted.pkl", "44_1_submitted.pkl", "44_11_submitted.pkl"):
        (tmp_path / name).touch()
    assert entry(tmp_path, index=1, size=12).recovered_id() == "44_1"
    assert entry(tmp_path, index=2, size=12).recovered_id() == "", "killed before this one could run"


# --- watching


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_slows_down_and_a_change_makes_it_quick_again() -> None:
    clock = Clock()
    pace = Pace(10, 60, clock)
    asked = []
    while clock.now < 400:
        if pace.due():
            asked.append(clock.now)
        clock.now += 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps[0] == 10 and gaps == sorted(gaps) and gaps[-1] == 60
    pace.restart()
    clock.now += 10
    assert pace.due()


@pytest.fixture
def watched(tmp_path: Path, tools: Path) -> tuple[Watch, Clock, Entry, list[str]]:
    clock, said = Clock(), []
    registry = Registry(tmp_path / "live")
    kept = entry(tmp_path, id="7")
    registry.write(kept)
    for name in ("sacct", "scontrol"):
        tool(tools, name, "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return Watch(Slurm(), registry, Pace(1, 1, clock), 30, said.append), clock, kept, said


def test_a_late_result_file_is_waited_for(watched: tuple[Watch, Clock, Entry, list[str]], tools: Path) -> None:
    watch, clock, kept, _ = watched
    tool(tools, "squeue", "echo '7|COMPLETED|None|n1|0:01'")
    assert watch.poll([kept]) == []
    clock.now = 29
    assert watch.poll([kept]) == []
    kept.result.write_bytes(pickle.dumps(("success", None)))
    [outcome] = watch.poll([kept])
    assert outcome.success


def test_a_job_without_result_fails_after_the_grace(
    watched: tuple[Watch, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, kept, _ = watched
    tool(tools, "squeue", "echo '7|CANCELLED|None|n1|0:01'")
    assert watch.poll([kept]) == []
    clock.now = 31
    [outcome] = watch.poll([kept])
    assert not outcome.success and outcome.state is not None and outcome.state.name == "CANCELLED"


def test_a_requeued_job_is_alive_again(watched: tuple[Watch, Clock, Entry, list[str]], tools: Path) -> None:
    watch, clock, kept, said = watched
    for now, state in ((0, "NODE_FAIL"), (20, "PENDING"), (100, "RUNNING")):
        tool(tools, "squeue", f"echo '7|{state}|None|n1|0:01'")
        clock.now = now
        assert watch.poll([kept]) == []
    assert "back in the queue" in said[0]


def test_a_controller_that_does_not_answer_kills_no_job(
    watched: tuple[Watch, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, kept, said = watched
    tool(tools, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    for now in range(0, 600, 5):
        clock.now = now
        assert watch.poll([kept]) == []
    assert len(said) == 1


def test_records_change_with_the_job_and_say_when_they_were_last_true(
    watched: tuple[Watch, Clock, Entry, list[str]], tools: Path, tmp_path: Path
) -> None:
    watch, clock, kept, _ = watched
    record, checked = tmp_path / "live" / f"{kept.key}.json", tmp_path / "live" / "checked"
    times = []
    for now, line in ((0, "7|PENDING|Priority||0:00"), (2, "7|PENDING|Priority||0:00"), (4, "7|RUNNING|None|n1|0:01")):
        tool(tools, "squeue", f"echo '{line}'")
        clock.now = now
        os.utime(record, (now, now))
        checked.unlink(missing_ok=True)
        assert watch.poll([kept]) == [] and checked.exists()
        times.append(record.stat().st_mtime)
    assert times[1] == 2, "nothing changed, so nothing was written"
    assert times[0] > 4 and times[2] > 4
    assert json.loads(record.read_text()) | {"state": "RUNNING", "node": "n1"} == json.loads(record.read_text())
    tool(tools, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    checked.unlink()
    clock.now = 9
    assert watch.poll([kept]) == [] and not checked.exists(), "an unanswered question is no check"


def test_the_history_gets_a_line_for_each_job_that_ended(tmp_path: Path) -> None:
    kept = entry(tmp_path, id="7", submitted=100.0)
    kept.starts.write_text(
        '{"restarts": 0, "node": "a", "slurm_node": "n1", "time": 105.5}\n'
        '{"restarts": 1, "node": "b", "slurm_node": "n2", "time": 150.5}\n'
    )
    kept.result.touch()
    os.utime(kept.result, (200, 200))
    history.append(tmp_path, kept, "COMPLETED")
    history.append(tmp_path, entry(tmp_path, id="8"), history.word(State("TIMEOUT")), "time limit reached")
    first, second = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert (first["id"], first["outputs"], first["outcome"]) == ("7", ["out/a", "out/b"], "COMPLETED")
    assert (first["submitted"], first["started"], first["ended"], first["elapsed_s"]) == (100, 105.5, 200, 94.5)
    assert [start["slurm_node"] for start in first["starts"]] == ["n1", "n2"]
    assert (second["outcome"], second["reason"], second["started"]) == ("TIMEOUT", "time limit reached", None)
    assert history.word(None) == history.word(State("COMPLETED")) == "FAILED"


def test_a_half_visible_result_is_read_later(watched: tuple[Watch, Clock, Entry, list[str]], tools: Path) -> None:
    watch, _, kept, _ = watched
    tool(tools, "squeue", "echo '7|RUNNING|None|n1|0:01'")
    whole = pickle.dumps(("error", "Traceback: no"))
    kept.result.write_bytes(whole[:-5])
    assert watch.poll([kept]) == []
    kept.result.write_bytes(whole)
    [outcome] = watch.poll([kept])
    assert not outcome.success and outcome.trace == "Traceback: no"


def test_a_local_number_that_came_again_is_not_the_job(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)]) as process:
        mine = Entry({}, str(tmp_path), "local", "x", id=str(process.pid))
        other = Entry({}, "/some/other/folder", "local", "x", id=str(process.pid))
        for _ in range(100):  # for a moment after its start a process has no command line
            if local.states([mine]):
                break
            time.sleep(0.05)
        assert list(local.states([mine, other])) == [mine.id] and local.states([other]) == {}
        local.cancel([mine])
        assert local.states([mine]) == {}


# --- messages


@pytest.mark.parametrize(
    ("state", "trace", "log", "expected"),
    [
        (State("TIMEOUT"), "", "", "time limit"),
        (None, "UncompletedJobError: Job not requeued because: timed-out too many times.", "", "all continuations"),
        (
            State("FAILED"),
            "",
            "slurmstepd: error: StepId=3.0 exceeded memory limit (8 > 5), being killed",
            "out of memory",
        ),
        (State("OUT_OF_MEMORY"), "", "", "out of memory"),
        (None, "exit status 1", "torch.OutOfMemoryError: CUDA out of memory. Tried", "GPU memory"),
        (None, "returned non-zero exit status 1.", "Command 'x' returned non-zero exit status 42.", "exit status 42"),
        (State("CANCELLED", by="0"), "", "", "cancelled by root"),
        (State("NODE_FAIL"), "", "", "node failed"),
        (State("COMPLETED"), "", "", "shared"),
        (None, "", "", "knows it no longer"),
        (State("FAILED", exit_code="0:9"), "", "", "FAILED without a result, exit code 0:9"),
    ],
)
def test_reasons_are_named(state: State | None, trace: str, log: str, expected: str) -> None:
    assert expected in reason(state, trace, log)


def test_a_message_shows_the_end_of_the_log_without_the_wrapping(tmp_path: Path) -> None:
    kept = entry(tmp_path, id="7", node="n1")
    frame = "submitit ERROR (2026) - Submitted job triggered an exception\n" * 2
    frame += 'Traceback (most recent call last):\n  File "x", line 1\n    raise error\nValueError: outer\n'
    kept.log.write_text("first\n" * 50 + "the real reason\n" + frame + "srun: error: n1: task 0: Exited\n")
    assert tail(kept.log, 2) == "the real reason\nsrun: error: n1: task 0: Exited"
    kept.starts.write_text('{"restarts": 0}\n{"restarts": 1}\n')
    said = explain(kept, None, "exit status 3", 3)
    assert "job 7 (train) on n1 started 2 times failed: exit status 3" in said
    assert str(kept.log) in said and "| the real reason" in said and said.count("first") == 1
