"""From login to completion code over HTTP, and what is stored and exported afterwards."""

import csv
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import requests
from lxml import etree

from luab.annotate.exports import POINTS, export, export_all
from luab.byproducts import coco_ab, imagenet_ab

from .conftest import Participant, Served, browsing_body, tagging_body

Serve = Callable[..., Served]


def annotate(served: Served, interface: str, name: str) -> dict[str, Any]:
    """Does a whole assignment; returns the last state."""
    body = browsing_body if interface == "browsing" else tagging_body
    participant = Participant(served.url, interface)
    state = participant.begin(name)
    while state["stage"] == "page":
        response = participant.put(state["page"], body(state["page"]))
        assert response.status_code == 200, response.text
        state = response.json()
    return state


def test_a_browsing_assignment_from_login_to_code(served: Serve) -> None:
    here = served()
    participant = Participant(here.url, "browsing")
    assert participant.session.get(f"{participant.api}/state").json()["stage"] == "login"
    state = participant.post("login", name="Ann")
    assert state["stage"] == "consent"
    assert here.desk.store.assignments() == []  # nothing is recorded before the consent
    state = participant.post("consent", version="1")
    page = state["page"]
    assert (page["number"], page["pages"], len(page["images"])) == (1, 2, 3)
    assert page["class"]["names"] in (["cat"], ["dog"])
    assert requests.get(here.url + page["images"][0]["url"]).headers["content-type"] == "image/jpeg"
    assert "cat" not in json.dumps(page["images"]) and "dog" not in json.dumps(page["images"])
    state = participant.put(page, browsing_body(page)).json()
    assert state["page"]["number"] == 2
    state = participant.put(state["page"], browsing_body(state["page"])).json()
    assert state["stage"] == "done" and len(state["code"]) == 8 and not state["another"]
    again = Participant(here.url, "browsing")  # another browser: the same code
    assert again.begin("Ann")["code"] == state["code"]


def test_a_worker_resumes_at_the_first_page_that_is_not_stored(served: Serve) -> None:
    here = served()
    first = Participant(here.url, "browsing")
    page = first.begin("Ann")["page"]
    first.put(page, browsing_body(page))
    second = Participant(here.url, "browsing").begin("Ann")["page"]
    assert (second["assignment"], second["number"]) == (page["assignment"], 2)


def test_platform_parameters_log_in_and_are_stored_as_hashes_only(served: Serve) -> None:
    here = served()
    participant = Participant(here.url, "browsing")
    parameters = {"PROLIFIC_PID": "5f0c-secret", "SESSION_ID": "sess-secret", "STUDY_ID": "study-secret"}
    state = participant.post("login", parameters=parameters)
    state = participant.post("consent", version=state["version"])
    participant.put(state["page"], browsing_body(state["page"]))
    (assignment,) = here.desk.store.assignments()
    assert len(assignment.worker) == 10 and assignment.worker == assignment.worker.upper()
    assert len(assignment.assignment_ref) == len(assignment.hit_ref) == 30
    here.desk.store.database.forget()
    for file in here.desk.store.database.file.parent.glob("collection.*"):
        assert (
            b'secret"' not in file.read_bytes()
            and b"5f0c" not in file.read_bytes()
            and b"127.0.0.1" not in file.read_bytes()
        )
    assert here.admin("worker?name=5f0c-secret").json()["platform"] == assignment.worker


def test_each_image_is_given_out_as_often_as_wanted(served: Serve) -> None:
    here = served()  # 12 images, each for one person, 6 images per assignment
    codes = {annotate(here, "browsing", name)["stage"] for name in ("a", "b")}
    assert codes == {"done"}
    assert Participant(here.url, "browsing").begin("c")["stage"] == "exhausted"
    shown = [slot.image for page in here.desk.store.pages("browsing") for slot in page.slots]
    assert len(shown) == len(set(shown)) == 12


def test_withdrawing_deletes_everything_and_counts(served: Serve) -> None:
    here = served()
    annotate(here, "browsing", "Ann")
    participant = Participant(here.url, "browsing")
    participant.begin("Ann")
    worker = here.desk.store.assignments()[0].worker
    assert participant.post("withdraw") == {"pages": 2}
    assert here.desk.store.assignments() == [] and list(here.desk.store.pages("browsing")) == []
    assert here.desk.store.event_counts()["withdrawn_pages"] == 2
    for file in here.desk.store.database.file.parent.glob("collection.sqlite*"):
        assert worker.encode() not in file.read_bytes()
    assert participant.session.get(f"{participant.api}/state").json()["stage"] == "login"
    annotate(here, "browsing", "Bob")  # the images are given out again
    annotate(here, "browsing", "Cleo")


