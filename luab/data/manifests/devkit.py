"""ILSVRC2012 validation images without class folders: labels by image number, from the development kit."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from luab.data.manifests.labels import index_of, wnids
from luab.data.manifests.tree import Entry, Tree
from luab.errors import DataError

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def flat_val(tree: Tree) -> Iterator[Entry]:
    """Yields validation images that lie in one folder, with labels from the devkit."""
    images = tree.images("val")
    data = tree.root / "ILSVRC2012_devkit_t12" / "data"
    truth, meta = data / "ILSVRC2012_validation_ground_truth.txt", data / "meta.mat"
    if not images:
        raise tree.nothing()
    if lost := [file.name for file in (meta, truth) if not file.is_file()]:
        raise DataError(
            f"{tree.root / 'val'}: expected class folders, or the devkit in {data}, found {len(images):,} images "
            f"without class folders and no {' and no '.join(lost)}. Unpack ILSVRC2012_devkit_t12.tar.gz in "
            f"{tree.root}, or sort the images into val/<wnid>/."
        )
    index_of_id = _class_ids(meta)
    labels = []
    for line in truth.read_text(encoding="utf-8", errors="replace").split():
        if not (line.isdecimal() and int(line) in index_of_id):
            raise DataError(
                f"{truth}: expected the id of a leaf class (1 to 1000), found {line!r}. Unpack the devkit again."
            )
        labels.append(index_of_id[int(line)])
    classes = set()
    for stem, path in images:
        position = val_position(stem, tree.root / path)
        if position >= len(labels):
            raise DataError(f"{truth}: expected a line for {stem}, found {len(labels)} lines. Unpack the devkit again.")
        classes.add(wnids()[labels[position]])
        yield Entry(stem, path, (labels[position],))
    tree.complete(classes, wnids(), "1000 classes in val")


def _class_ids(meta: Path) -> dict[int, int]:
    """Reads the ImageNet index of each ILSVRC2012 id from the synsets without children in meta.mat.

    Source: pytorch/vision:torchvision/datasets/imagenet.py (meaning of the fields).
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
    return {number: index_of(wnid, str(meta)) for number, wnid in ids.items()}


def val_position(stem: str, where: Path) -> int:
    """Returns the 0-based position of a validation image from the number in its name; DataError if there is none."""
    match = _VAL_NAME.fullmatch(stem)
    if match is None or int(match[1]) == 0:
        raise DataError(
            f"{where}: expected a name like ILSVRC2012_val_00000293, found {stem!r}. Labels depend on these names: "
            "keep the original file names of the validation images."
        )
    return int(match[1]) - 1
