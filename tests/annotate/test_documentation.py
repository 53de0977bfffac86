"""The page of the documentation and the wheel have what the tool needs."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from luab.annotate.config import Browsing, ClassText, Collection, Consent, Icon, Login, Tagging

from .conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "annotate.md").read_text(encoding="utf-8")
SECTIONS = {
    "": Collection, "browsing.": Browsing, "browsing.classes.<class>.": ClassText, "tagging.": Tagging,
    "tagging.icons[].": Icon, "login.": Login, "consent.": Consent,
}  # fmt: skip


@pytest.mark.parametrize("prefix", SECTIONS)
def test_the_page_lists_every_key_with_its_meaning(prefix: str) -> None:
    rows = {row[0]: row[2] for row in re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)}
    for name, field in SECTIONS[prefix].model_fields.items():
        assert rows.get(prefix + name) == field.description


def test_the_examples_are_configurations() -> None:
    merged = {}
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        merged |= yaml.safe_load(block)
    collection = Collection.model_validate(merged)
    assert collection.interfaces == ["browsing", "tagging"]


@pytest.mark.slow
def test_the_wheel_has_the_pages(tmp_path: Path) -> None:
    for name in ("luab", "pyproject.toml", "README.md", "LICENSE"):
        source = REPOSITORY / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, tmp_path / name, ignore=ignore) if source.is_dir() else shutil.copy(source, tmp_path)
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "dist")]
    (tmp_path / "dist").mkdir()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    static = REPOSITORY / "luab" / "annotate" / "static"
    assert {f"luab/annotate/static/{file.name}" for file in static.iterdir()} <= names
