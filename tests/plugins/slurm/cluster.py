"""A throwaway Slurm cluster on this machine, for tests: two nodes with fake GPUs, with or without accounting.

It runs the installed Slurm programs (Debian's packages, see `PACKAGES`) with its own settings: all files are in one
temporary folder, all ports were free before, and clients find it only through SLURM_CONF, so it does not interfere with
a cluster that already runs on the machine. It does not need root. `keeper.py` ends all its processes, including jobs,
and removes the folder, even if the process that started it is killed.

    with Cluster() as cluster:
        job = cluster.submit("echo $CUDA_VISIBLE_DEVICES", "--gpus-per-node=1")
        cluster.wait_for(job, "COMPLETED")
        print(cluster.output(job))

`python tests/plugins/slurm/cluster.py` starts one for trying things out.
"""

import contextlib
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

PACKAGES = ("slurm-wlm", "slurmdbd", "mariadb-server", "munge")
NODES = ("n1", "n2")
CPUS, MEMORY_MB, GPUS = 4, 8000, 2  # of each node; only settings, the machine may have less
FINAL = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}

_KEEPER = Path(__file__).with_name("keeper.py")
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_PLAIN_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
_ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "sacct", "mariadbd", "mysql_install_db")


class ClusterError(Exception):
    """The throwaway cluster or a job on it failed; the text ends with the daemons' logs."""


def missing_programs(accounting: bool = True) -> str:
    """Names the programs that are not installed and the packages that contain them; "" if all are installed."""
    programs = _PLAIN_PROGRAMS + (_ACCOUNTING_PROGRAMS if accounting else ())
    absent = [program for program in programs if shutil.which(program, path=_search_path()) is None]
    if not absent:
        return ""
    return f"{', '.join(absent)} not found: install {' '.join(PACKAGES)} (apt-get install --no-install-recommends)."


