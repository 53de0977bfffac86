"""Export and import of Snakemake's records through results/provenance.jsonl, which git tracks.

Snakemake decides by its records, not only by file times, whether a file is up to date. The records are in
.snakemake/metadata, which neither a clone nor a pull contains; without them every result looks older than the code,
and drawing a figure would retrain models. So a successful run of the workflow writes them to results/provenance.jsonl,
one line per file, and the next start of the workflow reads them back if Snakemake has none. The same lines record how
each file was made::

    {"output": "results/scores.csv", "rule": "collect", "input": ["results/runs/..."], "params": ["..."], ...}
"""

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luab.errors import DataError
from luab.files import replacing, replacing_folder

METADATA = Path(".snakemake") / "metadata"
PROVENANCE = "provenance.jsonl"
_LONGEST_NAME = 254  # bytes; Snakemake splits longer names into folders that start with "@"

Record = dict[str, Any]


def export_records(provenance: Path, metadata: Path = METADATA) -> int:
    """Adds Snakemake's records to the exported ones, where a newer record of a file counts; returns their number."""
    records = {record["output"]: record for record in read_records(provenance)}
    records |= {record["output"]: record for record in _live(metadata) if not record.get("incomplete")}
    with replacing(provenance) as aside:
        aside.write_text(
            "".join(json.dumps(records[name], sort_keys=True) + "\n" for name in sorted(records)), encoding="utf-8"
        )
    return len(records)


def import_records(provenance: Path, metadata: Path = METADATA) -> int:
    """Writes the exported records to Snakemake's folder if it has none, also those of missing files.

    Snakemake needs the records of missing files to decide whether the files made from them are up to date. Returns the
    number of imported records; 0 if Snakemake has its own or none were exported.
    """
    if not provenance.is_file() or any(_files(metadata)):
        return 0
    records = list(read_records(provenance))
    # All at once: after an interruption, the next Snakemake would take a part of the records for all.
    with replacing_folder(metadata) as aside:
        for record in records:
            path = _path_of(record["output"], aside)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps({key: value for key, value in record.items() if key != "output"}), encoding="utf-8"
            )
    return len(records)


def read_records(provenance: Path) -> Iterator[Record]:
    """The exported records; none if the file is missing.

    Raises:
        DataError: A line is not a record, for example because of a git conflict.
    """
    if not provenance.is_file():
        return
    for number, line in enumerate(provenance.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            valid = isinstance(record, dict) and isinstance(record.get("output"), str) and "rule" in record
        except (ValueError, RecursionError):
            valid = False
        if not valid or not _is_inside(record["output"]):
            raise DataError(
                f"{provenance}, line {number}: expected the record of a file in this folder, found {line[:60]!r}. "
                f"Restore the file (git checkout -- {provenance}), or remove it: Snakemake then makes results again "
                "that it has no records of."
            )
        yield record


def _live(metadata: Path) -> Iterator[Record]:
    for path in _files(metadata):
        name = "".join(part.removeprefix("@") for part in path.relative_to(metadata).parts)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            output = urlsafe_b64decode(name).decode()
        except (ValueError, RecursionError):  # being written, or not a record
            continue
        if _is_inside(output):
            yield {"output": output} | content


def _files(metadata: Path) -> Iterator[Path]:
    return (path for path in metadata.rglob("*") if path.is_file())


def _path_of(output: str, metadata: Path) -> Path:
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return metadata.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _is_inside(output: str) -> bool:
    return not os.path.isabs(output) and ".." not in Path(output).parts
