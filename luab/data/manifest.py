"""Manifests: which images a dataset holds, where, and with which labels, checked against known counts."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luab.data.labels import (
    IN9_FOLDERS,
    look_up,
    near_names,
    objectnet_folders,
    siscore_classes,
    subset,
    wnid_index,
    wnids,
)
from luab.errors import ConfigError, DataError
from luab.files import lines_sha256, read_json, replacing, write_json
from luab.progress import progress

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("labels", pa.list_(pa.int16())),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.int32(), 4))),
    ]
)
"""Columns of a manifest. Boxes are x0 y0 x1 y1 in source pixels; sizes are null unless lists give them."""

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The 15 corruptions of mCE in the usual order. Source: hendrycks/robustness:ImageNet-C/test.py."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Held-out corruptions of the same release; never part of mCE, so never read."""

IN9_VARIANTS = (
    "original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t",
)  # fmt: skip
"""Folders of the Backgrounds Challenge. Source: MadryLab/backgrounds_challenge:README.md."""

KNOWN: dict[str, dict[str, int | None]] = {
    # SOURCE: pytorch/vision:torchvision/datasets/imagenet.py; train count as in the ILSVRC2012 archives.
    "imagenet_train": {"n": 1_281_167, "classes": 1000},
    "imagenet_val": {"n": 50_000, "classes": 1000},
    # SOURCE: counted in google-research/reassessed-imagenet:real.json.
    "imagenet_real": {"n": 50_000, "classes": 1000},
    # SOURCE: modestyachts/ImageNetV2_pytorch.
    "imagenet_v2": {"n": 10_000, "classes": 1000},
    # SOURCE: hendrycks/natural-adv-examples:README.md.
    "imagenet_a": {"n": 7_500, "classes": 200},
    "imagenet_o": {"n": 2_000, "classes": 200},
    # SOURCE: hendrycks/imagenet-r:README.md.
    "imagenet_r": {"n": 30_000, "classes": 200},
    # SOURCE: tensorflow/datasets imagenet_sketch; its README says 50,000.
    "imagenet_sketch": {"n": 50_889, "classes": 1000},
    # SOURCE: hendrycks/robustness:README.md; 15 corruptions x 5 severities x 50,000.
    "imagenet_c": {"n": 3_750_000, "classes": 1000},
    # SOURCE: mlfoundations/wise-ft mapping; no primary source gives the number of images in the overlap.
    "objectnet": {"n": None, "classes": 125},
    # SOURCE: tensorflow/datasets docs/catalog/siscore.md.
    "siscore_size": {"n": 92_884, "classes": 61},
    "siscore_location": {"n": 541_548, "classes": 61},
    "siscore_rotation": {"n": 39_540, "classes": 61},
    # SOURCE: MadryLab/backgrounds_challenge:README.md; 8 variants x 4,050.
    "in9": {"n": 32_400, "classes": 9},
    # SOURCE: counted in clovaai/wsolevaluation:metadata/ILSVRC/{val,test}.
    "wsol_val": {"n": 10_000, "classes": 1000},
    "wsol_test": {"n": 50_000, "classes": 1000},
}
"""Published counts: images and distinct labels; None where no source gives one."""

TREES = {
    "imagenet_train": "train/<wnid>/<wnid>_<n>.JPEG",
    "imagenet_val": "val/<wnid>/ILSVRC2012_val_<8 digits>.JPEG, or val/*.JPEG beside ILSVRC2012_devkit_t12/",
    "imagenet_real": "real.json",
    "imagenet_v2": "imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg",
    "imagenet_a": "imagenet-a/<wnid>/*.jpg",
    "imagenet_o": "imagenet-o/<wnid>/*.JPEG",
    "imagenet_r": "imagenet-r/<wnid>/*.jpg",
    "imagenet_sketch": "sketch/<wnid>/*.JPEG",
    "imagenet_c": "<corruption>/<1..5>/<wnid>/*.JPEG",
    "objectnet": "objectnet-1.0/images/<object>/*.png",
    "siscore_size": "area/<class>/<image id>.jpg and metadata.csv",
    "siscore_location": "location20_area02_min0pc/<class>/<image id>.jpg and metadata.csv",
    "siscore_rotation": "rotation/<class>/<image id>.jpg and metadata.csv",
    "in9": "bg_challenge/<variant>/val/<00_dog..08_fish>/*.JPEG and bg_challenge/fg_mask/val/<class>/*.npy",
    "wsol_val": "imagenetv2-threshold0.7-format-val/<0..999>/*.jpeg",
    "wsol_test": "val/<wnid>/ILSVRC2012_val_<8 digits>.JPEG, or val/*.JPEG",
}
"""What a dataset's folder looks like, for messages. Folders above the first may be up to three levels "
"deep."""

