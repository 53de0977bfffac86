"""The executor plugin without a cluster: resources, Slurm's output, records of jobs, messages."""

import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import history, local_jobs, memory
from snakemake_executor_plugin_submitit.controller import Controller
from snakemake_executor_plugin_submitit.job_watcher import JobWatcher, QueryInterval
from snakemake_executor_plugin_submitit.messages import explain, reason, tail
from snakemake_executor_plugin_submitit.registry import Entry, Registry
from snakemake_executor_plugin_submitit.resources import (
    ResourceError,
    Site,
    job_comment,
    job_name,
    local_parameters,
    slurm_parameters,
)
from snakemake_executor_plugin_submitit.slurm_states import (
    Slurm,
    SlurmUnreachable,
    State,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from snakemake_executor_plugin_submitit.submission import (
    RefusedJobs,
    hidden_outer_job,
    overruling_variables,
    refusal_kind,
)

# --- resources


def test_resources_become_options_and_others_are_passed_verbatim() -> None:
    parameters = slurm_parameters(
        {
            "mem_mb": 8000,
            "runtime": 90,
            "gpu": 2,
            "slurm_partition": "gpu",
            "slurm_account": "lab",
            "qos": "high",
            "constraint": "a100&nvlink",
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
    assert parameters == {
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


def test_submitit_writes_the_parameters(tmp_path: Path) -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    resources = {"mem_mb": 100, "gpus": 1, "gpu_model": "a100", "nodes": 2, "slurm_exclusive": "", "slurm_nice": 5}
    text = _make_sbatch_string("true", tmp_path, **slurm_parameters(resources, 1, 400, 60))
    lines = text.splitlines()
    for line in ("--mem=500M", "--gpus-per-node=a100:1", "--nodes=2", "--exclusive", "--nice=5", "--time=60"):
        assert f"#SBATCH {line}" in lines
    assert any(line.startswith("srun") and "--ntasks=1" in line for line in lines), "the command runs only once"


@pytest.mark.parametrize(
    ("option", "resources", "line"),
    [
        ("gpus-per-node", {"gpus": 2}, "--gpus-per-node=2"),
        ("gpus-per-task", {"gpu": 2, "gpu_model": "a100"}, "--gpus-per-task=a100:2"),
        ("gpus", {"gpu": 2, "nodes": 3}, "--gpus=6"),  # of the whole job
        ("gres", {"gpu": 2, "gpu_model": "a100", "gres": "lscratch:10"}, "--gres=gpu:a100:2,lscratch:10"),
    ],
)
def test_gpus_are_requested_with_the_option_of_the_cluster(
    tmp_path: Path, option: str, resources: dict[str, Any], line: str
) -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    text = _make_sbatch_string("true", tmp_path, **slurm_parameters(resources, 1, 400, 60, Site(option)))
    assert [one for one in text.splitlines() if re.match(r"#SBATCH --g(pu|res)", one)] == [f"#SBATCH {line}"]


def test_jobs_with_and_without_gpus_have_partitions_of_their_own() -> None:
    site = Site(gpu_partition="gpu", cpu_partition="cpu")
    partitions = [
        slurm_parameters(resources, 1, 400, 60, site)["partition"]
        for resources in ({"gpu": 1}, {"gres": "gpu:1"}, {"gpu": 0}, {}, {"gpu": 1, "slurm_partition": "own"})
    ]
    assert partitions == ["gpu", "gpu", "cpu", "cpu", "own"]


def test_memory_per_cpu_replaces_mem_mb() -> None:
    parameters = slurm_parameters({"mem_mb": 1000, "slurm_mem_per_cpu": "2G"}, 1, 400, 60)
    assert "mem" not in parameters and parameters["additional_parameters"] == {"mem-per-cpu": "2G"}
    parameters = slurm_parameters({"mem_mb": 1000, "mem_mb_per_cpu": 300, "gres": "gpu:2", "tasks": 1}, 1, 400, 60)
    assert "mem" not in slurm_parameters({"mem_mb": 0}, 1, 400, 60), "the cluster's default"
    assert "mem" not in parameters and parameters["mem_per_cpu"] == "300M" and parameters["gres"] == "gpu:2"


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"mem_mb": "much"}, "mem_mb"),
        ({"runtime": -1}, "runtime"),
        ({"slurm_extra": "-p gpu"}, "-p"),
        ({"slurm_extra": "--clusters=b"}, "--clusters is not supported"),
        ({"clusters": "b"}, "clusters: not supported"),
        ({"tasks": 4}, "tasks: not supported.*threads and nodes"),
        ({"mpi": "srun"}, "mpi: not supported.*threads and nodes"),
        ({"cpus_per_gpu": 8}, "cpus_per_gpu: not supported.*use threads"),
    ],
)
def test_an_invalid_resource_is_named_in_the_error(resources: dict[str, Any], named: str) -> None:
    with pytest.raises(ResourceError, match=named):
        slurm_parameters(resources, 1, 400, 60)


