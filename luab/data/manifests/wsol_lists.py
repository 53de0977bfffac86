"""Lists of the localisation benchmark: image ids, labels, sizes and boxes as comma-separated text."""

from collections.abc import Callable, Iterator
from pathlib import Path

from luab.data.manifests.labels import wnids
from luab.data.manifests.tree import Entry, Tree
from luab.errors import DataError


def lists_folder(tree: Tree, split: str) -> tuple[Path, str]:
    """Returns the folder of a split's lists and the prefix of their file names."""
    if tree.lists is None:
        raise DataError(f"{tree.dataset}: expected the folder of the localisation lists (`lists=`), found none.")
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
        f"{tree.lists}: expected {split}/image_ids.txt or wsol_{split}_image_ids.txt, and class_labels, image_sizes "
        "and localization next to it; found none. Fetch the lists of clovaai/wsolevaluation (metadata/ILSVRC)."
    )


def listed_entries(
    tree: Tree, folder: Path, prefix: str, place: Callable[[str], tuple[str, str | None]]
) -> Iterator[Entry]:
    """Yields the images of the localisation lists.

    `place` returns image_id and path of a listed image; the path is None if the image is missing.
    """

    def rows(name: str, fields: int) -> Iterator[list[str]]:
        return list_rows(folder / f"{prefix}{name}.txt", fields)

    label = {row[0]: int(row[1]) for row in rows("class_labels", 2)}
    for listed, index in label.items():
        if index >= len(wnids()):
            raise DataError(
                f"{folder / f'{prefix}class_labels.txt'}: expected classes from 0 to {len(wnids()) - 1}, found "
                f"{index} for {listed}. Fetch the lists again."
            )
    size = {row[0]: (int(row[1]), int(row[2])) for row in rows("image_sizes", 3)}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for listed, *corners in rows("localization", 5):
        boxes.setdefault(listed, []).append(tuple(map(int, corners)))
    ids = [row[0] for row in rows("image_ids", 1)]
    for name, table in (("class_labels", label), ("image_sizes", size), ("localization", boxes)):
        if lost := [listed for listed in ids if listed not in table]:
            raise DataError(
                f"{folder / f'{prefix}{name}.txt'}: expected a row for each of the {len(ids)} image ids, found none "
                f"for {len(lost)}, first {lost[0]}. Fetch the lists again."
            )
    places = {listed: place(listed) for listed in ids}
    missing = [listed for listed, (_, path) in places.items() if path is None]
    advice = "Copy the missing images there, or set `paths.partial: true`"
    if tree.dataset == "wsol_val":
        advice = (
            "Archives of ImageNet-V2 packed since 2020 name images by hashes (clovaai/wsolevaluation issue 42): put an "
            "image_names.txt with lines like val2/0/0.jpeg,0/<hash>.jpeg next to the lists; or set `paths.partial: "
            "true`"
        )
    tree.check_listed(missing, len(ids), "image_ids.txt", advice)
    for listed, (image_id, path) in places.items():
        if path is not None:
            yield Entry(image_id, path, (label[listed],), "", *size[listed], tuple(boxes[listed]))


def list_rows(path: Path, fields: int) -> Iterator[list[str]]:
    """Yields the rows of a list: an image id, then whole numbers; in image_names.txt, then a file name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected this localisation list, found no file. Fetch the lists again.") from error
    numbers = not path.name.endswith("image_names.txt")
    for number, line in enumerate(lines, start=1):
        row = line.split(",")
        if len(row) != fields or (numbers and not all(n.isdecimal() and len(n) < 10 for n in row[1:])):
            raise DataError(
                f"{path}, line {number}: expected an image id and {fields - 1} whole numbers, found {line!r}. Fetch "
                "the lists again."
            )
        yield row
