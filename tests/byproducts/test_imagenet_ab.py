"""The index of ImageNet-AB: real and hand-made records, order, identity, memory, and its reader."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts import imagenet_ab
from luab.byproducts.digest import ContentDigest
from luab.byproducts.imagenet_ab import (
    KNOWN_COUNTS,
    RELEASED_SHA256,
    SCHEMA,
    agreement,
    read_index,
    read_index_pieces,
)
from luab.byproducts.reading.bad_records import BadRecord
from luab.byproducts.reading.columns import batch_of_rows
from luab.byproducts.reading.counts import Tally
from luab.byproducts.reading.xml import PER_METADATA, parse_record
from luab.errors import ConfigError, DataError

BOX = (
    "<size><width>100</width><height>80</height></size>"
    "<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"
    "<object><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object>"
)


def points(tag: str, xyt: list[tuple[Any, ...]]) -> str:
    made = (f"<{tag}><time>{t}</time><x>{x}</x><y>{y}</y></{tag}>" for x, y, t in xyt)
    return "".join(made) or f"<{tag}>None</{tag}>"


def metadata(
    selected: str = "True",
    clicks: list[tuple[Any, ...]] = [(0.5, 0.25, 30)],  # noqa: B006
    trace: list[tuple[Any, ...]] = [(0.1, 0.2, 10), (0.5, 0.25, 30)],  # noqa: B006
    hovers: str = "<action>enter</action><time>10</time>",
    extra: str = "<estimateTime>20</estimateTime><worker_id>W</worker_id>",
) -> str:
    hover = f"<hoveredRecord>{hovers}</hoveredRecord>"
    return (
        f"<metadata>{extra}{hover}{points('mouseTracking', trace)}<selected>{selected}</selected>"
        f"{points('selectedRecord', clicks)}</metadata>"
    )


def record(*parts: str) -> bytes:
    return f"<annotation>{''.join(parts)}</annotation>".encode()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def index(archive: Path, folder: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    card = imagenet_ab.index(archive, folder / "index.parquet", folder / "index.json", **options)
    assert json.loads((folder / "index.json").read_text(encoding="utf-8")) == card
    return card, read_index(folder / "index.parquet").to_pylist()


@pytest.fixture(scope="module")
def real(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    card, rows = index(samples / "imagenet_ab", tmp_path_factory.mktemp("real"))
    return card["counts"], {row["image_id"]: row for row in rows}


def test_a_complete_real_record(real: tuple[dict[str, Any], dict[str, Any]]) -> None:
    row = real[1]["n01440764_10027"]
    assert (row["width"], row["height"], row["annotators"], row["boxes"]) == (200, 150, 1, [])
    assert (row["selected"], row["estimate_time_ms"], row["click_xy"]) == ([True], [570], [[[0.65, 0.61333]]])
    assert row["position_xy"] == [[857.0, 1976.0]]
    enter, leave = row["hover_time_ms"][0]
    assert (row["hover_action"], leave - enter) == ([["enter", "leave"]], 658)
    trace, times = row["trace_xy"][0], row["trace_time_ms"][0]
    steps = [0, 54, 93, 132, 159, 199, 250, 286, 315, 343, 378, 409, 468, 554]
    assert [time - times[0] for time in times] == steps
    assert (trace[0], trace[4], trace[-1]) == ([0.895, 0.49333], [0.68, 1.0], [0.65, 0.61333])


def test_real_records_with_a_box_none_lists_and_an_open_hover(
    real: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    counts, rows = real
    boxed, empty, open_hover = rows["n02490219_6469"], rows["n02490219_6690"], rows["n04542943_689"]
    assert (boxed["has_box"], boxed["boxes"]) == (True, [[184, 93, 303, 261]])
    assert (boxed["width"], boxed["height"], boxed["estimate_time_ms"]) == (500, 375, [550])
    assert boxed["hit_submit_time_s"] == [1641428175]
    assert (empty["selected"], empty["estimate_time_ms"], empty["has_box"]) == ([False], [0], False)
    assert [empty[name] for name in ("click_xy", "trace_xy", "hover_action")] == [[[]]] * 3
    assert (empty["page_idx"], empty["image_idx"], empty["displayed_height"]) == ([3], [29], [192])
    assert open_hover["hover_action"] == [["enter", "leave", "enter", "leave", "enter"]]
    assert (counts["hover_closed"], counts["hover_unclosed"]) == (4, 1)
    assert (counts["clicked_then_unselected"], counts["trace_duplicate_times"], counts["junk_skipped"]) == (
        1,
        1,
        1,
    )


def test_several_annotations_keep_their_own_lists() -> None:
    row = parse_record(record(metadata(clicks=[(0.2, 0.4, 1), (0.9, 0.9, 2)]), metadata("False", [], [])))
    assert row["annotators"] == 2
    assert row["selected"] == [True, False]
    assert row["click_xy"] == [[[0.2, 0.4], [0.9, 0.9]], []]
    assert row["click_time_ms"] == [[1, 2], []]
    assert row["trace_time_ms"] == [[10, 30], []]


def test_a_record_without_metadata_has_its_boxes_and_size() -> None:
    for parts in ([BOX], [BOX, "<metadata>None</metadata>"]):
        row = parse_record(record(*parts))
        assert (row["annotators"], row["boxes"]) == (0, [[1, 2, 30, 40], [5, 6, 7, 8]])
        assert (row["width"], row["height"]) == (100, 80)
        assert all(row[name] == [] for name in PER_METADATA)


def test_the_size_measured_by_the_page_takes_precedence_unless_it_is_zero() -> None:
    original = "<originalImageHeight>{}</originalImageHeight><originalImageWidth>{}</originalImageWidth>"
    for (height, width), expected in {(9, 7): (7, 9), (0, 0): (100, 80)}.items():
        row = parse_record(record(BOX, metadata(extra=original.format(height, width))))
        assert (row["width"], row["height"]) == expected
    row = parse_record(record(metadata()))
    assert (row["width"], row["height"]) == (None, None)


def test_missing_and_none_numbers_are_null_and_counted() -> None:
    row = parse_record(record(metadata(extra="<estimateTime>None</estimateTime>")))
    assert (row["estimate_time_ms"], row["page_idx"], row["worker_id"]) == ([None], [None], [None])
    tally = Tally()
    tally.add(batch_of_rows([row | {"image_id": "n01440764_1", "wnid": "n01440764"}]))
    assert tally.counts()["missing_values"] == 4 + 8 + 1  # texts, integers, position


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record(metadata(selected="true")), "expected True or False"),
        (record("<metadata><estimateTime>1</estimateTime></metadata>"), "expected True or False"),
        (record(metadata(extra="<estimateTime>1.5s</estimateTime>")), "integer as <estimateTime>"),
        (record(metadata(extra="<page_idx>3000000000</page_idx>")), "at most 2147483647 as <page_idx>"),
        (record(metadata(clicks=[("", 0.5, 1)])), "numbers <x> and <y>"),
        (record(metadata(clicks=[("nan", 0.5, 1)])), "finite"),
        (record(metadata(trace=[(0.5, 0.5, "1.5")])), "integer as <time>"),
        (record(metadata(trace=[(0.5, 0.5, "None")])), "has no <time>"),
        (record(metadata(hovers="<action>jump</action><time>1</time>")), "enter or leave"),
        (record("<object><name>n01440764</name></object>"), "has no <bndbox>"),
        (record("<object><bndbox><xmin>1</xmin></bndbox></object>"), "all four numbers"),
        (b"<html/>", "expected <annotation>"),
        (b"", "empty"),
    ],
)
def test_malformed_records_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        parse_record(data)


def test_counts_by_hand(tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "ab.tar.gz",
        {
            "train_xml/n01440764/._n01440764_1.xml": b"\x00\x05\x16\x07",
            "train_xml/.DS_Store": b"\x00",
            "train_xml/n01440764/n01440764_1.xml": record(BOX, metadata(), metadata("False")),
            "train_xml/n01440764/n01440764_2.xml": record(BOX),
            "train_xml/n01443537/n01443537_1.xml": record(
                metadata(
                    clicks=[],
                    trace=[(1.2, 0.5, 9), (0.5, 0.5, 9), (0.0, 1.0, 8)],
                    extra="<estimateTime>3000</estimateTime><worker_id>V</worker_id>",
                )
            ),
            "train_xml/n01443537/n01443537_2.xml": record(
                metadata(clicks=[(0.5, -0.1, 1), (2, 2, 2), (1, 0, 3)], trace=[], hovers="None", extra="")
            ),
        },
    )
    card, _ = index(archive, tmp_path)
    assert card["rows"] == 4
    assert (card["known"], card["agrees"]) == (None, None)
    assert card["counts"] == {
        "records": 4,
        "junk_skipped": 2,
        "bad_records": 0,
        "without_metadata": 1,
        "with_metadata": 3,
        "several_metadata": 1,
        "with_box": 2,
        "metadata": 4,
        "selected": 3,
        "selected_with_time": 2,
        "selected_without_click": 1,
        "clicked_then_unselected": 1,
        "empty_trace": 1,
        "empty_hover": 1,
        "usable_trace": 2,
        "hover_closed": 0,
        "hover_unclosed": 3,
        "trace_duplicate_times": 1,
        "trace_backward_times": 1,
        "clicks_out_of_range": 2,
        "trace_out_of_range": 1,
        # The position of all 4 annotations; 10 of the 12 other values of 3 of them, all 12 of one.
        "missing_values": 4 + 3 * 10 + 12,
        "wnids": 2,
        "workers": 2,
        "workers_selected_with_time": 2,
    }


def test_only_the_release_is_compared_with_its_known_counts(tmp_path: Path) -> None:
    archive = pack(tmp_path / "ab.tar.gz", {"train_xml/n01440764/n01440764_1.xml": record(metadata())})
    card, _ = index(archive, tmp_path, archive_sha256=RELEASED_SHA256)
    assert (card["known"], card["agrees"]) == (KNOWN_COUNTS, False)
    assert set(KNOWN_COUNTS) <= set(card["counts"])
    card, _ = index(archive, tmp_path, archive_sha256="0" * 64)
    assert (card["known"], card["agrees"]) == (None, None)


def test_known_counts_of_any_archive(tmp_path: Path) -> None:
    archive = pack(tmp_path / "ab.tar.gz", {"train_xml/n01440764/n01440764_1.xml": record(metadata())})
    card, _ = index(archive, tmp_path, known={"records": 1, "wnids": 1})
    assert (card["known"], card["agrees"]) == ({"records": 1, "wnids": 1}, True)
    assert agreement(card) == "1 records; all 2 known counts agree (records 1, wnids 1)."
    card, _ = index(archive, tmp_path, known={"records": 1, "workers": 3})
    assert card["agrees"] is False
    assert "WARNING" in agreement(card) and "workers 1 instead of 3" in agreement(card)
    card, _ = index(archive, tmp_path)
    assert "no known counts" in agreement(card)
    with pytest.raises(ConfigError, match=r"found colours\.$"):
        index(archive, tmp_path, known={"colours": 3})


def test_the_agreement_of_the_release() -> None:
    card = {"rows": 1_274_843, "counts": dict(KNOWN_COUNTS), "known": KNOWN_COUNTS, "agrees": True}
    assert "6,324 of ImageNet's 1,281,167 training images without one; all 4 known counts agree" in agreement(card)
    card["counts"] = KNOWN_COUNTS | {"workers_selected_with_time": 1_704}
    assert "WARNING" in agreement(card) and "1,704 instead of 1,705" in agreement(card)


@pytest.mark.parametrize("prefix", ["", "./", "imagenet_ab_v1_0/"])
def test_the_archives_order_and_both_prefixes(tmp_path: Path, prefix: str) -> None:
    names = ["n02490219_6469", "n01440764_9", "n01440764_10", "n04542943_1"]
    archive = tmp_path / "ab.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        folder = tarfile.TarInfo(f"{prefix}train_xml")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in names:
            info = tarfile.TarInfo(f"{prefix}train_xml/{name.split('_')[0]}/{name}.xml")
            info.size = len(data := record(metadata()))
            tar.addfile(info, io.BytesIO(data))
    _, rows = index(archive, tmp_path)
    assert [row["image_id"] for row in rows] == names
    assert [row["wnid"] for row in rows] == [name.split("_")[0] for name in names]


def test_repeats_are_identical_and_a_changed_point_changes_the_index(tmp_path: Path) -> None:
    files: list[bytes] = []
    digests: list[str] = []
    for number, x in enumerate([0.5, 0.5, 0.5000001]):
        folder = tmp_path / str(number)
        folder.mkdir()
        member = {"train_xml/n01440764/n01440764_1.xml": record(metadata(clicks=[(x, 0.5, 1)]))}
        card, _ = index(pack(folder / "ab.tar.gz", member), folder)
        files.append((folder / "index.parquet").read_bytes())
        digests.append(card["sha256"])
    assert files[0] == files[1] != files[2]
    assert digests[0] == digests[1] != digests[2]


def test_an_unpacked_folder_gives_the_same_rows_as_its_archive(tmp_path: Path) -> None:
    members = {f"train_xml/n01440764/n01440764_{n}.xml": record(metadata(clicks=[(n / 9, 0.5, n)])) for n in range(5)}
    for name, data in members.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    packed, _ = index(pack(tmp_path / "ab.tar.gz", members), tmp_path)
    for folder in (tmp_path / "train_xml", tmp_path / "train_xml" / "n01440764"):
        assert index(folder, tmp_path)[0] == packed


def test_utf8_text_is_kept(tmp_path: Path) -> None:
    extra = "<worker_id>Zoë 工</worker_id>"
    data = b'<?xml version="1.0" encoding="utf-8"?><!-- a comment -->' + record(metadata(extra=extra))
    _, rows = index(pack(tmp_path / "ab.tar.gz", {"n01440764/n01440764_1.xml": data}), tmp_path)
    assert rows[0]["worker_id"] == ["Zoë 工"]


def test_the_digest_ignores_batches_but_not_types_names_or_order() -> None:
    def digest(*tables: pa.Table) -> str:
        made = ContentDigest()
        for table in tables:
            made.update(table)
        return made.hexdigest()

    table = pa.table({"a": pa.array([[1, None], None, []], pa.list_(pa.int32())), "b": ["é", None, ""]})
    whole = digest(table)
    assert digest(table.slice(0, 1), table.slice(1)) == whole
    assert digest(pa.concat_tables([table.slice(0, 2), table.slice(2)])) == whole
    others = [
        table.rename_columns(["a", "c"]),
        table.take([1, 0, 2]),
        table.set_column(1, "b", pa.array(["", None, "é"])),
        table.set_column(1, "b", pa.array(["é", "", ""])),
        table.set_column(0, "a", pa.array([[1, None], None, []], pa.list_(pa.int64()))),
        table.set_column(0, "a", pa.array([[1], [None], []], pa.list_(pa.int32()))),
    ]
    assert len({whole, *map(digest, others)}) == 1 + len(others)


def test_every_column_has_a_meaning_and_the_file_keeps_it(tmp_path: Path) -> None:
    index(pack(tmp_path / "ab.tar.gz", {"n01440764/n01440764_1.xml": record(metadata())}), tmp_path)
    written = pq.read_schema(tmp_path / "index.parquet")
    assert all(written.field(field.name).metadata[b"doc"] == field.metadata[b"doc"] for field in SCHEMA)
    assert set(SCHEMA.names[7:]) == set(PER_METADATA)


def test_the_reader_takes_columns_and_refuses_other_files(tmp_path: Path) -> None:
    index(pack(tmp_path / "ab.tar.gz", {"n01440764/n01440764_1.xml": record(metadata())}), tmp_path)
    path = tmp_path / "index.parquet"
    assert read_index(path, ["selected", "wnid"]).column_names == ["selected", "wnid"]
    (piece,) = read_index_pieces(path, ["selected", "wnid"])
    assert piece.equals(read_index(path, ["selected", "wnid"]))
    with pytest.raises(KeyError):
        read_index(path, ["colour"])
    with pytest.raises(DataError, match="Run `luab index`"):
        read_index(tmp_path / "absent.parquet")
    pq.write_table(read_index(path).drop_columns(["wnid"]).append_column("more", pa.array([1])), path)
    with pytest.raises(DataError, match=r"\['wnid'\].*\['more'\]"):
        read_index(path)
    path.write_bytes(b"PAR1 not Parquet")
    with pytest.raises(DataError, match="unreadable"):
        read_index(path)


def test_an_unknown_choice_for_bad_records(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'ignore'"):
        index(tmp_path, tmp_path, on_bad="ignore")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_columns_with_seldom_repeated_values_have_no_dictionary(tmp_path: Path) -> None:
    index(pack(tmp_path / "a.tar", {f"n01440764/n01440764_{i}.xml": record(metadata()) for i in range(20)}), tmp_path)
    group = pq.ParquetFile(tmp_path / "index.parquet").metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    encoded = {column.path_in_schema.split(".")[0]: column.has_dictionary_page for column in columns}
    assert not any(encoded[name] for name in imagenet_ab._RELEASE.no_dictionary)
    assert all(encoded[name] for name in ("wnid", "worker_id", "click_xy", "trace_xy", "hover_action"))


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    tiny = record(metadata("False", [], [], "None", ""))
    peaks_mb = []
    for records in (17_000, 34_000):
        members = {f"train_xml/n01440764/n01440764_{n}.xml": tiny for n in range(records)}
        archive = pack(tmp_path / f"{records}.tar.gz", members)
        code = (
            "import sys; from pathlib import Path; from luab.byproducts.imagenet_ab import index\n"
            "index(*map(Path, sys.argv[1:]), processes=1)\n"
            # Not ru_maxrss: a child starts at its parent's peak, and the parent is the whole test run.
            "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        paths = [str(archive), str(tmp_path / "index.parquet"), str(tmp_path / "index.json")]
        done = subprocess.run(
            [sys.executable, "-c", code, *paths],
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
            errors="replace",
        )
        peaks_mb.append(int(done.stdout) / (1 << 10))
    # Both fill a row group (16,384 rows), so the second needs little more; rows that stayed in memory would take 50 MB.
    # Arrow frees memory at its own pace: on a busy machine, equal runs differed by up to 20 MB.
    assert peaks_mb[1] - peaks_mb[0] < 35
    assert peaks_mb[1] < 400
