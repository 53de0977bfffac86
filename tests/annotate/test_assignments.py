"""What participants are asked to do, when it stops, and what the quality report says about how they did it."""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luab.annotate.assignments import draw_browsing, draw_tagging
from luab.annotate.commands import serve_collection
from luab.annotate.config import Browsing, Tagging
from luab.annotate.pool import Pair, Pool
from luab.annotate.quality import quality_report
from luab.errors import JobError

from .conftest import Participant, Served, browsing_body, tagging_body

Serve = Callable[..., Served]
POOL = Pool(Path(), {label: [f"{label}/{k}" for k in range(10)] for label in "abc"}, {"a": ["a/0", "a/1"]})


def draw(taken: Counter[Pair] | None = None, seen: set[Pair] | None = None, **settings: Any) -> list[list[Any]]:
    """Pages of the pool above."""
    section = Browsing.model_validate({"images": "x"} | settings)
    return draw_browsing(section, POOL, taken or Counter(), seen or set(), random.Random(0))


def test_a_page_has_candidates_known_ones_and_distractors_of_one_class() -> None:
    pages = draw(images_per_page=6, pages=3, gold_per_page=1, distractors_per_page=2)
    assert {page[0].label for page in pages} == set("abc")
    for page in pages:
        (label,) = {slot.label for slot in page}
        roles = Counter(slot.role for slot in page)
        assert roles["distractor"] == 2 and roles["gold"] == (1 if label == "a" else 0) and roles["candidate"] == 3
        assert all((slot.image[0] == label) == (slot.role != "distractor") for slot in page)


def test_images_that_were_seen_least_come_first_and_those_seen_enough_never() -> None:
    taken = Counter({Pair(f"b/{k}", "b"): min(k, 2) for k in range(10)})
    pages = draw(taken, images_per_page=2, pages=3, annotators_per_image=2)
    shown = [slot.image for page in pages for slot in page if slot.label == "b"]
    assert shown == [] or set(shown) <= {"b/0", "b/1"}
    everything = draw(taken, images_per_page=50, pages=50, annotators_per_image=2)
    drawn = {slot.image for page in everything for slot in page}
    assert {image for image in drawn if image[0] == "b"} == {"b/0", "b/1"}
    assert not drawn & {"a/0", "a/1"}  # known ones are not candidates


def test_nobody_sees_an_image_twice() -> None:
    seen = {Pair(f"c/{k}", "c") for k in range(9)}
    drawn = {slot.image for page in draw(seen=seen, images_per_page=50, pages=50) for slot in page}
    assert {image for image in drawn if image[0] == "c"} == {"c/9"}


def test_tagging_mixes_in_known_images_but_does_not_begin_with_them_alone() -> None:
    pool = Pool(Path(), {"": ["1", "2", "3", "4"]}, {"1": ["cat"]})
    section = Tagging.model_validate({"images": "x", "pages": 3, "gold_per_assignment": 1})
    pages = draw_tagging(section, pool, Counter(), set(), random.Random(0))
    assert Counter(page[0].role for page in pages) == {"candidate": 2, "gold": 1}
    everything = {Pair(image, "") for image in "234"}
    assert draw_tagging(section, pool, Counter(), everything, random.Random(0)) == []


def test_images_of_abandoned_assignments_are_given_out_again(served: Serve) -> None:
    here = served(abandoned_h=1)
    for name in ("a", "b"):
        Participant(here.url, "browsing").begin(name)
    assert Participant(here.url, "browsing").begin("c")["stage"] == "exhausted"
    with here.desk.store.database.write() as db:
        db.execute("UPDATE assignment SET begun_s = ?", [time.time() - 7200])
    here.desk.store.given_out.clear()
    assert Participant(here.url, "browsing").begin("c")["stage"] == "page"


def test_the_collection_stops_after_so_many_pages(served: Serve) -> None:
    here = served(stop_after_pages=1)
    participant = Participant(here.url, "browsing")
    page = participant.begin("Ann")["page"]
    assert participant.put(page, browsing_body(page)).json()["stage"] == "page"  # what was begun is finished
    assert Participant(here.url, "browsing").begin("Bob")["stage"] == "exhausted"


