"""Leftovers of killed processes are removed by the next successful write, once they are a day old."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luab.files import replacing, replacing_folder

pytestmark = pytest.mark.faults

TWO_DAYS_S = 2 * 24 * 3600
KILLED = """
import os, signal, sys
from pathlib import Path
from luab.files import replacing, replacing_folder
path = Path(sys.argv[2])
with {"file": replacing, "folder": replacing_folder}[sys.argv[1]](path) as aside:
    if sys.argv[1] == "folder":
        (aside / "class").mkdir()
    (aside / "class" / "a" if sys.argv[1] == "folder" else aside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill_while_writing(kind: str, path: Path) -> Path:
    """Kills a process while it writes `path`; returns its leftover."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)])
    assert done.returncode == -signal.SIGKILL
    (leftover,) = set(path.parent.iterdir()) - before
    return leftover


def _age(leftover: Path) -> None:
    then = time.time() - TWO_DAYS_S
    for path in (leftover, *leftover.rglob("*")):
        os.utime(path, (then, then))


def _replace(kind: str, path: Path) -> None:
    if kind == "file":
        with replacing(path) as aside:
            aside.write_text("whole", encoding="utf-8")
    else:
        with replacing_folder(path) as folder:
            (folder / "a").write_text("whole", encoding="utf-8")


@pytest.mark.parametrize(("kind", "name"), [("file", "scores.csv"), ("file", "LICENCE"), ("folder", "imagenet_v2.0")])
def test_the_next_success_removes_an_old_leftover(tmp_path: Path, kind: str, name: str) -> None:
    leftover = _kill_while_writing(kind, tmp_path / name)
    _age(leftover)
    _replace(kind, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_recent_leftover_stays(tmp_path: Path, kind: str) -> None:
    leftover = _kill_while_writing(kind, tmp_path / "out")
    _replace(kind, tmp_path / "out")
    assert leftover.exists()


def test_a_folder_with_one_recent_file_inside_stays(tmp_path: Path) -> None:
    leftover = _kill_while_writing("folder", tmp_path / "out")
    _age(leftover)
    os.utime(leftover / "class" / "a")
    _replace("folder", tmp_path / "out")
    assert (leftover / "class" / "a").read_text(encoding="utf-8") == "half"


@pytest.mark.parametrize(
    "other", [".scores-abcdefgh.json", ".scores-old-abcdefgh.csv", ".scores-2024.csv", "scores-abcdefgh.csv"]
)
def test_old_files_with_other_names_stay(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_text("mine", encoding="utf-8")
    _age(tmp_path / other)
    _replace("file", tmp_path / "scores.csv")
    assert (tmp_path / other).read_text(encoding="utf-8") == "mine"


def test_a_failed_replacement_removes_only_its_own_file(tmp_path: Path) -> None:
    leftover = _kill_while_writing("file", tmp_path / "scores.csv")
    _age(leftover)
    with pytest.raises(ValueError), replacing(tmp_path / "scores.csv"):
        raise ValueError
    assert list(tmp_path.iterdir()) == [leftover]


def test_a_leftover_that_cannot_be_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = _kill_while_writing("file", tmp_path / "scores.csv")
    _age(leftover)
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == leftover:
            raise PermissionError
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    _replace("file", tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8") == "whole" and leftover.exists()
