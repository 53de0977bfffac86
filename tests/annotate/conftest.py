"""Fixtures of the collection tool: small image folders, a running server, participants that speak HTTP."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
import yaml
from PIL import Image

from luab.annotate.config import load_collection
from luab.annotate.desk import Desk
from luab.annotate.server import application

REPOSITORY = Path(__file__).resolve().parents[2]
COCO = "COCO_train2014_{:012d}.jpg"


def write_images(folder: Path, per_class: int = 6) -> None:
    """Images of two classes, 500x375 and 375x500, and four scenes of 640x428 with COCO's numbers."""
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        for k in range(per_class):
            size = (500, 375) if k % 2 == 0 else (375, 500)
            Image.new("RGB", size, (40 * k % 255, 90, 120)).save(folder / "photos" / label / f"{label}_{k}.jpg")
    (folder / "scenes").mkdir(exist_ok=True)
    for k in range(4):
        Image.new("RGB", (640, 428), (90, 40 * k, 120)).save(folder / "scenes" / COCO.format(9 + k))


def configuration(folder: Path, **changes: Any) -> Path:
    """Writes a configuration of both interfaces; `changes` replace its keys."""
    content: dict[str, Any] = {
        "title": "Pets",
        "browsing": {"images": "photos", "images_per_page": 3, "pages": 2},
        "tagging": {"images": "scenes", "pages": 2},
    }
    file = folder / "annotate.yaml"
    file.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return file


class Served:
    """A collection that is being served."""

    def __init__(self, desk: Desk, url: str) -> None:
        self.desk, self.url = desk, url

    def admin(self, what: str) -> Any:
        """Answer to the administrator."""
        return requests.get(f"{self.url}/api/admin/{what}", headers={"Authorization": f"Bearer {self.desk.keys.admin}"})


class Participant:
    """One browser: cookies, and the requests of the page."""

    def __init__(self, url: str, interface: str) -> None:
        self.session, self.api = requests.Session(), f"{url}/api/{interface}"

    def post(self, what: str, **content: Any) -> dict[str, Any]:
        """Sends JSON, returns the answer."""
        return self.session.post(f"{self.api}/{what}", json=content).json()

    def begin(self, name: str) -> dict[str, Any]:
        """Logs in and consents; returns the first page."""
        state = self.post("login", name=name)
        if state["stage"] == "consent":
            state = self.post("consent", version=state["version"])
        return state

    def put(self, page: dict[str, Any], body: Any, **options: Any) -> requests.Response:
        """Sends a page."""
        url = f"{self.api}/assignments/{page['assignment']}/pages/{page['number']}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        return self.session.put(url, data=data, headers=headers, **options)


def tile(image_id: str, at: int, selected: bool = True) -> dict[str, Any]:
    """What the browser sends about one image of 500x375 that was entered, crossed and clicked."""
    return {
        "imageID": image_id,
        "selected": selected,
        "selectedCount": int(selected),
        "selectedRecord": [{"x": 0.5, "y": 0.25, "time": at + 300}] if selected else [],
        "hoveredCount": 1,
        "hoveredRecord": [{"action": "enter", "time": at}],
        "mouseTracking": [{"x": 1, "y": 0, "time": at}, {"x": 0.75, "y": 0.125, "time": at + 100}],
        "estimateTime": 300 if selected else 0,
        "imagePosition": {"x": 108, "y": 250},
        "imageWidth": 324,
        "imageHeight": 243,
        "originalImageWidth": 500,
        "originalImageHeight": 375,
        "selectedInputs": ["mouse"] if selected else [],
        "loadFailed": False,
    }


def browsing_body(page: dict[str, Any], selected: Callable[[int], bool] = lambda k: True) -> dict[str, Any]:
    """The record of a browsing page."""
    at = int(time.time() * 1000) - 60_000
    annotations = [tile(one["id"], at + 1000 * k, selected(k)) for k, one in enumerate(page["images"])]
    about = {"id": str(uuid.uuid4()), "pageno": page["number"], "startedAt": at, "endedAt": at + 30_000}
    done = page["number"] == page["pages"]
    return {"page": about | {"annotations": annotations}, "endedAt": at + 30_000, "isDone": done}


def tagging_body(page: dict[str, Any], icon: str = "person") -> dict[str, Any]:
    """The record of a tagging page: one icon added and moved, another added and removed."""
    at = int(time.time() * 1000) - 60_000
    here, there = {"x": 0.5, "y": 0.25}, {"x": 0.75, "y": 0.5}
    annotation = {
        "imageURL": page["images"][0]["id"],
        "imageWidth": 673,
        "imageHeight": 450,
        "originalImageWidth": 640,
        "originalImageHeight": 428,
        "timeSpend": 20_000,
        "actionHistories": [
            {"actionType": "add", "iconType": icon, "pointTo": here, "timeAt": 4000},
            {"actionType": "move", "iconType": icon, "pointFrom": here, "pointTo": there, "timeAt": 5000},
            {"actionType": "add", "iconType": "dog", "pointTo": here, "timeAt": 6000},
            {"actionType": "remove", "iconType": "dog", "pointFrom": here, "timeAt": 7000},
        ],
        "categoryHistories": [
            {"categoryIndex": 1, "categoryName": "Animal", "usingKeyboard": True, "timeAt": 5500},
        ],
        "mouseTracking": [{"x": 0.1, "y": 0.2, "timeAt": 1000}],
        "actionInputs": ["mouse", "mouse", "touch", "keyboard"],
        "dragTracking": [{"x": 0.3, "y": 0.3, "timeAt": 3900}],
        "loadFailed": False,
    }
    about = {"id": str(uuid.uuid4()), "pageno": page["number"], "startedAt": at, "annotation": annotation}
    return {"page": about, "endedAt": at + 20_000, "isDone": page["number"] == page["pages"]}


@pytest.fixture
def collection(tmp_path: Path) -> Callable[..., Path]:
    """Writes images and a configuration."""

    def build(per_class: int = 6, **changes: Any) -> Path:
        write_images(tmp_path, per_class)
        return configuration(tmp_path, **changes)

    return build


@pytest.fixture
def served(collection: Callable[..., Path]) -> Iterator[Callable[..., Served]]:
    """Serves a collection on a free port until the test ends."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(file: Path | None = None, **changes: Any) -> Served:
        desk = Desk.of(load_collection(file or collection(**changes)))
        server = uvicorn.Server(uvicorn.Config(application(desk), "127.0.0.1", 0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Served(desk, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
