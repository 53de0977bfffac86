"""Layouts: the folder structure of each data set on disk, and the reader that yields its images."""

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from posixpath import basename, join

from luab.data.manifests.coco_instances import coco_entries, coco_files
from luab.data.manifests.devkit import flat_val, val_position
from luab.data.manifests.folder_images import folder_entries, own_images, own_test_entries
from luab.data.manifests.labels import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    IN9_FOLDERS,
    IN9_VARIANTS,
    look_up,
    objectnet_folders,
    siscore_classes,
    subset,
    wnids,
)
from luab.data.manifests.manifest import read_manifest_table
from luab.data.manifests.tree import ELSEWHERE, IMAGE_SUFFIX, Entry, Tree, by_class
from luab.data.manifests.wsol_lists import list_rows, listed_entries, lists_folder
from luab.errors import DataError
from luab.files import read_json
from luab.study.config import OWN_TESTS
from luab.study.roots import HELD_OUT, OWN


def _imagenet_train(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 training images, one folder per wnid; image_id is the stem alone.

    train/n01440764/n01440764_10026.JPEG
    train/n01440764/n01440764_10027.JPEG
    train/n01443537/n01443537_10007.JPEG

    Yields the images that are held out for imagenet_held_out, and the others for imagenet_train.
    """
    tree.require("train")
    for entry in by_class(tree, "train", _wnid_classes(), bare=True):
        _, wnid, name = entry.path.split("/")
        if not name.startswith(wnid) and (own := re.match(r"n\d{8}_", name)):
            raise DataError(
                f"{tree.root / entry.path}: expected images of {wnid} in this folder, found one of {own[0][:-1]} by "
                "its name. Move it to the folder of its class, or unpack both classes again."
            )
        if is_held_out(entry.image_id, tree.held_out) == (tree.dataset == HELD_OUT):
            yield entry
        else:
            tree.ignored[ELSEWHERE] += 1


def is_held_out(image_id: str, share: float) -> bool:
    """Whether a training image is held out: its hash, a number from 0 to 1, is below the share.

    So it does not depend on other images, and a larger share holds out the same images and further ones.
    """
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _imagenet_val(tree: Tree) -> Iterator[Entry]:
    """ILSVRC2012 validation images, in wnid folders or in one folder with the devkit; image_id is the stem alone.

    val/n01440764/ILSVRC2012_val_00000293.JPEG
    val/ILSVRC2012_val_00000293.JPEG
    ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt
    """
    tree.require("val")
    if not tree.folders("val"):
        yield from flat_val(tree)
        return
    for entry in by_class(tree, "val", _wnid_classes(), bare=True):
        val_position(entry.image_id, tree.root / entry.path)  # real labels, lists and the count rely on these names
        yield entry


def _imagenet_real(tree: Tree) -> Iterator[Entry]:
    """Reassessed labels of the validation images: list i belongs to ILSVRC2012_val_{i+1:08d}.

    [[], [970, 795], [230, 231], [809], [516, 850], [57], ...]
    """
    lists = _real_lists(tree)
    if tree.val is None:
        raise DataError(
            "imagenet_real: expected the manifest of imagenet_val (`val=`), found none. Build that one first."
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
    """ImageNet-V2; the name of a folder is the class index, so folder 10 is class 10.

    imagenetv2-matched-frequency-format-val/0/7e4a8987a9a330189cc38c4098b1c57ac301713f.jpeg
    imagenetv2-matched-frequency-format-val/10/0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg
    imagenetv2-matched-frequency-format-val/999/8e1374a4e20d7af22665b7749158b7eb9fa3826e.jpeg
    """
    classes = {str(index): (index,) for index in range(len(wnids()))}
    return by_class(tree, _v2_folder(tree, "matched-frequency"), classes)


def _wnid_tree(tree: Tree) -> Iterator[Entry]:
    """ImageNet-A, -O, -R and -Sketch: wnid folders, 200 classes each except in Sketch.

    imagenet-a/n01498041/0.000116_digital clock _ digital clock_0.865662.jpg
    imagenet-r/n01443537/art_0.jpg
    sketch/n01440764/sketch_0.JPEG

    The label is the class of the folder. In ImageNet-O this is the class that models mistake the image for, not what
    the image shows (hendrycks/natural-adv-examples:README.md): never score it as a correct answer.
    """
    chosen = range(1000) if tree.dataset == "imagenet_sketch" else subset(tree.dataset)
    at = tree.parent_of(lambda name: re.fullmatch(r"n\d{8}", name) is not None)
    return by_class(tree, at, _wnid_classes(chosen))


def _imagenet_c(tree: Tree) -> Iterator[Entry]:
    """The 75 sets of ImageNet-C, or the 20 extra ones, at any depth; group and image_id start with both names.

    gaussian_noise/3/n01440764/ILSVRC2012_val_00000293.JPEG
    blur/defocus_blur/1/n01440764/ILSVRC2012_val_00000293.JPEG
    jpeg_compression/5/n15075141/ILSVRC2012_val_00049174.JPEG
    """
    extra = tree.dataset == "imagenet_c_extra"
    chosen, others = (EXTRA_CORRUPTIONS, CORRUPTIONS) if extra else (CORRUPTIONS, EXTRA_CORRUPTIONS)
    folders = tree.all_named({*chosen, *others})
    own = [at for at in folders if basename(at) in chosen]
    tree.ignored["corruptions of mCE" if extra else "extra corruptions"] += len(folders) - len(own)
    sets = [(f"{basename(at)}/{severity}", f"{at}/{severity}") for at in own for severity in tree.folders(at)]
    if not sets:
        raise tree.nothing()
    groups = {f"{corruption}/{severity}": severity for corruption in chosen for severity in range(1, 6)}
    for group, at in sets:
        look_up(group, groups, "a severity 1 to 5", str(tree.root / at))
    tree.complete((group for group, _ in sets), groups, f"{len(groups)} sets")
    for group, at in sets:
        yield from by_class(tree, at, _wnid_classes(), group)


def _objectnet(tree: Tree) -> Iterator[Entry]:
    """ObjectNet's folders that overlap ImageNet, each labelled with all its ImageNet indices.

    objectnet-1.0/images/alarm_clock/0a1b2c3d4e5f678.png
    objectnet-1.0/images/t-shirt/fedcba987654321.png
    objectnet-1.0/images/air_freshener/123456789abcdef.png   (not a class of ImageNet: ignored and counted)
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
        key = _number_or_text(basename(entry.image_id))
        if key not in factors:
            raise DataError(
                f"{source}: expected a row for the image {entry.path}, found none with image_id {key}. Fetch the "
                f"metadata.csv of {tree.dataset} again; each release of the images has its own."
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
    localization.txt   val2/995/0.jpeg,156,163,318,230   (an image can have several rows)

    The lists number images from 0 to 9; V2 archives packed since 2020 name them by hashes (clovaai/wsolevaluation
    issue 42). An optional image_names.txt next to the lists (val2/995/0.jpeg,995/<hash>.jpeg) maps one to the other.
    """
    at = _v2_folder(tree, "threshold")
    folder, prefix = lists_folder(tree, "val")
    names_file = folder / f"{prefix}image_names.txt"
    names = {row[0]: row[1] for row in list_rows(names_file, 2)} if names_file.is_file() else {}
    present = {
        IMAGE_SUFFIX.sub("", path.removeprefix(join(at, ""))): path
        for name in tree.folders(at)
        for _, path in tree.images(join(at, name))
    }

    def place(listed: str) -> tuple[str, str | None]:
        local = listed.removeprefix("val2/")
        return IMAGE_SUFFIX.sub("", local), present.get(IMAGE_SUFFIX.sub("", names.get(listed, local)))

    return listed_entries(tree, folder, prefix, place)


def _wsol_test(tree: Tree) -> Iterator[Entry]:
    """ImageNet's validation images, in one folder or in wnid folders, with labels and boxes from the lists.

    image_ids.txt      val/ILSVRC2012_val_00000001.JPEG
    class_labels.txt   val/ILSVRC2012_val_00000001.JPEG,65
    localization.txt   val/ILSVRC2012_val_00000001.JPEG,111,108,441,193
    """
    tree.require("val")
    folders = ["val", *(f"val/{name}" for name in tree.folders("val"))]
    present = {stem: path for at in folders for stem, path in tree.images(at)}

    def place(listed: str) -> tuple[str, str | None]:
        stem = IMAGE_SUFFIX.sub("", basename(listed))
        return stem, present.get(stem)

    return listed_entries(tree, *lists_folder(tree, "test"), place)


LAYOUTS: dict[str, Callable[[Tree], Iterator[Entry]]] = {
    **dict.fromkeys(("imagenet_train", HELD_OUT), _imagenet_train),
    "imagenet_val": _imagenet_val,
    "imagenet_real": _imagenet_real,
    "imagenet_v2": _imagenet_v2,
    **dict.fromkeys(("imagenet_a", "imagenet_o", "imagenet_r", "imagenet_sketch"), _wnid_tree),
    **dict.fromkeys(("imagenet_c", "imagenet_c_extra"), _imagenet_c),
    "objectnet": _objectnet,
    **dict.fromkeys(("siscore_size", "siscore_location", "siscore_rotation"), _siscore),
    "in9": _in9,
    "wsol_val": _wsol_val,
    "wsol_test": _wsol_test,
    **dict.fromkeys(("coco_train", "coco_val"), coco_entries),
    **dict.fromkeys(OWN, folder_entries),
    OWN_TESTS: own_test_entries,
}
"""The reader of each data set's images, by name of the manifest; `DATA_SETS` describes the folders."""


def image_paths(tree: Tree) -> Iterator[str]:
    """Yields the paths of a data set's images, without reading instances and localisation lists, which takes longer."""
    if tree.dataset.startswith("coco_"):
        yield from coco_files(tree)[1].values()
    elif tree.dataset in OWN:
        yield from (image.path for image in own_images(tree))
    elif tree.dataset.startswith("wsol_"):
        at = "val" if tree.dataset == "wsol_test" else _v2_folder(tree, "threshold")
        for folder in (at, *(join(at, name) for name in tree.folders(at))):
            yield from (path for _, path in tree.images(folder))
    else:
        yield from (entry.path for entry in LAYOUTS[tree.dataset](tree))


_FACTORS = {
    "siscore_size": ("area",),
    "siscore_location": ("x_coord", "y_coord"),
    "siscore_rotation": ("rotation",),
}


def _v2_folder(tree: Tree, variant: str) -> str:
    """Returns the folder of ImageNet-V2's class folders; only its name tells the three variants apart."""
    at = tree.parent_of(str.isdecimal)
    name = basename(at) or tree.root.name
    released = re.match(r"imagenetv2-(matched-frequency|threshold|top)", name)
    if released and released[1] != variant:
        raise DataError(
            f"{tree.root / at}: expected the variant {tree.expected} of ImageNet-V2 for {tree.dataset}, found another "
            f"one. Set `paths.copies.{tree.dataset}` to a folder that holds only this variant."
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
    """Returns the factor of each image id, as text, and the file that holds them."""
    base = tree.root / at
    places = [folder / "metadata.csv" for folder in (tree.root, base, base.parent)]
    source = next((place for place in places if place.is_file()), None)
    columns = _FACTORS[tree.dataset]
    if source is None:
        raise DataError(
            f"{places[0]}: expected SI-Score's side file with the columns {', '.join(('image_id', *columns))}, found "
            f"no file. Put the metadata.csv of {tree.dataset} into the data set's folder."
        )
    with open(source, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"image_id", *columns} <= set(reader.fieldnames or ()):
            raise DataError(
                f"{source}: expected the columns image_id and {', '.join(columns)}, found {reader.fieldnames}. Does "
                f"the file belong to another SI-Score set? Replace it with the metadata.csv of {tree.dataset}."
            )
        return {
            _number_or_text(row["image_id"]): ",".join(_factor(row[c], c, source) for c in columns) for row in reader
        }, source


def _factor(text: str | None, column: str, source: Path) -> str:
    """Returns a factor in its shortest form: 0.05, 121."""
    try:
        return f"{round(float(text or ''), 2):g}"
    except ValueError as error:
        raise DataError(f"{source}: expected a number in {column}, found {text!r}. Fetch the file again.") from error


def _check_masks(tree: Tree, at: str, entries: list[Entry]) -> None:
    """Checks that every image of `original` has the foreground mask that the challenge cuts it out with."""
    masks = set()
    for name in {entry.image_id.split("/")[1] for entry in entries}:
        folder = tree.root / at / name
        files = os.listdir(folder) if folder.is_dir() else []
        masks |= {f"original/{name}/{file.removesuffix('.npy')}" for file in files if file.endswith(".npy")}
    missing = [entry.image_id for entry in entries if entry.image_id not in masks]
    if missing:
        raise DataError(
            f"{tree.root / at}: expected a mask <class>/<stem>.npy for each image of `original`, found none for "
            f"{len(missing)} of {len(entries)}, first {missing[0]}. Unpack the archive again."
        )


def _wnid_classes(indices: Iterable[int] = range(1000)) -> dict[str, tuple[int, ...]]:
    return {wnids()[index]: (index,) for index in indices}


def _number_or_text(text: str) -> str:
    """Returns the key that file names and metadata share: 007 and 7 are the same id."""
    return str(int(text)) if text.isdecimal() else text
