"""Page bodies and requests that no honest browser sends, two tabs, full disks, files in the wrong place."""

import copy
import csv
import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from luab.annotate.config import load_collection
from luab.annotate.database import Database, check_local, file_system_of
from luab.annotate.desk import Desk
from luab.annotate.exports import export
from luab.errors import ConfigError, DataError, JobError

from .conftest import Participant, Served, browsing_body, tagging_body, write_images

Serve = Callable[..., Served]
Y2100 = 4_102_444_800_000  # epoch ms
Change = Callable[[dict[str, Any]], Any]


def change(path: str, value: Any) -> Change:
    """Sets one value of a body; the path is of keys and places."""

    def act(body: dict[str, Any]) -> None:
        place: Any = body
        *before, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in before:
            place = place[key]
        place[last] = value

    return act


def no_click(body: dict[str, Any]) -> None:
    """Leaves the first image selected, but without a click."""
    body["page"]["annotations"][0].update(selectedCount=0, selectedRecord=[], selectedInputs=[])


FIRST = "page.annotations.0"
BROWSING = {
    "another page": (change("page.pageno", 2), 422, "says page 2"),
    "an image of another page": (change(f"{FIRST}.imageID", "f" * 32), 422, "not about the images"),
    "an image left out": (lambda body: body["page"]["annotations"].pop(), 422, "not about the images"),
    "images in another order": (lambda body: body["page"]["annotations"].reverse(), 422, "not about the images"),
    "a click more": (change(f"{FIRST}.selectedCount", 2), 422, "do not add up"),
    "selected without a click": (no_click, 422, "add up"),
    "a hover more": (change(f"{FIRST}.hoveredCount", 7), 422, "do not add up"),
    "far outside the image": (change(f"{FIRST}.selectedRecord.0.x", 7.5), 422, "less than or equal"),
    "a number as text": (change(f"{FIRST}.selectedRecord.0.x", "0.5"), 422, "valid number"),
    "true as a number": (change(f"{FIRST}.estimateTime", True), 422, "valid integer"),
    "a negative time": (change(f"{FIRST}.estimateTime", -1), 422, "greater than"),
    "the year 2100": (change("endedAt", Y2100), 422, "clock of your device"),
    "a trace in the year 2100": (change(f"{FIRST}.mouseTracking.0.time", Y2100), 422, "clock of your device"),
    "an unknown key": (change("admin", True), 422, "not permitted"),
    "an id that is a path": (change("page.id", "../../etc/passwd"), 422, "pattern"),
    "an object as a list": (change("page.annotations", {}), 422, "valid list"),
    "a list as the body": (lambda body: [], 422, "valid"),
}  # fmt: skip


@pytest.fixture
def page(served: Serve) -> tuple[Served, Participant, dict[str, Any]]:
    """A participant at the first browsing page."""
    here = served(page_limit_mib=0.125)
    participant = Participant(here.url, "browsing")
    return here, participant, participant.begin("Ann")["page"]


def test_forged_bodies_are_refused_and_the_true_one_still_counts(page: Any) -> None:
    here, participant, shown = page
    true = browsing_body(shown)
    for name, (act, status, words) in BROWSING.items():
        body = copy.deepcopy(true)
        body = [] if act(body) == [] else body
        response = participant.put(shown, body)
        assert (response.status_code, words in response.json()["error"]) == (status, True), (name, response.text)
    assert list(here.desk.store.pages("browsing")) == []
    assert participant.put(shown, true).status_code == 200


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "Expected JSON"),
        (b"{", 400, "Expected JSON"),
        (b'{"x": NaN}', 400, "Expected JSON"),
        (b"[" * 100_000, 400, "Expected JSON"),
        (b"\xff\xfe", 400, "Expected JSON"),
        (b'"\xed\xa0\x80"', 422, "not valid"),
        (b" " * 200_000, 413, "0.125 MiB (page_limit_mib)"),
    ],
)
def test_what_is_not_json_or_too_large_is_refused(page: Any, data: bytes, status: int, words: str) -> None:
    _, participant, shown = page
    response = participant.put(shown, data)
    assert (response.status_code, words in response.json()["error"]) == (status, True), response.text


def test_other_types_and_strangers_are_refused(page: Any) -> None:
    here, participant, shown = page
    body = json.dumps(browsing_body(shown)).encode()
    assert participant.put(shown, body, headers={"Content-Type": "text/plain"}).status_code == 415
    assert Participant(here.url, "browsing").put(shown, body).status_code == 401
    other = Participant(here.url, "browsing")
    other.begin("Bob")
    assert other.put(shown, body).status_code == 404  # the assignment is Ann's
    assert participant.put(shown | {"number": 2}, browsing_body(shown | {"number": 2})).status_code in (409, 422)
    forged = requests.Session()
    forged.cookies.set("luab-browsing", "e30=.00", path="/api/browsing")
    assert forged.get(f"{participant.api}/state").json()["stage"] == "login"
    for cookie in ("", ".", "ä.ö", participant.session.cookies["luab-browsing"][:-1] + "0"):
        state = requests.get(
            f"{participant.api}/state", headers={"Cookie": f"luab-browsing={cookie}".encode("latin-1")}
        )
        assert state.status_code == 200 and state.json()["stage"] in ("login", "page")


