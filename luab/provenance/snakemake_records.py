"""What Snakemake knows of each file, in one file that git keeps: how it was made, and from what content.

Snakemake decides by its records, not by file times alone, whether a file is up to date. They lie in
.snakemake/metadata, which no clone and no pull of data brings along; without them the newest code looks younger than
every result, and a figure would mean retraining. So they are written to results/provenance.jsonl when a run of the
workflow has succeeded, one line per file, and read back where there are none. The same lines tell where a number
came from::

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
_LONGEST_NAME = 254  # bytes; Snakemake cuts longer ones into folders that begin with "@"

Record = dict[str, Any]


def export_records(provenance: Path, metadata: Path = METADATA) -> int:
    """Adds Snakemake's records to those that are kept; a newer one of a file replaces the older.

    Args:
        provenance: results/provenance.jsonl; made if need be, sorted by output.
        metadata: Snakemake's folder of records.

    Returns:
        How many records are kept.

    Raises:
        DataError: The kept records are damaged.
    """
    kept = {record["output"]: record for record in read_records(provenance)}
    kept |= {record["output"]: record for record in _live(metadata) if not record.get("incomplete")}
    with replacing(provenance) as aside:
        aside.write_text("".join(json.dumps(kept[name], sort_keys=True) + "\n" for name in sorted(kept)))
    return len(kept)


def import_records(provenance: Path, metadata: Path = METADATA) -> int:
    """Gives Snakemake the kept records where it has none of its own, of missing files too.

    A record of a file that is missing matters: the files made from it are compared with what they were made from.

    Returns:
        How many records were written; 0 where Snakemake has its own, or none are kept.

    Raises:
        DataError: The kept records are damaged.
    """
    if not provenance.is_file() or any(_files(metadata)):
        return 0
    records = list(read_records(provenance))
    # All at once: a Snakemake that was killed here must not leave some, which the next one would take for its own.
    with replacing_folder(metadata) as aside:
        for record in records:
            path = _path_of(record["output"], aside)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({key: value for key, value in record.items() if key != "output"}))
    return len(records)


def read_records(provenance: Path) -> Iterator[Record]:
    """The kept records; none where there is no file.

    Raises:
        DataError: A line is no record; git may have left a conflict in it.
    """
    if not provenance.is_file():
        return
    for number, line in enumerate(provenance.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            known = isinstance(record, dict) and isinstance(record.get("output"), str) and "rule" in record
        except (ValueError, RecursionError):
            known = False
        if not known or not _stays_inside(record["output"]):
            raise DataError(
                f"{provenance}, line {number}: expected a record of a file below this folder, found {line[:60]!r}. "
                "Take the file of one commit (git checkout -- it), or remove it: then results without Snakemake's own "
                "records are made anew."
            )
        yield record


def _live(metadata: Path) -> Iterator[Record]:
    for path in _files(metadata):
        name = "".join(part.removeprefix("@") for part in path.relative_to(metadata).parts)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            output = urlsafe_b64decode(name).decode()
        except (ValueError, RecursionError):  # being written, or not one of Snakemake's
            continue
        if _stays_inside(output):
            yield {"output": output} | content


def _files(metadata: Path) -> Iterator[Path]:
    if metadata.is_dir():
        yield from (path for path in metadata.rglob("*") if path.is_file())


def _path_of(output: str, metadata: Path) -> Path:
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return metadata.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _stays_inside(output: str) -> bool:
    return not os.path.isabs(output) and ".." not in Path(output).parts
