"""Chromium drives both interfaces over a scripted path of the pointer; the record equals the one worked by hand."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.common.exceptions import NoAlertPresentException

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


def drag(hand: Hand, start: tuple[float, float], end: tuple[float, float], ms: int) -> None:
    """Presses at `start` at this time and releases at `end` 50 ms later."""
    hand.move(*start, ms)
    hand.mouse("mousePressed", *start, 1)
    hand.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, ms + 20)
    hand.move(*end, ms + 40)
    hand.at(ms + 50)
    hand.mouse("mouseReleased", *end, 1)


def middle(hand: Hand, selector: str) -> tuple[float, float]:
    """Middle of an element in the window."""
    script = """const box = document.querySelector(arguments[0]).getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2]"""
    x, y = hand.driver.execute_script(script, selector)
    return x, y


@pytest.mark.parametrize("faithful", [False, True])
def test_a_tagging_record_equals_the_hand_worked_one(served: Serve, hand: Hand, faithful: bool) -> None:
    icons = [{"name": name, "pane": pane} for name, pane in (("cat", "A"), ("dog", "A"), ("cup", "B"), ("bus", "C"))]
    tagging = {"images": "scenes", "pages": 1, "annotators_per_image": 9, "icons": icons}
    here = served(tagging=tagging, faithful=faithful)
    hand.freeze()
    hand.login(f"{here.url}/tagging", "Ann")
    hand.loaded()
    hand.driver.execute_script("window.scrollTo(0, 0)")
    left, top = hand.driver.execute_script(
        "const box = document.querySelector('.picture').getBoundingClientRect(); return [box.left, box.top]"
    )

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x, top + y

    hand.move(*at(100, 45), 100)
    hand.move(*at(101, 45), 105)  # no gate: every movement counts
    drag(hand, middle(hand, ".palette [data-name=cat]"), at(300, 90), 200)  # add
    drag(hand, middle(hand, ".layer [data-name=cat]"), at(350, 180), 400)  # move
    drag(hand, middle(hand, ".palette [data-name=dog]"), at(500, 45), 600)  # add
    hand.press(".submit")  # the last pane was not open yet
    assert "all 3 sets" in hand.one("#notice").text
    drag(hand, middle(hand, ".layer [data-name=dog]"), (5, 5), 800)  # outside: remove
    hand.at(1000)
    hand.click(*middle(hand, ".palette [data-name=cat]"))  # a click on the greyed icon: remove
    drag(hand, middle(hand, ".palette [data-name=cat]"), at(10, 10), 1100)  # add again
    hand.at(1200)
    hand.key("ArrowRight", 39)
    hand.at(1300)
    hand.press(".turn[aria-label='Next icons']")
    hand.at(1400)
    hand.key("ArrowRight", 39)  # no wrap-around
    hand.at(1500)
    hand.press(".submit")
    hand.one("#code")
    body = stored(here, "tagging")

    def point(x: int, y: int) -> dict[str, float]:
        return {"x": x / 673, "y": y / 450}

    record = body["page"]["annotation"]
    expected = {
        "imageURL": record["imageURL"],
        "imageWidth": 673,
        "imageHeight": 450,
        "originalImageWidth": 640,
        "originalImageHeight": 428,
        "timeSpend": 1500,
        "actionHistories": [
            {"actionType": "add", "iconType": "cat", "pointTo": point(300, 90), "timeAt": 250},
            {"actionType": "move", "iconType": "cat", "pointFrom": point(300, 90), "pointTo": point(350, 180),
             "timeAt": 450},
            {"actionType": "add", "iconType": "dog", "pointTo": point(500, 45), "timeAt": 650},
            {"actionType": "remove", "iconType": "dog", "pointFrom": point(500, 45), "timeAt": 850},
            {"actionType": "remove", "iconType": "cat", "pointFrom": point(350, 180), "timeAt": 1000},
            {"actionType": "add", "iconType": "cat", "pointTo": point(10, 10), "timeAt": 1150},
        ],
        "categoryHistories": [
            {"categoryIndex": 1, "categoryName": "B", "usingKeyboard": True, "timeAt": 1200},
            {"categoryIndex": 2, "categoryName": "C", "usingKeyboard": True, "timeAt": 1300},
        ],
        "mouseTracking": record["mouseTracking"],
    }  # fmt: skip
    drags = record.pop("dragTracking", None)
    if not faithful:
        expected |= {"actionInputs": ["mouse"] * 6, "loadFailed": False}
        assert drags[1] == point(300, 90) | {"timeAt": 240}
    assert record == expected
    assert record["mouseTracking"][:2] == [point(100, 45) | {"timeAt": 100}, point(101, 45) | {"timeAt": 105}]
    within = [(200, 250), (400, 450), (600, 650), (800, 850), (1100, 1150)]
    assert not any(first < one["timeAt"] < last for one in record["mouseTracking"] for first, last in within)
    assert hand.complaints() == []


def test_icons_can_be_placed_moved_and_removed_by_keyboard(served: Serve, hand: Hand) -> None:
    icons = [{"name": "cat", "pane": "A"}]
    here = served(tagging={"images": "scenes", "pages": 1, "icons": icons})
    hand.login(f"{here.url}/tagging", "Ann")
    hand.loaded()
    hand.driver.execute_script("document.querySelector('.palette .icon').focus()")
    hand.key("Enter", 13)
    for key, code in (("ArrowRight", 39), ("ArrowDown", 40), ("Enter", 13)):
        hand.key(key, code)
    hand.one(".layer .icon")
    hand.press(".submit")
    hand.one("#code")
    record = stored(here, "tagging")["page"]["annotation"]
    (action,) = record["actionHistories"]
    assert action["pointTo"] == {"x": (336 + 20) / 673, "y": (225 + 20) / 450} or action["pointTo"]["x"] == 357 / 673
    assert record["actionInputs"] == ["keyboard"] and record["categoryHistories"] == []


def test_a_finished_page_is_kept_while_the_server_is_down_and_sent_after_a_reload(served: Serve, hand: Hand) -> None:
    here = served(per_class=2, browsing={"images": "photos", "images_per_page": 2, "pages": 2})
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    put = here.desk.put_page
    here.desk.put_page = full_disk  # type: ignore[method-assign]
    hand.press(".submit")
    assert "Your page is kept" in hand.one("#notice:not([hidden])").text
    here.desk.put_page = put  # type: ignore[method-assign]
    hand.driver.execute_cdp_cmd("Page.reload", {})
    accept_leaving(hand)
    hand.wait(lambda: hand.one(".counter").text == "2 / 2")
    assert len(list(here.desk.store.pages("browsing"))) == 1


def full_disk(*_: Any) -> None:
    """What SQLite raises then."""
    raise sqlite3.OperationalError("database or disk is full")


def accept_leaving(hand: Hand) -> None:
    """Confirms the browser's question whether to leave the page, if it asks."""
    try:
        hand.driver.switch_to.alert.accept()
    except NoAlertPresentException:
        return