def test_a_page_again_is_stored_once_and_a_second_tab_is_told(page: Any) -> None:
    here, participant, shown = page
    body = browsing_body(shown)
    assert participant.put(shown, body).json()["page"]["number"] == 2
    assert participant.put(shown, body).json()["page"]["number"] == 2  # the answer was lost: the same again
    tab = participant.put(shown, browsing_body(shown))
    assert tab.status_code == 409 and "another tab" in tab.json()["error"]
    changed = copy.deepcopy(body)
    changed["page"]["annotations"][0]["estimateTime"] = 1
    assert participant.put(shown, changed).status_code == 409  # replayed with another content
    assert len(list(here.desk.store.pages("browsing"))) == 1


def test_the_same_page_id_cannot_serve_two_pages(page: Any) -> None:
    _, participant, shown = page
    body = browsing_body(shown)
    following = participant.put(shown, body).json()["page"]
    second = browsing_body(following)
    second["page"]["id"] = body["page"]["id"]
    assert participant.put(following, second).status_code == 409


def test_pages_out_of_order_are_refused(page: Any) -> None:
    _, participant, shown = page
    later = shown | {"number": 2}
    response = participant.put(later, browsing_body(later))
    assert response.status_code == 422  # the images are not those of page 2
    assert participant.put(shown | {"number": 9}, browsing_body(shown)).status_code == 404
    assert participant.put(shown | {"number": -1}, browsing_body(shown)).status_code == 404


TAGGING = {
    "an unknown icon": (change("page.annotation.actionHistories.0.iconType", "unicorn"), "not valid"),
    "an add without a place": (lambda b: b["page"]["annotation"]["actionHistories"][0].pop("pointTo"), "not valid"),
    "a move of nothing": (lambda b: b["page"]["annotation"]["actionHistories"].pop(0), "do not follow"),
    "two adds": (change("page.annotation.actionHistories.2.iconType", "person"), "do not follow"),
    "a pane of another name": (change("page.annotation.categoryHistories.0.categoryName", "<b>"), "is not"),
    "a pane that does not exist": (change("page.annotation.categoryHistories.0.categoryIndex", 11), "is not"),
    "an hour that lasts years": (change("page.annotation.timeSpend", 10**12), "exceed"),
}  # fmt: skip


def test_forged_tags_are_refused(served: Serve) -> None:
    here = served()
    participant = Participant(here.url, "tagging")
    shown = participant.begin("Ann")["page"]
    for name, (act, words) in TAGGING.items():
        body = tagging_body(shown)
        act(body)
        response = participant.put(shown, body)
        assert (response.status_code, words in response.json()["error"]) == (422, True), (name, response.text)


