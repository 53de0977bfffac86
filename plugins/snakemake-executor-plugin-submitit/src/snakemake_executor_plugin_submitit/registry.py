"""Records of live jobs as files, so that a new Snakemake finds the jobs of one that was killed.

Each record stands twice: in the folder `live`, and together with the other jobs of its submission in that submission's
folder, from which a damaged one is restored.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .memory import FILE

CANCELLED = "cancelled by us"
CHECKED = "checked"
_SUBMISSION = "jobs.json"


@dataclass
class Entry:
    """Record of one job. It is written before the submission, still without an id, so that no job goes unrecorded.

    Attributes:
        outputs: Output -> digest of what determines it.
        folder: Folder of the submission. It is never reused, so a job id that Slurm assigns again cannot mix results.
        cluster: "slurm" or "local".
        name: Job name shown to users.
        index: Index in the array.
        size: Number of jobs in the submission.
        attempt: Snakemake's attempt number.
        request: Rules, threads and memory, for comparing the memory of jobs.
        cpus: Number of CPUs requested on all nodes.
        requested_mb: Memory requested on each node; 0 for the cluster's default.
        id: Slurm's job id, 12 or 12_3, or the id of a local process; empty while unknown.
        submitted: Time of the submission, seconds since 1970.
        state: Last known state; empty before the first query.
        reason: Why the job waits.
        node: Node it runs on.
        key: Name of the file that holds this entry.
    """

    outputs: dict[str, str]
    folder: str
    cluster: str
    name: str
    index: int = 0
    size: int = 1
    attempt: int = 1
    request: str = ""
    cpus: int = 0
    requested_mb: int = 0
    id: str = ""
    submitted: float = 0.0
    state: str = ""
    reason: str = ""
    node: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @property
    def log(self) -> Path:
        """Standard output and error of all starts of the job."""
        return Path(self.folder) / f"{self.id}_0_log.out"

    @property
    def result(self) -> Path:
        """Result file that submitit writes at the end."""
        return Path(self.folder) / f"{self.id}_0_result.pkl"

    @property
    def starts(self) -> Path:
        """One line for each start, with node and number of restarts."""
        return Path(self.folder) / f"{self.id}_starts.jsonl"

    @property
    def memory(self) -> Path:
        """Peak memory that the job measured."""
        return Path(self.folder) / FILE.format(id=self.id)

    def recovered_id(self) -> str:
        """Reads the id from the submission's files if Snakemake was killed before noting it; empty if there is none.

        Without its submitted pickle a job never runs: it waits for the file for a minute and then exits.
        """
        for path in Path(self.folder).glob("*_submitted.pkl"):
            job_id = path.name.removesuffix("_submitted.pkl")
            if self.size == 1 or job_id.endswith(f"_{self.index}"):
                return job_id
        return ""

    def writes_any_of(self, outputs: Iterable[str]) -> bool:
        """Whether this job makes one of these outputs."""
        return not self.outputs.keys().isdisjoint(outputs)

    def agrees(self, digests: Mapping[str, str]) -> bool:
        """Whether this job makes all these outputs with these digests."""
        return all(self.outputs.get(name) == digest for name, digest in digests.items())


def _read(path: Path) -> Entry:
    content = json.loads(path.read_bytes())
    entry = _parsed({"key": path.stem, **content} if isinstance(content, dict) else content)
    if entry.key != path.stem:
        raise ValueError(f"key: expected {path.stem!r}, found {entry.key!r}")
    return entry


def _parsed(content: Any) -> Entry:
    """Checks a record read from a file; fields of later versions are ignored.

    Raises:
        ValueError: It is not a record.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found a {type(content).__name__}")
    values = {one.name: content[one.name] for one in fields(Entry) if one.name in content}
    example = asdict(Entry({}, "", "", ""))
    missing = [name for name in ("outputs", "folder", "cluster", "name", "key") if name not in values]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    for name, value in values.items():
        kinds = (int, float) if isinstance(example[name], float) else type(example[name])
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name}: expected {type(example[name]).__name__}, found {type(value).__name__}")
    if not all(isinstance(digest, str) for digest in values["outputs"].values()):
        raise ValueError("outputs: expected a digest for each output")
    return Entry(**values)


class Registry:
    """All entries in a folder.

    Args:
        folder: Folder of the files; created when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Entry]:
        """All records that can be read."""
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                yield _read(path)

    def unended(self) -> list[Entry]:
        """Records of jobs that run or wait: neither cancelled by us, nor with a result that nobody has read yet."""
        return [entry for entry in self if entry.reason != CANCELLED and not entry.result.exists()]

    def set_damaged_aside(self) -> list[str]:
        """Renames damaged records to `<name>.damaged`; returns one sentence for each."""
        problems = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                _read(path)
            except FileNotFoundError:  # just removed
                continue
            except (OSError, ValueError, RecursionError) as problem:
                os.replace(path, path.with_name(f"{path.name}.damaged"))
                problems.append(
                    f"{path}: expected the record of a job, found something else ({problem}). It was set aside as "
                    f"{path.name}.damaged; its job is looked for in Slurm."
                )
        return problems

    def write_submission(self, folder: Path, entries: Sequence[Entry]) -> None:
        """Writes the records of all jobs of a submission into its folder, before they are submitted."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SUBMISSION).write_text(json.dumps([asdict(entry) for entry in entries]), encoding="utf-8")

    def restore(self, folder: Path, job_id: str) -> Entry | None:
        """Restores the record of a job from its submission's folder.

        Args:
            folder: Folder of the submission.
            job_id: Id of a job in Slurm whose batch script is in this folder, 12 or 12_3.

        Returns:
            The record, with this id; None if the folder does not hold it, or lacks the job's command, so that the job
            cannot run.
        """
        if not (folder / f"{job_id}_submitted.pkl").is_file():
            return None
        try:
            contents = json.loads((folder / _SUBMISSION).read_bytes())
            entries = [_parsed(content) for content in contents]
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        index = int(job_id.partition("_")[2] or 0)
        for entry in entries:
            if entry.index == index and Path(entry.folder) == folder:
                entry.id = job_id
                return entry
        return None

    def write(self, entry: Entry) -> None:
        """Writes an entry atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{entry.key}.part"
        aside.write_text(json.dumps(asdict(entry)), encoding="utf-8")
        os.replace(aside, self._folder / f"{entry.key}.json")

    def stamp(self) -> None:
        """Sets the time of the file `checked`: all entries now agree with the cluster."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / CHECKED).touch()

    def remove(self, entry: Entry) -> None:
        """Removes an entry; does nothing if it does not exist."""
        (self._folder / f"{entry.key}.json").unlink(missing_ok=True)
