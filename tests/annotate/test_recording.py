"""Chromium drives both interfaces over a scripted path of the pointer; the record equals the one worked by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Served
from .pointing import EPOCH, Hand

Serve = Callable[..., Served]


@pytest.fixture
def hand(browser: Any) -> Iterator[Hand]:
    """A pointer in Chromium."""
    one = Hand(browser.driver)
    browser.driver.get_log("browser")
    yield one
    one.thaw()
    browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.driver.get("about:blank")


def stored(here: Served, interface: Any) -> dict[str, Any]:
    """The only stored page."""
    (page,) = here.desk.store.pages(interface)
    return page.body


def one_image(here: Serve, **changes: Any) -> Served:
    """A collection with one image of 500x375 and one page; served."""
    return here(per_class=1, browsing={"images": "photos", "images_per_page": 1, "pages": 1}, **changes)


def follow_the_script(hand: Hand) -> tuple[float, float]:
    """Crosses, clicks, moves while selected, clicks again, leaves, returns, clicks, leaves, returns and stays."""
    left, top = hand.corner(".tile img")
    outside = (left - 30, top + 100)
    hand.move(*outside, 900)
    hand.move(left + 10, top + 20, 1000)  # enter, first sample
    hand.move(left + 20, top + 20, 1010)  # within 1000/60 ms: dropped
    hand.move(left + 81, top + 81, 1017)  # sample
    hand.move(left + 162, top + 81, 1090)  # sample
    hand.click(left + 162, top + 81, 1100)  # selected
    hand.move(left + 170, top + 90, 1150)  # while selected: dropped
    hand.click(left + 170, top + 90, 1200)  # deselected: no record
    hand.move(left + 200, top + 100, 1205)  # the gate was reset: sample
    hand.move(*outside, 1300)  # leave
    hand.move(left + 100, top + 0, 1500)  # enter, sample; the second interval begins at the enter
    hand.click(left + 100, top + 0, 1550)  # selected for good
    hand.move(*outside, 1600)  # leave
    hand.move(left + 5, top + 5, 1700)  # enter that stays open
    hand.at(2000)
    return left, top


@pytest.mark.parametrize("faithful", [False, True])
def test_a_browsing_record_equals_the_hand_worked_one(served: Serve, hand: Hand, faithful: bool) -> None:
    here = one_image(served, faithful=faithful)
    hand.freeze()
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    left, top = follow_the_script(hand)
    scroll = hand.driver.execute_script("return window.scrollY")
    hand.press(".submit")
    hand.one("#code")
    body = stored(here, "browsing")

    def sample(x: int, y: int, at: int) -> dict[str, Any]:
        return {"x": x / 324, "y": y / 243, "time": EPOCH + at}

    record = body["page"]["annotations"][0]
    expected = {
        "imageID": record["imageID"],
        "selected": True,
        "selectedCount": 2,
        "selectedRecord": [sample(162, 81, 1100), sample(100, 0, 1550)],
        "hoveredCount": 3,
        "hoveredRecord": [
            {"action": action, "time": EPOCH + at}
            for action, at in (("enter", 1000), ("leave", 1300), ("enter", 1500), ("leave", 1600), ("enter", 1700))
        ],
        "mouseTracking": [
            sample(10, 20, 1000), sample(81, 81, 1017), sample(162, 81, 1090), sample(200, 100, 1205),
            sample(100, 0, 1500),
        ],
        # 1000-1100 (first move to click), 1200-1300 (deselected inside to leave), 1500-1550 (enter to click)
        "estimateTime": 100 + 100 + 50,
        "imagePosition": {"x": round(left), "y": round(top + scroll)},
        "imageWidth": 324,
        "imageHeight": 243,
        "originalImageWidth": 500,
        "originalImageHeight": 375,
    }  # fmt: skip
    if not faithful:
        expected |= {"selectedInputs": ["mouse", "mouse"], "loadFailed": False}
    assert record == expected
    assert body["isDone"] is True and body["endedAt"] == body["page"]["endedAt"] == EPOCH + 2000
    assert body["page"]["startedAt"] == EPOCH
    assert set(body["page"]) == {"id", "pageno", "startedAt", "endedAt", "annotations"} | (
        {"clock"} - ({"clock"} if faithful else set())
    )
    assert hand.complaints() == []


@pytest.mark.parametrize(("faithful", "size"), [(False, (255, 340)), (True, (324, 340))])
def test_portraits_keep_their_aspect_unless_faithful(served: Serve, hand: Hand, faithful: bool, size: Any) -> None:
    here = served(per_class=2, browsing={"images": "photos", "images_per_page": 2, "pages": 1}, faithful=faithful)
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    hand.press(".submit")
    hand.one("#code")
    records = stored(here, "browsing")["page"]["annotations"]
    shown = {(one["originalImageWidth"], one["imageWidth"], one["imageHeight"]) for one in records}
    assert shown == {(500, 324, 243), (375, *size)}
    assert all(one["hoveredRecord"] == one["mouseTracking"] == one["selectedRecord"] == [] for one in records)


def test_keyboard_and_touch_are_recorded_as_such(served: Serve, hand: Hand) -> None:
    here = served(per_class=2, browsing={"images": "photos", "images_per_page": 2, "pages": 1})
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    hand.driver.execute_script("document.querySelectorAll('.tile')[0].focus()")
    hand.key(" ", 32)
    left, top = hand.corner(".tile:nth-child(2) img")
    hand.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, points in (("touchStart", [{"x": left + 51, "y": top + 34}]), ("touchEnd", [])):
        hand.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    hand.one(".tile:nth-child(2)[aria-checked=true]")
    hand.press(".submit")
    hand.one("#code")
    by_key, by_touch = stored(here, "browsing")["page"]["annotations"]
    assert (by_key["selected"], by_key["selectedCount"], by_key["selectedRecord"]) == (True, 1, [])
    assert by_key["selectedInputs"] == ["keyboard"]
    assert by_touch["selectedInputs"] == ["touch"] and by_touch["mouseTracking"] == by_touch["hoveredRecord"] == []
    (click,) = by_touch["selectedRecord"]
    x, y = click["x"] * by_touch["imageWidth"], click["y"] * by_touch["imageHeight"]
    assert x == pytest.approx(51, abs=1) and y == pytest.approx(34, abs=1)  # a finger may be rounded up


def test_an_image_that_does_not_load_has_zero_sizes_and_a_flag(served: Serve, hand: Hand) -> None:
    here = one_image(served)
    for served_file in list(here.desk.pools.served):
        file = here.desk.pools.served[served_file].path
        file.write_bytes(b"not an image")
    hand.login(f"{here.url}/browsing", "Ann")
    hand.one(".tile.failed")
    hand.press(".submit")
    hand.one("#code")
    (record,) = stored(here, "browsing")["page"]["annotations"]
    assert record["loadFailed"] and record["originalImageWidth"] == record["imageHeight"] == 0
    assert record["mouseTracking"] == []
