"""The order of the modules: each imports only from its own stage and from those to its left."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "luab"
STAGES = (
    ("errors", "files", "progress", "shapes"),
    ("study",),
    ("fetch", "byproducts"),
    ("data",),
    ("demo",),
    ("model", "pooling"),
    ("objective", "cam"),
    ("terms",),
    ("tasks",),
    ("training",),
    ("predict",),
    ("metrics",),
    ("predictions",),
    ("benchmarks",),
    ("comparison",),
    ("transfer",),
    ("render",),
    ("planning",),
    ("provenance",),
    ("annotate",),
    ("commands",),
    ("cli", "__main__", "__init__"),
)
STAGE_OF = {name: place for place, names in enumerate(STAGES) for name in names}
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "plugins" not in file.parts)
NAMES = [str(file.relative_to(PACKAGE)) for file in FILES]


def top(module: str) -> str:
    """The part of a luab module's name that the table knows."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(file: Path, relative: bool = False) -> set[str]:
    """Names of all modules of luab that a file imports, inside functions too; relative imports only where allowed."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert relative or node.level == 0, f"{file}: import by full name"
            if node.level:
                continue
            names.add(node.module or "")
            if node.module == "luab":
                names |= {f"luab.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "luab"} - {"luab"}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_module_imports_from_its_left_only(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in STAGE_OF, f"{file}: put it into a stage of STAGES, in the order of the study"
    right = {name for name in imported(file) if STAGE_OF[top(name)] > STAGE_OF[own]}
    assert right == set()


def test_the_table_has_no_ghosts() -> None:
    there = {file.relative_to(PACKAGE).with_suffix("").parts[0] for file in FILES}
    assert set(STAGE_OF) == there


def test_the_demo_world_is_drawn_by_nobody_else() -> None:
    """The study's own code must not know whether its images are drawn."""
    users = {
        name for name, file in zip(NAMES, FILES, strict=True) if any(m.startswith("luab.demo") for m in imported(file))
    }
    assert {name for name in users if not name.startswith("demo/")} == {"cli.py"}


def test_plugins_know_nothing_of_luab() -> None:
    for file in [*(PACKAGE / "plugins").rglob("*.py"), *(PACKAGE.parent / "plugins").rglob("src/**/*.py")]:
        assert imported(file, relative=True) == set(), file


def undocumented(file: Path) -> list[str]:
    """Public classes, functions and methods of a file that say nothing."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [] if ast.get_docstring(tree) else [file.name]
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for node in [node for body in bodies for node in body]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found += [] if ast.get_docstring(node) else [node.name]
    return found


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_everything_public_says_what_it_is(file: Path) -> None:
    assert undocumented(file) == []


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_module_opens_with_one_sentence(file: Path) -> None:
    first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    assert len(first) > 10 and first.endswith((".", "?", "!"))


@pytest.mark.parametrize("folder", ["luab", "plugins", "speed", "tests"])
def test_text_has_an_encoding_whatever_the_locale(folder: str) -> None:
    """ruff's PLW1514 sees only files whose type it can infer, and no subprocess."""
    for file in (PACKAGE.parent / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name, keywords = getattr(call.func, "attr", ""), {word.arg for word in call.keywords}
            is_text = (name == "read_text" and not call.args) or (name == "write_text" and len(call.args) == 1)
            assert not (is_text or ("text" in keywords and name in ("run", "Popen"))) or ("encoding" in keywords), (
                f"{file}:{call.lineno}"
            )


def test_digests_of_code_do_not_depend_on_the_locale() -> None:
    code = "from luab.provenance.code import code_digest; print(code_digest('luab.render.tables'))"
    base = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    others = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    printed = [
        subprocess.run([sys.executable, "-c", code], env=base | more, capture_output=True, check=True).stdout
        for more in ({"PYTHONUTF8": "1"}, others)
    ]
    assert printed[0] == printed[1] != b""