_IMAGE = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
_DEPTH = 3
_CHUNK = 100_000
_FACTORS = {
    "siscore_size": ("area",),
    "siscore_location": ("x_coord", "y_coord"),
    "siscore_rotation": ("rotation",),
}


class Entry(NamedTuple):
    """One row of a manifest."""

    image_id: str
    path: str
    labels: tuple[int, ...]
    group: str = ""
    width: int | None = None
    height: int | None = None
    boxes: tuple[tuple[int, ...], ...] = ()


@dataclass
class Tree:
    """A dataset's folder and side files, as a reader sees them; places inside it are relative, with "/".

    Attributes:
        dataset: Name of the manifest.
        root: Folder that paths start from.
        partial: Whether classes, groups and listed images may be missing.
        val: Manifest of imagenet_val (imagenet_real).
        real: real.json, or a folder that holds it; None means below the root (imagenet_real).
        lists: Folder of the localisation lists (wsol_*).
        metadata: SI-Score's metadata.csv; None means below the root.
        ignored: What was passed over, counted by kind.
    """

    dataset: str
    root: Path
    partial: bool = False
    val: Path | None = None
    real: Path | None = None
    lists: Path | None = None
    metadata: Path | None = None
    ignored: Counter[str] = field(default_factory=Counter)

    def folders(self, at: str) -> list[str]:
        """Names of the folders in `at`, sorted as text; hidden ones left out."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir()]
        return sorted(names)

    def images(self, at: str) -> list[tuple[str, str]]:
        """(stem, path) of the images in `at`, by suffix alone; no file is opened or looked up."""
        with os.scandir(self.root / at) as entries:
            names = [entry.name for entry in entries]
        found = []
        for name in names:
            suffix = _IMAGE.search(name)
            if suffix and not _hidden(name):
                found.append((name[: suffix.start()], _join(at, name)))
            elif _hidden(name) or "." in name:
                self.ignored["hidden files" if _hidden(name) else "other files"] += 1
        return found

    def parent_of(self, wanted: Callable[[str], bool]) -> str:
        """The first folder, breadth first and at most three levels down, that holds a wanted folder.

        Raises:
            DataError: There is none; the message shows the expected tree.
        """
        level = [""]
        for _ in range(_DEPTH + 1):
            inside = {at: self.folders(at) for at in level}
            for at, names in inside.items():
                if any(map(wanted, names)):
                    return at
            level = [_join(at, name) for at, names in inside.items() for name in names]
        raise self.nothing()

    def all_named(self, wanted: Collection[str]) -> list[str]:
        """Every folder with a wanted name whose parent is at most three levels down; not looked into."""
        found, level = [], [""]
        for _ in range(_DEPTH + 1):
            inside = [(at, name) for at in level for name in self.folders(at)]
            found += [_join(at, name) for at, name in inside if name in wanted]
            level = [_join(at, name) for at, name in inside if name not in wanted]
        return found

    def nothing(self) -> DataError:
        """The error for a tree without a single image where they should be."""
        key = "imagenet" if self.dataset in ("imagenet_train", "imagenet_val", "wsol_test") else None
        return DataError(
            f"{self.root}: expected {TREES[self.dataset]}, found no such images (folders are looked for "
            "three levels "
            f"deep; .jpg, .jpeg and .png count). Fetch {self.dataset} again, or point "
            f"`paths.{key or 'copies.' + self.dataset}` to the folder that holds this tree."
        )

    def complete(self, found: Iterable[str], expected: Iterable[str], what: str) -> None:
        """Refuses a tree that lacks some of what it should hold, unless it may be partial.

        Raises:
            DataError: Names what is missing.
        """
        missing = sorted(set(expected) - set(found))
        if missing and not self.partial:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise DataError(
                f"{self.root}: expected {TREES[self.dataset]}, found no images for {len(missing)} of the "
                f"{what}: {shown}. "
                "Unpack them again, or set `paths.partial: true` if the tree is meant to hold only some."
            )


def build_manifest(
    dataset: str,
    root: Path | str,
    parquet: Path | str,
    card: Path | str,
    *,
    partial: bool = False,
    val: Path | str | None = None,
    real: Path | str | None = None,
    lists: Path | str | None = None,
    metadata: Path | str | None = None,
) -> dict[str, Any]:
    """Lists a dataset's images with labels, writes the manifest and its card, and returns the card.

    Rows are sorted by image_id as text. No image is opened.

    Args:
        dataset: A key of `LAYOUTS`.
        root: The dataset's folder; paths in the manifest start from it.
        parquet: Manifest to write.
        card: JSON to write: dataset, n, ids_sha256, classes (distinct labels), known (published counts),
            agrees (null for partial trees and where no count is known), ignored (counted by kind).
        partial: Accept trees that hold only some classes, groups or listed images (`paths.partial`).
            Unknown class folders are refused all the same.
        val: Manifest of imagenet_val; imagenet_real needs it.
        real: real.json or its folder; imagenet_real looks below `root` without it.
        lists: Folder of the localisation lists, by split (val/image_ids.txt) or with the split in the
            name (wsol_val_image_ids.txt); wsol_* need it.
        metadata: SI-Score's metadata.csv; looked for beside and above the class folders without it.

    Raises:
        ConfigError: No dataset has this name.
        DataError: The tree is not as expected, lacks classes, or two files have the same image_id.
    """
    if dataset not in LAYOUTS:
        raise ConfigError(f"{dataset!r} is no dataset with a manifest. {near_names(dataset, LAYOUTS)}")
    tree = Tree(dataset, Path(root), partial, _path(val), _path(real), _path(lists), _path(metadata))
    if dataset in _OWN and not tree.root.is_dir():
        raise _no_imagenet(tree)
    if dataset != "imagenet_real" and not tree.root.is_dir():
        raise tree.nothing()
    with progress(f"manifest {dataset}", KNOWN[dataset]["n"], "images") as advance:
        table = _table(LAYOUTS[dataset](tree), advance)
    if table.num_rows == 0:
        raise tree.nothing()
    _check_unique(table, tree.root)
    with replacing(parquet) as aside:
        pq.write_table(table, aside, compression="zstd")
    content = _card(tree, table)
    write_json(card, content)
    return content


def read_manifest(parquet: Path | str) -> pd.DataFrame:
    """Reads a manifest.

    Returns:
        Columns of `SCHEMA` in the order of image_id as text; labels and boxes are arrays per row, width
        and height are nullable Int32.

    Raises:
        DataError: The file is missing, damaged or has other columns.
    """
    return read_manifest_table(parquet).to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)


def read_manifest_table(parquet: Path | str) -> pa.Table:
    """`read_manifest` without pandas: the checked Arrow table. Raises DataError like it."""
    path = Path(parquet)
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: expected this manifest; it is not there. Make it with `luab manifest`."
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: expected a manifest, found a damaged file ({error}). Make it again."
        ) from error
    if not table.schema.equals(SCHEMA):
        raise DataError(
            f"{path}: expected the columns {_columns(SCHEMA)}, found {_columns(table.schema)}. Remove the "
            "file and make "
            "the manifest again."
        )
    return table


# ---- readers, one per layout -------------------------------------------------------------------------------


def _imagenet_train(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 training images, one folder per wnid; image_id is the bare stem.

    train/n01440764/n01440764_10026.JPEG
    train/n01440764/n01440764_10027.JPEG
    train/n01443537/n01443537_10007.JPEG
    """
    if not (tree.root / "train").is_dir():
        raise _no_imagenet(tree)
    return _by_class(tree, "train", _wnid_classes(), bare=True)


