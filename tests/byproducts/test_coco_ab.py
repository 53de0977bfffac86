"""The index of COCO-AB: real, hand-made and hostile records, counts, memory, and its reader."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from luab.byproducts import coco_ab
from luab.byproducts.coco_ab import KNOWN_COUNTS, RELEASED_SHA256, SCHEMA, agreement, read_index
from luab.byproducts.coco_classes import COCO_CLASSES, INDEX_OF_ID, INDEX_OF_NAME, PANES
from luab.byproducts.reading.bad_records import BadRecord
from luab.byproducts.reading.coco import Tally
from luab.byproducts.reading.coco_record import parse_record
from luab.errors import ConfigError, DataError

PERSON, DOG, CUP = INDEX_OF_NAME["person"], INDEX_OF_NAME["dog"], INDEX_OF_NAME["cup"]


def action(kind: str, icon: str = "dog", to: Any = None, start: Any = None, time: Any = 5) -> dict[str, Any]:
    made = {"actionType": kind, "iconType": icon, "timeAt": time}
    made |= {} if to is None else {"pointTo": dict(zip("xy", to, strict=True))}
    return made | ({} if start is None else {"pointFrom": dict(zip("xy", start, strict=True))})


def record(image_id: Any = 9, *actions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {
        "image_id": image_id,
        "originalImageHeight": 480,
        "originalImageWidth": 640,
        "imageHeight": 450,
        "imageWidth": 450,
        "timeSpent": 22283,
        "actionHistories": list(actions),
        "categoryHistories": [{"categoryIndex": 1, "categoryName": "Animal", "timeAt": 3, "usingKeyboard": False}],
        "mouseTracking": [{"x": 0.5, "y": 0.25, "timeAt": 3}],
        "hit_id": "0" * 32,
        "page_id": 3,
        "worker_id": "W",
    } | changes
    return {key: value for key, value in made.items() if value != "absent"}


def index(folder: Path, records: Any, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / "coco_ab_v1_0.json"
    path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    card = coco_ab.index(path, folder / "index.parquet", folder / "index.json", **options)
    assert json.loads((folder / "index.json").read_text(encoding="utf-8")) == card
    return card, read_index(folder / "index.parquet").to_pylist()


def test_the_classes_are_the_official_80_in_order_of_their_ids() -> None:
    assert len(COCO_CLASSES) == len(INDEX_OF_ID) == len(INDEX_OF_NAME) == 80
    gaps = set(range(1, 92)) - set(INDEX_OF_ID)
    assert gaps == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    # Ranks of the ids: 91 - 11 gaps = 80; "toothbrush" (90) is last, "stop sign" (13) follows the gap at 12.
    assert (INDEX_OF_ID[1], INDEX_OF_ID[13], INDEX_OF_ID[90]) == (0, 11, 79)
    assert (COCO_CLASSES[0].name, COCO_CLASSES[79].name, INDEX_OF_NAME["dining table"]) == ("person", "toothbrush", 60)
    sizes = [sum(item.pane == number for item in COCO_CLASSES) for number in range(len(PANES))]
    assert sizes == [6, 10, 8, 5, 10, 7, 10, 6, 5, 6, 7]


def test_real_records(samples: Path, tmp_path: Path) -> None:
    sample = samples / "coco_ab" / "coco_ab_sample.json"
    card, (readme, cake, broken) = index(tmp_path, sample.read_text(encoding="utf-8"))
    assert (readme["image_id"], readme["width"], readme["height"], readme["time_spent_ms"]) == (459214, 640, 428, 22283)
    assert readme["action_class"] == [INDEX_OF_NAME["pizza"], CUP]
    assert readme["action_to_xy"] == [[0.5839524517087668, 0.5888888888888889]] * 2
    assert (readme["hit_id"], readme["page_id"], readme["worker_id"]) == (None, None, "00AA3B5E80")
    assert (readme["pane_index"], readme["pane_name"]) == ([1, 10], ["Animal", "IndoorObjects"])
    assert (readme["trace_time_ms"], readme["trace_xy"][1]) == (
        [15725, 17426],
        [0.7176820208023774, 0.6422222222222222],
    )
    assert (cake["action_type"], cake["action_time_ms"]) == (["add", "move"], [155755, 158789])
    assert cake["action_to_xy"] == [[0.7883, 0.8378], [0.7017, 0.5444]]
    assert cake["action_from_xy"][1] == [0.7883, 0.8378] and math.isnan(cake["action_from_xy"][0][0])
    assert broken["action_type"] == ["add", "remove", "add"]
    counts = card["counts"]
    assert (counts["zero_original_size"], counts["removed_icons"], counts["moves"], counts["missing_values"]) == (
        1,
        1,
        1,
        2,
    )
    assert card["known"] is None and card["agrees"] is None


def test_every_odd_case_is_counted(tmp_path: Path) -> None:
    null = action("add", "cup", (0.1, 0.2)) | {"pointFrom": None}
    records = [
        record(9, action("add", "dog", (0.5, 0.5)), action("remove", "dog", start=(0.5, 0.5)), null),
        record(9, action("add", to=(1.5, 0.5)), action("move", to=(0, 1), start=(1.5, 0.5)), action("add", to=(0, -1))),
        record(25, action("add", "person"), originalImageWidth=0, imageHeight=0, imageWidth=0, worker_id=None),
        record(30, mouseTracking=[], categoryHistories=[], page_id="absent", more=1, worker_id="V"),
        record(
            34,
            mouseTracking=[{"x": x, "y": y, "timeAt": t} for x, y, t in [(0, 1, 5), (1.01, 0, 5), (0.5, 0.5, 4)]],
        ),
    ]
    card, rows = index(tmp_path, records)
    assert card["counts"] == {
        "records": 5,
        "bad_records": 0,
        "images": 4,
        "duplicate_records": 1,
        "workers": 2,
        "classes": 3,
        "zero_original_size": 1,
        "zero_displayed_size": 1,
        "without_actions": 2,
        "empty_trace": 1,
        "empty_panes": 1,
        "adds": 5,
        "moves": 1,
        "removes": 1,
        "added_again": 1,
        "removed_icons": 1,
        "points_absent": 5,  # pointFrom of four adds, pointTo of the removal
        "points_null": 1,
        "needed_points_missing": 1,
        "points_out_of_range": 3,
        "trace_out_of_range": 1,
        "trace_duplicate_times": 1,
        "trace_backward_times": 1,
        "missing_values": 2,
        "unknown_keys": 1,
    }
    assert set(card["counts"]) == set(Tally().counts())
    assert [row["image_id"] for row in rows] == [9, 9, 25, 30, 34]


BAD: list[tuple[Any, str]] = [
    (5, "expected an object, found 5"),
    (record("9"), "image_id"),
    (record(None), "image_id is missing"),
    (record(True), "image_id, found True"),
    (record(-1), "image_id, found -1"),
    (record(9.5), "found 9.5"),
    (record(2**31), "image_id"),
    (record(10**400), "more than 64 bits"),
    (record(originalImageWidth="640"), "originalImageWidth"),
    (record(timeSpent=[]), "timeSpent, found an array of 0"),
    (record(worker_id=7), "worker_id"),
    (record(worker_id="W" * 201), "at most 200"),
    (record(hit_id="\ud800"), "Unicode"),
    (record(actionHistories={}), "actionHistories"),
    (record(mouseTracking=[1]), "mouseTracking"),
    (record(mouseTracking=[{"x": 1, "y": 0}]), "has no timeAt"),
    (record(mouseTracking=[{"x": 1, "timeAt": 0}]), "y of mouseTracking, found None"),
    (record(mouseTracking=[{"x": True, "y": 0, "timeAt": 1}]), "x of mouseTracking"),
    (record(categoryHistories=[{"categoryIndex": 11, "timeAt": 1}]), "categoryIndex"),
    (record(categoryHistories=[{"usingKeyboard": "no", "timeAt": 1}]), "usingKeyboard"),
    (record(9, action("click", to=(0, 0))), "actionType, found 'click'"),
    (record(9, action("add", "blender", (0, 0))), "iconType, found 'blender'"),
    (record(9, action("add", to=("0", 0))), "x of pointTo"),
    (record(9, {**action("add"), "pointTo": [0, 1]}), "pointTo, found an array"),
    (record(9, action("add", to=(0, 0), time=None)), "actionHistories has no"),
    (record(9, action("add", to=(0, 0), time=2**63)), "timeAt"),
]


@pytest.mark.parametrize(("bad", "why"), BAD)
def test_a_bad_record_is_refused_with_its_number_and_byte(tmp_path: Path, bad: Any, why: str) -> None:
    with pytest.raises(BadRecord, match=why):
        parse_record(bad)
    text = json.dumps([record(), bad])
    with pytest.raises(DataError) as error:
        index(tmp_path, text)
    position = f"record 1 at byte {len(json.dumps([record()])) + 1}"
    assert position in str(error.value) and "on_bad='count'" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["coco_ab_v1_0.json"]


def test_infinite_coordinates_are_refused(tmp_path: Path) -> None:
    text = json.dumps([record(9, action("add", to=(0.5, 0.25)))])
    with pytest.raises(DataError, match="finite number as y of pointTo, found inf"):
        index(tmp_path, text.replace("0.25}}", "1e999}}"))


def test_bad_records_can_be_skipped_and_counted(tmp_path: Path) -> None:
    card, rows = index(tmp_path, [bad for bad, _ in BAD] + [record(34)], on_bad="count")
    assert (card["counts"]["bad_records"], card["rows"]) == (len(BAD), 1)
    assert rows[0]["image_id"] == 34


def test_invalid_json_stops_whatever_on_bad_is(tmp_path: Path) -> None:
    text = json.dumps([record(), record()])
    for broken in (
        text[:-1],
        text[: len(text) // 2 + 40],
        text.replace('"image_id": 9', '"image_id": 9, "image_id": 8'),
    ):
        with pytest.raises(DataError, match="byte"):
            index(tmp_path, broken, on_bad="count")
    with pytest.raises(ConfigError, match="on_bad"):
        index(tmp_path, text, on_bad="ignore")
    with pytest.raises(DataError, match="found none"):
        index(tmp_path, "[]")


def test_the_release_is_compared_with_its_known_counts(tmp_path: Path) -> None:
    card, _ = index(tmp_path, [record(9, action("add", to=(0, 0)))], archive_sha256=RELEASED_SHA256)
    assert (card["known"], card["agrees"], card["source_sha256"]) == (KNOWN_COUNTS, False, RELEASED_SHA256)
    assert "WARNING" in agreement(card) and "records 1 instead of 82,765, classes 1 instead of 80" in agreement(card)
    met = card | {"rows": 82_765, "counts": KNOWN_COUNTS}
    assert agreement(met) == "82,765 records; all 2 known counts agree (records 82,765, classes 80)."
    other, _ = index(tmp_path, [record()], archive_sha256="0" * 64)
    assert (other["known"], other["agrees"]) == (None, None)
    assert "no known counts" in agreement(other)


def test_another_archive_is_compared_with_its_given_counts(tmp_path: Path) -> None:
    card, _ = index(tmp_path, [record()], known={"records": 1, "adds": 0})
    assert (card["known"], card["agrees"]) == ({"records": 1, "adds": 0}, True)
    assert index(tmp_path, [record()], known={"records": 2})[0]["agrees"] is False
    with pytest.raises(ConfigError, match=r"known counts: expected records, .*found icons\."):
        index(tmp_path, [record()], known={"icons": 1})


def test_the_digest_names_the_content_and_not_its_layout(tmp_path: Path) -> None:
    records = [record(n, action("add", to=(n / 4000, 0.5))) for n in range(3000)]  # more than one row group
    first, rows = index(tmp_path, records)
    assert len(rows) == 3000 and rows[2999]["action_to_xy"] == [[2999 / 4000, 0.5]]
    assert pq.ParquetFile(tmp_path / "index.parquet").num_row_groups == 2
    again, _ = index(tmp_path, json.dumps(records, indent=1))
    assert again["sha256"] == first["sha256"]
    changed, _ = index(tmp_path, [*records[:-1], record(2999, action("add", to=(0.7, 0.5)))])
    assert changed["sha256"] != first["sha256"]


def test_the_reader_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"COCO-AB is missing\. Run `luab index`"):
        read_index(tmp_path / "none.parquet")
    index(tmp_path, [record()])
    assert read_index(tmp_path / "index.parquet", ["image_id"]).column_names == ["image_id"]
    pq.write_table(read_index(tmp_path / "index.parquet").drop(["trace_xy"]), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"coco_ab.SCHEMA.*trace_xy"):
        read_index(tmp_path / "other.parquet")
    with pytest.raises(KeyError):
        read_index(tmp_path / "index.parquet", ["wnid"])
    assert all(field.metadata[b"doc"] for field in SCHEMA)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_below_300_mb(tmp_path: Path) -> None:
    """The file has 53 MB, and its decoded records would take more than the bound; the release has 398 MB."""
    one = json.dumps(record(9, action("add", to=(0.5, 0.5)), mouseTracking=[{"x": 0.1, "y": 0.2, "timeAt": 3}] * 100))
    (tmp_path / "ab.json").write_text("[" + ", ".join([one] * 12_288) + "]", encoding="utf-8")
    # Not getrusage: its peak starts at that of the parent process.
    code = (
        "import re, sys; from pathlib import Path; from luab.byproducts.coco_ab import index\n"
        "index(Path(sys.argv[1]) / 'ab.json', Path(sys.argv[1]) / 'i.parquet', Path(sys.argv[1]) / 'i.json')\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    )
    assert int(done.stdout) / 1024 < 300
