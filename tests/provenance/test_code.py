"""Code digests change with the code and only with it; run.json records versions and machine, but no paths."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luab.provenance import code


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    """A copy of the package, to edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(repository / "luab", tmp_path / "luab", ignore=ignored))


def digest(package: Path, module: str) -> str:
    """The digest from a process that imports luab from that copy."""
    command = f"from luab.provenance.code import code_digest; print(code_digest({module!r}))"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
        env={},
        encoding="utf-8",
        errors="replace",
    )
    return done.stdout.strip()


def test_comments_docstrings_and_layout_do_not_change_the_digest(copied: Path) -> None:
    before = digest(copied, "luab.benchmarks.collect")
    file = copied / "benchmarks" / "collect.py"
    lines = file.read_text(encoding="utf-8").split('"""', 2)
    file.write_text(f'"""Another sentence."""\n\n\n# a comment\n{lines[2]}\n\n\n', encoding="utf-8")
    assert digest(copied, "luab.benchmarks.collect") == before


def test_own_and_imported_code_change_the_digest(copied: Path) -> None:
    before = digest(copied, "luab.benchmarks.collect")
    (copied / "benchmarks" / "collect.py").write_text(
        (copied / "benchmarks" / "collect.py").read_text(encoding="utf-8") + "\n_A = 1\n", encoding="utf-8"
    )
    own = digest(copied, "luab.benchmarks.collect")
    (copied / "files.py").write_text((copied / "files.py").read_text(encoding="utf-8") + "\n_A = 1\n", encoding="utf-8")
    imported = digest(copied, "luab.benchmarks.collect")
    assert len({before, own, imported}) == 3
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in (before, own, imported))


def test_a_docstring_alone_in_a_body_may_change(copied: Path) -> None:
    (copied / "errors.py").write_text(
        (copied / "errors.py").read_text(encoding="utf-8").replace("is wrong;", "is not right;"), encoding="utf-8"
    )
    (copied / "errors.py").write_text(
        (copied / "errors.py")
        .read_text(encoding="utf-8")
        .replace("class DataError(LuabError)", "class DataError(LuabError, OSError)"),
        encoding="utf-8",
    )
    changed = digest(copied, "luab.errors")
    assert changed != code.code_digest("luab.errors")


def test_other_code_does_not_change_the_digest(copied: Path) -> None:
    before = digest(copied, "luab.training.train")
    for name in ("benchmarks/collect.py", "render/tables.py", "demo/world.py", "cli.py"):
        (copied / name).write_text((copied / name).read_text(encoding="utf-8") + "\n_A = 1\n", encoding="utf-8")
    assert digest(copied, "luab.training.train") == before


def test_async_functions_are_included(copied: Path) -> None:
    (copied / "new.py").write_text('async def wait() -> None:\n    """One."""\n', encoding="utf-8")
    one = digest(copied, "luab.new")
    (copied / "new.py").write_text('async def wait() -> None:\n    """Two."""\n', encoding="utf-8")
    assert digest(copied, "luab.new") == one
    (copied / "new.py").write_text('async def wait() -> int:\n    """Two."""\n', encoding="utf-8")
    assert digest(copied, "luab.new") != one


def test_relative_imports_are_followed(copied: Path) -> None:
    (copied / "new.py").write_text("from . import files\nfrom .metrics import accuracy\n", encoding="utf-8")
    before = digest(copied, "luab.new")
    (copied / "files.py").write_text((copied / "files.py").read_text(encoding="utf-8") + "\n_A = 1\n", encoding="utf-8")
    second = digest(copied, "luab.new")
    (copied / "metrics" / "accuracy.py").write_text(
        (copied / "metrics" / "accuracy.py").read_text(encoding="utf-8") + "\n_A = 1\n", encoding="utf-8"
    )
    assert len({before, second, digest(copied, "luab.new")}) == 3


def test_the_content_of_run_json() -> None:
    content = code.provenance("coco")
    assert set(content) == {"code", "commit", "versions", "hardware"}
    assert content["code"] == {
        "train": code.code_digest(*code.training_code("coco")),
        "predict": code.code_digest(*code.prediction_code("coco")),
    }
    assert set(content["versions"]) == {"python", *code.PACKAGES}
    assert content["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert content["hardware"]["cores"] >= 1 and content["hardware"]["processor"]
    assert str(Path(__file__).resolve().parents[2]) not in json.dumps(content)


def test_the_commit_shows_whether_files_differ(copied: Path) -> None:
    command = "from luab.provenance.code import commit; print(commit())"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(copied.parent)]

    def commit() -> str:
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=copied.parent,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    for words in (["init", "-q"], ["add", "luab"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = commit()
    assert len(clean) == 40
    (copied / "files.py").write_text("", encoding="utf-8")  # the module code does not import it
    assert commit() == clean + "+changes"


def test_covered_modules_are_the_module_and_what_it_imports_inside_functions_too() -> None:
    collected = code.covered_modules("luab.benchmarks.collect")
    assert collected.keys() == {
        f"luab.{name}" for name in ("benchmarks.benchmark", "benchmarks.collect", "errors", "files")
    }
    assert code.covered_modules("luab.errors", "luab.benchmarks.collect") == collected
    assert "luab.fetch.archives" not in collected and code.covered_modules("luab.no_such_module") == {}
