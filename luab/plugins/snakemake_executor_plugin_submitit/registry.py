"""Files that remember live jobs, so that a new Snakemake finds those of one that was killed."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

CANCELLED = "cancelled by us"
CHECKED = "checked"


@dataclass
class Entry:
    """One submitted job. Written before the submission, without an id, so that no moment is uncovered.

    Attributes:
        outputs: Digest of what decides, by output.
        folder: Folder of the submission, used once: results of a job id that Slurm gave out twice cannot mix.
        cluster: "slurm" or "local".
        name: What runs, for people.
        index: Place in the array.
        size: Jobs of the submission.
        attempt: Snakemake's count of tries.
        id: Slurm's id, 12 or 12_3, or the number of a local process; empty while unknown.
        submitted: When it was handed to the scheduler, seconds since 1970.
        state: Last known state, for those who watch; empty until the cluster was first asked.
        reason: Why it waits.
        node: Where it runs.
        key: Name of the file that holds this entry.
    """

    outputs: dict[str, str]
    folder: str
    cluster: str
    name: str
    index: int = 0
    size: int = 1
    attempt: int = 1
    id: str = ""
    submitted: float = 0.0
    state: str = ""
    reason: str = ""
    node: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @property
    def log(self) -> Path:
        """Standard output and error of the job, all starts of it."""
        return Path(self.folder) / f"{self.id}_0_log.out"

    @property
    def result(self) -> Path:
        """What submitit writes at the very end."""
        return Path(self.folder) / f"{self.id}_0_result.pkl"

    @property
    def starts(self) -> Path:
        """One line for each start: node, restarts."""
        return Path(self.folder) / f"{self.id}_starts.jsonl"

    def recovered_id(self) -> str:
        """The id, read from the submission's files where nobody lived to write it down; empty if it never ran.

        A job whose submitted pickle is missing gives up after a minute and does nothing.
        """
        for path in Path(self.folder).glob("*_submitted.pkl"):
            job_id = path.name.removesuffix("_submitted.pkl")
            if self.size == 1 or job_id.endswith(f"_{self.index}"):
                return job_id
        return ""

    def agrees(self, digests: Mapping[str, str]) -> bool:
        """Whether this job makes all those outputs from the same content."""
        return all(self.outputs.get(name) == digest for name, digest in digests.items())


class Registry:
    """The folder of entries.

    Args:
        folder: Where the files are; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Entry]:
        known = {one.name for one in fields(Entry)}
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = json.loads(path.read_text())
                yield Entry(**{name: value for name, value in content.items() if name in known})
            except (OSError, ValueError, TypeError):  # half-written by another version, or just removed
                path.unlink(missing_ok=True)

    def making(self, outputs: Iterable[str]) -> list[Entry]:
        """Entries of jobs that make one of those outputs."""
        wanted = set(outputs)
        return [entry for entry in self if not wanted.isdisjoint(entry.outputs)]

    def write(self, entry: Entry) -> None:
        """Keeps an entry; a reader never sees half of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{entry.key}.part"
        aside.write_text(json.dumps(asdict(entry)))
        os.replace(aside, self._folder / f"{entry.key}.json")

    def stamp(self) -> None:
        """Notes by a file's time that all entries are now as the cluster says; those that changed were written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / CHECKED).touch()

    def remove(self, entry: Entry) -> None:
        """Forgets an entry, known or not."""
        (self._folder / f"{entry.key}.json").unlink(missing_ok=True)