def test_more_assignments_only_if_allowed_and_wanted(served: Serve) -> None:
    here = served(assignments_per_worker=2, completion_code="FIXED1", completion_url="https://example.org/?cc={code}")
    participant = Participant(here.url, "browsing")
    state = participant.begin("Ann")
    for finished in (1, 2):
        while state["stage"] == "page":
            state = participant.put(state["page"], browsing_body(state["page"])).json()
        assert (state["code"], state["url"], state["another"]) == (
            "FIXED1",
            "https://example.org/?cc=FIXED1",
            finished == 1,
        )
        state = participant.post("another")
    assert state["stage"] == "done"


def test_the_version_in_the_link_counts_only_if_the_collection_has_it(served: Serve) -> None:
    versions = ["POINTER_ORIGINAL", "POINTER_NO_ORIGINAL"]
    here = served(browsing={"images": "photos", "images_per_page": 1, "pages": 1, "versions": versions})
    for name, asked, got in (("a", "POINTER_ORIGINAL", versions[:1]), ("b", "NO_POINTER_ORIGINAL", versions)):
        participant = Participant(here.url, "browsing")
        state = participant.post("login", parameters={"workerId": name, "version": asked})
        assert participant.post("consent", version=state["version"])["page"]["version"] in got


def test_a_new_version_of_the_consent_is_asked_for(served: Serve) -> None:
    here = served()
    participant = Participant(here.url, "browsing")
    participant.begin("Ann")
    consent = here.desk.collection.consent.model_copy(update={"version": "2", "text": ["new"]})
    here.desk.collection = here.desk.collection.model_copy(update={"consent": consent})
    assert participant.session.get(f"{participant.api}/state").json()["text"] == ["new"]
    refused = participant.session.post(f"{participant.api}/consent", json={"version": "1"})
    assert refused.status_code == 409
    assert participant.post("consent", version="2")["stage"] == "page"


def test_typed_names_can_be_forbidden(served: Serve) -> None:
    here = served(login={"local_names": False, "worker": ["who"]})
    participant = Participant(here.url, "browsing")
    assert "error" in participant.post("login", name="Ann")
    assert participant.post("login", parameters={"who": "7"})["stage"] == "consent"


def test_the_quality_report_names_what_is_unusual_and_excludes_nobody(served: Serve, tmp_path: Path) -> None:
    lines = ["image,class,gold", *(f"cat/cat_{k}.jpg,cat,{'yes' if k < 2 else ''}" for k in range(6))]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    browsing = {"images": "photos", "image_list": "list.csv", "images_per_page": 6, "pages": 1, "gold_per_page": 2}
    here = served(browsing=browsing | {"annotators_per_image": 2})
    for name, careful in (("careful", True), ("careless", False)):
        participant = Participant(here.url, "browsing")
        page = participant.begin(name)["page"]
        body = browsing_body(page, selected=lambda k, careful=careful: careful)  # type: ignore[misc]
        if not careful:
            body["endedAt"] = body["page"]["endedAt"] = body["page"]["startedAt"] + 500
        assert participant.put(page, body).status_code == 200
    tagger = Participant(here.url, "tagging")
    page = tagger.begin("tagger")["page"]
    tagger.put(page, tagging_body(page))
    rows = {row["worker"]: row for row in quality_report(here.desk)}
    careful_row, careless_row = (rows[here.desk.keys.worker(f"name\0{name}")] for name in ("careful", "careless"))
    assert (careful_row["gold_recall"], careless_row["gold_recall"], careless_row["gold"]) == (1.0, 0.0, 2)
    assert careless_row["look_at"] == ["found 0% of 2 known objects", "100% of the pages were very fast"]
    assert careful_row["ms_per_image"] == 5000 and careful_row["estimate_ms"] == 300
    assert len(rows) == 3


def test_a_missing_package_says_what_to_install(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:

    for name in [name for name in sys.modules if name.split(".")[0] == "starlette" or name == "luab.annotate.server"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(JobError, match=r"needs the package starlette.*make setup"):
        serve_collection(collection(), "127.0.0.1", 8000)