def test_imagenet_ab_is_read_back_by_the_index_and_as_the_official_loader_does(served: Serve, tmp_path: Path) -> None:
    here = served(browsing={"images": "photos", "images_per_page": 3, "pages": 2, "annotators_per_image": 2})
    for name in ("Ann", "Bob", "Cleo", "Dan"):
        annotate(here, "browsing", name)
    file = tmp_path / "out" / "imagenet_ab.tar.gz"
    counts = export(here.desk, "imagenet_ab", file)
    assert counts["records"] == 12 and counts["annotations"] == 24
    card = imagenet_ab.index(file, tmp_path / "index.parquet", tmp_path / "index.json", processes=1, any_names=True)
    assert card["counts"]["records"] == 12
    rows = imagenet_ab.read_index(tmp_path / "index.parquet").to_pylist()
    assert {row["annotators"] for row in rows} == {2} and {row["wnid"] for row in rows} == {"cat", "dog"}
    row = rows[0]
    assert row["click_xy"] == [[[0.5, 0.25]]] * 2 and row["estimate_time_ms"] == [300, 300]
    assert (row["width"], row["height"], row["displayed_width"]) == (500, 375, [324, 324])
    with tarfile.open(file) as tar:
        names = tar.getnames()
        root = etree.fromstring(tar.extractfile(names[0]).read())  # type: ignore[union-attr]
    assert names[0].startswith("train_xml/cat/cat_")
    # the official notebook: the first selectedRecord of every metadata with selected True, then their mean
    points = [
        [float(one.find("selectedRecord/x").text), float(one.find("selectedRecord/y").text)]
        for one in root.iter("metadata")
        if one.find("selected").text == "True"
    ]
    assert points == [[0.5, 0.25]] * 2
    tags = [child.tag for child in root.find("metadata")]
    assert list(dict.fromkeys(tags)) == sorted(set(tags))


def test_an_unselected_image_has_none_in_its_empty_lists(served: Serve, tmp_path: Path) -> None:
    here = served()
    participant = Participant(here.url, "browsing")
    page = participant.begin("Ann")["page"]
    participant.put(page, browsing_body(page, selected=lambda k: False))
    export(here.desk, "imagenet_ab", tmp_path / "ab.tar.gz")
    with tarfile.open(tmp_path / "ab.tar.gz") as tar:
        text = tar.extractfile(tar.getnames()[0]).read().decode()  # type: ignore[union-attr]
    assert "<selectedRecord>None</selectedRecord>" in text and "<selected>False</selected>" in text


def test_faithful_exports_copy_the_height(served: Serve, tmp_path: Path) -> None:
    here = served(faithful=True)
    annotate(here, "tagging", "Ann")
    export(here.desk, "coco_ab", tmp_path / "ab.json")
    assert json.loads((tmp_path / "ab.json").read_text(encoding="utf-8"))[0]["imageWidth"] == 450


def test_coco_ab_is_read_back_by_the_index_and_as_the_official_loader_does(served: Serve, tmp_path: Path) -> None:
    here = served()
    annotate(here, "tagging", "Ann")
    annotate(here, "tagging", "Bob")
    file = tmp_path / "coco_ab.json"
    assert export(here.desk, "coco_ab", file)["records"] == 4
    card = coco_ab.index(file, tmp_path / "coco.parquet", tmp_path / "coco.json")
    assert card["counts"]["records"] == 4
    rows = coco_ab.read_index(tmp_path / "coco.parquet").to_pylist()
    assert {row["image_id"] for row in rows} == {9, 10, 11, 12}
    assert rows[0]["action_type"] == ["add", "move", "add", "remove"] and rows[0]["time_spent_ms"] == 20_000
    assert (rows[0]["displayed_width"], rows[0]["page_id"]) == (673, 0)
    records = {record["image_id"]: record for record in json.loads(file.read_text(encoding="utf-8"))}
    added = {a["iconType"]: a["pointTo"] for a in records[9]["actionHistories"] if a["actionType"] == "add"}
    assert added == {"person": {"x": 0.5, "y": 0.25}, "dog": {"x": 0.5, "y": 0.25}}
    assert set(records[9]) == {
        "image_id", "originalImageHeight", "originalImageWidth", "imageHeight", "imageWidth", "timeSpent",
        "actionHistories", "categoryHistories", "mouseTracking", "worker_id", "hit_id", "page_id",
    }  # fmt: skip


def test_points_have_the_columns_that_trainings_on_folders_read(served: Serve, tmp_path: Path) -> None:
    here = served()
    annotate(here, "browsing", "Ann")
    annotate(here, "tagging", "Ann")
    files = export_all(here.desk, tmp_path / "out")
    assert {file.name for file in files} >= {"imagenet_ab.tar.gz", "coco_ab.json", "points.csv", "quality.json"}
    table = pq.read_table(tmp_path / "out" / "points.parquet")
    assert table.schema.equals(POINTS) and len(table) == 6 + 2
    rows = list(csv.DictReader((tmp_path / "out" / "points.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["image", "x", "y", "time_ms", "worker", "class"]
    clicks = [row for row in rows if row["class"] in ("cat", "dog")]
    assert {(row["x"], row["y"], row["time_ms"]) for row in clicks} == {("0.5", "0.25", "300")}
    icons = [row for row in rows if row["class"] == "person"]
    assert {(row["x"], row["y"], row["time_ms"]) for row in icons} == {("0.75", "0.5", "5000")}  # the last place
    worker = rows[0]["worker"]
    export(here.desk, "points_csv", tmp_path / "less.csv", without=[worker])
    assert len((tmp_path / "less.csv").read_text(encoding="utf-8").splitlines()) == 1
    card = json.loads((tmp_path / "less.csv.card.json").read_text(encoding="utf-8"))
    assert card["excluded_workers"] == [worker] and card["counts"]["pages_of_excluded_workers"] == 4
