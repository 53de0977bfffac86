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
rule work:
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


def test_without_a_terminal_each_finished_job_is_a_line(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "from the Snakefile"
    finished = [line for line in lines if line.startswith("done ")]
    assert [line.partition(":")[0] for line in finished] == ["done 1 of 5", "done 2 of 5", "done 3 of 5"]
    assert {line.partition(": ")[2] for line in finished} == {"work 0", "work 1", "work 2"}
    at = lines.index("bad failed.")
    assert lines[at + 1 : at + 3] == ["The end of logs/bad.log:", "    DataError: [the reason]"]
    assert not any("Building DAG" in line or "Select jobs" in line for line in lines)


def test_a_terminal_shows_a_bar(command: list[str]) -> None:
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
    assert "3/5" in text and "bad failed." in text and "DataError: [the reason]" in text


def test_a_dry_run_lists_the_jobs(command: list[str]) -> None:
    done = subprocess.run([*command, "-n"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and "rule bad" in done.stderr + done.stdout
