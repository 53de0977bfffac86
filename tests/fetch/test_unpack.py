"""Truncated, damaged, unsafe or too large archives raise a clear error and leave no files."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from luab.errors import DataError, JobError
from luab.fetch.unpack import unpack_all

pytestmark = pytest.mark.faults

RANDOM = os.urandom(300_000)  # incompressible, so that a truncated archive ends inside a member


def _member(name: str, kind: bytes = tarfile.REGTYPE, goal: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, goal, size
    return member


def _tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(RANDOM) if member.isreg() else None)
    return out.getvalue()


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def _unpack(archive: Path, root: Path) -> None:
    unpack_all({"set": archive}, root / "raw" / "set", root / "raw" / "set.json", "set")


def _check_raises(archive: Path, root: Path, reason: str) -> None:
    """Checks that unpacking raises `reason`, keeps the existing folder and writes nothing."""
    folder = root / "raw" / "set"
    folder.mkdir(parents=True)
    (folder / "before").write_text("before", encoding="utf-8")
    with pytest.raises(DataError, match=reason) as caught:
        _unpack(archive, root)
    assert str(archive) in str(caught.value) and "fetch it again" in str(caught.value)
    assert [path.name for path in (root / "raw").rglob("*")] == ["set", "before"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([_member("/tmp/luab-slip")], "'/tmp/luab-slip' has an absolute path"),
        ([_member("a/../../slip")], "climbs out"),
        ([_member("..")], "climbs out"),
        ([_member("l", tarfile.SYMTYPE, "../../outside")], "'l' leaves the folder"),
        ([_member("l", tarfile.SYMTYPE, "/etc/passwd")], "'l' leaves the folder"),
        ([_member("h", tarfile.LNKTYPE, "../../outside")], "'h' is a hard link out of the folder"),
        ([_member("h", tarfile.LNKTYPE, "/etc/passwd")], "'h' is a hard link out of the folder"),
        ([_member("h", tarfile.LNKTYPE, "nowhere")], "'h' is a hard link to the missing file 'nowhere'"),
        ([_member("c", tarfile.CHRTYPE)], "'c' is a device or a pipe"),
        ([_member("b", tarfile.BLKTYPE)], "'b' is a device or a pipe"),
        ([_member("p", tarfile.FIFOTYPE)], "'p' is a device or a pipe"),
        ([_member("l", tarfile.SYMTYPE, "."), _member("l/f", size=9)], "'l/f' is written through a link"),
        ([_member("l", tarfile.SYMTYPE, "f"), _member("l", size=9)], "'l' is written through a link"),
        (
            [_member("l", tarfile.SYMTYPE, "."), _member("h", tarfile.LNKTYPE, "l/f")],
            "'h' is a hard link out of the folder",
        ),
        # The second link makes the first one, which was safe, point outside.
        (
            [_member("a/b/out", tarfile.SYMTYPE, "in/../../x"), _member("a/b/in", tarfile.SYMTYPE, "../..")],
            "out' is a link out of the folder",
        ),
    ],
)
def test_an_unsafe_tar_raises(tmp_path: Path, members: list[tarfile.TarInfo], reason: str) -> None:
    (tmp_path / "outside").write_text("outside", encoding="utf-8")
    (tmp_path / "set.tar").write_bytes(_tar(_member("good", size=5), *members))
    _check_raises(tmp_path / "set.tar", tmp_path, reason)
    assert not Path("/tmp/luab-slip").exists() and not (tmp_path / "slip").exists()


def _unix(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, mode << 16
    return member


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/tmp/luab-slip", "has an absolute path"),
        ("a/../../slip", "climbs out"),
        (_unix("link", stat.S_IFLNK | 0o777), "is a link, a device or a pipe"),
        (_unix("pipe", stat.S_IFIFO | 0o644), "is a link, a device or a pipe"),
        (_unix("device", stat.S_IFCHR | 0o644), "is a link, a device or a pipe"),
    ],
)
def test_an_unsafe_zip_raises(tmp_path: Path, member: str | zipfile.ZipInfo, reason: str) -> None:
    _zip(tmp_path / "set.zip", ("good", b"good"), (member, b"../../outside"))
    _check_raises(tmp_path / "set.zip", tmp_path, reason)
    assert not Path("/tmp/luab-slip").exists() and not (tmp_path / "slip").exists()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("left", [0.0, 0.3, 0.5, 0.95])
def test_a_truncated_tar_raises(tmp_path: Path, pack: Callable[[bytes], bytes], left: float) -> None:
    whole = pack(_tar(_member("a", size=300_000), _member("b", size=1000)))
    (tmp_path / "set.tar.gz").write_bytes(whole[: int(len(whole) * left)])
    _check_raises(tmp_path / "set.tar.gz", tmp_path, "truncated or damaged")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_without_its_final_checksum_raises(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "set.tar.gz").write_bytes(pack(_tar(_member("a", size=1000)))[:-3])
    _check_raises(tmp_path / "set.tar.gz", tmp_path, "truncated or damaged")


def test_a_tar_truncated_between_two_members_raises(tmp_path: Path) -> None:
    # Python's tarfile reads this one without an error.
    whole = _tar(_member("a", size=512), _member("b", size=512))
    (tmp_path / "set.tar").write_bytes(whole[:1024])
    with tarfile.open(tmp_path / "set.tar") as tar:
        assert tar.getnames() == ["a"]
    _check_raises(tmp_path / "set.tar", tmp_path, "truncated or damaged")


def test_a_tar_with_a_damaged_header_raises(tmp_path: Path) -> None:
    whole = bytearray(_tar(_member("a", size=512), _member("b", size=512)))
    whole[1024 + 5] ^= 0xFF
    (tmp_path / "set.tar").write_bytes(whole)
    _check_raises(tmp_path / "set.tar", tmp_path, "truncated or damaged")


def test_a_flipped_bit_in_a_gzip_raises(tmp_path: Path) -> None:
    # Stored blocks: the flip changes only content, so only the final checksum detects it.
    whole = bytearray(gzip.compress(_tar(_member("a", size=300_000)), compresslevel=0))
    whole[150_000] ^= 1
    (tmp_path / "set.tar.gz").write_bytes(whole)
    _check_raises(tmp_path / "set.tar.gz", tmp_path, "truncated or damaged")


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
def test_a_truncated_zip_raises(tmp_path: Path, left: float) -> None:
    _zip(tmp_path / "whole", ("a", RANDOM), ("b", b"b"))
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "set.zip").write_bytes(whole[: int(len(whole) * left)])
    _check_raises(tmp_path / "set.zip", tmp_path, "truncated or damaged")


def test_a_flipped_bit_in_a_zip_raises(tmp_path: Path) -> None:
    _zip(tmp_path / "set.zip", ("a", RANDOM))
    whole = bytearray((tmp_path / "set.zip").read_bytes())
    whole[150_000] ^= 1
    (tmp_path / "set.zip").write_bytes(whole)
    _check_raises(tmp_path / "set.zip", tmp_path, "truncated or damaged")


@pytest.mark.parametrize("content", [b"no archive" * 100, b"PK\x03\x04 no zip", b"\x1f\x8b no gzip"])
def test_a_file_that_is_not_an_archive_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.tar").write_bytes(content)
    _check_raises(tmp_path / "set.tar", tmp_path, "truncated or damaged")


def test_a_member_inside_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(_tar(_member("a", size=5), _member("a/b", size=5)))
    _check_raises(tmp_path / "set.tar", tmp_path, "truncated or damaged")


def test_a_missing_archive_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tar: archive not found"):
        _unpack(tmp_path / "gone.tar", tmp_path)


# ---- disk space -----------------------------------------------------------------------------------------------


def test_a_tar_larger_than_the_disk_raises_before_writing(tmp_path: Path) -> None:
    header = _member("bomb", size=10**15).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "set.tar").write_bytes(header + bytes(10240))
    with pytest.raises(JobError, match="bomb: expected room for 1,000,000,000,000,000 more bytes"):
        _unpack(tmp_path / "set.tar", tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_zip_larger_than_the_disk_raises_before_writing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("bomb", b"0" * 1000)
        archive.infolist()[0].file_size = 10**15  # written to the central directory at the end
    with pytest.raises(JobError, match=r"set\.zip: expected room for 1,000,000,000,000,000 more"):
        _unpack(tmp_path / "set.zip", tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from luab.fetch.unpack import unpack_all
from luab.errors import LuabError
disk, archive = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + sys.argv[3], "none", disk], check=True)
try:
    unpack_all({"set": archive}, disk / "raw", disk / "raw.json", "set")
except LuabError as error:
    print(type(error).__name__, sorted(path.name for path in disk.iterdir()), error)
"""


