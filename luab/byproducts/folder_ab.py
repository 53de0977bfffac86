"""Byproducts of your own images: a table of points, or an archive in one of the released schemas, as one index.

The table is CSV (separated by commas, semicolons or tabs) or Parquet, one row per point::

    image,x,y,time_ms,worker,class
    cats/001.jpg,0.41,0.62,570,w17,cats

`image` is a path below the folder of images, or a file name that occurs once. x goes right and y down, in fractions of
the image or in pixels of the file. time_ms, worker and class may be missing. `luab annotate` writes such a table. A
column `kind` divides the rows into kinds of points, so that a supervision can have those of some kinds only.
"""

import functools
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luab.byproducts import coco_ab, imagenet_ab
from luab.byproducts.clicks import final_states
from luab.byproducts.coco_classes import COCO_CLASSES
from luab.byproducts.digest import ContentDigest
from luab.byproducts.icons import TAG_COLUMNS, added, last_records, rows_of
from luab.byproducts.index_file import skips_bad_records
from luab.byproducts.nested import entries, points
from luab.errors import DataError, did_you_mean, listed
from luab.files import read_number, read_rows, replacing, write_json

SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("time_ms", pa.float64()),
        pa.field("worker", pa.string()),
        pa.field("class", pa.string()),
    ]
)
WITH_KIND = SCHEMA.append(pa.field("kind", pa.string()))
"""Columns of the index of a table that has the column kind; other indexes do without it."""
_REQUIRED, _OPTIONAL = ("image", "x", "y"), ("time_ms", "worker", "class", "kind")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
    known: dict[str, int] | None = None,
    root: Path = Path(),
    unit: str = "fractions",
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Writes the points as one Parquet file, and its card.

    Args:
        archive: .csv, .tsv or .parquet; .tar.gz or a folder of XML as ImageNet-AB; or .json as COCO-AB.
        parquet, card, archive_sha256: As for `luab.byproducts.imagenet_ab.index`.
        on_bad: "raise" lists rows without a number and stops; "count" leaves them out.
        known: Not used; there are no published counts.
        root: Folder of the images, for the card.
        unit: "fractions" of the image or "pixels" of the file, for the card; the index has x and y as given.
        kinds: Values of the column kind by the name of the points that they make, for the card; None for no such
            points.

    Returns:
        The content of the card.

    Raises:
        DataError: The file is missing or damaged, lacks columns, has rows that are not points, or lacks a kind.
    """
    table, bad = read_points(archive, skips_bad_records(on_bad))
    check_kinds(archive, table, kinds or {})
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
    digest = ContentDigest()
    digest.update(table)
    counts = {"points": table.num_rows, "images": len(table["image"].unique()), "bad_records": bad}
    content = {
        "rows": table.num_rows, "sha256": digest.hexdigest(), "source_sha256": archive_sha256, "counts": counts,
        "known": None, "agrees": None, "root": str(root), "unit": unit, "on_bad": on_bad,
    } | ({"kinds": {name: list(values) for name, values in kinds.items()}} if kinds else {})  # fmt: skip
    write_json(card, content)
    return content


def agreement(card: Mapping[str, Any]) -> str:
    """Returns a sentence with the number of points and images."""
    counts = card["counts"]
    bad = f"; {counts['bad_records']:,} rows without a point were left out" if counts["bad_records"] else ""
    return f"{counts['points']:,} points on {counts['images']:,} images{bad}."


def read_index(parquet: Path) -> pa.Table:
    """Reads the table that `index` wrote; DataError if it is missing, damaged or of another schema."""
    try:
        table = pq.read_table(parquet, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{parquet}: expected the index of your byproducts ({error}). Run `luab index folder_ab` again."
        ) from error
    if not (table.schema.equals(SCHEMA) or table.schema.equals(WITH_KIND)):
        raise DataError(f"{parquet}: expected the columns {', '.join(SCHEMA.names)}. Run `luab index folder_ab` again.")
    return table


def check_kinds(file: Path, table: pa.Table, kinds: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError, which lists all, if points of `folder.kinds` name kinds that no row of the table has."""
    known = set(table["kind"].to_pylist()) - {None} if "kind" in table.column_names else set()
    missing = [f"{name}: {value!r}" for name, values in kinds.items() for value in values if value not in known]
    if missing:
        there = f"the kinds {', '.join(sorted(known))}" if known else "no column kind with any value"
        raise DataError(
            f"{file}: expected points of each kind in `folder.kinds`, found {there}. No row has\n{listed(missing)}\n"
            "Correct the names, or the column."
        )


