"""Code digests, and what run.json records of code, package versions and hardware."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "timm", "torchvision", "numpy", "pillow", "pandas", "pyarrow", "safetensors")
FINE_TUNING_CODE, DENSE_PREDICTION_CODE = ("luab.transfer.fit",), ("luab.transfer.predict",)
"""Modules whose digests a fine-tuning and its predictions record."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of the given modules and of all luab modules that they import: 12 hexadecimal digits.

    Hashes syntax trees without docstrings, so comments and layout do not count.
    """
    text = "\n".join(f"{module} {tree}" for module, tree in sorted(covered_modules(*modules).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def training_code(dataset: str, use: str = "regress") -> tuple[str, ...]:
    """Modules whose digest a training records; the task and the term of a use of byproducts are imported by name."""
    return "luab.training.train", f"luab.tasks.{dataset}", f"luab.terms.{use}"


def prediction_code(dataset: str) -> tuple[str, ...]:
    """Modules whose digest the predictions of a model trained on a data set record."""
    return "luab.predict", f"luab.tasks.{dataset}"


def covered_modules(*modules: str) -> dict[str, str]:
    """Syntax tree as text, by module name, of all modules that `code_digest` covers."""
    trees: dict[str, str] = {}
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in trees and (parsed := _parsed(module)) is not None:
            trees[module], imports = parsed
            pending.extend(imports)
    return trees


def provenance(dataset: str, use: str = "regress") -> dict[str, Any]:
    """Content of a run's run.json about code, versions and machine, without secrets and paths."""
    return _recorded(training_code(dataset, use), prediction_code(dataset))


def fine_tuning_provenance() -> dict[str, Any]:
    """The same for the run.json of a fine-tuning."""
    return _recorded(FINE_TUNING_CODE, DENSE_PREDICTION_CODE)


def _recorded(training: tuple[str, ...], prediction: tuple[str, ...]) -> dict[str, Any]:
    return {
        "code": {"train": code_digest(*training), "predict": code_digest(*prediction)},
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    """Version of each package that can change a result, or "missing"."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "missing"
    return installed


def commit() -> str | None:
    """Commit of the checkout, with "+changes" if tracked files differ; None outside git."""
    folder = Path(__file__).resolve().parents[2]
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, number of cores, GPU (None without one) and operating system."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu, "system": platform.platform()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    model = (
        re.search(r"^model name\s*:\s*(.*\S)", info.read_text(encoding="utf-8"), re.MULTILINE)
        if info.is_file()
        else None
    )
    return model[1] if model else platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        encoding="utf-8",
        errors="replace",
    )
    return done.stdout.strip()


@functools.cache  # the workflow computes ten digests at its start; their modules share most imports
def _parsed(module: str) -> tuple[str, list[str]] | None:
    """Syntax tree of a module as text, and the luab modules that it imports; None if it is not a module of luab."""
    if (source := _source(module)) is None:
        return None
    tree = _without_docstrings(ast.parse(source.read_text(encoding="utf-8")))
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    return ast.dump(tree), _imports(tree, package)


def _source(module: str) -> Path | None:
    # By path: find_spec imports the parent packages, which would load torch.
    base = Path(__file__).resolve().parents[1].joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(tree: ast.Module, package: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [name for name in names if name == "luab" or name.startswith("luab.")]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
