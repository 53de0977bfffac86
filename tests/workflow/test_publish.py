"""A study is published to real DVC remotes, and a stranger's clone takes from them what it needs and no more."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .conftest import CONFIGS, Checkout

pytestmark = pytest.mark.slow

RUN = "imagenet/test_resnet/click-1/seed0"
NAME = "imagenet-test-resnet-click-seed0"
SCORES = "results/scores.csv"
FIGURE = "results/figures/lambda_sweep.pdf"
CARD = f"results/runs/{RUN}/predictions/all.json"
AUTHOR = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command,
        env=os.environ | AUTHOR,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def luab(checkout: Checkout, *arguments: str) -> str:
    """What the command says; it must succeed."""
    done = checkout.python("-m", "luab", *arguments, **AUTHOR)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(checkout: Checkout, *arguments: str) -> str:
    """The error that the command ends with."""
    done = checkout.python("-m", "luab", *arguments, **AUTHOR)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stderr


def dvc(checkout: Checkout, *arguments: str) -> str:
    done = checkout.python("-m", "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(tiny: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository whose config/config.yaml is the tiny study and which holds its results, published to a folder."""
    folder = tmp_path_factory.mktemp("published")
    made = Checkout(Path(shutil.copytree(tiny.folder, folder / "study", symlinks=True)))
    program = (
        f"from luab.study.config import load_study\nprint(load_study(['config/config.yaml', *{CONFIGS!r}]).dump())"
    )
    written = tiny.python("-c", program)
    assert written.returncode == 0, written.stderr
    (made.folder / "config" / "config.yaml").write_text(written.stdout, encoding="utf-8")
    git(made.folder, "init", "--quiet", "--initial-branch", "main")
    git(made.folder, "add", "--", ".", ":!results")
    git(made.folder, "commit", "--quiet", "-m", "Code and configuration")
    told = refused(made, "publish")
    assert "no default remote" in told and "docs/sharing.md" in told
    dvc(made, "remote", "add", "--quiet", "--default", "storage", str(folder / "remote"))
    assert "git push" in luab(made, "publish")
    assert ".dvc/config" in git(made.folder, "show", "--name-only", "--format=")  # else a clone knows of no remote
    return made


@pytest.fixture
def clone(study: Checkout, tmp_path: Path) -> Checkout:
    git(tmp_path, "clone", "--quiet", str(study.folder), "clone")
    return Checkout(tmp_path / "clone")


def big_files(checkout: Checkout) -> set[str]:
    """Suffixes of what lies below results/runs."""
    return {path.suffix for path in (checkout.folder / "results" / "runs").rglob("*") if path.is_file()}


def test_a_published_study_is_clean_to_git_dvc_and_snakemake(study: Checkout) -> None:
    assert git(study.folder, "status", "--porcelain") == ""
    kept = git(study.folder, "ls-files", "results", "data").split()
    assert {SCORES, "results/dvc.yaml", "results/provenance.jsonl", "results/tables/imagenet_main.csv"} <= set(kept)
    assert not [name for name in kept if "/runs/" in name or name.startswith("data/")]
    assert "up to date" in dvc(study, "status")
    assert "Nothing has changed" in luab(study, "publish")
    repro = dvc(study, "repro")
    assert repro.count("didn't change, skipping") == 4 and study.plan() == {}


def test_git_alone_is_enough_for_figures_tables_and_numbers(clone: Checkout) -> None:
    """Whatever the file times, which in a clone say nothing: the scores are far older than the code."""
    os.utime(clone.folder / SCORES, (1e9, 1e9))
    assert clone.plan(FIGURE) == {"figure_lambda_sweep": 1}
    done = clone.snakemake("--cores", "1", FIGURE)
    assert done.returncode == 0, done.stderr
    shown = json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]
    numbers = shown["results/metrics/imagenet/test_resnet/click.json"]["data"]
    assert 0 < numbers["imagenet_val"] <= 1 and numbers["seeds"] == 2
    assert set(shown) == {
        f"results/metrics/{dataset}/test_resnet/{name}.json"
        for dataset, names in (("imagenet", ("none", "random", "click")), ("coco", ("none", "click")))
        for name in names
    }


def test_plots_hold_the_lambda_curve_and_the_trainings(clone: Checkout) -> None:
    dvc(clone, "plots", "show", "--out", "plots")
    page = (clone.folder / "plots" / "index.html").read_text(encoding="utf-8")
    for words in ("By the weight of the byproduct loss (demo world)", "Training: classification loss (demo world)"):
        assert words in page
    assert '"supervision": "click"' in page and '"lambda": "0.1"' in page and "<DVC_METRIC" not in page


def test_scores_come_without_models_and_give_the_same_table(study: Checkout, clone: Checkout) -> None:
    before = (clone.folder / SCORES).read_bytes()
    assert "snakemake --cores all results/scores.csv" in luab(clone, "pull", "--needs", SCORES)
    assert big_files(clone) == {".json"}
    (clone.folder / SCORES).unlink()
    assert clone.plan(SCORES) == {"collect": 1}
    done = clone.snakemake("--cores", "1", SCORES)
    assert done.returncode == 0 and (clone.folder / SCORES).read_bytes() == before, done.stderr
    missing = refused(clone, "publish")
    assert "are missing: data/" in missing and "fetch them with `luab pull`" in missing


