"""Packed training images: same samples as from files, and every way in which a pack can be damaged."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from luab.data.images.build_pack import build_pack
from luab.data.images.imagenet import ImageNetAB
from luab.data.images.loader import EpochBatches, training_loader
from luab.data.images.pack import Pack, shard_name
from luab.data.manifests.build_manifest import build_manifest
from luab.data.manifests.manifest import read_manifest
from luab.errors import DataError
from luab.study.config import Packing, Recipe
from luab.study.paths import card
from luab.training.train import train

RECIPE = Recipe(epochs=1, batch_size=2, input_px=32, optimizer="sgd", lr=1, weight_decay=0, warmup_epochs=0)
AS_IT_IS = Packing(shard_mb=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """24 noisy JPEGs of about 100 kB, so that a pack has three shards, and one with a PNG's bytes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(24):
        file = root / "imagenet" / "train" / "n01440764" / f"n01440764_{k}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (280 + 3 * k, 340 - 3 * k, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG" if k == 5 else "JPEG", quality=95)
    manifest = root / "manifest.parquet"
    build_manifest("imagenet_train", root / "imagenet", manifest, card(manifest), partial=True)
    return root


def _pack(root: Path, index: Path, packing: Packing = AS_IT_IS, workers: int = 0) -> dict:
    return build_pack(root / "imagenet", root / "manifest.parquet", packing, index, workers)


def _open(root: Path, index: Path, packing: Packing = AS_IT_IS) -> Pack:
    return Pack(index, packing, pa.array(read_manifest(root / "manifest.parquet")["image_id"]))


def _dataset(root: Path, pack: Pack | None, decoding: str = "exact") -> ImageNetAB:
    dataset = ImageNetAB(
        root / "imagenet", root / "manifest.parquet", None, RECIPE, seed=1, decoding=decoding, pack=pack
    )
    dataset.points[:] = (0.3, 0.6)
    return dataset


@pytest.fixture(scope="module")
def packed(photos) -> Path:
    index = photos / "packs" / "imagenet_train.parquet"
    _pack(photos, index, workers=2)
    return index


@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_original_bytes_give_the_same_samples(photos, packed, decoding):
    files, shards = _dataset(photos, None, decoding), _dataset(photos, _open(photos, packed), decoding)
    for epoch in range(2):
        files.epoch = shards.epoch = epoch
        for i in range(24):
            ours, theirs = shards[i], files[i]
            assert ours.keys() == theirs.keys()
            for name, part in ours.items():
                assert torch.equal(torch.as_tensor(part), torch.as_tensor(theirs[name]))


def test_loader_processes_share_a_pack(photos, packed):
    dataset = _dataset(photos, _open(photos, packed))
    dataset.epoch = 0
    alone, shared = (
        list(training_loader(dataset, EpochBatches(24, 6, 0, 0), workers, pinned=False)) for workers in (0, 2)
    )
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(part, theirs[name]) for name, part in ours.items())


def test_shards_are_plain_tar_files_in_the_manifests_order(photos, packed):
    content = json.loads(card(packed).read_text(encoding="utf-8"))
    assert content["n"] == 24 and len(content["shards"]) >= 3
    ids = []
    for shard in content["shards"]:
        with tarfile.open(packed.with_suffix("") / shard["file"]) as tar:
            for member in tar:
                ids.append(Path(member.name).stem)
                original = photos / "imagenet" / "train" / "n01440764" / f"{ids[-1]}.JPEG"
                assert tar.extractfile(member).read() == original.read_bytes()
    assert ids == read_manifest(photos / "manifest.parquet")["image_id"].tolist()


def test_resized_images_keep_crop_flip_and_point(photos, tmp_path):
    packing = Packing(shorter_side_px=100, quality=95, shard_mb=1)
    index = tmp_path / "imagenet_train.parquet"
    _pack(photos, index, packing)
    pack = _open(photos, index, packing)
    files, resized = _dataset(photos, None), _dataset(photos, pack)
    for i in range(24):
        with (
            Image.open(io.BytesIO(pack.read(i))) as small,
            Image.open(photos / "imagenet" / files.paths[i].as_py()) as b,
        ):
            assert min(small.size) == 100 and b.size == pack.size_wh(i)
        ours, theirs = resized[i], files[i]
        assert torch.equal(ours["points"], theirs["points"]) and ours["weights"] == theirs["weights"]
        # Resized noise has other pixels but the same mean grey at the same place.
        assert (ours["images"].float().mean() - theirs["images"].float().mean()).abs() < 8
    assert json.loads(card(index).read_text(encoding="utf-8"))["bytes"] < 0.7 * sum(
        f.stat().st_size for f in photos.rglob("*.JPEG")
    )


