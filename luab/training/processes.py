"""Starts the processes of one training through torchrun, on one node or several, and says what became of them.

`luab train` is the launcher. Its child is an agent (`python -m luab.training.processes`): torchrun's own code
without its signal handlers and its failure table; across nodes Slurm's srun starts one agent per node. Its children
are `luab train` again, in torchrun's environment.

    luab train ── agent ─┬─ luab train (rank 0)          a warning signal goes from the launcher to rank 0 alone; all
                         └─ luab train (rank 1)          ranks agree on the step at which they stop

Ranks and agents leave notes in a folder, from which the launcher takes the one sentence that it ends with. Who loses
its parent ends at once, so that nothing trains on behind the back of a killed launcher.
"""

import contextlib
import json
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luab import errors
from luab.errors import ConfigError, JobError, LostProcess, LuabError
from luab.files import replacing, write_json
from luab.study.config import Compute, Study
from luab.study.paths import Run

_NOTES = "LUAB_NOTES"
_WARNINGS = (signal.SIGTERM, signal.SIGUSR2)
_POLL_S = 0.1
_GONE_S = 10.0


def launched() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def first() -> bool:
    """Whether this process is the one that writes."""
    return _rank() == 0


def note(error: LuabError, way: str) -> bool:
    """Leaves an error for the launcher to say.

    Args:
        error: What ended this process.
        way: Where it came from, for the log.

    Returns:
        Whether there is a launcher.
    """
    if _NOTES not in os.environ:
        return False
    print(f"process {_rank() + 1}: raised by {way}", file=sys.stderr, flush=True)
    _leave(f"error-{_rank()}", {"kind": error.kind, "lost": isinstance(error, LostProcess), "text": str(error)})
    return True


def ready() -> None:
    """Tells the launcher that this process listens for warnings."""
    if _NOTES in os.environ and launched():
        _leave(f"process-{_rank()}", {"pid": os.getpid(), "host": platform.node()})


def follow_launcher() -> None:
    """Ends this process, and its loaders, as soon as the agent that started it is gone."""
    if _NOTES not in os.environ or not launched():
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # the agent ignores these, and so did its children till here
        signal.signal(number, signal.SIG_DFL)
    _when_orphaned(lambda: os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1))


def launch(study: Study, run: Run) -> None:
    """Trains a run by several processes and returns when they are done.

    A warning signal (SIGTERM, SIGUSR2) is handed on; the training then saves and ends by itself.

    Raises:
        ConfigError: Several nodes are asked for outside of a Slurm job, or more than it has.
        LuabError: What ended the training.
    """
    folder = study.layout.run(run)
    with _signals() as came, _notes_folder(folder) as notes:
        with replacing(notes / "study.yaml") as aside:
            aside.write_text(study.dump())
        environment = {**os.environ, _NOTES: str(notes), "LUAB_CONFIG": str(notes / "study.yaml")}
        environment.setdefault("OMP_NUM_THREADS", str(study.compute.threads_each))
        agent = subprocess.Popen(
            [*_command(study.compute), "-m", "luab", "train", run.folder],
            env=environment,
            stdin=subprocess.DEVNULL,
            # Ignored is inherited: between here and its own first line nothing may end the agent.
            preexec_fn=_deaf,
        )
        try:
            code = _watch(agent, notes, came)
        finally:
            _end(agent, notes)
        if code:
            raise _reason(notes, code, came, study.compute.processes)


def agent(arguments: list[str]) -> int:
    """Runs torchrun with these arguments in this process; 0 where all its ranks succeeded.

    Without its signal handlers: on SIGTERM it would give its ranks 30 seconds, too few to save on a slow disk. It sets
    none outside of the main thread.
    """
    _deaf()
    _when_orphaned(lambda: os._exit(1))
    codes: list[int] = []
    runner = threading.Thread(target=lambda: codes.append(_torchrun(arguments)), daemon=True)
    runner.start()
    runner.join()
    return codes[0] if codes else 1


def _torchrun(arguments: list[str]) -> int:
    import logging

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):  # each of its loggers has set a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    if (node := os.environ.get("SLURM_NODEID")) and "--nnodes" in arguments:
        arguments = ["--node-rank", node, *arguments]
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        _leave(f"failure-{rank}", {"rank": rank, "code": failure.exitcode})
        return 1
    return 0


