"""Explains why a job failed, with the end of its log."""

import json
import pickle
import pwd
import re
from collections.abc import Sequence
from pathlib import Path

from .registry import Entry
from .slurm_states import State

_HOST_MEMORY = re.compile(
    r"exceeded (?:job |step )?memory limit|oom[-_ ]?kill|Out Of Memory|std::bad_alloc|\bMemoryError\b|"
    r"Cannot allocate memory|DefaultCPUAllocator: can't allocate",
    re.I,
)
_GPU_MEMORY = re.compile(r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|HIP out of memory", re.I)
_KILLED_BY_SLURM = re.compile(r"CANCELLED AT \S+ (DUE TO [A-Z ]+)")
_SUBMITIT_TRACEBACK = re.compile(
    r"(?:submitit ERROR .* - Submitted job triggered an exception\n)+Traceback .*\n(?:[ ].*\n|\n)*.*\n?"
)
# fmt: off
_UNINFORMATIVE = re.compile("|".join((
    r"submitit INFO .* - (?:Starting with|Loading pickle)", "Shutting down, this might take", "Storing output in",
    "Exiting because a job execution failed", "Elapsed time:", "WorkflowError:$", "At least one job did not complete",
    r"\s*$",
)))
# fmt: on
_READ_BYTES = 64_000


def tail(path: Path, lines: int) -> str:
    """Returns the last lines of a job's log without what submitit and Snakemake add to every failure; "" if none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    informative = [line for line in _SUBMITIT_TRACEBACK.sub("", text).splitlines() if not _UNINFORMATIVE.match(line)]
    return "\n".join(informative[-lines:])


def read_result(path: Path) -> tuple[bool, str] | None:
    """Reads the result file that submitit writes at the end of a job.

    Returns:
        Whether the job succeeded, and the traceback if not; None if the file is not readable yet.
    """
    try:
        with open(path, "rb") as file:
            outcome, trace = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return outcome == "success", "" if outcome == "success" else str(trace)


def reason(state: State | None, trace: str, log: str) -> str:
    """Returns the cause of a failure, derived from the job's state, traceback and log.

    Args:
        state: Last known state in Slurm; None if unknown.
        trace: Traceback in the result file; empty if there is none.
        log: End of the log.
    """
    killed = _KILLED_BY_SLURM.findall(log[-4000:])
    due = killed[-1].strip() if killed else ""
    if "timed-out" in trace or (not trace and (_is(state, "TIMEOUT", "DEADLINE") or "TIME LIMIT" in due)):
        return _timed_out(trace)
    if _GPU_MEMORY.search(log) and not _is(state, "OUT_OF_MEMORY"):
        return "out of GPU memory. Reduce the batch size or request a larger GPU; more mem_mb does not help"
    if _is(state, "OUT_OF_MEMORY") or _HOST_MEMORY.search(log):
        return "out of memory. Give the rule more mem_mb, e.g. `mem_mb=lambda wildcards, attempt: attempt * 8000`"
    if trace:
        return _from_trace(trace, log)
    return _without_result(state, due)


def explain(entry: Entry, state: State | None, why: str, lines: int) -> str:
    """Returns the full message about a failed job: id, node, number of starts, reason, and the end of its log."""
    node = (state.node if state else "") or entry.node
    facts = [
        f"job {entry.id} ({entry.name})",
        f"on {node}" if node else "",
        f"after {state.elapsed}" if state and state.elapsed else "",
    ]
    start_count = len(starts(entry))
    if start_count > 1:
        facts.append(f"started {start_count} times")
    end = tail(entry.log, lines)
    if end:
        shown = f"last lines of {entry.log}:\n{_indented(end)}"
    elif Path(entry.folder).is_dir():
        shown = f"its log {entry.log} is empty or missing"
    else:
        shown = f"its folder {entry.folder}, which holds its command, log and result, was deleted meanwhile"
    return f"{' '.join(filter(None, facts))} failed: {why}.\n{shown}\n"


def starts(entry: Entry) -> Sequence[dict[str, object]]:
    """Reads the records that the job wrote at each of its starts."""
    try:
        return [json.loads(line) for line in entry.starts.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _is(state: State | None, *names: str) -> bool:
    return state is not None and state.name in names


def _timed_out(trace: str) -> str:
    if "too many times" in trace:
        return (
            "time limit reached again after all continuations allowed by submitit-max-timeouts. Give the rule more "
            "`runtime`, or raise submitit-max-timeouts"
        )
    return (
        "time limit reached. Give the rule more `runtime` (minutes), or let its command save and exit on the warning "
        "signal SIGUSR2; then the job is continued"
    )


def _from_trace(trace: str, log: str) -> str:
    if "checkpoint function returned None" in trace:
        return _timed_out(trace)
    # The nested Snakemake always exits with 1; the exit status of the rule's command is in its log.
    status = re.findall(r"returned non-zero exit status (\d+)", log) or re.findall(r"exit status (-?\d+)", trace)
    if status:
        killed = " (killed; probably out of memory)" if status[-1] == "137" else ""
        return f"exit status {status[-1]}{killed}"
    died = re.search(r"died with <Signals\.(\w+)", trace)
    if died:
        return f"killed by {died.group(1)}"
    return trace.strip().splitlines()[-1]


def _without_result(state: State | None, due: str) -> str:
    if "NODE FAILURE" in due or _is(state, "NODE_FAIL", "BOOT_FAIL"):
        return "its node failed and Slurm did not restart it"
    if "PREEMPTION" in due or _is(state, "PREEMPTED"):
        return (
            "preempted and not restarted. Unless no-requeue was requested, ask the administrators whether the "
            "partition requeues preempted jobs"
        )
    if state is None:
        return (
            "it disappeared without a result, and Slurm has no record of it. It was cancelled while it waited, was "
            "killed, or its folder is not shared with the nodes"
        )
    if state.name == "CANCELLED":
        return f"cancelled by {_user(state.by)}" if state.by else "cancelled"
    if state.name == "COMPLETED":
        return (
            "Slurm reports COMPLETED, but the result file is missing. Check that submitit-folder is shared with the "
            "nodes; on a slow file system raise submitit-result-grace"
        )
    return f"ended as {state.name} without a result" + (f", exit code {state.exit_code}" if state.exit_code else "")


def _user(number: str) -> str:
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (KeyError, ValueError):
        return f"user {number}"


def _indented(text: str) -> str:
    return "\n".join(f"    | {line}" for line in text.splitlines())
