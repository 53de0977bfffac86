"""Inputs of a file that DVC stores, and secrets in DVC's configuration."""

import os
from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError
from luab.files import write_json
from luab.provenance.publish import check_no_secrets, missing_inputs, stored_in_dvc
from luab.study.paths import Layout

LAYOUT = Layout(Path("data"), Path("results"))
STORED = {"data/manifests", "data/archives/ab.tar.gz", "data/archives/ab.json", "results/runs"}


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


def test_the_nearest_stored_files_are_needed_with_all_outputs_of_their_job() -> None:
    assert missing_inputs("results/runs/a/p.json", RECORDS, STORED, LAYOUT) == [
        "data/manifests/v2.json",
        "data/manifests/v2.parquet",
        "results/runs/a/model",
        "results/runs/a/run.json",
    ]


def test_inputs_of_files_that_dvc_does_not_store_are_missing_inputs() -> None:
    assert missing_inputs("results/f.pdf", RECORDS, STORED, LAYOUT) == ["results/runs/a/p.json"]


def test_existing_files_and_their_inputs_are_not_missing_inputs() -> None:
    put("results/scores.csv")
    assert missing_inputs("results/f.pdf", RECORDS, STORED, LAYOUT) == []
    put("results/runs/a/run.json", "data/manifests/v2.json", "data/manifests/v2.parquet")
    assert missing_inputs("results/runs/a/p.json", RECORDS, STORED, LAYOUT) == ["results/runs/a/model"]


def test_the_archive_that_a_card_names_is_needed_by_file_name_only() -> None:
    assert missing_inputs("data/index.parquet", RECORDS, STORED, LAYOUT) == ["data/archives/ab.json"]
    write_json("data/archives/ab.json", {"file": "ab.tar.gz"})
    assert missing_inputs("data/index.parquet", RECORDS, STORED, LAYOUT) == ["data/archives/ab.tar.gz"]
    write_json("data/archives/ab.json", {"file": "../../../etc/ab.tar.gz"})
    assert missing_inputs("data/index.parquet", RECORDS, STORED, LAYOUT) == ["data/archives/ab.tar.gz"]


def test_an_unknown_file_raises_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"results/score.csv: provenance.jsonl has no record.*results/scores.csv"):
        missing_inputs("results/score.csv", RECORDS, STORED, LAYOUT)


def test_files_in_git_are_not_stored_in_dvc(repository: Path) -> None:
    os.chdir(repository)
    stored = stored_in_dvc()
    assert {"results/runs", "data/targets", "data/archives/imagenet_ab_v1_0.tar.gz"} <= stored
    assert not stored & {"results/scores.csv", "results/tables"}


def test_fine_tunings_are_stored_if_the_study_has_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {study: {outs: [{results/runs: {persist: true}}]}}\n", encoding="utf-8")
    assert stored_in_dvc() == {"results/runs"}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "transfer.dvc").write_text("outs: []\n", encoding="utf-8")
    assert stored_in_dvc() == {"results/runs", "results/transfer"}


@pytest.mark.parametrize(
    "line",
    ["secret_access_key = hush", "password = hush", "session_token = hush", "url = https://me:hush@example.org/luab"],
)
def test_a_password_in_the_configuration_raises(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"[core]\n    remote = s\n['remote \"s\"']\n    {line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.local") as caught:
        check_no_secrets(config)
    assert "hush" not in str(caught.value)


def test_a_configuration_without_passwords_passes(tmp_path: Path, repository: Path) -> None:
    setting = "ask_password = true"  # not a password
    (tmp_path / "config").write_text(
        f"['remote \"s\"']\n    url = s3://me@bucket/luab\n    {setting}\n", encoding="utf-8"
    )
    check_no_secrets(tmp_path / "config")
    check_no_secrets(repository / ".dvc" / "config")
    check_no_secrets(tmp_path / "none")
