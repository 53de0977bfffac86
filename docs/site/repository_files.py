"""MkDocs hooks: pages of the site that live outside docs/, and links from pages to files of the repository.

A linked file of the repository, such as config/config.yaml, becomes a page that shows its text, so that the site has
no dead links and needs no network.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "speed.md": "speed/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "executor-plugin.md": "plugins/snakemake-executor-plugin-submitit/docs/further.md",
}
"""Page of the site -> file of the repository that it shows."""

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")
_LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".json": "json", ".csv": "text"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/ and every repository file that a page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for page in files.documentation_pages():
        for link in _LINK.findall(page.content_string):
            _add(files, config, _target(page.src_uri, link))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to repository files at their pages of the site."""
    here = posixpath.dirname(page.file.src_uri)
    return _LINK.sub(lambda m: posixpath.relpath(_address(_target(page.file.src_uri, m[1])), here or "."), markdown)


def _target(page: str, link: str) -> str:
    """The repository path that a link on a page leads to."""
    source = PAGES.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _address(target: str) -> str:
    """Where the site has a file of the repository: a page's source, or the file itself if it is a picture."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target in PAGES.values():
        return next(page for page, source in PAGES.items() if source == target)
    return f"repository/{target}" + (".md" if _is_text(target) else "")


def _add(files: Files, config: MkDocsConfig, target: str) -> None:
    address = _address(target)
    if target.startswith("docs/") or files.get_file_from_path(address) or not (ROOT / target).is_file():
        return
    if not _is_text(target):
        files.append(File.generated(config, address, abs_src_path=str(ROOT / target)))
        return
    language = _LANGUAGES.get(os.path.splitext(target)[1], "text")
    text = f"# {target}\n\n````{language}\n{(ROOT / target).read_text(encoding='utf-8')}\n````\n"
    files.append(File.generated(config, address, content=text))


def _is_text(target: str) -> bool:
    return not target.endswith((".png", ".svg", ".pdf"))