class Cluster:
    """A cluster that runs between `start` and `stop`, or as a context manager.

    The nodes n1 and n2 have 4 CPUs, 8000 MB and 2 fake GPUs each (`--gpus-per-node`; CUDA_VISIBLE_DEVICES is set).
    Partition `gpu` is the default, `urgent` has higher priority. With accounting, the account is `luab` and the QOS are
    `scavenge` (default) and `urgent`. Memory limits are enforced: a job that exceeds its request is killed.

    Args:
        accounting: Whether MariaDB and slurmdbd run. Without them `sacct` fails, as on clusters without accounting.
        preemption: Which jobs preempt others, by requeueing them: `partition` (jobs in `urgent` preempt those in `gpu`)
            or `qos` (jobs of QOS `urgent` preempt those of `scavenge`; needs accounting).
        preempt_signal: Whether a preempted job receives the signal that it requested with `--signal` at the beginning
            of its grace time (`preempt_send_user_signal`); otherwise it receives only SIGCONT and SIGTERM.
        grace_s: Seconds between the start of a preemption and the kill.
        user: Login name that daemons and jobs run as; only root may set it.

    Attributes:
        folder: Holds all files of the cluster; removed by `stop`.
    """

    def __init__(
        self,
        *,
        accounting: bool = True,
        preemption: Literal["partition", "qos"] = "partition",
        preempt_signal: bool = True,
        grace_s: int = 20,
        user: str | None = None,
    ) -> None:
        if preemption == "qos" and not accounting:
            raise ValueError("preemption by QOS needs accounting=True: QOS are stored in the accounting database.")
        if user is not None and os.getuid() != 0:
            raise ValueError(f"only root may run the cluster as another user; found user={user!r}.")
        self.accounting = accounting
        self.preemption = preemption
        self.preempt_signal = preempt_signal
        self.grace_s = grace_s
        self.user = user or pwd.getpwuid(os.getuid()).pw_name
        self._switched = user is not None
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self._database_password = secrets.token_hex(16)
        self.folder = Path()

    # Starting and stopping

    def start(self) -> Self:
        """Starts everything and returns when both nodes accept jobs (3 to 6 s).

        Raises:
            ClusterError: A program is missing or a daemon did not start; nothing is left running.
        """
        if missing := missing_programs(self.accounting):
            raise ClusterError(missing)
        self._lay_out()
        try:
            self._start_daemons()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kills all processes of the cluster, including jobs, and removes its folder. May be called repeatedly."""
        sweeper = self._keepers.pop("sweeper", None)
        keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.terminate()
        for keeper in keepers:
            keeper.wait()
        self._keepers.clear()
        if sweeper:
            sweeper.terminate()
            sweeper.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Cancels all jobs, restarts killed daemons and lifts the limits, for the next test."""
        for name in [*self._daemons(), *NODES]:
            if self._keepers[name].poll() is not None:
                self.revive(name)
        if self.accounting and self._submission_limit() is not None:
            self.limit_submissions(None)
        self.run("scancel", "--quiet", "--user", self.user, check=False)
        # A job that ignores SIGTERM lives until KillWait.
        self._until(lambda: not self.squeue(), 120, "the cancelled jobs to leave the queue")
        for node in NODES:
            self._await_node(node)

    # Slurm's commands

    def env(self) -> dict[str, str]:
        """Returns the environment of a process that uses this cluster; see `command` for its user."""
        foreign = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SINFO|SCANCEL|SCONTROL)_")
        own = {name: value for name, value in os.environ.items() if not foreign.match(name)}
        if self._switched:
            own |= {"HOME": str(self.folder / "jobs"), "USER": self.user, "LOGNAME": self.user}
        return own | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _search_path()}

    def command(self, *argv: str) -> list[str]:
        """Returns the command line that runs `argv` as the cluster's user; `argv` itself if `user` was not given."""
        if not self._switched:
            return list(argv)
        entry = pwd.getpwnam(self.user)
        return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--", *argv]

    def run(self, *argv: str, check: bool = True, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        """Runs a command as the cluster's user and captures stdout and stderr.

        Raises:
            ClusterError: It failed although `check` is set, or took longer than `timeout_s`.
        """
        # Not in the caller's folder, to which the cluster's user may have no access.
        try:
            done = subprocess.run(
                self.command(*argv),
                env=self.env(),
                cwd=self.folder / "jobs",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                encoding="utf-8",
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise self._error(f"`{' '.join(argv)}` did not finish within {timeout_s} s.") from None
        if check and done.returncode:
            raise self._error(
                f"`{' '.join(argv)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done

    def submit(self, script: str, *options: str) -> str:
        """Submits shell lines as a batch job and returns its id; `output` reads what it prints.

        Raises:
            ClusterError: sbatch refused it; the text contains the reason.
        """
        is_array = any(option.startswith("--array") for option in options)
        target = self.folder / "jobs" / ("%A_%a.out" if is_array else "%j.out")
        done = self.run("sbatch", "--parsable", f"--output={target}", "--open-mode=append", *options, "--wrap", script)
        return done.stdout.strip().split(";")[0]

    def output(self, job_id: str) -> str:
        """Returns what a job of `submit` has printed so far, including stderr; "" before it starts."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "jobs" / f"{job_id}.out").read_text(encoding="utf-8")
        return ""

    def squeue(self, *options: str) -> dict[str, str]:
        """Returns id -> state of all jobs that wait, run or are ending; array elements separately, as `12_3`."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T", *options).stdout.splitlines()
        return dict(line.split() for line in lines)

    def sacct(
        self, *options: str, fields: str = "JobID,State,ExitCode,Elapsed,NodeList,AllocTRES,MaxRSS"
    ) -> list[dict[str, str]]:
        """Returns rows of the accounting database, one per job and step; `options` such as `--jobs=12`.

        Raises:
            ClusterError: The cluster has no accounting.
        """
        out = self.run("sacct", "--parsable2", "--allusers", "--duplicates", f"--format={fields}", *options).stdout
        head, *rows = [line.split("|") for line in out.splitlines()]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def ended(self, *options: str, fields: str) -> list[dict[str, str]]:
        """Returns rows of `sacct --allocations` with State, once all jobs have ended there; the accounting lags."""

        def rows() -> list[dict[str, str]]:
            return self.sacct("--allocations", *options, fields=f"{fields},State")

        open_states = ("PENDING", "RUNNING", "SUSPENDED")
        self._until(
            lambda: all(row["State"] not in open_states for row in rows()),
            120,
            "the ends of all jobs in the accounting",
        )
        return rows()

    def scontrol(self, *arguments: str) -> str:
        """Returns the output of `scontrol ...`."""
        return self.run("scontrol", *arguments).stdout

    def job(self, job_id: str) -> dict[str, str]:
        """Returns the controller's record of a job by scontrol's field names; kept for 5 minutes after its end."""
        return _fields(self.scontrol("--oneliner", "show", "job", str(job_id)))

    # Waiting

    def wait_for(self, job_id: str, state: str | Iterable[str], timeout_s: float = 180) -> str:
        """Waits until the job is in one of the states, and returns that state.

        Args:
            job_id: Id returned by `submit`; `12_3` for an element of an array.
            state: Slurm's long names: PENDING, RUNNING, COMPLETED, ...
            timeout_s: Maximum time.

        Raises:
            ClusterError: The time is over, or the job ended in another state.
        """
        expected = {state} if isinstance(state, str) else set(state)
        deadline = time.monotonic() + timeout_s
        ended = 0
        while (current := self.job(job_id)["JobState"]) not in expected:
            # A requeued job shows a final state for a moment.
            ended = ended + 1 if current in FINAL else 0
            if ended > 10 or time.monotonic() > deadline:
                reason = "it ended" if current in FINAL else f"after {timeout_s} s"
                raise self._error(
                    f"Job {job_id} should be {' or '.join(sorted(expected))}, but is {current} ({reason}).\n"
                    f"{self.job(job_id)}\nIts output: {self.output(str(job_id))[-2000:]}"
                )
            time.sleep(0.1)
        return current

    def wait_for_output(self, job_id: str, text: str, timeout_s: float = 180) -> None:
        """Waits until the output of a job of `submit` contains the text."""
        self._until(lambda: text in self.output(job_id), timeout_s, f"{text!r} in the output of job {job_id}")

    # Failures

    def kill_node(self, name: str) -> None:
        """Kills a node as a power cut would: its slurmd, job steps and jobs, at once.

        The controller notices after about half a minute and requeues the jobs. To make it notice at once, run
        `scontrol("update", "NodeName=n1", "State=DOWN", "Reason=killed")`.
        """
        self.kill(name)

    def revive_node(self, name: str) -> None:
        """Restarts a killed node and waits until it accepts jobs."""
        self.revive(name)

    def kill(self, daemon: str) -> None:
        """Kills (SIGKILL) munged, mariadbd, slurmdbd, slurmctld, n1 or n2, with all processes that it started.

        The controller, which saves its state every 5 s, is killed just after it did. Otherwise it would assign the ids
        of lost jobs again; nodes refuse these as duplicates and are drained.
        """
        if daemon == "slurmctld":
            self._await_saved_state()
        keeper = self._keepers[daemon]
        keeper.terminate()
        keeper.wait()

    def revive(self, daemon: str) -> None:
        """Restarts a killed daemon and waits until it answers."""
        if daemon in NODES:
            self._start_node(daemon)
            self._await_node(daemon)
        else:
            self._daemons()[daemon]()
        if daemon == "slurmctld":
            for node in NODES:
                if self._keepers[node].poll() is None:
                    self._await_node(node)

    @contextlib.contextmanager
    def frozen(self, daemon: str) -> Iterator[None]:
        """Stops a daemon (SIGSTOP) during the `with`, as if its machine were overloaded, so that clients time out."""
        pid = _only_child(self._keepers[daemon].pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def fill(self, partition: str = "gpu") -> list[str]:
        """Occupies every node with one exclusive job of the partition; returns their ids once they run."""
        jobs = [
            self.submit("sleep 3600", f"--partition={partition}", "--exclusive", "--mem=0", "--job-name=fill")
            for _ in NODES
        ]
        for job_id in jobs:
            self.wait_for(job_id, "RUNNING")
        return jobs

    def limit_submissions(self, jobs: int | None) -> None:
        """Sets the maximum number of waiting and running jobs of the user; sbatch refuses more. None lifts the limit.

        Raises:
            ClusterError: The cluster has no accounting, so it has no such limit.
        """
        if not self.accounting:
            raise ClusterError(
                "A limit of submissions is stored in the accounting database: use a cluster with accounting."
            )
        value = -1 if jobs is None else jobs
        self.run("sacctmgr", "-i", "modify", "user", self.user, "set", f"MaxSubmitJobs={value}")
        self._until(lambda: self._submission_limit() == jobs, 60, f"a limit of {jobs} submitted jobs")

    def logs(self, lines: int = 15) -> str:
        """Returns the last lines of each daemon's log, with headings, for error messages."""
        parts = []
        for file in sorted((self.folder / "log").glob("*.log")):
            tail = file.read_text(errors="replace", encoding="utf-8").splitlines()[-lines:]
            parts.append(f"--- {file.name}\n" + "\n".join(tail))
        return "\n".join(parts)

    # Daemons

    def _lay_out(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="luab-slurm-"))
        # From here on, the folder is removed whatever happens.
        self._keep("sweeper", "sweep", str(self.folder))
        # munged requires that all users can reach its socket.
        self.folder.chmod(0o755)
        for name in ("run", "log", "jobs", "state", "spool", "db", "tmp"):
            (self.folder / name).mkdir(mode=0o755)
        names = ["controller", *NODES] + (["database", "accounting"] if self.accounting else [])
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        _write_private(self.folder / "munge.key", secrets.token_bytes(128))
        _write_private(self.folder / "slurmdbd.conf", self._slurmdbd_conf().encode())
        _write_private(self.folder / "init.sql", self._init_sql().encode())
        (self.folder / "gres.conf").write_text(_GRES_CONF, encoding="utf-8")
        (self.folder / "cgroup.conf").write_text(
            "ConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n", encoding="utf-8"
        )
        (self.folder / "slurm.conf").write_text(self._slurm_conf(), encoding="utf-8")
        if self._switched:
            self._hand_over()

    def _hand_over(self) -> None:
        entry = pwd.getpwnam(self.user)
        for path in [self.folder, *self.folder.iterdir()]:
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _start_daemons(self) -> None:
        if self.accounting:
            self._begin_database()
        self._start_munged()
        if self.accounting:
            self._await_database()
            self._start_mariadbd()
            self._start_slurmdbd()
            self._register()
        self._start_slurmctld()
        for node in NODES:
            self._start_node(node)
        for node in NODES:
            self._await_node(node)

    def _daemons(self) -> dict[str, Callable[[], None]]:
        plain: dict[str, Callable[[], None]] = {"munged": self._start_munged}
        if self.accounting:
            plain |= {"mariadbd": self._start_mariadbd, "slurmdbd": self._start_slurmdbd}
        return plain | {"slurmctld": self._start_slurmctld}

    def _start_munged(self) -> None:
        run, log = self.folder / "run", self.folder / "log"
        options = [f"--key-file={self.folder / 'munge.key'}", f"--socket={self._munge_socket()}"]
        options += [f"--pid-file={run / 'munged.pid'}", f"--log-file={log / 'munged.log'}"]
        options += [f"--seed-file={run / 'munged.seed'}", "--num-threads=2"]
        # munged runs as root only with --force.
        options += ["--force"] if self.user == "root" else []
        self._munge_socket().unlink(missing_ok=True)
        self._daemon("munged", "munged", "--foreground", *options)
        self._await_daemon("munged", self._munge_socket().exists)

    def _begin_database(self) -> None:
        options = [f"--datadir={self.folder / 'db'}", "--no-defaults", "--skip-test-db"]
        options += ["--user=root"] if self.user == "root" else []
        self._daemon("mysql_install_db", "env", f"TMPDIR={self.folder / 'tmp'}", "mysql_install_db", *options)

    def _await_database(self) -> None:
        if status := self._keepers["mysql_install_db"].wait():
            output = (self.folder / "run" / "mysql_install_db.out").read_text(errors="replace", encoding="utf-8")[:2000]
            raise ClusterError(f"mysql_install_db ended with {status}:\n{output}")

    def _start_mariadbd(self) -> None:
        port = self._ports["database"]
        options = [f"--datadir={self.folder / 'db'}", f"--socket={self.folder / 'run' / 'db.sock'}"]
        options += ["--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={self.folder / 'run' / 'db.pid'}"]
        # A server removes, at its start, the temporary tables of all servers that share this folder.
        options += [f"--tmpdir={self.folder / 'tmp'}"]
        options += ["--skip-log-bin", "--skip-name-resolve", "--innodb-buffer-pool-size=64M"]
        options += ["--innodb-flush-log-at-trx-commit=2", f"--init-file={self.folder / 'init.sql'}"]
        options += ["--user=root"] if self.user == "root" else []
        self._daemon("mariadbd", "mariadbd", "--no-defaults", *options)
        self._await_daemon("mariadbd", lambda: _listening(port))

    def _start_slurmdbd(self) -> None:
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self._await_daemon("slurmdbd", lambda: _listening(self._ports["accounting"]))

    def _register(self) -> None:
        """Registers cluster, account, QOS and user in the accounting database; the controller needs them to start."""
        grace = [f"GraceTime={self.grace_s}", "PreemptMode=requeue"]
        for entry in (
            ["add", "cluster", "throwaway"],
            ["add", "account", "luab", "Cluster=throwaway"],
            ["add", "qos", "scavenge", *grace],
            ["add", "qos", "urgent", "Preempt=scavenge", "Priority=1000"],
            ["add", "user", self.user, "Account=luab"],
            # Separately, because root always exists, with an account and a QOS that `add` does not change.
            ["modify", "user", self.user, "set", "DefaultAccount=luab"],
            ["modify", "user", self.user, "set", "QOS=scavenge,urgent", "DefaultQOS=scavenge"],
        ):
            self.run("sacctmgr", "-i", *entry)

    def _start_slurmctld(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D")
        self._await_daemon("slurmctld", lambda: _listening(self._ports["controller"]))

    def _start_node(self, node: str) -> None:
        self._daemon(node, "slurmd", "-D", "-N", node)

    def _await_saved_state(self) -> None:
        name = f"saved-{secrets.token_hex(8)}"
        self.scontrol("update", f"NodeName={NODES[0]}", f"Comment={name}")
        # It saves the jobs before the nodes.
        file = self.folder / "state" / "node_state"
        self._until(
            lambda: file.exists() and name.encode() in file.read_bytes(), 60, "the controller to save its state"
        )

    def _await_node(self, node: str) -> None:
        def accepts_jobs() -> bool:
            state = _fields(self.scontrol("--oneliner", "show", "node", node))["State"]
            if (state.startswith("DOWN") and "NOT_RESPONDING" not in state) or "DRAIN" in state:
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            # The controller may not have noticed yet that the node was down.
            return _listening(self._ports[node]) and state in ("IDLE", "MIXED", "ALLOCATED")

        self._await_daemon(node, accepts_jobs)

    def _daemon(self, name: str, *argv: str) -> None:
        self._keep(name, "keep", *self.command(*argv))

    def _keep(self, name: str, task: str, *arguments: str) -> None:
        log = self.folder / "run" / f"{name}.out" if task == "keep" else Path(os.devnull)
        with log.open("ab") as out:
            self._keepers[name] = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_KEEPER),
                    task,
                    str(os.getpid()),
                    str(self.folder / "lock"),
                    *arguments,
                ],
                env=self.env(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C only reaches the owner, which then stops the cluster
            )

    def _await_daemon(self, name: str, ready: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            if (status := self._keepers[name].poll()) is not None:
                output = (self.folder / "run" / f"{name}.out").read_text(errors="replace", encoding="utf-8")[-2000:]
                raise self._error(f"{name} ended with {status} instead of starting.\n{output}")
            return ready()

        self._until(ready_or_dead, 120, f"{name} to be ready")

    def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise self._error(f"Waited {timeout_s} s for {what}.")
            time.sleep(0.05)

    def _submission_limit(self) -> int | None:
        """The limit in the controller."""
        shown = self.scontrol("show", "assoc_mgr", f"users={self.user}", "flags=assoc")
        numbers = re.findall(rf"UserName={self.user}\(.*?MaxSubmitJobs=(\d*)", shown, re.DOTALL)
        return int(numbers[0]) if numbers and numbers[0] else None

    def _error(self, text: str) -> ClusterError:
        return ClusterError(f"{text}\n{self.logs()}")

    # Settings

    def _munge_socket(self) -> Path:
        return self.folder / "run" / "munge.sock"

    def _init_sql(self) -> str:
        # By default, root can only connect through the socket and as the same operating-system user.
        accounts = [f"'slurm'@'{host}'" for host in ("127.0.0.1", "localhost")]
        return "".join(
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{self._database_password}';\n"
            f"GRANT ALL ON slurm_acct.* TO {account};\n"
            for account in accounts
        )

    def _slurmdbd_conf(self) -> str:
        return f"""\
DbdHost={_host()}
DbdAddr=127.0.0.1
DbdPort={self._ports.get("accounting", 0)}
AuthType=auth/munge
AuthInfo=socket={self._munge_socket()}
SlurmUser={self.user}
LogFile={self.folder}/log/slurmdbd.log
PidFile={self.folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._ports.get("database", 0)}
StorageUser=slurm
StoragePass={self._database_password}
StorageLoc=slurm_acct
"""

    def _slurm_conf(self) -> str:
        nodes = "".join(
            f"NodeName={node} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={self._ports[node]}"
            f" CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:fake:{GPUS}\n"
            for node in NODES
        )
        return (
            _SLURM_CONF.format(
                host=_host(),
                port=self._ports["controller"],
                munge=self._munge_socket(),
                user=self.user,
                folder=self.folder,
                warning="SlurmctldParameters=preempt_send_user_signal" if self.preempt_signal else "",
                preempt_type="partition_prio" if self.preemption == "partition" else "qos",
            )
            + (self._accounting_conf() if self.accounting else "AccountingStorageType=accounting_storage/none\n")
            + nodes
            + self._partitions_conf()
        )

    def _accounting_conf(self) -> str:
        # AccountingStoragePass is the munge socket; without it the controller would use the system's munged.
        return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._ports["accounting"]}
AccountingStoragePass={self._munge_socket()}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos
"""

    def _partitions_conf(self) -> str:
        urgent_mode = " PreemptMode=OFF" if self.preemption == "partition" else ""
        return (
            f"PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1 GraceTime={self.grace_s}\n"
            f"PartitionName=urgent Nodes=ALL PriorityTier=10{urgent_mode}\n"
        )


# SlurmdTimeout: a dead node is noticed after 30 s (measured) instead of 5 minutes. cred_expire: a requeued job restarts
# after seconds instead of two minutes. OverMemoryKill: without control groups, Slurm checks the memory every 2 s.
_SLURM_CONF = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmctldSyslogDebug=quiet
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdSyslogDebug=quiet
SlurmdParameters=config_overrides
{warning}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
KillWait=2
MinJobAge=300
SlurmctldTimeout=10
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
PreemptType=preempt/{preempt_type}
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
"""

# Slurm accepts any two character devices; they are never opened.
_GRES_CONF = """\
AutoDetect=off
NodeName=n[1-2] Name=gpu Type=fake File=/dev/null,/dev/zero
"""


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".lstrip(":")


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _write_private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)


