"""The report of CPU time and memory used and requested; the command snakemake-submitit."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import cli, efficiency, history, memory
from snakemake_executor_plugin_submitit.registry import Entry, Registry
from snakemake_executor_plugin_submitit.slurm_states import Usage


def line(job_id: str, rule: str = "train", **more: Any) -> dict[str, Any]:
    """A line of the history: four CPUs and 8000 MB were requested."""
    request = memory.request_of(rule, 4, 8000)
    return {
        "id": job_id,
        "name": f"{rule} seed={job_id}",
        "attempt": 1,
        "outcome": "COMPLETED",
        "request": request,
        "elapsed_s": 150.0,
        "cpus": 4,
        "requested_mb": 8000,
        **more,
    }


def test_of_two_sources_the_larger_value_counts() -> None:
    measured = line("1", peak_mb=6000, cpu_s=100.0, run_s=100.0)
    [own] = efficiency.rows([measured], {})
    assert (own.cpu_used, own.memory_used, own.elapsed_s) == (0.25, 0.75, 100)
    [both] = efficiency.rows([measured], {"1": Usage(elapsed_s=100, cpu_s=300, cpus=4, requested_mb=1, peak_mb=4000)})
    assert (both.cpu_used, both.memory_used, both.requested_mb) == (0.75, 0.75, 8000)
    [both] = efficiency.rows([measured], {"1": Usage(elapsed_s=100, cpu_s=1, cpus=4, requested_mb=1, peak_mb=8000)})
    assert (both.cpu_used, both.memory_used) == (0.25, 1.0)


def test_a_killed_job_is_known_from_the_accounting_alone_or_not_at_all() -> None:
    killed = line("1", cpus=0, requested_mb=0, outcome="OUT_OF_MEMORY")
    [row] = efficiency.rows([killed], {"1": Usage(elapsed_s=50, cpu_s=50, cpus=2, requested_mb=100, peak_mb=99)})
    assert (row.cpus, row.cpu_used, row.memory_used, row.outcome) == (2, 0.5, 0.99, "OUT_OF_MEMORY")
    [row] = efficiency.rows([killed], {})
    assert (row.cpus, row.cpu_s, row.cpu_used, row.peak_mb, row.memory_used) == (None,) * 5
    assert row.elapsed_s == 150


def test_the_table_has_a_line_for_each_rule_and_the_csv_one_for_each_job(tmp_path: Path) -> None:
    lines = [
        line("1", peak_mb=2000, cpu_s=7200.0, run_s=3600.0),
        line("2", peak_mb=4000, cpu_s=14400.0, run_s=3600.0),
        line("3", "score"),
    ]
    rows = efficiency.rows(lines, {})
    table = [text.split() for text in efficiency.table(rows).splitlines()]
    assert table[0][:3] == ["rule", "jobs", "hours"]
    # (7200 + 14400) of 4 x 7200 CPU seconds
    assert table[1] == ["train", "2", "2.0", "4", "75%", "8,000", "MB", "4,000", "MB", "50%"]
    assert table[2] == ["score", "1", "0.0", "4", "-", "8,000", "MB", "-", "-"]
    efficiency.write_csv(rows, tmp_path / "new" / "report.csv")
    with open(tmp_path / "new" / "report.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [job["rule"] for job in written] == ["train", "train", "score"]
    assert (written[0]["cpu_used"], written[0]["memory_used"], written[2]["cpu_used"]) == ("0.5", "0.25", "")


def test_a_job_adds_up_the_cpu_time_of_all_its_starts(tmp_path: Path) -> None:
    path = tmp_path / "7_memory.json"
    path.write_text('{"peak_mb": 20, "cpu_s": 5, "run_s": 10}', encoding="utf-8")
    used = memory.PeakMemory(path)
    started = time.process_time()
    subprocess.run([sys.executable, "-c", "x = 0\nfor i in range(3_000_000): x += i"], check=True)
    used.close()
    recorded = memory.recorded(path)
    assert time.process_time() - started < 60 and recorded["peak_mb"] == 20
    assert recorded["cpu_s"] > 5.05 and recorded["run_s"] > 10.05
    memory.PeakMemory(None).close()
    path.write_text("[]", encoding="utf-8")
    assert memory.recorded(path) == {} and memory.recorded_mb(path) is None


def test_the_history_keeps_what_jobs_used(tmp_path: Path) -> None:
    entry = Entry({"a": ""}, str(tmp_path), "slurm", "train", id="7", cpus=4, requested_mb=100)
    entry.memory.write_text('{"peak_mb": 20, "cpu_s": 5.5, "run_s": 10}', encoding="utf-8")
    returned = history.append(tmp_path, entry, "COMPLETED")
    with open(tmp_path / history.NAME, "a", encoding="utf-8") as file:
        file.write('{ cut\n"text"\n')
    assert history.lines(tmp_path) == [returned] and history.lines(tmp_path / "none") == []
    assert (returned["cpus"], returned["requested_mb"], returned["cpu_s"], returned["run_s"]) == (4, 100, 5.5, 10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin's folder with three live jobs; no program of Slurm can be found."""
    registry = Registry(tmp_path / "live")
    entries = [
        Entry({"a": ""}, str(tmp_path), "slurm", "train seed=1", 0, 2, 1, id="5_0", state="PENDING", reason="Priority"),
        Entry({"b": ""}, str(tmp_path), "slurm", "train seed=2", 1, 2, 2, id="5_1", state="RUNNING", node="n1"),
        Entry({"c": ""}, str(tmp_path), "slurm", "score", id=""),
    ]
    for entry in entries:
        entry.submitted = time.time() - 7500
        registry.write(entry)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_status_reads_the_records(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "live" / "checked").touch()
    os.utime(folder / "live" / "checked", (time.time() - 65,) * 2)
    assert cli.main(["status", "--folder", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 live jobs: ") and lines[0].endswith("; checked 1 min ago.")
    assert {"1 running", "1 pending", "1 submitted"} == set(lines[0].partition(": ")[2].partition(";")[0].split(", "))
    assert lines[2].split() == ["train", "seed=2", "5_1", "running", "n1", "2", "h", "05", "min", "2"]
    assert lines[3].split()[2:5] == ["5_0", "pending", "Priority"]


def test_status_shows_the_first_jobs_of_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(60):
        Registry(folder / "live").write(Entry({}, str(folder), "slurm", "more", id=f"9_{number}"))
    assert cli.main(["status", "--folder", str(folder)]) == 0
    assert "... and 23 more (--all)" in capsys.readouterr().out
    assert cli.main(["status", "--all", "--folder", str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 65


def test_commands_without_jobs_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, said in (("status", "No live jobs."), ("efficiency", "No job has ended yet.")):
        assert cli.main([command, "--folder", str(tmp_path)]) == 0
        assert capsys.readouterr().out.strip() == said
    assert cli.main(["status", "--folder", str(tmp_path / "none")]) == 1
    assert "expected the plugin's folder, found none" in capsys.readouterr().err


def test_efficiency_of_all_jobs_that_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(line("1", peak_mb=6000, cpu_s=100.0, run_s=100.0))
    (tmp_path / history.NAME).write_text(text + "\n", encoding="utf-8")
    assert cli.main(["efficiency", "--folder", str(tmp_path), "--csv", str(tmp_path / "jobs.csv")]) == 0
    assert "25%" in capsys.readouterr().out and "75%" in cli._efficiency(tmp_path, None)
    assert (tmp_path / "jobs.csv").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7500, "2 h 05 min"), (180_000, "2 d 2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert cli.duration(seconds) == text
