"""docs/extending.md, "A benchmark", followed to the letter in a copy of the checkout."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

# "... New file `path`:", "Append to `path`:" or "at the top of `path`:", and the block of code below.
_STEP = re.compile(r"(New file|Append to|at the top of)\s+`([^`]+)`:\n\n```python\n(.*?)```", re.DOTALL)


def steps(page: str) -> list[tuple[str, str, str]]:
    """(what to do, file, code) of each step of the section."""
    section = page.split("\n## A benchmark\n")[1].split("\n### ")[0]
    found = [match.groups() for match in _STEP.finditer(section)]
    assert len(found) == section.count("```python") == 6, "a block of code without a file to put it into"
    return [(what, file, code) for what, file, code in found]


def apply(folder: Path, what: str, file: str, code: str) -> None:
    """Does one step."""
    path = folder / file
    if what == "New file":
        assert not path.exists(), f"{file} is there already"
        path.write_text(code, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    if what == "Append to":
        path.write_text(text + code, encoding="utf-8")
    else:
        first = re.search(r"^from luab", text, re.MULTILINE)
        assert first is not None
        path.write_text(text[: first.start()] + code + text[first.start() :], encoding="utf-8")


def test_the_page_adds_a_benchmark(copy_checkout: Callable[[str], Checkout]) -> None:
    checkout = copy_checkout("extending")
    for step in steps((checkout.folder / "docs" / "extending.md").read_text(encoding="utf-8")):
        apply(checkout.folder, *step)
    new = "imagenet_sketch_per_class"
    config = checkout.folder / "config" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert text.count("imagenet_sketch,") == 1
    config.write_text(text.replace("imagenet_sketch,", f"imagenet_sketch, {new},"), encoding="utf-8")
    done = checkout.python("-m", "luab", "docs")
    assert done.returncode == 0, done.stderr
    assert f"| `{new}` | `imagenet_sketch` |" in (checkout.folder / "docs" / "protocols.md").read_text(encoding="utf-8")
    tests = ["tests/metrics/test_per_class.py", "tests/benchmarks/test_score.py", "tests/commands/test_reference.py"]
    done = checkout.python("-m", "pytest", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout[-4000:]
    found = checkout.python(
        "-c", f"from luab.study.config import load_study; print('{new}' in load_study(['{config}']).benchmarks)"
    )
    assert found.stdout.strip() == "True", found.stderr
