"""Translates the resources of a Snakemake job into parameters of a submission."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMED = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "qos": "qos",
    "slurm_qos": "qos",
    "constraint": "constraint",
    "slurm_constraint": "constraint",
}
_OTHER_MEMORY = ("slurm_mem", "slurm_mem_per_cpu", "slurm_mem_per_gpu", "mem_mb_per_cpu")
_ONE_CLUSTER = "jobs on several clusters cannot be followed; start Snakemake on a login node of that cluster"
_ONE_COMMAND = "a job runs one command, which starts further processes itself; use threads and nodes"
_BY_JOB = "CPUs are requested by job; use threads or cpus_per_task"
# Names of another executor plugin for Slurm, which would otherwise be ignored.
_REFUSED = {
    "clusters": _ONE_CLUSTER,
    "slurm_clusters": _ONE_CLUSTER,
    "tasks": _ONE_COMMAND,
    "tasks_per_node": _ONE_COMMAND,
    "tasks_per_gpu": _ONE_COMMAND,
    "ntasks": _ONE_COMMAND,
    "mpi": _ONE_COMMAND,
    "cpus_per_gpu": _BY_JOB,
}
GPU_OPTIONS = ("gpus-per-node", "gpus-per-task", "gpus", "gres")
NAME_TEMPLATE, NAME_FIELDS = "{rule} {wildcards}", ("rule", "wildcards", "workdir")
COMMENT_TEMPLATE, COMMENT_FIELDS = "{outputs}", (*NAME_FIELDS, "outputs")
_EXCLUSIVE = ("user", "mcs", "topo")
_NAME_LENGTH = 120
_COMMENT_LENGTH = 1000
_MORE = " ... (all: jobs.json)"  # next to the job's log


class ResourceError(ValueError):
    """A resource has an invalid value."""


@dataclass(frozen=True)
class Site:
    """What differs between clusters.

    Attributes:
        gpu_option: Option of sbatch that requests GPUs, one of GPU_OPTIONS.
        gpu_partition: Partition of jobs that request GPUs and name no partition; empty for the cluster's default.
        cpu_partition: Partition of jobs that request no GPUs and name no partition; empty for the cluster's default.
    """

    gpu_option: str = "gpus-per-node"
    gpu_partition: str = ""
    cpu_partition: str = ""


def slurm_parameters(
    resources: Mapping[str, Any], threads: int, overhead_mb: int, default_minutes: int, site: Site = Site()
) -> dict[str, Any]:
    """Translates resources into sbatch's names, as submitit takes them.

    Args:
        resources: Resources of the job; unknown ones are ignored.
        threads: Threads of the job.
        overhead_mb: Memory of the Snakemake process that runs the job inside the allocation; added to mem_mb.
        default_minutes: Time limit if the job has no `runtime`.
        site: What differs between clusters.

    Returns:
        The parameters that depend on the job.

    Raises:
        ResourceError: A resource has an invalid value.
    """
    _refuse(resources)
    minutes = _whole(resources, "runtime", default_minutes)
    parameters: dict[str, Any] = {"time": minutes, "cpus_per_task": _whole(resources, "cpus_per_task", threads)}
    if (mem_mb := _whole(resources, "mem_mb", 0)) and not any(name in resources for name in _OTHER_MEMORY):
        parameters["mem"] = f"{mem_mb + overhead_mb}M"
    if "mem_mb_per_cpu" in resources:
        parameters["mem_per_cpu"] = f"{_whole(resources, 'mem_mb_per_cpu', 0)}M"
    if resources.get("gres"):
        parameters["gres"] = str(resources["gres"])
    parameters |= _gpus(resources, site.gpu_option)
    if partition := site.gpu_partition if _uses_gpus(resources) else site.cpu_partition:
        parameters["partition"] = partition
    parameters |= _nodes(resources)
    parameters |= {key: str(resources[name]) for name, key in _NAMED.items() if resources.get(name) not in (None, "")}
    if exclusive := _exclusive(resources):
        parameters["exclusive"] = exclusive
    if resources.get("slurm_job_name"):
        parameters["job_name"] = str(resources["slurm_job_name"])
    parameters |= _setup(resources)
    verbatim = _verbatim(resources)
    if "gpus" in parameters:  # submitit does not know this option
        verbatim["gpus"] = parameters.pop("gpus")
    if verbatim:
        parameters["additional_parameters"] = verbatim
    return parameters


def local_parameters(resources: Mapping[str, Any], default_minutes: int) -> dict[str, Any]:
    """Does the same for submitit's local executor, which supports only time, GPUs and lines before the job."""
    minutes = _whole(resources, "runtime", default_minutes)
    return {"timeout_min": minutes, "gpus_per_node": _gpu_count(resources), **_setup(resources)}


