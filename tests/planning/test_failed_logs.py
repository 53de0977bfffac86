"""What `--quiet` hides: the ends of the logs of failed jobs."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from luab.planning import plan

REPOSITORY = Path(__file__).parents[2]


def _job(rule: str, *logs: Path) -> SimpleNamespace:
    return SimpleNamespace(rule=SimpleNamespace(name=rule), log=list(map(str, logs)), is_group=lambda: False)


def test_the_end_of_each_failed_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {i}\n" for i in range(50)) + "DataError: é\n", encoding="utf-8")
    members = [_job("train", log), _job("score", tmp_path / "absent.log")]
    group = SimpleNamespace(jobs=members, is_group=lambda: True)
    text = plan.failed_logs([group], lines=3)
    assert f"train failed; the end of {log}:\n    line 48\n    line 49\n    DataError: é" in text
    assert "line 47" not in text and "the job failed before it began" in text


@pytest.mark.parametrize("quiet", [["rules", "host"], ["all"]])
def test_snakemake_says_why_a_job_failed_also_when_quiet(tmp_path: Path, quiet: list[str]) -> None:
    archives = (REPOSITORY / "config/archives.yaml").read_text(encoding="utf-8")
    closed = archives.replace("https://raw.githubusercontent.com/", "http://127.0.0.1:9/")
    (tmp_path / "archives.yaml").write_text(closed, encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"paths: {{data: {tmp_path}/d, results: {tmp_path}/r, archives: {tmp_path}/archives.yaml}}\n", encoding="utf-8"
    )
    target = tmp_path / "d/archives/imagenet_real.json"
    command = [sys.executable, "-m", "snakemake", target, "--cores", "1", "--nolock", "--configfile", config]
    done = subprocess.run(
        [*command, "--quiet", *quiet],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 1
    assert "fetch failed; the end of logs/fetch/imagenet_real.log" in done.stderr
    assert "DataError" in done.stderr and "127.0.0.1:9" in done.stderr


def test_another_working_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for arguments in (["-d", tmp_path, "--configfile", REPOSITORY / "config/demo.yaml"], ["-d", tmp_path]):
        command = [sys.executable, "-m", "snakemake", "-n", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", errors="replace"
        )
        assert done.returncode == 1 and "Expected to run in the checkout" in done.stdout + done.stderr
        assert "paths: {data: ..., results: ...}" in done.stdout + done.stderr


def test_a_home_that_cannot_be_written_to_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("", encoding="utf-8")  # nobody, not even root, can write into a file
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--configfile", "config/demo.yaml"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_of_this_process_comes_first_even_after_another_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), own, "/usr/bin"]))
    plan._prepend("PATH", Path(own))
    assert os.environ["PATH"] == os.pathsep.join([own, str(tmp_path), "/usr/bin"])
