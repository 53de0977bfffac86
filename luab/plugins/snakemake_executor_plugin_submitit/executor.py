"""The executor: Snakemake's jobs in, submissions, answers and one cancellation out."""

import contextlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from . import history, local
from .fingerprint import fingerprints, members, output_names
from .messages import explain, reason, tail
from .outcomes import Outcome, Pace, Watch, finished
from .payload import JobCommand
from .registry import CANCELLED, Entry, Registry
from .resources import ResourceError, job_comment, job_name, local_parameters, slurm_parameters
from .slurm_states import Slurm, SlurmUnreachable, base
from .submission import Refusal, submit

_STARTED = time.time()  # Snakemake imports its plugins before it looks at any file
_CLOCKS_DIFFER_S = 5.0
_LOG_LINES_READ = 200
_CANCEL_TRIES = 4


@dataclass
class Batch:
    """Equal jobs, to be submitted together.

    Attributes:
        jobs: Snakemake's jobs.
        parameters: What they ask for.
        after: Ids of jobs that still write the same files.
    """

    jobs: list[Any]
    parameters: dict[str, Any]
    after: tuple[str, ...] = ()

    @property
    def rules(self) -> list[str]:
        """Names of all rules."""
        return sorted({str(rule) for job in self.jobs for rule in job.rules})

    @property
    def title(self) -> str:
        """What squeue shows."""
        return job_name(self.rules, [one.wildcards_dict for job in self.jobs for one in members(job)])

    @property
    def limit_s(self) -> float:
        """Time limit of each job."""
        return 60.0 * (self.parameters.get("time") or self.parameters["timeout_min"])


