"""The executor: submits Snakemake's jobs, reports their outcomes, and cancels them."""

import atexit
import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from . import controller, efficiency, history, local_jobs, memory, settings
from .fingerprint import fingerprints, members, output_names
from .job_watcher import JobWatcher, Outcome, QueryInterval, finished
from .messages import explain, reason, tail
from .payload import JobCommand
from .registry import CANCELLED, Entry, Registry
from .resources import (
    ResourceError,
    Site,
    comment_text,
    job_name,
    lines_of,
    local_parameters,
    requested,
    slurm_parameters,
)
from .slurm_states import Slurm, SlurmUnreachable, base
from .submission import Refusal, RefusedJobs, overruling_variables, submit

_STARTED = time.time()  # Snakemake imports its plugins before it checks any file
_CLOCK_SKEW_S = 5.0
_LOG_LINES_READ = 200
_CANCEL_ATTEMPTS = 4


@dataclass
class Batch:
    """Jobs with equal parameters that are submitted together.

    Attributes:
        jobs: Snakemake's jobs.
        parameters: Parameters of the submission.
        after: Ids of jobs that must end first, as they still write the same files.
    """

    jobs: list[Any]
    parameters: dict[str, Any]
    after: tuple[str, ...] = ()

    @property
    def rules(self) -> list[str]:
        """Names of all rules."""
        return sorted({str(rule) for job in self.jobs for rule in job.rules})

    @property
    def wildcards(self) -> list[dict[str, str]]:
        """Wildcards of all jobs; of a group, of all its members."""
        return [one.wildcards_dict for job in self.jobs for one in members(job)]

    @property
    def title(self) -> str:
        """Rules and shared wildcards, for messages."""
        return job_name(self.rules, self.wildcards)

    def requeues(self, default: bool) -> bool:
        """Whether Slurm may restart these jobs, as their resources or the default say."""
        options = self.parameters.get("additional_parameters", {})
        return "requeue" in options or (default and "no-requeue" not in options)

    @property
    def limit_s(self) -> float:
        """Time limit of each job."""
        return 60.0 * (self.parameters.get("time") or self.parameters["timeout_min"])


