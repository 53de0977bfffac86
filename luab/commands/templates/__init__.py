"""Markdown pages that are filled in: the model card of an export, and pages of docs/."""

from pathlib import Path
from typing import Any

import jinja2


def fill_in(page: str, **values: Any) -> str:
    """Text of one of the pages in this folder; a value that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(page).render(values)