def _imagenet_val(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 validation images, in wnid folders or flat beside the devkit; image_id is the bare stem.

    val/n01440764/ILSVRC2012_val_00000293.JPEG
    val/ILSVRC2012_val_00000293.JPEG
    ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt
    """
    if not (tree.root / "val").is_dir():
        raise _no_imagenet(tree)
    if tree.folders("val"):
        return _by_class(tree, "val", _wnid_classes(), bare=True)
    return _flat_val(tree)


def _imagenet_real(tree: Tree) -> Iterator[Entry]:
    """Re-assessed labels of the validation images: list i is that of ILSVRC2012_val_{i+1:08d}.

    [[], [970, 795], [230, 231], [809], [516, 850], [57], ...]
    """
    lists = _real_lists(tree)
    if tree.val is None:
        raise DataError(
            "imagenet_real: expected the manifest of imagenet_val (`val=`), found none. Make that one first."
        )
    rows = read_manifest_table(tree.val).select(["image_id", "path"])
    for image_id, path in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        position = _val_position(image_id, tree.val)
        if position >= len(lists):
            raise DataError(
                f"real.json: expected a list for {image_id} ({tree.val}), found {len(lists)} lists. Fetch "
                "real.json again."
            )
        yield Entry(image_id, path, tuple(lists[position]))


def _imagenet_v2(tree: Tree) -> Iterator[Entry]:
    """ImageNet-V2; the folder's name is the class index itself, so folder 10 is class 10.

    imagenetv2-matched-frequency-format-val/0/7e4a8987a9a330189cc38c4098b1c57ac301713f.jpeg
    imagenetv2-matched-frequency-format-val/10/0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg
    imagenetv2-matched-frequency-format-val/999/8e1374a4e20d7af22665b7749158b7eb9fa3826e.jpeg
    """
    classes = {str(index): (index,) for index in range(len(wnids()))}
    return _by_class(tree, tree.parent_of(str.isdecimal), classes)


def _wnid_tree(tree: Tree) -> Iterator[Entry]:
    """ImageNet-A, -O, -R and -Sketch: wnid folders, the first three of 200 classes each.

    imagenet-a/n01498041/0.000116_digital clock _ digital clock_0.865662.jpg
    imagenet-r/n01443537/art_0.jpg
    sketch/n01440764/sketch_0.JPEG

    The label is the folder's class. For ImageNet-O that is what models mistake the image for, not what it
    shows (hendrycks/natural-adv-examples:README.md): never score it as a right answer.
    """
    classes = _wnid_classes()
    if tree.dataset != "imagenet_sketch":
        chosen = set(subset(tree.dataset))
        classes = {wnid: ids for wnid, ids in classes.items() if ids[0] in chosen}
    return _by_class(tree, tree.parent_of(_looks_like_wnid), classes)


def _imagenet_c(tree: Tree) -> Iterator[Entry]:
    """The 75 sets of ImageNet-C, at any depth; group and image_id begin with "<corruption>/<severity>".

    gaussian_noise/3/n01440764/ILSVRC2012_val_00000293.JPEG
    blur/defocus_blur/1/n01440764/ILSVRC2012_val_00000293.JPEG
    jpeg_compression/5/n15075141/ILSVRC2012_val_00049174.JPEG
    """
    found = tree.all_named({*CORRUPTIONS, *EXTRA_CORRUPTIONS})
    kept = [at for at in found if _name(at) in CORRUPTIONS]
    tree.ignored["extra corruptions"] += len(found) - len(kept)
    sets = [(f"{_name(at)}/{severity}", f"{at}/{severity}") for at in kept for severity in tree.folders(at)]
    if not sets:
        raise tree.nothing()
    wanted = {f"{corruption}/{severity}": severity for corruption in CORRUPTIONS for severity in range(1, 6)}
    for group, at in sets:
        look_up(group, wanted, "a severity 1 to 5", str(tree.root / at))
    tree.complete((group for group, _ in sets), wanted, "75 sets")
    for group, at in sets:
        yield from _by_class(tree, at, _wnid_classes(), group)


def _objectnet(tree: Tree) -> Iterator[Entry]:
    """ObjectNet's folders that overlap ImageNet, each labelled with all its ImageNet indices.

    objectnet-1.0/images/alarm_clock/0a1b2c3d4e5f678.png
    objectnet-1.0/images/t-shirt/fedcba987654321.png
    objectnet-1.0/images/air_freshener/123456789abcdef.png   (no such class in ImageNet: left out, counted)
    """
    classes = dict(objectnet_folders())
    at = tree.parent_of(classes.__contains__)
    tree.ignored["folders without an ImageNet class"] += len(set(tree.folders(at)) - set(classes))
    return _by_class(tree, at, classes, others=True)


def _siscore(tree: Tree) -> Iterator[Entry]:
    """SI-Score; group is the image's factor from metadata.csv: area, angle in degrees, or "x,y".

    area/ostrich/17.jpg          metadata.csv: image_id,area,...              17,0.05
    rotation/kite/17.jpg         metadata.csv: image_id,rotation,...          17,121
    location20_area02_min0pc/wok/17.jpg        image_id,x_coord,y_coord,...   17,0.25,0.75

    Factors are rounded to two decimals, as google-research/robustness_metrics does for positions.
    """
    classes = {name: (index,) for name, index in siscore_classes().items()}
    at = tree.parent_of(classes.__contains__)
    factors, source = _siscore_factors(tree, at)
    for entry in _by_class(tree, at, classes):
        key = _number_or_text(_name(entry.image_id))
        if key not in factors:
            raise DataError(
                f"{source}: expected a row for the image {entry.path}, found none with image_id {key}. "
                "Fetch metadata.csv "
                f"of {tree.dataset} again; it belongs to one release of the images."
            )
        yield entry._replace(group=factors[key])


def _in9(tree: Tree) -> Iterator[Entry]:
    """The eight variants of ImageNet-9's test images; labels are its own classes 0 to 8.

    bg_challenge/original/val/02_wheeled vehicle/n02701002_10029.JPEG
    bg_challenge/only_bg_t/val/00_dog/n02085620_1152.JPEG
    bg_challenge/fg_mask/val/00_dog/n02085620_1152.npy   (one per image of `original`)
    """
    base = tree.parent_of(IN9_VARIANTS.__contains__)
    present = [name for name in IN9_VARIANTS if (tree.root / base / name / "val").is_dir()]
    tree.complete(present, IN9_VARIANTS, "8 variants")
    classes = {folder: (index,) for index, folder in enumerate(IN9_FOLDERS)}
    for variant in present:
        entries = list(_by_class(tree, _join(base, f"{variant}/val"), classes, variant))
        if variant == "original":
            _check_masks(tree, _join(base, "fg_mask/val"), entries)
        yield from entries


def _wsol_val(tree: Tree) -> Iterator[Entry]:
    """ImageNet-V2 threshold-0.7 with the boxes that clovaai/wsolevaluation collected.

    image_ids.txt      val2/995/0.jpeg           class_labels.txt   val2/995/0.jpeg,995
    image_sizes.txt    val2/995/0.jpeg,500,375   (width, height)
    localization.txt   val2/995/0.jpeg,156,163,318,230   (several rows per image allowed)

    The lists name images 0 to 9; V2 archives packed since 2020 name them by a hash
    (clovaai/wsolevaluation issue 42). An optional image_names.txt beside the lists
    (val2/995/0.jpeg,995/<hash>.jpeg) says which is which.
    """
    at = tree.parent_of(str.isdecimal)
    folder, prefix = _lists_folder(tree, "val")
    names_file = folder / f"{prefix}image_names.txt"
    names = {row[0]: row[1] for row in _rows(names_file, 2)} if names_file.is_file() else {}
    present = {
        _below(path, at): path for name in tree.folders(at) for _, path in tree.images(_join(at, name))
    }

    def place(listed: str) -> tuple[str, str | None]:
        local = listed.removeprefix("val2/")
        return _IMAGE.sub("", local), present.get(names.get(listed, local))

    return _listed(tree, folder, prefix, place)


def _wsol_test(tree: Tree) -> Iterator[Entry]:
    """ImageNet's validation images, flat or in wnid folders, with labels and boxes from the lists.

    image_ids.txt      val/ILSVRC2012_val_00000001.JPEG
    class_labels.txt   val/ILSVRC2012_val_00000001.JPEG,65
    localization.txt   val/ILSVRC2012_val_00000001.JPEG,111,108,441,193
    """
    if not (tree.root / "val").is_dir():
        raise _no_imagenet(tree)
    folders = ["val", *(f"val/{name}" for name in tree.folders("val"))]
    present = {stem: path for at in folders for stem, path in tree.images(at)}

    def place(listed: str) -> tuple[str, str | None]:
        stem = _IMAGE.sub("", _name(listed))
        return stem, present.get(stem)

    return _listed(tree, *_lists_folder(tree, "test"), place)


LAYOUTS: dict[str, Callable[[Tree], Iterator[Entry]]] = {
    "imagenet_train": _imagenet_train,
    "imagenet_val": _imagenet_val,
    "imagenet_real": _imagenet_real,
    "imagenet_v2": _imagenet_v2,
    "imagenet_a": _wnid_tree,
    "imagenet_o": _wnid_tree,
    "imagenet_r": _wnid_tree,
    "imagenet_sketch": _wnid_tree,
    "imagenet_c": _imagenet_c,
    "objectnet": _objectnet,
    "siscore_size": _siscore,
    "siscore_location": _siscore,
    "siscore_rotation": _siscore,
    "in9": _in9,
    "wsol_val": _wsol_val,
    "wsol_test": _wsol_test,
}
"""The reader of each dataset's layout."""

_OWN = ("imagenet_train", "imagenet_val", "wsol_test")


# ---- what readers share ------------------------------------------------------------------------------------


def _by_class(
    tree: Tree,
    at: str,
    classes: Mapping[str, tuple[int, ...]],
    group: str = "",
    bare: bool = False,
    others: bool = False,
) -> Iterator[Entry]:
    """Entries of a folder of class folders; refuses unknown ones unless `others` lets them pass unread."""
    filled = set()
    for name in tree.folders(at):
        if others and name not in classes:
            continue
        labels = look_up(name, classes, f"a class folder of {tree.dataset}", str(tree.root / at / name))
        for stem, path in tree.images(_join(at, name)):
            filled.add(name)
            yield Entry(stem if bare else _join(group, f"{name}/{stem}"), path, labels, group)
    tree.complete(filled, classes, f"{len(classes)} class folders in {at or 'it'}")


def _flat_val(tree: Tree) -> Iterator[Entry]:
    """Validation images without folders, labelled through the devkit."""
    images = tree.images("val")
    if not images:
        raise _no_imagenet(tree)
    data = tree.root / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    meta = data / "meta.mat"
    if not (truth.is_file() and meta.is_file()):
        raise _no_imagenet(tree)
    index_of_id = _devkit_classes(meta)
    labels = [_devkit_label(line, index_of_id, truth) for line in truth.read_text().split()]
    found = set()
    for stem, path in images:
        position = _val_position(stem, tree.root / path)
        if position >= len(labels):
            raise DataError(
                f"{truth}: expected a line for {stem}, found {len(labels)} lines. Unpack the devkit again."
            )
        found.add(wnids()[labels[position]])
        yield Entry(stem, path, (labels[position],))
    tree.complete(found, wnids(), "1000 classes in val")


def _devkit_classes(meta: Path) -> dict[int, int]:
    """ILSVRC2012 id -> ImageNet index, from meta.mat's synsets without children.

    Source: pytorch/vision:torchvision/datasets/imagenet.py (what the fields mean).
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except (ValueError, KeyError, TypeError, OSError, IndexError) as error:
        raise DataError(
            f"{meta}: expected the devkit's `synsets` with ILSVRC2012_ID, WNID and num_children, found "
            "another file "
            f"({error}). Unpack ILSVRC2012_devkit_t12.tar.gz again."
        ) from error
    return {
        number: look_up(wnid, wnid_index(), "an ImageNet wnid", str(meta)) for number, wnid in ids.items()
    }


def _devkit_label(line: str, index_of_id: Mapping[int, int], truth: Path) -> int:
    if line.isdecimal() and int(line) in index_of_id:
        return index_of_id[int(line)]
    raise DataError(
        f"{truth}: expected the id of a leaf class (1 to 1000), found {line!r}. Unpack the devkit again."
    )


def _val_position(stem: str, where: Path) -> int:
    """0-based position of a validation image by its name."""
    match = _VAL_NAME.fullmatch(stem)
    if match is None or int(match[1]) == 0:
        raise DataError(
            f"{where}: expected a name like ILSVRC2012_val_00000293, found {stem!r}. Labels go by these "
            "names: keep "
            "the validation images as they were released."
        )
    return int(match[1]) - 1


def _real_lists(tree: Tree) -> list[list[int]]:
    place = tree.real or tree.root
    lists = read_json(place / "real.json" if place.is_dir() else place)
    if isinstance(lists, list) and all(
        isinstance(ids, list) and all(type(i) is int and 0 <= i < len(wnids()) for i in ids) for ids in lists
    ):
        return lists
    raise DataError(
        f"{place}: expected a list of lists of class indices 0 to 999 (real.json), found something else. "
        "Fetch it again."
    )


def _siscore_factors(tree: Tree, at: str) -> tuple[dict[str, str], Path]:
    """Factor of each image id as text, and the file it is from."""
    base = tree.root / at
    places = (
        [tree.metadata] if tree.metadata else [p / "metadata.csv" for p in (tree.root, base, base.parent)]
    )
    source = next((place for place in places if place.is_file()), None)
    columns = _FACTORS[tree.dataset]
    if source is None:
        raise DataError(
            f"{places[0]}: expected SI-Score's side file with the columns "
            f"{', '.join(('image_id', *columns))}; it is not "
            f"there. Put the metadata.csv of {tree.dataset} at the root of the dataset."
        )
    with open(source, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"image_id", *columns} <= set(reader.fieldnames or ()):
            raise DataError(
                f"{source}: expected the columns image_id and {', '.join(columns)}, found "
                f"{reader.fieldnames}. Is it the "
                f"file of another SI-Score set? Put the metadata.csv of {tree.dataset} there."
            )
        return {
            _number_or_text(row["image_id"]): ",".join(_factor(row[c], c, source) for c in columns)
            for row in reader
        }, source


def _factor(text: str | None, column: str, source: Path) -> str:
    """A factor value in its shortest form: 0.05, 121."""
    try:
        return f"{round(float(text or ''), 2):g}"
    except ValueError as error:
        raise DataError(
            f"{source}: expected a number in {column}, found {text!r}. Fetch the file again."
        ) from error


def _check_masks(tree: Tree, at: str, entries: list[Entry]) -> None:
    """Every image of `original` has its foreground mask, which the challenge cuts it out with."""
    classes = sorted({entry.image_id.split("/")[1] for entry in entries})
    there = set()
    for name in classes:
        folder = tree.root / at / name
        there |= {
            f"original/{name}/{file.removesuffix('.npy')}"
            for file in _listing(folder)
            if file.endswith(".npy")
        }
    missing = [entry.image_id for entry in entries if entry.image_id not in there]
    if missing:
        raise DataError(
            f"{tree.root / at}: expected a mask <class>/<stem>.npy for each image of `original`, found "
            "none for "
            f"{len(missing)} of {len(entries)}, first {missing[0]}. Unpack the archive again."
        )


def _lists_folder(tree: Tree, split: str) -> tuple[Path, str]:
    """Where the lists of a split lie, and what their names begin with."""
    if tree.lists is None:
        raise DataError(
            f"{tree.dataset}: expected the folder of the localisation lists (`lists=`), found none given."
        )
    choices = [
        (tree.lists / "metadata" / "ILSVRC" / split, ""),
        (tree.lists / "ILSVRC" / split, ""),
        (tree.lists / split, ""),
        (tree.lists, f"wsol_{split}_"),
        (tree.lists, ""),
    ]
    for folder, prefix in choices:
        if (folder / f"{prefix}image_ids.txt").is_file():
            return folder, prefix
    raise DataError(
        f"{tree.lists}: expected {split}/image_ids.txt or wsol_{split}_image_ids.txt with class_labels, "
        "image_sizes and "
        "localization beside it; they are not there. Fetch the lists of clovaai/wsolevaluation "
        "(metadata/ILSVRC)."
    )


def _listed(
    tree: Tree, folder: Path, prefix: str, place: Callable[[str], tuple[str, str | None]]
) -> Iterator[Entry]:
    """Entries of the localisation lists; `place` gives an id and, if the image is there, its path."""
    label = {row[0]: int(row[1]) for row in _rows(folder / f"{prefix}class_labels.txt", 2)}
    size = {row[0]: (int(row[1]), int(row[2])) for row in _rows(folder / f"{prefix}image_sizes.txt", 3)}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for listed, *corners in _rows(folder / f"{prefix}localization.txt", 5):
        boxes.setdefault(listed, []).append(tuple(map(int, corners)))
    ids = [row[0] for row in _rows(folder / f"{prefix}image_ids.txt", 1)]
    for name, table in (("class_labels", label), ("image_sizes", size), ("localization", boxes)):
        _all_listed(ids, table, folder / f"{prefix}{name}.txt")
    placed = {listed: place(listed) for listed in ids}
    missing = [listed for listed, (_, path) in placed.items() if path is None]
    _listed_images_there(tree, missing, len(ids))
    for listed, (image_id, path) in placed.items():
        if path is not None:
            yield Entry(image_id, path, (label[listed],), "", *size[listed], tuple(boxes[listed]))


def _listed_images_there(tree: Tree, missing: list[str], n: int) -> None:
    if len(missing) == n or (missing and not tree.partial):
        hint = (
            "Archives of ImageNet-V2 packed since 2020 name images by hashes: see clovaai/wsolevaluation "
            "issue 42, and put "
            "an image_names.txt (val2/0/0.jpeg,0/<hash>.jpeg) beside the lists."
            if tree.dataset == "wsol_val"
            else "Copy the missing images there, or set `paths.partial: true` if the tree holds only some."
        )
        raise DataError(
            f"{tree.root}: expected the {n} images that the lists name, found {n - len(missing)}; missing "
            "are "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. {hint}"
        )
    tree.ignored["listed images that are not there"] += len(missing)


def _all_listed(ids: list[str], table: Mapping[str, object], path: Path) -> None:
    lost = [listed for listed in ids if listed not in table]
    if lost:
        raise DataError(
            f"{path}: expected a row for each of the {len(ids)} image ids, found none for {len(lost)}, "
            f"first {lost[0]}. "
            "Fetch the lists again."
        )


def _rows(path: Path, fields: int) -> Iterator[list[str]]:
    """Rows of a list: an image id, then integers or a name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: expected this localisation list; it is not there. Fetch the lists again."
        ) from error
    numbers = not path.name.endswith("image_names.txt")
    for number, line in enumerate(lines, start=1):
        row = line.split(",")
        if len(row) != fields or (numbers and not all(map(str.isdecimal, row[1:]))):
            raise DataError(
                f"{path}, line {number}: expected an image id and {fields - 1} whole numbers, found "
                f"{line!r}. "
                "Fetch the lists again."
            )
        yield row


