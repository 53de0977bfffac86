"""What differs between data sets is in luab/tasks: nothing else asks for one by its name."""

import ast
import re
from pathlib import Path

import pytest

from luab.errors import ConfigError
from luab.tasks import NAMES, task_of, task_with

PACKAGE = Path(__file__).resolve().parents[2] / "luab"
ELSEWHERE = sorted(
    file for file in PACKAGE.rglob("*.py") if not {"tasks", "plugins", "demo"} & set(file.relative_to(PACKAGE).parts)
)


def compared(node: ast.AST) -> list[ast.expr]:
    """Both sides of a comparison for equality or membership; the subject and the patterns of a match."""
    if isinstance(node, ast.Compare) and any(
        isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops
    ):
        return [node.left, *node.comparators]
    if isinstance(node, ast.MatchValue):
        return [node.value]
    return []


def names_in(expression: ast.expr) -> set[str]:
    """Names of data sets that an expression holds as text or through the constant of ImageNet's name."""
    texts = {part.value for part in ast.walk(expression) if isinstance(part, ast.Constant)}
    constants = {"imagenet" for part in ast.walk(expression) if isinstance(part, ast.Name) and part.id == "DATASET"}
    return (texts | constants) & set(NAMES)


@pytest.mark.parametrize("file", ELSEWHERE, ids=[str(file.relative_to(PACKAGE)) for file in ELSEWHERE])
def test_no_branch_on_the_name_of_a_data_set(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [
        f"line {part.lineno}: {ast.unparse(part)}"
        for node in ast.walk(tree)
        for part in compared(node)
        if names_in(part)
    ]
    assert found == []


def test_every_task_has_a_section_a_test_set_and_headline_numbers() -> None:
    from luab.data.manifests.testsets import TEST_SETS
    from luab.render.products import PRODUCTS
    from luab.render.quantities import HEADLINE, TRACKED
    from luab.study.config import Study

    assert set(NAMES) == set(HEADLINE) == set(TRACKED) == {test_set.dataset for test_set in TEST_SETS.values()}
    assert set(NAMES) == {product.dataset for product in PRODUCTS}
    assert set(NAMES) - {"imagenet"} <= set(Study.model_fields)
    for name in NAMES:
        task = task_of(name)
        assert (task.name, task_with(task.byproducts)) == (name, task) and re.fullmatch(r"[a-z0-9_]+", name)
        assert task.multi_label == any(test.multi_label for test in TEST_SETS.values() if test.dataset == name)


def test_an_unknown_data_set_or_byproduct_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"no data set 'cocoa' to train on\. Did you mean coco\?"):
        task_of("cocoa")
    with pytest.raises(ConfigError, match=r"no byproducts 'imagenet_abc'\. Did you mean imagenet_ab\?"):
        task_with("imagenet_abc")
