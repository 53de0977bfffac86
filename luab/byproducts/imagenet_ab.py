"""ImageNet-AB: the released archive of XML records, streamed into one Parquet file, and its reader.

One record (shortened; times of points are epoch milliseconds, the submission's is in seconds)::

    <annotation>
      <filename>n01440764_10027</filename>      <folder>n01440764</folder>
      <metadata>
        <estimateTime>570</estimateTime>        <hit_submit_time>1640942400</hit_submit_time>
        <hoveredRecord><action>enter</action><time>1640942069944</time></hoveredRecord>
        <mouseTracking><time>1640942069944</time><x>0.895</x><y>0.49333</y></mouseTracking>
        <selected>True</selected>
        <selectedRecord><time>1640942070514</time><x>0.65</x><y>0.61333</y></selectedRecord>
      </metadata>
    </annotation>
"""

import gzip
import math
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from luab.byproducts.parquet import read_rows, write_rows
from luab.byproducts.records import (
    INTEGERS,
    LARGEST_RECORD_BYTES,
    PER_METADATA,
    TEXTS,
    BadRecord,
    Row,
    parse_record,
)
from luab.errors import ConfigError, DataError
from luab.files import replacing, write_json
from luab.progress import progress

# SOURCE: huggingface.co/datasets/coallaoh/ImageNet-AB, imagenet_ab_v1_0.tar.gz.
RELEASED_SHA256 = "38e67940a68adb5a3d436a25a0656d8c99023731077395b60097d01cd97868b1"

# SOURCE: aldakata/NeglectedFreeLunch, which read the release: records from
# interpolation_sanity_check.ipynb, with_metadata from correlations_final.ipynb (printed there as
# "selected", but bool() of the text "False" is true), the other two summed over writer_statistics.csv.
KNOWN_COUNTS = {
    "records": 1_274_843,
    "with_metadata": 1_271_643,
    "selected_with_time": 1_106_453,
    "workers_selected_with_time": 1_705,
}

USABLE_TRACE_MS = 3000

_WNID = re.compile(r"n\d{8}")


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


_XY = pa.list_(pa.float64(), 2)
_EACH = "one entry per metadata element (one per annotator): "

