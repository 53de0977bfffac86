"""Digests of everything that determines a job's outputs; a restarted Snakemake computes the same ones."""

import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

_MAX_HASHED_BYTES = 1_000_000  # as in Snakemake, larger inputs are compared by size and time
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def members(job: Any) -> list[Any]:
    """Returns the single jobs of a group; a single job itself."""
    return sorted(job.jobs, key=lambda one: (one.rule.name, str(one.output))) if job.is_group() else [job]


def output_names(job: Any) -> list[str]:
    """Returns the outputs of a job or of all members of a group; without outputs, a name made of rule and wildcards."""
    return sorted({name for one in members(job) for name in _outputs(one)})


def fingerprints(job: Any, internal: Collection[str]) -> dict[str, str]:
    """Computes a digest of rule, code, params and inputs for each output of a job.

    Args:
        job: Snakemake's job or group.
        internal: Files made by the job's own submission; they count by name only, as they change while it runs.

    Returns:
        Output -> digest.
    """
    return {name: _digest(one, internal) for one in members(job) for name in _outputs(one)}


def _outputs(one: Any) -> Iterable[str]:
    return [str(path) for path in one.output] or [f"<{one.rule.name} {sorted(one.wildcards_dict.items())}>"]


def _digest(one: Any, internal: Collection[str]) -> str:
    rule = one.rule
    code = [rule.name, getattr(rule, "shellcmd", None), getattr(rule, "run_func_src", None)]
    code += [str(getattr(rule, kind, None)) for kind in ("script", "notebook", "wrapper")]
    params = [_ADDRESS.sub("", repr(value)) for value in one.params]
    inputs = sorted({(path, "" if path in internal else _content(path)) for path in map(str, one.input)})
    return hashlib.sha256(repr([code, sorted(one.wildcards_dict.items()), params, inputs]).encode()).hexdigest()[:20]


def _content(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "absent"
    if not os.path.isfile(path):
        return str(status.st_mtime_ns)
    return _file_content(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _file_content(path: str, size: int, mtime_ns: int) -> str:
    if size > _MAX_HASHED_BYTES:
        return f"{size} {mtime_ns}"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
