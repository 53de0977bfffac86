"""What a file is made from, and what of it a remote can give."""

import os
from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError
from luab.files import write_json
from luab.provenance.publish import kept_by_dvc, needed, refuse_secrets
from luab.study.paths import Layout

LAYOUT = Layout(Path("data"), Path("results"))
KEPT = {"data/manifests", "data/archives/ab.tar.gz", "data/archives/ab.json", "results/runs"}


def record(output: str, rule: str, *inputs: str, log: str = "") -> tuple[str, dict[str, Any]]:
    return output, {"output": output, "rule": rule, "input": list(inputs), "log": [log or f"logs/{output}.log"]}


RECORDS = dict(
    [
        record("data/archives/ab.json", "fetch"),
        record("data/raw/v2.json", "unpack", "data/archives/v2.json"),
        record("data/archives/v2.json", "fetch"),
        record("data/manifests/v2.json", "manifest", "data/raw/v2.json", log="m"),
        record("data/manifests/v2.parquet", "manifest", "data/raw/v2.json", log="m"),
        record("data/index.parquet", "index", "data/archives/ab.json", log="i"),
        record("results/runs/a/run.json", "train", "data/index.parquet", log="a"),
        record("results/runs/a/model", "train", "data/index.parquet", log="a"),
        record("results/runs/a/p.json", "predict", "results/runs/a/run.json", "data/manifests/v2.json"),
        record("results/scores.csv", "collect", "results/runs/a/p.json"),
        record("results/f.pdf", "figure", "results/scores.csv"),
    ]
)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_the_nearest_kept_files_are_needed_with_all_that_their_job_made() -> None:
    assert needed("results/runs/a/p.json", RECORDS, KEPT, LAYOUT) == [
        "data/manifests/v2.json",
        "data/manifests/v2.parquet",
        "results/runs/a/model",
        "results/runs/a/run.json",
    ]


def test_what_nobody_keeps_is_made_and_so_its_inputs_are_needed() -> None:
    assert needed("results/f.pdf", RECORDS, KEPT, LAYOUT) == ["results/runs/a/p.json"]


def test_what_is_here_is_not_needed_nor_what_it_was_made_from() -> None:
    put("results/scores.csv")
    assert needed("results/f.pdf", RECORDS, KEPT, LAYOUT) == []
    put("results/runs/a/run.json", "data/manifests/v2.json", "data/manifests/v2.parquet")
    assert needed("results/runs/a/p.json", RECORDS, KEPT, LAYOUT) == ["results/runs/a/model"]


def test_an_archive_is_needed_with_its_card_and_by_its_own_name_alone() -> None:
    assert needed("data/index.parquet", RECORDS, KEPT, LAYOUT) == ["data/archives/ab.json"]
    write_json("data/archives/ab.json", {"file": "ab.tar.gz"})
    assert needed("data/index.parquet", RECORDS, KEPT, LAYOUT) == ["data/archives/ab.tar.gz"]
    write_json("data/archives/ab.json", {"file": "../../../etc/ab.tar.gz"})
    assert needed("data/index.parquet", RECORDS, KEPT, LAYOUT) == ["data/archives/ab.tar.gz"]


def test_an_unknown_file_is_told_with_did_you_mean() -> None:
    with pytest.raises(ConfigError, match=r"results/score.csv: provenance.jsonl says nothing.*results/scores.csv"):
        needed("results/score.csv", RECORDS, KEPT, LAYOUT)


def test_what_git_keeps_is_not_asked_of_a_remote(repository: Path) -> None:
    os.chdir(repository)
    kept = kept_by_dvc()
    assert {"results/runs", "data/targets", "data/archives/imagenet_ab_v1_0.tar.gz"} <= kept
    assert not kept & {"results/scores.csv", "results/tables"}


@pytest.mark.parametrize(
    "line",
    ["secret_access_key = hush", "password = hush", "session_token = hush", "url = https://me:hush@example.org/luab"],
)
def test_no_password_goes_to_git(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"[core]\n    remote = s\n['remote \"s\"']\n    {line}\n")
    with pytest.raises(ConfigError, match=r"config\.local") as caught:
        refuse_secrets(config)
    assert "hush" not in str(caught.value)


def test_a_configuration_without_passwords_passes(tmp_path: Path, repository: Path) -> None:
    asked = "ask_password = true"  # a setting, not a password
    (tmp_path / "config").write_text(f"['remote \"s\"']\n    url = s3://me@bucket/luab\n    {asked}\n")
    refuse_secrets(tmp_path / "config")
    refuse_secrets(repository / ".dvc" / "config")
    refuse_secrets(tmp_path / "none")
