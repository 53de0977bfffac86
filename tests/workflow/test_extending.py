"""docs/extending.md, "A term of the loss" and "A benchmark", followed to the letter in a copy of the checkout."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

# "... New file `path`:", "Append to `path`:" or "at the top of `path`:", and the block of code below.
_STEP = re.compile(r"(New file|Append to|at the top of)\s+`([^`]+)`:\n\n```python\n(.*?)```", re.DOTALL)


def steps(page: str, heading: str, blocks: int) -> list[tuple[str, str, str]]:
    """(what to do, file, code) of each step of a section with this number of blocks of code."""
    section = re.split(r"\n##+ ", page.split(f"\n## {heading}\n")[1])[0]
    found = [match.groups() for match in _STEP.finditer(section)]
    assert len(found) == section.count("```python") == blocks, "a block of code without a file to put it into"
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
    for step in steps((checkout.folder / "docs" / "extending.md").read_text(encoding="utf-8"), "A benchmark", 6):
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


TRAINS = """
import json
import math

from luab.study.config import parse_study
from luab.study.paths import Run
from luab.training.train import train


def test_it_trains(toy_study):
    settings = json.loads(toy_study(recipe={"mixup": 0.5, "input_px": 64}).model_dump_json())
    settings["supervisions"] = {"none": {}, "looked_at": {"points": "click", "use": "point_position"}}
    final = train(parse_study(settings), Run("imagenet", "test_resnet", "looked_at", 0.5, 0))["final"]
    assert math.isclose(final["loss"], final["classification"] + 0.5 * final["point_position"], rel_tol=1e-6)
    assert final["points"] > 0 and final["point_position_gradient_ratio"] > 0 and "byproduct" not in final
"""


def test_the_page_adds_a_term(copy_checkout: Callable[[str], Checkout]) -> None:
    checkout = copy_checkout("term")
    page = (checkout.folder / "docs" / "extending.md").read_text(encoding="utf-8")
    assert "`looked_at: {points: click, use: point_position}`" in page
    for step in steps(page, "A term of the loss", 2):
        apply(checkout.folder, *step)
    (checkout.folder / "tests" / "test_it_trains.py").write_text(TRAINS, encoding="utf-8")
    tests = ["tests/test_point_position.py", "tests/test_it_trains.py", "tests/test_architecture.py"]
    done = checkout.python("-m", "pytest", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout[-4000:]
