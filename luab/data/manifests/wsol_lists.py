"""The lists of the localisation benchmark: image ids, labels, sizes and boxes as comma-separated text."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from luab.data.manifests.labels import wnids
from luab.data.manifests.tree import Entry, Tree
from luab.errors import DataError


def lists_folder(tree: Tree, split: str) -> tuple[Path, str]:
    """Where the lists of a split lie, and what their names begin with."""
    if tree.lists is None:
        raise DataError(f"{tree.dataset}: expected the folder of the localisation lists (`lists=`), found none given.")
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
        f"{tree.lists}: expected {split}/image_ids.txt or wsol_{split}_image_ids.txt with class_labels, image_sizes "
        "and localization beside it; they are not there. Fetch the lists of clovaai/wsolevaluation (metadata/ILSVRC)."
    )


def listed_entries(
    tree: Tree, folder: Path, prefix: str, place: Callable[[str], tuple[str, str | None]]
) -> Iterator[Entry]:
    """Entries of the localisation lists; `place` gives an id and, if the image is there, its path."""
    labels_file = folder / f"{prefix}class_labels.txt"
    label = {row[0]: int(row[1]) for row in list_rows(labels_file, 2)}
    if beyond := [listed for listed, index in label.items() if index >= len(wnids())]:
        raise DataError(
            f"{labels_file}: expected classes from 0 to {len(wnids()) - 1}, found {label[beyond[0]]} for {beyond[0]}. "
            "Fetch the lists again."
        )
    size = {row[0]: (int(row[1]), int(row[2])) for row in list_rows(folder / f"{prefix}image_sizes.txt", 3)}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for listed, *corners in list_rows(folder / f"{prefix}localization.txt", 5):
        boxes.setdefault(listed, []).append(tuple(map(int, corners)))
    ids = [row[0] for row in list_rows(folder / f"{prefix}image_ids.txt", 1)]
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
            "Archives of ImageNet-V2 packed since 2020 name images by hashes: see clovaai/wsolevaluation issue 42, "
            "and put an image_names.txt (val2/0/0.jpeg,0/<hash>.jpeg) beside the lists."
            if tree.dataset == "wsol_val"
            else "Copy the missing images there, or set `paths.partial: true` if the tree holds only some."
        )
        raise DataError(
            f"{tree.root}: expected the {n} images that the lists name, found {n - len(missing)}; missing are "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. {hint}"
        )
    tree.ignored["listed images that are not there"] += len(missing)


def _all_listed(ids: list[str], table: Mapping[str, object], path: Path) -> None:
    lost = [listed for listed in ids if listed not in table]
    if lost:
        raise DataError(
            f"{path}: expected a row for each of the {len(ids)} image ids, found none for {len(lost)}, first "
            f"{lost[0]}. Fetch the lists again."
        )


def list_rows(path: Path, fields: int) -> Iterator[list[str]]:
    """Rows of a list: an image id, then integers or a name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected this localisation list; it is not there. Fetch the lists again.") from error
    numbers = not path.name.endswith("image_names.txt")
    for number, line in enumerate(lines, start=1):
        row = line.split(",")
        if len(row) != fields or (numbers and not all(n.isdecimal() and len(n) < 10 for n in row[1:])):
            raise DataError(
                f"{path}, line {number}: expected an image id and {fields - 1} whole numbers, found {line!r}. Fetch "
                "the lists again."
            )
        yield row
