"""The parsers read the answers of Slurm 20.11 to 25.11; recorded/README.md says where these come from."""

import re
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.slurm_states import (
    Slurm,
    State,
    Usage,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
    parse_usage,
)

FILES = sorted((Path(__file__).parent / "recorded").glob("*.txt"))
VERSIONS = [file.stem for file in FILES]
pytestmark = pytest.mark.parametrize("version", VERSIONS)


def answers(version: str) -> dict[str, str]:
    """Command -> what it prints."""
    text = (Path(__file__).parent / "recorded" / f"{version}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE))


def answer(version: str, start: str) -> str:
    """What the only command that starts like this prints."""
    [found] = [output for command, output in answers(version).items() if command.startswith(start)]
    return found


def test_squeue(version: str) -> None:
    states = parse_squeue(answer(version, "squeue"))
    assert states["101_0"] == State("RUNNING", "", "n1", "", "1-02:03:04")
    assert states["101_1"] == State("PENDING", "Priority", "", "", "0:00")
    assert states["101_2"].reason == "ReqNodeNotAvail, UnavailableNodes:n[3-4]"
    assert states["102"].node == "n[1-2]"
    ended = {job_id for job_id, state in states.items() if not state.alive}
    assert ended == {"104"} and len(states) == (7 if version == "25.11" else 6)


def test_sacct(version: str) -> None:
    states = parse_sacct(answer(version, "sacct --allocations"))
    assert states["101_0"] == State("RUNNING", "", "n1", "0:0", "1-02:03:04") and states["101_0"].alive
    assert states["101_3"] == states["101_4"] == State("CANCELLED", "", "", "0:0", "00:00:00", "1000")
    assert states["108"] == State("CANCELLED", "", "n1", "0:15", "00:00:07", "0")
    names = {job_id: state.name for job_id, state in states.items() if job_id in ("104", "105", "106", "107")}
    assert names == {"104": "TIMEOUT", "105": "OUT_OF_MEMORY", "106": "NODE_FAIL", "107": "PREEMPTED"}
    assert not any(states[job_id].alive for job_id in names)


def test_sacct_with_steps(version: str) -> None:
    assert parse_usage(answer(version, "sacct --noheader")) == {
        "201": Usage(elapsed_s=3600, cpu_s=12_000, cpus=4, requested_mb=8000, peak_mb=6144),
        "202_7": Usage(elapsed_s=60, cpu_s=30.5, cpus=2, requested_mb=4000, peak_mb=1536),
        "203": Usage(elapsed_s=90_000, cpu_s=360_000, cpus=8, requested_mb=4096, peak_mb=2048),
        "204": Usage(elapsed_s=0, cpu_s=0, cpus=1),
    }


def test_scontrol(version: str) -> None:
    states = [
        parse_scontrol(answer(version, f"scontrol --oneliner show job {job}")) for job in ("101_0", "101_1", "104")
    ]
    assert states == [
        State("RUNNING", "", "n1", "0:0", "1-02:03:04"),
        State("PENDING", "Resources", "", "0:0", "00:00:00"),
        State("TIMEOUT", "TimeLimit", "n2", "0:15", "01:00:12"),
    ]


def test_a_cluster_without_accounting_is_asked_once(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text(answer(version, "sacct without"), encoding="utf-8")
    tool = tmp_path / "sacct"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/text >&2; exit 1\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    slurm = Slurm()
    assert slurm.accounts(["1"]) == slurm.accounts(["2"]) == {} and slurm.usage(["1"]) == {}
    assert slurm.calls == {"sacct": 1}