_GIVEN: set[int] = set()


def _free_ports(count: int) -> list[int]:
    """Finds free ports below the range that the kernel uses for outgoing connections."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            # Clusters that start at the same time must not use the same port.
            if port not in _GIVEN:
                ports.append(port)
                _GIVEN.add(port)
        if len(ports) == count:
            return ports
    raise ClusterError(f"Expected {count} free ports between 10000 and 32000, found {len(ports)}.")


def _listening(port: int) -> bool:
    """Whether a process listens on the TCP port; reads the kernel's tables, so that the daemon sees no connection."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [
        row.split() for table in tables if table.exists() for row in table.read_text(encoding="utf-8").splitlines()[1:]
    ]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def _fields(line: str) -> dict[str, str]:
    """Parses a record of scontrol, `Key=value Key=value`."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z:/_]+)=(\S*)", line))


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    if len(children) != 1:
        raise ClusterError(f"process {pid} should have one child, but has {len(children)}.")
    return int(children[0])


def main(arguments: Sequence[str]) -> None:
    """Starts a cluster, prints how to use it, and stops it on Enter."""
    begin = time.monotonic()
    with Cluster(accounting="--no-accounting" not in arguments) as cluster:
        print(f"Started in {time.monotonic() - begin:.1f} s. Use it in another shell, until you press Enter here:")
        print(f"  export SLURM_CONF={cluster.folder / 'slurm.conf'}")
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1:])
