"""Links, anchors and lists of the documentation match what is in the repository."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import luab

from .pages import PAGES, ROOT, prose, text_of

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Paths of the repository in inline code, such as `luab/study/config.py`; generated folders are not among them.
_PATH = re.compile(r"`((?:luab|config|workflow|docs|speed|tests|profiles)/[\w./-]*[\w/])`")
_NEW = {"luab/metrics/per_class.py", "tests/metrics/test_per_class.py", "config/small.yaml"} | {
    "luab/terms/point_position.py",
    "tests/test_point_position.py",
}
"""Files that a reader makes by following a page."""
DOCS = [page for page in PAGES if page.startswith("docs/")]


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; its tags name Python objects, which do not matter here."""


def navigation() -> list[str]:
    """Every page of mkdocs.yml's navigation."""

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]  # type: ignore[attr-defined]

    return pages(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"])


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as the site and code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert file.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_exist(page: str) -> None:
    folders = [ROOT, ROOT / page, *(ROOT / page).parents]
    missing = [
        path
        for path in set(_PATH.findall(prose(page))) - _NEW
        if not any((folder / path).exists() for folder in folders)
    ]
    assert missing == []


def test_every_page_is_in_the_navigation() -> None:
    nav = navigation()
    assert len(nav) == len(set(nav))
    assert {f"docs/{page}" for page in nav} >= set(DOCS)


def test_the_readme_lists_pages_of_the_site() -> None:
    links = {link.partition("#")[0] for link in _LINK.findall(text_of("README.md"))}
    assert links & set(DOCS) >= {"docs/quickstart.md", "docs/how-it-fits-together.md", "docs/troubleshooting.md"}


def test_the_api_page_has_every_public_name() -> None:
    page = text_of("docs/api/index.md")
    for name in luab.__all__:
        module = luab._MODULES[name]
        assert f"::: {module}.{name}\n    options: {{heading: luab.{name}, toc_label: {name}}}" in page, name


@pytest.mark.parametrize("page", [page for page in PAGES if re.search(r"(\n::: |`)luab\.\w", text_of(page))])
def test_documented_names_exist(page: str) -> None:
    for name in re.findall(r"(?:\n::: |`)(luab(?:\.[a-zA-Z]\w*)+)(?:`|\n)", text_of(page)):
        if not name.endswith(".json"):  # the card of an exported model
            pkgutil.resolve_name(name)


def test_the_api_page_has_every_module_of_metrics() -> None:
    modules = {file.stem for file in (ROOT / "luab" / "metrics").glob("*.py")} - {"__init__", "contours"}
    assert set(re.findall(r"^::: luab\.metrics\.(\w+)$", text_of("docs/api/metrics.md"), re.MULTILINE)) == modules


def test_the_diagram_has_every_package() -> None:
    drawing = text_of("docs/site/packages.svg")
    drawn = set(re.findall(r'class="name"[^>]*>([^<]+)<', drawing))
    parts = {path.stem for path in (ROOT / "luab").iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}
    assert drawn - {"import luab"} == parts - {"__init__", "__main__"}


def test_the_first_command_is_on_the_first_screen() -> None:
    assert text_of("README.md").splitlines().index("make demo") < 15


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == luab.__version__
    assert f"## {luab.__version__}" in text_of("CHANGELOG.md")
    paper = citation["preferred-citation"]
    assert paper["title"] in re.sub(r"[{}]", "", text_of("README.md")) and paper["year"] == 2023
    assert len(paper["authors"]) == 8


def test_markers_of_tests_are_described() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {marker.partition(":")[0] for marker in project["tool"]["pytest"]["ini_options"]["markers"]}
    assert markers == set(re.findall(r"^\| `(\w+)` \|", text_of("CONTRIBUTING.md"), re.MULTILINE))


def test_pages_name_no_path_of_a_machine() -> None:
    for page in [*PAGES, "mkdocs.yml", "CITATION.cff"]:
        assert not re.search(rf"(?<!\w)(/root/|/work/|/tmp/|{re.escape(str(Path.home()))}/)", text_of(page)), page
