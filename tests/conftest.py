"""Fixtures that several tests share."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from luab.study.config import Study, parse_study
from luab.study.paths import Run

REPOSITORY = Path(__file__).resolve().parents[1]

# If a shell starts pytest in the background, pytest ignores Ctrl-C, and so does every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
TOY_WNIDS = ("n01440764", "n01443537", "n01484850")  # ImageNet index 0, 1, 2


# Two runs of CI test the same examples; `LUAB_KILLS_SEED` does the same for the kills.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

# Folders whose tests share session fixtures that take minutes to make.
_SHARED = ("tests/plugins/slurm/", "tests/workflow/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds the marker `browser` to the tests that open a page."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file, or of a folder with shared fixtures, in one process.

    xdist's own `loadgroup` does not work with pytest 9.2, which no longer lets it rename tests.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((folder for folder in _SHARED if file.startswith(folder)), file)

    return ByFile(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def samples() -> Path:
    """Real JPEGs and records, in a folder next to the checkout, never inside it."""
    folder = REPOSITORY.parent / "shared" / "samples"
    if not folder.is_dir():
        pytest.skip("the real samples exist only next to the maintainers' checkout")
    return folder


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 JPEGs of three plain colours in an ImageNet tree, with manifest and click targets; tests must not change it.

    Two of three images have a click, on a black dot.
    """
    from luab.data.manifests.build_manifest import build_manifest

    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    points = {}
    for label, wnid in enumerate(TOY_WNIDS):
        for k in range(10):
            image_id = f"{wnid}_{k}"
            point = _draw_toy(root / "imagenet" / "train" / wnid / f"{image_id}.JPEG", label, rng)
            if k % 3:
                points[image_id] = point
    manifest = root / "data" / "manifests" / "imagenet_train.parquet"
    build_manifest("imagenet_train", root / "imagenet", manifest, manifest.with_suffix(".json"), partial=True)
    _write_toy_targets(root / "data" / "targets" / "imagenet" / "click.parquet", points)
    times = {name: float(k) for k, name in enumerate(sorted(points))}
    _write_toy_targets(root / "data" / "targets" / "imagenet" / "click_time_ms.parquet", points, "time_ms", times)
    # The pointer comes from the upper left corner.
    traces = {name: np.linspace((0, 0), xy, 32, dtype=np.float32).ravel() for name, xy in points.items()}
    _write_toy_targets(root / "data" / "targets" / "imagenet" / "trace_moments.parquet", points, "moments", traces)
    return root


@pytest.fixture
def toy_study(toy_world: Path, tmp_path: Path) -> Callable[..., Study]:
    """Builds a study of the toy world; `recipe`, `compute` and `paths` override keys; results go to a new folder."""

    def build(backbone: str = "test_resnet", world: Path = toy_world, **overrides: Any) -> Study:
        recipe = {
            "epochs": 2,
            "batch_size": 8,
            "input_px": 32,
            "optimizer": "adamw",
            "lr": 0.003,
            "weight_decay": 0.01,
            "warmup_epochs": 0.5,
        }
        recipe |= {"model_kwargs": {"img_size": 32}} if "vit" in backbone else {}
        return parse_study(
            {
                "backbones": [{"name": backbone, "recipe": "toy", "gpu_images_per_s": 100}],
                "supervisions": overrides.get("supervisions", ["none", "click"]),
                "sweep": {"backbones": [], "supervisions": [], "lambdas": []},
                "seeds": [0],
                "suites": [{"name": "all", "benchmarks": ["imagenet_val"]}],
                "compute": {"device": "cpu", "workers": 0, "threads": 1} | overrides.get("compute", {}),
                "paths": {
                    "data": str(world / "data"),
                    "results": str(tmp_path / "results"),
                    "imagenet": str(world / "imagenet"),
                    "partial": True,
                }
                | overrides.get("paths", {}),
                "recipes": {"toy": recipe | overrides.get("recipe", {})},
            }
        )

    return build


def _draw_toy(file: Path, label: int, rng: np.random.Generator) -> tuple[float, float]:
    from PIL import Image

    width, height = (int(side) for side in rng.integers(40, 56, 2))
    pixels = np.full((height, width, 3), 60, dtype=np.uint8)
    pixels[:, :, label] = 200
    pixels += rng.integers(0, 20, pixels.shape, dtype=np.uint8)
    x, y = int(rng.integers(8, width - 8)), int(rng.integers(8, height - 8))
    pixels[y - 3 : y + 4, x - 3 : x + 4] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)
    return (x + 0.5) / width, (y + 0.5) / height


def _write_toy_targets(
    file: Path, points: dict[str, tuple[float, float]], column: str | None = None, extra: dict[str, Any] | None = None
) -> None:
    from luab.data.supervisions.point_files import write_points
    from luab.study.noises import Point

    about = {"supervision": "click", "notes": {}}
    rows = [Point(name, None, *xy, (extra or {}).get(name)) for name, xy in points.items()]
    write_points(rows, file, file.with_suffix(".json"), about, column)


@dataclass(frozen=True)
class Trained:
    """How the processes of one training ended: exit codes (negative: signal, 124: hung) and messages, by rank."""

    codes: list[int]
    messages: list[str]
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether all processes finished."""
        return not any(self.codes)


class Trainings:
    """Trainings in separate processes, through tests/trainings.py."""

    def __init__(self, server: "subprocess.Popen[str]", log: Path) -> None:
        self.server, self.log = server, log

    def __call__(self, study: Study, run: Run, hurts: tuple[dict[str, Any], ...] = (), **settings: float) -> Trained:
        """Trains a run with the processes of the study; see the server for `hurts` and settings."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            file.write(study.dump())
            file.flush()
            request = {
                "study": file.name,
                "run": dataclasses.astuple(run),
                "processes": study.compute.processes,
                "hurts": hurts,
            }
            assert self.server.stdin is not None and self.server.stdout is not None
            self.server.stdin.write(json.dumps(request | settings) + "\n")
            self.server.stdin.flush()
            line = self.server.stdout.readline()
        assert line, self.log.read_text(encoding="utf-8")
        trained = Trained(**json.loads(line))
        assert 124 not in trained.codes, f"hung: {trained}\n{self.log.read_text(encoding='utf-8')[-3000:]}"
        return trained


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Trains in one or several new processes that tests can kill."""
    log = tmp_path_factory.mktemp("trainings") / "log.txt"
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    with open(log, "w", encoding="utf-8") as errors:
        server = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "tests" / "trainings.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            encoding="utf-8",
            errors="replace",
        )
    try:
        yield Trainings(server, log)
    finally:
        server.kill()
        server.communicate()


class Browser:
    """Headless Chromium with a new profile, driven by selenium; it can open files."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1280, height: int = 900) -> Any:
        """Loads a file in a viewport of this size (below 500 px, a phone's) and clears the logs."""
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(page.resolve().as_uri())
        return self.driver

    def media(self, kind: str = "", **features: str) -> None:
        """Emulates a medium ("print") or features such as prefers_color_scheme="dark"."""
        named = [{"name": key.replace("_", "-"), "value": value} for key, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": named})

    def complaints(self) -> list[str]:
        """Console messages since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """Addresses that the page requested since it was opened, without data: and chrome:."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {url for url in asked if not url.startswith(("data:", "chrome:"))}


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real Chromium; without it the test is skipped, or fails in CI."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        missing = "chromium and chromedriver are not installed (Debian's chromium and chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the report in a browser: {missing}", pytrace=False)
        pytest.skip(missing)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in f"{flags} disable-component-update disable-sync disable-dev-shm-usage".split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
