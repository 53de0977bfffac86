"""ILSVRC2012 validation images without class folders: labels by position, from the development kit."""

import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from luab.data.manifests.labels import look_up, wnid_index, wnids
from luab.data.manifests.tree import Entry, Tree, no_imagenet
from luab.errors import DataError

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def flat_val(tree: Tree) -> Iterator[Entry]:
    """Validation images without folders, labelled through the devkit."""
    images = tree.images("val")
    if not images:
        raise no_imagenet(tree)
    data = tree.root / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    meta = data / "meta.mat"
    if not (truth.is_file() and meta.is_file()):
        raise no_imagenet(tree)
    index_of_id = _devkit_classes(meta)
    labels = [_devkit_label(line, index_of_id, truth) for line in truth.read_text().split()]
    found = set()
    for stem, path in images:
        position = val_position(stem, tree.root / path)
        if position >= len(labels):
            raise DataError(f"{truth}: expected a line for {stem}, found {len(labels)} lines. Unpack the devkit again.")
        found.add(wnids()[labels[position]])
        yield Entry(stem, path, (labels[position],))
    tree.complete(found, wnids(), "1000 classes in val")


def _devkit_classes(meta: Path) -> dict[int, int]:
    """ILSVRC2012 id -> ImageNet index, from meta.mat's synsets without children.

    Source: pytorch/vision:torchvision/datasets/imagenet.py (what the fields mean).
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (ValueError, KeyError, TypeError, OSError, IndexError, NotImplementedError, zlib.error, MatReadError)
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except damage as error:
        raise DataError(
            f"{meta}: expected the devkit's `synsets` with ILSVRC2012_ID, WNID and num_children, found another file "
            f"({error}). Unpack ILSVRC2012_devkit_t12.tar.gz again."
        ) from error
    return {number: look_up(wnid, wnid_index(), "an ImageNet wnid", str(meta)) for number, wnid in ids.items()}


def _devkit_label(line: str, index_of_id: Mapping[int, int], truth: Path) -> int:
    if line.isdecimal() and int(line) in index_of_id:
        return index_of_id[int(line)]
    raise DataError(f"{truth}: expected the id of a leaf class (1 to 1000), found {line!r}. Unpack the devkit again.")


def val_position(stem: str, where: Path) -> int:
    """0-based position of a validation image by its name."""
    match = _VAL_NAME.fullmatch(stem)
    if match is None or int(match[1]) == 0:
        raise DataError(
            f"{where}: expected a name like ILSVRC2012_val_00000293, found {stem!r}. Labels go by these names: keep "
            "the validation images as they were released."
        )
    return int(match[1]) - 1
