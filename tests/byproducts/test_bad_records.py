"""Damaged archives and hostile records give one readable error each and no partial files."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from luab.byproducts.imagenet_ab import index, read_index
from luab.errors import DataError
from luab.study.config import Study

pytestmark = pytest.mark.faults

GOOD = (
    b"<annotation><metadata><estimateTime>5</estimateTime><selected>True</selected>"
    b"<selectedRecord><x>0.5</x><y>0.5</y></selectedRecord></metadata></annotation>"
)
LAUGHS = b"".join(
    b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10 if level else b"lol") for level in range(10)
)
BOMB = b"<!DOCTYPE annotation [" + LAUGHS + b"]><annotation><filename>&l9;</filename></annotation>"
OUTSIDE = (
    b'<!DOCTYPE annotation [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    b"<annotation><filename>&file;</filename></annotation>"
)


def tar_bytes(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"train_xml/n01440764/{name.replace('__', '.')}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def refusal(folder: Path, archive: Path) -> str:
    """Indexes over an older result; checks that the result is unchanged and returns the error message."""
    outputs = {folder / "out" / name: name.encode() for name in ("index.parquet", "index.json")}
    for path, content in outputs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        index(archive, *outputs)
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == outputs
    message = str(caught.value)
    assert str(archive) in message and "\n" not in message.strip()
    return message


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (OUTSIDE.decode().encode("utf-16"), "document type"),
        (BOMB.decode().encode("utf-16"), "n01440764_2.xml does not"),  # by whichever check comes first
        (b'<!DOCTYPE annotation SYSTEM "http://localhost:1/x.dtd">' + GOOD, "document type"),
        (b"\x00\x05\x16\x07\x00\x02", "not XML"),
        (GOOD[:-20], "not XML"),
        (b"<annotation>" * 300 + b"</annotation>" * 300, "not XML"),
        (GOOD.replace(b"0.5", b"", 1), "numbers <x> and <y>"),
        (GOOD.replace(b"<x>0.5</x>", b""), "numbers <x> and <y>"),
        (GOOD.replace(b">5<", b">five<"), "'five'"),
        (GOOD.replace(b">5<", b">" + b"9" * 5000 + b"<"), "integer as <estimateTime>"),
        (GOOD.replace(b">5<", b">" + b"9" * 30 + b"<"), "at most"),
        (b"", "empty"),
    ],
)
def test_a_bad_record_is_named_or_counted(tmp_path: Path, bad: bytes, reason: str) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes(n01440764_1__xml=GOOD, n01440764_2__xml=bad)))
    message = refusal(tmp_path, archive)
    assert reason in message and "train_xml/n01440764/n01440764_2.xml" in message
    assert "Fetch the archive again" in message and "on_bad='count'" in message
    assert "`on_bad: count` in the config" in message and "on_bad" in Study.model_fields

    card = index(archive, tmp_path / "i.parquet", tmp_path / "i.json", on_bad="count")
    assert (card["rows"], card["counts"]["bad_records"]) == (1, 1)
    assert read_index(tmp_path / "i.parquet")["image_id"].to_pylist() == ["n01440764_1"]


def test_a_member_whose_name_is_not_that_of_a_record(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes(n01440764_1__xml=GOOD, README__txt=b"hello")))
    assert "train_xml/n01440764/README.txt" in refusal(tmp_path, archive)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("train_xml/n01440764/n01440764_1.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "not a regular file" in refusal(tmp_path, archive)


def members_of(count: int) -> bytes:
    return tar_bytes(**{f"n01440764_{n}__xml": GOOD for n in range(count)})


def test_an_archive_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    whole = gzip.compress(members_of(50))
    for length in (0, 5, 12, 100, len(whole) // 2, len(whole) - 30, len(whole) - 8, len(whole) - 1):
        archive.write_bytes(whole[:length])
        expected = "damaged or truncated" if length else "expected a tar or zip, found an empty file"
        assert expected in refusal(tmp_path, archive), length


def test_a_truncated_tar_inside_an_intact_gzip_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    plain = members_of(50)
    for length in (1024 * 20, 1024 * 20 + 100, 1024 * 20 + 600):  # between members, in a header, in a record
        archive.write_bytes(gzip.compress(plain[:length]))
        assert "damaged or truncated after train_xml/n01440764/n01440764_" in refusal(tmp_path, archive), length


def test_a_header_of_noise_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    plain = bytearray(members_of(50))
    plain[1024 * 20 : 1024 * 20 + 512] = bytes(range(256)) * 2
    archive.write_bytes(gzip.compress(bytes(plain)))
    assert "after train_xml/n01440764/n01440764_19.xml" in refusal(tmp_path, archive)


def test_a_flipped_bit_is_detected(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    whole = bytearray(gzip.compress(members_of(50), compresslevel=0))  # uncompressed: only the checksum can detect it
    position = bytes(whole).index(b"0.5")
    whole[position] ^= 1
    archive.write_bytes(whole)
    assert "damaged or truncated" in refusal(tmp_path, archive)


def test_a_web_page_is_not_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(b"<html>404</html>")
    assert "expected a tar or zip, found a web page" in refusal(tmp_path, archive)


def test_a_gzip_that_is_not_a_tar(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(b"plain text" * 100))
    assert "expected a complete tar or zip" in refusal(tmp_path, archive)


def test_a_missing_archive_and_one_without_records(tmp_path: Path) -> None:
    assert "luab fetch" in refusal(tmp_path, tmp_path / "ab.tar.gz")
    (tmp_path / "empty").mkdir()
    assert "found none" in refusal(tmp_path, tmp_path / "empty")
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes()))
    assert "found none" in refusal(tmp_path, archive)


def test_a_folder_with_two_copies(tmp_path: Path) -> None:
    for copy in ("train_xml", "imagenet_ab_v1_0/train_xml"):
        path = tmp_path / "raw" / copy / "n01440764" / "n01440764_1.xml"
        path.parent.mkdir(parents=True)
        path.write_bytes(GOOD)
    message = refusal(tmp_path, tmp_path / "raw")
    assert "n01440764_1" in message and "two copies" in message


def test_a_failed_first_run_leaves_no_file(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(members_of(50))[:-9])
    with pytest.raises(DataError):
        index(archive, tmp_path / "out" / "i.parquet", tmp_path / "out" / "i.json")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_click_may_lack_its_time(tmp_path: Path) -> None:
    archive = tmp_path / "ab.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes(n01440764_1__xml=GOOD)))
    index(archive, tmp_path / "i.parquet", tmp_path / "i.json")
    assert read_index(tmp_path / "i.parquet")["click_time_ms"].to_pylist() == [[[None]]]
    assert json.loads((tmp_path / "i.json").read_text(encoding="utf-8"))["rows"] == 1