def _own_mounts() -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not _own_mounts(), reason="needs permission to mount a small disk")
@pytest.mark.parametrize(("members", "reason"), [(9, "expected room for"), (300, "could not be written")])
def test_nothing_is_left_on_a_full_disk(tmp_path: Path, members: int, reason: str) -> None:
    # Nine large members: the declared size is too large. Three hundred empty ones: the disk runs out of inodes.
    size = 300_000 if members == 9 else 0
    (tmp_path / "set.tar").write_bytes(_tar(*[_member(f"{k}", size=size) for k in range(members)]))
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "1m" if size else "1m,nr_inodes=99"
    command = [sys.executable, "-c", SMALL_DISK, str(disk), str(tmp_path / "set.tar"), options]
    said = subprocess.run(
        ["unshare", "-rm", *command], check=True, capture_output=True, text=True, encoding="utf-8", errors="replace"
    ).stdout
    assert said.startswith("JobError [] ") and reason in said


# ---- members that Python cannot read -----------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip: Python cannot encrypt")
def test_an_encrypted_zip_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"secret" * 100)
    command = ["zip", "-q", "-P", "open sesame", "set.zip", "a"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"'a' .*encrypted.*unzip -P.*paths\.copies"):
        _unpack(tmp_path / "set.zip", tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_zip_with_an_unknown_compression_raises(tmp_path: Path) -> None:
    _zip(tmp_path / "set.zip", ("a", b"a"))
    whole = (tmp_path / "set.zip").read_bytes()
    deflated, deflate64 = b"\x08\x00", b"\x09\x00"
    start, listed = whole.index(b"PK\x03\x04") + 8, whole.index(b"PK\x01\x02") + 10
    assert whole[start : start + 2] == whole[listed : listed + 2] == deflated
    other = whole[:start] + deflate64 + whole[start + 2 : listed] + deflate64 + whole[listed + 2 :]
    (tmp_path / "set.zip").write_bytes(other)
    with pytest.raises(DataError, match=r"cannot read member 'a' .*`unzip`.*paths\.copies"):
        _unpack(tmp_path / "set.zip", tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []


# ---- formats other than the name says ----------------------------------------------------------------------

ONE_FILE = _tar(_member("a", size=300_000))
PAGE = b"\n<!DOCTYPE html><html><title>Please sign in</title></html>"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.zip"])
def test_a_tar_is_unpacked_whatever_its_name(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(pack(ONE_FILE))
    _unpack(tmp_path / name, tmp_path)
    assert (tmp_path / "raw" / "set" / "a").read_bytes() == RANDOM


def test_a_zip_named_tar_gz_is_unpacked(tmp_path: Path) -> None:
    _zip(tmp_path / "set.tar.gz", ("a", b"a"))
    _unpack(tmp_path / "set.tar.gz", tmp_path)
    assert (tmp_path / "raw" / "set" / "a").read_bytes() == b"a"


FOREIGN = [
    (PAGE, "a web page"),
    (b"\xef\xbb\xbf" + PAGE, "a web page"),
    (PAGE.decode().encode("utf-16"), "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page or XML"),
    (b'{"error": "quota exceeded"}', "JSON"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    (b"7z\xbc\xaf\x27\x1c rest", "7z"),
    (b"Rar!\x1a\x07\x01\x00", "RAR"),
    (b"\x28\xb5\x2f\xfd rest", "Zstandard"),
    (b"PAR1 rest PAR1", "Parquet"),
]


@pytest.mark.parametrize(("content", "found"), FOREIGN)
@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
def test_another_format_is_named(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    _check_raises(tmp_path / name, tmp_path, f"expected a tar or zip, found {found}")


def test_an_archive_without_files_raises(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(_tar(_member("only", tarfile.DIRTYPE)))
    with pytest.raises(DataError, match=r"set\.tar: expected files to unpack, found none"):
        _unpack(tmp_path / "set.tar", tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []
