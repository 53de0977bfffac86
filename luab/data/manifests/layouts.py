"""Layouts: how each dataset lies on disk, and the reader that turns its tree into rows of a manifest."""

import csv
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from luab.data.manifests.coco_instances import coco_entries
from luab.data.manifests.devkit import flat_val, val_position
from luab.data.manifests.labels import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    IN9_FOLDERS,
    IN9_VARIANTS,
    look_up,
    objectnet_folders,
    siscore_classes,
    subset,
    wnid_index,
    wnids,
)
from luab.data.manifests.manifest import read_manifest_table
from luab.data.manifests.tree import IMAGE_SUFFIX, TREES, Entry, Tree, by_class, join, no_imagenet
from luab.data.manifests.wsol_lists import list_rows, listed_entries, lists_folder
from luab.errors import DataError
from luab.files import read_json

_FACTORS = {
    "siscore_size": ("area",),
    "siscore_location": ("x_coord", "y_coord"),
    "siscore_rotation": ("rotation",),
}


def _imagenet_train(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 training images, one folder per wnid; image_id is the bare stem.

    train/n01440764/n01440764_10026.JPEG
    train/n01440764/n01440764_10027.JPEG
    train/n01443537/n01443537_10007.JPEG
    """
    if not (tree.root / "train").is_dir():
        raise no_imagenet(tree)
    return by_class(tree, "train", _wnid_classes(), bare=True)


def _imagenet_val(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 validation images, in wnid folders or flat beside the devkit; image_id is the bare stem.

    val/n01440764/ILSVRC2012_val_00000293.JPEG
    val/ILSVRC2012_val_00000293.JPEG
    ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt
    """
    if not (tree.root / "val").is_dir():
        raise no_imagenet(tree)
    if tree.folders("val"):
        return by_class(tree, "val", _wnid_classes(), bare=True)
    return flat_val(tree)


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
        position = val_position(image_id, tree.val)
        if position >= len(lists):
            raise DataError(
                f"real.json: expected a list for {image_id} ({tree.val}), found {len(lists)} lists. Fetch real.json "
                "again."
            )
        yield Entry(image_id, path, tuple(lists[position]))


def _imagenet_v2(tree: Tree) -> Iterator[Entry]:
    """ImageNet-V2; the folder's name is the class index itself, so folder 10 is class 10.

    imagenetv2-matched-frequency-format-val/0/7e4a8987a9a330189cc38c4098b1c57ac301713f.jpeg
    imagenetv2-matched-frequency-format-val/10/0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg
    imagenetv2-matched-frequency-format-val/999/8e1374a4e20d7af22665b7749158b7eb9fa3826e.jpeg
    """
    classes = {str(index): (index,) for index in range(len(wnids()))}
    return by_class(tree, _v2_folder(tree, "matched-frequency"), classes)


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
    return by_class(tree, tree.parent_of(_looks_like_wnid), classes)


def _imagenet_c(tree: Tree) -> Iterator[Entry]:
    """The 75 sets of ImageNet-C, or the 20 extra ones, at any depth; group and image_id begin with both names.

    gaussian_noise/3/n01440764/ILSVRC2012_val_00000293.JPEG
    blur/defocus_blur/1/n01440764/ILSVRC2012_val_00000293.JPEG
    jpeg_compression/5/n15075141/ILSVRC2012_val_00049174.JPEG
    """
    extra = tree.dataset == "imagenet_c_extra"
    chosen, others = (EXTRA_CORRUPTIONS, CORRUPTIONS) if extra else (CORRUPTIONS, EXTRA_CORRUPTIONS)
    found = tree.all_named({*chosen, *others})
    kept = [at for at in found if _name(at) in chosen]
    tree.ignored["corruptions of mCE" if extra else "extra corruptions"] += len(found) - len(kept)
    sets = [(f"{_name(at)}/{severity}", f"{at}/{severity}") for at in kept for severity in tree.folders(at)]
    if not sets:
        raise tree.nothing()
    wanted = {f"{corruption}/{severity}": severity for corruption in chosen for severity in range(1, 6)}
    for group, at in sets:
        look_up(group, wanted, "a severity 1 to 5", str(tree.root / at))
    tree.complete((group for group, _ in sets), wanted, f"{len(wanted)} sets")
    for group, at in sets:
        yield from by_class(tree, at, _wnid_classes(), group)


def _objectnet(tree: Tree) -> Iterator[Entry]:
    """ObjectNet's folders that overlap ImageNet, each labelled with all its ImageNet indices.

    objectnet-1.0/images/alarm_clock/0a1b2c3d4e5f678.png
    objectnet-1.0/images/t-shirt/fedcba987654321.png
    objectnet-1.0/images/air_freshener/123456789abcdef.png   (no such class in ImageNet: left out, counted)
    """
    classes = dict(objectnet_folders())
    at = tree.parent_of(classes.__contains__)
    tree.ignored["folders without an ImageNet class"] += len(set(tree.folders(at)) - set(classes))
    return by_class(tree, at, classes, others=True)


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
    for entry in by_class(tree, at, classes):
        key = _number_or_text(_name(entry.image_id))
        if key not in factors:
            raise DataError(
                f"{source}: expected a row for the image {entry.path}, found none with image_id {key}. Fetch "
                f"metadata.csv of {tree.dataset} again; it belongs to one release of the images."
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
        entries = list(by_class(tree, join(base, f"{variant}/val"), classes, variant))
        if variant == "original":
            _check_masks(tree, join(base, "fg_mask/val"), entries)
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
    at = _v2_folder(tree, "threshold")
    folder, prefix = lists_folder(tree, "val")
    names_file = folder / f"{prefix}image_names.txt"
    names = {row[0]: row[1] for row in list_rows(names_file, 2)} if names_file.is_file() else {}
    present = {_below(path, at): path for name in tree.folders(at) for _, path in tree.images(join(at, name))}

    def place(listed: str) -> tuple[str, str | None]:
        local = listed.removeprefix("val2/")
        return IMAGE_SUFFIX.sub("", local), present.get(names.get(listed, local))

    return listed_entries(tree, folder, prefix, place)


def _wsol_test(tree: Tree) -> Iterator[Entry]:
    """ImageNet's validation images, flat or in wnid folders, with labels and boxes from the lists.

    image_ids.txt      val/ILSVRC2012_val_00000001.JPEG
    class_labels.txt   val/ILSVRC2012_val_00000001.JPEG,65
    localization.txt   val/ILSVRC2012_val_00000001.JPEG,111,108,441,193
    """
    if not (tree.root / "val").is_dir():
        raise no_imagenet(tree)
    folders = ["val", *(f"val/{name}" for name in tree.folders("val"))]
    present = {stem: path for at in folders for stem, path in tree.images(at)}

    def place(listed: str) -> tuple[str, str | None]:
        stem = IMAGE_SUFFIX.sub("", _name(listed))
        return stem, present.get(stem)

    return listed_entries(tree, *lists_folder(tree, "test"), place)


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
    "imagenet_c_extra": _imagenet_c,
    "objectnet": _objectnet,
    "siscore_size": _siscore,
    "siscore_location": _siscore,
    "siscore_rotation": _siscore,
    "in9": _in9,
    "wsol_val": _wsol_val,
    "wsol_test": _wsol_test,
    "coco_train": coco_entries,
    "coco_val": coco_entries,
}
"""The reader of each dataset's layout."""


# ---- what they need besides the tree ------------------------------------------------------------------------


def _v2_folder(tree: Tree, variant: str) -> str:
    """The folder of the class folders of ImageNet-V2; one that by its name holds another of the three is refused.

    All have 10 images in each of 1000 folders, so that nothing else would tell.
    """
    at = tree.parent_of(str.isdecimal)
    name = _name(at) or tree.root.name
    released = re.match(r"imagenetv2-(matched-frequency|threshold|top)", name)
    if released and released[1] != variant:
        raise DataError(
            f"{tree.root / at}: expected the variant of ImageNet-V2 that {tree.dataset} is about, "
            f"{TREES[tree.dataset]}, found another one. Point `paths.copies.{tree.dataset}` to the folder that holds "
            "this variant alone."
        )
    return at


def _real_lists(tree: Tree) -> list[list[int]]:
    place = tree.real or tree.root
    lists = read_json(place / "real.json" if place.is_dir() else place)
    if isinstance(lists, list) and all(
        isinstance(ids, list) and all(type(i) is int and 0 <= i < len(wnids()) for i in ids) for ids in lists
    ):
        return lists
    raise DataError(
        f"{place}: expected a list of lists of class indices 0 to 999 (real.json), found something else. Fetch it "
        "again."
    )


def _siscore_factors(tree: Tree, at: str) -> tuple[dict[str, str], Path]:
    """Factor of each image id as text, and the file it is from."""
    base = tree.root / at
    places = [tree.metadata] if tree.metadata else [p / "metadata.csv" for p in (tree.root, base, base.parent)]
    source = next((place for place in places if place.is_file()), None)
    columns = _FACTORS[tree.dataset]
    if source is None:
        raise DataError(
            f"{places[0]}: expected SI-Score's side file with the columns {', '.join(('image_id', *columns))}; it is "
            f"not there. Put the metadata.csv of {tree.dataset} at the root of the dataset."
        )
    with open(source, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"image_id", *columns} <= set(reader.fieldnames or ()):
            raise DataError(
                f"{source}: expected the columns image_id and {', '.join(columns)}, found {reader.fieldnames}. Is it "
                f"the file of another SI-Score set? Put the metadata.csv of {tree.dataset} there."
            )
        return {
            _number_or_text(row["image_id"]): ",".join(_factor(row[c], c, source) for c in columns) for row in reader
        }, source


def _factor(text: str | None, column: str, source: Path) -> str:
    """A factor value in its shortest form: 0.05, 121."""
    try:
        return f"{round(float(text or ''), 2):g}"
    except ValueError as error:
        raise DataError(f"{source}: expected a number in {column}, found {text!r}. Fetch the file again.") from error


def _check_masks(tree: Tree, at: str, entries: list[Entry]) -> None:
    """Every image of `original` has its foreground mask, which the challenge cuts it out with."""
    classes = sorted({entry.image_id.split("/")[1] for entry in entries})
    there = set()
    for name in classes:
        folder = tree.root / at / name
        there |= {f"original/{name}/{file.removesuffix('.npy')}" for file in _listing(folder) if file.endswith(".npy")}
    missing = [entry.image_id for entry in entries if entry.image_id not in there]
    if missing:
        raise DataError(
            f"{tree.root / at}: expected a mask <class>/<stem>.npy for each image of `original`, found none for "
            f"{len(missing)} of {len(entries)}, first {missing[0]}. Unpack the archive again."
        )


def _wnid_classes() -> dict[str, tuple[int, ...]]:
    return {wnid: (index,) for wnid, index in wnid_index().items()}


def _looks_like_wnid(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _number_or_text(text: str) -> str:
    """The key that joins file names and metadata: 007 and 7 are one id."""
    return str(int(text)) if text.isdecimal() else text


def _below(path: str, at: str) -> str:
    return path.removeprefix(f"{at}/") if at else path


def _name(path: str) -> str:
    return path.rpartition("/")[2]
