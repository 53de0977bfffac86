"""Tokens and passwords are not written to logs, cards or reports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from luab.errors import ConfigError, DataError
from luab.fetch.fetch import Patience, fetch
from luab.fetch.listing import load_archives, without_credentials
from luab.provenance.code import provenance
from luab.study.config import Study

PLANTED = "hf_PlantedToken0123456789"
WITH_PASSWORD = f"http://planted-user:{PLANTED}@127.0.0.1:9"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the secret in the usual environment variables."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, PLANTED)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, WITH_PASSWORD)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def listed(folder: Path, url: str) -> Path:
    entry = f"thing: {{dataset: thing, urls: ['{url}'], file: thing.bin, checksum_source: none published}}\n"
    (folder / "archives.yaml").write_text(entry, encoding="utf-8")
    return folder / "archives.yaml"


def everything_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_training_writes_no_secrets(
    toy_study: Callable[..., Study], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from luab.training.train import train

    study = toy_study()
    run = study.runs()[1]
    train(study, run, provenance(run.dataset))
    card = study.layout.run_json(run).read_text(encoding="utf-8")
    written = everything_below(tmp_path)
    assert '"commit"' in card and len(written) > 10_000
    assert PLANTED.encode() not in written and b"planted-user" not in written
    assert PLANTED not in "".join(capfd.readouterr())


def test_a_password_in_the_list_of_downloads_raises_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"remove user and password.*netrc") as caught:
        load_archives(listed(tmp_path, f"{WITH_PASSWORD}/thing.bin"))
    assert PLANTED not in str(caught.value) and "***@127.0.0.1:9/thing.bin" in str(caught.value)


def test_a_failing_proxy_s_password_is_not_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = load_archives(listed(tmp_path, "http://archive.invalid/thing.bin"))["thing"]
    with pytest.raises(DataError, match="download failed") as caught:
        fetch(archive, tmp_path / "archives", tmp_path / "archives" / "thing.json", Patience(attempts=1, backoff_s=0))
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "archive.invalid" in text and "proxy" in text.casefold()
    assert PLANTED not in text and PLANTED.encode() not in everything_below(tmp_path / "archives")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://me:s3cret@host/x and http://host/y", "see https://***@host/x and http://host/y"),
        ("HTTP://token@host", "HTTP://***@host"),
        ("http://me:a@b@host/", "http://***@host/"),
        ("http://host/path@1 mail@host", "http://host/path@1 mail@host"),
    ],
)
def test_credentials_are_removed_from_addresses(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
