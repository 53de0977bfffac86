"""Files are written completely or not at all."""

import hashlib
import os
import stat

import pytest

from luab.errors import DataError, JobError
from luab.files import (
    file_sha256,
    lines_sha256,
    read_json,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_json,
)


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    file = tmp_path / "new" / "a.txt"
    with replacing(file) as aside:
        assert aside.suffix == ".txt" and not file.exists()
        aside.write_text("1", encoding="utf-8")
    with pytest.raises(KeyError), replacing(file) as aside:
        aside.write_text("half", encoding="utf-8")
        raise KeyError
    assert file.read_text(encoding="utf-8") == "1" and os.listdir(file.parent) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path):
    previous = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
        with replacing_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    folder = tmp_path / "f"
    for text in "12":
        with replacing_folder(folder) as aside:
            (aside / text).touch()
    assert os.listdir(folder) == ["2"]
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as aside:
        (aside / "3").touch()
        raise ZeroDivisionError
    assert os.listdir(folder) == ["2"] and os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("writing", [replacing, replacing_folder])
def test_a_full_disk_is_a_job_error(tmp_path, writing):
    with pytest.raises(JobError, match=r"could not be written \(No space left"), writing(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError), writing(tmp_path / "x"):
        raise FileNotFoundError(2, "something else")
    (tmp_path / "file").touch()
    with pytest.raises((JobError, OSError)), writing(tmp_path / "file" / "below"):
        pass


def test_only_leftovers_of_a_killed_process_are_removed(tmp_path):
    killed = replacing(tmp_path / "state.pt")
    aside = killed.__enter__()
    for name in ("state.pt", ".hidden", ".git-config", "a-12345678.pt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert not aside.exists()
    assert sorted(os.listdir(tmp_path)) == [".git-config", ".hidden", "a-12345678.pt", "state.pt"]
    remove_leftovers(tmp_path / "nowhere")


def test_json_is_sorted_and_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"b": 1, "a": "é"})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n' and read_json(file) == {"a": "é", "b": 1}
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: expected JSON"):
        read_json(file)
    with pytest.raises(DataError, match="found none"):
        read_json(tmp_path / "b.json")


def test_digests_by_hand(tmp_path):
    (tmp_path / "a").write_bytes(b"x\ny\n")
    assert file_sha256(tmp_path / "a") == lines_sha256(["x", "y"]) == hashlib.sha256(b"x\ny\n").hexdigest()
