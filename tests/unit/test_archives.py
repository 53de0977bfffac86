"""The list of downloads says what was published, and ordinary archives unpack to what was packed."""

import bz2
import gzip
import io
import json
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from luab.archives import Archive, load_archives
from luab.errors import ConfigError, DataError
from luab.fetching import fetch
from luab.files import file_sha256
from luab.unpacking import unpack_all
from luab.verifying import verify

# Typed from the publishers' pages, apart from the list: name, url, bytes, sha256 or md5.
PUBLISHED = [
    (
        "imagenet_ab",
        "https://huggingface.co/datasets/coallaoh/ImageNet-AB/resolve/main/imagenet_ab_v1_0.tar.gz",
        None,
        "38e67940a68adb5a3d436a25a0656d8c99023731077395b60097d01cd97868b1",
    ),
    (
        "coco_ab",
        "https://huggingface.co/datasets/coallaoh/COCO-AB/resolve/main/coco_ab_v1_0.json",
        398_322_779,
        "dcc1c8ac0aa4a4d687b4325ae95c542ce2ea98a7a0229a7a29f0835b4b152775",
    ),
    (
        "imagenet_v2",
        "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
        1_253_959_680,
        "a32004f9e773279307499059d320336a23ccdc62cb32063da29bae9bd04c122c",
    ),
    (
        "imagenet_v2",
        "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
        1_264_079_360,
        "f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
    ),
    (
        "imagenet_a",
        "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
        687_552_512,
        "3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
    ),
    (
        "siscore_location",
        "https://s3.us-east-1.amazonaws.com/si-score-dataset/location.zip",
        19_550_491_774,
        "5f99de7fff83481539c2c11aee526bd52a189cdbb7a562dd9f47518b4ab1f73c",
    ),
    (
        "imagenet_c_noise",
        "https://zenodo.org/record/2235448/files/noise.tar",
        None,
        "e80562d7f6c3f8834afb1ecf27252745",
    ),
]
ONE = {"dataset": "a", "urls": ["file:a.bin"], "file": "a.bin", "checksum_source": "none published"}


@pytest.fixture(scope="module")
def archives(repository: Path) -> dict[str, Archive]:
    return load_archives(repository / "config" / "archives.yaml")


def _listed(folder: Path, entries: object) -> dict[str, Archive]:
    path = folder / "archives.yaml"
    path.write_text(json.dumps(entries))
    return load_archives(path)


@pytest.mark.parametrize(("name", "url", "size", "checksum"), PUBLISHED)
def test_the_list_says_what_was_published(
    archives: dict[str, Archive], name: str, url: str, size: int | None, checksum: str
) -> None:
    source = next(source for source in archives[name].sources if source.url == url)
    assert source.bytes == size
    assert checksum in (source.sha256, source.md5)


def test_every_checksum_in_the_file_is_whole(repository: Path) -> None:
    text = (repository / "config" / "archives.yaml").read_text()
    assert len(re.findall(r"^ *sha256: [0-9a-f]{64}$", text, re.M)) == len(re.findall("sha256: ", text)) > 15
    assert len(re.findall(r"^ *md5: [0-9a-f]{32}$", text, re.M)) == len(re.findall("md5: ", text)) > 10
    checksums = re.findall(r": ([0-9a-f]{32,64})$", text, re.M)
    assert len(set(checksums)) == len(checksums)


def test_sets_with_terms_are_never_downloaded(archives: dict[str, Archive]) -> None:
    manual = {name for name, archive in archives.items() if archive.manual}
    assert manual == {
        "imagenet_train",
        "imagenet_val",
        "imagenet_devkit",
        "imagenet_sketch",
        "objectnet",
    }
    for name in manual:
        assert not archives[name].urls
        assert "`paths." in str(archives[name].manual)


def test_a_manual_set_says_what_to_do(archives: dict[str, Archive], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)objectnet-1.0.zip.*paths.copies.objectnet"):
        fetch(archives["objectnet"], tmp_path, tmp_path / "objectnet.json")


