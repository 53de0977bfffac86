"""Generated pages are up to date with the code."""

import json
import re
import shutil
from pathlib import Path

import pytest

from luab.commands import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = reference.pages(ROOT)


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_are_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page], f"{page} is out of date: run `luab docs`"


def test_every_entry_of_the_deviations_is_a_sentence() -> None:
    entries = [line for line in PAGES["docs/deviations.md"].splitlines() if line.startswith("- ")]
    assert len(entries) > 20
    for entry in entries:
        assert re.fullmatch(r"- [A-Z].{15,}[.] \(`(luab|config)/[\w/.]+`\)", entry), entry
        assert "ASSUME" not in entry and "DEVIATES" not in entry and '"""' not in entry


def test_no_tag_is_lost() -> None:
    text = "\n".join(
        file.read_text(encoding="utf-8")
        for pattern in ("luab/**/*.py", "luab/**/*.js", "config/**/*.yaml")
        for file in ROOT.glob(pattern)
    )
    tags = re.findall(r"\b(?:ASSUME|DEVIATES):", text)
    assert PAGES["docs/deviations.md"].count("\n- ") == len(tags)


def test_tags_are_read_from_comments_docstrings_and_yaml(tmp_path: Path) -> None:
    (tmp_path / "luab").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "luab" / "a.py").write_text(
        '"""One.\n\nASSUME: the first\n    is long.\n\nArgs: none.\n"""\n\nX = 1  # DEVIATES: x is one\n# and more.\n',
        encoding="utf-8",
    )
    (tmp_path / "config" / "b.yaml").write_text(
        "# ASSUME: the third\n#   goes on.\n# Run: nothing\na: 1  # ASSUME: a fourth\n", encoding="utf-8"
    )
    page = reference.deviations(tmp_path)
    assert [line for line in page.splitlines() if line.startswith("- ")] == [
        "- The first is long. (`luab/a.py`)",
        "- The third goes on. (`config/b.yaml`)",
        "- A fourth. (`config/b.yaml`)",
        "- X is one and more. (`luab/a.py`)",
    ]


def test_all_pages_are_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    assert reference.write_pages(tmp_path) == list(PAGES)
    assert all((tmp_path / page).is_file() for page in PAGES)


def test_the_schema_is_closed_and_described() -> None:
    schema = json.loads(PAGES["config/schema.json"])
    for part in [schema, *schema["$defs"].values()]:
        assert part["additionalProperties"] is False and part["description"]
        assert [key for key, field in part["properties"].items() if not {"description", "$ref"} & set(field)] == []