SCHEMA = pa.schema(
    [
        _field("image_id", pa.string(), "name of the record's file without suffix, n01440764_10027"),
        _field("wnid", pa.string(), "name of its folder, n01440764"),
        _field("annotators", pa.int16(), "number of metadata elements; 0 where the record is a box only"),
        _field("has_box", pa.bool_(), "whether the record has at least one ILSVRC box"),
        _field("boxes", pa.list_(pa.list_(pa.int32(), 4)), "x0 y0 x1 y1, source pixels, inclusive maximum"),
        _field("width", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        _field("height", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        _field("assignment_id", pa.list_(pa.string()), _EACH + "id of the submission"),
        _field("hit_id", pa.list_(pa.string()), _EACH + "id of the task on the market place"),
        _field("imagenet_hit_id", pa.list_(pa.string()), _EACH + "id of the task in the tool"),
        _field("worker_id", pa.list_(pa.string()), _EACH + "anonymised worker"),
        _field("hit_submit_time_s", pa.list_(pa.int64()), _EACH + "epoch seconds"),
        _field("estimate_time_ms", pa.list_(pa.int64()), _EACH + "time hovered while not selected; 0 is real"),
        _field("hovered_count", pa.list_(pa.int32()), _EACH + "number of times the pointer entered"),
        _field("selected_count", pa.list_(pa.int32()), _EACH + "number of selecting clicks"),
        _field("page_idx", pa.list_(pa.int32()), _EACH + "page within the task, from 0"),
        _field("image_idx", pa.list_(pa.int32()), _EACH + "place within the page, from 0"),
        _field("selected", pa.list_(pa.bool_()), _EACH + "state of the image when the page was submitted"),
        _field("position_xy", pa.list_(pa.list_(pa.float32(), 2)), _EACH + "in the web page, px; NaN if absent"),
        _field("displayed_height", pa.list_(pa.int32()), _EACH + "px on the page"),
        _field("displayed_width", pa.list_(pa.int32()), _EACH + "a copy of the height (defect); do not use"),
        _field(
            "click_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "selecting clicks in order; fractions, x right y down",
        ),
        _field("click_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each click; null if absent"),
        _field(
            "trace_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "pointer while not selected; fractions, x right y down",
        ),
        _field("trace_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each sample; may repeat"),
        _field("hover_action", pa.list_(pa.list_(pa.string())), _EACH + "enter, leave; the last may stay open"),
        _field("hover_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each action"),
    ]
)


def index(
    archive: Path,
    parquet: Path,
    card: Path,
    archive_sha256: str | None = None,
    on_bad: Literal["raise", "count"] = "raise",
) -> dict[str, Any]:
    """Streams every record of the archive into one Parquet file; nothing is unpacked.

    Rows keep the archive's order (a folder is read in the order of its sorted paths). macOS junk (`._*`,
    `.DS_Store`) is skipped and counted. Columns and their frames: `SCHEMA`.

    Args:
        archive: imagenet_ab_v1_0.tar.gz, or a folder that holds its XML files.
        parquet: Where the table goes.
        card: Where its identity and counts go: rows, sha256 (`ContentDigest`), counts (`Tally`), known
            (the release's counts, or null for any other archive), agrees (whether they are met, or null).
        archive_sha256: Digest of the archive if it is known; tells whether it is the release.
        on_bad: "raise" stops at a broken record, "count" leaves it out and counts it as `bad_records`.

    Returns:
        The content of the card.

    Raises:
        DataError: The archive is absent, truncated or not a gzip; a record is broken, or occurs twice.
        ConfigError: `on_bad` is neither of the two.
    """
    if on_bad not in ("raise", "count"):
        raise ConfigError(f"on_bad: expected 'raise' or 'count', found {on_bad!r}.")
    tally = Tally()
    with replacing(parquet) as aside:
        with _members(archive) as members:
            sha256 = write_rows(_rows(members, archive, on_bad, tally), SCHEMA, aside)
        _check_ids(aside, archive)
    content = _card(tally.counts(), sha256, archive_sha256)
    write_json(card, content)
    return content


def read_index(parquet: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads the table that `index` wrote, or some columns of it.

    Raises:
        DataError: The file is absent, is not Parquet, or has another schema than `SCHEMA`.
        KeyError: A column is asked for that the schema does not have.
    """
    return read_rows(parquet, SCHEMA, columns, "ImageNet-AB", __name__)


class Tally:
    """Counts what the records hold, one `add` per record.

    records: files. junk_skipped: macOS leftovers. bad_records: left out under `on_bad="count"`.
    without_metadata, with_metadata, several_metadata, with_box: records. wnids: distinct.
    All others count metadata elements, unless they say points:
    metadata: all. selected: final state True; of those selected_with_time (estimateTime > 0) and
    selected_without_click. clicked_then_unselected: state False, but with a recorded click.
    empty_trace, empty_hover: no sample, no action. usable_trace: 0 < estimateTime < 3000 ms.
    hover_closed: enters followed by a leave; hover_unclosed: the other enters.
    trace_duplicate_times, trace_backward_times: samples stamped as, or before, the one before them.
    clicks_out_of_range, trace_out_of_range: points with x or y outside [0, 1].
    missing_values: identifiers, numbers and click times that are absent (null in the table).
    workers, workers_selected_with_time: distinct, over all metadata and over those of that name.
    """

    _NAMES = (
        "records",
        "junk_skipped",
        "bad_records",
        "without_metadata",
        "with_metadata",
        "several_metadata",
        "with_box",
        "metadata",
        "selected",
        "selected_with_time",
        "selected_without_click",
        "clicked_then_unselected",
        "empty_trace",
        "empty_hover",
        "usable_trace",
        "hover_closed",
        "hover_unclosed",
        "trace_duplicate_times",
        "trace_backward_times",
        "clicks_out_of_range",
        "trace_out_of_range",
        "missing_values",
    )

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(self._NAMES, 0))
        self._distinct: dict[str, set[str]] = {
            "wnids": set(),
            "workers": set(),
            "workers_selected_with_time": set(),
        }

    def skip(self, what: Literal["junk_skipped", "bad_records"]) -> None:
        """Counts a member that gives no row."""
        self._counts[what] += 1

    def add(self, row: Row) -> None:
        """Counts one row of the table."""
        count = self._counts
        count["records"] += 1
        count["without_metadata"] += row["annotators"] == 0
        count["with_metadata"] += row["annotators"] > 0
        count["several_metadata"] += row["annotators"] > 1
        count["with_box"] += row["has_box"]
        self._distinct["wnids"].add(row["wnid"])
        for number in range(row["annotators"]):
            self._add_metadata({name: row[name][number] for name in PER_METADATA})

    def counts(self) -> dict[str, int]:
        """All counts, the distinct ones included."""
        return dict(self._counts) | {name: len(values) for name, values in self._distinct.items()}

    def _add_metadata(self, entry: Row) -> None:
        count = self._counts
        selected, time_ms, clicks = entry["selected"], entry["estimate_time_ms"] or 0, entry["click_xy"]
        count["metadata"] += 1
        count["selected"] += selected
        count["selected_with_time"] += selected and time_ms > 0
        count["selected_without_click"] += selected and not clicks
        count["clicked_then_unselected"] += not selected and bool(clicks)
        count["usable_trace"] += 0 < time_ms < USABLE_TRACE_MS
        count["clicks_out_of_range"] += _outside(clicks)
        count["missing_values"] += sum(entry[name] is None for name in (*TEXTS, *INTEGERS))
        count["missing_values"] += entry["click_time_ms"].count(None) + math.isnan(entry["position_xy"][0])
        self._add_workers(entry["worker_id"], selected and time_ms > 0)
        self._add_trace(entry["trace_xy"], entry["trace_time_ms"])
        self._add_hover(entry["hover_action"])

    def _add_workers(self, worker: str | None, with_time: bool) -> None:
        if worker is not None:
            self._distinct["workers"].add(worker)
            if with_time:
                self._distinct["workers_selected_with_time"].add(worker)

    def _add_trace(self, points: list[list[float]], times: list[int]) -> None:
        count = self._counts
        count["empty_trace"] += not points
        count["trace_out_of_range"] += _outside(points)
        for before, time in pairwise(times):
            count["trace_duplicate_times"] += time == before
            count["trace_backward_times"] += time < before

    def _add_hover(self, actions: list[str]) -> None:
        closed = sum(pair == ("enter", "leave") for pair in pairwise(actions))
        self._counts["empty_hover"] += not actions
        self._counts["hover_closed"] += closed
        self._counts["hover_unclosed"] += actions.count("enter") - closed


def _card(counts: dict[str, int], sha256: str, archive_sha256: str | None) -> dict[str, Any]:
    released = archive_sha256 == RELEASED_SHA256
    return {
        "rows": counts["records"],
        "sha256": sha256,
        "counts": counts,
        "known": KNOWN_COUNTS if released else None,
        "agrees": all(counts[name] == n for name, n in KNOWN_COUNTS.items()) if released else None,
    }


def _outside(points: list[list[float]]) -> int:
    return sum(not (0 <= x <= 1 and 0 <= y <= 1) for x, y in points)


# ---- members of an archive or a folder -> rows -> batches


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Yields (name, content) of each file, in order, while showing how far the reading is."""
    if archive.is_dir():
        with progress(archive.name, None, "B") as advance:
            yield _folder_members(archive, advance)
    elif not archive.is_file():
        raise DataError(f"{archive}: expected the archive of ImageNet-AB; it is not there. Run `luab fetch` first.")
    else:
        with progress(archive.name, archive.stat().st_size, "B") as advance:
            yield _archive_members(archive, advance)


def _folder_members(folder: Path, advance: Callable[[float], None]) -> Iterator[tuple[str, bytes]]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            data = b"" if path.stat().st_size > LARGEST_RECORD_BYTES else path.read_bytes()
            advance(len(data))
            yield path.relative_to(folder.parent).as_posix(), data


def _archive_members(archive: Path, advance: Callable[[float], None]) -> Iterator[tuple[str, bytes]]:
    name, seen = "", 0
    try:
        with open(archive, "rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as tar:
                while (member := tar.next()) is not None:
                    # tarfile would keep a million of them.
                    tar.members.clear()  # type: ignore[attr-defined]
                    if not member.isdir():
                        name = member.name
                        yield name, _content(tar, member)
                    advance(raw.tell() - seen)
                    seen = raw.tell()
            while stream.read(1 << 20):  # to the end, where the checksum of the whole is compared
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise DataError(_archive_message(archive, name, error)) from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg() or member.size > LARGEST_RECORD_BYTES:
        return b""
    file = tar.extractfile(member)
    return file.read() if file else b""


class _StrictInfo(tarfile.TarInfo):
    """A header that is cut off or damaged is an error; tarfile would take it for the archive's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictInfo":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no further header: {error}") from error


def _rows(
    members: Iterable[tuple[str, bytes]], archive: Path, on_bad: Literal["raise", "count"], tally: Tally
) -> Iterator[Row]:
    for name, data in members:
        if _is_junk(name):
            tally.skip("junk_skipped")
            continue
        try:
            row = _ids(name) | parse_record(data)
        except BadRecord as error:
            if on_bad == "raise":
                raise DataError(_record_message(archive, name, error)) from error
            tally.skip("bad_records")
            continue
        tally.add(row)
        yield row


def _is_junk(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith("._") or base == ".DS_Store"


def _ids(name: str) -> Row:
    path = PurePosixPath(name)
    if path.suffix != ".xml" or not _WNID.fullmatch(path.parent.name):
        raise BadRecord("expected a file <wnid>/<wnid>_<number>.xml")
    return {"image_id": path.stem, "wnid": path.parent.name}


def _check_ids(parquet: Path, archive: Path) -> None:
    ids = read_index(parquet, ["image_id"]).column("image_id")
    if len(ids) == 0:
        raise DataError(f"{archive}: expected XML records <wnid>/<wnid>_<number>.xml, found none.")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    raise DataError(
        f"{archive}: expected one record per image, found {len(twice)} images with several, for example "
        f"{twice[0].as_py()}. Does the folder hold two copies? Give the folder of one."
    )


# ---- messages


def _record_message(archive: Path, name: str, error: BadRecord) -> str:
    return (
        f"{archive}: expected records as in ImageNet-AB, found a broken one, {name}: {error}. Fetch "
        "the archive again (its SHA-256 is in config/archives.yaml), or pass on_bad='count' to leave such "
        "records out."
    )


def _archive_message(archive: Path, name: str, error: Exception) -> str:
    where = f"after {name}" if name else "at its start"
    return (
        f"{archive}: expected a whole tar.gz, found it damaged or cut off {where} ({error}). "
        "Remove it and run `luab fetch` again."
    )
