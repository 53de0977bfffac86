"""The headline's block in a page."""

from pathlib import Path

import pytest

from luab.errors import DataError
from luab.render.headline import BEGIN, END, write_into
from luab.study.config import Study, load_study


@pytest.fixture
def study(repository: Path, tmp_path: Path) -> Study:
    study = load_study(["config/config.yaml", "config/demo.yaml"], repository)
    return study.model_copy(update={"paths": study.paths.model_copy(update={"results": tmp_path / "results"})})


def test_a_study_without_tables_is_refused_and_the_page_stays(study: Study, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    with pytest.raises(DataError, match="no tables yet"):
        write_into(study, page)
    assert "old" in page.read_text(encoding="utf-8")
