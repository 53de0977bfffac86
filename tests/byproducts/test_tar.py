"""The tar reader returns the members that tarfile returns, and refuses what tarfile refuses."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luab.byproducts.json_stream import array_items
from luab.byproducts.reading import tar as members
from luab.byproducts.reading.tar import archive_blocks, folder_blocks
from luab.errors import DataError

Files = list[tuple[str, bytes]]


def tar_bytes(files: Files, kind: int = tarfile.GNU_FORMAT, mtime: float = 0) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), mtime, "someone"  # type: ignore[assignment]
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def walked(archive: Path) -> tuple[Files, str]:
    """Returns the files and the error message, if any."""
    found: Files = []
    try:
        for block in archive_blocks(archive):
            start = 0
            for name, size in zip(block.names, block.sizes, strict=True):
                found.append((name, block.data[start : start + size]))
                start += size
            assert start == len(block.data)
    except DataError as error:
        return found, str(error)
    return found, ""


def by_tarfile_alone(plain: bytes) -> tuple[Files, bool]:
    """Returns the files as read by tarfile alone, and whether it reached the end."""
    found: Files = []
    try:
        found.extend(members._by_tarfile(members._Rest(b"", io.BytesIO(plain))))
    except tarfile.TarError:
        return found, False
    return found, True


SOME = [(f"train_xml/n01440764/n01440764_{n}.xml", b"<annotation/>" * n) for n in range(90)]


@pytest.fixture
def never_tarfile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(rest: object) -> None:
        raise AssertionError("tarfile was used")

    monkeypatch.setattr(members, "_by_tarfile", refuse)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("block_bytes", [512, 1500, 4 << 20])
@pytest.mark.parametrize("mtime", [0, 1600000000.5])  # the second needs an extended header in a pax archive
def test_usual_members_in_every_format(
    tmp_path: Path, kind: int, block_bytes: int, mtime: float, monkeypatch: pytest.MonkeyPatch, never_tarfile: None
) -> None:
    monkeypatch.setattr(members, "BLOCK_BYTES", block_bytes)
    small = [(name, data) for name, data in SOME if len(data) < block_bytes]
    (tmp_path / "ab.tar.gz").write_bytes(gzip.compress(tar_bytes(small, kind, mtime)))
    assert walked(tmp_path / "ab.tar.gz") == (small, "")


def test_archives_of_the_tar_command(tmp_path: Path, never_tarfile: None) -> None:
    import shutil
    import subprocess

    if not shutil.which("tar"):
        pytest.skip("needs tar")
    for name, data in SOME:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    subprocess.run(["tar", "-czf", "ab.tar.gz", "train_xml"], cwd=tmp_path, check=True)
    found, end = walked(tmp_path / "ab.tar.gz")
    assert (sorted(found), end) == (sorted(SOME), "")
    blocks = list(folder_blocks(tmp_path / "train_xml"))
    assert [name for block in blocks for name in block.names] == [name for name, _ in sorted(SOME)]
    assert b"".join(block.data for block in blocks) == b"".join(data for _, data in sorted(SOME))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tarfile_reads_unusual_members(tmp_path: Path, kind: int) -> None:
    long, foreign, large = "n01440764/" + "x" * 150 + ".xml", "n01440764/é.xml", "n01440764/large.xml"
    files = [*SOME[:20], (long, b"long"), *SOME[20:40], (foreign, b"foreign"), (large, bytes(5 << 20)), *SOME[40:]]
    (tmp_path / "ab.tar.gz").write_bytes(gzip.compress(tar_bytes(files, kind)))
    assert walked(tmp_path / "ab.tar.gz") == (files, "")


def test_links_are_empty_and_folders_are_skipped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "ab.tar.gz", "w:gz") as tar:
        for name, kind in (("a", tarfile.DIRTYPE), ("a/link", tarfile.SYMTYPE), ("a/hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("a/empty"))
    assert walked(tmp_path / "ab.tar.gz") == ([("a/link", b""), ("a/hard", b""), ("a/empty", b"")], "")


@pytest.mark.parametrize(
    "headers", [{"path": "other.xml"}, {"size": "3"}, {"GNU.sparse.major": "1"}, {"linkpath": "x"}]
)
def test_tarfile_reads_an_extended_header_that_changes_a_member(tmp_path: Path, headers: dict[str, str]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, more in enumerate(({}, headers, {"comment": "harmless"})):
            info = tarfile.TarInfo(f"n01440764/{number}.xml")
            info.size, info.pax_headers = 600, more
            tar.addfile(info, io.BytesIO(bytes(600)))
    (tmp_path / "ab.tar.gz").write_bytes(gzip.compress(stream.getvalue()))
    found, end = walked(tmp_path / "ab.tar.gz")
    alone, whole = by_tarfile_alone(stream.getvalue())
    assert (found, not end) == (alone, whole)


PLAIN = tar_bytes(SOME[:6], mtime=1600000000)
PAX = tar_bytes(SOME[:4], tarfile.PAX_FORMAT, mtime=1600000000.5)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_tar_is_read_or_refused_as_by_tarfile(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plain = bytearray(data.draw(st.sampled_from([PLAIN, PAX])))
    headers = st.integers(0, len(plain) // 512 - 1).map(lambda sector: 512 * sector)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(headers) + data.draw(st.integers(0, 511) | st.integers(100, 160))
        plain[at] = data.draw(st.integers(0, 255) | st.sampled_from(list(b"\0 01789x5LgS-+_")))
    if data.draw(st.booleans()):  # repair the checksums, so that the other checks are tested
        for at in range(0, len(plain), 512):
            if plain[at + 257 : at + 262] == b"ustar":
                header = bytes(plain[at : at + 148]) + b" " * 8 + bytes(plain[at + 156 : at + 512])
                plain[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    if data.draw(st.booleans()):
        del plain[data.draw(st.integers(0, len(plain))) :]
    archive = tmp_path_factory.getbasetemp() / "damaged.tar.gz"
    archive.write_bytes(gzip.compress(bytes(plain), 1))
    found, end = walked(archive)
    alone, whole = by_tarfile_alone(bytes(plain))
    assert (found, not end) == (alone, whole)


def test_blocks_before_the_damage_come_first(tmp_path: Path) -> None:
    plain = tar_bytes(SOME)
    (tmp_path / "ab.tar.gz").write_bytes(gzip.compress(plain[: len(plain) // 2]))
    files, error = walked(tmp_path / "ab.tar.gz")
    assert files == SOME[: len(files)] and len(files) > 20
    assert f"damaged or truncated after {files[-1][0]}" in error


def test_the_format_is_recognised_by_content(tmp_path: Path) -> None:
    plain = tar_bytes(SOME)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("train_xml")
        for name, data in SOME:
            archive.writestr(name, data)
    for content in (plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), zipped.getvalue()):
        (tmp_path / "ab.tar.gz").write_bytes(content)
        assert walked(tmp_path / "ab.tar.gz") == (SOME, "")
        (tmp_path / "ab.tar.gz").write_bytes(content[: len(content) // 2])
        assert "damaged or truncated" in walked(tmp_path / "ab.tar.gz")[1]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_web_page_in_place_of_the_archive_is_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "ab.tar.gz").write_bytes(pack(b"<!DOCTYPE html><html>"))
    assert "ab.tar.gz: expected a tar or zip, found a web page" in walked(tmp_path / "ab.tar.gz")[1]
    (tmp_path / "ab.json").write_bytes(pack(b"<!DOCTYPE html><html>"))
    with (
        pytest.raises(DataError, match=r"ab\.json.*(expected JSON, found a web page|are not valid UTF-8)"),
        array_items(tmp_path / "ab.json") as items,
    ):
        list(items)
