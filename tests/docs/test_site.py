"""The site builds without a warning, loads nothing from other hosts, and works on a phone."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]

_LOADED = re.compile(r'<(?:script|img|iframe|link)[^>]*\s(?:src|href)="?((?:https?:)?//[^">\s]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: found for page in pages if (found := _LOADED.findall(page.read_text(encoding="utf-8")))} == {}


def test_links_to_repository_files_show_them(site: Path) -> None:
    shown = (site / "repository" / "config" / "config.yaml.html").read_text(encoding="utf-8")
    assert "luab_lambda" in shown
    assert "repository/config/config.yaml.html" in (site / "full-study.html").read_text(encoding="utf-8")


def test_the_api_pages_have_signatures_and_docstrings(site: Path) -> None:
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "luab.ImageNetAB" in page and "decoding" in page and "Parameters:" in page
    assert "top5" in (site / "api" / "metrics.html").read_text(encoding="utf-8")


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "how-it-fits-together", "api/index", "config", "data-formats"])
def test_pages_work_in_a_browser(site: Path, browser: Any, name: str) -> None:
    for width in (1280, 400):
        page = browser.open(site / f"{name}.html", width=width)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []
        assert {url for url in browser.requested() if not url.startswith("file:")} == set()


@pytest.mark.browser
def test_search_works_from_disk(site: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    page = browser.open(site / "index.html")
    page.find_element(By.CSS_SELECTOR, ".md-search__input").send_keys("preemption")
    found = WebDriverWait(page, 20).until(lambda p: p.find_elements(By.CSS_SELECTOR, ".md-search-result__item"))
    assert found and "file:" not in "".join(browser.complaints())
