"""Bad input through the command line: one clear error with cause and remedy, and no partial output."""

import hashlib
import http.server
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from luab.files import file_sha256, read_json, write_json
from luab.study.config import Study, load_study
from luab.study.paths import Run

pytestmark = pytest.mark.faults

CNN = Run("imagenet", "test_resnet", "click", 1.0, 0)
GOOD = (
    b"<annotation><metadata><estimateTime>5</estimateTime><selected>True</selected>"
    b"<selectedRecord><x>0.5</x><y>0.5</y></selectedRecord></metadata></annotation>"
)
NO_CLICK = GOOD.replace(b"<x>0.5</x><y>0.5</y>", b"None")
LAUGHS = b"".join(
    b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10 if level else b"lol") for level in range(10)
)
BOMB = b"<!DOCTYPE annotation [" + LAUGHS + b"]><annotation><filename>&l9;</filename></annotation>"


@dataclass(frozen=True)
class Desk:
    """A folder with the toy world, its study and a list of downloads."""

    folder: Path
    study: Study

    def luab(
        self, *arguments: str, before: Callable[[], None] | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs one luab command on the study."""
        root = str(Path(__file__).resolve().parents[1])
        environment = os.environ | {
            "PYTHONPATH": root,
            "LUAB_CONFIG": str(self.folder / "study.yaml"),
            "no_proxy": "127.0.0.1",
        }
        return subprocess.run(
            [sys.executable, "-m", "luab", *arguments],
            cwd=self.folder,
            env=environment | env,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=before,
            encoding="utf-8",
            errors="replace",
        )

    def refusal(self, *arguments: str, new: set[str] = frozenset(), **given: Any) -> str:  # type: ignore[assignment]
        """Runs a command that must fail and create only the files `new`; returns the last paragraph of its output."""
        earlier = self.files()
        done = self.luab(*arguments, **given)
        assert done.returncode == 1, done.stderr
        assert self.files() == earlier | new
        message = done.stderr.rstrip().rpartition("\n\n")[2]
        assert message.split(":")[0] in ("ConfigError", "DataError", "JobError")
        return message

    def files(self) -> set[str]:
        """All files in the folder, as relative paths."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def offer(self, name: str, dataset: str, url: str, content: bytes, **keys: Any) -> None:
        """Adds an archive to the list of downloads."""
        entry = {
            "dataset": dataset,
            "urls": [url],
            "file": f"{name}.tar.gz",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "checksum_source": "this test",
            "unpack": False,
        }
        (self.folder / "archives.yaml").write_text(yaml.safe_dump({name: entry | keys}), encoding="utf-8")

    def index_of(self, archive: bytes) -> None:
        """Writes an archive of records where `luab fetch` would write it."""
        place = self.study.layout.archive_folder() / "imagenet_ab_v1_0.tar.gz"
        place.parent.mkdir(parents=True)
        place.write_bytes(archive)
        write_json(place.parent / "imagenet_ab.json", {"file": place.name, "sha256": file_sha256(place)})


@pytest.fixture
def desk(toy_world: Path, toy_study: Callable[..., Study], repository: Path, tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    world = Path(shutil.copytree(toy_world, folder / "world"))
    (folder / "config").symlink_to(repository / "config")
    paths = {"archives": str(folder / "archives.yaml"), "results": str(folder / "results")}
    study = toy_study(world=world, recipe={"epochs": 1, "warmup_epochs": 0}, paths=paths)
    (folder / "study.yaml").write_text(study.dump(), encoding="utf-8")
    (folder / "archives.yaml").write_text("{}", encoding="utf-8")
    return Desk(folder, study)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A local server of the folder `served`."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(served))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tar_gz(**members: bytes) -> bytes:
    """A .tar.gz of records; "__" in a name means a dot."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"train_xml/n01440764/{name.replace('__', '.')}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_mistakes_in_the_configuration_are_listed_together(desk: Desk) -> None:
    (desk.folder / "bad.yaml").write_text(
        "luab_lamda: 2\n"
        "sweep: {backbones: [], supervisions: [], lambdas: [-0.5]}\n"
        "backbones: [{name: resnet5O, recipe: resnet, gpu_images_per_s: 1}]\n",
        encoding="utf-8",
    )
    message = desk.refusal("plan", "--config", "bad.yaml")
    assert message.startswith("ConfigError: The configuration has 3 mistakes")
    assert "luab_lamda: unknown key. Did you mean luab_lambda?" in message
    assert "sweep.lambdas[0]: Input should be greater than 0 (found -0.5)" in message
    assert "timm has no model 'resnet5O'. Did you mean resnet50" in message
    assert "Correct them in config/" in message


def test_a_truncated_download_is_set_aside(desk: Desk) -> None:
    whole = tar_gz(n01440764_1__xml=GOOD)
    (desk.folder / "half.tar.gz").write_bytes(whole[:-20])
    desk.offer("imagenet_ab", "imagenet_ab", "file:half.tar.gz", whole, bytes=None)
    message = desk.refusal("fetch", "imagenet_ab", new={"world/data/archives/imagenet_ab.tar.gz.bad"})
    assert "half.tar.gz" in message and "expected sha256" in message and "imagenet_ab.tar.gz.bad" in message


def test_a_wrong_checksum_is_reported_with_the_expected_one(desk: Desk, address: str, tmp_path: Path) -> None:
    right, wrong = tar_gz(n01440764_1__xml=GOOD), tar_gz(n01440764_2__xml=GOOD)
    (tmp_path / "served" / "ab.tar.gz").write_bytes(wrong)
    desk.offer("imagenet_ab", "imagenet_ab", f"{address}/ab.tar.gz", right, bytes=len(wrong))
    message = desk.refusal("fetch", "imagenet_ab", new={"world/data/archives/imagenet_ab.tar.gz.bad"})
    assert hashlib.sha256(right).hexdigest() in message and hashlib.sha256(wrong).hexdigest() in message
    assert f"{address}/ab.tar.gz" in message


def test_a_missing_download_is_named_with_its_address(desk: Desk, address: str) -> None:
    desk.offer("imagenet_ab", "imagenet_ab", f"{address}/gone.tar.gz", b"anything")
    message = desk.refusal("fetch", "imagenet_ab")
    assert f"{address}/gone.tar.gz" in message and "404" in message


def test_a_full_disk_is_reported(desk: Desk) -> None:
    content = os.urandom(300_000)
    (desk.folder / "big.tar.gz").write_bytes(content)
    desk.offer("imagenet_ab", "imagenet_ab", "file:big.tar.gz", content)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    earlier = desk.files()
    done = desk.luab("fetch", "imagenet_ab", before=small)
    assert done.returncode == 1 and "JobError: " in done.stderr
    message = done.stderr.rstrip().split("\n\n")[-1]
    assert "imagenet_ab.tar.gz" in message and "Free some space" in message
    # The received part is kept for resuming; the file itself and its card do not exist.
    assert all(".part" in name for name in desk.files() - earlier)
    done = desk.luab("fetch", "imagenet_ab")
    assert done.returncode == 0, done.stderr
    assert (desk.study.layout.archive_folder() / "imagenet_ab.tar.gz").read_bytes() == content
    assert [name for name in desk.files() if ".part" in name] == []


@pytest.mark.parametrize(
    ("record", "reason"), [(BOMB, "document type"), (b"\x00\x05\x16\x07", "not XML"), (GOOD[:-9], "not XML")]
)
def test_a_hostile_or_broken_record_is_named(desk: Desk, record: bytes, reason: str) -> None:
    desk.index_of(tar_gz(n01440764_1__xml=GOOD, n01440764_2__xml=record))
    message = desk.refusal("index")
    assert (
        "train_xml/n01440764/n01440764_2.xml" in message and reason in message and "Fetch the archive again" in message
    )


def test_a_truncated_archive_is_not_indexed(desk: Desk) -> None:
    records = {f"n01440764_{k}__xml": os.urandom(3).hex().encode().join([GOOD[:12], GOOD[12:]]) for k in range(200)}
    desk.index_of(tar_gz(**records)[:-400])
    message = desk.refusal("index")
    assert "imagenet_ab_v1_0.tar.gz" in message


def test_a_record_without_clicks_is_counted(desk: Desk) -> None:
    desk.index_of(tar_gz(n01440764_1__xml=GOOD, n01440764_2__xml=NO_CLICK))
    done = desk.luab("index")
    assert done.returncode == 0, done.stderr
    card = read_json(desk.study.layout.index().with_suffix(".json"))
    assert card["rows"] == 2 and card["counts"]["selected_without_click"] == 1
    assert desk.luab("targets", "click").returncode == 0
    assert pq.read_table(desk.study.layout.target("click"))["image_id"].to_pylist() == ["n01440764_1"]


def test_a_corrupt_jpeg_is_named_with_its_row(desk: Desk) -> None:
    image = desk.folder / "world/imagenet/train/n01443537/n01443537_3.JPEG"
    image.write_bytes(image.read_bytes()[:200])
    progress_files = {f"results/runs/{CNN.folder}/{name}" for name in ("attempts.jsonl", "progress.json")}
    message = desk.refusal("train", CNN.folder, new=progress_files)
    assert f"{image} (row 13 of the training manifest): expected an image" in message
    assert "Download or copy this file again" in message


def test_a_missing_class_folder_is_reported(desk: Desk) -> None:
    shutil.rmtree(desk.folder / "world/imagenet/train/n01443537")
    message = desk.refusal("train", CNN.folder)
    assert (
        "10 of the 30 images checked are missing, first train/n01443537/" in message
        and "rebuild the manifest" in message
    )
    whole = load_study([desk.folder / "study.yaml"])
    whole = whole.model_copy(update={"paths": whole.paths.model_copy(update={"partial": False})})
    (desk.folder / "study.yaml").write_text(whole.dump(), encoding="utf-8")
    message = desk.refusal("manifest", "imagenet_train")
    assert "998" in message and "n01443537" in message and "set `paths.partial: true`" in message


def save_weights(desk: Desk, backbone: str, run: Run) -> Path:
    """Writes untrained weights of a backbone, with the card of a run, as the weights of CNN."""
    from luab.model import build_model
    from luab.training.checkpoint import save_model

    path = desk.study.layout.run(CNN) / "model.safetensors"
    model = build_model(backbone, desk.study.recipe(CNN.backbone), outputs=2)
    save_model(path, model, {"run": run.identity()})
    return path


def test_a_checkpoint_of_another_model_is_refused(desk: Desk) -> None:
    path = save_weights(desk, "test_efficientnet", CNN)
    message = desk.refusal("predict", CNN.folder, "all")
    assert message.startswith(f"DataError: {path}: a checkpoint of another model") and "train again" in message


def test_a_checkpoint_of_another_run_is_refused(desk: Desk) -> None:
    path = save_weights(desk, CNN.backbone, Run("imagenet", "test_resnet", "click", 1.0, 7))
    message = desk.refusal("predict", CNN.folder, "all")
    assert f"{path}: expected the weights of" in message and "'seed': 7" in message and "train" in message


def test_prediction_without_weights_names_the_missing_step(desk: Desk) -> None:
    message = desk.refusal("predict", CNN.folder, "all")
    assert "model.safetensors: expected trained weights, found no file. Train this run first." in message
