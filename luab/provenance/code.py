"""Where a result came from: code digest, commit, versions, hardware."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "timm", "torchvision", "numpy", "pillow", "pandas", "pyarrow", "safetensors")
TRAINING = ("luab.training.train",)
PREDICTION = ("luab.predict",)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of modules and of everything in luab that they import: 12 hexadecimal digits.

    Syntax trees without docstrings are hashed, so comments and layout change nothing.
    """
    text = "\n".join(f"{module} {tree}" for module, tree in sorted(_covered(modules).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def covered_modules(*modules: str) -> frozenset[str]:
    """Names of the modules that `code_digest` of these modules covers: them and all that they import of luab."""
    return frozenset(_covered(modules))


def _covered(modules: Iterable[str]) -> dict[str, str]:
    """Module name -> syntax tree as text, of modules and of everything in luab that they import."""
    trees: dict[str, str] = {}
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in trees and (parsed := _parsed(module)) is not None:
            trees[module], imports = parsed
            pending.extend(imports)
    return trees


def provenance() -> dict[str, Any]:
    """What run.json says about code, versions and machine; no secrets, no paths."""
    return {
        "code": {"train": code_digest(*TRAINING), "predict": code_digest(*PREDICTION)},
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    """Installed version of each package that can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None outside git."""
    folder = Path(__file__).resolve().parents[2]
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, cores and, where there is one, GPU."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu, "system": platform.platform()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


@functools.cache  # the workflow's start asks for the digests of ten modules, which share most of what they import
def _parsed(module: str) -> tuple[str, list[str]] | None:
    """A module's syntax tree as text, and what it imports of luab; None where it is no module of luab."""
    if (source := _source(module)) is None:
        return None
    tree = _without_docstrings(ast.parse(source.read_text()))
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    return ast.dump(tree), _imports(tree, package)


def _source(module: str) -> Path | None:
    # Found by path: importing the module, as find_spec does for its parents, would load torch.
    base = Path(__file__).resolve().parents[1].joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


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