def requested(parameters: Mapping[str, Any], threads: int, mem_mb: Any) -> tuple[int, int]:
    """Returns what a job requests: CPUs of all its nodes, and memory of each node in MB.

    Args:
        parameters: The job's parameters, as the functions above return them.
        threads: Threads of the job; counts for local jobs, as does mem_mb.
        mem_mb: Snakemake's resource.

    Returns:
        Both numbers; 0 if the cluster's default applies.
    """
    cpus = int(parameters.get("cpus_per_task", threads))
    if "mem" in parameters:
        mb = int(parameters["mem"].removesuffix("M"))
    elif "mem_per_cpu" in parameters:
        mb = cpus * int(parameters["mem_per_cpu"].removesuffix("M"))
    else:
        mb = mem_mb if "timeout_min" in parameters and isinstance(mem_mb, int) else 0
    return cpus * int(parameters.get("nodes", 1)), mb


def lines_of(setup: Any) -> list[str]:
    """The shell lines of a setting or resource, without empty ones."""
    return [line for line in str(setup or "").splitlines() if line.strip()]


def template_problem(template: str, fields: Sequence[str]) -> str:
    """Returns what is wrong with a template for names or comments; empty if nothing is."""
    listed = ", ".join(f"{{{name}}}" for name in fields)
    try:
        template.format(**dict.fromkeys(fields, ""))
    except KeyError as unknown:
        return f"expected only {listed} in braces, found {{{unknown.args[0]}}} in {template!r}"
    except (ValueError, IndexError, AttributeError) as problem:
        return f"expected text with {listed}, found {template!r} ({problem})"
    return ""


def job_name(
    rules: Iterable[str],
    wildcards: Iterable[Mapping[str, str]],
    template: str = NAME_TEMPLATE,
    workdir: str = "",
) -> str:
    """Returns the name for squeue; by default the rules, and the wildcards that all jobs of the submission share.

    Args:
        rules: Names of the rules; several for a group.
        wildcards: Wildcards of each job of the submission.
        template: Text with NAME_FIELDS in braces.
        workdir: Name of the folder that Snakemake runs in.
    """
    text = template.format(**_fields(rules, wildcards, workdir))
    return " ".join(text.split()).replace("/", "_").replace("%", "_")[:_NAME_LENGTH]


def _fields(rules: Iterable[str], wildcards: Iterable[Mapping[str, str]], workdir: str) -> dict[str, str]:
    shared: dict[str, str] | None = None
    for mapping in wildcards:
        shared = dict(mapping) if shared is None else {k: v for k, v in shared.items() if mapping.get(k) == v}
    listed = ",".join(f"{k}={v}" for k, v in (shared or {}).items())
    return {"rule": "+".join(sorted(set(rules))), "wildcards": listed, "workdir": workdir}


def comment_text(
    template: str,
    outputs: Sequence[Iterable[str]],
    rules: Iterable[str],
    wildcards: Iterable[Mapping[str, str]],
    workdir: str,
) -> str:
    """Returns the comment for squeue; by default the outputs of each job, see `job_comment`.

    Args:
        template: Text with COMMENT_FIELDS in braces.
        outputs: Names of the outputs of each job of the submission.
        rules: As for `job_name`, and so are the others.
    """
    text = template.format(**_fields(rules, wildcards, workdir), outputs=job_comment(outputs))
    return " ".join(text.split())[:_COMMENT_LENGTH]