class Executor(RemoteExecutor):
    """Runs Snakemake's jobs on Slurm through submitit."""

    def __post_init__(self) -> None:
        self.settings = self.workflow.executor_settings
        self.next_seconds_between_status_checks = self.settings.poll_seconds
        self._folder = Path(self.settings.folder).absolute()
        self._registry = Registry(self._folder / "live")
        self._slurm = Slurm()
        pace = Pace(self.settings.queue_seconds, self.settings.queue_seconds_max)
        self._watch = Watch(self._slurm, self._registry, pace, self.settings.result_grace, self.logger.warning)
        self._live: dict[str, Entry] = {}
        self._unanswered: set[str] = set()
        self._waiting = Waiting(self.settings.retry_seconds, self.settings.retry_seconds_max)
        self._placing = threading.RLock()
        self._stopping = False
        self._need_commands()

    def additional_general_args(self) -> str:
        """Arguments of the Snakemake inside the allocation: it runs its job itself."""
        return "--executor local"

    def get_job_args(self, job: Any) -> str:
        """As usual, with the cores that were asked for: "all" would be those of the node."""
        return f"{super().get_job_args(job)} --cores {max(1, job.threads)}"

    def run_jobs(self, jobs: Sequence[Any]) -> None:
        """Attaches to jobs of an earlier run that still live, and submits the others."""
        for job in jobs:
            self.run_job_pre(job)
        self._place(list(jobs))

    def run_job(self, job: Any) -> None:
        """Runs one job."""
        self._place([job])

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Reports the jobs that ended and yields the others; retries submissions that were refused."""
        if self._waiting.due() and not self._stopping:
            self._place(self._waiting.take())
        entries = {info.aux["entry"].key: info.aux["entry"] for info in active_jobs}
        ended = {outcome.entry.key: outcome for outcome in self._watch.poll(list(entries.values()))}
        for info in active_jobs:
            outcome = ended.get(info.aux["entry"].key)
            if outcome is None:
                yield info
            else:
                self._report(info, outcome)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancels every job of this run in one call, also those being submitted right now."""
        self._stopping = True
        with self._placing:
            entries = list(self._live.values())
        for entry in entries:
            entry.id = entry.id or entry.recovered_id()
            if not entry.id:
                self._registry.remove(entry)
        with contextlib.suppress(SlurmUnreachable):
            self._end_unanswered()
        known = [entry for entry in entries if entry.id]
        if not self._cancel(known):
            return  # they may run on: the next Snakemake takes them over
        for entry in known:
            entry.reason = CANCELLED
            self._registry.write(entry)
            history.append(self._folder, entry, "CANCELLED", "Snakemake was interrupted")

    # --- placing -------------------------------------------------------------------------------------------

    def _place(self, jobs: list[Any]) -> None:
        with self._placing:
            try:
                self._end_unanswered()
                fresh = self._attach_to_earlier(jobs)
            except SlurmUnreachable as problem:
                self._postpone(jobs, Refusal(f"squeue: {problem}"), kind="busy")
                return
            for batch in self._batches(fresh):
                self._submit(batch)

    def _attach_to_earlier(self, jobs: list[Any]) -> list[tuple[Any, tuple[str, ...]]]:
        """Takes over what an earlier Snakemake submitted.

        Returns:
            Jobs to submit, each with the ids of outdated jobs that still write its files.
        """
        earlier = [entry for entry in self._registry if entry.key not in self._live]
        if not earlier:
            return [(job, ()) for job in jobs]
        for entry in earlier:
            entry.id = entry.id or entry.recovered_id()
        self._end_strays([entry for entry in earlier if entry.cluster == "slurm" and not entry.id])
        states = self._watch.states(earlier)
        alive = {entry.key for entry in earlier if entry.id in states and states[entry.id].alive}
        fresh, outdated = [], []
        for job in jobs:
            same_files = [entry for entry in earlier if not set(output_names(job)).isdisjoint(entry.outputs)]
            match = next((entry for entry in same_files if self._takes_over(job, entry, entry.key in alive)), None)
            if match:
                self._attach(job, match)
            else:
                old = [entry for entry in same_files if entry.key in alive]
                outdated += old
                fresh.append((job, tuple(entry.id for entry in old)))
        self._clear(earlier, alive, outdated)
        return fresh

    def _takes_over(self, job: Any, entry: Entry, alive: bool) -> bool:
        if entry.reason == CANCELLED or not entry.agrees(fingerprints(job, entry.outputs)):
            return False
        return alive or _just_succeeded(entry)

    def _attach(self, job: Any, entry: Entry) -> None:
        self.logger.info(f"Taking over job {entry.id} ({entry.name}), submitted by an earlier run. Log: {entry.log}")
        self._follow(job, entry)

    def _clear(self, earlier: list[Entry], alive: set[str], outdated: list[Entry]) -> None:
        """Ends jobs whose inputs, code or params changed, and forgets those that ended."""
        running = [entry for entry in outdated if entry.reason != CANCELLED]
        if running:
            names = ", ".join(sorted({f"{entry.id} ({entry.name})" for entry in running}))
            self.logger.warning(f"Cancelling {names} of an earlier run: what decides their outputs has changed since.")
            self._cancel(running)
        for entry in earlier:
            if entry.key not in self._live and (entry.key not in alive or entry in outdated):
                self._registry.remove(entry)
                self._remember_unseen(entry, entry in running)

    def _remember_unseen(self, entry: Entry, outdated: bool) -> None:
        """Notes the end of an earlier run's job; those that were cancelled are noted already."""
        if not entry.id or entry.reason == CANCELLED:
            return
        if outdated:
            history.append(self._folder, entry, "CANCELLED", "what decides its outputs changed")
        elif ended := finished([entry]):
            why = "" if ended[0].success else reason(None, ended[0].trace, tail(entry.log, _LOG_LINES_READ))
            history.append(self._folder, entry, "COMPLETED" if ended[0].success else "FAILED", why)
        else:
            history.append(self._folder, entry, "UNKNOWN", "gone without a result while no Snakemake looked")

    def _end_unanswered(self) -> None:
        """Cancels what the scheduler took without saying so: those jobs have no pickle and would do nothing."""
        ids = set(self._slurm.strays(self._unanswered).values())
        if ids:
            self.logger.warning(f"Cancelling {', '.join(sorted(ids))}: taken by a scheduler that did not answer.")
            self._slurm.cancel(ids)

    def _end_strays(self, entries: list[Entry]) -> None:
        """The same for submissions that an earlier Snakemake did not live to see answered."""
        found = self._slurm.strays(entry.folder for entry in entries)
        lost = [entry for entry in entries if entry.folder in found]
        ids = {found[one.folder] if one.size == 1 else f"{found[one.folder]}_{one.index}" for one in lost}
        if ids:
            self.logger.warning(f"Cancelling {', '.join(sorted(ids))}: submitted by a Snakemake that was killed then.")
            self._slurm.cancel(ids)

    def _batches(self, fresh: list[tuple[Any, tuple[str, ...]]]) -> list[Batch]:
        """Equal jobs together, at most as many as one array may have."""
        found: dict[str, Batch] = {}
        for job, after in fresh:
            try:
                parameters = self._parameters(job)
            except ResourceError as problem:
                self._fail(job, str(problem))
                continue
            # Whether an outdated job must end first is no part of the key: the sweep stays one array.
            key = json.dumps([sorted(map(str, job.rules)), job.is_group(), parameters], sort_keys=True)
            batch = found.setdefault(key, Batch([], parameters))
            batch.jobs.append(job)
            batch.after += after
        most = 1 if self.settings.cluster == "local" else max(1, self.settings.array_max)
        return [
            Batch(batch.jobs[start : start + most], batch.parameters, batch.after)
            for batch in found.values()
            for start in range(0, len(batch.jobs), most)
        ]

    def _parameters(self, job: Any) -> dict[str, Any]:
        resources = {name: value for name, value in job.resources.items() if not name.startswith("_")}
        if self.settings.cluster == "local":
            return local_parameters(resources, self.settings.default_runtime)
        return slurm_parameters(resources, job.threads, self.settings.memory_overhead_mb, self.settings.default_runtime)

    # --- submitting ----------------------------------------------------------------------------------------

    def _submit(self, batch: Batch) -> None:
        if self._stopping:
            return
        entries = self._intents(batch)
        folder = Path(entries[0].folder)
        commands = [self._command(job, batch) for job in batch.jobs]
        try:
            ids = submit(
                self.settings.cluster, folder, self._full(batch, entries), commands, self.settings.max_timeouts
            )
        except Refusal as refusal:
            if refusal.kind == "busy" and self.settings.cluster == "slurm":
                self._unanswered.add(str(folder))
            for entry in entries:
                self._live.pop(entry.key)
                self._registry.remove(entry)
            shutil.rmtree(folder, ignore_errors=True)
            self._refused(batch, refusal)
            return
        self._waiting.accepted()
        self._announce(batch, entries[0], ids)
        for job, entry, job_id in zip(batch.jobs, entries, ids, strict=True):
            entry.id = job_id
            self._follow(job, entry)

    def _intents(self, batch: Batch) -> list[Entry]:
        """Records of the jobs, on disk before the cluster hears of them."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = self._folder / f"{stamp}-{'-'.join(batch.rules)[:60]}-{uuid.uuid4().hex[:8]}"
        entries = []
        for index, job in enumerate(batch.jobs):
            name = job_name(map(str, job.rules), [one.wildcards_dict for one in members(job)])
            outputs = fingerprints(job, output_names(job))
            entry = Entry(outputs, str(folder), self.settings.cluster, name, index, len(batch.jobs), job.attempt)
            entry.submitted = round(time.time(), 1)
            self._live[entry.key] = entry
            self._registry.write(entry)
            entries.append(entry)
        return entries

    def _command(self, job: Any, batch: Batch) -> JobCommand:
        return JobCommand(
            self.format_job_exec(job),
            str(Path.cwd()),
            limit_s=batch.limit_s,
            warning_s=self._warning_s(batch),
            requeue_timeouts=self.settings.requeue_timeouts,
        )

    def _warning_s(self, batch: Batch) -> int:
        # A warning in the first half of a job would keep a short one from ever getting anywhere.
        return min(self.settings.warning_seconds, int(batch.limit_s / 2))

    def _full(self, batch: Batch, entries: list[Entry]) -> dict[str, Any]:
        """Parameters of a batch with those that all jobs share."""
        common: dict[str, Any] = {"signal_delay_s": self._warning_s(batch), "stderr_to_stdout": True}
        if self.settings.setup:
            common["setup"] = [self.settings.setup]
        if self.settings.cluster == "local":
            return {**batch.parameters, **common}
        comment = job_comment([list(entry.outputs) for entry in entries])
        more = {"requeue": True, "comment": comment, **batch.parameters.get("additional_parameters", {})}
        if batch.after:
            told = [f"afterany:{':'.join(batch.after)}", str(more.get("dependency") or "")]
            more["dependency"] = ",".join(filter(None, told))
        return {
            **batch.parameters,
            **common,
            "job_name": batch.title,
            "wckey": self.settings.wckey or None,
            "array_parallelism": len(batch.jobs),
            "additional_parameters": more,
        }

    def _follow(self, job: Any, entry: Entry) -> None:
        self._live[entry.key] = entry
        self._registry.write(entry)
        self._watch.pace.restart()
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=entry.id, aux={"entry": entry}))

    def _announce(self, batch: Batch, first: Entry, ids: list[str]) -> None:
        what = f"array {base(ids[0])} of {len(ids)} jobs" if len(ids) > 1 else f"job {ids[0]}"
        self.logger.info(f"Submitted {what}: {batch.title}. Logs: {first.folder}")

    # --- refusals ------------------------------------------------------------------------------------------

    def _refused(self, batch: Batch, refusal: Refusal) -> None:
        """An array that is too big is halved; a busy scheduler is asked again; the rest is an error."""
        if refusal.kind in ("array", "full") and len(batch.jobs) > 1:
            half = (len(batch.jobs) + 1) // 2
            self._submit(Batch(batch.jobs[:half], batch.parameters, batch.after))
            rest = Batch(batch.jobs[half:], batch.parameters, batch.after)
            if refusal.kind == "array" or not self._waiting:
                self._submit(rest)
            else:
                self._postpone(rest.jobs, refusal, refusal.kind)
        elif refusal.kind in ("full", "busy"):
            self._postpone(batch.jobs, refusal, refusal.kind)
        else:
            for job in batch.jobs:
                self._fail(job, f"The submission was refused: {refusal.text}\nCorrect the rule's resources.")

    def _postpone(self, jobs: list[Any], refusal: Refusal, kind: str) -> None:
        lively = kind == "full" and any(entry.id for entry in self._live.values())
        if self._waiting.refused(jobs, lively) <= 60 * self.settings.patience_minutes:
            if self._waiting.news(refusal.text):
                self.logger.warning(
                    f"The scheduler takes no more jobs now ({refusal.text}). {len(self._waiting)} wait here and are "
                    f"tried again, the next time in {self._waiting.delay_s:.0f} s."
                )
            return
        for job in self._waiting.take():
            self._fail(
                job,
                f"The scheduler refused this job for {self.settings.patience_minutes:.0f} minutes, last with: "
                f"{refusal.text}\nTry `squeue --me` and `sinfo` by hand; start Snakemake again when they answer, or "
                "raise submitit-patience-minutes.",
            )

    def _fail(self, job: Any, text: str) -> None:
        if job.is_group():  # Snakemake prints no message with a group
            self.logger.error(text)
        self.report_job_error(SubmittedJobInfo(job), msg=text + "\n")

    # --- ends ----------------------------------------------------------------------------------------------

    def _report(self, info: SubmittedJobInfo, outcome: Outcome) -> None:
        entry = outcome.entry
        self._registry.remove(entry)
        self._live.pop(entry.key, None)
        if outcome.success:
            history.append(self._folder, entry, "COMPLETED")
            entry.result.unlink(missing_ok=True)
            (Path(entry.folder) / f"{entry.id}_submitted.pkl").unlink(missing_ok=True)
            self.report_job_success(info)
            return
        why = reason(outcome.state, outcome.trace, tail(entry.log, _LOG_LINES_READ))
        history.append(self._folder, entry, history.word(outcome.state), why)
        text = explain(entry, outcome.state, why, self.settings.tail_lines)
        if info.job.is_group():
            self.logger.error(text)
        self.report_job_error(info, msg=text)

    def _cancel(self, entries: list[Entry]) -> bool:
        """Whether the cluster took it."""
        local.cancel(entry for entry in entries if entry.cluster == "local")
        remote = [entry for entry in entries if entry.cluster == "slurm"]
        ids = sorted({base(entry.id) if _whole_array(entry, remote) else entry.id for entry in remote})
        for tried in range(_CANCEL_TRIES):
            problem = self._slurm.cancel(ids)
            if not problem or "Invalid job id" in problem:
                return True
            time.sleep(2**tried)
        self.logger.error(f"scancel failed ({problem}). These jobs may run on; stop them with: scancel {' '.join(ids)}")
        return False

    def _need_commands(self) -> None:
        if self.settings.cluster != "slurm":
            return
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if not shutil.which(name)]
        if missing:
            raise WorkflowError(
                f"submitit-cluster is slurm, but {', '.join(missing)} cannot be found on PATH. Start Snakemake where "
                "jobs can be submitted, or use --submitit-cluster local."
            )


class Waiting:
    """Jobs that the scheduler refused, and when to try again.

    Args:
        first_s: First delay.
        slowest_s: Longest delay.
    """

    def __init__(self, first_s: float, slowest_s: float) -> None:
        self._first_s = first_s
        self._slowest_s = slowest_s
        self._jobs: list[Any] = []
        self._since: float | None = None
        self._next = 0.0
        self._told = ""
        self.delay_s = first_s

    def __len__(self) -> int:
        return len(self._jobs)

    def due(self) -> bool:
        """Whether jobs wait and it is time to try again."""
        return bool(self._jobs) and time.monotonic() >= self._next

    def take(self) -> list[Any]:
        """Hands out all waiting jobs."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def refused(self, jobs: list[Any], lively: bool) -> float:
        """Keeps refused jobs.

        Args:
            jobs: The jobs.
            lively: Whether own jobs fill the queue: then waiting is right, however long.

        Returns:
            Seconds since the scheduler took the last job.
        """
        now = time.monotonic()
        if self._since is None or lively:
            self._since = now
        if not self._jobs:
            self.delay_s = min(self.delay_s * 2, self._slowest_s) if self._next else self._first_s
            self._next = now + self.delay_s
        self._jobs += jobs
        return now - self._since

    def accepted(self) -> None:
        """The scheduler took a job."""
        self._since = None
        self.delay_s = self._first_s
        self._told = ""
        if not self._jobs:
            self._next = 0.0

    def news(self, text: str) -> bool:
        """Whether this was not said before."""
        changed, self._told = text != self._told, text
        return changed


def _whole_array(entry: Entry, entries: list[Entry]) -> bool:
    return sum(other.folder == entry.folder for other in entries) == entry.size


def _just_succeeded(entry: Entry) -> bool:
    """Whether the job ended well after this Snakemake began: then its files were missing only when it looked.

    A job that had ended before was seen, so it is asked for on purpose.
    """
    try:
        age = _STARTED - entry.result.stat().st_mtime
    except OSError:
        return False
    if age > (_CLOCKS_DIFFER_S if all(Path(name).exists() for name in entry.outputs) else 0):
        return False
    return any(outcome.success for outcome in finished([entry]))