def _no_imagenet(tree: Tree) -> DataError:
    """What to do when the licensed images are not where they should be."""
    return DataError(
        f"{tree.root}: expected your copy of ImageNet (ILSVRC2012): {TREES[tree.dataset]}; it was not "
        "found there. "
        "ImageNet comes under its own licence, so luab never downloads it: register at "
        "https://image-net.org/download, "
        "accept the terms, and download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz. Unpack the training images to train/<wnid>/*.JPEG and the "
        "validation images "
        "to val/<wnid>/*.JPEG, or to val/*.JPEG with the devkit unpacked beside as "
        "ILSVRC2012_devkit_t12/data/ (meta.mat and "
        "ILSVRC2012_validation_ground_truth.txt). Then set the config key `paths.imagenet` to the folder "
        "that holds train/ and val/."
    )


def _wnid_classes() -> dict[str, tuple[int, ...]]:
    return {wnid: (index,) for wnid, index in wnid_index().items()}


def _looks_like_wnid(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


def _hidden(name: str) -> bool:
    # Archives packed on macOS carry "._name" files and a __MACOSX folder.
    return name.startswith(".") or name == "__MACOSX"


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _number_or_text(text: str) -> str:
    """The key that joins file names and metadata: 007 and 7 are one id."""
    return str(int(text)) if text.isdecimal() else text


def _join(at: str, name: str) -> str:
    return f"{at}/{name}" if at else name


def _below(path: str, at: str) -> str:
    return path.removeprefix(f"{at}/") if at else path


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


# ---- from entries to the file ------------------------------------------------------------------------------


def _table(entries: Iterator[Entry], advance: Callable[[float], None]) -> pa.Table:
    """Entries as a sorted Arrow table, converted in chunks so that millions of tuples never pile up."""
    batches = []
    while chunk := list(islice(entries, _CHUNK)):
        columns = [
            pa.array(column, schema.type)
            for column, schema in zip(zip(*chunk, strict=True), SCHEMA, strict=True)
        ]
        batches.append(pa.record_batch(columns, schema=SCHEMA))
        advance(len(chunk))
    table = pa.Table.from_batches(batches, schema=SCHEMA).combine_chunks()
    return table.take(pc.sort_indices(table["image_id"])).combine_chunks()


def _check_unique(table: pa.Table, root: Path) -> None:
    ids = table["image_id"]
    same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    first = pc.index(same, True).as_py()
    if first >= 0:
        one, other = table["path"].slice(first, 2).to_pylist()
        raise DataError(
            f"{root}: expected one file per image, found two for {ids[first].as_py()!r}: {one} and {other}. "
            "Remove one of them."
        )


def _card(tree: Tree, table: pa.Table) -> dict[str, Any]:
    known = KNOWN[tree.dataset]
    n, classes = table.num_rows, len(pc.unique(pc.list_flatten(table["labels"])))
    complete = None not in known.values() and not tree.partial
    return {
        "dataset": tree.dataset,
        "n": n,
        "ids_sha256": lines_sha256(table["image_id"].to_pylist()),
        "classes": classes,
        "known": known,
        "agrees": {"n": n, "classes": classes} == known if complete else None,
        "ignored": {kind: count for kind, count in sorted(tree.ignored.items()) if count},
    }


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)