class Executor(RemoteExecutor):
    """Runs Snakemake's jobs on Slurm through submitit."""

    def __post_init__(self) -> None:
        self.settings = self.workflow.executor_settings
        if problems := settings.problems(self.settings):
            raise WorkflowError("\n".join(problems))
        self.next_seconds_between_status_checks = self.settings.poll_seconds
        self._folder = Path(self.settings.folder).absolute()
        self._registry = Registry(self._folder / "live")
        self._slurm = Slurm()
        interval = QueryInterval(self.settings.queue_seconds, self.settings.queue_seconds_max)
        self._watcher = JobWatcher(
            self._slurm,
            self._registry,
            interval,
            self.settings.result_grace,
            self.settings.requeue_grace,
            self.logger.warning,
        )
        self._live: dict[str, Entry] = {}
        self._unanswered: set[str] = set()
        self._refused_jobs = RefusedJobs(self.settings.retry_seconds, self.settings.retry_seconds_max)
        self._submitting = threading.RLock()
        self._stopping = False
        self._restored = False
        self._full = False  # whether the scheduler refused jobs because there are too many
        self._reduced: set[str] = set()  # messages about memory
        self._freed = 0  # jobs that have ended since
        self._next_submission = 0.0
        self._ended: list[dict[str, Any]] = []  # lines of the history
        self._reported: dict[Any, Entry] = {}  # successes that Snakemake has yet to note down, by its job
        self._require_commands()
        self._check_environment()
        with contextlib.suppress(OSError):
            controller.register(self._folder)

    def additional_general_args(self) -> str:
        """Arguments of the Snakemake inside the allocation, which runs its job itself."""
        return "--executor local"

    def get_job_args(self, job: Any) -> str:
        """Adds the requested number of cores; the default "all" would mean all cores of the node.

        Leaves out --wait-for-files: it names a folder that is gone once Snakemake ends, and a Snakemake that waits in
        vain ends with status 0. The payload waits for the inputs itself.
        """
        return f"{super(RemoteExecutor, self).get_job_args(job)} --cores {max(1, job.threads)}"

    def run_jobs(self, jobs: Sequence[Any]) -> None:
        """Takes over jobs of an earlier run that are still alive, and submits the others."""
        for job in jobs:
            self.run_job_pre(job)
        self._start(list(jobs))

    def run_job(self, job: Any) -> None:
        """Runs one job."""
        self._start([job])

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Reports the jobs that ended and yields the others; retries refused submissions."""
        self._leave_on_sigterm(active_jobs)
        if self._refused_jobs.due() and not self._stopping and self._may_fit():
            self._start(self._refused_jobs.take())
        entries = {info.aux["entry"].key: info.aux["entry"] for info in active_jobs}
        ended = {outcome.entry.key: outcome for outcome in self._watcher.poll(list(entries.values()))}
        self._prevent_return([outcome.entry for outcome in ended.values() if not outcome.success])
        stopped = self._cancelled_by_hand(list(ended.values()))
        for info in active_jobs:
            if info.aux["entry"].folder in stopped:
                info.job.attempt = max(info.job.attempt, info.job.restart_times + 1)  # no further attempt
            outcome = ended.get(info.aux["entry"].key)
            if outcome is None:
                yield info
            else:
                self._report(info, outcome)

    def handle_job_success(self, job: Any) -> None:
        """Called by Snakemake when it has noted down that a job succeeded."""
        super().handle_job_success(job)
        self._settle(job)

    def handle_job_error(self, job: Any) -> None:
        """Called by Snakemake when it has noted down that a job failed, perhaps for want of its outputs."""
        super().handle_job_error(job)
        self._settle(job)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancels all jobs of this run in one call, including those being submitted right now."""
        self._stopping = True
        self._slurm.stop()
        with self._submitting:
            entries = list(self._live.values())
        for entry in entries:
            entry.id = entry.id or entry.recovered_id()
            if not entry.id:
                self._registry.remove(entry)
        with contextlib.suppress(SlurmUnreachable):
            self._cancel_unanswered()
        submitted = [entry for entry in entries if entry.id]
        if not self._cancel(submitted):
            return  # they may still run: the next Snakemake takes them over
        for entry in submitted:
            entry.reason = CANCELLED
            self._registry.write(entry)
            self._record(entry, "CANCELLED", "Snakemake was interrupted")

    def shutdown(self) -> None:
        """Ends the checks, and reports what the jobs used."""
        super().shutdown()
        ended, self._ended = self._ended, []
        if not self.settings.efficiency_report or not ended:
            return
        asks = self.settings.cluster == "slurm" and not self._stopping
        usage = self._slurm.usage(line["id"] for line in ended if line["id"]) if asks else {}
        rows = efficiency.rows(ended, usage)
        path = Path(self.settings.efficiency_report)
        try:
            efficiency.write_csv(rows, path)
        except OSError as error:
            self.logger.warning(f"{path}: the efficiency report cannot be written ({error}).")
        self.logger.info(f"{efficiency.table(rows)}\nBy job: {path}")

    # --- taking over -----------------------------------------------------------------------------------------

    def _start(self, jobs: list[Any]) -> None:
        with self._submitting:
            try:
                self._cancel_unanswered()
                self._restore_records()
                new_jobs = self._take_over_earlier(jobs)
            except SlurmUnreachable as problem:
                self._postpone(jobs, Refusal(f"squeue: {problem}"), kind="busy")
                return
            for batch in self._batches(new_jobs):
                self._submit(batch)
            self._full = self._full and bool(self._refused_jobs)

    def _restore_records(self) -> None:
        """Sets damaged records aside; once, restores missing ones and removes old files."""
        for problem in self._registry.set_damaged_aside():
            self.logger.warning(problem)
            self._restored = False
        if self._restored:
            return
        if self.settings.cluster == "slurm":
            self._restore_unrecorded()
        self._restored = True
        self._remove_old_submissions()

    def _restore_unrecorded(self) -> None:
        """Restores the records of jobs that Slurm has but the registry has not; cancels the jobs where that fails."""
        recorded = list(self._registry)
        known = {(entry.folder, entry.id or entry.recovered_id()) for entry in recorded}
        unrecorded = [
            (folder, job_id)
            for folder, ids in self._slurm.own_jobs().items()
            for job_id in ids
            if Path(folder).parent == self._folder and folder not in self._unanswered and (folder, job_id) not in known
        ]
        lost = []
        for folder, job_id in unrecorded:
            if entry := self._registry.restore(Path(folder), job_id):
                self._registry.write(entry)
            elif not any(entry.folder == folder and not entry.id for entry in recorded):
                lost.append(job_id)
        if lost:
            self.logger.warning(
                f"Cancelling {', '.join(lost)}: jobs of an earlier run whose records are lost, so that nothing else "
                "makes their outputs at the same time."
            )
            self._slurm.cancel(lost)

    def _remove_old_submissions(self) -> None:
        """Removes folders of submissions and locks that nothing has used for long."""
        live = {entry.folder for entry in self._registry}
        oldest = time.time() - 86_400 * self.settings.keep_days
        for path in [*self._folder.glob("[0-9]*-*-*"), *(self._folder / "locks").glob("*.lock")]:
            with contextlib.suppress(OSError):
                if str(path) in live or path.stat().st_mtime > oldest:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _take_over_earlier(self, jobs: list[Any]) -> list[tuple[Any, tuple[str, ...]]]:
        """Takes over the jobs that an earlier Snakemake submitted.

        Returns:
            The remaining jobs, each with the ids of outdated jobs that still write its files.
        """
        own = self._live.keys() | {entry.key for entry in list(self._reported.values())}
        earlier = [entry for entry in self._registry if entry.key not in own]
        if not earlier:
            return [(job, ()) for job in jobs]
        for entry in earlier:
            entry.id = entry.id or entry.recovered_id()
        self._cancel_strays([entry for entry in earlier if entry.cluster == "slurm" and not entry.id])
        states = self._watcher.states(earlier)
        alive = {entry.key for entry in earlier if entry.id in states and states[entry.id].alive}
        new_jobs, outdated, asked = [], [], []
        for job in jobs:
            same_files = [entry for entry in earlier if entry.writes_any_of(output_names(job))]
            asked += same_files
            match = next((entry for entry in same_files if self._matches(job, entry, entry.key in alive)), None)
            if match:
                self.logger.info(
                    f"Taking over job {match.id} ({match.name}), submitted by an earlier run. Log: {match.log}"
                )
                _make_folders([match], Path.cwd())
                self._follow(job, match)
            else:
                old = [entry for entry in same_files if entry.key in alive]
                outdated += old
                new_jobs.append((job, tuple(entry.id for entry in old)))
        self._clear(earlier, alive, outdated, asked)
        return new_jobs

    def _matches(self, job: Any, entry: Entry, alive: bool) -> bool:
        if entry.reason == CANCELLED or not entry.agrees(fingerprints(job, entry.outputs)):
            return False
        return alive or ((_recent(entry) or self._marked(job, entry)) and _succeeded(entry))

    def _marked(self, job: Any, entry: Entry) -> bool:
        """Whether the outputs are there, and an earlier Snakemake's marker calls them unfinished.

        The marker names the job that makes the output. Snakemake was killed before it noted the job's success down.
        """
        marked = {job_id for one in members(job) for job_id in self.workflow.persistence.external_jobids(one)}
        return entry.id in marked and _outputs_exist(entry)

    def _needed(self) -> set[str]:
        """Outputs that Snakemake has asked or will ask for: it starts only as many jobs as `--jobs` allows."""
        jobs = list(self.workflow.dag.needrun_jobs(exclude_finished=False))  # another thread may add some
        return {name for job in jobs for name in output_names(job)}

    def _clear(self, earlier: list[Entry], alive: set[str], outdated: list[Entry], asked: list[Entry]) -> None:
        """Cancels jobs whose inputs, code or params changed, and removes the records of those that ended.

        Those that succeeded stay until Snakemake asks for them, unless it just did.
        """
        running = [entry for entry in outdated if entry.reason != CANCELLED]
        if running:
            names = ", ".join(sorted({f"{entry.id} ({entry.name})" for entry in running}))
            self.logger.warning(
                f"Cancelling {names} of an earlier run: their inputs, code or params have changed since."
            )
            self._cancel(running)
        over = [one for one in earlier if one.key not in self._live and (one.key not in alive or one in outdated)]
        needed = self._needed() if over else set()
        for entry in over:
            if entry in asked or not entry.writes_any_of(needed) or not _succeeded(entry):
                self._registry.remove(entry)
                self._record_unseen_end(entry, entry in running)

    def _record_unseen_end(self, entry: Entry, outdated: bool) -> None:
        """Adds an earlier run's job to the history; jobs cancelled by that run are already there."""
        if not entry.id or entry.reason == CANCELLED:
            return
        if outdated:
            history.append(self._folder, entry, "CANCELLED", "its inputs, code or params changed")
        elif ended := finished([entry]):
            why = "" if ended[0].success else reason(None, ended[0].trace, tail(entry.log, _LOG_LINES_READ))
            history.append(self._folder, entry, "COMPLETED" if ended[0].success else "FAILED", why)
        else:
            history.append(
                self._folder, entry, "UNKNOWN", "disappeared without a result while Snakemake was not running"
            )

    def _cancel_unanswered(self) -> None:
        """Cancels jobs that the scheduler accepted without answering; they have no pickle and would do nothing."""
        ids = set(self._slurm.strays(self._unanswered).values())
        if ids:
            self.logger.warning(f"Cancelling {', '.join(sorted(ids))}: accepted by a scheduler that did not answer.")
            self._slurm.cancel(ids)

    def _cancel_strays(self, entries: list[Entry]) -> None:
        """Cancels jobs of submissions during which an earlier Snakemake was killed."""
        strays = self._slurm.strays(entry.folder for entry in entries)
        lost = [entry for entry in entries if entry.folder in strays]
        ids = {strays[one.folder] if one.size == 1 else f"{strays[one.folder]}_{one.index}" for one in lost}
        if ids:
            text = f"Cancelling {', '.join(sorted(ids))}: Snakemake was killed while it submitted them."
            self.logger.warning(text)
            self._slurm.cancel(ids)

    def _batches(self, new_jobs: list[tuple[Any, tuple[str, ...]]]) -> list[Batch]:
        """Groups jobs with equal rules and parameters, up to the size of an array."""
        batches: dict[str, Batch] = {}
        for job, after in new_jobs:
            try:
                parameters = self._parameters(job)
            except ResourceError as problem:
                self._fail(job, str(problem))
                continue
            # The key leaves out outdated jobs that must end first, so that a sweep stays one array.
            key = json.dumps([sorted(map(str, job.rules)), job.is_group(), parameters], sort_keys=True)
            batch = batches.setdefault(key, Batch([], parameters))
            batch.jobs.append(job)
            batch.after += after
        size = 1 if self.settings.cluster == "local" else max(1, self.settings.array_max)
        return [
            Batch(batch.jobs[start : start + size], batch.parameters, batch.after)
            for batch in batches.values()
            for start in range(0, len(batch.jobs), size)
        ]

    def _parameters(self, job: Any) -> dict[str, Any]:
        resources = {name: value for name, value in job.resources.items() if not name.startswith("_")}
        if self.settings.cluster == "local":
            return local_parameters(resources, self.settings.default_runtime)
        self._apply_measured_memory(job, resources)
        site = Site(self.settings.gpu_option, self.settings.gpu_partition, self.settings.cpu_partition)
        overhead_mb, minutes = self.settings.memory_overhead_mb, self.settings.default_runtime
        return slurm_parameters(resources, job.threads, overhead_mb, minutes, site)

    def _apply_measured_memory(self, job: Any, resources: dict[str, Any]) -> None:
        """Replaces the declared mem_mb of a first attempt by a multiple of what such jobs used before."""
        declared = resources.get("mem_mb")
        if not isinstance(declared, int) or job.attempt > 1:
            return
        peak_mb = history.measured_mb(self._folder).get(_request(job))
        overhead_mb, factor = self.settings.memory_overhead_mb, self.settings.memory_factor
        resources["mem_mb"] = memory.requested_mb(declared, overhead_mb, peak_mb, factor)
        text = f"{_rules(job)}: requests {resources['mem_mb'] + overhead_mb} MB instead of {declared + overhead_mb} MB"
        if resources["mem_mb"] < declared and text not in self._reduced:
            self._reduced.add(text)
            self.logger.info(f"{text}, because such jobs have used at most {peak_mb} MB.")

    # --- submitting ----------------------------------------------------------------------------------------

    def _submit(self, batch: Batch) -> None:
        if self._stopping:
            return
        if self._full and len(batch.jobs) > max(1, self._freed) and (self._freed or self._has_submitted()):
            self._submit_fitting(batch, max(1, self._freed))
            return
        try:
            entries = self._recorded(batch)
        except OSError as error:
            for job in batch.jobs:
                self._fail(
                    job,
                    f"{self._folder}: the record of this job cannot be written ({error}), so it was not submitted. "
                    "Free some space or quota, and start Snakemake again.",
                )
            return
        folder = Path(entries[0].folder)
        commands = [self._command(job, entry, batch) for job, entry in zip(batch.jobs, entries, strict=True)]
        try:
            parameters = self._all_parameters(batch, entries)
            self._await_turn()
            ids = submit(self.settings.cluster, folder, parameters, commands, self.settings.max_timeouts)
        except Refusal as refusal:
            if refusal.kind == "busy" and self.settings.cluster == "slurm":
                self._unanswered.add(str(folder))
            for entry in entries:
                self._live.pop(entry.key)
                self._registry.remove(entry)
            shutil.rmtree(folder, ignore_errors=True)
            self._refused(batch, refusal)
            return
        self._refused_jobs.accepted()
        what = f"array {base(ids[0])} of {len(ids)} jobs" if len(ids) > 1 else f"job {ids[0]}"
        self.logger.info(f"Submitted {what}: {batch.title}. Logs: {folder}")
        for job, entry, job_id in zip(batch.jobs, entries, ids, strict=True):
            entry.id = job_id
            self._follow(job, entry)

    def _await_turn(self) -> None:
        """Keeps calls of sbatch apart."""
        if self.settings.cluster == "slurm":
            time.sleep(max(0.0, self._next_submission - time.monotonic()))
            self._next_submission = time.monotonic() + self.settings.submit_seconds

    def _submit_fitting(self, batch: Batch, size: int) -> None:
        """Submits as many jobs of a batch as have ended since the queue was full; the others wait for the next ends."""
        self._freed = 0
        self._full = False
        self._submit(Batch(batch.jobs[:size], batch.parameters, batch.after))
        self._full = True
        self._refused_jobs.add(batch.jobs[size:], own_jobs_queued=True)

    def _may_fit(self) -> bool:
        """Whether refused jobs are worth another try: some jobs have ended, or the last try was long ago."""
        long_ago = self._refused_jobs.waited(self.settings.retry_seconds_max)
        return not self._full or not self._has_submitted() or self._freed > 0 or long_ago

    def _has_submitted(self) -> bool:
        return any(entry.id for entry in self._live.values())

    def _recorded(self, batch: Batch) -> list[Entry]:
        """Writes the records of the jobs, before they are submitted."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = self._folder / f"{stamp}-{'-'.join(batch.rules)[:60]}-{uuid.uuid4().hex[:8]}"
        entries = []
        for index, job in enumerate(batch.jobs):
            name = job_name(map(str, job.rules), [one.wildcards_dict for one in members(job)])
            outputs = fingerprints(job, output_names(job))
            entry = Entry(outputs, str(folder), self.settings.cluster, name, index, len(batch.jobs), job.attempt)
            entry.request = _request(job)
            entry.cpus, entry.requested_mb = requested(batch.parameters, job.threads, job.resources.get("mem_mb"))
            entry.submitted = round(time.time(), 1)
            entries.append(entry)
        try:
            self._registry.write_submission(folder, entries)
            for entry in entries:
                self._registry.write(entry)
        except OSError:
            for entry in entries:
                self._registry.remove(entry)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._live |= {entry.key: entry for entry in entries}
        return entries

    def _command(self, job: Any, entry: Entry, batch: Batch) -> JobCommand:
        return JobCommand(
            self.format_job_exec(job),
            str(Path.cwd()),
            limit_s=batch.limit_s,
            warning_s=self._warning_s(batch),
            requeue_timeouts=self.settings.requeue_timeouts,
            inputs=list(map(str, job.get_wait_for_files())),
            wait_s=self.workflow.execution_settings.latency_wait,
            outputs=sorted(entry.outputs),
            lock_folder=str(self._folder / "locks"),
            requeue=batch.requeues(not self.settings.no_requeue),
        )

    def _warning_s(self, batch: Batch) -> int:
        # A warning in the first half of a short job would keep it from making progress.
        return min(self.settings.warning_seconds, int(batch.limit_s / 2))

    def _all_parameters(self, batch: Batch, entries: list[Entry]) -> dict[str, Any]:
        """Parameters of a batch together with those that are equal for all jobs."""
        common: dict[str, Any] = {"signal_delay_s": self._warning_s(batch), "stderr_to_stdout": True}
        if setup := [*lines_of(self.settings.setup), *batch.parameters.get("setup", [])]:
            common["setup"] = setup
        if self.settings.cluster == "local":
            return {**batch.parameters, **common}
        outputs, named = [list(entry.outputs) for entry in entries], (batch.rules, batch.wildcards)
        comment = comment_text(self.settings.comment, outputs, *named, Path.cwd().name)
        options = {"comment": comment, **batch.parameters.get("additional_parameters", {})}
        requeues = batch.requeues(not self.settings.no_requeue)
        options = {name: value for name, value in options.items() if name not in ("requeue", "no-requeue")}
        options["requeue" if requeues else "no-requeue"] = True
        if batch.after:
            dependencies = [f"afterany:{':'.join(batch.after)}", str(options.get("dependency") or "")]
            options["dependency"] = ",".join(filter(None, dependencies))
        return {
            "job_name": job_name(*named, self.settings.job_name, Path.cwd().name),
            **batch.parameters,
            **common,
            "wckey": self.settings.wckey or None,
            "array_parallelism": self.settings.array_parallel or len(batch.jobs),
            "additional_parameters": options,
        }

    def _follow(self, job: Any, entry: Entry) -> None:
        self._live[entry.key] = entry
        try:
            self._registry.write(entry)
        except OSError as error:
            # The job is submitted and followed; a later Snakemake reads its id from the submission's folder.
            self.logger.warning(f"{self._folder}: the record of job {entry.id} cannot be written ({error}).")
        self._watcher.interval.restart()
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=entry.id, aux={"entry": entry}))

    # --- refusals ------------------------------------------------------------------------------------------

    def _refused(self, batch: Batch, refusal: Refusal) -> None:
        """Halves an array that is too large, retries later if the scheduler is busy, and fails the jobs otherwise."""
        if refusal.kind in ("array", "full") and len(batch.jobs) > 1:
            half = (len(batch.jobs) + 1) // 2
            self._submit(Batch(batch.jobs[:half], batch.parameters, batch.after))
            rest = Batch(batch.jobs[half:], batch.parameters, batch.after)
            if refusal.kind == "array" or not self._refused_jobs:
                self._submit(rest)
            else:
                self._postpone(rest.jobs, refusal, refusal.kind)
        elif refusal.kind in ("full", "busy"):
            self._postpone(batch.jobs, refusal, refusal.kind)
        else:
            for job in batch.jobs:
                self._fail(job, f"The scheduler refused the submission: {refusal.text}\nCorrect the rule's resources.")
        if refusal.kind == "full":
            self._full, self._freed = True, 0

    def _postpone(self, jobs: list[Any], refusal: Refusal, kind: str) -> None:
        own_jobs_queued = kind == "full" and self._has_submitted()
        if self._refused_jobs.add(jobs, own_jobs_queued) <= 60 * self.settings.patience_minutes:
            if self._refused_jobs.is_news(refusal.text):
                self.logger.warning(
                    f"The scheduler accepts no more jobs at the moment ({refusal.text}). {len(self._refused_jobs)} "
                    f"jobs wait in Snakemake; next attempt in {self._refused_jobs.delay_s:.0f} s."
                )
            return
        for job in self._refused_jobs.take():
            self._fail(
                job,
                f"The scheduler refused this job for {self.settings.patience_minutes:.0f} minutes. Last error: "
                f"{refusal.text}\nTry `squeue --me` and `sinfo` by hand; start Snakemake again when they answer, or "
                "raise submitit-patience-minutes.",
            )

    def _fail(self, job: Any, text: str) -> None:
        if job.is_group():  # Snakemake prints no message for a group
            self.logger.error(text)
        self.report_job_error(SubmittedJobInfo(job), msg=text + "\n")

    # --- outcomes ----------------------------------------------------------------------------------------------

    def _report(self, info: SubmittedJobInfo, outcome: Outcome) -> None:
        entry = outcome.entry
        self._freed += 1
        if outcome.success:
            # The record stays until Snakemake has noted the success down: a kill in between must not run the job again.
            self._reported[info.job] = entry
            self._live.pop(entry.key, None)
            self.report_job_success(info)
            return
        self._registry.remove(entry)
        self._live.pop(entry.key, None)
        why = reason(outcome.state, outcome.trace, tail(entry.log, _LOG_LINES_READ))
        self._record(entry, history.failed_outcome(outcome.state), why)
        text = explain(entry, outcome.state, why, self.settings.tail_lines)
        if info.job.is_group():
            self.logger.error(text)
        self.report_job_error(info, msg=text)

    def _settle(self, job: Any) -> None:
        """Forgets a job that succeeded; one that failed is forgotten already."""
        entry = self._reported.get(job)
        if entry is None:
            return
        self._registry.remove(entry)
        del self._reported[job]
        self._record(entry, "COMPLETED")
        entry.result.unlink(missing_ok=True)
        (Path(entry.folder) / f"{entry.id}_submitted.pkl").unlink(missing_ok=True)

    def _record(self, entry: Entry, outcome: str, why: str = "") -> None:
        """Adds a job of this run to the history."""
        self._ended.append(history.append(self._folder, entry, outcome, why))

    def _prevent_return(self, failed: list[Entry]) -> None:
        """Cancels failed jobs, so that none comes back while its next attempt runs: Slurm may requeue it much later."""
        ids = {entry.id for entry in failed if entry.cluster == "slurm" and entry.id}
        if ids:
            self._slurm.cancel(ids)

    def _cancelled_by_hand(self, outcomes: list[Outcome]) -> set[str]:
        """Folders of submissions of which somebody cancelled all jobs: they wish to stop, so nothing is retried."""
        cancelled = [one.entry for one in outcomes if one.state is not None and one.state.name == "CANCELLED"]
        folders = {
            folder
            for folder in {entry.folder for entry in cancelled}
            if {one.key for one in self._live.values() if one.folder == folder} <= {entry.key for entry in cancelled}
        }
        for folder in sorted(folders):
            ids = ", ".join(sorted({base(entry.id) for entry in cancelled if entry.folder == folder}))
            self.logger.warning(f"Job {ids} was cancelled as a whole; it is not submitted again in this run.")
        return folders

    def _leave_on_sigterm(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Ends Snakemake on SIGTERM without waiting for its jobs, which may still be in the queue for days.

        Raises:
            WorkflowError: Snakemake received SIGTERM.
        """
        if getattr(self.workflow.scheduler, "_user_kill", None) and active_jobs and not self._stopping:
            self._stopping = True
            atexit.register(_make_folders, list(self._live.values()), Path.cwd())
            raise WorkflowError(
                f"Ended by SIGTERM. {len(active_jobs)} jobs stay in the queue or go on; the same command takes them "
                "over."
            )

    def _check_environment(self) -> None:
        if self.settings.cluster != "slurm":
            return
        for name in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS"):
            if os.environ.get(name):
                raise WorkflowError(
                    f"{name}={os.environ[name]}: expected one cluster, the default one of this machine; jobs on other "
                    f"clusters cannot be followed. Unset {name}, and start Snakemake on a login node of that cluster."
                )
        if names := overruling_variables():
            self.logger.warning(
                f"{', '.join(names)}: these variables would overrule the options of every job, so the jobs are "
                "submitted without them. Set what you need as a resource in the profile, such as slurm_partition or "
                "slurm_account."
            )

    def _cancel(self, entries: list[Entry]) -> bool:
        """Cancels jobs; returns whether the cluster accepted it."""
        local_jobs.cancel(entry for entry in entries if entry.cluster == "local")
        remote = [entry for entry in entries if entry.cluster == "slurm"]
        ids = sorted({base(entry.id) if _whole_array(entry, remote) else entry.id for entry in remote})
        for attempt in range(_CANCEL_ATTEMPTS):
            problem = self._slurm.cancel(ids)
            if not problem or "Invalid job id" in problem:
                return True
            time.sleep(2**attempt)
        atexit.register(_make_folders, remote, Path.cwd())
        self.logger.error(f"scancel failed ({problem}). These jobs may still run; stop them: scancel {' '.join(ids)}")
        return False

    def _require_commands(self) -> None:
        if self.settings.cluster != "slurm":
            return
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if not shutil.which(name)]
        if missing:
            raise WorkflowError(
                f"submitit-cluster is slurm, but {', '.join(missing)} not found on PATH. Start Snakemake on a machine "
                "that can submit jobs, or use --submitit-cluster local."
            )


