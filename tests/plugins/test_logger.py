"""The logger plugin: what `make demo` shows."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "luab" / "plugins"
SNAKEFILE = """
from snakemake.logging import logger
logger.info("from the Snakefile")
rule all:
    input: expand("out/{i}.txt", i=range(3)), "bad.txt"
rule work_on:
    output: "out/{i}.txt"
    shell: "touch {output}"
rule bad:
    output: "bad.txt"
    log: "logs/bad.log"
    shell: "echo 'DataError: [the reason]' > {log}; exit 3"
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))
    return [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "luab", "--keep-going"]


def test_without_a_terminal_each_finished_stage_is_a_line(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "from the Snakefile"
    assert [line for line in lines if re.fullmatch(r"work: 3 of 3 after \d+ s", line)]
    assert not any(line.startswith(("all:", "bad:")) for line in lines)
    at = lines.index("bad failed.")
    assert lines[at + 1 : at + 3] == ["The end of logs/bad.log:", "    DataError: [the reason]"]
    assert not any("Building DAG" in line or "Select jobs" in line for line in lines)


def test_a_plan_that_cannot_be_made_says_why(command: list[str]) -> None:
    done = subprocess.run([*command, "mistyped.txt"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert "No rule to produce mistyped.txt" in done.stderr


def test_a_terminal_shows_a_bar_for_each_stage(command: list[str]) -> None:
    reader, writer = pty.openpty()
    with subprocess.Popen(command, stdout=writer, stderr=writer, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(writer)
        shown = b""
        try:
            while part := os.read(reader, 65536):
                shown += part
        except OSError:  # the terminal is closed
            pass
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert process.returncode == 1
    assert "3/3" in text and "0/1" in text and "bad failed." in text and "DataError: [the reason]" in text


def test_a_dry_run_lists_the_jobs(command: list[str]) -> None:
    done = subprocess.run([*command, "-n"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and "rule bad" in done.stderr + done.stdout