def test_a_manual_file_put_by_hand_is_checked(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"by hand")
    entry = {**ONE, "urls": [], "manual": "ask", "checksum_source": "here", "sha256": file_sha256(good)}
    archive = _listed(tmp_path, {"a": entry})["a"]
    (tmp_path / "archives").mkdir()
    shutil.copy(good, tmp_path / "archives" / "a.bin")
    card = fetch(archive, tmp_path / "archives", tmp_path / "a.json")
    assert card["url"] is None and card["sha256"] == file_sha256(good)
    (tmp_path / "archives" / "a.bin").write_bytes(b"not it!")
    with pytest.raises(DataError, match=r"ask.*\n.*expected sha256 .*a\.bin\.bad"):
        fetch(archive, tmp_path / "archives", tmp_path / "a.json")


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    entries = {
        "one": {**ONE, "sha256": "12ab", "checksum_source": "here"},
        "two": {**ONE, "file": "../b", "shasum": 1},
        "three": {"dataset": "c", "file": "c", "checksum_source": "x"},
        "four": {**ONE, "file": "d", "checksum_source": "somebody"},
        "five": {**ONE, "file": "e", "urls": ["ftp://host/e"]},
        "six": {**ONE, "file": "f"},
        "seven": {**ONE, "file": "six.json"},
        "eight": 3,
    }
    with pytest.raises(ConfigError) as caught:
        _listed(tmp_path, entries)
    text = str(caught.value)
    for place in [
        "one.sha256",
        "two.file",
        "two.shasum",
        "three: Value error, expected either `urls` or `manual`",
        "four: Value error, no sha256 or md5 for every url",
        "five.urls.0.url",
        "seven.file: 'six.json' is also the card of six",
        "eight",
    ]:
        assert f"  {place}" in text, text
    assert "  six" not in text


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", ""])
def test_a_list_that_is_none_is_a_config_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "archives.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"archives.yaml: expected"):
        load_archives(tmp_path / "archives.yaml")


def test_a_missing_list_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not there"):
        load_archives(tmp_path / "archives.yaml")


def test_a_file_address_is_relative_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "server"
    server.mkdir()
    (server / "a b.bin").write_bytes(b"content")
    archive = _listed(server, {"a": {**ONE, "urls": ["file:a%20b.bin"]}})["a"]
    monkeypatch.chdir(tmp_path.parent)
    card = fetch(archive, tmp_path / "archives", tmp_path / "cards" / "a.json")
    assert (tmp_path / "archives" / "a.bin").read_bytes() == b"content"
    assert card == json.loads((tmp_path / "cards" / "a.json").read_text())
    assert card["url"] == "file:a%20b.bin"
    assert str(tmp_path) not in (tmp_path / "cards" / "a.json").read_text()
    assert card["checksum"].startswith("none published")


def test_verify_reads_the_file_anew(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"content")
    archive = _listed(tmp_path, {"a": ONE})["a"]
    folder = tmp_path / "archives"
    with pytest.raises(DataError, match="luab fetch a"):
        verify(archive, folder)
    fetch(archive, folder, tmp_path / "a.json")
    assert verify(archive, folder)["bytes"] == 7
    (folder / "a.bin").write_bytes(b"CONTENT")
    with pytest.raises(DataError, match="the first download had sha256"):
        verify(archive, folder)


# ---- unpack ------------------------------------------------------------------------------------------------


def _tar_bytes(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _zip_file(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


MEMBERS = {
    "set/b/1.txt": b"one" * 9999,
    "set/b/._1.txt": b"\x00\x05\x16\x07",
    "set/a/2.txt": b"",
    "__MACOSX/set/3": b"x",
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_of_any_compression_unpacks_whatever_its_name(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(pack(_tar_bytes(MEMBERS)))
    card = unpack_all([archive], tmp_path / "raw" / "set", tmp_path / "raw" / "set.json", "set")
    found = {
        path.relative_to(tmp_path / "raw" / "set").as_posix(): path.read_bytes()
        for path in (tmp_path / "raw" / "set").rglob("*")
        if path.is_file()
    }
    assert found == {"set/b/1.txt": b"one" * 9999, "set/a/2.txt": b""}
    assert card == {
        "dataset": "set",
        "archives": {"set.tar.gz": file_sha256(archive)},
        "files": 2,
        "skipped": 2,
    }
    assert json.loads((tmp_path / "raw" / "set.json").read_text()) == card


def test_several_archives_make_one_folder_and_replace_the_old_one(tmp_path: Path) -> None:
    _zip_file(tmp_path / "one.zip", {"a/1": b"1", "b/": b""})
    (tmp_path / "two.tar").write_bytes(_tar_bytes({"a/2": b"22"}))
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "stale").touch()
    named = {"two": tmp_path / "two.tar", "one": tmp_path / "one.zip"}
    card = unpack_all(named, folder, tmp_path / "raw.json", "set")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        "a",
        "a/1",
        "a/2",
        "b",
    ]
    assert list(card["archives"]) == ["one", "two"] and card["files"] == 2


def test_links_inside_the_tree_are_kept(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, goal in [
            ("d/f", tarfile.REGTYPE, ""),
            ("d/soft", tarfile.SYMTYPE, "f"),
            ("hard", tarfile.LNKTYPE, "d/f"),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, goal, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"data"))
    (tmp_path / "l.tar").write_bytes(out.getvalue())
    card = unpack_all([tmp_path / "l.tar"], tmp_path / "raw", tmp_path / "raw.json", "set")
    assert (tmp_path / "raw/d/soft").read_text() == (tmp_path / "raw/hard").read_text() == "data"
    assert card["files"] == 2