def _rules(job: Any) -> str:
    return "+".join(sorted({str(rule) for rule in job.rules}))


def _request(job: Any) -> str:
    return memory.request_of(_rules(job), job.threads, job.resources.get("mem_mb"))


def _make_folders(entries: Iterable[Entry], folder: Path) -> None:
    """Makes the output folders of jobs that go on; at its end, Snakemake removes those that are still empty."""
    for name in {name for entry in entries for name in entry.outputs if not name.startswith("<")}:
        with contextlib.suppress(OSError):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)


def _whole_array(entry: Entry, entries: list[Entry]) -> bool:
    return sum(other.folder == entry.folder for other in entries) == entry.size


def _succeeded(entry: Entry) -> bool:
    return any(outcome.success for outcome in finished([entry]))


def _recent(entry: Entry) -> bool:
    """Whether the job ended after this Snakemake started, so that its outputs appeared after Snakemake had looked.

    If it had ended earlier, Snakemake saw its outputs and still wants it to run.
    """
    try:
        age = _STARTED - entry.result.stat().st_mtime
    except OSError:
        return False
    return age <= (_CLOCK_SKEW_S if _outputs_exist(entry) else 0)


def _outputs_exist(entry: Entry) -> bool:
    return all(Path(name).exists() for name in entry.outputs)