def test_a_model_and_its_lists_are_enough_to_predict(clone: Checkout) -> None:
    luab(clone, "pull", "--needs", CARD)
    there = {path.name for path in (clone.folder / "results" / "runs" / RUN).iterdir()}
    assert there == {"model.safetensors", "run.json", "log.csv"}
    assert (clone.folder / "data" / "manifests" / "imagenet_val.parquet").is_file()
    assert clone.plan(CARD) == {"predict_all": 1}
    config = clone.folder / "config" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("lr: 0.004", "lr: 0.003"), encoding="utf-8")
    assert clone.plan(CARD)["train"] == 1


def test_a_whole_pull_leaves_nothing_to_do(study: Checkout, clone: Checkout) -> None:
    assert "everything that DVC stores" in luab(clone, "pull")
    assert "up to date" in dvc(clone, "status")
    model = f"results/runs/{RUN}/model.safetensors"
    assert (clone.folder / model).read_bytes() == (study.folder / model).read_bytes()
    assert "Nothing has changed" in luab(clone, "publish")  # which refuses what Snakemake would make anew
    config = clone.folder / "config" / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("random_points_seed: 0", "random_points_seed: 1"), encoding="utf-8"
    )
    assert "The results are out of date" in refused(clone, "publish")
    difference = json.loads(dvc(clone, "params", "diff", "--json"))
    assert difference["config/config.yaml"]["random_points_seed"].items() >= {"old": 0, "new": 1}.items()


def test_one_model_by_its_name_or_path(study: Checkout, tmp_path: Path) -> None:
    model = f"results/runs/{RUN}/model.safetensors"
    git(study.folder, "tag", "-a", "-m", "First", f"results={NAME}@v1.0.0")
    dvc(study, "artifacts", "get", str(study.folder), f"results:{NAME}", "--out", str(tmp_path / "by name"))
    dvc(study, "get", str(study.folder), model, "--out", str(tmp_path / "by path"))
    for place in ("by name", "by path"):
        assert (tmp_path / place).read_bytes() == (study.folder / model).read_bytes()


def test_what_pull_cannot_fetch_is_told(clone: Checkout) -> None:
    assert "Did you mean results/scores.csv" in refused(clone, "pull", "--needs", "results/score.csv")
    assert "add the file to make" in refused(clone, "pull", "--needs")
    assert "a file or folder in" in refused(clone, "pull", "../elsewhere")
    assert "not stored in DVC" in refused(clone, "pull", "data/raw")
    assert "no remote 'storge'. Did you mean storage?" in refused(clone, "pull", "--remote", "storge", "results/runs")
    assert "in git" in luab(clone, "pull", SCORES)
    told = refused(clone, "pull", "results/runs/imagenet/resnet51")
    assert "DVC stores no such file or folder" in told and "resnet51" in told
    remote = Path(dvc(clone, "config", "core.remote").strip())
    shutil.rmtree(clone.folder / ".dvc" / "cache", ignore_errors=True)
    dvc(clone, "remote", "add", "--quiet", "elsewhere", str(clone.folder.parent / remote / "nothing there"))
    told = refused(clone, "pull", "--remote", "elsewhere", "data/targets")
    assert "`dvc pull` failed" in told and "run it again" in told


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_plain_http_is_read(study: Checkout, clone: Checkout, serve: Callable[[Path], str]) -> None:
    dvc(clone, "remote", "add", "--quiet", "web", serve(study.folder.parent / "remote"))
    luab(clone, "pull", "--remote", "web", "data/targets")
    assert (clone.folder / "data" / "targets" / "imagenet" / "click.parquet").is_file()


def test_s3_takes_and_gives(study: Checkout, clone: Checkout, tmp_path: Path) -> None:
    """A bucket of a real S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    secret = f"planted-{time.time_ns()}"
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id="k", aws_secret_access_key=secret,
            region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket="bucket")
        sender = Checkout(Path(shutil.copytree(study.folder, tmp_path / "sender", symlinks=True)))
        for checkout in (sender, clone):
            dvc(checkout, "remote", "add", "--quiet", "--default", "--force", "storage", "s3://bucket/luab")
            dvc(checkout, "remote", "modify", "--quiet", "storage", "endpointurl", address)
        sent = sender.python("-m", "luab", "publish", **AUTHOR, **keys)
        assert sent.returncode == 0, sent.stderr
        fetched = clone.python("-m", "luab", "pull", "results/runs", **keys)
        assert fetched.returncode == 0, fetched.stderr
        assert big_files(clone) == {".csv", ".json", ".jsonl", ".parquet", ".safetensors"}
        everything = [path for path in clone.folder.rglob("*") if path.is_file() and ".git" not in path.parts]
        assert not [path for path in everything if secret.encode() in path.read_bytes()]
    finally:
        server.stop()