def job_comment(outputs: Sequence[Iterable[str]]) -> str:
    """Returns the comment for `squeue --format=%k`: the outputs, of an array by element, as `0: a.txt 1: b.txt`.

    Slurm takes about 1,000 characters. A longer comment names the folder that all outputs share once, and then only the
    first output of each job.

    Args:
        outputs: Names of the outputs of each job of the submission.
    """
    jobs = [list(job) for job in outputs]
    text = _by_element(jobs)
    if len(text) <= _COMMENT_LENGTH:
        return text
    firsts = [job[0] for job in jobs if job]
    try:
        shared = os.path.commonpath([os.path.dirname(name) for name in firsts])
    except ValueError:  # relative and absolute paths
        shared = ""
    text = f"in {shared or '.'}: " + _by_element([[name.removeprefix(f"{shared}/")] for name in firsts])
    return text if len(text) <= _COMMENT_LENGTH else text[: _COMMENT_LENGTH - len(_MORE)] + _MORE


def _by_element(jobs: list[list[str]]) -> str:
    names = [" ".join(job) for job in jobs]
    return names[0] if len(names) == 1 else " ".join(f"{index}: {job}" for index, job in enumerate(names))


def _refuse(resources: Mapping[str, Any]) -> None:
    for name, why in _REFUSED.items():
        if resources.get(name) not in (None, "", 0) and not (name.startswith("tasks") and resources[name] == 1):
            raise ResourceError(f"resource {name}: not supported; {why}.")


def _exclusive(resources: Mapping[str, Any]) -> bool | str:
    """Value of --exclusive; False for a shared node."""
    value = resources.get("exclusive")
    text = str(value or "").lower()
    if text in ("", "false", "0"):
        return False
    if text in ("true", "1"):
        return True
    if text not in _EXCLUSIVE:
        choices = ", ".join(("true", "false", *_EXCLUSIVE))
        raise ResourceError(f"resource exclusive: expected one of {choices}, found {value!r}. Correct it in the rule.")
    return text


def _setup(resources: Mapping[str, Any]) -> dict[str, list[str]]:
    """Shell lines of this rule that run on the node before the job."""
    lines = lines_of(resources.get("submitit_setup"))
    return {"setup": lines} if lines else {}


def _gpu_count(resources: Mapping[str, Any]) -> int:
    """Number of requested GPUs, given as `gpu` or `gpus`."""
    return _whole(resources, "gpu", _whole(resources, "gpus", 0))


def _uses_gpus(resources: Mapping[str, Any]) -> bool:
    by_name = "gpu" in f"{resources.get('gres')} {resources.get('slurm_gres')}"
    return by_name or _gpu_count(resources) > 0 or any(name.startswith("slurm_gpus") for name in resources)


def _gpus(resources: Mapping[str, Any], option: str) -> dict[str, Any]:
    count = _gpu_count(resources)
    if not count:
        return {}
    if option == "gpus":  # of the whole job
        count *= max(1, _whole(resources, "nodes", 1))
    model = resources.get("gpu_model")
    value = f"{model}:{count}" if model else count
    if option == "gres":
        return {"gres": ",".join(filter(None, [f"gpu:{value}", str(resources.get("gres") or "")]))}
    return {option.replace("-", "_"): value}


def _nodes(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Several nodes: the job's command runs once, on the first; its own srun starts processes on the others."""
    nodes = _whole(resources, "nodes", 1)
    if nodes <= 1:
        return {}
    return {"nodes": nodes, "ntasks_per_node": 1, "srun_args": ["--nodes=1", "--ntasks=1", "--overlap"]}


def _verbatim(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Options that sbatch gets unchanged: all other resources named slurm_<option>, and those in slurm_extra."""
    options: dict[str, Any] = {}
    for name, value in resources.items():
        if name.startswith("slurm_") and name not in (*_NAMED, "slurm_extra", "slurm_job_name"):
            is_flag = str(value).lower() in ("", "true")
            options[name.removeprefix("slurm_").replace("_", "-")] = True if is_flag else value
    for word in shlex.split(str(resources.get("slurm_extra") or "")):
        if not word.startswith("--"):
            raise ResourceError(
                f"slurm_extra: expected options of the form --name or --name=value, found {word!r}. "
                "Write --name=value without a space."
            )
        name, equals, value = word.removeprefix("--").partition("=")
        if name == "clusters":
            raise ResourceError(f"slurm_extra: --clusters is not supported; {_ONE_CLUSTER}.")
        options[name] = value if equals else True
    return options


def _whole(resources: Mapping[str, Any], name: str, default: int) -> int:
    value = resources.get(name, default)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ResourceError(f"resource {name}: expected a whole number, found {value!r}. Correct it in the rule.")
    return number
