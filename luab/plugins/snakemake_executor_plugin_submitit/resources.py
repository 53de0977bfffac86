"""Resources of a Snakemake job as parameters of a submission."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NAMED = {"slurm_partition": "partition", "slurm_account": "account", "slurm_qos": "qos"}
_NAMED |= {"slurm_constraint": "constraint"}
_MEMORY_ELSEWHERE = ("slurm_mem", "slurm_mem_per_cpu", "slurm_mem_per_gpu")
_NAME_LENGTH = 120
_COMMENT_LENGTH = 1000


class ResourceError(ValueError):
    """A resource that cannot be asked for."""


def slurm_parameters(
    resources: Mapping[str, Any], threads: int, overhead_mb: int, default_minutes: int
) -> dict[str, Any]:
    """Translates resources to sbatch's names as submitit takes them.

    Args:
        resources: Resources of the job; unknown ones are left to Snakemake.
        threads: Threads of the job.
        overhead_mb: Memory of the Snakemake process that runs the job inside the allocation, added to mem_mb.
        default_minutes: Time limit where the job has no `runtime`.

    Returns:
        Parameters without those that are the same for all jobs.

    Raises:
        ResourceError: A resource has no meaningful value.
    """
    minutes = _whole(resources, "runtime", default_minutes)
    found: dict[str, Any] = {"time": minutes, "cpus_per_task": _whole(resources, "cpus_per_task", threads)}
    if "mem_mb" in resources and not any(name in resources for name in _MEMORY_ELSEWHERE):
        found["mem"] = f"{_whole(resources, 'mem_mb', 0) + overhead_mb}M"
    found |= _gpus(resources)
    found |= _nodes(resources)
    for name, key in _NAMED.items():
        if resources.get(name) not in (None, ""):
            found[key] = str(resources[name])
    verbatim = _verbatim(resources)
    if verbatim:
        found["additional_parameters"] = verbatim
    return found


def local_parameters(resources: Mapping[str, Any], default_minutes: int) -> dict[str, Any]:
    """The same for submitit's local executor, which knows time and GPUs alone."""
    return {"timeout_min": _whole(resources, "runtime", default_minutes), "gpus_per_node": gpu_count(resources)}


def gpu_count(resources: Mapping[str, Any]) -> int:
    """GPUs asked for, as `gpu` or `gpus`."""
    return _whole(resources, "gpu", _whole(resources, "gpus", 0))


def job_name(rules: Iterable[str], wildcards: Iterable[Mapping[str, str]]) -> str:
    """What squeue shows: the rules, and the wildcards that all jobs of the submission share.

    Args:
        rules: Names of the rules; several for a group.
        wildcards: Wildcards of each job of the submission.
    """
    shared: dict[str, str] | None = None
    for mapping in wildcards:
        shared = dict(mapping) if shared is None else {k: v for k, v in shared.items() if mapping.get(k) == v}
    parts = ["+".join(sorted(set(rules))), ",".join(f"{k}={v}" for k, v in (shared or {}).items())]
    plain = " ".join(filter(None, parts)).replace("/", "_").replace("%", "_")
    return plain[:_NAME_LENGTH]


def job_comment(outputs: Sequence[Iterable[str]]) -> str:
    """What `squeue --format=%k` shows: the outputs, of an array by element, `0: a.txt 1: b.txt`.

    Args:
        outputs: Names of the outputs of each job of the submission.
    """
    named = [" ".join(names) for names in outputs]
    text = named[0] if len(named) == 1 else " ".join(f"{index}: {names}" for index, names in enumerate(named))
    return text if len(text) <= _COMMENT_LENGTH else text[: _COMMENT_LENGTH - 4] + " ..."


def _gpus(resources: Mapping[str, Any]) -> dict[str, Any]:
    count = gpu_count(resources)
    if not count:
        return {}
    model = resources.get("gpu_model")
    return {"gpus_per_node": f"{model}:{count}" if model else count}


def _nodes(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Several nodes: the job's command runs once, on the first; its own srun reaches the others."""
    nodes = _whole(resources, "nodes", 1)
    if nodes <= 1:
        return {}
    return {"nodes": nodes, "ntasks_per_node": 1, "srun_args": ["--nodes=1", "--ntasks=1", "--overlap"]}


def _verbatim(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Everything else named slurm_<option>, and what slurm_extra holds, goes to sbatch as it is."""
    found: dict[str, Any] = {}
    for name, value in resources.items():
        if name.startswith("slurm_") and name not in (*_NAMED, "slurm_extra"):
            found[name.removeprefix("slurm_").replace("_", "-")] = _flag(value)
    for word in shlex.split(str(resources.get("slurm_extra") or "")):
        if not word.startswith("--"):
            raise ResourceError(
                f"slurm_extra: expected options of the form --name or --name=value, found {word!r}. "
                "Write --name=value without a space."
            )
        name, equals, value = word.removeprefix("--").partition("=")
        found[name] = value if equals else True
    return found


def _flag(value: Any) -> Any:
    return True if str(value).lower() in ("", "true") else value


def _whole(resources: Mapping[str, Any], name: str, default: int) -> int:
    value = resources.get(name, default)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ResourceError(f"resource {name}: expected a whole number, found {value!r}. Correct it in the rule.")
    return number