def read_points(file: Path, skip_bad: bool = False) -> tuple[pa.Table, int]:
    """Reads points from any of the formats; returns the table and the number of rows left out.

    The table has the columns of `SCHEMA`, or of `WITH_KIND` if the file has kinds of points.

    Raises:
        DataError: As for `index`.
    """
    if not file.exists():
        raise DataError(f"{file}: expected your byproducts, found no such file. Correct `folder.byproducts`.")
    name = file.name.lower()
    if file.is_dir() or name.endswith(_ARCHIVES):
        return _converted(file, functools.partial(imagenet_ab.index, any_names=True), imagenet_ab, skip_bad, _clicks)
    if name.endswith(".json"):
        return _converted(file, coco_ab.index, coco_ab, skip_bad, _tags)
    if name.endswith(".parquet"):
        return _checked(file, _parquet_rows(file), skip_bad)
    return _checked(file, read_rows(file, _REQUIRED, optional=_OPTIONAL), skip_bad)


def _parquet_rows(file: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected a Parquet file, could not read it ({error}). Write it again.") from error
    if missing := [name for name in _REQUIRED if name not in table.column_names]:
        hints = " ".join(did_you_mean(name, table.column_names) for name in missing)
        raise DataError(f"{file}: no column {', '.join(missing)}; found {', '.join(table.column_names)}. {hints}")
    columns = table.select([name for name in WITH_KIND.names if name in table.column_names])
    return ((f"{file}, row {place}", row) for place, row in enumerate(columns.to_pylist()))


def _checked(file: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], skip_bad: bool) -> tuple[pa.Table, int]:
    """Points whose image, x and y are there; DataError, which lists the others, unless they are skipped."""
    good: list[dict[str, Any]] = []
    bad: list[str] = []
    schema = SCHEMA
    for place, row in rows:
        schema = WITH_KIND if "kind" in row else schema
        try:
            x, y = (_number(row[name], f"{place}, {name}") for name in ("x", "y"))
            if not str(row["image"] or "").strip():
                raise DataError(f"{place}: expected the name of an image, found an empty cell.")
            time_ms = _number(row["time_ms"], f"{place}, time_ms") if row.get("time_ms") not in (None, "") else None
            texts = {
                name: _unquoted(str(row[name])) if row.get(name) not in (None, "") else None
                for name in ("worker", "class", "kind")
            }
            good.append({"image": _unquoted(str(row["image"])), "x": x, "y": y, "time_ms": time_ms, **texts})
        except DataError as error:
            bad.append(str(error))
    if bad and not skip_bad:
        raise DataError(
            f"{file}: {len(bad):,} of {len(good) + len(bad):,} rows are not points:\n{listed(bad)}\nCorrect them, or "
            "set `on_bad: count` to leave them out."
        )
    if not good:
        raise DataError(f"{file}: expected at least one point, found none.")
    return pa.Table.from_pylist(good, schema), len(bad)


def _unquoted(text: str) -> str:
    """The text without the apostrophe that keeps spreadsheets, and `luab annotate`, from running it as a formula."""
    return text[1:] if re.match(r"'[=+\-@]", text) else text


def _number(value: Any, place: str) -> float:
    number = read_number(value.strip(), place) if isinstance(value, str) else float("nan" if value is None else value)
    if not math.isfinite(number):
        raise DataError(f"{place}: expected a number, found {value!r}.")
    return number


def _converted(
    file: Path,
    write: Callable[..., dict[str, Any]],
    reader: Any,
    skip_bad: bool,
    convert: Callable[[pa.Table], pa.Table],
) -> tuple[pa.Table, int]:
    with tempfile.TemporaryDirectory() as folder:
        parquet = Path(folder, "index.parquet")
        card = write(file, parquet, Path(folder, "card.json"), None, "count" if skip_bad else "raise")
        table = convert(reader.read_index(parquet))
    if not table.num_rows:
        raise DataError(f"{file}: expected at least one point, found none in {card['rows']:,} records.")
    return table, int(card["counts"].get("bad_records", 0))


def _clicks(records: pa.Table) -> pa.Table:
    """The first selecting click of each annotation that was selected in the end, as in `click_points`."""
    selected, owner = final_states(records)
    xy, starts, lengths = points(records["click_xy"])
    used = selected & (lengths > 0)
    rows, chosen = pa.array(owner[used]), pa.array(np.flatnonzero(used))
    x, y = xy[starts[used]].T
    times, workers = (entries(records[name])[0].take(chosen) for name in ("estimate_time_ms", "worker_id"))
    columns = [records["image_id"].take(rows), x, y, times.cast(pa.float64()), workers, records["wnid"].take(rows)]
    return pa.table(columns, schema=SCHEMA)


def _tags(records: pa.Table) -> pa.Table:
    """The place where the icon of each class was last added, by the rule of the official loader of COCO-AB."""
    rows = []
    for record in rows_of(last_records(records.select([*TAG_COLUMNS, "worker_id"]))):
        for label, (x, y) in added(record).items():
            if not (math.isnan(x) or math.isnan(y)):
                about = {"worker": record["worker_id"], "class": COCO_CLASSES[label].name, "time_ms": None}
                rows.append({"image": str(record["image_id"]), "x": x, "y": y, **about})
    return pa.Table.from_pylist(rows, SCHEMA)
