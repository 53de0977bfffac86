"""What sbatch gets for exclusive nodes, names, comments, lines before the job and requeueing; refused settings."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.executor import Batch, Executor
from snakemake_executor_plugin_submitit.registry import Entry
from snakemake_executor_plugin_submitit.resources import (
    COMMENT_FIELDS,
    NAME_FIELDS,
    ResourceError,
    comment_text,
    job_name,
    local_parameters,
    requested,
    slurm_parameters,
    template_problem,
)
from snakemake_executor_plugin_submitit.settings import problems


def script(tmp_path: Path, resources: dict[str, Any], **settings: Any) -> list[str]:
    """The lines of the batch script of an array of two jobs."""
    from submitit.slurm.slurm import _make_sbatch_string

    jobs, entries = [], []
    for seed in ("1", "2"):
        job = SimpleNamespace(rules=["train"], wildcards_dict={"net": "vit", "seed": seed}, is_group=lambda: False)
        jobs.append(job)
        entries.append(Entry({f"out/{seed}.pt": ""}, str(tmp_path), "slurm", "train"))
    executor = Executor.__new__(Executor)
    executor.settings = ExecutorSettings(**settings)
    batch = Batch(jobs, slurm_parameters(resources, 1, 400, 60))
    return _make_sbatch_string("true", tmp_path, map_count=2, **executor._all_parameters(batch, entries)).splitlines()


def options(lines: list[str], *names: str) -> list[str]:
    """The options of these names, as they are in the script."""
    found = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH --")]
    return [option for option in found if option.partition("=")[0] in names]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, ["exclusive"]),
        ("true", ["exclusive"]),
        (1, ["exclusive"]),
        ("user", ["exclusive=user"]),
        ("MCS", ["exclusive=mcs"]),
        (False, []),
        ("", []),
        (0, []),
    ],
)
def test_exclusive_nodes(tmp_path: Path, value: Any, expected: list[str]) -> None:
    assert options(script(tmp_path, {"exclusive": value}), "exclusive") == expected


def test_an_unknown_kind_of_exclusive_node_is_refused_with_the_choices() -> None:
    with pytest.raises(ResourceError, match="expected one of true, false, user, mcs, topo, found 'usr'"):
        slurm_parameters({"exclusive": "usr"}, 1, 400, 60)


@pytest.mark.parametrize(
    ("resources", "no_requeue", "expected"),
    [
        ({}, False, "requeue"),
        ({}, True, "no-requeue"),
        ({"slurm_no_requeue": "true"}, False, "no-requeue"),
        ({"slurm_requeue": "true"}, True, "requeue"),
        ({"slurm_extra": "--no-requeue"}, False, "no-requeue"),
    ],
)
def test_slurm_is_told_once_whether_it_may_requeue(
    tmp_path: Path, resources: dict[str, Any], no_requeue: bool, expected: str
) -> None:
    lines = script(tmp_path, resources, no_requeue=no_requeue)
    assert options(lines, "requeue", "no-requeue") == [expected]
    assert Batch([], slurm_parameters(resources, 1, 400, 60)).requeues(not no_requeue) is (expected == "requeue")


def test_names_and_comments_follow_their_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my study").mkdir()
    monkeypatch.chdir(tmp_path / "my study")
    lines = script(tmp_path, {})
    assert options(lines, "job-name") == ["job-name='train net=vit'"]
    assert options(lines, "comment") == ["comment='0: out/1.pt 1: out/2.pt'"]
    lines = script(tmp_path, {}, job_name="{workdir}: {rule}", comment="{rule} of {workdir}, {wildcards}: {outputs}")
    assert options(lines, "job-name") == ["job-name='my study: train'"]
    assert options(lines, "comment") == ["comment='train of my study, net=vit: 0: out/1.pt 1: out/2.pt'"]
    lines = script(tmp_path, {"slurm_job_name": "mine", "slurm_comment": "also mine"}, job_name="{rule}")
    assert options(lines, "job-name", "comment") == ["comment='also mine'", "job-name=mine"]


def test_texts_for_slurm_are_cut_and_have_no_character_that_it_interprets() -> None:
    assert job_name(["a"], [{"path": "b/c%j"}], "{rule}/{wildcards}") == "a_path=b_c_j"
    assert len(comment_text("{outputs} {outputs}", [["x" * 900]], ["a"], [{}], "w")) == 1000


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{rule} {sample}", "expected only {rule}, {wildcards}, {workdir} in braces, found {sample}"),
        ("{outputs}", "found {outputs}"),
        ("{rule", "expected text with {rule}"),
        ("{}", "expected text with {rule}"),
        ("{wildcards.sample}", "expected text with {rule}"),
    ],
)
def test_a_wrong_template_is_explained(template: str, said: str) -> None:
    assert said in template_problem(template, NAME_FIELDS)
    assert template_problem("{rule:>9} of {outputs}", COMMENT_FIELDS) == ""


def test_all_wrong_settings_are_named_at_once() -> None:
    assert problems(ExecutorSettings()) == []
    wrong = ExecutorSettings(poll_seconds=0, queue_seconds=90, retry_seconds=0.1, submit_seconds=-1, job_name="{rul}")
    named = [problem.partition(":")[0].removeprefix("submitit-") for problem in problems(wrong)]
    assert named == ["poll-seconds", "retry-seconds", "submit-seconds", "queue-seconds-max", "job-name"]


def test_lines_before_the_job_come_from_the_setting_and_then_from_the_rule(tmp_path: Path) -> None:
    lines = script(tmp_path, {"submitit_setup": "module load cuda/12\n\nulimit -n 4096"}, setup="module purge\n")
    start = lines.index("# setup")
    assert lines[start + 1 : start + 4] == ["module purge", "module load cuda/12", "ulimit -n 4096"]
    assert lines.index("# command") > start + 3
    assert local_parameters({"submitit_setup": "module load x"}, 60)["setup"] == ["module load x"]
    assert "# setup" not in script(tmp_path, {})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (slurm_parameters({"mem_mb": 8000}, 4, 400, 60), (4, 8400)),
        (slurm_parameters({"mem_mb_per_cpu": 1000, "nodes": 2}, 4, 400, 60), (8, 4000)),
        (slurm_parameters({}, 2, 400, 60), (2, 0)),
        (local_parameters({"mem_mb": 300}, 60), (3, 300)),
    ],
)
def test_what_a_job_requests_is_known_for_the_report(parameters: dict[str, Any], expected: tuple[int, int]) -> None:
    assert requested(parameters, 3, 300) == expected


def test_the_documentation_lists_the_settings() -> None:
    script = runpy.run_path(str(Path(__file__).with_name("settings_table.py")))
    page = script["PAGE"].read_text(encoding="utf-8")
    assert script["written"](page) == page, "run `python tests/settings_table.py`"