def test_a_resized_pack_shows_the_same_part_of_the_image(tmp_path):
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (300, 1)), np.tile(ramp[:300, None], (1, 400)), np.zeros((300, 400), np.uint8)], 2)
    file = tmp_path / "imagenet" / "train" / "n01440764" / "n01440764_0.JPEG"
    file.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(file, quality=95)
    manifest = tmp_path / "manifest.parquet"
    build_manifest("imagenet_train", tmp_path / "imagenet", manifest, card(manifest), partial=True)
    packing = Packing(shorter_side_px=120, quality=95)
    index = tmp_path / "pack.parquet"
    _pack(tmp_path, index, packing)
    files, resized = _dataset(tmp_path, None), _dataset(tmp_path, _open(tmp_path, index, packing))
    for epoch in range(20):
        files.epoch = resized.epoch = epoch
        difference = (files[0]["images"].int() - resized[0]["images"].int()).abs()[:2]
        assert difference.float().mean() < 2  # half a pixel of 120 is 1 of 255 in brightness here


def test_an_interrupted_packing_resumes_and_repairs(photos, packed, tmp_path):
    index = tmp_path / "imagenet_train.parquet"
    shutil.copytree(packed.with_suffix(""), index.with_suffix(""))
    shards = index.with_suffix("")
    untouched, damaged = shards / shard_name(0), shards / shard_name(1)
    before = untouched.stat().st_ino
    data = bytearray(damaged.read_bytes())
    data[5000] ^= 1
    damaged.write_bytes(data)
    (shards / shard_name(2)).unlink()
    (shards / "shard-00099.tar").write_bytes(b"of an earlier, larger pack")
    assert _pack(photos, index) == json.loads(card(packed).read_text(encoding="utf-8"))
    assert untouched.stat().st_ino == before
    assert sorted(f.name for f in shards.glob("*.tar")) == sorted(f.name for f in packed.with_suffix("").glob("*.tar"))
    _open(photos, index)


def test_another_config_packs_again(photos, packed, tmp_path):
    index = tmp_path / "imagenet_train.parquet"
    shutil.copytree(packed.parent, tmp_path, dirs_exist_ok=True)
    smaller = Packing(shorter_side_px=64, shard_mb=1)
    with pytest.raises(DataError, match=r"packed as the config says.*luab pack"):
        _open(photos, index, smaller)
    content = _pack(photos, index, smaller)
    assert content["sha256"] != json.loads(card(packed).read_text(encoding="utf-8"))["sha256"]
    assert len(list(index.with_suffix("").glob("*.tar"))) == len(content["shards"])