def test_local_jobs_get_time_and_gpus() -> None:
    assert local_parameters({"runtime": 5, "gpu": 1, "mem_mb": 9}, 60) == {"timeout_min": 5, "gpus_per_node": 1}


def test_a_name_consists_of_the_rule_and_the_shared_wildcards() -> None:
    assert job_name(["train"], [{"net": "vit", "seed": "1"}, {"net": "vit", "seed": "2"}]) == "train net=vit"
    assert job_name(["train"], [{"net": "vit", "seed": "1"}]) == "train net=vit,seed=1"
    assert job_name(["b", "a", "b"], [{}, {}]) == "a+b"
    assert "/" not in job_name(["get"], [{"path": "a/b%j"}]) and len(job_name(["x" * 500], [{}])) <= 120


def test_a_comment_lists_the_outputs_of_each_element() -> None:
    assert job_comment([["a.pt", "a.csv"]]) == "a.pt a.csv"
    assert job_comment([["a.pt"], ["b.pt"]]) == "0: a.pt 1: b.pt"
    assert len(comment := job_comment([["x" * 90]] * 20)) == 1000 and comment.endswith(" ... (all: jobs.json)")
    runs = [[f"results/runs/imagenet/resnet50/click-1/seed{k}/{name}" for name in ("a", "b")] for k in range(30)]
    comment = job_comment(runs)
    assert comment.startswith("in results/runs/imagenet/resnet50/click-1: 0: seed0/a 1: seed1/a")
    assert comment.endswith("29: seed29/a") and len(comment) < 1000


# --- Slurm's output