def test_names_of_classes_are_text_whatever_they_hold(served: Serve, hand: Hand) -> None:
    evil = "<img src=x onerror=\"document.title='taken'\">"
    here = served(browsing={"images": "photos", "images_per_page": 2, "pages": 1, "classes": {
        label: {"names": [evil], "definition": evil} for label in ("cat", "dog")
    }}, title=evil)  # fmt: skip
    hand.login(f"{here.url}/browsing", evil)
    hand.loaded()
    assert evil.lower() == hand.one(".class-name").text.lower() and hand.driver.title == evil
    hand.press(".submit")
    hand.one("#code")
    hand.driver.get("about:blank")
    hand.driver.get(f"{here.url}/admin#{here.desk.keys.admin}")
    hand.press(".pages button")
    hand.one("#replay figure")
    assert hand.driver.title.startswith(evil) and here.desk.keys.admin not in hand.driver.current_url
    assert hand.complaints() == []


def test_withdrawing_in_the_page(served: Serve, hand: Hand) -> None:
    here = one_image(served)
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    hand.press("#withdraw")
    hand.press("#sure .danger")
    hand.wait(lambda: "withdrawn" in hand.one("main h2").text)
    assert here.desk.store.assignments() == []


def test_the_improved_version_has_a_lens_while_dragging(served: Serve, hand: Hand) -> None:
    here = served(tagging={"images": "scenes", "pages": 1, "version": "improved"})
    hand.login(f"{here.url}/tagging", "Ann")
    hand.loaded()
    left, top = hand.corner(".picture")
    start = middle(hand, ".palette [data-name=person]")
    hand.move(*start)
    hand.mouse("mousePressed", *start, 1)
    hand.move(left + 200, top + 300)
    lens, ghost = hand.one(".lens"), hand.one(".ghost")
    assert lens.is_displayed() and float(ghost.value_of_css_property("opacity")) == pytest.approx(0.4)
    assert lens.value_of_css_property("background-size") == f"{673 * 1.5}px {450 * 1.5:.0f}px"
    assert lens.size == {"width": 160, "height": 160}
    hand.mouse("mouseReleased", left + 200, top + 300, 1)
    assert not hand.one(".lens").is_displayed() and hand.one(".layer .icon").is_displayed()
    assert hand.complaints() == []


def test_the_version_decides_about_dot_and_blur(served: Serve, hand: Hand) -> None:
    browsing = {"images": "photos", "images_per_page": 1, "pages": 1, "versions": ["POINTER_NO_ORIGINAL"]}
    here = served(per_class=1, browsing=browsing)
    hand.login(f"{here.url}/browsing", "Ann")
    hand.loaded()
    left, top = hand.corner(".tile img")
    hand.move(left - 30, top + 20)
    image, dot = hand.one(".tile img"), hand.one(".dot")
    assert image.value_of_css_property("filter") == "blur(8px)" and not dot.is_displayed()
    hand.move(left + 100, top + 50)
    assert image.value_of_css_property("filter") == "none"
    hand.click(left + 100, top + 50)
    hand.move(left + 150, top + 50)  # the dot stays where the click was
    place = "const d = document.querySelector('.dot').getBoundingClientRect(); return [d.left + 5, d.top + 5]"
    x, y = hand.driver.execute_script(place)
    assert dot.is_displayed() and abs(x - left - 100) < 1 and abs(y - top - 50) < 1
    hand.move(left - 30, top + 20)
    assert image.value_of_css_property("filter") == "none"  # selected
