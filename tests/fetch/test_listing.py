"""The list of downloads contains the published values, and valid archives unpack correctly."""

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

from luab.errors import ConfigError, DataError
from luab.fetch.fetch import fetch
from luab.fetch.listing import Archive, load_archives
from luab.fetch.unpack import unpack_all
from luab.fetch.verify import verify
from luab.files import file_sha256

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
# The same for the others, each checked against the statement that the list names as its source: name, bytes, checksum.
STATED = [
    ("coco_train", 13_510_573_713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
    ("coco_train", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"),
    ("coco_val", 6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
    ("coco_val", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"),
    ("coco_annotations", 252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
    ("coco_annotations", 252_872_794, "0a379cfc70b0e71301e0f377548639bd"),
    ("voc2007_trainval", 460_032_000, "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508"),
    ("voc2007_trainval", 460_032_000, "c52e279531787c972589f7e41ab4ae64"),
    ("voc2007_test", 451_020_800, "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892"),
    ("voc2007_test", 451_020_800, "b6e924de25625d8de591ea690078ad9f"),
    ("voc2012_trainval", 1_999_639_040, "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),
    ("voc2012_trainval", 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd"),
    ("imagenet_train", 147_897_477_120, "b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb"),
    ("imagenet_train", 147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    ("imagenet_val", 6_744_924_160, "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0"),
    ("imagenet_val", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
    ("imagenet_devkit", None, "fa75699e90414af021442c21a62c3abf"),
    ("imagenet_v2_threshold07", 1_249_906_176, "32142bfe998f9cfa4141be691f6a80eeb1e27b24bd532a668eb08c26d98897a2"),
    ("imagenet_v2_threshold07", 605_399_040, "bf2e2d9b625ae29c6e44982928f36220af62359b74602a995518a06840d0d76e"),
    ("imagenet_real", 388_478, "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"),
    ("imagenet_real", 388_478, "c03b536b209b127cb61430fd1ce950d5"),
    ("imagenet_a", 687_552_512, "c3e55429088dc681f30d81f4726b6595"),
    ("imagenet_o", 177_617_920, "0015fa5d33941be8e1187964e6dd494d1f5fe5fbb1b9dd53ff7463408a48acfb"),
    ("imagenet_o", 177_617_920, "86bd7a50c1c4074fb18fc5f219d6d50b"),
    ("imagenet_r", 2_191_079_936, "18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52"),
    ("imagenet_r", 2_191_079_936, "a61312130a589d0ca1a8fca1f2bd3337"),
    ("imagenet_c_blur", None, "2d8e81fdd8e07fef67b9334fa635e45c"),
    ("imagenet_c_weather", None, "33ffea4db4d93fe4a428c40a6ce0c25d"),
    ("imagenet_c_digital", None, "89157860d7b10d5797849337ca2e5c03"),
    ("imagenet_c_extra", None, "d492dfba5fc162d8ec2c3cd8ee672984"),
    ("objectnet", None, "522aa986a604c41ea641411c1d0a292e"),
    ("siscore_size", 3_488_115_773, "a9d9d7b5ae6fe005e7390bb6191de10f7b732021fb5cd41a694656274b1b8aa6"),
    ("siscore_rotation", 1_500_323_931, "767c5039d3cde5c82c009db26bee0a38ed6216ab9f69bd39ba16a97921aca041"),
    ("wsol_val_image_ids", 158_899, "bcd13383b7fdaa8aa9cfd02228b398802cf64b20f6efe13aa4b0696b9431d993"),
    ("wsol_val_class_labels", 197_799, "316209e92831b0dd910432afe74c55f2fb33ed72ade1378d3d0954df325ea51e"),
    ("wsol_val_image_sizes", 238_898, "4c82c4c1e14bc7f6a1a8a1fe7ab91df2ec369318b39a8b70618d6bd041cc7410"),
    ("wsol_val_localization", 566_431, "4d01d6e9eab27ec860092a43f5b7480f10aadbf21234bd01ae419e9c8181ea3f"),
    ("wsol_test_image_ids", 1_649_999, "68bed6c35194a126dba32ad15f2f19596a5f1a3923ffc4ac301402d93e045583"),
    ("wsol_test_class_labels", 1_844_499, "a226044e3e00900291053ecb8e68640385a196c5521c793d242df9e084e898b6"),
    ("wsol_test_image_sizes", 2_051_318, "dde3957c4bf3bdab41ec759386c6ebaa8bed2c1790891ec3465e3a235ed63f3e"),
    ("wsol_test_localization", 3_829_081, "c4a9929837b61e9c2a03524f5b963945782ddc9930c4f8ea764cc10004c5ee62"),
]  # fmt: skip
ONE = {"dataset": "a", "urls": ["file:a.bin"], "file": "a.bin", "checksum_source": "none published"}


@pytest.fixture(scope="module")
def archives(repository: Path) -> dict[str, Archive]:
    return load_archives(repository / "config" / "archives.yaml")


def _listed(folder: Path, entries: object) -> dict[str, Archive]:
    path = folder / "archives.yaml"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return load_archives(path)


@pytest.mark.parametrize(("name", "url", "size", "checksum"), PUBLISHED)
def test_the_list_contains_the_published_values(
    archives: dict[str, Archive], name: str, url: str, size: int | None, checksum: str
) -> None:
    source = next(source for source in archives[name].sources if source.url == url)
    assert source.bytes == size
    assert checksum in (source.sha256, source.md5)


def test_no_digit_of_a_checksum_or_size_has_changed(archives: dict[str, Archive]) -> None:
    listed = {
        (name, source.bytes, checksum)
        for name, archive in archives.items()
        for source in archive.sources
        for checksum in (source.sha256, source.md5)
        if checksum
    }
    # Without addresses a file is fetched by hand; what it must be stands in the entry itself.
    by_hand = {(n, a.bytes, c) for n, a in archives.items() if not a.sources for c in (a.sha256, a.md5) if c}
    assert set(STATED) <= listed | by_hand


def test_every_checksum_in_the_file_is_complete(repository: Path) -> None:
    text = (repository / "config" / "archives.yaml").read_text(encoding="utf-8")
    assert len(re.findall(r"^ *sha256: [0-9a-f]{64}$", text, re.M)) == len(re.findall("sha256: ", text)) > 15
    assert len(re.findall(r"^ *md5: [0-9a-f]{32}$", text, re.M)) == len(re.findall("md5: ", text)) > 10
    checksums = re.findall(r": ([0-9a-f]{32,64})$", text, re.M)
    assert len(set(checksums)) == len(checksums)


def test_datasets_with_terms_are_not_downloaded(archives: dict[str, Archive]) -> None:
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


def test_a_manual_dataset_explains_what_to_do(archives: dict[str, Archive], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)objectnet-1.0.zip.*paths.copies.objectnet"):
        fetch(archives["objectnet"], tmp_path, tmp_path / "objectnet.json")


def test_a_manually_downloaded_file_is_checked(tmp_path: Path) -> None:
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
        "four: Value error, a url has no sha256 or md5",
        "five.urls.0.url",
        "seven.file: 'six.json' is also the card of six",
        "eight",
    ]:
        assert f"  {place}" in text, text
    assert "  six" not in text


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", ""])
def test_an_invalid_list_is_a_config_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "archives.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"archives.yaml: expected"):
        load_archives(tmp_path / "archives.yaml")


def test_a_missing_list_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        load_archives(tmp_path / "archives.yaml")


def test_a_file_address_is_relative_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "server"
    server.mkdir()
    (server / "a b.bin").write_bytes(b"content")
    archive = _listed(server, {"a": {**ONE, "urls": ["file:a%20b.bin"]}})["a"]
    monkeypatch.chdir(tmp_path.parent)
    card = fetch(archive, tmp_path / "archives", tmp_path / "cards" / "a.json")
    assert (tmp_path / "archives" / "a.bin").read_bytes() == b"content"
    assert card == json.loads((tmp_path / "cards" / "a.json").read_text(encoding="utf-8"))
    assert card["url"] == "file:a%20b.bin"
    assert str(tmp_path) not in (tmp_path / "cards" / "a.json").read_text(encoding="utf-8")
    assert card["checksum"].startswith("none published")


def test_verify_reads_the_file_again(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"content")
    archive = _listed(tmp_path, {"a": ONE})["a"]
    folder = tmp_path / "archives"
    with pytest.raises(DataError, match="luab fetch a"):
        verify(archive, folder)
    fetch(archive, folder, tmp_path / "a.json")
    assert verify(archive, folder).bytes == 7
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
def test_the_compression_of_a_tar_is_detected_by_content(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(pack(_tar_bytes(MEMBERS)))
    card = unpack_all({"set.tar.gz": archive}, tmp_path / "raw" / "set", tmp_path / "raw" / "set.json", "set")
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
    assert json.loads((tmp_path / "raw" / "set.json").read_text(encoding="utf-8")) == card


def test_several_archives_unpack_to_one_folder_and_replace_the_old_one(tmp_path: Path) -> None:
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
    card = unpack_all({"l": tmp_path / "l.tar"}, tmp_path / "raw", tmp_path / "raw.json", "set")
    assert (
        (tmp_path / "raw/d/soft").read_text(encoding="utf-8")
        == (tmp_path / "raw/hard").read_text(encoding="utf-8")
        == "data"
    )
    assert card["files"] == 2
