"""Records of live jobs as files, so that a new Snakemake finds the jobs of one that was killed."""

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
    """Record of one job. It is written before the submission, still without an id, so that no job goes unrecorded.

    Attributes:
        outputs: Output -> digest of what determines it.
        folder: Folder of the submission. It is never reused, so a job id that Slurm assigns again cannot mix results.
        cluster: "slurm" or "local".
        name: Job name shown to users.
        index: Index in the array.
        size: Number of jobs in the submission.
        attempt: Snakemake's attempt number.
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


class Registry:
    """All entries in a folder.

    Args:
        folder: Folder of the files; created when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Entry]:
        known = {one.name for one in fields(Entry)}
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = json.loads(path.read_text())
                yield Entry(**{name: value for name, value in content.items() if name in known})
            except (OSError, ValueError, TypeError):  # truncated, of another version, or just removed
                path.unlink(missing_ok=True)

    def write(self, entry: Entry) -> None:
        """Writes an entry atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{entry.key}.part"
        aside.write_text(json.dumps(asdict(entry)))
        os.replace(aside, self._folder / f"{entry.key}.json")

    def stamp(self) -> None:
        """Sets the time of the file `checked`: all entries now agree with the cluster."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / CHECKED).touch()

    def remove(self, entry: Entry) -> None:
        """Removes an entry; does nothing if it does not exist."""
        (self._folder / f"{entry.key}.json").unlink(missing_ok=True)
