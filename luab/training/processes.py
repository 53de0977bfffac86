"""Starts the processes of one training with torchrun, on one node or several, and reports how they ended.

`luab train` is the launcher. It starts an agent (`python -m luab.training.processes`), which runs torchrun without
its signal handlers and its failure table; on several nodes Slurm's srun starts one agent per node. The agent starts
`luab train` again in each rank, with torchrun's environment variables.

    luab train ── agent ─┬─ luab train (rank 0)          the launcher passes a warning signal to rank 0 only; all
                         └─ luab train (rank 1)          ranks agree on the step at which they stop

Ranks and agents write notes into a folder, from which the launcher takes its final error message. A process whose
parent ends exits at once, so that nothing keeps training after the launcher was killed. Each process receives its
parent's process id, because a parent may end before its child can look for it.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from luab import errors
from luab.errors import ConfigError, JobError, LostProcess, LuabError
from luab.files import replacing, write_json
from luab.study.config import Compute, Study
from luab.training.heartbeat import job_id, restarts
from luab.training.own_process import (
    NOTES,
    PARENT,
    RANKS,
    WARNINGS,
    caught_warnings,
    launched,
    rank_variables,
    torchrun_variables,
)

LOCK = ".lock"
_POLL_S = 0.1
_EXIT_S = 10.0
_RELEASE_S = 120.0  # NFS servers release the locks of a dead client after about 90 s
_RESUME = "The same command resumes from the last saved state."


def first() -> bool:
    """Whether this process writes files."""
    return _rank() == 0


def note(error: LuabError, origin: str) -> bool:
    """Writes an error as a note for the launcher to report.

    Args:
        error: The error that ends this process.
        origin: Where it was raised, for the log.

    Returns:
        Whether a launcher will report it.
    """
    if not launched():
        return False
    print(f"process {_rank() + 1}: raised by {origin}", file=sys.stderr, flush=True)
    _write_note(f"error-{_rank()}", {"kind": error.kind, "lost": isinstance(error, LostProcess), "text": str(error)})
    return True


def ready() -> None:
    """Notes for the launcher that this process now handles warning signals."""
    if launched():
        _write_note(f"process-{_rank()}", {"pid": os.getpid(), "host": platform.node()})


def follow_launcher() -> None:
    """Makes a rank and its data loaders end as soon as the agent that started it is gone.

    In a process that is not a rank, removes the variables by which other launchers number their processes, so that
    neither luab nor torch obeys them.

    Raises:
        JobError: This process was started as a rank, but the agent that started it is already gone.
    """
    if not launched():
        if NOTES in os.environ and PARENT in os.environ:
            raise JobError(
                f"Expected process {os.environ[PARENT]}, which starts the processes of a training, as parent of this "
                f"process, found process {os.getppid()}: the training was ended. Run `luab train` again; if this was "
                f"your own command, first unset {NOTES} and {PARENT}."
            )
        _ignore_other_launchers()
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # inherited from the agent, which ignores them
        signal.signal(number, signal.SIG_DFL)
    _when_orphaned(
        int(os.environ[PARENT]),
        lambda: os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1),
    )


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Context in which this process is the only one that trains into a run's folder.

    The lock is on a small file that names its holder. The kernel releases it when this process ends, however that
    happens; the file is removed at the end, and one left by a killed process does no harm.

    Raises:
        JobError: Another process holds the lock, or the folder is not writable.
    """
    path = folder / LOCK
    # After a node failure, the server releases the lock of a restarted job's first attempt a little later.
    deadline = time.monotonic() + (_RELEASE_S if restarts() else 0.0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (handle := _lock(path)) is None:
            holder = _holder(path)
            if holder.get("job") != job_id() or time.monotonic() > deadline:
                raise _held(folder, holder)
            time.sleep(1)
    except OSError as error:
        raise JobError(
            f"{path}: expected a folder in which this training can write, found none ({error.strerror or error}). Free "
            "some space, correct its permissions or change `paths.results` in the config."
        ) from error
    with contextlib.suppress(OSError):  # on a full disk the lock has no name, but holds
        os.ftruncate(handle, 0)
        content = {"host": platform.node(), "pid": os.getpid(), "job": job_id(), "since": round(time.time(), 3)}
        os.pwrite(handle, json.dumps(content).encode(), 0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def launch(study: Study, folder: Path, command: Sequence[str]) -> None:
    """Trains in several processes and waits until they are done.

    A warning signal (SIGTERM, SIGUSR2) is passed on; the training then saves its state and ends.

    Args:
        study: The configuration, which all processes get.
        folder: Folder of the run, in which the training writes run.json.
        command: Arguments of `luab` in each process, for example ("train", "imagenet/resnet50/click-1/seed0").

    Raises:
        ConfigError: Several nodes are configured outside of a Slurm job, or more than the job has.
        LuabError: The error that ended the training.
    """
    card = folder / "run.json"
    with caught_warnings() as received, _notes_folder(folder) as notes:
        before = _version(card)
        with replacing(notes / "study.yaml") as aside:
            aside.write_text(study.dump(), encoding="utf-8")
        environment = {**os.environ, NOTES: str(notes), "LUAB_CONFIG": str(notes / "study.yaml")}
        environment[PARENT] = str(os.getpid())
        if study.compute.nodes > 1:  # these agents are children of Slurm
            del environment[PARENT]
        environment.setdefault("OMP_NUM_THREADS", str(study.compute.threads_each))
        agent = subprocess.Popen(
            [*_command(study.compute), "-m", "luab", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            # Inherited by the agent, so that no signal can end it before its first line.
            preexec_fn=_ignore_signals,
        )
        try:
            status = _watch(agent, notes, received)
        finally:
            _end(agent, notes)
        if status:
            raise _reason(notes, status, received, study.compute.processes)
        if _version(card) in (None, before):
            raise JobError(
                f"{card}: expected a new file from this training, found "
                f"{'none' if before is None else 'the old one'}, although all its processes ended without an error. "
                f"{_RESUME}"
            )


def agent(arguments: list[str]) -> int:
    """Runs torchrun with these arguments in this process; returns 0 if all its ranks succeeded.

    torchrun runs in a thread, where it installs no signal handlers: on SIGTERM they would give its ranks 30 seconds,
    too few to save to a slow disk.
    """
    _ignore_signals()
    _when_orphaned(int(os.environ.get(PARENT) or os.getppid()), lambda: os._exit(1))
    os.environ[PARENT] = str(os.getpid())
    statuses: list[int] = []
    runner = threading.Thread(target=lambda: statuses.append(_torchrun(arguments)), daemon=True)
    runner.start()
    runner.join()
    return statuses[0] if statuses else 1


def _torchrun(arguments: list[str]) -> int:
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):  # each of its loggers sets a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    if (node := os.environ.get("SLURM_NODEID")) and "--nnodes" in arguments:
        arguments = ["--node-rank", node, *arguments]
    try:
        torchrun(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        _write_note(f"failure-{rank}", {"rank": rank, "status": failure.exitcode})
        return 1
    return 0


def _command(compute: Compute) -> list[str]:
    """Returns the command that starts the agents, without the command of each rank."""
    agent = [sys.executable, "-m", "luab.training.processes", "--max-restarts", "0"]
    agent += ["--nproc-per-node", str(compute.gpus)]
    if compute.nodes == 1:
        return [*agent, "--master-addr", "127.0.0.1", "--master-port", str(_free_port(0))]
    job, nodes = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_JOB_NUM_NODES") or 0)
    if job is None or nodes < compute.nodes:
        found = f"runs in Slurm job {job}, which has {nodes}" if job else "does not run in a Slurm job"
        raise ConfigError(
            f"compute.nodes is {compute.nodes}, but this command {found}. Use `snakemake --profile slurm`, or call it "
            f"inside `salloc --nodes={compute.nodes}`; on one machine set compute.nodes to 1."
        )
    srun = ["srun", "--overlap", f"--nodes={compute.nodes}", f"--ntasks={compute.nodes}", "--ntasks-per-node=1"]
    srun += ["--kill-on-bad-exit=1", f"--cpus-per-task={os.environ.get('SLURM_CPUS_PER_TASK') or compute.threads}"]
    # Derived from the job id, so that two trainings on one node do not collide; each array element has its own id.
    port = _free_port(20000 + int(job) % 20000)
    return [*srun, *agent, "--nnodes", str(compute.nodes), "--master-addr", _first_host(), "--master-port", str(port)]


def _first_host() -> str:
    """Returns the host name of the job's first node, on which the executor plugin runs this command."""
    if os.environ.get("SLURM_NODEID", "0") == "0" and os.environ.get("SLURMD_NODENAME"):
        return platform.node()
    names = subprocess.run(
        ["scontrol", "show", "hostnames"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    )
    return names.stdout.split()[0]


def _free_port(lowest: int) -> int:
    for port in range(lowest, lowest + 100 if lowest else 1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            number: int = probe.getsockname()[1]
            return number
    raise JobError(f"No free port from {lowest} to {lowest + 99} on {platform.node()}. Run the same command again.")


def _watch(agent: "subprocess.Popen[bytes]", notes: Path, received: list[signal.Signals]) -> int:
    """Waits for the agent and returns its exit status; passes warning signals on to rank 0."""
    passed_on = 0
    while (status := agent.poll()) is None:
        time.sleep(_POLL_S)
        if passed_on < len(received) and (pid := _pids(notes).get(0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, received[passed_on])
            passed_on += 1
    return status


def _end(agent: "subprocess.Popen[bytes]", notes: Path) -> None:
    """Ends the agent and waits until its ranks on this node have ended too."""
    if agent.poll() is None:
        agent.kill()
        agent.wait()
    deadline = time.monotonic() + _EXIT_S  # ranks notice within a second that their parent is gone
    while time.monotonic() < deadline and any(_alive(pid) for pid in _pids(notes).values()):
        time.sleep(_POLL_S)


def _reason(notes: Path, status: int, received: list[signal.Signals], processes: int) -> LuabError:
    # A rank that lost contact does not know the cause; the error or exit status of another rank does.
    raised = sorted(_read_notes(notes, "error-*"), key=lambda content: (content["lost"], content["time"]))
    if raised and not raised[0]["lost"]:
        kind: type[LuabError] = getattr(errors, raised[0]["kind"])
        return kind(raised[0]["text"])
    if received and not _pids(notes):
        return JobError(f"Stopped by {received[0].name} before the training began; nothing was lost.")
    if failures := sorted(_read_notes(notes, "failure-*"), key=lambda content: content["time"]):
        rank, exit_status = failures[0]["rank"], failures[0]["status"]
        process = f"Process {rank + 1} of {processes} of this training"
        if exit_status >= 0:
            return JobError(f"{process} exited with status {exit_status}; its output is above. {_RESUME}")
        name = signal.Signals(-exit_status).name
        memory = "; probably out of memory: request more, or lower compute.workers" if name == "SIGKILL" else ""
        return JobError(f"{process} was ended by {name}{memory}. {_RESUME}")
    if raised:
        return JobError(raised[0]["text"])
    if received:  # on several nodes, srun kills its tasks when it receives SIGTERM
        return JobError(f"Ended after {received[0].name} before the state could be saved. {_RESUME}")
    return JobError(f"The processes of this training could not be started or were killed (status {status}). {_RESUME}")


@contextlib.contextmanager
def _notes_folder(folder: Path) -> Iterator[Path]:
    # In the run's folder, because every node must see it.
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".notes-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    notes = Path(tempfile.mkdtemp(dir=folder.resolve(), prefix=".notes-"))
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _version(path: Path) -> tuple[int, int] | None:
    """Returns what changes when a file is replaced; None if it does not exist."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _lock(path: Path) -> int | None:
    """Opens and locks a file, which it creates; None if another process holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(handle)
                return None
            print(
                f"{path.parent}: this file system has no locks ({error.strerror}). The training continues; make sure "
                "that no other one trains this run.",
                file=sys.stderr,
                flush=True,
            )
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # its last holder has just removed this file


def _holder(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _held(folder: Path, holder: dict[str, Any]) -> JobError:
    name = "another process"
    if {"host", "pid", "since"} <= holder.keys():
        job = f", Slurm job {holder['job']}," if holder.get("job") else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(float(holder["since"])))
        name = f"process {holder['pid']} on {holder['host']}{job} since {since}"
    return JobError(
        f"{folder}: expected no other training of this run, found one: {name}. Nothing was changed. Wait until it has "
        "ended, or end it, then run the same command again."
    )


def _ignore_other_launchers() -> None:
    found = torchrun_variables()
    for name in found:
        del os.environ[name]
    if named := [f"{name}={found[name]}" for name in RANKS if name in found]:
        print(
            f"{', '.join(named)}: set by another launcher and ignored. luab starts its own processes, "
            "compute.gpus x compute.nodes in the config.",
            file=sys.stderr,
            flush=True,
        )


def _ignore_signals() -> None:
    for number in (*WARNINGS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _when_orphaned(parent: int, end: Callable[[], object]) -> None:
    """Calls `end` once the parent of this process is another one; at once if it already is."""
    if os.getppid() != parent:
        end()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _rank() -> int:
    return rank_variables()[0]


def _write_note(name: str, content: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, LuabError):
        write_json(Path(os.environ[NOTES]) / f"{name}.json", {"time": time.time(), **content})


def _read_notes(notes: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in notes.glob(f"{pattern}.json")]


def _pids(notes: Path) -> dict[int, int]:
    """Returns the process ids of the ranks on this node, by rank."""
    contents = {file: json.loads(file.read_text(encoding="utf-8")) for file in notes.glob("process-*.json")}
    return {
        int(file.stem.partition("-")[2]): content["pid"]
        for file, content in contents.items()
        if content["host"] == platform.node()
    }


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    os._exit(agent(sys.argv[1:]))  # at once, because an orderly exit of torch takes seconds