def test_a_damaged_image_stops_the_packing(photos, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(photos, root, ignore=shutil.ignore_patterns("packs"))
    bad = root / "imagenet" / "train" / "n01440764" / "n01440764_3.JPEG"
    bad.write_bytes(bad.read_bytes()[:3000])
    index = tmp_path / "imagenet_train.parquet"
    with pytest.raises(DataError, match=r"n01440764_3\.JPEG .*damaged"):
        _pack(root, index)
    assert not index.exists() and not card(index).exists()


def _cut(index):
    shard = index.with_suffix("") / shard_name(0)
    shard.write_bytes(shard.read_bytes()[:-4000])


def _rewrite(change):
    def damage(index):
        table = change(pq.read_table(index))
        pq.write_table(table, index)
        content = json.loads(card(index).read_text(encoding="utf-8"))
        from luab.files import file_sha256

        content["index_sha256"] = file_sha256(index)
        card(index).write_text(json.dumps(content), encoding="utf-8")

    return damage


def _set(column, value):
    def change(table):
        values = table[column].to_pylist()
        values[3] = value
        return table.set_column(
            table.schema.get_field_index(column), table.schema.field(column), pa.array(values, table[column].type)
        )

    return _rewrite(change)


DAMAGE = {
    "no card": (lambda index: card(index).unlink(), "JSON file, found none"),
    "strange card": (
        lambda index: card(index).write_text("[]", encoding="utf-8"),
        "expected a card with packing, shards, index_sha256",
    ),
    "no shards": (
        lambda index: card(index).write_text('{"packing": 0, "shards": [], "index_sha256": 0}', encoding="utf-8"),
        "no shards",
    ),
    "no index": (lambda index: index.unlink(), "found another or none"),
    "other index": (lambda index: index.write_bytes(b"PAR1"), "found another or none"),
    "shard gone": (lambda index: (index.with_suffix("") / shard_name(1)).unlink(), "found nothing"),
    "shard cut": (_cut, "bytes, found"),
    "columns": (_rewrite(lambda table: table.drop_columns(["offset"])), "expected the columns"),
    "rows": (_rewrite(lambda table: table.slice(1)), "images of the manifest"),
    "order": (_rewrite(lambda table: table.take(pa.array([1, 0, *range(2, 24)]))), "images of the manifest"),
    "negative offset": (_set("offset", -512), "places inside"),
    "far offset": (_set("offset", 1 << 40), "places inside"),
    "too long": (_set("bytes", 1 << 40), "places inside"),
    "no bytes": (_set("bytes", 0), "places inside"),
    "unknown shard": (_set("shard", 99), "places inside"),
    "negative shard": (_set("shard", -1), "places inside"),
    "no width": (_set("width", 0), "widths and heights"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_packs_are_errors(photos, packed, tmp_path, kind):
    shutil.copytree(packed.parent, tmp_path, dirs_exist_ok=True)
    index = tmp_path / packed.name
    damage, message = DAMAGE[kind]
    damage(index)
    with pytest.raises(DataError, match=message):
        _open(photos, index)


def test_a_shard_damaged_after_opening_is_named(photos, packed, tmp_path):
    shutil.copytree(packed.parent, tmp_path, dirs_exist_ok=True)
    pack = _open(photos, tmp_path / packed.name)
    (tmp_path / packed.stem / shard_name(0)).write_bytes(b"")
    with pytest.raises(DataError, match=r"shard-00000\.tar \(row 0\): expected \d+ bytes"):
        pack.read(0)
    (tmp_path / packed.stem / shard_name(2)).unlink()
    with pytest.raises(DataError, match=r"shard-00002\.tar: expected this shard"):
        pack.read(23)


def test_pickling_a_pack_leaves_out_open_files(photos, packed):
    pack = _open(photos, packed)
    pack.read(0)
    assert pickle.loads(pickle.dumps(pack)).read(0) == pack.read(0)


def test_training_from_a_pack_of_original_bytes_gives_the_same_weights(toy_study, toy_world, tmp_path):
    study = toy_study(recipe={"epochs": 1})
    run = study.runs()[0]
    train(study, run)
    files = json.loads(study.layout.run_json(run).read_text(encoding="utf-8"))
    data = tmp_path / "data"
    shutil.copytree(toy_world / "data", data)
    packing = {"shorter_side_px": None, "quality": 90, "shard_mb": 1}
    changed = study.model_dump(mode="json") | {"packing": packing}
    changed["paths"] |= {"data": str(data), "results": str(tmp_path / "packed")}
    packed_study = type(study).model_validate(changed)
    with pytest.raises(DataError, match=r"imagenet_train\.json"):
        train(packed_study, run)
    index = packed_study.layout.pack("imagenet_train")
    content = build_pack(
        toy_world / "imagenet", packed_study.layout.manifest("imagenet_train"), packed_study.packing, index, 0
    )
    train(packed_study, run)
    packed = json.loads(packed_study.layout.run_json(run).read_text(encoding="utf-8"))
    assert packed["final"] == files["final"]
    assert packed["inputs"] == files["inputs"] | {"pack": content["sha256"]}
    assert files["settings"] == packed["settings"] == {"decoding": "exact"} and "pack" not in files["inputs"]