FILES = (
    "/image/../../etc/passwd", "/image/%2e%2e%2fannotate.yaml", "/static/../server.py", "/static/%2e%2e/server.py",
    "/image/photos/cat/cat_0.jpg", "/collection.sqlite", "/annotate.yaml", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize("path", FILES)
def test_no_other_file_is_served(served: Serve, path: str) -> None:
    here = served()
    request = requests.Request("GET", here.url).prepare()
    request.url = here.url + path  # requests would tidy the path up
    assert requests.Session().send(request).status_code == 404


def test_the_administrator_needs_the_token_and_nothing_leaves_headers_out(served: Serve) -> None:
    here = served()
    assert requests.get(f"{here.url}/api/admin/progress").status_code == 401
    assert (
        requests.get(
            f"{here.url}/api/admin/progress", headers={"Authorization": "Bearer ä".encode("latin-1")}
        ).status_code
        == 401
    )
    assert here.admin("progress").json()["interfaces"]["browsing"]["images"] == 12
    for path in ("/browsing", "/admin", "/static/worker.js", "/nothing", "/api/browsing/state"):
        headers = requests.get(here.url + path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    for secret in (here.desk.keys.admin, "secrets.json"):
        for name in ("browsing", "admin", "static/worker.js", "static/admin.js"):
            assert secret not in requests.get(f"{here.url}/{name}").text


def test_no_page_requests_anything_from_elsewhere() -> None:
    static = Path(__file__).parents[2] / "luab" / "annotate" / "static"
    for file in static.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text and "eval(" not in text, (
            file
        )
        assert "style=" not in text and "onclick=" not in text, file


def test_a_full_disk_is_told_and_the_page_can_be_sent_later(page: Any) -> None:
    here, participant, shown = page
    writer = here.desk.store.database._writer
    used = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {used}")
    body = browsing_body(shown)
    for one in body["page"]["annotations"]:
        one["mouseTracking"] *= 200
    response = participant.put(shown, body)
    assert response.status_code == 507 and "Your page is kept" in response.json()["error"]
    assert list(here.desk.store.pages("browsing")) == []
    writer.execute("PRAGMA max_page_count = 1000000")
    assert participant.put(shown, body).status_code == 200


def test_formulas_in_file_names_are_text_in_the_csv(served: Serve, tmp_path: Path) -> None:
    write_images(tmp_path, per_class=1)
    evil = tmp_path / "photos" / "=cmd|calc"
    (tmp_path / "photos" / "cat").rename(evil)
    (evil / "cat_0.jpg").rename(evil / "<b>&.jpg")
    here = served(per_class=0)
    participant = Participant(here.url, "browsing")
    state = participant.begin("@SUM(1)")
    while state["stage"] == "page":
        state = participant.put(state["page"], browsing_body(state["page"])).json()
    export(here.desk, "points_csv", tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()))
    assert "'=cmd|calc" in {row["class"] for row in rows} and "'=cmd|calc/<b>&.jpg" in {row["image"] for row in rows}
    export(here.desk, "imagenet_ab", tmp_path / "ab.tar.gz")  # well-formed XML whatever the names
    from luab.byproducts import imagenet_ab

    card = imagenet_ab.index(
        tmp_path / "ab.tar.gz", tmp_path / "i.parquet", tmp_path / "i.json", processes=1, any_names=True
    )
    assert card["counts"]["records"] == len(rows)


MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /home rw - nfs4 server:/home rw
23 22 8:2 / /home/ann/local\\040disk rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"), [("/a/b", "ext4"), ("/home/ann/x", "nfs4"), ("/home/ann/local disk/x", "xfs"), ("/homes", "ext4")]
)
def test_the_file_system_is_that_of_the_deepest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luab.annotate.database.file_system_of", lambda path, mounts: "nfs4")
    with pytest.raises(DataError, match=r"network file system \(nfs4\).*local disk"):
        check_local(tmp_path / "collection.sqlite")


def test_files_are_private_and_a_second_server_is_refused(tmp_path: Path, collection: Callable[..., Path]) -> None:
    desk = Desk.of(load_collection(collection()))
    for name in ("collection.sqlite", "collection.secrets.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with pytest.raises(JobError, match="another server already uses"):
        Desk.of(load_collection(tmp_path / "annotate.yaml"))
    desk.close()
    (tmp_path / "collection.secrets.json").unlink()
    with pytest.raises(DataError, match="ids of workers would change"):
        Desk.of(load_collection(tmp_path / "annotate.yaml"))


def test_a_file_that_is_no_collection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"something else, long enough to be read as a header" * 30)
    with pytest.raises(DataError, match="expected a collection of luab annotate"):
        Database(tmp_path / "a.sqlite")
    other = sqlite3.connect(tmp_path / "b.sqlite")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(DataError, match="format 1, found 0"):
        Database(tmp_path / "b.sqlite")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"browsing": {"images": "photos", "pagse": 3}}, "browsing.pagse: unknown key. Did you mean pages"),
        ({"titel": "x"}, "titel: unknown key. Did you mean title"),
        ({"browsing": None, "tagging": None}, "expected a section `browsing` or `tagging`"),
        ({"browsing": {"pages": 0}}, "browsing.images: this required key is missing"),
        ({"completion_url": "javascript:alert(1)"}, "https://"),
        ({"browsing": {"images": "photos", "classes": {"cat": {"links": ["javascript:alert(1)"]}}}}, "https://"),
        ({"browsing": {"images": "photos", "images_per_page": 3, "gold_per_page": 3}}, "must exceed"),
        ({"tagging": {"images": "scenes", "icons": [{"name": "a", "pane": "p"}, {"name": "a", "pane": "q"}]}}, "twice"),
    ],
)
def test_mistakes_in_the_configuration_are_named(collection: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_collection(collection(**changes))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("nowhere.jpg,cat,", "is not an image"),
        ("cat/cat_0.jpg,a/b,", "is not a class"),
        ("cat/cat_0.jpg,cat,maybe", "expected yes, no or nothing"),
    ],
)
def test_mistakes_in_the_list_of_images_are_named(collection: Any, tmp_path: Path, rows: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(f"image,class,gold\n{rows}\n", encoding="utf-8")
    file = collection(browsing={"images": "photos", "image_list": "list.csv"})
    with pytest.raises(DataError, match=words):
        Desk.of(load_collection(file))