def _command(compute: Compute) -> list[str]:
    """The command that starts the agents, without what each rank shall run."""
    here = [
        sys.executable,
        "-m",
        "luab.training.processes",
        "--max-restarts",
        "0",
        "--nproc-per-node",
        str(compute.gpus),
    ]
    if compute.nodes == 1:
        return [*here, "--master-addr", "127.0.0.1", "--master-port", str(_free_port(0))]
    job, nodes = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_JOB_NUM_NODES") or 0)
    if job is None or nodes < compute.nodes:
        found = f"Slurm job {job} with {nodes} of them" if job else "no Slurm job around this command"
        raise ConfigError(
            f"compute.nodes is {compute.nodes}, but there is {found}. Use `snakemake --profile slurm`, or call this "
            f"inside `salloc --nodes={compute.nodes}`; on one machine set compute.nodes to 1."
        )
    spread = ["srun", "--overlap", f"--nodes={compute.nodes}", f"--ntasks={compute.nodes}", "--ntasks-per-node=1"]
    spread += ["--kill-on-bad-exit=1", f"--cpus-per-task={os.environ.get('SLURM_CPUS_PER_TASK') or compute.threads}"]
    # By the job's number, so that two trainings on one node do not meet; in an array each has its own.
    port = _free_port(20000 + int(job) % 20000)
    of_all = ["--nnodes", str(compute.nodes), "--master-addr", _first_host(), "--master-port", str(port)]
    return [*spread, *here, *of_all]


def _first_host() -> str:
    """Address of the job's first node, where the plugin runs this command."""
    if os.environ.get("SLURM_NODEID", "0") == "0" and os.environ.get("SLURMD_NODENAME"):
        return platform.node()
    names = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True)
    return names.stdout.split()[0]


def _free_port(wanted: int) -> int:
    for port in range(wanted, wanted + 100 if wanted else 1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            number: int = probe.getsockname()[1]
            return number
    raise JobError(f"No free port from {wanted} to {wanted + 99} on {platform.node()}. Give the same command again.")


def _watch(agent: "subprocess.Popen[bytes]", notes: Path, came: list[int]) -> int:
    """The agent's exit status; hands on the warnings that come meanwhile."""
    told = 0
    while (code := agent.poll()) is None:
        time.sleep(_POLL_S)
        if told < len(came) and (pid := _pids(notes).get(0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, came[told])
            told += 1
    return code


def _end(agent: "subprocess.Popen[bytes]", notes: Path) -> None:
    """Leaves no process behind, whatever ends this one."""
    if agent.poll() is None:
        agent.kill()
        agent.wait()
    deadline = time.monotonic() + _GONE_S  # orphans notice it within a second
    while time.monotonic() < deadline and any(_alive(pid) for pid in _pids(notes).values()):
        time.sleep(_POLL_S)


def _reason(notes: Path, code: int, came: list[int], processes: int) -> LuabError:
    # Who lost contact does not know why: another one, or its exit status, tells.
    said = sorted(_read(notes, "error-*"), key=lambda found: (found["lost"], found["time"]))
    if said and not said[0]["lost"]:
        kind: type[LuabError] = getattr(errors, said[0]["kind"])
        return kind(said[0]["text"])
    failures = sorted(_read(notes, "failure-*"), key=lambda found: found["time"])
    if came and not _pids(notes):
        return JobError(f"Stopped by {signal.Signals(came[0]).name} before the training began; nothing was lost.")
    again = "The same command goes on from the last kept state."
    if failures and failures[0]["code"] < 0:
        name = signal.Signals(-failures[0]["code"]).name
        memory = "; mostly the memory ran out: ask for more, or lower compute.workers" if name == "SIGKILL" else ""
        return JobError(
            f"Process {failures[0]['rank'] + 1} of {processes} of this training was ended by {name}{memory}. {again}"
        )
    if failures:
        return JobError(
            f"Process {failures[0]['rank'] + 1} of {processes} of this training ended with status "
            f"{failures[0]['code']}; its last words stand above. {again}"
        )
    if said:
        return JobError(said[0]["text"])
    if came:  # on several nodes, srun kills its tasks when SIGTERM reaches it
        return JobError(f"Ended after {signal.Signals(came[0]).name} before the state could be saved. {again}")
    return JobError(f"The processes of this training could not be started or were ended (status {code}). {again}")


@contextlib.contextmanager
def _notes_folder(folder: Path) -> Iterator[Path]:
    # Beside the results, as it must be seen from every node.
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".notes-*"):
        shutil.rmtree(left, ignore_errors=True)
    notes = Path(tempfile.mkdtemp(dir=folder.resolve(), prefix=".notes-"))
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yields the list of warnings that came."""
    came: list[int] = []
    kept = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _WARNINGS}
    try:
        yield came
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _deaf() -> None:
    for number in (*_WARNINGS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _when_orphaned(end: Any) -> None:
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        end()

    threading.Thread(target=look, daemon=True).start()


def _rank() -> int:
    return int(os.environ.get("RANK") or 0)


def _leave(name: str, content: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, LuabError):
        write_json(Path(os.environ[_NOTES]) / f"{name}.json", {"time": time.time(), **content})


def _read(notes: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in notes.glob(f"{pattern}.json")]


def _pids(notes: Path) -> dict[int, int]:
    """Process ids of the ranks on this node, by rank."""
    here = {file: json.loads(file.read_text()) for file in notes.glob("process-*.json")}
    return {
        int(file.stem.partition("-")[2]): found["pid"]
        for file, found in here.items()
        if found["host"] == platform.node()
    }


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    os._exit(agent(sys.argv[1:]))  # at once: taking torch apart in order takes seconds
