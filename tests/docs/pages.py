"""The documentation's pages, and the blocks of code on them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "plugins/snakemake-executor-plugin-submitit"
PLUGIN_PAGES = (
    f"{PLUGIN}/README.md",
    f"{PLUGIN}/CHANGELOG.md",
    *(f"{PLUGIN}/docs/{name}.md" for name in ("intro", "further", "have-and-will-not")),
)
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "speed/README.md")
PAGES = [*OUTSIDE, *PLUGIN_PAGES, *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))]


def text_of(page: str) -> str:
    """The page's Markdown."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