def test_output_of_squeue_sacct_and_scontrol_is_parsed() -> None:
    queue = parse_squeue("12_3|RUNNING|None|n1|1:02\n13|PENDING|Resources||0:00\n\nnoise\n")
    assert queue["12_3"] == State("RUNNING", "", "n1", "", "1:02") and queue["13"].reason == "Resources"
    accounts = parse_sacct(
        "12_3|CANCELLED by 1000|0:15|n1|00:01:02\n12_3.batch|FAILED|1:0|n1|00:01:02\n13|TIMEOUT|0:0|None assigned|0\n"
    )
    assert accounts["12_3"].by == "1000" and not accounts["12_3"].alive
    assert accounts["13"] == State("TIMEOUT", "", "", "0:0", "0") and len(accounts) == 2
    waiting = parse_sacct("12_[8-10,14,20-24:2%3]|CANCELLED by 0|0:0|None assigned|0\n")
    assert list(waiting) == ["12_8", "12_9", "12_10", "12_14", "12_20", "12_22", "12_24"]
    assert {state.by for state in waiting.values()} == {"0"}
    state = parse_scontrol(
        "JobId=5 JobName=x JobState=FAILED Reason=NonZeroExitCode RunTime=00:00:07 ExitCode=3:0 NodeList=n2"
    )
    assert state == State("FAILED", "NonZeroExitCode", "n2", "3:0", "00:00:07")
    assert parse_scontrol("slurm_load_jobs error: Invalid job id specified") is None


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_an_unknown_job_is_absent_but_an_unreachable_slurm_is_an_error(tools: Path) -> None:
    for name in ("squeue", "scontrol"):
        tool(tools, name, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Slurm().queue(["7"]) == {}
    tool(tools, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnreachable, match="Unable to contact"):
        Slurm().queue(["7"])


def test_jobs_of_unanswered_submissions_are_found_by_their_script(tools: Path) -> None:
    tool(tools, "squeue", "echo '12|/w/one/.submission_file_1.sh'; echo '14|/w/two/.submission_file_2.sh'; echo '15|'")
    slurm = Slurm()
    assert slurm.strays(["/w/two", "/w/three"]) == {"/w/two": "14"}
    assert slurm.calls == {"squeue": 1} and slurm.strays([]) == {} and slurm.calls == {"squeue": 1}
    tool(tools, "squeue", "exit 1")
    with pytest.raises(SlurmUnreachable):
        slurm.strays(["/w/two"])


def test_many_jobs_need_one_call_and_sacct_is_not_called_again_without_accounting(tools: Path) -> None:
    tool(tools, "squeue", "echo \"$@\" >> $0.calls; echo '1|RUNNING|None|n1|0:01'")
    tool(tools, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    tool(tools, "squeue", 'for i in $(seq 0 299); do echo "$i|RUNNING|None|n1|0:01"; done')
    slurm = Slurm()
    states = slurm.queue([str(number) for number in range(300)])
    assert len(states) == 300 and slurm.calls == {"squeue": 1}
    assert slurm.accounts(["1"]) == slurm.accounts(["1"]) == {} and slurm.calls["sacct"] == 1


# --- refusals, in the words of sbatch


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
def test_refusals_are_classified(text: str, kind: str) -> None:
    assert refusal_kind(text) == kind


def test_refused_jobs_wait_longer_each_time_until_a_job_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("snakemake_executor_plugin_submitit.submission.time.monotonic", lambda: now[0])
    waiting = RefusedJobs(first_s=5, slowest_s=15)
    delays = []
    for _ in range(4):
        waited = waiting.add(["job"], own_jobs_queued=False)
        delays.append(waiting.delay_s)
        assert not waiting.due()
        now[0] += waiting.delay_s
        assert waiting.due() and waiting.take() == ["job"]
    assert delays == [5, 10, 15, 15] and waited == 30
    assert waiting.add(["job"], own_jobs_queued=True) == 0, "a queue full of our own jobs does not use up the patience"
    waiting.take()
    waiting.accepted()
    waiting.add(["job"], own_jobs_queued=False)
    assert waiting.delay_s == 5


def test_the_job_that_snakemake_itself_runs_in_is_hidden_from_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    monkeypatch.setenv("SLURM_CONF", "/etc/some.conf")
    for name in ("SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_NO_REQUEUE", "SBATCH_EXPORT"):
        monkeypatch.setenv(name, "1")
    assert overruling_variables() == ["SBATCH_EXPORT", "SBATCH_NO_REQUEUE", "SBATCH_PARTITION", "SBATCH_TIMELIMIT"]
    with hidden_outer_job():
        assert overruling_variables() == []
        assert "SLURM_JOB_ID" not in os.environ and "SLURM_MEM_PER_NODE" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/some.conf"
    assert os.environ["SLURM_MEM_PER_NODE"] == "100"


# --- registry


def entry(folder: Path, **more: Any) -> Entry:
    return Entry(outputs={"out/a": "1", "out/b": "2"}, folder=str(folder), cluster="slurm", name="train", **more)


def test_an_entry_matches_any_of_its_outputs_and_can_be_removed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "live")
    record = entry(tmp_path, id="12_3", index=3, size=5, attempt=2)
    registry.write(record)
    [stored] = registry
    assert stored == record and stored.writes_any_of(["out/b", "out/z"]) and not stored.writes_any_of(["out/z"])
    registry.remove(record)
    assert list(registry) == []


def test_unknown_fields_of_a_record_are_ignored(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(record := entry(tmp_path, id="7"))
    path = tmp_path / f"{record.key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "later": 1}), encoding="utf-8")
    assert list(registry) == [record] and registry.set_damaged_aside() == []


def _damaged(record: dict[str, Any]) -> list[bytes]:
    """Files that are no record: empty, half, binary, of other shapes, with wrong types, under a foreign name."""
    texts = ["null", "[]", "7", '"text"', "{}", '{"outputs": ', "[" * 100_000]
    wrong = [("outputs", []), ("outputs", {"a": 1}), ("index", "3"), ("size", None), ("submitted", "now"), ("id", 7)]
    wrong += [("folder", {}), ("cluster", 1), ("attempt", True), ("key", "another")]
    texts += [json.dumps({**record, name: value}) for name, value in wrong]
    texts.append(json.dumps({name: value for name, value in record.items() if name != "folder"}))
    return [b"", b"\0" * 4096, b"\xff\xfe\x00", *(text.encode() for text in texts)]


def test_a_damaged_record_is_named_and_set_aside(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(record := entry(tmp_path, id="7"))
    registry.write(other := entry(tmp_path, id="8"))
    path = tmp_path / f"{record.key}.json"
    contents = _damaged(json.loads(path.read_text(encoding="utf-8")))
    for content in contents:
        path.write_bytes(content)
        assert list(registry) == [other], content[:60]
        [problem] = registry.set_damaged_aside()
        assert str(path) in problem and "set aside" in problem
        assert not path.exists() and path.with_name(f"{path.name}.damaged").read_bytes() == content
    assert len(contents) == 21


def test_a_lost_record_is_restored_from_its_submission(tmp_path: Path) -> None:
    registry, folder = Registry(tmp_path / "live"), tmp_path / "one"
    records = [entry(folder, index=index, size=2) for index in range(2)]
    registry.write_submission(folder, records)
    assert registry.restore(folder, "12_1") is None, "killed before its command was written"
    for index in range(3):
        (folder / f"12_{index}_submitted.pkl").touch()
    restored = registry.restore(folder, "12_1")
    assert restored is not None and restored.id == "12_1" and restored.key == records[1].key
    assert registry.restore(folder, "12_2") is None, "this submission has two elements"
    assert registry.restore(tmp_path / "other", "12_1") is None
    (folder / "jobs.json").write_text("[null]", encoding="utf-8")
    assert registry.restore(folder, "12_1") is None


def test_a_live_job_matches_by_the_digests_of_its_outputs(tmp_path: Path) -> None:
    record = entry(tmp_path)
    assert record.agrees({"out/a": "1"}) and record.agrees({"out/a": "1", "out/b": "2"})
    assert not record.agrees({"out/a": "other"}) and not record.agrees({"out/a": "1", "out/c": "3"})


def test_a_missing_id_is_read_from_the_folder(tmp_path: Path) -> None:
    assert entry(tmp_path, index=1, size=3).recovered_id() == ""
    for name in ("44_0_submitted.pkl", "44_1_submitted.pkl", "44_11_submitted.pkl"):
        (tmp_path / name).touch()
    assert entry(tmp_path, index=1, size=12).recovered_id() == "44_1"
    assert entry(tmp_path, index=2, size=12).recovered_id() == "", "killed before the pickle of this job was written"


# --- measured memory


def test_the_peak_of_a_process_and_its_children_is_measured(tmp_path: Path) -> None:
    child = "import time; x = bytearray(60_000_000); print(flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; x = bytearray(80_000_000); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "7_memory.json").write_text('{"peak_mb": 20}', encoding="utf-8")
        memory.PeakMemory(tmp_path / "7_memory.json").sample(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    peak = memory.recorded_mb(tmp_path / "7_memory.json")
    assert peak is not None and 133 <= peak < 200, "140 MB, and two interpreters"
    assert memory.in_use_mb(process.pid) == 0
    assert memory.recorded_mb(tmp_path / "8_memory.json") is None


def test_the_history_knows_the_largest_peak_of_each_kind_of_job(tmp_path: Path) -> None:
    lines = [
        {"outcome": "COMPLETED", "request": "train, 8 threads, 26000 MB", "peak_mb": 7000},
        {"outcome": "COMPLETED", "request": "train, 8 threads, 26000 MB", "peak_mb": 9000},
        {"outcome": "FAILED", "request": "train, 8 threads, 26000 MB", "peak_mb": 12000},
        {"outcome": "COMPLETED", "request": "score, 4 threads, 4000 MB", "peak_mb": None},
        {"outcome": "COMPLETED"},
    ]
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n{ cut", encoding="utf-8")
    assert history.measured_mb(file.parent) == {memory.request_of("train", 8, 26000): 9000}
    assert history.measured_mb(tmp_path / "none") == {}
    # 1.5 x 9000 MB contain the nested Snakemake, whose 400 MB are added later.
    assert memory.requested_mb(26000, 400, 9000, 1.5) == 13100
    assert memory.requested_mb(26000, 400, 20000, 1.5) == 26000, "never more than declared"
    assert memory.requested_mb(26000, 400, None, 1.5) == memory.requested_mb(26000, 400, 9000, 0) == 26000


# --- the Snakemake that follows the jobs


def test_a_controller_is_gone_only_if_that_is_certain(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    own = Controller.own()
    assert not own.is_gone() and own.pid == os.getpid()
    assert replace(own, born=own.born - 100).is_gone(), "another process has its number"
    assert replace(own, boot="before").is_gone()
    far = replace(own, host="elsewhere")
    assert not far.is_gone(Slurm()), "nobody here can know"
    far = replace(far, job="7")
    assert not far.is_gone()
    for answer, gone in (("echo '7|RUNNING|None|n1|0:01'", False), ("echo '7|TIMEOUT|None|n1|0:01'", True)):
        tool(tools, "squeue", answer)
        assert far.is_gone(Slurm()) is gone
    tool(tools, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert not far.is_gone(Slurm())
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not far.is_gone(Slurm()), "another step of the same job"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert far.is_gone(Slurm()), "Slurm has restarted the job"


# --- watching jobs


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_query_interval_grows_until_something_changes() -> None:
    clock = Clock()
    interval = QueryInterval(10, 60, clock)
    queried = []
    while clock.now < 400:
        if interval.due():
            queried.append(clock.now)
        clock.now += 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(queried)]
    assert gaps[0] == 10 and gaps == sorted(gaps) and gaps[-1] == 60
    interval.restart()
    clock.now += 10
    assert interval.due()


@pytest.fixture
def watched(tmp_path: Path, tools: Path) -> tuple[JobWatcher, Clock, Entry, list[str]]:
    clock, warnings = Clock(), []
    registry = Registry(tmp_path / "live")
    record = entry(tmp_path, id="7")
    registry.write(record)
    for name in ("sacct", "scontrol"):
        tool(tools, name, "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return JobWatcher(Slurm(), registry, QueryInterval(1, 1, clock), 30, 10, warnings.append), clock, record, warnings


def test_a_late_result_file_is_waited_for(watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path) -> None:
    watch, clock, record, _ = watched
    tool(tools, "squeue", "echo '7|COMPLETED|None|n1|0:01'")
    assert watch.poll([record]) == []
    clock.now = 29
    assert watch.poll([record]) == []
    record.result.write_bytes(pickle.dumps(("success", None)))
    [outcome] = watch.poll([record])
    assert outcome.success


def test_a_job_without_result_fails_after_the_grace_time(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, record, _ = watched
    tool(tools, "squeue", "echo '7|CANCELLED|None|n1|0:01'")
    assert watch.poll([record]) == []
    clock.now = 31
    [outcome] = watch.poll([record])
    assert not outcome.success and outcome.state is not None and outcome.state.name == "CANCELLED"


@pytest.mark.parametrize("between", ["COMPLETING", "CANCELLED"])
def test_jobs_of_one_submission_are_reported_as_cancelled_together(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path, tmp_path: Path, between: str
) -> None:
    watch, clock, _, _ = watched
    records = [entry(tmp_path, key=f"k{index}", id=f"9_{index}") for index in range(3)]
    records[0].result.write_bytes(pickle.dumps(("error", "ended by SIGTERM")))  # this one is believed earlier
    for now, states in ((0, ("CANCELLED", between, "RUNNING")), (12, ("CANCELLED", between, "CANCELLED"))):
        lines = [f"echo '9_{index}|{state}|None|n1|0:01'" for index, state in enumerate(states)]
        tool(tools, "squeue", "\n".join(lines))
        clock.now = now
        assert watch.poll(records) == []
    tool(tools, "squeue", "\n".join(f"echo '9_{index}|CANCELLED|None|n1|0:01'" for index in range(3)))
    clock.now = 20
    assert watch.poll(records) == []
    clock.now = 60
    assert [outcome.entry.id for outcome in watch.poll(records)] == ["9_0", "9_1", "9_2"]


def test_a_job_cancelled_alone_does_not_wait_for_others_that_run_or_never_end(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path, tmp_path: Path
) -> None:
    watch, clock, _, _ = watched
    records = [entry(tmp_path, key=f"k{index}", id=f"9_{index}") for index in range(2)]
    for other, ends in (("RUNNING", 31), ("COMPLETING", 901)):
        tool(tools, "squeue", f"echo '9_0|CANCELLED|None|n1|0:01'; echo '9_1|{other}|None|n2|0:01'")
        start = clock.now
        assert watch.poll(records) == []
        clock.now = start + ends - 2
        assert watch.poll(records) == []
        clock.now = start + ends
        assert [outcome.entry.id for outcome in watch.poll(records)] == ["9_0"]
        clock.now += 1000


def test_a_requeued_job_is_alive_again(watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path) -> None:
    watch, clock, record, warnings = watched
    for now, state in ((0, "NODE_FAIL"), (20, "PENDING"), (100, "RUNNING")):
        tool(tools, "squeue", f"echo '7|{state}|None|n1|0:01'")
        clock.now = now
        assert watch.poll([record]) == []
    assert "back in the queue" in warnings[0]


def test_an_empty_answer_of_squeue_is_no_proof(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, record, _ = watched
    tool(tools, "squeue", "exit 0")
    tool(tools, "scontrol", "echo 'JobId=7 JobName=x JobState=PENDING Reason=Priority'")
    for now in range(0, 600, 5):
        clock.now = now
        assert watch.poll([record]) == []
    assert record.state == "PENDING"
    tool(tools, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    for now in (600, 631):
        clock.now = now
        outcomes = watch.poll([record])
    assert [outcome.success for outcome in outcomes] == [False]


def test_a_failure_counts_only_when_slurm_says_for_some_time_that_the_job_is_over(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, record, _ = watched
    record.result.write_bytes(pickle.dumps(("error", "Traceback ...\nexit status 1")))
    # A preempted job: it fails, is over for a moment, comes back, runs, fails again.
    times = [(0, "RUNNING"), (5, "COMPLETING"), (7, "FAILED"), (16, "PENDING"), (100, "RUNNING"), (200, "FAILED")]
    for now, state in times:
        tool(tools, "squeue", f"echo '7|{state}|None|n1|0:01'")
        clock.now = now
        assert watch.poll([record]) == []
    clock.now = 211
    [outcome] = watch.poll([record])
    assert not outcome.success and "exit status 1" in outcome.trace


def test_a_success_after_a_requeue_counts_at_once(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, record, _ = watched
    record.result.write_bytes(pickle.dumps(("error", "requeue refused")))
    tool(tools, "squeue", "echo '7|PENDING|BeginTime||0:00'")
    assert watch.poll([record]) == []
    record.result.write_bytes(pickle.dumps(("success", None)))
    clock.now = 1
    [outcome] = watch.poll([record])
    assert outcome.success


def test_variables_of_the_user_do_not_change_what_is_asked(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_PARTITION", "SQUEUE_FORMAT", "SACCT_FORMAT", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/some.conf")
    tool(tools, "squeue", 'echo "7|RUNNING|$SQUEUE_PARTITION$SQUEUE_FORMAT$SLURM_CLUSTERS|$SLURM_CONF|0:01"')
    tool(tools, "sacct", 'echo "7|FAILED|1:0|$SACCT_FORMAT|1"')
    assert Slurm().queue(["7"])["7"] == State("RUNNING", "", "/etc/some.conf", "", "0:01")
    assert Slurm().accounts(["7"])["7"].node == ""


def test_no_job_fails_while_the_controller_does_not_answer(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path
) -> None:
    watch, clock, record, warnings = watched
    tool(tools, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    for now in range(0, 600, 5):
        clock.now = now
        assert watch.poll([record]) == []
    assert len(warnings) == 1


def test_records_follow_the_job_and_their_last_check_is_noted(
    watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path, tmp_path: Path
) -> None:
    watch, clock, record, _ = watched
    file, checked = tmp_path / "live" / f"{record.key}.json", tmp_path / "live" / "checked"
    times = []
    for now, line in ((0, "7|PENDING|Priority||0:00"), (2, "7|PENDING|Priority||0:00"), (4, "7|RUNNING|None|n1|0:01")):
        tool(tools, "squeue", f"echo '{line}'")
        clock.now = now
        os.utime(file, (now, now))
        checked.unlink(missing_ok=True)
        assert watch.poll([record]) == [] and checked.exists()
        times.append(file.stat().st_mtime)
    assert times[1] == 2, "written although nothing changed"
    assert times[0] > 4 and times[2] > 4
    assert json.loads(file.read_text(encoding="utf-8")) | {"state": "RUNNING", "node": "n1"} == json.loads(
        file.read_text(encoding="utf-8")
    )
    tool(tools, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    checked.unlink()
    clock.now = 9
    assert watch.poll([record]) == [] and not checked.exists(), "a check was noted although Slurm did not answer"


def test_the_history_has_a_line_for_each_job_that_ended(tmp_path: Path) -> None:
    record = entry(tmp_path, id="7", submitted=100.0)
    record.starts.write_text(
        '{"restarts": 0, "node": "a", "slurm_node": "n1", "time": 105.5}\n'
        '{"restarts": 1, "node": "b", "slurm_node": "n2", "time": 150.5}\n',
        encoding="utf-8",
    )
    record.result.touch()
    os.utime(record.result, (200, 200))
    history.append(tmp_path, record, "COMPLETED")
    history.append(tmp_path, entry(tmp_path, id="8"), history.failed_outcome(State("TIMEOUT")), "time limit reached")
    first, second = map(json.loads, (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["id"], first["outputs"], first["outcome"]) == ("7", ["out/a", "out/b"], "COMPLETED")
    assert (first["submitted"], first["started"], first["ended"], first["elapsed_s"]) == (100, 105.5, 200, 94.5)
    assert [start["slurm_node"] for start in first["starts"]] == ["n1", "n2"]
    assert (second["outcome"], second["reason"], second["started"]) == ("TIMEOUT", "time limit reached", None)
    assert history.failed_outcome(None) == history.failed_outcome(State("COMPLETED")) == "FAILED"


def test_a_truncated_result_is_read_later(watched: tuple[JobWatcher, Clock, Entry, list[str]], tools: Path) -> None:
    watch, _, record, _ = watched
    tool(tools, "squeue", "echo '7|RUNNING|None|n1|0:01'")
    whole = pickle.dumps(("success", "a result"))
    record.result.write_bytes(whole[:-5])
    assert watch.poll([record]) == []
    record.result.write_bytes(whole)
    [outcome] = watch.poll([record])
    assert outcome.success


def test_a_reused_process_id_is_not_mistaken_for_the_job(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)]) as process:
        own = Entry({}, str(tmp_path), "local", "x", id=str(process.pid))
        other = Entry({}, "/some/other/folder", "local", "x", id=str(process.pid))
        for _ in range(100):  # for a moment after its start a process has no command line
            if local_jobs.states([own]):
                break
            time.sleep(0.05)
        assert list(local_jobs.states([own, other])) == [own.id] and local_jobs.states([other]) == {}
        local_jobs.cancel([own])
        assert local_jobs.states([own]) == {}


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
        (None, "", "", "Slurm has no record of it"),
        (State("FAILED", exit_code="0:9"), "", "", "FAILED without a result, exit code 0:9"),
    ],
)
def test_the_reason_of_a_failure_is_named(state: State | None, trace: str, log: str, expected: str) -> None:
    assert expected in reason(state, trace, log)


def test_a_message_shows_the_end_of_the_log_without_submitits_traceback(tmp_path: Path) -> None:
    record = entry(tmp_path, id="7", node="n1")
    frame = "submitit ERROR (2026) - Submitted job triggered an exception\n" * 2
    frame += 'Traceback (most recent call last):\n  File "x", line 1\n    raise error\nValueError: outer\n'
    record.log.write_text(
        "first\n" * 50 + "the real reason\n" + frame + "srun: error: n1: task 0: Exited\n", encoding="utf-8"
    )
    assert tail(record.log, 2) == "the real reason\nsrun: error: n1: task 0: Exited"
    record.starts.write_text('{"restarts": 0}\n{"restarts": 1}\n', encoding="utf-8")
    message = explain(record, None, "exit status 3", 3)
    assert "job 7 (train) on n1 started 2 times failed: exit status 3" in message
    assert str(record.log) in message and "| the real reason" in message and message.count("first") == 1
