"""A participant in a real browser: a pointer that goes where it is told, under a clock that stands still in between."""

import json
from collections.abc import Callable
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.support.ui import WebDriverWait

EPOCH = 1_790_000_000_000  # ms; what the page's clock shows at 0

_CLOCK = f"""
window.fakeMs = 0;
Date.now = () => {EPOCH} + Math.floor(window.fakeMs);
performance.now = () => window.fakeMs;
"""


class Hand:
    """Drives one page of Chromium through its debugging protocol, event by event."""

    def __init__(self, driver: Any, width: int = 1280, height: int = 1000) -> None:
        self.driver, self.buttons = driver, 0
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.script: str | None = None

    def freeze(self) -> None:
        """From the next page on, time passes only when `at` says so."""
        answer = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _CLOCK})
        self.script = answer["identifier"]

    def thaw(self) -> None:
        """From the next page on, time passes by itself."""
        if self.script:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": self.script})

    def at(self, ms: float) -> None:
        """Sets the page's clock."""
        self.driver.execute_script("window.fakeMs = arguments[0]", ms)

    def one(self, selector: str) -> Any:
        """Waits for an element."""
        return WebDriverWait(self.driver, 20).until(lambda d: d.find_elements("css selector", selector))[0]

    def corner(self, selector: str) -> tuple[float, float]:
        """Top left corner of an element in the window; scrolls it into the middle first."""
        script = """const box = document.querySelector(arguments[0]); box.scrollIntoView({block: "center"});
            const {left, top} = box.getBoundingClientRect(); return [left, top]"""
        left, top = self.driver.execute_script(script, selector)
        return left, top

    def mouse(self, kind: str, x: float, y: float, clicks: int = 0) -> None:
        """One event of the mouse: mouseMoved, mousePressed or mouseReleased."""
        if kind == "mousePressed":
            self.buttons = 1
        elif kind == "mouseReleased":
            self.buttons = 0
        button = "left" if kind != "mouseMoved" or self.buttons else "none"
        event = {"type": kind, "x": x, "y": y, "button": button, "buttons": self.buttons, "clickCount": clicks}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def move(self, x: float, y: float, ms: float | None = None) -> None:
        """Moves the pointer, at a time of the page's clock."""
        if ms is not None:
            self.at(ms)
        self.mouse("mouseMoved", x, y)

    def click(self, x: float, y: float, ms: float | None = None) -> None:
        """Clicks where the pointer is."""
        if ms is not None:
            self.at(ms)
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y, 1)

    def press(self, selector: str) -> None:
        """Clicks an element without the pointer."""
        self.one(selector)
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def key(self, key: str, code: int) -> None:
        """Presses a key."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code} | more
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)

    def login(self, url: str, name: str) -> None:
        """Opens the page, logs in by name and agrees."""
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.driver.get(url)
        self.one("#name").send_keys(name)
        self.press("form.narrow button")
        self.press("#agree")
        self.press("main button")

    def wait(self, true: Callable[[], bool]) -> None:
        """Waits until something is true; elements may be replaced meanwhile."""
        WebDriverWait(self.driver, 20, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: true())

    def loaded(self) -> None:
        """Waits until all images are there and have their size."""
        script = "return [...document.querySelectorAll('main img')].every((i) => i.complete && i.style.width)"
        WebDriverWait(self.driver, 20).until(
            lambda d: d.find_elements("css selector", "main img") and d.execute_script(script)
        )

    def complaints(self) -> list[str]:
        """Console messages about the page, such as violations of its policy."""
        return [json.dumps(entry) for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]
