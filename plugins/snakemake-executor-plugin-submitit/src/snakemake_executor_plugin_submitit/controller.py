"""The Snakemake that submits and follows the jobs: who it is, whether it is gone, and the lock that a dead one left.

`controller.json` names the last one. `controller.lock` is locked as long as a Snakemake lives.
"""

import fcntl
import json
import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from .registry import CHECKED, Registry
from .slurm_states import Slurm, SlurmUnreachable

RECORD = "controller.json"
_LOCK = "controller.lock"
_LOCKS = Path(".snakemake") / "locks"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SILENT_S = 600  # squeue runs once a minute at least, and may take two minutes to fail
_START_S = 300  # Snakemake locks its folder, checks all files, then starts the executor
_CLOCK_S = 30  # the clock may be corrected
_held: list[TextIO] = []  # open, and so locked, until this process ends


@dataclass(frozen=True)
class Controller:
    """A Snakemake that submits jobs.

    Attributes:
        host: Name of its machine.
        boot: Id of that machine's boot; empty if unknown.
        pid: Process id.
        born: When the process started, seconds since 1970.
        job: Id of the Slurm job that it runs in; empty if none.
        restarts: How often Slurm restarted that job.
        command: Command line.
        cwd: Folder it runs in.
    """

    host: str
    boot: str
    pid: int
    born: float
    job: str
    restarts: int
    command: str
    cwd: str

    @classmethod
    def own(cls) -> "Controller":
        """This process."""
        program = Path(sys.argv[0])
        name = program.parent.name if program.name == "__main__.py" else program.name
        return cls(
            os.uname().nodename,
            _boot(),
            os.getpid(),
            _born(os.getpid()),
            os.environ.get("SLURM_JOB_ID", ""),
            int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            shlex.join([name, *sys.argv[1:]]),
            str(Path.cwd()),
        )

    def is_gone(self, slurm: Slurm | None = None) -> bool:
        """Whether this process has ended for certain; False if it lives, or if nobody here can know.

        Args:
            slurm: Is asked for the Slurm job in which the process ran on another machine; None to not ask.
        """
        if self.host == os.uname().nodename:
            return _boot() != self.boot or abs(_born(self.pid) - self.born) > _CLOCK_S
        if not self.job:
            return False
        if self.job == os.environ.get("SLURM_JOB_ID"):
            return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > self.restarts
        try:
            state = slurm.queue([self.job]).get(self.job) if slurm else None
        except SlurmUnreachable:
            return False
        return slurm is not None and (state is None or not state.alive)


def register(folder: Path) -> None:
    """Records this process as the one that submits the jobs, unless another one that lives is recorded.

    Args:
        folder: Folder of the plugin.
    """
    if _hold(folder):
        aside = folder / f".{RECORD}.part"
        aside.write_text(json.dumps(asdict(Controller.own())), encoding="utf-8")
        os.replace(aside, folder / RECORD)


def free_lock(folder: Path, locks: Path = _LOCKS) -> str:
    """Removes the lock of the working folder if the Snakemake that left it is gone for certain.

    A requeued Slurm job, or the next command on the same machine, then needs no `--unlock`. Call it in the Snakefile,
    in the main process only. While this process lives, no other one removes a lock.

    Args:
        folder: Folder of the plugin.
        locks: Snakemake's locks.

    Returns:
        A sentence about the removed lock; empty if there was none, or if it stays.
    """
    last = _last(folder)
    if last is None or not _hold(folder):
        return ""
    written = (folder / RECORD).stat().st_mtime
    files = {path: path.stat().st_mtime for path in locks.glob("*.lock")}
    if not files or not all(written - _START_S < changed <= written + 1 for changed in files.values()):
        return ""
    if not last.is_gone(Slurm()):
        return ""
    for path in files:
        path.unlink(missing_ok=True)
    return f"Removed the lock of a Snakemake that is gone: process {last.pid} on {last.host}{_in_job(last)}."


def notice(folder: Path) -> str:
    """Describes jobs that no Snakemake follows any more; empty if one does, or if there are no live jobs."""
    last = _last(folder)
    jobs = [entry for entry in Registry(folder / "live").unended() if entry.id]
    if last is None or not jobs:
        return ""
    times = [path.stat().st_mtime for path in (folder / RECORD, folder / "live" / CHECKED) if path.exists()]
    is_gone = last.is_gone()
    alive_here = last.host == os.uname().nodename and not is_gone
    if alive_here or (not is_gone and time.time() - max(times) < _SILENT_S):
        return ""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(times)))
    what = "has ended" if is_gone else "gives no sign of life"
    return (
        f"No Snakemake has followed the {len(jobs)} live jobs since {since}: process {last.pid} on "
        f"{last.host}{_in_job(last)} {what}. The jobs go on, but no new ones are submitted. To continue, run\n"
        f"    cd {shlex.quote(last.cwd)} && {last.command}"
    )


def _last(folder: Path) -> Controller | None:
    try:
        content: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
        return Controller(**content)
    except (OSError, ValueError, TypeError):
        return None


def _hold(folder: Path) -> bool:
    """Locks the folder until this process ends; False if another process has locked it, or if locks do not work."""
    if _held:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / _LOCK, "a", encoding="utf-8")  # noqa: SIM115
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    _held.append(file)
    return True


def _in_job(controller: Controller) -> str:
    return f" in Slurm job {controller.job}" if controller.job else ""


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _born(pid: int) -> float:
    """When a process started, seconds since 1970; 0 if there is none."""
    import psutil  # Snakemake's dependency; not needed inside jobs

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return 0.0
