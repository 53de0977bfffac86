"""Writes the table of settings in docs/further.md from the settings themselves: `python tests/settings_table.py`."""

import dataclasses
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "further.md"
HEADER = "| setting | default | meaning |\n|---|---|---|\n"


def table() -> str:
    """One line for each setting: name, default, help with choices."""
    from snakemake_executor_plugin_submitit import ExecutorSettings

    lines = []
    for field in dataclasses.fields(ExecutorSettings):
        default = "none" if field.default == "" else f"`{str(field.default).lower()}`"
        choices = field.metadata.get("choices")
        text = field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        lines.append(f"| `submitit-{field.name.replace('_', '-')}` | {default} | {text} |\n")
    return HEADER + "".join(lines)


def written(page: str) -> str:
    """The page with the present table."""
    pattern = rf"{re.escape(HEADER)}(?:\|.*\n)*|@@SETTINGS@@\n"
    return re.sub(pattern, lambda _: table(), page, count=1)


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1] / "src"))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
