"""What decides a job's outputs, as text that a restarted Snakemake computes again."""

import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

_READ_UP_TO = 1_000_000  # bytes; as Snakemake does, bigger inputs count by size and time
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def members(job: Any) -> list[Any]:
    """The single jobs of a job: itself, or all of a group."""
    return sorted(job.jobs, key=lambda one: (one.rule.name, str(one.output))) if job.is_group() else [job]


def output_names(job: Any) -> list[str]:
    """Outputs of a job and of all members of a group; a name made of rule and wildcards where there are none."""
    return sorted({name for one in members(job) for name in _outputs(one)})


def fingerprints(job: Any, internal: Collection[str]) -> dict[str, str]:
    """Digest of rule, code, params and inputs for each output of a job.

    Args:
        job: Snakemake's job or group.
        internal: Files that the job's own submission makes: they count by name, as they change while it runs.

    Returns:
        Digest by output.
    """
    return {name: _digest(one, internal) for one in members(job) for name in _outputs(one)}


def _outputs(one: Any) -> Iterable[str]:
    return [str(path) for path in one.output] or [f"<{one.rule.name} {sorted(one.wildcards_dict.items())}>"]


def _digest(one: Any, internal: Collection[str]) -> str:
    rule = one.rule
    code = [rule.name, getattr(rule, "shellcmd", None), getattr(rule, "run_func_src", None)]
    code += [str(getattr(rule, kind, None)) for kind in ("script", "notebook", "wrapper")]
    params = [_ADDRESS.sub("", repr(value)) for value in one.params]
    inputs = sorted({_input(str(path), internal) for path in one.input})
    return hashlib.sha256(repr([code, sorted(one.wildcards_dict.items()), params, inputs]).encode()).hexdigest()[:20]


def _input(path: str, internal: Collection[str]) -> tuple[str, str]:
    return (path, "" if path in internal else _content(path))


def _content(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError:
        return "absent"
    if not os.path.isfile(path):
        return str(facts.st_mtime_ns)
    return _file_content(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _file_content(path: str, size: int, mtime_ns: int) -> str:
    if size > _READ_UP_TO:
        return f"{size} {mtime_ns}"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
