"""What a killed process leaves beside an output goes with the next success, once it is surely nobody's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luab.files import replacing, replacing_folder

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


def _killed(kind: str, path: Path) -> Path:
    """Has a process killed while it writes `path`; returns what it left."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)])
    assert done.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before
    return left


def _age(left: Path) -> None:
    then = time.time() - TWO_DAYS_S
    for path in (left, *left.rglob("*")):
        os.utime(path, (then, then))


def _replace(kind: str, path: Path) -> None:
    if kind == "file":
        with replacing(path) as aside:
            aside.write_text("whole")
    else:
        with replacing_folder(path) as folder:
            (folder / "a").write_text("whole")


@pytest.mark.parametrize(("kind", "name"), [("file", "scores.csv"), ("file", "LICENCE"), ("folder", "imagenet_v2.0")])
def test_an_old_leftover_goes_with_the_next_success(tmp_path: Path, kind: str, name: str) -> None:
    left = _killed(kind, tmp_path / name)
    _age(left)
    _replace(kind, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_leftover_that_may_still_be_written_to_stays(tmp_path: Path, kind: str) -> None:
    left = _killed(kind, tmp_path / "out")
    _replace(kind, tmp_path / "out")
    assert left.exists()


def test_a_folder_with_one_fresh_file_deep_inside_stays(tmp_path: Path) -> None:
    left = _killed("folder", tmp_path / "out")
    _age(left)
    os.utime(left / "class" / "a")
    _replace("folder", tmp_path / "out")
    assert (left / "class" / "a").read_text() == "half"


@pytest.mark.parametrize(
    "other", [".scores-abcdefgh.json", ".scores-old-abcdefgh.csv", ".scores-2024.csv", "scores-abcdefgh.csv"]
)
def test_old_files_of_other_names_stay(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_text("mine")
    _age(tmp_path / other)
    _replace("file", tmp_path / "scores.csv")
    assert (tmp_path / other).read_text() == "mine"


def test_a_failed_replacement_removes_nothing_but_its_own(tmp_path: Path) -> None:
    left = _killed("file", tmp_path / "scores.csv")
    _age(left)
    with pytest.raises(ValueError), replacing(tmp_path / "scores.csv"):
        raise ValueError
    assert list(tmp_path.iterdir()) == [left]


def test_a_leftover_that_cannot_be_removed_does_not_undo_the_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _killed("file", tmp_path / "scores.csv")
    _age(left)
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise PermissionError
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    _replace("file", tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "whole" and left.exists()
